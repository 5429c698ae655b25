//! What an echoed message costs: system calls, and no memory. A program of its own, because it
//! counts allocations.
#![allow(unsafe_code)]

mod bench;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use ringlane_api::fd::Fd;
use ringlane_api::reactor::{Completion, Op, Outcome, Token};
use ringlane_api::segment::Parts;
use ringlane_reactor::Engine;

use bench::{Bench, parts};

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

/// A client that sends and a server that echoes, over one reactor; nothing but the reactor's own
/// work happens in a round.
struct Echo {
    bench: Bench,
    ends: [Fd; 2],
    receives: [Token; 2],
    send: Token,
    memory: Option<Parts>,
    done: Vec<Completion>,
    at: usize,
}

impl Echo {
    fn new(mut bench: Bench, ends: (Fd, Fd)) -> Echo {
        let ends = [ends.0, ends.1];
        let receives =
            [0, 1].map(|i: usize| bench.push(Op::Recv { fd: ends[i].clone(), limit: u32::MAX }).0);
        let send = Token::new(2, 0, 0, 0);
        let memory = Some(parts(&[5; 100]));
        Echo { bench, ends, receives, send, memory, done: Vec::with_capacity(64), at: 0 }
    }

    /// One message from one end to the other.
    fn hop(&mut self) {
        let parts = self.memory.take().expect("the last hop gave it back");
        let to = 1 - self.at;
        self.bench.reactor.push(self.send, Op::Send { fd: self.ends[self.at].clone(), parts });
        let mut left = 100;
        for _ in 0..100 {
            let wait = Some(Duration::from_millis(100));
            self.bench.reactor.turn(wait, &mut self.done).expect("a turn");
            for one in self.done.drain(..) {
                match one.result.expect("no error") {
                    Outcome::Sent(parts) => self.memory = Some(parts),
                    Outcome::Received(segment) if one.token == self.receives[to] => {
                        left -= segment.len();
                    }
                    other => panic!("{other:?}"),
                }
            }
            if left == 0 && self.memory.is_some() {
                self.at = to;
                return;
            }
        }
        panic!("the message did not arrive");
    }
}

fn cost(engine: Engine, ends: impl FnOnce(&mut Bench) -> (Fd, Fd)) {
    const HOPS: u64 = 1000;
    let Some(mut bench) = bench::open(engine, None) else { return };
    let ends = ends(&mut bench);
    let mut echo = Echo::new(bench, ends);
    for _ in 0..100 {
        echo.hop();
    }
    let (before, made) = (echo.bench.reactor.counters(), MADE.with(Cell::get));
    for _ in 0..HOPS {
        echo.hop();
    }
    let (after, made) = (echo.bench.reactor.counters(), MADE.with(Cell::get) - made);
    let calls = after.syscalls - before.syscalls;
    assert_eq!(made, 0, "allocations in {HOPS} messages");
    assert_eq!(after.epoll_ctls, before.epoll_ctls);
    // A receive, a send and one wait; a wait now and then finds nothing yet.
    assert!(calls <= HOPS * 3 + HOPS / 10, "{calls} system calls for {HOPS} messages");
}

#[test]
fn a_message_over_a_pair_costs_a_send_a_receive_a_wait_and_no_memory() {
    cost(Engine::Epoll, Bench::pair);
}

#[test]
fn a_message_over_tcp_costs_a_send_a_receive_a_wait_and_no_memory() {
    cost(Engine::Epoll, Bench::tcp);
}

#[cfg(feature = "uring")]
#[test]
fn a_message_in_a_ring_costs_no_memory() {
    for tier in [1, 5] {
        cost(Engine::Tier(tier), Bench::pair);
        cost(Engine::Tier(tier), Bench::tcp);
    }
}
