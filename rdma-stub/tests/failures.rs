//! Ends that are not peaceful: peers that vanish, devices that break, links that are closed at any
//! step. Everybody hears of it, everything that had arrived is delivered, nothing is left behind.

#![forbid(unsafe_code)]

mod world;

use std::io::ErrorKind;
use std::time::Duration;

use ringlane_api::reactor::Side;
use ringlane_rdma_stub::link::{Fault, Shape};
use ringlane_rdma_stub::soft::{Fate, LIMITS};
use ringlane_rdma_stub::verbs::{DeviceLimits, Refusal};
use world::{Plan, World};

fn shape() -> Shape {
    Shape { message_bytes: 256, window: 4, sends: 4, ..Shape::default() }
}

fn plan(writes: u64) -> Plan {
    Plan { writes, chunk: 3000, window: 0, finishes: true }
}

fn nothing_left(world: &World) {
    for node in &world.nodes {
        let device = node.dispatch.verbs();
        assert_eq!((device.pairs(), device.registered_bytes()), (0, 0), "seed {}", world.seed);
        assert_eq!(node.dispatch.home().out(), 0);
        assert!(node.dispatch.is_empty());
    }
}

fn run_some(world: &mut World, steps: usize) {
    for _ in 0..steps {
        if !world.step() {
            return;
        }
    }
}

/// Says what a liveness link would say: the other process is gone.
fn tell_of_death(world: &mut World, n: usize) {
    world.run_to_stall();
    let node = &mut world.nodes[n];
    for end in node.ends.iter().filter(|end| !end.closed) {
        node.dispatch.peer_lost(end.key, Fault::Reset, &mut node.events);
    }
    node.asleep = false;
}

/// By its silence where something was on its way to it; a link that only waits cannot know.
#[test]
fn a_peer_that_vanishes_is_found_by_its_silence_or_told_of() {
    let mut silent = 0;
    for seed in 0..30 {
        let mut world = World::new(seed);
        let links = (seed % 3 + 1) as usize;
        for _ in 0..links {
            world.link([shape(); 2], [plan(100_000), plan(100_000)]);
        }
        run_some(&mut world, 200);
        let port = world.nodes[1].port;
        world.fabric.unplug(port);
        tell_of_death(&mut world, 0);
        tell_of_death(&mut world, 1);
        world.run();
        for end in world.nodes.iter().flat_map(|node| &node.ends) {
            let (side, kind) = end.failures[0];
            assert_eq!((side, end.failures.len()), (Side::Both, 1));
            assert!(matches!(kind, ErrorKind::TimedOut | ErrorKind::ConnectionReset));
            silent += u32::from(kind == ErrorKind::TimedOut);
        }
        nothing_left(&world);
    }
    assert!(silent > 50, "{silent} of 120 ends found it by silence");
}

#[test]
fn a_peer_whose_process_died_has_all_delivered_that_had_arrived_and_then_the_error() {
    for seed in 0..30 {
        let mut world = World::new(seed);
        world.closes = false;
        let reader = Plan { window: 500, ..plan(0) };
        world.link([shape(); 2], [plan(100_000), Plan { finishes: false, ..reader }]);
        run_some(&mut world, 300 + seed as usize);
        let port = world.nodes[0].port;
        world.fabric.unplug(port);
        let node = &mut world.nodes[1];
        let key = node.ends[0].key;
        node.dispatch.peer_lost(key, Fault::Reset, &mut node.events);
        node.asleep = false;
        world.closes = true;
        world.nodes[0].asleep = false;
        tell_of_death(&mut world, 0);
        world.run();
        let end = &world.nodes[1].ends[0];
        let sides: Vec<Side> = end.failures.iter().map(|(side, _)| *side).collect();
        let all = sides == [Side::Both] || sides == [Side::Write, Side::Read];
        assert!(all, "{}", world.picture());
        assert!(end.failures.iter().all(|(_, kind)| *kind == ErrorKind::ConnectionReset));
        let sent = world.nodes[0].ends[0].sent;
        assert!(end.received >= sent, "seed {seed}: {}", world.picture());
        nothing_left(&world);
    }
}

/// What lies in receives when the peer dies is the reader's, however slowly it takes it.
#[test]
fn a_paused_reader_gets_what_had_arrived_before_it_hears_of_the_death() {
    let mut world = World::new(4);
    world.closes = false;
    world.link([shape(); 2], [plan(100_000), plan(0)]);
    let node = &mut world.nodes[1];
    let key = node.ends[0].key;
    node.dispatch.grant(key, 0, &mut node.events);
    world.run_to_stall();
    let node = &mut world.nodes[1];
    assert_eq!(node.dispatch.link(key).map(|link| link.held()), Some(4));
    node.dispatch.peer_lost(key, Fault::Reset, &mut node.events);
    let kinds = |events: &ringlane_rdma_stub::dispatch::Events| -> Vec<String> {
        let name = |text: String| text.split(['(', ' ']).next().unwrap_or_default().to_string();
        events.iter().map(|(_, event)| name(format!("{event:?}"))).collect()
    };
    node.events.clear();
    node.dispatch.grant(key, 241, &mut node.events);
    assert_eq!(kinds(&node.events), ["Received", "Received"], "240 bytes and one more");
    node.events.clear();
    node.dispatch.grant(key, u64::MAX, &mut node.events);
    assert_eq!(kinds(&node.events), ["Received", "Received", "Received", "Failed"]);
}

#[test]
fn a_device_that_breaks_down_ends_every_link_and_leaves_nothing() {
    for seed in 0..30 {
        let mut world = World::new(seed);
        for _ in 0..3 {
            world.link([shape(); 2], [plan(50_000), plan(50_000)]);
        }
        run_some(&mut world, 100 + 10 * seed as usize);
        let node = &mut world.nodes[0];
        node.dispatch.verbs_mut().break_down();
        node.asleep = false;
        let port = node.port;
        world.fabric.unplug(port);
        tell_of_death(&mut world, 1);
        world.run();
        for end in &world.nodes[0].ends {
            assert!(end.failures.iter().all(|(_, kind)| *kind != ErrorKind::TimedOut));
            assert!(end.eof || !end.failures.is_empty(), "{}", world.picture());
        }
        nothing_left(&world);
        let refused = world.nodes[0].dispatch.open(shape()).err();
        assert_eq!(refused, Some(Refusal::DeviceGone));
    }
}

/// Closing at every step of a conversation, from either side or both, is heard by the other as an
/// end of stream behind all that was sent.
#[test]
fn a_link_may_be_closed_at_any_step() {
    for step in 0..400 {
        for who in [&[0][..], &[1], &[0, 1]] {
            let mut world = World::new(step);
            world.link([shape(); 2], [plan(3_000), plan(2_000)]);
            run_some(&mut world, step as usize);
            for &n in who {
                let node = &mut world.nodes[n];
                if !std::mem::replace(&mut node.ends[0].aborted, true) {
                    node.events.retain(|(_, event)| format!("{event:?}").starts_with("Sent"));
                    node.dispatch.abort(node.ends[0].key, &mut node.events);
                    node.asleep = false;
                }
            }
            // Who left cannot say so twice; the other ends by its own rules.
            world.run();
            for (n, node) in world.nodes.iter().enumerate() {
                let end = &node.ends[0];
                assert!(end.received >= world.nodes[1 - n].ends[0].sent || who.contains(&n));
                assert!(who.contains(&n) || end.eof || !end.failures.is_empty());
            }
            nothing_left(&world);
        }
    }
}

#[test]
fn lost_packets_cost_time_and_nothing_else() {
    for seed in 0..5 {
        let mut world = World::new(seed);
        let mut count = seed;
        world.fabric.set_script(move |_| {
            count += 1;
            if count % 50 == 0 { Fate::Lost } else { Fate::Arrives }
        });
        world.link([shape(); 2], [plan(20_000), plan(20_000)]);
        world.run();
        for node in &world.nodes {
            assert_eq!((node.ends[0].received, node.ends[0].failures.len()), (20_000, 0));
        }
        nothing_left(&world);
    }
}

#[test]
fn a_link_for_which_no_memory_can_be_locked_is_refused_and_the_others_go_on() {
    let limits = DeviceLimits { registered_bytes_max: shape().region_bytes() * 3 / 2, ..LIMITS };
    let mut world = World::with_limits(1, limits);
    world.link([shape(); 2], [plan(10_000), plan(10_000)]);
    assert_eq!(world.nodes[0].dispatch.open(shape()).err(), Some(Refusal::NoMemory));
    world.run();
    assert_eq!(world.nodes[0].ends[0].received, 10_000);
    nothing_left(&world);
    assert!(world.nodes[0].dispatch.open(shape()).is_ok(), "there is memory again");
}

#[test]
fn links_whose_work_could_overrun_the_queue_are_refused_and_their_room_comes_back() {
    let limits = DeviceLimits { queue_entries_max: 2 * shape().entries(), ..LIMITS };
    let mut world = World::with_limits(1, limits);
    for _ in 0..2 {
        world.link([shape(); 2], [plan(10_000), plan(10_000)]);
    }
    assert_eq!(world.nodes[0].dispatch.open(shape()).err(), Some(Refusal::Limit));
    world.run();
    assert!(world.nodes[0].dispatch.open(shape()).is_ok(), "closed links give their room back");
}

#[test]
fn a_goodbye_that_nobody_takes_is_waited_for_until_the_owner_says_so() {
    let mut world = World::new(9);
    world.link([shape(); 2], [plan(0), plan(0)]);
    let port = world.nodes[1].port;
    world.fabric.unplug(port);
    let node = &mut world.nodes[0];
    let key = node.ends[0].key;
    node.ends[0].aborted = true;
    node.dispatch.abort(key, &mut node.events);
    world.fabric.advance(Duration::from_millis(10));
    let node = &mut world.nodes[0];
    assert!(node.dispatch.link(key).is_some_and(|link| link.is_leaving()));
    node.dispatch.lingered(key, &mut node.events);
    while node.dispatch.progress(&mut node.events) {}
    assert!(node.dispatch.link(key).is_none(), "it drained at once");
}
