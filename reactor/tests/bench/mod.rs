//! The bench that the cases run on: a reactor, and what it said so far.
#![allow(dead_code, reason = "each test program uses its part of the bench")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ringlane_api::fd::Fd;
use ringlane_api::reactor::{
    Completion, Family, Op, OpId, Outcome, Reactor, SockName, SockOption, Sys, Token,
};
use ringlane_api::segment::{Parts, Segment};
use ringlane_reactor::{Config, Engine, Fault, best};

/// Turns without any completion after which a case has hung.
const IDLE_TURNS_MAX: u32 = 400;

/// How long such a turn may wait.
const TURN: Duration = Duration::from_millis(50);

/// A reactor with the completions that nobody has asked for yet.
pub struct Bench {
    pub reactor: Box<dyn Reactor>,
    pub seen: Vec<Completion>,
    minted: u32,
}

impl Bench {
    pub fn new(reactor: Box<dyn Reactor>) -> Bench {
        Bench { reactor, seen: Vec::new(), minted: 0 }
    }

    pub fn push(&mut self, op: Op) -> (Token, OpId) {
        self.minted += 1;
        let token = Token::new(1, 0, 0, self.minted);
        (token, self.reactor.push(token, op))
    }

    pub fn turn(&mut self) {
        self.reactor.turn(Some(TURN), &mut self.seen).expect("a turn");
    }

    /// Some turns that do not wait.
    pub fn quiet_turns(&mut self) {
        for _ in 0..6 {
            self.reactor.turn(Some(Duration::from_millis(2)), &mut self.seen).expect("a turn");
        }
    }

    /// The next completion of `token`, in order.
    pub fn next(&mut self, token: Token) -> Completion {
        for _ in 0..IDLE_TURNS_MAX {
            if let Some(at) = self.seen.iter().position(|one| one.token == token) {
                return self.seen.remove(at);
            }
            self.turn();
        }
        panic!("nothing came for {token:?}; seen: {:?}", self.seen);
    }

    /// The next completion of `token` if there is one without waiting long.
    pub fn peek(&mut self, token: Token) -> Option<Completion> {
        self.quiet_turns();
        let at = self.seen.iter().position(|one| one.token == token)?;
        Some(self.seen.remove(at))
    }

    /// Pushes an op and gives its last and only result.
    pub fn run(&mut self, op: Op) -> io::Result<Outcome> {
        let (token, _) = self.push(op);
        let completion = self.next(token);
        assert!(!completion.more, "this op has one result");
        completion.result
    }

    pub fn sys(&mut self) -> &mut dyn Sys {
        self.reactor.sys()
    }

    pub fn pair(&mut self) -> (Fd, Fd) {
        self.sys().pair().expect("a pair")
    }

    /// A reactor's end and an end that blocks.
    pub fn half(&mut self) -> (Fd, std::os::unix::net::UnixStream) {
        let (ours, theirs) = self.pair();
        let theirs: OwnedFd = theirs.into_os().expect("the only holder");
        let theirs = std::os::unix::net::UnixStream::from(theirs);
        theirs.set_nonblocking(false).expect("an open socket");
        let limit = Some(Duration::from_secs(30));
        theirs.set_read_timeout(limit).expect("an open socket");
        theirs.set_write_timeout(limit).expect("an open socket");
        (ours, theirs)
    }

    /// A listener on the loopback and its address.
    pub fn listener(&mut self) -> (Fd, SockName) {
        let sys = self.sys();
        let fd = sys.socket(Family::Inet4).expect("a socket");
        sys.set(&fd, SockOption::ReuseAddress(true)).expect("an option");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        sys.bind(&fd, &SockName::Inet(any)).expect("a port");
        sys.listen(&fd, 64).expect("it listens");
        let name = sys.local_name(&fd).expect("a name");
        (fd, name)
    }

    /// Both ends of a TCP connection: the one that connected, the one that was accepted.
    pub fn tcp(&mut self) -> (Fd, Fd) {
        let (listener, to) = self.listener();
        let fd = self.sys().socket(Family::Inet4).expect("a socket");
        let (accept, _) = self.push(Op::Accept { fd: listener, limit: 1 });
        let connected = self.run(Op::Connect { fd: fd.clone(), to }).expect("it connects");
        assert!(matches!(connected, Outcome::Done));
        let Completion { result: Ok(Outcome::Accepted(accepted)), more: false, .. } =
            self.next(accept)
        else {
            panic!("one connection was accepted")
        };
        (fd, accepted)
    }

    /// Receives exactly `len` bytes with as many receives as it takes.
    pub fn receive(&mut self, fd: &Fd, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < len {
            let limit = u32::try_from(len - all.len()).expect("small");
            let (token, _) = self.push(Op::Recv { fd: fd.clone(), limit });
            loop {
                let completion = self.next(token);
                match completion.result.expect("bytes") {
                    Outcome::Received(segment) => all.extend_from_slice(segment.bytes()),
                    other => panic!("{other:?} in place of bytes"),
                }
                if !completion.more {
                    break;
                }
            }
        }
        all
    }
}

pub fn parts(bytes: &[u8]) -> Parts {
    Parts { first: Segment::copied(bytes), rest: Vec::new() }
}

pub fn errno(result: io::Result<Outcome>) -> Option<i32> {
    result.expect_err("an error").raw_os_error()
}

/// Bytes whose every position can be told.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ (i / 65_536) as u8).collect()
}

/// A name that no other case and no other process uses.
pub fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A case that hangs ends the whole run, loudly.
fn watchdog() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_secs(300));
            eprintln!("the suite hangs");
            std::process::abort();
        });
    });
}

/// The engine on a bench, or nothing where this machine has none (and the output says why).
pub fn open(engine: Engine, fault: Option<Fault>) -> Option<Bench> {
    watchdog();
    match best(&Config { engine, fault, ..Config::default() }) {
        Ok(reactor) => Some(Bench::new(reactor)),
        Err(error) if engine == Engine::Epoll && error.kind() != io::ErrorKind::Unsupported => {
            panic!("{error}")
        }
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}
