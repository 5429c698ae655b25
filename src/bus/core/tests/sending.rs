use super::*;

#[test]
fn what_is_sent_before_there_is_a_relay_is_in_its_ring_when_there_is() {
    let mut rig = Rig::new();
    rig.send("db@b", "one").expect("it waits");
    rig.send("db", "two").expect("the same channel");
    rig.core.tick(1);
    rig.run();
    assert_eq!(rig.texts(1), ["one", "two"]);
    assert_eq!((rig.sources[&1].att, rig.sources[&1].epoch), (1, 1000));
    rig.send("db", "three").expect("there is room");
    assert_eq!(rig.texts(1), ["three"]);
}

#[test]
fn a_full_ring_would_block_and_is_writable_once_when_there_is_room() {
    let mut rig = Rig::here();
    let text = "x".repeat(1000);
    let mut sent = 0;
    while rig.send("db", &text).is_ok() {
        sent += 1;
    }
    assert!((12..=16).contains(&sent), "{sent} records of 1 KiB in 16 KiB");
    assert!(matches!(rig.send("db", &text), Err(BusError::WouldBlock)));
    assert_eq!(rig.writable(), [""; 0]);
    assert_eq!(rig.texts(1).len(), sent);
    rig.ack(1, 3);
    assert_eq!(rig.writable(), ["db"]);
    rig.send("db", &text).expect("there is room");
    rig.ack(1, 4);
    assert_eq!(rig.writable(), [""; 0]);
}

#[test]
fn a_message_that_no_record_takes_is_refused_and_goes_by_send_large() {
    let mut rig = Rig::here();
    rig.send("db", "first").expect("there is room");
    let text: String = (0..20_000_u32).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    assert!(matches!(rig.send("db", &text), Err(BusError::TooLong { most: 4088, .. })));
    let post = Post { to: "db", large: true, ..Post::default() };
    rig.core.send(post, text.as_bytes()).expect("it goes in pieces");
    rig.run();
    assert!(matches!(rig.send("db", "later"), Err(BusError::WouldBlock)));
    let mut pieces = Vec::new();
    while pieces.len() < 6 {
        let read = rig.read(1);
        let last = read.last().expect("it goes on").0;
        pieces.extend(read);
        rig.ack(1, last);
    }
    let more = crate::shm::MORE;
    let whole: Vec<u8> = pieces[1..].iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
    assert_eq!(whole, text.as_bytes());
    let kinds: Vec<u16> = pieces[1..].iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(kinds, [1 | more, 1 | more, 1 | more, 1 | more, 1]);
    assert_eq!(rig.writable(), ["db"]);
    rig.send("db", "later").expect("there is room");
}

#[test]
fn a_large_message_that_is_broken_off_ends_in_an_abort_piece() {
    let mut rig = Rig::here();
    let post = Post { to: "db", large: true, ..Post::default() };
    rig.core.send(post, &[7; 60_000]).expect("it goes in pieces");
    rig.run();
    assert!(rig.core.abort_large("db", 0).expect("a channel"));
    assert!(!rig.core.abort_large("db", 0).expect("a channel"));
    let pieces = rig.read(1);
    rig.ack(1, pieces.last().expect("some").0);
    assert_eq!(rig.read(1), [(pieces.len() as u32 + 1, kind::ABORT, vec![])]);
    rig.send("db", "next").expect("there is room");
}

#[test]
fn a_message_with_a_deadline_says_it_first() {
    let mut rig = Rig::here();
    rig.core.set_now(5000);
    let post = Post { to: "db", ttl: Some(250), ..Post::default() };
    rig.core.send(post, b"soon").expect("there is room");
    rig.run();
    let [(1, of, bytes)] = &rig.read(1)[..] else { panic!("one record") };
    assert_eq!(*of, kind::MESSAGE | kind::DEADLINE);
    assert_eq!(bytes[..8], 5250_u64.to_le_bytes());
    assert_eq!(&bytes[8..], b"soon");
}

#[test]
fn a_peer_that_is_gone_is_told_with_what_it_has_not_taken_and_a_new_stream_begins() {
    let mut rig = Rig::here();
    for text in ["one", "two", "three"] {
        rig.send("db", text).expect("there is room");
    }
    rig.said(FromRelay::Bound { id: 1, epoch: 77 });
    rig.read(1);
    rig.peer_events();
    rig.said(FromRelay::Gone { id: 1, epoch: 77, first: 2, exact: true });
    let [PeerEvent::Gone { node, epoch: 77, first: 2, exact: true, undelivered, .. }] =
        &rig.peer_events()[..]
    else {
        panic!("it is gone")
    };
    let texts: Vec<&[u8]> = undelivered.iter().map(|message| &message.bytes[..]).collect();
    assert_eq!((&**node, texts), ("db", vec![&b"two"[..], b"three"]));
    assert!(rig.said.contains(&ToRelay::GoneSeen { id: 1 }));
    rig.send("db", "again").expect("a new stream");
    assert_eq!(rig.read(2), [(1, kind::MESSAGE, b"again".to_vec())]);
}

#[test]
fn a_name_without_a_way_is_an_error_that_says_why_and_is_asked_for_again_later() {
    let mut rig = Rig::here();
    rig.send("nobody", "hello").expect("not known yet");
    rig.said(FromRelay::NoPath { id: 1, why: "no such node".to_string() });
    // The rig has answered with a path; this channel had one.
    let events = rig.peer_events();
    assert!(
        matches!(&events[..], [PeerEvent::NoPath { undelivered, .. }] if undelivered.len() == 1)
    );
    let Err(BusError::NoPath { why, .. }) = rig.send("nobody", "again") else { panic!("no way") };
    assert_eq!(why, "no such node");
    rig.core.set_now(5000);
    rig.send("nobody", "again").expect("it is asked for again");
    assert!(matches!(rig.send("two words", ""), Err(BusError::BadName { .. })));
}

#[test]
fn a_call_ends_by_its_answer_by_its_deadline_or_by_the_peers_death() {
    let mut rig = Rig::here();
    let post = Post { to: "db", ..Post::default() };
    let a = rig.core.call(post, b"a", 100).expect("there is room");
    let b = rig.core.call(post, b"b", 200).expect("there is room");
    let c = rig.core.call(post, b"c", 900).expect("there is room");
    rig.run();
    let [(_, of, bytes), _, _] = &rig.read(1)[..] else { panic!("three requests") };
    assert_eq!((*of, &bytes[..8], &bytes[8..]), (kind::REQUEST, &a.to_le_bytes()[..], &b"a"[..]));
    assert!(rig.core.answered(a) && !rig.core.answered(a));
    rig.core.tick(300);
    rig.run();
    rig.said(FromRelay::Gone { id: 1, epoch: 0, first: 1, exact: true });
    let ends: Vec<(u64, bool)> = std::mem::take(&mut rig.events)
        .into_iter()
        .filter_map(|event| match event {
            Event::CallFailed { call, why } => Some((call, matches!(why, BusError::TimedOut))),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [(b, true), (c, false)]);
}

#[test]
fn closing_waits_until_everything_is_acknowledged() {
    let mut rig = Rig::here();
    rig.send("db", "last").expect("there is room");
    rig.core.close(5000);
    rig.run();
    assert!(rig.said.contains(&ToRelay::Close { id: 1 }) && !rig.core.is_closed());
    assert!(matches!(rig.send("db", "late"), Err(BusError::Closed)));
    rig.read(1);
    rig.ack(1, 1);
    rig.said(FromRelay::Closed { id: 1 });
    assert!(matches!(rig.events.last(), Some(Event::Closed { left: 0 })));
    assert_eq!(rig.said.last(), Some(&ToRelay::Leave));
}

#[test]
fn closing_ends_at_its_linger_and_says_what_is_left() {
    let mut rig = Rig::here();
    rig.send("db", "one").expect("there is room");
    rig.send("db", "two").expect("there is room");
    rig.core.close(500);
    rig.run();
    rig.core.tick(502);
    rig.run();
    assert!(matches!(rig.events.last(), Some(Event::Closed { left: 2 })));
}

#[test]
fn a_channel_that_is_closed_begins_anew_with_the_next_message() {
    let mut rig = Rig::here();
    rig.send("db", "one").expect("there is room");
    rig.read(1);
    rig.core.close_channel("db", 0);
    rig.run();
    assert!(rig.said.contains(&ToRelay::Close { id: 1 }));
    assert!(matches!(rig.send("db", "too early"), Err(BusError::WouldBlock)));
    rig.ack(1, 1);
    assert_eq!(rig.writable(), [""; 0]);
    rig.said(FromRelay::Closed { id: 1 });
    assert_eq!(rig.writable(), ["db"]);
    rig.send("db", "two").expect("a new stream");
    assert_eq!(rig.read(2), [(1, kind::MESSAGE, b"two".to_vec())]);
}
