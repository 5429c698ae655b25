use super::*;

use ringlane::bus::local::Pick;
use ringlane::bus::{BusError, RelayEvent, SendOptions};

#[test]
fn a_message_to_a_name_comes_there() {
    let world = World::new(64 << 10);
    let (_db, seen) = world.listener("db");
    let web = world.open("web");
    web.send("db@a", b"hello").unwrap();
    world.until(|| seen.count() == 1);
    assert_eq!(*seen.texts.borrow(), ["hello"]);
}

#[test]
fn what_is_sent_before_anybody_is_there_waits() {
    let mut world = World::new(64 << 10);
    world.relay.take().unwrap().die();
    let web = world.open("web");
    web.send("db", b"early").unwrap();
    world.base.turn(Turn::NoWait).unwrap();
    world.start_relay(2);
    world.until(|| web.is_here());
    web.send("db", b"not so early").unwrap();
    let (_db, seen) = world.listener("db");
    world.until(|| seen.count() == 2);
    assert_eq!(*seen.texts.borrow(), ["early", "not so early"]);
}

#[test]
fn more_than_the_rings_hold_goes_through_in_order() {
    let world = World::new(4 << 10);
    let (_db, seen) = world.listener("db");
    let web = world.open("web");
    send_numbers(&web, "db", 0..5000);
    world.until(|| seen.count() == 5000);
    assert_eq!(*seen.texts.borrow(), numbers(0..5000));
    world.until(|| web.unacknowledged() == 0);
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_when_the_relay_is_killed() {
    let mut world = World::new(16 << 10);
    let (db, seen) = world.listener("db");
    let web = world.open("web");
    let lost = Rc::new(Cell::new(0));
    let count = Rc::clone(&lost);
    web.on_relay(move |event| {
        count.set(count.get() + u32::from(matches!(event, RelayEvent::Lost { .. })));
    });
    send_numbers(&web, "db", 0..20_000);
    for run in 2..6 {
        let some = seen.count() + 1500;
        world.until(|| seen.count() >= some);
        world.relay.take().unwrap().die();
        world.until(|| !web.is_here() && !db.is_here());
        world.start_relay(run);
    }
    world.until(|| seen.count() == 20_000);
    assert_eq!(*seen.texts.borrow(), numbers(0..20_000));
    assert_eq!(lost.get(), 4);
}

#[test]
fn a_request_gets_its_answer_and_a_call_without_one_ends_in_time() {
    let world = World::new(64 << 10);
    let db = world.open("db");
    db.on_message(|m| {
        if m.text() == "how much?" {
            m.reply(b"42").unwrap();
        }
    });
    let web = world.open("web");
    let answers: Rc<RefCell<Vec<String>>> = Rc::default();
    for ask in ["how much?", "are you deaf?"] {
        let answers = Rc::clone(&answers);
        web.call("db", ask.as_bytes(), Duration::from_millis(300), move |answer| {
            let said = answer.map_or_else(|error| error.to_string(), |m| m.text().into_owned());
            answers.borrow_mut().push(said);
        })
        .unwrap();
    }
    world.until(|| answers.borrow().len() == 2);
    assert_eq!(*answers.borrow(), ["42", "nothing came in time"]);
}

#[test]
fn a_large_message_comes_whole() {
    let world = World::new(16 << 10);
    let db = world.open("db");
    let got: Rc<RefCell<Vec<u8>>> = Rc::default();
    let into = Rc::clone(&got);
    db.on_message(move |m| *into.borrow_mut() = m.bytes().to_vec());
    let web = world.open("web");
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| ((n * 7) >> 3) as u8).collect();
    assert!(matches!(web.send("nobody", &bytes), Err(BusError::WouldBlock) | Ok(())));
    web.send_large("db", &SendOptions::default(), &bytes).unwrap();
    world.until(|| !got.borrow().is_empty());
    assert_eq!(*got.borrow(), bytes);
}

#[test]
fn a_process_that_dies_is_told_with_the_first_message_it_has_not_consumed() {
    let world = World::new(64 << 10);
    let web = world.open("web");
    let gone: Rc<RefCell<Vec<PeerEvent>>> = Rc::default();
    let told = Rc::clone(&gone);
    web.on_peer(move |event| {
        if matches!(event, PeerEvent::Gone { .. }) {
            told.borrow_mut().push(event.clone());
        }
    });
    // Its base is its life.
    let other = EventBase::new().unwrap();
    let db = Bus::open_at(&other, "db", &format!("unix://@{}", world.name)).unwrap();
    let count = Rc::new(Cell::new(0));
    let seen = Rc::clone(&count);
    let stop = other.remote();
    db.on_message(move |_| {
        seen.set(seen.get() + 1);
        if seen.get() == 2 {
            stop.stop().unwrap();
        }
    });
    for n in 0..5 {
        web.send("db", format!("{n}").as_bytes()).unwrap();
    }
    while count.get() < 2 {
        world.base.turn(Turn::NoWait).unwrap();
        other.turn(Turn::NoWait).unwrap();
    }
    drop((db, other));
    world.until(|| !gone.borrow().is_empty());
    let first = match &gone.borrow()[0] {
        PeerEvent::Gone { node, first, exact: true, .. } if &**node == "db" => *first,
        event => panic!("{event:?}"),
    };
    assert_eq!(first, count.get() + 1);
}

#[test]
fn who_ends_in_peace_waits_until_all_is_acknowledged_and_its_peer_sees_the_end() {
    let world = World::new(64 << 10);
    let web = world.open("web");
    for n in 0..100 {
        web.send("db", format!("{n}").as_bytes()).unwrap();
    }
    let (_db, seen) = world.listener("db");
    assert_eq!(web.close_now(Duration::from_secs(5)).unwrap(), 0);
    assert!(!web.is_alive());
    assert!(matches!(web.send("db", b"late"), Err(BusError::Closed)));
    let ended =
        |event: &PeerEvent| matches!(event, PeerEvent::Ended { clean: true, last: 100, .. });
    world.until(|| seen.events.borrow().iter().any(ended));
    assert_eq!(*seen.texts.borrow(), numbers(0..100));
}

#[test]
fn without_a_callback_messages_wait_for_try_recv_and_room_with_them() {
    let world = World::new(4 << 10);
    let (db, web) = (world.open("db"), world.open("web"));
    send_numbers(&web, "db", 0..2000);
    let mut got = Vec::new();
    while got.len() < 2000 {
        world.base.turn(Turn::NoWait).unwrap();
        while let Some(message) = db.try_recv() {
            assert_eq!(message.from(), "web");
            got.push(message.text().into_owned());
        }
    }
    assert_eq!(got, numbers(0..2000));
}

#[test]
fn a_name_that_nobody_has_is_told_and_then_an_error() {
    let world = World::new(64 << 10);
    let (web, seen) = world.listener("web");
    web.send("nobody", b"hello").unwrap();
    world.until(|| !seen.events.borrow().is_empty());
    assert!(
        matches!(&seen.events.borrow()[0], PeerEvent::NoPath { why, .. } if why.contains("file"))
    );
    assert!(matches!(web.send("nobody", b"hello"), Err(BusError::NoPath { .. })));
}

#[test]
fn a_name_that_somebody_has_is_not_given_twice() {
    let world = World::new(64 << 10);
    let first = world.open("db");
    world.until(|| first.is_here());
    let second = world.open("db");
    let told = Rc::new(Cell::new(false));
    let taken = Rc::clone(&told);
    second.on_relay(move |event| taken.set(matches!(event, RelayEvent::NameInUse { .. })));
    world.until(|| told.get());
    assert!(first.is_here() && !second.is_here());
}

#[test]
fn a_group_shares_the_work_among_its_members() {
    let world = World::new(64 << 10);
    let members = ["db1", "db2"].map(String::from).to_vec();
    world.relay().groups.borrow_mut().insert("@db".to_string(), (members, Pick::Any));
    let (_one, first) = world.listener("db1");
    let (_two, second) = world.listener("db2");
    let web = world.open("web");
    for n in 0..10 {
        web.send("@db", format!("{n}").as_bytes()).unwrap();
    }
    world.until(|| first.count() + second.count() == 10);
    assert_eq!((first.count(), second.count()), (5, 5));
}

#[test]
fn callbacks_may_send_close_and_set_other_callbacks() {
    let world = World::new(64 << 10);
    let (_web, seen) = world.listener("web");
    let db = world.open("db");
    let own = db.clone();
    db.on_message(move |m| {
        own.send(m.from(), b"one").unwrap();
        let other = own.clone();
        own.on_message(move |m| {
            other.send(m.from(), b"two").unwrap();
            other.close(Duration::from_secs(5), |left| assert_eq!(left, 0));
        });
    });
    let asks = world.open("asks");
    asks.send("db", b"first").unwrap();
    world.until(|| asks.unacknowledged() == 0);
    world.base.turn(Turn::NoWait).unwrap();
    asks.send("db", b"second").unwrap();
    world.until(|| !db.is_alive());
    assert_eq!(seen.count(), 0);
}

#[test]
fn a_message_is_written_in_place_before_there_is_a_ring_and_after() {
    for direct in [false, true] {
        let world = World::new(64 << 10);
        world.relay().direct.set(direct);
        let (_db, seen) = world.listener("db");
        let web = world.open("web");
        for n in 0..3 {
            let options = SendOptions { ttl: Some(Duration::from_secs(60)), ..Default::default() };
            web.send_in_place("db", &options, 8, |slot| {
                slot.write(4, b"lo");
                slot.write(0, b"hel ");
                slot.write(6, format!(" {n}").as_bytes());
                assert!(matches!(web.send("db", b"amid"), Err(BusError::InCallback)));
            })
            .unwrap();
            world.until(|| seen.count() == n + 1);
        }
        assert_eq!(*seen.texts.borrow(), ["hel lo 0", "hel lo 1", "hel lo 2"]);
    }
}
