//! `shm://` among strangers, on the simulator: what those cost who come and say nothing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringlane::prelude::*;
use ringlane_kit::sim::{Fault, Faults, Setup, World};

/// Who connects and says nothing; more than a listener has seats.
const SILENT: usize = 1300;

/// Descriptors that a listener's guests and the listener itself may cost.
const SEATS: usize = 1024 + 1;

#[test]
fn those_who_say_nothing_cost_a_bounded_number_of_sockets() {
    let world =
        World::new(Setup { seed: 3, faults: Faults::none(), fd_max: 1 << 13, ..Setup::default() });
    let transports = vec![ringlane_uds::transport(), ringlane_shm::transport()];
    let base = EventBase::with(Box::new(world.reactor()), transports);
    let listener = base
        .listen("shm:///sim/seats", |conn| {
            conn.on_read(|c| {
                c.output().append(c.input());
            });
            conn.on_event(|c, event| {
                if event.is_end() {
                    c.free();
                }
            });
            conn.enable(READ);
        })
        .expect("nobody else listens there");
    let strangers: Rc<RefCell<Vec<Bufferevent>>> = Rc::default();
    let (came, went) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    for _ in 0..SILENT {
        let stranger = base.connect("unix:///sim/seats").expect("the address is valid");
        let (came, went) = (Rc::clone(&came), Rc::clone(&went));
        stranger.on_event(move |c, event| {
            if matches!(event, BevEvent::Connected) {
                came.set(came.get() + 1);
            } else if event.is_end() {
                went.set(went.get() + 1);
                c.free();
            }
        });
        stranger.enable(READ);
        strangers.borrow_mut().push(stranger);
    }
    // Well before the deadline of a hand-over, at which they all would go.
    let begun = base.now();
    let ours = || world.open_fds() - (SILENT - went.get());
    while came.get() < SILENT || went.get() < SILENT + 1 - SEATS {
        base.turn(Turn::Wait).expect("it turns");
        let (came, went) = (came.get(), went.get());
        let soon = (base.now() - begun).as_secs() < 3;
        assert!(soon, "{came} came, {went} went, they cost {}", ours());
    }
    // What has just gone closes.
    for _ in 0..3 {
        base.turn(Turn::NoWait).expect("it turns");
    }
    assert!(ours() <= SEATS, "{} descriptors for those who say nothing", ours());

    // Who speaks is served while they sit there.
    let client = base.connect("shm:///sim/seats").expect("the address is valid");
    client.output().add(b"here");
    let heard = Rc::new(Cell::new(false));
    let told = Rc::clone(&heard);
    client.on_read(move |c| {
        told.set(c.input().to_vec() == b"here");
        c.free();
    });
    client.enable(READ);
    while !heard.get() {
        base.turn(Turn::Wait).expect("it turns");
        assert!((base.now() - begun).as_secs() < 4, "nobody answers who speaks");
    }
    listener.free();
    strangers.borrow_mut().drain(..).filter(Bufferevent::is_alive).for_each(|c| c.abort());
    base.dispatch().expect("it turns");
    drop(base);
    assert_eq!((world.open_fds(), world.violations().len()), (0, 0));
}

/// A listener that is told closed has nobody left: the simulator's seeds 903 and 2404 once ended
/// with a block that a half-made link was still about to be given.
#[test]
fn a_closed_listener_has_no_guests_left() {
    for seed in 0..50 {
        let faults = Faults::none().with(Fault::Late, 700).with(Fault::CancelRace, 500);
        let world = World::new(Setup { seed, faults, ..Setup::default() });
        let transports = vec![ringlane_uds::transport(), ringlane_shm::transport()];
        let base = EventBase::with(Box::new(world.reactor()), transports);
        let listener = base.listen("shm:///sim/guests", |_| {}).expect("nobody else listens there");
        let stranger = base.connect("unix:///sim/guests").expect("the address is valid");
        // Less than a greeting has.
        stranger.output().add(b"hello?");
        for _ in 0..seed {
            base.turn(Turn::NoWait).expect("it turns");
        }
        listener.free();
        stranger.abort();
        while base.stats().links + base.stats().listeners > 0 {
            base.turn(Turn::Wait).expect("it turns");
        }
        assert_eq!((base.stats().blocks_out, base.stats().timers), (0, 0), "seed {seed}");
        assert_eq!(world.open_fds(), 0, "seed {seed}");
    }
}
