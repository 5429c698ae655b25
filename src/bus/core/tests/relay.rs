use super::*;
use crate::bus::event::RelayEvent;

#[test]
fn nothing_is_lost_and_nothing_comes_twice_when_the_relay_dies() {
    let mut rig = Rig::here();
    rig.incoming("web", 50);
    rig.store("web", &[(1, b"in one"), (1, b"in two")]);
    for text in ["out one", "out two"] {
        rig.send("db", text).expect("there is room");
    }
    rig.read(1);
    rig.ack(1, 1);
    rig.relay_dies();
    // It goes on, without one.
    rig.send("db", "out three").expect("there is room");
    rig.core.tick(1000);
    rig.run();
    assert!(rig.core.is_here());
    assert_eq!((rig.sources[&1].att, rig.sinks["web"].1), (2, 2));
    assert_eq!(rig.texts(1), ["out two", "out three"]);
    assert_eq!(rig.sinks["web"].0.stored(), 2);
    rig.store("web", &[(1, b"in three")]);
    let texts: Vec<String> = rig.receive().into_iter().map(|(_, _, text)| text).collect();
    assert_eq!(texts, ["in one", "in two", "in three"]);
}

#[test]
fn what_was_stored_before_the_hang_up_is_shown_without_a_relay() {
    let mut rig = Rig::here();
    rig.incoming("web", 50);
    rig.store("web", &[(1, b"stored, and nobody rang")]);
    rig.deaf = true;
    rig.relay_dies();
    assert_eq!(rig.receive().len(), 1);
}

#[test]
fn sockets_are_tried_in_turn_and_again_after_100_ms() {
    let mut rig = Rig::new();
    rig.deaf = true;
    rig.core.tick(1);
    for successor in 0..9 {
        rig.run();
        let (conn, which) = *rig.dials.last().expect("it dials");
        assert_eq!(which, successor);
        rig.core.failed(conn);
    }
    rig.run();
    assert_eq!((rig.dials.len(), rig.core.deadline()), (9, Some(101)));
    rig.deaf = false;
    rig.core.tick(101);
    rig.run();
    assert!(rig.core.is_here());
}

#[test]
fn a_relay_that_hangs_is_left_for_a_successor_and_its_rings_are_frozen_first() {
    let mut rig = Rig::here();
    rig.incoming("web", 50);
    let (old, _) = rig.sinks.remove("web").expect("a ring");
    rig.deaf = true;
    let mut now = 1;
    while rig.dials.len() < 2 {
        now += 50;
        rig.core.tick(now);
        rig.run();
    }
    assert!((500..700).contains(&now), "{now}");
    let (conn, successor) = rig.dials[1];
    assert_eq!(successor, 1);
    assert!(rig.hung.is_empty() && old.look().is_ok());
    let before = rig.conn;
    (rig.conn, rig.deaf) = (conn, false);
    rig.core.connected(conn);
    assert!(old.look().is_err(), "frozen before the old relay can see a hang-up");
    rig.run();
    assert_eq!(rig.hung, [before]);
    assert!(rig.core.is_here() && rig.sinks.contains_key("web"));
}

#[test]
fn a_relay_that_is_silent_for_3_s_is_left_without_a_successor_too() {
    let mut rig = Rig::here();
    rig.deaf = true;
    for now in 1..70 {
        rig.core.tick(now * 50);
        rig.run();
        let open: Vec<ConnNo> = rig.dials.iter().map(|(conn, _)| *conn).collect();
        open[1..].iter().for_each(|conn| rig.core.failed(*conn));
    }
    assert!(!rig.core.is_here() && rig.hung.contains(&rig.conn));
    let lost =
        rig.events.iter().filter(|event| matches!(event, Event::Relay(RelayEvent::Lost { .. })));
    assert_eq!(lost.count(), 1);
}

#[test]
fn who_finds_its_name_taken_is_told_and_looks_no_more() {
    let mut rig = Rig::new();
    rig.deaf = true;
    rig.core.tick(1);
    rig.run();
    let (conn, _) = rig.dials[0];
    rig.core.connected(conn);
    rig.core.said(conn, FromRelay::NameInUse { pid: 42, since: 7 });
    rig.run();
    let taken = RelayEvent::NameInUse { pid: 42, since: 7 };
    assert!(matches!(rig.events.last(), Some(Event::Relay(event)) if *event == taken));
    assert!(rig.core.is_over() && rig.core.deadline().is_none());
    assert!(matches!(rig.send("db", "hello"), Err(BusError::Closed)));
}

#[test]
fn an_epoch_that_is_stale_is_raised_and_streams_begin_anew() {
    let mut rig = Rig::here();
    rig.send("db", "one").expect("there is room");
    rig.send("db", "two").expect("there is room");
    rig.said(FromRelay::StaleEpoch { known: 2000 });
    assert_eq!(rig.core.epoch(), 2001);
    // On a connection of its own: one is registered once.
    rig.core.tick(2);
    rig.run();
    assert!(rig.core.is_here());
    assert_eq!(rig.sources[&1].epoch, 2001);
    assert_eq!(
        rig.read(1),
        [(1, kind::MESSAGE, b"one".to_vec()), (2, kind::MESSAGE, b"two".to_vec())]
    );
}
