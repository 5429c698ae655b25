//! The loop itself: stopping, deferring, user events, signals.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::{EventBase, Signal, Turn, What};

use super::stage::{Stage, Tap, cell};
use super::{Outcome, Rig, cases, skip};

cases! {
    "dispatch returns when nothing is left to wait for" => nothing_left,
    "stop lets the callbacks of this turn run, break_now does not" => stop_and_break,
    "a turn that does not wait comes back at once" => no_wait,
    "dispatch inside a callback is an error" => nested,
    "deferred callbacks run in order, and may defer again" => deferred,
    "an activated event is called with what it was given" => activated,
    "an event freed while it is activated is not called" => freed_activated,
    "a signal is told in the loop and does not keep it going" => signal,
    "a raw descriptor's readiness is told once, always or at its edge" => readiness,
    "a raw descriptor's timeout is told when nothing comes" => readiness_timeout,
    "statistics go back to nothing when everything is freed" => stats,
    "the engine says what it is" => report,
}

fn nothing_left(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    stage.base.dispatch().expect("there is nothing to do");
    assert!(!stage.base.turn(Turn::NoWait).expect("a turn works"));
    let fired = cell(false);
    let set = Rc::clone(&fired);
    stage.base.once(Duration::from_millis(5), move |_| set.set(true));
    stage.base.dispatch().expect("it ends with the timer");
    assert!(fired.get());
    let server = stage.echo();
    let client = stage.connect(&server);
    client.output().add(b"x");
    let tap = Tap::on(&client);
    stage.until("the byte is back", || tap.len() == 1);
    client.free();
    server.free();
    stage.base.dispatch().expect("it ends with the last link");
    assert_eq!(tap.len(), 1);
    Outcome::Pass
}

fn stop_and_break(rig: &Rig) -> Outcome {
    for breaks in [false, true] {
        let stage = Stage::new(rig);
        let _server = stage.echo();
        let calls = cell(0);
        let events: Vec<_> = (0..2)
            .map(|_| {
                let count = Rc::clone(&calls);
                stage.base.user_event(move |event, _| {
                    count.set(count.get() + 1);
                    let base = event.base().expect("the base calls");
                    if breaks { base.break_now() } else { base.stop() }
                })
            })
            .collect();
        for event in &events {
            event.activate(What::READ);
        }
        stage.base.dispatch().expect("dispatch ends");
        assert_eq!(calls.get(), if breaks { 1 } else { 2 });
        if breaks {
            stage.base.dispatch().expect("the other callback was not lost");
            assert_eq!(calls.get(), 2);
        }
    }
    Outcome::Pass
}

fn no_wait(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let _server = stage.echo();
    for _ in 0..100 {
        assert!(stage.base.turn(Turn::NoWait).expect("a turn works"));
    }
    Outcome::Pass
}

fn nested(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let refused = cell(0);
    let count = Rc::clone(&refused);
    stage.base.once(Duration::ZERO, move |base: &EventBase| {
        count
            .set(u32::from(base.dispatch().is_err()) + u32::from(base.turn(Turn::NoWait).is_err()));
    });
    stage.base.dispatch().expect("the outer one goes on");
    assert_eq!(refused.get(), 2);
    Outcome::Pass
}

fn deferred(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let order: Rc<RefCell<Vec<u32>>> = Rc::default();
    for n in 0..3 {
        let into = Rc::clone(&order);
        stage.base.defer(move |base| {
            into.borrow_mut().push(n);
            let again = Rc::clone(&into);
            base.defer(move |_| again.borrow_mut().push(n + 10));
        });
    }
    assert!(order.borrow().is_empty(), "a deferred callback ran at once");
    stage.base.dispatch().expect("it ends with the last of them");
    assert_eq!(*order.borrow(), [0, 1, 2, 10, 11, 12]);
    Outcome::Pass
}

fn activated(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let got: Rc<RefCell<Vec<What>>> = Rc::default();
    let into = Rc::clone(&got);
    let event = stage.base.user_event(move |_, what| into.borrow_mut().push(what));
    event.activate(What::WRITE);
    stage.until("it was called", || got.borrow().len() == 1);
    event.activate(What::READ);
    event.activate(What::SIGNAL);
    stage.until("it was called again", || got.borrow().len() >= 2);
    stage.idle(5);
    let all = got.borrow();
    assert!(all[0].contains(What::WRITE) && !all[0].intersects(What::READ));
    let rest = all[1..].iter().fold(What::NONE, |sum, what| sum | *what);
    assert!(rest.contains(What::READ | What::SIGNAL), "{all:?}");
    Outcome::Pass
}

fn freed_activated(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let victim = stage.base.user_event(|_, _| panic!("it was freed"));
    let doomed = victim.clone();
    let killer = stage.base.user_event(move |_, _| doomed.free());
    killer.activate(What::READ);
    victim.activate(What::READ);
    stage.idle(5);
    let deleted = stage.base.user_event(|_, _| panic!("it was deleted"));
    deleted.activate(What::READ);
    deleted.del();
    stage.idle(5);
    Outcome::Pass
}

fn signal(rig: &Rig) -> Outcome {
    let Some(raise) = rig.tools.raise else { return skip("no signal can be raised here") };
    let stage = Stage::new(rig);
    let came = cell(0);
    let count = Rc::clone(&came);
    let listening = stage.base.on_signal(Signal::SIGUSR2, move |base| {
        count.set(count.get() + 1);
        let _ = base.stats();
    });
    let event = listening.expect("signals can be had");
    stage.base.dispatch().expect("a signal alone does not keep the loop going");
    let _server = stage.echo();
    for round in 1..=3 {
        raise(Signal::SIGUSR2.0);
        stage.until("the signal is told", || came.get() >= round);
    }
    event.free();
    Outcome::Pass
}

fn readiness(rig: &Rig) -> Outcome {
    if !rig.real {
        return skip("virtual sockets are no descriptors");
    }
    let stage = Stage::new(rig);
    for (what, least, most) in [
        (What::READ, 1, 1),
        (What::READ | What::PERSIST, 5, usize::MAX),
        (What::READ | What::PERSIST | What::EDGE, 1, 2),
    ] {
        let (reader, mut writer) = std::io::pipe().expect("pipes can be made");
        let calls = cell(0usize);
        let count = Rc::clone(&calls);
        let event = stage
            .base
            .event(reader, what, move |_, what| {
                assert!(what.contains(What::READ), "{what:?}");
                count.set(count.get() + 1);
            })
            .expect("a pipe can be watched");
        event.add(None);
        stage.idle(3);
        assert_eq!(calls.get(), 0, "told before anything came");
        writer.write_all(b"x").expect("the pipe has room");
        stage.until("it is told", || calls.get() >= least);
        // Nobody reads: the condition holds on.
        stage.idle(30);
        assert!((least..=most).contains(&calls.get()), "{what:?}: {} calls", calls.get());
        event.free();
    }
    Outcome::Pass
}

fn readiness_timeout(rig: &Rig) -> Outcome {
    if !rig.real {
        return skip("virtual sockets are no descriptors");
    }
    let stage = Stage::new(rig);
    let (reader, writer) = std::io::pipe().expect("pipes can be made");
    let got: Rc<RefCell<Vec<What>>> = Rc::default();
    let into = Rc::clone(&got);
    let event = stage
        .base
        .event(reader, What::READ, move |_, what| into.borrow_mut().push(what))
        .expect("a pipe can be watched");
    event.add(Some(Duration::from_millis(10)));
    stage.until("the timeout is told", || got.borrow().len() == 1);
    assert!(got.borrow()[0].contains(What::TIMEOUT) && !got.borrow()[0].contains(What::READ));
    event.add(None);
    drop(writer);
    stage.until("the end is told as readable", || got.borrow().len() == 2);
    assert!(got.borrow()[1].contains(What::READ));
    event.free();
    Outcome::Pass
}

fn stats(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let client = stage.connect(&server);
            client.output().add(b"x");
            let tap = Tap::on(&client);
            (client, tap)
        })
        .collect();
    stage.until("all bytes are back", || clients.iter().all(|(_, tap)| tap.len() == 1));
    assert_eq!((stage.base.stats().links, stage.base.stats().listeners), (20, 1));
    for (client, _) in &clients {
        client.free();
    }
    server.free();
    stage.until("everything is gone", || {
        let stats = stage.base.stats();
        (stats.links, stats.listeners, stats.events, stats.timers) == (0, 0, 0, 0)
    });
    assert_eq!(stage.base.stats().blocks_out, 0);
    Outcome::Pass
}

fn report(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let report = stage.base.report();
    assert!(!report.engine.is_empty() && !report.tier.is_empty(), "{report:?}");
    stage.idle(3);
    assert!(stage.base.counters().turns >= 3);
    assert!(stage.base.schemes().contains(&rig.scheme));
    Outcome::Pass
}
