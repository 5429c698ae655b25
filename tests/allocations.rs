//! After warm-up an echoed and a forwarded message cost no allocation. A program of its own,
//! because it counts them.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringlane::forward::{Forwarder, Limits};
use ringlane::prelude::*;
use ringlane::reactor::{Config, Engine};

thread_local! {
    static MADE: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MADE.with(|made| made.set(made.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Connections.
const CROWD: usize = 16;

/// Messages per connection in one window.
const ROUNDS: usize = 200;

/// Windows: the first warms up. Later ones may still see a new peak of messages under way at
/// once, for which there was no room yet; so it is the best of them that counts.
const WINDOWS: u32 = 6;

/// Sends on all connections at once and reads all back, in rounds; says how many windows are over.
fn client(to: &str, bytes: usize, over: &AtomicU32) {
    let connect = |_| TcpStream::connect(to).expect("it listens");
    let mut crowd: Vec<TcpStream> = (0..CROWD).map(connect).collect();
    for stream in &crowd {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.set_nodelay(true).expect("an option");
    }
    let (sent, mut back) = (vec![7; bytes], vec![0; bytes]);
    for window in 1..=WINDOWS {
        for _ in 0..ROUNDS {
            for stream in &mut crowd {
                stream.write_all(&sent).expect("sent");
            }
            for stream in &mut crowd {
                stream.read_exact(&mut back).expect("received");
            }
        }
        over.store(window, Ordering::SeqCst);
        // One more, so that the loop wakes and sees it.
        crowd[0].write_all(&sent).expect("sent");
        crowd[0].read_exact(&mut back).expect("received");
    }
}

/// Turns `base` until the client is done; the fewest allocations of this thread in a window.
fn count(base: &EventBase, to: &str, bytes: usize) -> u64 {
    let over = Arc::new(AtomicU32::new(0));
    let (theirs, to) = (Arc::clone(&over), to.trim_start_matches("tcp://").to_string());
    let driver = std::thread::spawn(move || client(&to, bytes, &theirs));
    // A client that fails must not leave us asleep.
    let tick = base.every(Duration::from_millis(100), |_| {});
    let (mut best, mut seen, mut before) = (u64::MAX, 0, 0);
    while !driver.is_finished() {
        base.turn(if seen < WINDOWS { Turn::Wait } else { Turn::NoWait }).expect("a turn");
        let now = over.load(Ordering::SeqCst);
        if now > seen {
            if seen > 0 {
                best = best.min(MADE.get() - before);
            }
            (seen, before) = (now, MADE.get());
        }
    }
    tick.free();
    driver.join().expect("the client is content");
    best
}

fn echo_server(base: &EventBase, at: &str) -> String {
    let listener = base.listen(at, |conn| {
        conn.on_read(|c| c.output().append(c.input()));
        conn.on_event(|c, e| {
            if e.is_end() {
                c.free();
            }
        });
        conn.enable(READ);
    });
    listener.expect("it listens").address().to_string()
}

/// The engines that this machine has.
fn bases() -> Vec<EventBase> {
    let engines = [Engine::Uring, Engine::Tier(1), Engine::Epoll];
    let open = |engine| match EventBase::with_config(&Config { engine, ..Config::default() }) {
        Ok(base) => Some(base),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    };
    engines.into_iter().filter_map(open).collect()
}

#[test]
fn an_echoed_message_costs_no_allocation() {
    for base in bases() {
        let address = echo_server(&base, "tcp://127.0.0.1:0");
        for bytes in [64, 1024, 16 * 1024] {
            let made = count(&base, &address, bytes);
            let report = base.report();
            assert_eq!(made, 0, "{} {}: {bytes} bytes", report.engine, report.tier);
        }
    }
}

#[test]
fn a_forwarded_message_costs_no_allocation() {
    for base in bases() {
        // Target and both proxies live in the counted base, so that all three are seen.
        let echo = echo_server(&base, "tcp://127.0.0.1:0");
        let forwarder = Forwarder::new(&base, Limits::default());
        let engine = base.report().tier;
        let name = format!("unix://@ringlane-allocations-{}-{engine}", std::process::id());
        forwarder.add(&base, &name, &echo).expect("it listens");
        let front = forwarder.add(&base, "tcp://127.0.0.1:0", &name).expect("it listens");
        for bytes in [64, 1024, 16 * 1024] {
            let made = count(&base, &front.to_string(), bytes);
            assert_eq!(made, 0, "{engine}: {bytes} bytes");
        }
        assert_eq!(forwarder.counts()[1].total, 3 * CROWD as u64);
    }
}
