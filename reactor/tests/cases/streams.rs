//! Bytes: sent, received, in order, all of them.

use std::io::{Read, Write};

use ringlane_api::fd::FdKind;
use ringlane_api::limits;
use ringlane_api::reactor::{Family, Op, Outcome, SockName};
use ringlane_api::segment::{Home, Parts, Segment};

use crate::bench::{Bench, errno, parts, pattern, unique};

pub fn an_echo_comes_back_over_a_pair(mut bench: Bench) {
    let (a, b) = bench.pair();
    for round in 0..50u8 {
        let sent = bench.run(Op::Send { fd: a.clone(), parts: parts(&[round; 100]) });
        let Ok(Outcome::Sent(memory)) = sent else { panic!("{sent:?}") };
        assert_eq!(memory.len(), 100, "the memory comes back whole");
        assert_eq!(bench.receive(&b, 100), [round; 100]);
        bench.run(Op::Send { fd: b.clone(), parts: parts(&[round + 1]) }).expect("sent");
        assert_eq!(bench.receive(&a, 1), [round + 1]);
    }
}

pub fn an_echo_comes_back_over_tcp(mut bench: Bench) {
    let (a, b) = bench.tcp();
    let (token, _) = bench.push(Op::Recv { fd: b.clone(), limit: 1_000_000 });
    for round in 0..50u8 {
        bench.run(Op::Send { fd: a.clone(), parts: parts(&[round; 64]) }).expect("sent");
        let mut got = 0;
        while got < 64 {
            let completion = bench.next(token);
            assert!(completion.more);
            let Ok(Outcome::Received(segment)) = completion.result else { panic!("no bytes") };
            assert!(segment.bytes().iter().all(|&byte| byte == round));
            got += segment.len();
        }
        bench.run(Op::Send { fd: b.clone(), parts: parts(b"pong") }).expect("sent");
        assert_eq!(bench.receive(&a, 4), b"pong");
    }
}

pub fn a_receive_ends_at_its_limit_and_the_rest_waits(mut bench: Bench) {
    let (a, b) = bench.pair();
    let bytes = pattern(100_000);
    bench.run(Op::Send { fd: a, parts: parts(&bytes) }).expect("sent");
    let limit = 40_000;
    let (token, _) = bench.push(Op::Recv { fd: b.clone(), limit });
    let (mut got, block) = (Vec::new(), bench.reactor.home().block_bytes());
    loop {
        let completion = bench.next(token);
        let Ok(Outcome::Received(segment)) = completion.result else { panic!("no bytes") };
        got.extend_from_slice(segment.bytes());
        if !completion.more {
            break;
        }
    }
    assert!(got.len() <= limit as usize + block, "{} B are over the limit", got.len());
    bench.quiet_turns();
    assert!(bench.seen.is_empty(), "nothing comes unasked");
    let rest = bench.receive(&b, bytes.len() - got.len());
    got.extend(rest);
    assert!(got == bytes);
}

pub fn a_receive_of_one_byte_takes_one(mut bench: Bench) {
    let (a, b) = bench.pair();
    bench.run(Op::Send { fd: a, parts: parts(b"ab") }).expect("sent");
    let (token, _) = bench.push(Op::Recv { fd: b.clone(), limit: 1 });
    let completion = bench.next(token);
    let Ok(Outcome::Received(first)) = completion.result else { panic!("no bytes") };
    assert!(!completion.more);
    let mut got = first.bytes().to_vec();
    if got.len() < 2 {
        got.extend(bench.receive(&b, 1));
    }
    assert_eq!(got, b"ab");
}

pub fn the_end_of_a_stream_comes_once_behind_its_last_byte(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let (token, _) = bench.push(Op::Recv { fd: ours, limit: 1000 });
    bench.quiet_turns();
    theirs.write_all(b"last words").expect("written");
    drop(theirs);
    let mut got = Vec::new();
    loop {
        let completion = bench.next(token);
        match completion.result.expect("no error") {
            Outcome::Received(segment) => got.extend_from_slice(segment.bytes()),
            Outcome::Eof => {
                assert!(!completion.more);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, b"last words");
    bench.quiet_turns();
    assert!(bench.seen.is_empty());
}

pub fn an_end_that_comes_with_the_last_bytes_is_found(mut bench: Bench) {
    let (a, b) = bench.tcp();
    let (token, _) = bench.push(Op::Recv { fd: b, limit: 1_000_000 });
    // A few short reads first: the reactor knows this descriptor by then.
    for _ in 0..3 {
        bench.run(Op::Send { fd: a.clone(), parts: parts(b"x") }).expect("sent");
        assert!(matches!(bench.next(token).result, Ok(Outcome::Received(_))));
    }
    let mut peer = std::net::TcpStream::from(a.into_os().expect("the only holder"));
    peer.write_all(b"last").expect("written");
    drop(peer);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(matches!(bench.next(token).result, Ok(Outcome::Received(_))));
    let end = bench.next(token);
    assert!(matches!(end.result, Ok(Outcome::Eof)) && !end.more);
}

pub fn an_end_that_came_before_the_receive_is_found(mut bench: Bench) {
    let (a, b) = bench.tcp();
    // A receive in advance, so that the descriptor is known before the end comes.
    bench.run(Op::Send { fd: a.clone(), parts: parts(b"x") }).expect("sent");
    assert_eq!(bench.receive(&b, 1), b"x");
    drop(a);
    bench.quiet_turns();
    let end = bench.run(Op::Recv { fd: b, limit: 10 });
    assert!(matches!(end, Ok(Outcome::Eof)), "{end:?}");
}

pub fn a_big_send_goes_on_as_the_slow_reader_reads(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let bytes = pattern(8 * 1024 * 1024);
    let expected = bytes.clone();
    let reader = std::thread::spawn(move || {
        let (mut got, mut room) = (Vec::new(), vec![0; 10_000]);
        while got.len() < expected.len() {
            let n = theirs.read(&mut room).expect("bytes in time");
            got.extend_from_slice(&room[..n]);
            if got.len() % 7 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        assert!(got == expected, "every byte in its place");
    });
    let mut rest: Vec<Segment> = bytes.chunks(50_000).map(Segment::copied).collect();
    let first = rest.remove(0);
    let sent = bench.run(Op::Send { fd: ours, parts: Parts { first, rest } });
    let Ok(Outcome::Sent(memory)) = sent else { panic!("{sent:?}") };
    assert_eq!(memory.len(), bytes.len());
    reader.join().expect("it read everything");
}

pub fn a_send_to_a_peer_that_is_gone_fails_and_gives_the_memory_back(mut bench: Bench) {
    let (ours, theirs) = bench.half();
    drop(theirs);
    let (token, _) = bench.push(Op::Send { fd: ours, parts: parts(&[7; 1000]) });
    let completion = bench.next(token);
    assert_eq!(errno(completion.result), Some(nix::libc::EPIPE));
    assert_eq!(completion.parts.expect("the memory").len(), 1000);
}

pub fn a_bulk_receive_takes_its_block_when_bytes_are_there(mut bench: Bench) {
    let (a, b) = bench.pair();
    let home = Home::new(128 * 1024, 4);
    let bytes = pattern(300_000);
    let (sending, _) = bench.push(Op::Send { fd: a.clone(), parts: parts(&bytes) });
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        let (fd, home) = (b.clone(), home.clone());
        let op = Op::RecvBulk { fd, home, limit: 100_000, eager: got.len() > 50_000 };
        let Ok(Outcome::Received(segment)) = bench.run(op) else { panic!("no bytes") };
        assert!(segment.is_block() && segment.len() <= 100_000);
        got.extend_from_slice(segment.bytes());
    }
    assert!(got == bytes);
    assert!(matches!(bench.next(sending).result, Ok(Outcome::Sent(_))));
    assert_eq!(home.out(), 0);
    drop(a);
    let op = Op::RecvBulk { fd: b, home: home.clone(), limit: 100_000, eager: false };
    assert!(matches!(bench.run(op), Ok(Outcome::Eof)));
    assert_eq!(home.out(), 0);
}

pub fn a_bulk_receive_does_not_wait_for_blocks_that_others_keep(mut bench: Bench) {
    let (a, b) = bench.pair();
    let home = Home::new(limits::BULK_BLOCK_BYTES, limits::BULK_HOME_BLOCKS_MAX);
    let kept: Vec<_> = (0..limits::BULK_HOT_BLOCKS).map(|_| home.take()).collect();
    let bytes = pattern(50_000);
    let (sending, _) = bench.push(Op::Send { fd: a.clone(), parts: parts(&bytes) });
    assert!(matches!(bench.next(sending).result, Ok(Outcome::Sent(_))));
    let op = || {
        let (fd, home) = (b.clone(), home.clone());
        Op::RecvBulk { fd, home, limit: limits::BULK_BLOCK_BYTES as u32, eager: false }
    };
    let Ok(Outcome::Received(segment)) = bench.run(op()) else { panic!("no bytes") };
    // A small block would have held less.
    assert!(segment.len() > limits::BLOCK_BYTES, "{} bytes", segment.len());
    assert_eq!((home.out(), home.moving()), (kept.len() + 1, 1));
    let more: Vec<_> = (home.out()..limits::BULK_BLOCKS_MAX).map(|_| home.take()).collect();
    let (sending, _) = bench.push(Op::Send { fd: a, parts: parts(&bytes) });
    assert!(matches!(bench.next(sending).result, Ok(Outcome::Sent(_))));
    let Ok(Outcome::Received(small)) = bench.run(op()) else { panic!("no bytes") };
    assert!(small.len() <= limits::BLOCK_BYTES);
    drop((kept, more, segment));
    assert_eq!((home.out(), home.moving()), (0, 0));
}

pub fn a_pipe_is_written_and_read(mut bench: Bench) {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let read = bench.sys().adopt(read).expect("taken in");
    let write = bench.sys().adopt(write).expect("taken in");
    assert_eq!(read.kind(), FdKind::Pollable);
    let bytes = pattern(300_000);
    let (sending, _) = bench.push(Op::Send { fd: write.clone(), parts: parts(&bytes) });
    let got = bench.receive(&read, bytes.len());
    assert!(got == bytes);
    assert!(matches!(bench.next(sending).result, Ok(Outcome::Sent(_))));
    drop(write);
    assert!(matches!(bench.run(Op::Recv { fd: read, limit: 5 }), Ok(Outcome::Eof)));
}

pub fn several_connections_are_accepted_by_one_op(mut bench: Bench) {
    let (listener, to) = bench.listener();
    let (accept, _) = bench.push(Op::Accept { fd: listener, limit: 5 });
    let mut asked = Vec::new();
    for _ in 0..7 {
        let fd = bench.sys().socket(Family::Inet4).expect("a socket");
        asked.push((bench.push(Op::Connect { fd: fd.clone(), to: to.clone() }).0, fd));
    }
    for more in [true, true, true, true, false] {
        let completion = bench.next(accept);
        assert!(matches!(completion.result, Ok(Outcome::Accepted(_))));
        assert_eq!(completion.more, more);
    }
    for (token, _) in asked {
        assert!(matches!(bench.next(token).result, Ok(Outcome::Done)));
    }
    assert!(bench.peek(accept).is_none(), "the limit is the end");
}

pub fn a_connect_to_nobody_is_refused(mut bench: Bench) {
    let (listener, to) = bench.listener();
    drop(listener);
    let fd = bench.sys().socket(Family::Inet4).expect("a socket");
    let result = bench.run(Op::Connect { fd, to });
    assert_eq!(errno(result), Some(nix::libc::ECONNREFUSED));
}

pub fn a_unix_connect_waits_for_a_full_backlog(mut bench: Bench) {
    let name = SockName::Abstract(format!("ringlane-full-{}", unique()).into_bytes());
    let listener = bench.sys().socket(Family::Unix).expect("a socket");
    bench.sys().bind(&listener, &name).expect("named");
    bench.sys().listen(&listener, 1).expect("it listens");
    let mut asked = Vec::new();
    for _ in 0..6 {
        let fd = bench.sys().socket(Family::Unix).expect("a socket");
        asked.push((bench.push(Op::Connect { fd: fd.clone(), to: name.clone() }).0, fd));
    }
    bench.quiet_turns();
    let (accept, _) = bench.push(Op::Accept { fd: listener, limit: 6 });
    for _ in 0..6 {
        assert!(matches!(bench.next(accept).result, Ok(Outcome::Accepted(_))));
    }
    for (token, _) in asked {
        let result = bench.next(token).result;
        assert!(matches!(result, Ok(Outcome::Done)), "{result:?}");
    }
}
