use super::*;
use crate::bus::local::Pick;

fn rig(class: Class) -> Rig {
    let mut rig = Rig::here();
    rig.class = class;
    rig
}

#[test]
fn latest_keeps_the_newest_beside_the_ring() {
    let mut rig = rig(Class::Latest);
    for n in 0..10 {
        rig.send("db", &n.to_string()).expect("it never blocks");
    }
    assert_eq!(rig.texts(1), ["0"]);
    rig.ack(1, 1);
    assert_eq!(rig.texts(1), ["9"]);
    let [status] = &rig.core.out_status()[..] else { panic!("one channel") };
    assert_eq!(status.counts.conflated, 8);
}

#[test]
fn drop_new_drops_and_counts_what_finds_no_room() {
    let mut rig = rig(Class::DropNew);
    let text = "x".repeat(1000);
    for _ in 0..30 {
        rig.send("db", &text).expect("it never blocks");
    }
    let there = rig.texts(1).len() as u64;
    let counts = rig.core.out_status()[0].counts;
    assert_eq!((counts.dropped_new, counts.accepted), (30 - there, there));
}

#[test]
fn drop_old_drops_the_oldest_that_has_not_begun_to_leave() {
    let mut rig = rig(Class::DropOld);
    let text = |n: u32| format!("{n:04}{}", "x".repeat(996));
    for n in 0..30 {
        rig.send("db", &text(n)).expect("it never blocks");
    }
    let there = rig.texts(1);
    rig.ack(1, there.len() as u32);
    let after = rig.texts(1);
    assert_eq!(after.len(), 4, "so many bytes wait beside the ring");
    assert_eq!(after.last(), Some(&text(29)));
    assert_eq!(rig.core.out_status()[0].counts.dropped_old, 26 - there.len() as u64);
}

fn group(pick: Pick) -> Rig {
    let mut rig = Rig::here();
    rig.send("@db", "before").expect("it waits");
    let nodes = ["db1", "db2", "db3"].map(String::from).to_vec();
    rig.said(FromRelay::Members { id: 1, nodes, pick });
    rig
}

#[test]
fn a_message_to_any_of_a_group_goes_to_one_member_in_turn() {
    let mut rig = group(Pick::Any);
    for n in 0..5 {
        rig.send("@db", &n.to_string()).expect("there is room");
    }
    let counts = [2, 3, 4].map(|id| rig.texts(id).len());
    assert_eq!(counts, [2, 2, 2]);
}

#[test]
fn a_message_to_all_of_a_group_goes_to_every_member() {
    let mut rig = group(Pick::All);
    rig.send("@db", "more").expect("there is room");
    for id in 2..5 {
        assert_eq!(rig.texts(id), ["before", "more"]);
    }
}

#[test]
fn a_group_that_chooses_by_a_key_wants_one_and_keeps_to_it() {
    let mut rig = group(Pick::Hash);
    assert!(matches!(rig.send("@db", "without"), Err(BusError::NeedsKey { .. })));
    for _ in 0..4 {
        let post = Post { to: "@db", key: Some(b"user 7"), ..Post::default() };
        rig.core.send(post, b"hello").expect("there is room");
    }
    rig.run();
    let counts = [2, 3, 4].map(|id| rig.texts(id).len());
    assert!(counts.contains(&4), "{counts:?}");
}

#[test]
fn what_a_dead_member_has_not_consumed_goes_to_another_one() {
    let mut rig = group(Pick::Any);
    for id in 2..5 {
        rig.said(FromRelay::Bound { id, epoch: 5 });
    }
    for n in 0..5 {
        rig.send("@db", &n.to_string()).expect("there is room");
    }
    let before = rig.texts(2);
    assert_eq!(before.len(), 2);
    let others: usize = [3, 4].map(|id| rig.texts(id).len()).iter().sum();
    assert_eq!(others, 4);
    rig.peer_events();
    rig.said(FromRelay::Gone { id: 2, epoch: 5, first: 2, exact: true });
    let [PeerEvent::Gone { undelivered, .. }] = &rig.peer_events()[..] else { panic!("gone") };
    assert!(undelivered.is_empty(), "another one gets them");
    let again: Vec<String> = [3, 4].into_iter().flat_map(|id| rig.texts(id)).collect();
    assert_eq!(again, before[1..]);
}
