//! The simulator keeps the rules of `ringlane_api::reactor`, whatever its moods.
#![allow(clippy::unwrap_used)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ringlane_api::fd::Fd;
use ringlane_api::reactor::{
    Completion, Family, Op, Outcome, Reactor, Side, SockName, SockOption, Sys, Token,
};
use ringlane_api::segment::{Parts, Segment};
use ringlane_kit::sim::{Fault, Faults, Rng, Setup, SimReactor, World};

fn token(kind: u8) -> Token {
    Token::new(0, kind, 0, 0)
}

fn parts(bytes: &[u8]) -> Parts {
    Parts { first: Segment::copied(bytes), rest: Vec::new() }
}

/// Turns until a completion comes.
fn some(reactor: &mut SimReactor) -> Vec<Completion> {
    let mut done = Vec::new();
    while done.is_empty() {
        reactor.turn(None, &mut done).unwrap();
    }
    done
}

fn listener(reactor: &mut SimReactor) -> (Fd, SockName) {
    let fd = reactor.socket(Family::Inet4).unwrap();
    let at: SocketAddr = "127.0.0.1:0".parse().unwrap();
    reactor.bind(&fd, &SockName::Inet(at)).unwrap();
    reactor.listen(&fd, 16).unwrap();
    let name = reactor.local_name(&fd).unwrap();
    (fd, name)
}

fn connection(reactor: &mut SimReactor) -> (Fd, Fd) {
    let (listening, to) = listener(reactor);
    let client = reactor.socket(Family::Inet4).unwrap();
    reactor.push(token(1), Op::Connect { fd: client.clone(), to });
    let accept = reactor.push(token(2), Op::Accept { fd: listening, limit: 1 });
    let (mut server, mut connected) = (None, false);
    while server.is_none() || !connected {
        for completion in some(reactor) {
            match completion.result.unwrap() {
                Outcome::Accepted(fd) => server = Some(fd),
                Outcome::Done => connected = true,
                other => panic!("{other:?}"),
            }
        }
    }
    reactor.cancel(accept);
    (client, server.unwrap())
}

#[test]
fn bytes_arrive_in_order_and_complete_under_every_mild_fault() {
    let mut tally = ringlane_kit::sim::Tally::default();
    for seed in 0..40 {
        let faults = Faults::mild();
        let world = World::new(Setup { seed, faults, socket_bytes: 4096, ..Setup::default() });
        let mut reactor = world.reactor();
        let (client, server) = connection(&mut reactor);
        let mut rng = Rng::new(seed);
        let data: Vec<u8> = (0..60_000).map(|_| rng.draw() as u8).collect();
        reactor.push(token(3), Op::Send { fd: client.clone(), parts: parts(&data) });
        reactor.push(token(4), Op::Recv { fd: server.clone(), limit: 5000 });
        let (mut got, mut sent) = (Vec::new(), false);
        while got.len() < data.len() || !sent {
            for completion in some(&mut reactor) {
                match completion.result.unwrap() {
                    Outcome::Received(segment) => {
                        got.extend_from_slice(segment.bytes());
                        if !completion.more {
                            let fd = server.clone();
                            reactor.push(token(4), Op::Recv { fd, limit: 5000 });
                        }
                    }
                    Outcome::Sent(parts) => {
                        assert_eq!(parts.len(), data.len());
                        sent = true;
                        reactor.shutdown(&client, Side::Write).unwrap();
                    }
                    Outcome::Eof => assert_eq!(got.len(), data.len(), "seed {seed}"),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(got == data, "seed {seed}");
        assert_eq!(world.violations(), Vec::<String>::new());
        tally.add(&world.tally());
    }
    for fault in [Fault::ShortReceive, Fault::ShortSend, Fault::Late, Fault::EndedEarly] {
        assert!(tally.of(fault) > 0, "{fault:?} was never injected");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let setup = Setup { seed, faults: Faults::mild(), ..Setup::default() };
        let world = World::new(setup);
        let mut reactor = world.reactor();
        let (client, server) = connection(&mut reactor);
        reactor.push(token(3), Op::Send { fd: client, parts: parts(&[7; 5000]) });
        reactor.push(token(4), Op::Recv { fd: server, limit: 5000 });
        let mut log = String::new();
        for _ in 0..4 {
            let mut done = Vec::new();
            reactor.turn(Some(Duration::from_millis(1)), &mut done).unwrap();
            log += &format!("{:?} {done:?}\n", world.elapsed());
        }
        log
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_cancelled_receive_completes_once_and_closed_numbers_are_reused_lowest_first() {
    let world = World::new(Setup::default());
    let mut reactor = world.reactor();
    let (a, b) = reactor.pair().unwrap();
    let number = a.number();
    let id = reactor.push(token(1), Op::Recv { fd: a.clone(), limit: 1 });
    drop(a);
    reactor.cancel(id);
    let done = some(&mut reactor);
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].result.as_ref().unwrap_err().raw_os_error(), Some(125));
    drop(done);
    let again = reactor.socket(Family::Unix).unwrap();
    assert_eq!(again.number(), number, "a descriptor of a dead op must not stay open");
    drop((b, again));
    assert_eq!(world.open_fds(), 0);
    assert_eq!(world.descriptions(), 0);
}

#[test]
fn refused_reset_and_full_are_told_apart() {
    let world = World::new(Setup { fail_when_stalled: true, ..Setup::default() });
    let mut reactor = world.reactor();
    let (listening, name) = listener(&mut reactor);
    drop(listening);
    let fd = reactor.socket(Family::Inet4).unwrap();
    reactor.push(token(1), Op::Connect { fd, to: name });
    let refused = some(&mut reactor).remove(0).result.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

    let (client, server) = connection(&mut reactor);
    reactor.set(&client, SockOption::ResetOnClose(true)).unwrap();
    drop(client);
    reactor.push(token(2), Op::Recv { fd: server, limit: 1 });
    let reset = some(&mut reactor).remove(0).result.unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);

    let (full, _other) = reactor.pair().unwrap();
    reactor.push(token(3), Op::Send { fd: full, parts: parts(&vec![0; 1 << 20]) });
    let mut done = Vec::new();
    let stalled = loop {
        match reactor.turn(None, &mut done) {
            Ok(()) => assert!(done.is_empty()),
            Err(error) => break error,
        }
    };
    assert!(stalled.to_string().contains("stalled"));
}

#[test]
fn two_sends_at_a_time_are_noted_as_a_violation() {
    let world = World::new(Setup::default());
    let mut reactor = world.reactor();
    let (a, _b) = reactor.pair().unwrap();
    for _ in 0..2 {
        reactor.push(token(1), Op::Send { fd: a.clone(), parts: parts(b"x") });
    }
    assert_eq!(world.violations().len(), 1);
}

#[test]
fn passed_descriptors_name_the_same_socket_under_a_new_number() {
    let world = World::new(Setup::default());
    let mut reactor = world.reactor();
    let (a, b) = reactor.pair().unwrap();
    let (gift, other) = reactor.pair().unwrap();
    let fds = vec![gift.clone()];
    reactor.push(token(1), Op::SendMsg { fd: a.clone(), parts: parts(b"x"), fds });
    reactor.push(token(2), Op::RecvMsg { fd: b.clone(), limit: 10 });
    let mut got = None;
    while got.is_none() {
        for completion in some(&mut reactor) {
            if let Outcome::Message(message) = completion.result.unwrap() {
                got = Some(message);
            }
        }
    }
    let mut message = got.unwrap();
    assert_eq!((message.segment.bytes(), message.fds.len()), (&b"x"[..], 1));
    let received = message.fds.remove(0);
    drop(gift);
    reactor.push(token(3), Op::Send { fd: received.clone(), parts: parts(b"hi") });
    reactor.push(token(4), Op::Recv { fd: other.clone(), limit: 10 });
    let mut bytes = Vec::new();
    while bytes.len() < 2 {
        for completion in some(&mut reactor) {
            if let Outcome::Received(segment) = completion.result.unwrap() {
                bytes.extend_from_slice(segment.bytes());
            }
        }
    }
    assert_eq!(bytes, b"hi");
}
