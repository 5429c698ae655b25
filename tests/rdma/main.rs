//! `rdma://` between processes: the program serves, this process dials, and strangers knock.

#![forbid(unsafe_code)]

mod fallback;
mod memory;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringlane::prelude::*;
use ringlane::{BevEvent, Bufferevent, LinkOptions, READ};

/// What a device says that has no receive for a message.
const NO_RECEIVE: &str = "found no receive posted";

/// After so long a test is hung, not slow.
const WATCHDOG: Duration = Duration::from_secs(60);

struct Server {
    child: Child,
    address: String,
    /// What it says on its standard error.
    log: File,
}

/// A file without a name.
fn nameless() -> File {
    let path = std::env::temp_dir().join(unique("log"));
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(&path).expect("a file");
    std::fs::remove_file(&path).expect("its name goes");
    file
}

/// A name that nobody else uses.
fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("ringlane-rdma-{what}-{}-{n}", std::process::id())
}

/// Where to listen: packets over TCP, and in shared memory.
fn both() -> [String; 2] {
    ["rdma://127.0.0.1:0".into(), format!("rdma://@{}", unique("s"))]
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        let log = nameless();
        let child = Command::new(env!("CARGO_BIN_EXE_ringlane"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().expect("a copy"))
            .spawn();
        let mut child = child.expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let rest = line.strip_prefix("listening ").expect("where it listens");
        let address = rest.split_whitespace().next().expect("an address").to_string();
        Server { child, address, log }
    }

    /// What it has said on its standard error so far.
    fn said(&self) -> String {
        let mut log = self.log.try_clone().expect("a copy");
        let mut said = String::new();
        // The position is the child's, too, who only appends.
        let end = log.stream_position().expect("a position");
        log.rewind().expect("a file");
        log.read_to_string(&mut said).expect("text");
        log.seek(std::io::SeekFrom::Start(end.max(said.len() as u64))).expect("a file");
        said
    }

    /// Nobody has sent without credit, here or there.
    fn was_healthy(&self) {
        assert_eq!(ringlane_rdma_stub::not_ready_naks(), 0, "credits promise receives");
        assert!(!self.said().contains(NO_RECEIVE), "{}", self.said());
    }

    fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// The TCP link behind it, as a stranger sees it.
    fn knock(&self) -> TcpStream {
        let place = self.address.strip_prefix("rdma://").expect("an rdma address");
        let stream = TcpStream::connect(place).expect("it listens");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail harmlessly if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn byte(at: usize) -> u8 {
    (at.wrapping_mul(0x9E37_79B9) >> 13) as u8
}

/// Runs the loop until something holds.
fn until(base: &EventBase, what: &str, mut holds: impl FnMut() -> bool) {
    let late = Rc::new(Cell::new(false));
    let set = Rc::clone(&late);
    base.once(WATCHDOG, move |_| set.set(true));
    while !holds() {
        assert!(!late.get(), "hung: {what}");
        base.turn(ringlane::Turn::Wait).expect("a turn works");
    }
}

/// Sends `bytes` through an echo, ends its direction, and counts what comes back until the end.
fn echo(base: &EventBase, at: &str, bytes: usize) {
    let conn = base.connect(at).expect("the address is valid");
    let (got, over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let (count, end) = (Rc::clone(&got), Rc::clone(&over));
    conn.on_read(move |c| {
        for b in c.input().take() {
            assert_eq!(b, byte(count.get()), "at {}", count.get());
            count.set(count.get() + 1);
        }
    });
    conn.on_event(move |_, event| match event {
        BevEvent::Connected => {}
        BevEvent::Eof => end.set(true),
        other => panic!("a healthy link: {other:?}"),
    });
    conn.enable(READ);
    let all: Vec<u8> = (0..bytes).map(byte).collect();
    conn.output().add(&all);
    conn.finish();
    until(base, "the echo's end", || over.get());
    assert_eq!(got.get(), bytes);
    conn.free();
}

/// The error that ends a connection.
fn failure(conn: &Bufferevent) -> Rc<RefCell<String>> {
    let said = Rc::new(RefCell::new(String::new()));
    let into = Rc::clone(&said);
    conn.on_event(move |_, event| {
        if let BevEvent::Error { error, .. } = event {
            *into.borrow_mut() = error.to_string();
        }
    });
    conn.enable(READ);
    said
}

#[test]
fn eight_mebibytes_go_to_another_process_and_come_back() {
    for at in both() {
        let server = Server::start(&["echo", &at]);
        let base = EventBase::new().expect("a base");
        echo(&base, &server.address, 8 << 20);
        echo(&base, &server.address, 1);
        server.was_healthy();
    }
}

#[test]
fn a_chain_over_all_kinds_of_link_carries_every_byte() {
    let server = Server::start(&["echo", "tcp://127.0.0.1:0"]);
    let there = Server::start(&["forward", "rdma://127.0.0.1:0", &server.address]);
    let near = Server::start(&["forward", &both()[1], &there.address]);
    let here = Server::start(&["forward", "tcp://127.0.0.1:0", &near.address]);
    let base = EventBase::new().expect("a base");
    echo(&base, &here.address, 1 << 20);
    for server in [server, there, near, here] {
        server.was_healthy();
    }
}

#[test]
fn the_death_of_the_other_process_is_heard() {
    for at in both() {
        let mut server = Server::start(&["echo", &at]);
        let base = EventBase::new().expect("a base");
        let conn = base.connect(&server.address).expect("the address is valid");
        let got = Rc::new(Cell::new(0));
        let count = Rc::clone(&got);
        conn.on_read(move |c| count.set(count.get() + c.input().take().len()));
        let said = failure(&conn);
        conn.output().add(b"alive?");
        until(&base, "the answer", || got.get() == 6);
        server.kill();
        until(&base, "the news", || !said.borrow().is_empty());
        assert!(said.borrow().contains("reset"), "{}", said.borrow());
        conn.free();
        until(&base, "the end of everything", || base.stats().links == 0);
    }
}

/// So that [`Server::was_healthy`] can fail: more messages at once than there are receives, without
/// a credit for the last of them.
#[test]
fn a_peer_that_sends_without_credit_is_told_of_and_cut_off() {
    let server = Server::start(&["echo", "rdma://127.0.0.1:0"]);
    let mut stranger = server.knock();
    let mut said = b"RLrdma\0\x01".to_vec();
    [2_u32, 8192, 16].iter().for_each(|word| said.extend(word.to_le_bytes()));
    said.resize(32, 0);
    stranger.write_all(&said).expect("sent");
    let mut theirs = [0; 32];
    stranger.read_exact(&mut theirs).expect("its hello");
    let mut burst = Vec::new();
    for n in 0..40_u32 {
        let to = u32::from_le_bytes([theirs[8], theirs[9], theirs[10], theirs[11]]);
        [17, to, 2, n, 1].iter().for_each(|word| burst.extend(word.to_le_bytes()));
        [1, 1, n, 16].iter().for_each(|word| burst.extend(word.to_le_bytes()));
        burst.push(7);
    }
    stranger.write_all(&burst).expect("sent");
    // Its own end, or a reset.
    let _ = stranger.read_to_end(&mut Vec::new());
    assert!(server.said().contains(NO_RECEIVE), "{}", server.said());
    let base = EventBase::new().expect("a base");
    echo(&base, &server.address, 10_000);
}

#[test]
fn somebody_who_does_not_speak_it_is_an_error_that_says_so() {
    let base = EventBase::new().expect("a base");
    let talker = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = format!("rdma://{}", talker.local_addr().expect("bound"));
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = talker.accept().expect("a guest");
        stream.write_all(b"220 mail.example.org ESMTP ready, and more\r\n").expect("sent");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map_or(0, |n| n)
    });
    let conn = base.connect(&at).expect("the address is valid");
    let said = failure(&conn);
    until(&base, "the error", || !said.borrow().is_empty());
    assert!(said.borrow().contains("does not speak rdma://"), "{}", said.borrow());
    conn.free();
    until(&base, "the end of everything", || base.stats().links == 0);
    thread.join().expect("it has seen the end");
}

#[test]
fn somebody_who_says_nothing_is_given_up_after_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = format!("rdma://{}", silent.local_addr().expect("bound"));
    let base = EventBase::new().expect("a base");
    let options =
        LinkOptions { connect_timeout: Duration::from_millis(50), ..LinkOptions::default() };
    let conn = base.connect_with(&at, &options).expect("the address is valid");
    let said = failure(&conn);
    until(&base, "the error", || !said.borrow().is_empty());
    assert!(said.borrow().contains("does not answer"), "{}", said.borrow());
    conn.free();
    until(&base, "the end of everything", || base.stats().links == 0);
}

/// Nonsense, half a hello, a good hello with nonsense behind it, a hello that promises absurd
/// sizes: each is cut off, and a guest who behaves is served beside them.
#[test]
fn strangers_cost_their_own_connection_only() {
    let server = Server::start(&["echo", "rdma://127.0.0.1:0"]);
    let base = EventBase::new().expect("a base");
    let hello = |message_bytes: u32, window: u32| {
        let mut bytes = b"RLrdma\0\x01".to_vec();
        for word in [2, message_bytes, window] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(32, 0);
        bytes
    };
    let mut half = server.knock();
    half.write_all(&hello(8192, 16)[..20]).expect("sent");
    let silent = server.knock();
    let noise: Vec<u8> = (0..4096).map(byte).collect();
    let spoiled = [hello(8192, 16), vec![0xff; 64]].concat();
    for said in [noise, hello(u32::MAX, 16), hello(8192, 0), spoiled] {
        let mut stranger = server.knock();
        stranger.write_all(&said).expect("sent");
        let mut back = Vec::new();
        // Cut off, by an end or a reset; the watchdog's timeout would be another error.
        match stranger.read_to_end(&mut back) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        assert!(back.len() <= 32, "a hello at most: {}", back.len());
        echo(&base, &server.address, 10_000);
    }
    drop((half, silent));
    echo(&base, &server.address, 100_000);
}

/// A packet that came after a round had looked, and before it armed for sleep, was slept over.
#[test]
fn what_comes_while_the_loop_goes_to_sleep_is_heard() {
    for at in both() {
        let server = Server::start(&["echo", &at]);
        let base = EventBase::new().expect("a base");
        for _ in 0..60 {
            let conn = base.connect(&server.address).expect("the address is valid");
            let got = Rc::new(Cell::new(0));
            let count = Rc::clone(&got);
            conn.on_read(move |c| count.set(count.get() + c.input().take().len()));
            conn.enable(READ);
            for trip in 1..=5 {
                conn.output().add(b"alive?");
                until(&base, "the answer", || got.get() == 6 * trip);
            }
            conn.free();
        }
        server.was_healthy();
    }
}
