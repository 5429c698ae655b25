//! Bugs that were found by reading, each as the smallest program that showed it.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use ringlane::prelude::*;
use ringlane::reactor::{Config, Engine};
use ringlane::{Buffer, Filter};
use ringlane_kit::sim::{Setup, World};

fn epoll() -> EventBase {
    let config = Config { engine: Engine::Epoll, ..Config::default() };
    EventBase::with_config(&config).expect("epoll is everywhere")
}

fn simulated(world: &World) -> EventBase {
    EventBase::with(
        Box::new(world.reactor()),
        vec![ringlane_tcp::transport(), ringlane_uds::transport()],
    )
}

/// A world in which waiting for what never comes is a failure instead of a hang.
fn world() -> World {
    World::new(Setup { fail_when_stalled: true, ..Setup::default() })
}

fn idle(base: &EventBase, turns: usize) {
    for _ in 0..turns {
        base.turn(Turn::NoWait).expect("a turn works");
    }
}

/// Turns until `holds`, for at most some seconds.
#[track_caller]
fn until(base: &EventBase, what: &str, holds: impl Fn() -> bool) {
    let tick = base.every(Duration::from_millis(1), |_| {});
    for _ in 0..10_000 {
        if holds() {
            tick.free();
            return;
        }
        base.turn(Turn::Wait).expect("a turn works");
    }
    panic!("it never came: {what}");
}

/// Something of the user's whose end calls the base.
struct Caller(EventBase, Rc<Cell<u32>>);

impl Drop for Caller {
    fn drop(&mut self) {
        // A panic while another unwinds would end the program: one drop too few says it as well.
        let call = AssertUnwindSafe(|| drop((self.0.user_event(|_, _| {}), self.0.stats())));
        if catch_unwind(call).is_ok() {
            self.1.set(self.1.get() + 1);
        }
    }
}

impl Caller {
    fn touch(&self) {}
}

impl AsRef<[u8]> for Caller {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

fn caller(base: &EventBase) -> (Caller, Rc<Cell<u32>>) {
    let dropped = Rc::new(Cell::new(0));
    (Caller(base.clone(), Rc::clone(&dropped)), dropped)
}

#[test]
fn a_callback_set_on_something_freed_may_call_the_base_when_it_is_dropped() {
    let base = epoll();
    let (a, b) = base.pair().expect("a pair");
    a.free();
    let (kept, dropped) = caller(&base);
    a.on_read(move |_| kept.touch());
    assert_eq!(dropped.get(), 1);
    let listener = base.listen("tcp://127.0.0.1:0", |_| {}).expect("it listens");
    listener.free();
    let (kept, dropped) = caller(&base);
    listener.on_error(move |_, _| kept.touch());
    idle(&base, 5);
    assert_eq!(dropped.get(), 1);
    let (kept, dropped) = caller(&base);
    listener.on_error(move |_, _| kept.touch());
    assert_eq!(dropped.get(), 1);
    b.free();
}

#[test]
fn empty_memory_of_the_users_may_call_the_base_when_it_is_dropped() {
    let base = epoll();
    let (a, _b) = base.pair().expect("a pair");
    let (kept, dropped) = caller(&base);
    a.output().add_reference(kept);
    assert_eq!((dropped.get(), a.output().len()), (1, 0));
}

#[test]
fn a_change_callback_may_call_the_base_when_it_is_dropped() {
    let base = epoll();
    let (a, b) = base.pair().expect("a pair");
    let mut drops = Vec::new();
    for buffer in [a.input(), a.output()] {
        let (kept, dropped) = caller(&base);
        buffer.on_change(move |_| kept.touch());
        drops.push(dropped);
    }
    a.free();
    until(&base, "the link is gone", || base.stats().links == 1);
    assert!(drops.iter().all(|dropped| dropped.get() == 1));
    // One that frees its own connection while it runs.
    let (kept, dropped) = caller(&base);
    let own = b.clone();
    b.output().on_change(move |_| {
        kept.touch();
        own.free();
    });
    b.output().add(b"x");
    until(&base, "the other link is gone", || base.stats().links == 0);
    assert_eq!(dropped.get(), 1);
}

#[test]
fn bytes_drained_inside_a_closure_may_call_the_base_when_they_are_dropped() {
    struct Text(Caller);
    impl AsRef<[u8]> for Text {
        fn as_ref(&self) -> &[u8] {
            b"text"
        }
    }
    let base = epoll();
    let (a, _b) = base.pair().expect("a pair");
    let (kept, dropped) = caller(&base);
    let text = Text(kept);
    text.0.touch();
    a.output().add_reference(text);
    assert_eq!(a.output().with(|buffer| buffer.drain(4)), Some(4));
    assert_eq!(dropped.get(), 1);
}

#[test]
fn what_a_freed_connection_still_sends_cannot_be_taken_from_it() {
    let base = epoll();
    let (a, b) = base.pair().expect("a pair");
    let (c, _d) = base.pair().expect("a pair");
    let got = Rc::new(Cell::new(0));
    let count = Rc::clone(&got);
    b.on_read(move |b| count.set(count.get() + b.input().take().len()));
    b.enable(READ);
    a.output().add(b"last words");
    let output: Buffer = a.output();
    a.free();
    c.output().append(&output);
    assert_eq!(c.output().len(), 0);
    until(&base, "the last words", || got.get() == 10);
}
