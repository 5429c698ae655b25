//! Timers and time limits. Nothing here asserts that something was quick enough.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::READ;
use ringlane_api::reactor::Side;

use super::stage::{Stage, Tap, cell};
use super::{Outcome, Rig, cases};

cases! {
    "timers fire in the order of their time, each once, none early" => in_order,
    "a periodic timer fires until it is deleted" => periodic,
    "a deleted timer does not fire" => deleted,
    "a timer that is added again fires at its new time" => added_again,
    "a timer may delete, free and add timers from its callback" => from_callback,
    "a thousand timers fire" => thousand,
    "a read timeout is told, and reading is off until it is enabled" => read_timeout,
    "bytes put a read timeout off" => timeout_put_off,
    "a write timeout is told when the peer takes nothing" => write_timeout,
    "stop_after ends dispatch" => stop_after,
}

const MS: Duration = Duration::from_millis(1);

fn in_order(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let order: Rc<RefCell<Vec<u32>>> = Rc::default();
    let start = stage.base.now();
    for ms in [30, 5, 60, 1, 20] {
        let into = Rc::clone(&order);
        stage.base.timer(MS * ms, move |event| {
            let now = event.base().expect("the base calls").now();
            assert!(now - start >= MS * ms, "{ms} ms came early");
            into.borrow_mut().push(ms);
        });
    }
    stage.until("all have fired", || order.borrow().len() == 5);
    assert_eq!(*order.borrow(), [1, 5, 20, 30, 60]);
    Outcome::Pass
}

fn periodic(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let count = cell(0);
    let ticks = Rc::clone(&count);
    let event = stage.base.every(MS, move |event| {
        ticks.set(ticks.get() + 1);
        if ticks.get() == 5 {
            event.del();
        }
    });
    stage.base.dispatch().expect("dispatch ends when the timer does");
    assert_eq!(count.get(), 5);
    assert!(!event.is_pending());
    event.free();
    Outcome::Pass
}

fn deleted(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let doomed = stage.base.timer(MS, |_| panic!("it was deleted"));
    let freed = stage.base.timer(MS * 2, |_| panic!("it was freed"));
    doomed.del();
    freed.free();
    assert!(!doomed.is_pending());
    let later = cell(false);
    let set = Rc::clone(&later);
    stage.base.timer(MS * 10, move |_| set.set(true));
    stage.until("a later one has fired", || later.get());
    Outcome::Pass
}

fn added_again(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let start = stage.base.now();
    let fired = cell(0);
    let count = Rc::clone(&fired);
    let event = stage.base.timer(MS, move |event| {
        let now = event.base().expect("the base calls").now();
        assert!(now - start >= MS * 20, "it fired at its old time");
        count.set(count.get() + 1);
    });
    event.add(Some(MS * 200));
    event.add(Some(MS * 20));
    assert!(event.is_pending());
    stage.until("it fired", || fired.get() == 1);
    assert!(!event.is_pending());
    event.add(Some(MS));
    stage.until("it fired again", || fired.get() == 2);
    stage.base.timer(MS * 250, |_| {});
    stage.base.dispatch().expect("dispatch ends with the last timer");
    assert_eq!(fired.get(), 2);
    Outcome::Pass
}

fn from_callback(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let fired = cell(0);
    let victim = stage.base.timer(MS * 3, |_| panic!("it was freed by another"));
    let count = Rc::clone(&fired);
    stage.base.timer(MS, move |event| {
        victim.free();
        let base = event.base().expect("the base calls");
        let inner = Rc::clone(&count);
        base.timer(MS, move |event| {
            inner.set(inner.get() + 1);
            event.free();
        });
        count.set(count.get() + 1);
        event.free();
    });
    stage.base.timer(MS * 20, |_| {});
    stage.base.dispatch().expect("dispatch ends with the last timer");
    assert_eq!(fired.get(), 2);
    Outcome::Pass
}

fn thousand(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let fired = cell(0);
    let latest = Rc::new(std::cell::Cell::new(0u64));
    for at in 0..1_000u64 {
        let (count, last) = (Rc::clone(&fired), Rc::clone(&latest));
        let micros = (at * 7_919) % 50_000;
        stage.base.once(Duration::from_micros(micros), move |_| {
            count.set(count.get() + 1);
            last.set(last.get().max(micros));
        });
    }
    stage.base.dispatch().expect("dispatch ends with the last timer");
    assert_eq!(fired.get(), 1_000);
    assert_eq!(stage.base.stats().timers, 0);
    Outcome::Pass
}

fn read_timeout(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    server.set_timeouts(Some(MS * 20), None);
    stage.until("the timeout is told", || !at_server.timeouts().is_empty());
    assert_eq!(at_server.timeouts(), [Side::Read]);
    client.output().add(b"late");
    stage.settle(|| client.output().len());
    assert!(at_server.is_empty(), "reading went on after its timeout");
    server.enable(READ);
    stage.until("what came meanwhile is told", || at_server.len() == 4);
    Outcome::Pass
}

fn timeout_put_off(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    // Far longer than the pauses: a slow machine must not turn this into an early timeout.
    server.set_timeouts(Some(MS * 2_000), None);
    let beats = cell(0);
    let count = Rc::clone(&beats);
    let sender = client.clone();
    let period = rig.scaled(MS * 20, MS * 1_500);
    stage.base.every(period, move |event| {
        sender.output().add(b"beat");
        count.set(count.get() + 1);
        if count.get() == 10 {
            event.free();
        }
    });
    stage.until("ten beats have come", || at_server.len() == 40 || at_server.order().contains('t'));
    assert_eq!(at_server.timeouts(), []);
    Outcome::Pass
}

fn write_timeout(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, at_client)) = stage.link();
    server.disable(READ);
    client.set_timeouts(None, Some(MS * 50));
    client.output().add(&vec![1; rig.scaled(32 << 20, 2 << 20)]);
    stage.until("the timeout is told", || !at_client.timeouts().is_empty());
    assert_eq!(at_client.timeouts(), [Side::Write]);
    assert!(at_server.is_empty() || at_server.len() < 32 << 20);
    client.abort();
    server.abort();
    Outcome::Pass
}

fn stop_after(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let start = stage.base.now();
    stage.base.stop_after(MS * 10);
    stage.base.dispatch().expect("dispatch ends");
    assert!(stage.base.now() - start >= MS * 10);
    // It can be dispatched again.
    let client = stage.connect(&server);
    client.output().add(b"x");
    let tap = Tap::on(&client);
    stage.until("the byte is back", || tap.len() == 1);
    Outcome::Pass
}
