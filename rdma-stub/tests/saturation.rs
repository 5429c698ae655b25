//! Credits where they are scarce: both ways full, small windows, late announcements.

#![forbid(unsafe_code)]

mod world;

use std::time::Duration;

use ringlane_rdma_stub::link::Shape;
use ringlane_rdma_stub::message::{Header, Kind};
use ringlane_rdma_stub::soft::{Fate, Packet, Says};
use world::{Plan, World};

const PAYLOAD: u64 = 48;

/// Small messages; eight of them are in flight at a time.
fn shape(window: u32, control: u32) -> Shape {
    Shape { message_bytes: 64, window, sends: 8, control }
}

/// So many full messages, many per write.
fn messages(count: u64) -> Plan {
    Plan { writes: count * PAYLOAD, chunk: 100 * PAYLOAD, window: 0, finishes: true }
}

fn kind(packet: &Packet) -> Option<Kind> {
    let Says::Message(bytes) = &packet.says else { return None };
    Header::decode(bytes).ok().map(|header| header.kind)
}

fn healthy(world: &World) {
    for node in &world.nodes {
        let counters = node.dispatch.verbs().counters();
        assert_eq!(counters.not_ready_naks, 0, "seed {}: credits promise receives", world.seed);
        for end in &node.ends {
            assert!(end.eof && end.failures.is_empty(), "{}", world.picture());
        }
    }
}

#[test]
fn both_ways_saturated_nothing_stops_and_nobody_is_ever_not_ready() {
    for (seed, window) in (0..).zip([1, 2, 3, 4, 8, 16]) {
        let mut world = World::new(seed);
        world.link([shape(window, 4); 2], [messages(20_000), messages(20_000)]);
        world.run();
        healthy(&world);
    }
}

/// Both ways dead in most runs; in the others one direction gets through first, and the one that is
/// left has nobody who carries its credit.
#[test]
fn without_receives_kept_for_words_saturation_deadlocks_as_it_must() {
    let mut both = 0;
    for seed in 0..20 {
        let mut world = World::new(seed);
        let plan = || Plan { finishes: false, ..messages(20_000) };
        world.link([shape(8, 0); 2], [plan(), plan()]);
        world.run_to_stall();
        let stuck = |n: usize| world.nodes[n].ends[0].received < 20_000 * PAYLOAD;
        assert!(stuck(0) || stuck(1), "seed {seed}: it ran through: {}", world.picture());
        both += u32::from(stuck(0) && stuck(1));
    }
    assert!(both >= 10, "only {both} of 20 runs were dead both ways");
}

#[test]
fn a_reader_that_never_allows_anything_stops_its_writer_at_the_window() {
    let mut world = World::new(3);
    world.closes = false;
    let index = world.link([shape(8, 4); 2], [messages(100), messages(0)]);
    let node = &mut world.nodes[1];
    node.dispatch.grant(node.ends[index].key, 0, &mut node.events);
    world.run_to_stall();
    assert_eq!(world.nodes[0].ends[index].taken, 8 * PAYLOAD);
    assert_eq!(world.nodes[1].ends[index].received, 0);
    let held = world.nodes[1].dispatch.link(world.nodes[1].ends[index].key);
    assert_eq!(held.map(|link| link.held()), Some(8));
}

#[test]
fn announcements_that_are_late_by_far_cost_time_and_nothing_else() {
    let mut world = World::new(5);
    world.fabric.set_script(|packet| match kind(packet) {
        Some(Kind::Credit) => Fate::Late(Duration::from_millis(3)),
        _ => Fate::Arrives,
    });
    world.link([shape(4, 4); 2], [messages(500), messages(3)]);
    world.run();
    healthy(&world);
}

#[test]
fn answers_that_come_long_after_what_the_peer_said_later_do_no_harm() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        world.fabric.set_script(|packet| match packet.is_answer() {
            true => Fate::Late(Duration::from_millis(1)),
            false => Fate::Arrives,
        });
        world.link([shape(16, 4); 2], [messages(2000), messages(2000)]);
        world.run();
        healthy(&world);
    }
}

/// The race between the last look and arming happens in these runs; it is found by looking again.
#[test]
fn completions_between_the_last_look_and_arming_are_found() {
    let mut rescued = 0;
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.link([shape(4, 4); 2], [messages(300), messages(300)]);
        world.run();
        let of = |n: usize| world.nodes[n].dispatch.counters().rescued_by_looking_again;
        rescued += of(0) + of(1);
    }
    assert!(rescued > 20, "the race was met {rescued} times; the wire must make it happen");
}

#[test]
fn a_link_whose_messages_are_larger_than_the_peers_receives_sends_smaller_ones() {
    let mut world = World::new(8);
    let small = shape(4, 4);
    let large = Shape { message_bytes: 4096, ..small };
    let plan = || Plan { writes: 100_000, chunk: 50_000, window: 0, finishes: true };
    world.link([small, large], [plan(), plan()]);
    world.run();
    healthy(&world);
}
