//! Bugs that were found by reading, each as the smallest program that showed it.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use ringlane::Buffer;
use ringlane::evbuffer::Edge;
use ringlane::prelude::*;
use ringlane::reactor::{Config, Engine};
use ringlane_kit::sim::{Setup, World};

mod filters;

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

#[test]
fn connections_accepted_together_are_all_told_although_one_callback_breaks_the_loop() {
    for panics in [false, true] {
        let world = world();
        let base = simulated(&world);
        let told = Rc::new(Cell::new(0));
        let count = Rc::clone(&told);
        let own = base.clone();
        let listener = base.listen("tcp://127.0.0.1:0", move |_| {
            count.set(count.get() + 1);
            if count.get() == 1 {
                own.break_now();
                assert!(!panics, "on purpose");
            }
        });
        let listener = listener.expect("it listens");
        listener.disable();
        let at = listener.address().to_string();
        for _ in 0..3 {
            base.connect(&at).expect("it dials");
        }
        base.once(Duration::from_millis(10), move |_| listener.enable());
        let first = catch_unwind(AssertUnwindSafe(|| base.dispatch()));
        assert_eq!((first.is_err(), told.get()), (panics, 1));
        base.stop_after(Duration::from_millis(10));
        base.dispatch().expect("it goes on");
        assert_eq!(told.get(), 3);
    }
}

#[test]
fn the_end_is_told_although_the_read_callback_before_it_panicked() {
    let base = epoll();
    let (a, b) = base.pair().expect("a pair");
    let ended = Rc::new(Cell::new(false));
    let set = Rc::clone(&ended);
    b.on_read(|_| panic!("on purpose"));
    b.on_event(move |_, event| set.set(set.get() || event.is_end()));
    b.enable(READ);
    a.output().add(b"x");
    a.finish();
    let mut caught = 0;
    for _ in 0..50 {
        let turn = AssertUnwindSafe(|| base.turn(Turn::NoWait));
        caught += u32::from(catch_unwind(turn).is_err());
    }
    assert_eq!((caught, ended.get()), (1, true));
}

#[test]
fn breaking_in_a_deferred_callback_lets_no_other_callback_run() {
    let base = epoll();
    let called = Rc::new(Cell::new(false));
    let set = Rc::clone(&called);
    let event = base.user_event(move |_, _| set.set(true));
    event.activate(What::READ);
    base.defer(EventBase::break_now);
    base.dispatch().expect("it breaks");
    assert!(!called.get());
    base.turn(Turn::NoWait).expect("a turn works");
    assert!(called.get(), "breaking is over with the dispatch that was broken");
}

#[test]
fn an_event_that_was_activated_and_deleted_is_not_pending() {
    let base = epoll();
    let event = base.user_event(|_, _| unreachable!("it was deleted"));
    event.activate(What::READ);
    assert!(event.is_pending());
    event.del();
    assert!(!event.is_pending());
    idle(&base, 2);
}

#[test]
fn no_duration_is_too_long() {
    let base = epoll();
    let (a, b) = base.pair().expect("a pair");
    base.stop_after(Duration::MAX);
    let timer = base.timer(Duration::MAX, |_| unreachable!("not in our time"));
    a.set_timeouts(Some(Duration::MAX), Some(Duration::MAX));
    a.enable(READ);
    a.output().add(b"x");
    idle(&base, 10);
    timer.free();
    b.free();
}

#[test]
fn a_read_limit_that_passed_while_dialing_holds_once_connected() {
    let slow = Duration::from_millis(100);
    let world =
        World::new(Setup { fail_when_stalled: true, latency: (slow, slow), ..Setup::default() });
    let base = simulated(&world);
    let listener = base.listen("tcp://127.0.0.1:0", |_| {}).expect("it listens");
    let client = base.connect(listener.address().to_string()).expect("it dials");
    let seen = Rc::new(RefCell::new(Vec::new()));
    let note = Rc::clone(&seen);
    client.on_event(move |_, event| note.borrow_mut().push(event.to_string()));
    client.set_timeouts(Some(Duration::from_millis(50)), None);
    client.enable(READ);
    base.stop_after(Duration::from_secs(5));
    base.dispatch().expect("it runs");
    assert_eq!(*seen.borrow(), ["connected", "nothing received in time"]);
}

#[test]
fn a_write_limit_does_not_count_while_writing_is_off() {
    let world = world();
    let base = simulated(&world);
    let (a, _b) = base.pair().expect("a pair");
    let seen = Rc::new(RefCell::new(Vec::new()));
    let note = Rc::clone(&seen);
    a.on_event(move |_, event| note.borrow_mut().push(event.to_string()));
    a.disable(WRITE);
    a.output().add(b"later");
    a.set_timeouts(None, Some(Duration::from_millis(50)));
    base.stop_after(Duration::from_secs(1));
    base.dispatch().expect("it runs");
    assert!(seen.borrow().is_empty(), "{:?}", seen.borrow());
    a.enable(WRITE);
    base.stop_after(Duration::from_secs(1));
    base.dispatch().expect("it runs");
    assert!(seen.borrow().is_empty(), "{:?}", seen.borrow());
    assert!(a.output().is_empty());
}

#[test]
fn a_dial_whose_second_address_does_not_answer_fails_once_and_names_both() {
    let world = world();
    let base = simulated(&world);
    let options = ListenOptions { backlog: 1, ..ListenOptions::default() };
    let listener = base.listen_with("tcp://127.0.0.1:0", &options, |_| {}).expect("it listens");
    listener.disable();
    let at = listener.address().to_string();
    let fillers: Vec<_> = (0..4).map(|_| base.connect(&at).expect("it dials")).collect();
    base.stop_after(Duration::from_millis(20));
    base.dispatch().expect("it runs");
    let ip = |text: &str| text.parse().expect("an address");
    world.add_host("two.test", &[ip("127.0.0.2"), ip("127.0.0.1")]);
    let port = at.rsplit(':').next().expect("a port");
    let link = LinkOptions { connect_timeout: Duration::from_millis(50), ..LinkOptions::default() };
    let client = base.connect_with(format!("tcp://two.test:{port}"), &link).expect("it dials");
    let seen = Rc::new(RefCell::new(Vec::new()));
    let note = Rc::clone(&seen);
    client.on_event(move |_, event| note.borrow_mut().push(event.to_string()));
    base.stop_after(Duration::from_secs(1));
    base.dispatch().expect("it runs");
    assert_eq!(seen.borrow().len(), 1, "{:?}", seen.borrow());
    assert!(seen.borrow()[0].contains("no answer within 50ms"), "{:?}", seen.borrow());
    drop(fillers);
}

#[test]
fn bytes_written_after_a_half_close_do_not_keep_a_freed_connection() {
    let world = world();
    let base = simulated(&world);
    let (a, b) = base.pair().expect("a pair");
    a.output().add(b"before");
    a.finish();
    idle(&base, 20);
    a.output().add(b"after");
    idle(&base, 2);
    let before = world.elapsed();
    base.dispatch().expect("nothing is left to wait for");
    a.free();
    b.free();
    base.dispatch().expect("both are closed");
    assert_eq!(base.stats().links, 0);
    assert!(world.elapsed() - before < Duration::from_secs(10), "it lingered for nothing");
}

#[test]
fn dispatch_ends_although_the_last_callback_waited_for_more_urgent_ones() {
    let base = epoll();
    base.set_priorities(2).expect("two queues");
    let (a, b) = base.pair().expect("a pair");
    a.set_priority(1);
    let busy = Rc::new(Cell::new(0));
    let count = Rc::clone(&busy);
    let urgent = base.user_event(move |event, _| {
        count.set(count.get() + 1);
        if count.get() < 20 {
            event.activate(What::READ);
        }
    });
    let written = Rc::new(Cell::new(false));
    let set = Rc::clone(&written);
    a.on_write(move |_| set.set(true));
    a.output().add(b"x");
    urgent.activate(What::READ);
    let late = Rc::new(Cell::new(false));
    let remote = base.remote();
    let watchdog = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(5));
        let _ = remote.stop();
    });
    let start = std::time::Instant::now();
    base.dispatch().expect("nothing is left to wait for");
    late.set(start.elapsed() >= Duration::from_secs(5));
    assert!(written.get() && !late.get(), "it waited for nothing");
    drop((b, watchdog));
}

#[test]
fn what_is_written_while_dialing_leaves_although_the_connection_is_freed_at_once() {
    let world = world();
    let base = simulated(&world);
    let got = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&got);
    let listener = base
        .listen("tcp://127.0.0.1:0", move |conn| {
            let log = Rc::clone(&log);
            conn.on_read(move |c| log.borrow_mut().extend(c.input().take()));
            conn.on_event(|c, event| {
                if event.is_end() {
                    c.free();
                }
            });
            conn.enable(READ);
        })
        .expect("it listens");
    let conn = base.connect(listener.address().to_string()).expect("it dials");
    conn.output().add(b"farewell");
    conn.free();
    until(&base, "the bytes", || got.borrow().len() == 8);
    assert_eq!(*got.borrow(), b"farewell");
    listener.free();
    base.dispatch().expect("nothing is left");
    // A dial without anything to say ends at once.
    base.connect("tcp://127.0.0.1:1").expect("it dials").free();
    base.dispatch().expect("nothing is left");
}

#[test]
fn an_event_added_again_very_often_in_one_turn_hears_of_its_last_poll_only() {
    let base = epoll();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let calls = Rc::new(Cell::new(0));
    let count = Rc::clone(&calls);
    let event = base
        .event(ours, What::READ | What::PERSIST, move |_, _| count.set(count.get() + 1))
        .expect("an event");
    for _ in 0..128 {
        event.add(None);
        event.del();
    }
    event.add(None);
    idle(&base, 5);
    assert_eq!(calls.get(), 0, "nothing has come");
    io::Write::write_all(&mut &theirs, b"x").expect("written");
    until(&base, "the readiness", || calls.get() > 0);
}

#[test]
fn a_frozen_start_keeps_its_bytes_from_drain_and_remove() {
    let base = epoll();
    let (a, b) = base.pair().expect("a pair");
    a.output().add(b"kept");
    until(&base, "the bytes", || {
        b.enable(READ);
        b.input().len() == 4
    });
    b.input().with(|input| input.freeze(Edge::Start));
    b.input().drain(4);
    assert_eq!((b.input().len(), b.input().remove(&mut [0; 4])), (4, 0));
    b.input().with(|input| input.unfreeze(Edge::Start));
    assert_eq!(b.input().take(), b"kept");
}
