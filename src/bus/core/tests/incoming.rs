use super::*;
use crate::shm::MORE;

#[test]
fn messages_are_shown_in_order_with_their_sender_and_number() {
    let mut rig = Rig::here();
    rig.incoming("web", 50);
    rig.store("web", &[(1, b"one"), (1, b"two")]);
    assert!(rig.core.has_arrivals());
    let seen = rig.receive();
    assert_eq!(seen, [("web".into(), 1, "one".into()), ("web".into(), 2, "two".into())]);
    assert!(!rig.core.has_arrivals());
    assert_eq!(rig.sinks.get_mut("web").expect("a ring").0.consumed(), Ok(2));
}

#[test]
fn a_message_is_consumed_when_its_callback_has_returned() {
    let mut rig = Rig::here();
    rig.incoming("web", 50);
    rig.store("web", &[(1, b"one"), (1, b"two"), (1, b"three")]);
    let (mut private, mut shown) = (Vec::new(), 0);
    let mut taken = rig.core.take().expect("there is something");
    let (writer, _) = rig.sinks.get_mut("web").expect("a ring");
    let walked = taken.walk(&mut private, 100, &mut |_| {
        assert_eq!(writer.consumed(), Ok(shown));
        shown += 1;
        if shown == 2 { Flow::Stop } else { Flow::Go }
    });
    assert_eq!((walked.shown, walked.dry), (2, false));
    rig.core.put(taken);
    assert_eq!(rig.receive(), [("web".into(), 3, "three".into())]);
}

#[test]
fn pieces_are_shown_as_one_message() {
    let mut rig = Rig::here();
    rig.incoming("web", 50);
    rig.store("web", &[(1 | MORE, b"a"), (1 | MORE, b"b")]);
    assert!(rig.receive().is_empty());
    rig.relay_dies();
    rig.core.tick(1000);
    rig.run();
    rig.store("web", &[(1, b"c"), (1, b"next")]);
    assert_eq!(rig.receive(), [("web".into(), 3, "abc".into()), ("web".into(), 4, "next".into())]);
}

#[test]
fn a_sender_that_begins_anew_is_read_behind_the_end_of_the_one_before() {
    let mut rig = Rig::here();
    rig.incoming("web", 50);
    rig.store("web", &[(1, b"old one"), (1, b"old two")]);
    let (old, _) = rig.sinks.remove("web").expect("a ring");
    rig.incoming("web", 51);
    rig.store("web", &[(1, b"new one")]);
    assert!(old.look().is_err(), "the old ring is frozen");
    let seen: Vec<String> = rig.receive().into_iter().map(|(_, _, text)| text).collect();
    assert_eq!(seen, ["old one", "old two", "new one"]);
    let events = rig.peer_events();
    assert!(
        matches!(&events[..], [PeerEvent::Ended { epoch: 50, last: 2, clean: false, .. }]),
        "{events:?}"
    );
}

#[test]
fn the_end_of_a_stream_is_told_when_everything_before_it_was_shown() {
    let mut rig = Rig::here();
    rig.incoming("web", 50);
    rig.store("web", &[(1, b"last")]);
    rig.said(FromRelay::End { from: "web".into(), chan: 0, epoch: 50, last: 1, clean: true });
    assert!(rig.peer_events().is_empty());
    assert_eq!(rig.receive().len(), 1);
    let events = rig.peer_events();
    assert!(matches!(&events[..], [PeerEvent::Ended { last: 1, clean: true, .. }]), "{events:?}");
    assert!(rig.core.in_status().is_empty());
    // It may write again.
    rig.incoming("web", 50);
    rig.store("web", &[(1, b"again")]);
    assert_eq!(rig.receive(), [("web".into(), 1, "again".into())]);
}

#[test]
fn requests_carry_the_number_of_their_answer() {
    let mut rig = Rig::here();
    rig.incoming("web", 50);
    let payload = [&9_u64.to_le_bytes()[..], &77_u64.to_le_bytes(), b"how much?"].concat();
    rig.store("web", &[(kind::REQUEST | kind::DEADLINE, &payload), (kind::REPLY, b"short")]);
    let mut seen = Vec::new();
    let mut taken = rig.core.take().expect("there is something");
    taken.walk(&mut Vec::new(), 10, &mut |message| {
        seen.push((message.kind, message.number, message.body.to_vec()));
        Flow::Go
    });
    rig.core.put(taken);
    assert_eq!(seen, [(kind::REQUEST, 77, b"how much?".to_vec())]);
    assert_eq!(rig.core.in_status()[0].counts.unknown, 1);
}
