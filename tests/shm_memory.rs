//! `shm://` where memory is short, on the simulator: budgets, what a refusal says and to whom, and
//! links that go on without. The ledger is one per process, so these tests take turns.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringlane::prelude::*;
use ringlane_kit::sim::{Fault, Faults, Setup, World};

static TURN: Mutex<()> = Mutex::new(());

/// Bytes of a segment with rings of the usual size are 136 KiB: two fit, three do not.
const TWO_FIT: &str = "budget=300KiB";

/// Bytes sent each way; more than a ring and a socket hold.
const BYTES: usize = 300_000;

/// One world, and one base in it that serves and dials.
struct Place {
    world: World,
    base: EventBase,
    _turn: MutexGuard<'static, ()>,
}

/// A connection and what it was told.
#[derive(Clone, Default)]
struct Told(Rc<RefCell<Notes>>);

#[derive(Default)]
struct Notes {
    connected: bool,
    eof: bool,
    error: Option<String>,
    bytes: Vec<u8>,
}

impl Place {
    fn new(faults: Faults) -> Place {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let world = World::new(Setup { seed: 11, faults, ..Setup::default() });
        let transports = vec![ringlane_uds::transport(), ringlane_shm::transport()];
        let base = EventBase::with(Box::new(world.reactor()), transports);
        Place { world, base, _turn: turn }
    }

    fn serve(&self, at: &str) -> Listener {
        let echo = |conn: Bufferevent| {
            conn.on_read(|c| {
                c.output().append(c.input());
            });
            conn.on_event(|c, event| {
                if event.is_end() {
                    c.free();
                }
            });
            conn.enable(READ);
        };
        self.base.listen(at, echo).expect("nobody else listens there")
    }

    /// Dials, and turns until it is known what came of it.
    fn dial(&self, to: &str) -> (Bufferevent, Told) {
        let conn = self.base.connect(to).expect("the address is valid");
        let told = Told::default();
        let notes = Rc::clone(&told.0);
        conn.on_read(move |c| notes.borrow_mut().bytes.extend(c.input().take()));
        let notes = Rc::clone(&told.0);
        conn.on_event(move |_, event| {
            let mut notes = notes.borrow_mut();
            match event {
                BevEvent::Connected => notes.connected = true,
                BevEvent::Eof => notes.eof = true,
                other => notes.error = Some(format!("{other:?}")),
            }
        });
        conn.enable(READ);
        self.until("it is connected or not", || {
            let notes = told.0.borrow();
            notes.connected || notes.error.is_some()
        });
        (conn, told)
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = self.base.now();
        while !holds() {
            self.base.turn(Turn::Wait).expect("it turns");
            assert!((self.base.now() - begun).as_secs() < 60, "not in a minute: {what}");
        }
    }

    /// Everything there and back, and a clean end.
    fn echoes(&self, (conn, told): &(Bufferevent, Told)) {
        let sent: Vec<u8> = (0..BYTES).map(|n| (n / 7) as u8).collect();
        conn.output().add(&sent);
        conn.finish();
        self.until("the end comes back", || told.0.borrow().eof);
        let notes = told.0.borrow();
        assert!(notes.bytes == sent, "{} bytes came back, or other ones", notes.bytes.len());
        conn.free();
    }

    fn close(self, rest: impl IntoIterator<Item = Bufferevent>) {
        rest.into_iter().for_each(|conn| conn.free());
        self.until("all are gone", || self.base.stats().links == 0);
        assert_eq!(self.base.stats().blocks_out, 0);
        drop(self.base);
        assert_eq!((self.world.open_fds(), self.world.violations().len()), (0, 0));
    }
}

impl Told {
    fn connected(&self) -> bool {
        self.0.borrow().connected
    }

    #[track_caller]
    fn says(&self, parts: &[&str]) {
        let error = self.0.borrow().error.clone().expect("it was refused");
        for part in parts {
            assert!(error.contains(part), "{error} does not say {part}");
        }
    }
}

#[test]
fn a_listener_keeps_no_more_memory_than_its_budget() {
    let place = Place::new(Faults::none());
    let listener = place.serve(&format!("shm:///sim/budget?{TWO_FIT}"));
    let (one, two) = (place.dial("shm:///sim/budget"), place.dial("shm:///sim/budget"));
    assert!(one.1.connected() && two.1.connected());
    let three = place.dial("shm:///sim/budget");
    three.1.says(&["budget of 300 KiB is used up", "raise budget=", "smaller ring=", "fallback"]);
    let small = place.dial("shm:///sim/budget?ring=8KiB");
    assert!(small.1.connected(), "a smaller one still fits");

    // What ends gives its memory back.
    place.echoes(&one);
    place.until("one is gone", || place.base.stats().links <= 5);
    let again = place.dial("shm:///sim/budget");
    assert!(again.1.connected(), "{:?}", again.1.0.borrow().error);
    listener.free();
    place.close([two.0, three.0, small.0, again.0]);
}

#[test]
fn one_user_has_no_more_of_it_than_its_part() {
    let place = Place::new(Faults::none());
    let listener = place.serve("shm:///sim/user?uid_budget=300KiB");
    let two = [place.dial("shm:///sim/user").0, place.dial("shm:///sim/user").0];
    let three = place.dial("shm:///sim/user");
    three.1.says(&["budget of 300 KiB for this user is used up", "raise uid_budget="]);
    listener.free();
    place.close(two.into_iter().chain([three.0]));
}

#[test]
fn a_process_that_dials_has_a_budget_too() {
    let place = Place::new(Faults::none());
    let listener = place.serve("shm:///sim/dial");
    let dial = || place.dial(&format!("shm:///sim/dial?{TWO_FIT}"));
    let (one, two, three) = (dial(), dial(), dial());
    assert!(one.1.connected() && two.1.connected());
    three.1.says(&["shared its budget of 300 KiB", "raise budget=", "smaller ring="]);
    place.echoes(&one);
    place.until("one is gone", || place.base.stats().links <= 3);
    let again = dial();
    assert!(again.1.connected(), "{:?}", again.1.0.borrow().error);
    listener.free();
    place.close([two.0, three.0, again.0]);
}

#[test]
fn without_memory_both_ends_go_on_through_the_socket_if_both_say_so() {
    let no_memory = Faults::none().with(Fault::MemoryRefused, 1000);
    for (faults, there, here) in [
        // The connector has none.
        (no_memory, "fallback=unix", "fallback=unix"),
        // Its own budget is none.
        (Faults::none(), "fallback=unix", "budget=0&fallback=unix"),
        // The acceptor takes none.
        (Faults::none(), "budget=0&fallback=unix", "fallback=unix"),
        // A moody kernel, too.
        (Faults::mild().with(Fault::MemoryRefused, 1000), "fallback=unix", "fallback=unix"),
    ] {
        let place = Place::new(faults);
        let listener = place.serve(&format!("shm:///sim/plain?{there}"));
        let one = place.dial(&format!("shm:///sim/plain?{here}"));
        assert!(one.1.connected(), "{there} {here}: {:?}", one.1.0.borrow().error);
        place.echoes(&one);
        listener.free();
        place.close([]);
    }
}

#[test]
fn a_listener_says_first_what_it_likes_on_a_link_without_memory() {
    // What comes right behind the answer is the first that is received.
    let place = Place::new(Faults::none());
    let greet = |conn: Bufferevent| {
        conn.output().add(b"hello");
        conn.free();
    };
    let at = "shm:///sim/greet?budget=0&fallback=unix";
    let listener = place.base.listen(at, greet).expect("nobody else listens there");
    assert_eq!(listener.address().to_string(), "shm:///sim/greet?fallback=unix");
    let (conn, told) = place.dial(&listener.address().to_string());
    place.until("the end comes", || told.0.borrow().eof);
    assert_eq!(told.0.borrow().bytes, b"hello");
    listener.free();
    place.close([conn]);
}

#[test]
fn who_has_not_said_fallback_is_told_what_to_say() {
    let place = Place::new(Faults::none().with(Fault::MemoryRefused, 1000));
    let listener = place.serve("shm:///sim/strict");
    let alone = place.dial("shm:///sim/strict?fallback=unix");
    alone.1.says(&["we have no memory", "the listener does not say fallback=unix"]);
    let neither = place.dial("shm:///sim/strict");
    neither.1.says(&["no shared memory for rings of 65536 bytes"]);
    listener.free();

    place.world.set_faults(Faults::none());
    let listener = place.serve("shm:///sim/strict2?budget=0&fallback=unix");
    let other = place.dial("shm:///sim/strict2");
    other.1.says(&["budget of 0 KiB is used up", "fallback=unix at both ends"]);
    listener.free();
    place.close([alone.0, neither.0, other.0]);
}

#[test]
fn an_acceptor_that_goes_on_without_memory_unasked_is_refused() {
    let place = Place::new(Faults::none());
    let answer = |conn: Bufferevent| {
        conn.on_read(|c| {
            c.output().add(b"rnglane+\0\x01\x01\0\0\0\0\0hello");
            c.free();
        });
        conn.enable(READ);
    };
    let listener = place.base.listen("unix:///sim/odd", answer).expect("nobody else listens there");
    let odd = place.dial("shm:///sim/odd");
    odd.1.says(&["without memory", "did not say fallback=unix"]);
    listener.free();
    place.close([odd.0]);
}
