//! Byte streams over the credit protocol and the software device, by seed.

#![forbid(unsafe_code)]

mod world;

use proptest::prelude::*;
use ringlane_rdma_stub::link::Shape;
use world::{Plan, World};

fn shape() -> impl Strategy<Value = Shape> {
    (64_u32..2000, 1_u32..20, 1_u32..12).prop_map(|(message_bytes, window, sends)| Shape {
        message_bytes,
        window,
        sends,
        ..Shape::default()
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let writes = prop_oneof![Just(0_u64), 1_u64..200, 1_u64..60_000];
    let window = prop_oneof![Just(0_u64), 1_u64..5000];
    (writes, 1_u64..9000, window).prop_map(|(writes, chunk, window)| Plan {
        writes,
        chunk,
        window,
        finishes: true,
    })
}

type Ends = [(Shape, Plan); 2];

fn links() -> impl Strategy<Value = Vec<Ends>> {
    let end = || (shape(), plan());
    proptest::collection::vec((end(), end()).prop_map(|(a, b)| [a, b]), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Every byte arrives once and in order, both ends see the end, nobody was ever not ready,
    /// nothing is left behind.
    #[test]
    fn whatever_two_ends_do_the_streams_arrive_whole(
        seed in any::<u64>(),
        links in links(),
        room in prop_oneof![Just(usize::MAX), 1_usize..4],
    ) {
        let mut world = World::new(seed);
        world.fabric.set_room(room);
        for [a, b] in links {
            world.link([a.0, b.0], [a.1, b.1]);
        }
        world.run();
        let ends = world.nodes[0].ends.iter().zip(&world.nodes[1].ends);
        for (a, b) in ends {
            prop_assert_eq!((a.received, b.received), (b.plan.writes, a.plan.writes));
            prop_assert_eq!((a.sent, b.sent), (a.plan.writes, b.plan.writes));
            prop_assert!(a.failures.is_empty() && b.failures.is_empty(), "{}", world.picture());
            prop_assert!(a.eof && b.eof);
        }
        for node in &world.nodes {
            let device = node.dispatch.verbs();
            let counters = device.counters();
            prop_assert_eq!((counters.not_ready_naks, counters.not_ready_retries), (0, 0));
            prop_assert_eq!((device.pairs(), device.registered_bytes()), (0, 0));
            prop_assert_eq!(node.dispatch.home().out(), 0);
            prop_assert!(node.dispatch.is_empty());
        }
    }
}
