//! The engine on its own: echoes under tiny rings, lies and forks, byte-exact.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::reactor::{
    Completion, Op, Outcome, Reactor, Ready, Side, SockName, Token, forked,
};
use ringlane_api::segment::{Home, Parts, Segment};

use super::Uring;
use crate::config::{Config, Engine, Fault};

const WAIT: Option<Duration> = Some(Duration::from_secs(5));

/// Runs a test on a thread of its own, and fails it when it hangs.
fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        // The other end waits below.
        let _ = done.send(());
    });
    match ended.recv_timeout(Duration::from_secs(120)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("hangs"),
        _ => thread.join().expect("the test passes"),
    }
}

fn config(tier: u8) -> Config {
    Config { engine: Engine::Tier(tier), ..Config::default() }
}

fn tiny(tier: u8) -> Config {
    Config { sq_entries: 4, cq_entries: 8, ring_blocks: 4, ring_blocks_max: 4, ..config(tier) }
}

fn lying(seed: u64) -> Fault {
    Fault {
        seed,
        enter_per_mille: 50,
        short_per_mille: 200,
        no_blocks_per_mille: 100,
        ended_per_mille: 100,
        late_per_mille: 200,
        ..Fault::default()
    }
}

/// Tiers that this kernel has, out of those worth testing.
fn tiers() -> Vec<u8> {
    let has = |tier: &u8| match Uring::new(&config(*tier)) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("skipped: u{tier}: {error}");
            false
        }
    };
    [1, 5].into_iter().filter(has).collect()
}

fn engine(config: &Config) -> Uring {
    Uring::new(config).expect("this kernel has io_uring")
}

fn wrap(fd: impl Into<OwnedFd>) -> Fd {
    Fd::from_os(fd.into(), FdKind::Socket)
}

fn token(kind: u8, slot: usize) -> Token {
    Token::new(0, kind, 0, slot as u32)
}

fn one(bytes: &[u8]) -> Parts {
    Parts { first: Segment::copied(bytes), rest: Vec::new() }
}

/// Turns until `wanted` completions with `more == false` have come.
fn finish(engine: &mut Uring, wanted: usize) -> Vec<Completion> {
    let mut all = Vec::new();
    while all.iter().filter(|c: &&Completion| !c.more).count() < wanted {
        engine.turn(WAIT, &mut all).expect("a turn");
    }
    all
}

fn errno(completion: &Completion) -> Option<i32> {
    completion.result.as_ref().err().and_then(io::Error::raw_os_error)
}

const RECV: u8 = 0;
const SEND: u8 = 1;

/// One end of an echo: a client that sends a pattern and checks it, or a server.
struct End {
    fd: Fd,
    client: bool,
    queued: VecDeque<Segment>,
    sending: bool,
    sent: usize,
    received: usize,
    total: usize,
}

fn pattern(link: usize, at: usize) -> u8 {
    (link.wrapping_mul(31) ^ at ^ (at >> 8).wrapping_mul(7)) as u8
}

impl End {
    fn produce(&mut self, link: usize) {
        if self.client && self.queued.is_empty() && self.sent < self.total {
            for chunk in [100, 9000, 1, 40_000] {
                let len = chunk.min(self.total - self.sent);
                let at = self.sent;
                let bytes: Vec<u8> = (at..at + len).map(|i| pattern(link, i)).collect();
                if len > 0 {
                    self.queued.push_back(Segment::copied(&bytes));
                }
                self.sent += len;
            }
        }
    }

    fn pump(&mut self, engine: &mut Uring, at: usize) {
        self.produce(at / 2);
        if self.sending {
            return;
        }
        let Some(first) = self.queued.pop_front() else { return };
        let rest = self.queued.drain(..).take(63).collect();
        self.sending = true;
        let op = Op::Send { fd: self.fd.clone(), parts: Parts { first, rest } };
        engine.push(token(SEND, at), op);
    }

    fn take(&mut self, segment: Segment, link: usize) {
        if !self.client {
            self.received += segment.len();
            self.queued.push_back(segment);
            return;
        }
        for (i, byte) in segment.bytes().iter().enumerate() {
            assert_eq!(*byte, pattern(link, self.received + i), "link {link}");
        }
        self.received += segment.len();
    }
}

/// `links` echoes of `total` bytes each, both ends on one engine.
fn echo(config: &Config, links: usize, total: usize) {
    let mut engine = engine(config);
    let mut ends = Vec::new();
    for _ in 0..links {
        let (a, b) = engine.sys().pair().expect("a pair");
        for (fd, client) in [(a, true), (b, false)] {
            ends.push(End {
                fd,
                client,
                queued: VecDeque::new(),
                sending: false,
                sent: 0,
                received: 0,
                total,
            });
        }
    }
    let arm = |engine: &mut Uring, fd: &Fd, at: usize| {
        engine.push(token(RECV, at), Op::Recv { fd: fd.clone(), limit: 32 * 1024 });
    };
    for (at, end) in ends.iter_mut().enumerate() {
        arm(&mut engine, &end.fd, at);
        end.pump(&mut engine, at);
    }
    let mut done = Vec::new();
    while ends.iter().any(|end| end.received < end.total) {
        engine.turn(WAIT, &mut done).expect("a turn");
        for completion in done.drain(..) {
            let at = completion.token.slot() as usize;
            let end = &mut ends[at];
            match completion.result.expect("no op fails") {
                Outcome::Received(segment) => {
                    end.take(segment, at / 2);
                    if !completion.more {
                        arm(&mut engine, &end.fd, at);
                    }
                }
                Outcome::Sent(_) => end.sending = false,
                other => panic!("{other:?}"),
            }
            ends[at].pump(&mut engine, at);
        }
    }
    println!("{:?}\n{:?}", engine.counters(), engine.report().details);
    let home = Rc::clone(engine.home());
    drop(ends);
    drop(engine);
    all_home(&home);
}

/// Nothing is out, and no shell of a block that the kernel kept holds on to its home.
fn all_home(home: &Rc<Home>) {
    assert_eq!((home.out(), Rc::strong_count(home)), (0, 1));
}

#[test]
fn an_echo_is_byte_exact_on_every_tier() {
    watched(|| {
        for tier in tiers() {
            echo(&config(tier), 40, 300_000);
        }
    });
}

#[test]
fn two_hundred_echoes_get_through_rings_of_four_entries_and_four_blocks() {
    watched(|| {
        for tier in tiers() {
            echo(&tiny(tier), 100, 60_000);
        }
    });
}

#[test]
fn an_echo_is_byte_exact_whatever_the_ring_lies() {
    watched(|| {
        for tier in tiers() {
            for seed in 1..6 {
                let fault = Some(lying(seed));
                echo(&Config { fault, ..config(tier) }, 20, 120_000);
                echo(&Config { fault, ..tiny(tier) }, 20, 60_000);
            }
        }
    });
}

#[test]
fn a_long_backlog_at_the_end_is_worked_off() {
    let mut engine = engine(&tiny(1));
    let (home, fd) = (Rc::clone(engine.home()), wrap(UnixStream::pair().expect("a pair").0));
    engine.push(token(RECV, 0), Op::Recv { fd: fd.clone(), limit: 10 });
    let poll = |fd: Fd| Op::Poll { fd, ready: Ready::WRITE, multishot: true, edge: true };
    (0..2000).for_each(|n| _ = engine.push(token(SEND, n), poll(fd.clone())));
    engine.turn(Some(Duration::ZERO), &mut Vec::new()).expect("a turn");
    drop(engine);
    // A block that was left with the kernel is gone for good.
    assert_eq!(home.made(), 4);
}

#[test]
fn every_failing_enter_is_a_short_turn() {
    watched(|| {
        for wait_errno in [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM, libc::ETIME] {
            for wait_every in [2, 3, 7] {
                let fault = Some(Fault { wait_every, wait_errno, ..Fault::default() });
                echo(&Config { fault, ..config(1) }, 4, 50_000);
            }
        }
    });
}

#[test]
fn a_send_to_nobody_fails_with_its_memory_while_the_completion_queue_overflows() {
    watched(|| {
        let sizes = Config { sq_entries: 64, cq_entries: 64, ..config(1) };
        let mut engine = engine(&sizes);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(at).expect("room")).collect();
        // One entry that fills half of the completion queue, and behind it sends that fail: some
        // of their failures find no room, and their silence must not be taken for success.
        engine.push(token(RECV, 0), Op::Accept { fd: wrap(listener), limit: u32::MAX });
        for at in 0..200 {
            let (fd, _) = engine.sys().pair().expect("a pair");
            engine.push(token(SEND, at), Op::Send { fd, parts: one(b"gone") });
        }
        let all = finish(&mut engine, 200);
        for completion in all.iter().filter(|completion| completion.token.kind() == SEND) {
            assert_eq!(errno(completion), Some(libc::EPIPE));
            assert_eq!(completion.parts.as_ref().map(|parts| parts.len()), Some(4));
        }
        assert_eq!(all.len(), 200 + clients.len());
        assert!(engine.counters().overflows > 0, "{:?}", engine.counters());
    });
}

#[test]
fn the_end_lets_go_of_every_descriptor_and_every_block() {
    watched(|| {
        for tier in tiers() {
            let mut engine = engine(&config(tier));
            let home = Rc::clone(engine.home());
            let mut others = Vec::new();
            for at in 0..20 {
                let (ours, theirs) = UnixStream::pair().expect("a pair");
                let fd = wrap(ours);
                engine.push(token(0, at), Op::Recv { fd: fd.clone(), limit: 1 << 20 });
                let (home, fd2) = (Home::new(4096, 1), fd.clone());
                let op = Op::RecvBulk { fd: fd2, home, limit: 9, eager: at % 2 == 0 };
                engine.push(token(1, at), op);
                let parts = one(&vec![7; 1 << 20]);
                engine.push(token(2, at), Op::Send { fd: fd.clone(), parts });
                let ready = Ready::READ;
                let op = Op::Poll { fd, ready, multishot: true, edge: at % 2 == 0 };
                engine.push(token(3, at), op);
                others.push(theirs);
            }
            let listener = wrap(TcpListener::bind("127.0.0.1:0").expect("a port"));
            engine.push(token(4, 0), Op::Accept { fd: listener, limit: u32::MAX });
            if tier == 5 {
                engine.turn(Some(Duration::ZERO), &mut Vec::new()).expect("a turn");
            }
            drop(engine);
            all_home(&home);
            for mut other in others {
                let mut rest = Vec::new();
                // The end of the stream: nobody holds our side any more.
                other.read_to_end(&mut rest).expect("an end");
            }
        }
    });
}

#[test]
fn a_parked_receive_that_is_cancelled_ends_without_a_wait() {
    watched(|| {
        let fault = Some(Fault { no_blocks_per_mille: 1000, ..Fault::default() });
        let mut engine = engine(&Config { fault, ..config(1) });
        let (a, _b) = engine.sys().pair().expect("a pair");
        let op = engine.push(token(RECV, 1), Op::Recv { fd: a, limit: 9 });
        engine.turn(Some(Duration::ZERO), &mut Vec::new()).expect("a turn");
        engine.cancel(op);
        let mut done = Vec::new();
        engine.turn(None, &mut done).expect("a turn");
        assert_eq!((done.len(), errno(&done[0])), (1, Some(libc::ECANCELED)));
    });
}

#[test]
fn a_cancelled_op_ends_once_and_close_ends_the_others() {
    watched(|| {
        let mut engine = engine(&config(1));
        let (a, mut b) = UnixStream::pair().expect("a pair");
        let fd = wrap(a);
        let recv = engine.push(token(0, 0), Op::Recv { fd: fd.clone(), limit: 9 });
        engine.cancel(recv);
        let done = finish(&mut engine, 1);
        assert_eq!((done.len(), errno(&done[0])), (1, Some(libc::ECANCELED)));
        engine.push(token(0, 1), Op::Recv { fd: fd.clone(), limit: 9 });
        let op = Op::Poll { fd: fd.clone(), ready: Ready::READ, multishot: true, edge: false };
        engine.push(token(0, 2), op);
        engine.push(token(0, 3), Op::Close { fd });
        let done = finish(&mut engine, 3);
        assert_eq!(done[2].token.slot(), 3);
        assert_eq!(errno(&done[0]), Some(libc::ECANCELED));
        assert_eq!(b.read(&mut [0]).expect("an end"), 0);
    });
}

#[test]
fn an_accept_ends_with_the_connection_that_reaches_its_limit() {
    watched(|| {
        for limit in [1, 3] {
            let mut engine = engine(&config(1));
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let at = listener.local_addr().expect("an address");
            let clients: Vec<_> = (0..limit).map(|_| TcpStream::connect(at)).collect();
            engine.push(token(0, 0), Op::Accept { fd: wrap(listener), limit });
            let done = finish(&mut engine, 1);
            let accepted = |c: &Completion| matches!(c.result, Ok(Outcome::Accepted(_)));
            assert!(done.iter().all(accepted), "{done:?}");
            assert_eq!((done.len(), clients.len()), (limit as usize, limit as usize));
            assert!(!done.last().expect("one").more);
        }
    });
}

#[test]
fn a_receive_ends_at_its_limit_and_at_the_end() {
    watched(|| {
        for tier in tiers() {
            let mut engine = engine(&config(tier));
            let (a, mut b) = UnixStream::pair().expect("a pair");
            let fd = wrap(a);
            b.write_all(b"abc").expect("room");
            drop(b);
            engine.push(token(0, 0), Op::Recv { fd: fd.clone(), limit: 2 });
            let mut text = Vec::new();
            while text.len() < 2 {
                for completion in finish(&mut engine, 1) {
                    let Ok(Outcome::Received(segment)) = completion.result else { panic!() };
                    text.extend_from_slice(segment.bytes());
                }
            }
            assert_eq!(text, b"ab");
            engine.push(token(0, 1), Op::Recv { fd, limit: 9 });
            let mut done = finish(&mut engine, 1);
            let last = done.pop().expect("one");
            assert!(matches!(last.result, Ok(Outcome::Eof)), "{last:?}");
        }
    });
}

#[test]
fn a_connect_and_a_refusal_are_told() {
    watched(|| {
        let mut engine = engine(&config(1));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        for refused in [false, true] {
            let fd = engine.sys().socket(ringlane_api::reactor::Family::Inet4).expect("a socket");
            engine.push(token(0, 0), Op::Connect { fd: fd.clone(), to: SockName::Inet(at) });
            if refused {
                let done = finish(&mut engine, 1);
                assert_eq!(errno(&done[0]), Some(libc::ECONNREFUSED));
                continue;
            }
            let done = finish(&mut engine, 1);
            assert!(matches!(done[0].result, Ok(Outcome::Done)));
            engine.sys().shutdown(&fd, Side::Both).expect("connected");
            // From here on nobody listens.
            let gone = listener.try_clone().expect("a clone");
            // SAFETY: shutdown takes any open socket.
            unsafe { libc::shutdown(std::os::fd::AsRawFd::as_raw_fd(&gone), libc::SHUT_RDWR) };
        }
    });
}

#[test]
fn a_wake_from_another_thread_ends_a_wait() {
    watched(|| {
        let mut engine = engine(&config(1));
        for _ in 0..50 {
            let waker = engine.waker();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(1));
                waker.wake();
            });
            engine.turn(None, &mut Vec::new()).expect("a turn");
            thread.join().expect("it wakes");
        }
    });
}

#[test]
fn a_child_receives_on_a_ring_of_its_own_and_the_parent_keeps_its_own() {
    watched(|| {
        let mut engine = engine(&config(1));
        let (a, mut b) = UnixStream::pair().expect("a pair");
        let fd = wrap(a);
        engine.push(token(0, 0), Op::Recv { fd: fd.clone(), limit: 6 });
        let parts = one(&vec![7; 1 << 20]);
        engine.push(token(1, 0), Op::Send { fd, parts });
        engine.turn(Some(Duration::ZERO), &mut Vec::new()).expect("a turn");
        // SAFETY: the child uses nothing that other threads might hold locked but the allocator,
        // which the C library unlocks for it, and leaves by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let told = child_receives(&mut engine, &mut b);
            // SAFETY: ends the child without running anything else.
            unsafe { libc::_exit(i32::from(!told)) };
        }
        let mut status = 0;
        // SAFETY: the child is ours, and `status` outlives the call.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0, "the child saw what it should");
        b.write_all(b"parent").expect("room");
        let done = finish(&mut engine, 1);
        let Ok(Outcome::Received(segment)) = &done[0].result else { panic!("{done:?}") };
        assert_eq!(segment.bytes(), b"parent");
    });
}

fn child_receives(engine: &mut Uring, other: &mut UnixStream) -> bool {
    let mut done = Vec::new();
    if engine.turn(Some(Duration::ZERO), &mut done).is_ok() || engine.reinit().is_err() {
        return false;
    }
    if engine.turn(Some(Duration::ZERO), &mut done).is_err() || done.len() != 1 {
        return false;
    }
    let told = done[0].result.as_ref().is_err_and(|e| e.to_string() == forked().to_string());
    // The parent waits for us, so this byte can only be ours.
    if !told || other.write_all(b"x").is_err() {
        return false;
    }
    done.clear();
    while done.is_empty() {
        if engine.turn(WAIT, &mut done).is_err() {
            return false;
        }
    }
    matches!(&done[0].result, Ok(Outcome::Received(segment)) if segment.bytes() == b"x")
}
