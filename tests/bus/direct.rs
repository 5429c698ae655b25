use super::*;

fn world(ring: u32) -> World {
    let world = World::new(ring);
    world.relay().direct.set(true);
    world
}

#[test]
fn neighbours_talk_without_the_relay_and_its_death_does_not_disturb_them() {
    let mut world = world(16 << 10);
    let (_db, seen) = world.listener("db");
    let web = world.open("web");
    web.send("db", b"0").unwrap();
    world.until(|| seen.count() == 1);
    assert_eq!(web.out_status()[0].way, "direct");
    world.relay.take().unwrap().die();
    send_numbers(&web, "db", 1..3000);
    world.until(|| seen.count() == 3000);
    assert_eq!(*seen.texts.borrow(), numbers(0..3000));
    world.until(|| web.unacknowledged() == 0);
}

#[test]
fn a_neighbour_that_dies_is_told_with_what_it_has_not_consumed() {
    let world = world(64 << 10);
    let web = world.open("web");
    let gone: Rc<RefCell<Vec<PeerEvent>>> = Rc::default();
    let told = Rc::clone(&gone);
    web.on_peer(move |event| {
        if matches!(event, PeerEvent::Gone { .. }) {
            told.borrow_mut().push(event.clone());
        }
    });
    let other = EventBase::new().unwrap();
    let db = Bus::open_at(&other, "db", &format!("unix://@{}", world.name)).unwrap();
    for n in 0..5 {
        web.send("db", format!("{n}").as_bytes()).unwrap();
    }
    let mut taken = 0;
    while taken < 2 {
        world.base.turn(Turn::NoWait).unwrap();
        other.turn(Turn::NoWait).unwrap();
        taken += u32::from(db.try_recv().is_some());
    }
    drop((db, other));
    world.until(|| !gone.borrow().is_empty());
    match &gone.borrow()[0] {
        PeerEvent::Gone { first: 3, exact: true, undelivered, .. } => {
            let texts: Vec<&[u8]> = undelivered.iter().map(|left| &left.bytes[..]).collect();
            assert_eq!(texts, [b"2", b"3", b"4"]);
        }
        event => panic!("{event:?}"),
    }
    // The next one is met again.
    let (_db, seen) = world.listener("db");
    web.send("db", b"again").unwrap();
    world.until(|| seen.count() == 1);
}

#[test]
fn a_neighbour_that_ends_in_peace_is_read_to_its_end() {
    let world = world(64 << 10);
    let (_db, seen) = world.listener("db");
    let web = world.open("web");
    for n in 0..50 {
        web.send("db", format!("{n}").as_bytes()).unwrap();
    }
    assert_eq!(web.close_now(Duration::from_secs(5)).unwrap(), 0);
    let ended = |event: &PeerEvent| matches!(event, PeerEvent::Ended { last: 50, .. });
    world.until(|| seen.events.borrow().iter().any(ended));
    assert_eq!(*seen.texts.borrow(), numbers(0..50));
}

#[test]
fn neighbours_call_each_other() {
    let world = world(64 << 10);
    let db = world.open("db");
    db.on_message(|m| m.reply(b"42").unwrap());
    let web = world.open("web");
    let answer: Rc<RefCell<Option<String>>> = Rc::default();
    let into = Rc::clone(&answer);
    web.call("db", b"how much?", Duration::from_secs(10), move |answer| {
        *into.borrow_mut() = Some(answer.unwrap().text().into_owned());
    })
    .unwrap();
    world.until(|| answer.borrow().is_some());
    assert_eq!(answer.borrow().as_deref(), Some("42"));
}
