//! Criterion benches of whole connections: a round trip and a stream over every transport of this
//! build, on each engine.
//!
//! ```text
//!   this thread: client --bytes--> a thread of its own: server
//!   round trip   the server sends them back; one message is under way
//!   stream       the server drops them, and answers with one byte when all of a batch are there
//! ```
//!
//! Rates of our own code, for regressions; for ratios to others see `versus.rs`.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlane::Remote;
use ringlane::prelude::*;
use ringlane::reactor::{Config, Engine};

const SIZES: [(usize, &str); 4] =
    [(64, "64 B"), (1 << 10, "1 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")];

/// Bytes that a stream keeps in its output.
const STREAM_BYTES: usize = 1 << 20;

/// A server on a thread of its own.
struct Server {
    address: String,
    /// Bytes of the batch that a stream's server waits for; 0 makes it an echo server.
    goal: Arc<AtomicU64>,
    remote: Remote,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(engine: Engine, at: &str) -> Option<Server> {
        let goal = Arc::new(AtomicU64::new(0));
        let (tell, told) = channel();
        let (wanted, at) = (Arc::clone(&goal), at.to_string());
        let thread = thread::spawn(move || {
            let config = Config { engine, ..Config::default() };
            let Ok(base) = EventBase::with_config(&config) else { return };
            let listener = base.listen(at, move |conn| serve(&conn, &wanted)).expect("it listens");
            tell.send((listener.address().to_string(), base.remote())).expect("somebody waits");
            base.dispatch().expect("it serves");
        });
        // An engine that this machine refuses has nothing to measure.
        let (address, remote) = told.recv().ok()?;
        Some(Server { address, goal, remote, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nobody to tell.
        let _ = self.remote.run(|base| base.break_now());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()), "the server panicked");
    }
}

fn serve(conn: &Bufferevent, goal: &Arc<AtomicU64>) {
    let (goal, got) = (Arc::clone(goal), Cell::new(0));
    conn.on_read(move |conn| {
        let goal = goal.load(Ordering::Acquire);
        if goal == 0 {
            conn.output().append(conn.input());
            return;
        }
        let n = conn.input().len();
        conn.input().drain(n);
        got.set(got.get() + n as u64);
        if got.get() >= goal {
            got.set(0);
            conn.output().add(b"!");
        }
    });
    conn.on_event(|conn, event| {
        if event.is_end() {
            conn.free();
        }
    });
    conn.enable(READ);
}

/// A client of one server.
struct Client {
    base: EventBase,
    conn: Bufferevent,
    back: Rc<Cell<usize>>,
    message: Rc<[u8]>,
}

impl Client {
    fn connect(engine: Engine, server: &Server, size: usize) -> Client {
        let config = Config { engine, ..Config::default() };
        let base = EventBase::with_config(&config).expect("the server has one, too");
        let conn = base.connect(&server.address).expect("it dials");
        let back = Rc::new(Cell::new(0));
        let count = Rc::clone(&back);
        conn.on_read(move |conn| {
            let n = conn.input().len();
            conn.input().drain(n);
            count.set(count.get() + n);
        });
        conn.enable(READ);
        let client = Client { base, conn, back, message: vec![7; size].into() };
        client.round_trip();
        client
    }

    fn send(&self) {
        match self.message.len() {
            0..=4096 => self.conn.output().add(&self.message),
            _ => self.conn.output().add_reference(Rc::clone(&self.message)),
        }
    }

    fn wait(&self, bytes: usize) {
        while self.back.get() < bytes {
            self.base.turn(Turn::Wait).expect("a turn works");
        }
        self.back.set(0);
    }

    fn round_trip(&self) {
        self.send();
        self.wait(self.message.len());
    }

    /// Streams `messages` and waits until the server has them.
    fn stream(&self, server: &Server, messages: u64) {
        server.goal.store(messages * self.message.len() as u64, Ordering::Release);
        for _ in 0..messages {
            while self.conn.output().len() >= STREAM_BYTES {
                self.base.turn(Turn::Wait).expect("a turn works");
            }
            self.send();
        }
        self.wait(1);
    }
}

fn transports(c: &mut Criterion) {
    for engine in [Engine::Uring, Engine::Epoll] {
        for (number, at) in ringlane::local_addresses("ringlane-bench").iter().enumerate() {
            let at = at.replace("ringlane-bench", &format!("ringlane-bench-{engine}-{number}"));
            let Some(server) = Server::start(engine, &at) else { continue };
            let scheme = at.split("://").next().unwrap_or_default().to_string();
            let mut group = c.benchmark_group(format!("{scheme} {engine} round trip"));
            for (size, name) in SIZES {
                let client = Client::connect(engine, &server, size);
                group.throughput(Throughput::Bytes(size as u64));
                group.bench_function(name, |b| b.iter(|| client.round_trip()));
            }
            group.finish();
            let mut group = c.benchmark_group(format!("{scheme} {engine} stream"));
            for (size, name) in SIZES {
                let client = Client::connect(engine, &server, size);
                group.throughput(Throughput::Bytes(size as u64));
                group.bench_function(name, |b| {
                    b.iter_custom(|messages| timed(|| client.stream(&server, messages)));
                });
                server.goal.store(0, Ordering::Release);
            }
            group.finish();
        }
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = transports
}
criterion_main!(benches);
