//! What is measured, and what was promised.

use ringlane_benches::board::{Figure, Target};
use ringlane_benches::table::Bound;
use ringlane_benches::talk::Kind;

/// A cell: one load.
#[derive(Debug)]
pub struct Cell {
    /// For `--cell`.
    pub name: &'static str,
    pub what: &'static str,
    pub kind: Kind,
    /// Bytes of a message.
    pub bytes: usize,
    pub figures: &'static [Figure],
}

const fn figure(name: &'static str, unit: &'static str, scale: f64, digits: usize) -> Figure {
    Figure { name, unit, scale, digits }
}

pub const CELLS: &[Cell] = &[
    Cell {
        name: "rtt-64",
        what: "64 B there and back, one under way",
        kind: Kind::RoundTrip,
        bytes: 64,
        figures: &[figure("rtt-64 p50", "us", 1.0, 1), figure("rtt-64 p99", "us", 1.0, 1)],
    },
    Cell {
        name: "stream-64",
        what: "64 B one way, counted and checked where they arrive",
        kind: Kind::Stream,
        bytes: 64,
        figures: &[figure("stream-64", "M/s", 1e-6, 3), figure("stream-64 cpu", "us", 1e-3, 3)],
    },
    Cell {
        name: "stream-1k",
        what: "1 KiB one way",
        kind: Kind::Stream,
        bytes: 1 << 10,
        figures: &[figure("stream-1k", "M/s", 1e-6, 3), figure("stream-1k cpu", "us", 1e-3, 3)],
    },
    Cell {
        name: "stream-64k",
        what: "64 KiB one way",
        kind: Kind::Stream,
        bytes: 64 << 10,
        figures: &[
            figure("stream-64k", "GB/s", 65536e-9, 3),
            figure("stream-64k cpu", "us", 1e-3, 1),
        ],
    },
];

const fn at_most(
    figure: &'static str,
    ours: &'static str,
    peer: &'static str,
    most: f64,
    before: Option<f64>,
) -> Target {
    Target { figure, ours, peer, bound: Bound::AtMost(most), before }
}

const fn at_least(
    figure: &'static str,
    ours: &'static str,
    peer: &'static str,
    least: f64,
    before: Option<f64>,
) -> Target {
    Target { figure, ours, peer, bound: Bound::AtLeast(least), before }
}

/// The promises. `before`: what a prototype without acknowledgements, credit and access lists
/// reached on a quiet machine.
pub const TARGETS: &[Target] = &[
    at_most("rtt-64 p50", "bus2", "nats2", 0.45, Some(0.36)),
    at_most("rtt-64 p50", "bus2", "mqtt2", 0.70, Some(0.59)),
    at_least("stream-64", "bus2", "nats2", 5.0, Some(11.5)),
    at_least("stream-1k", "bus2", "nats2", 4.0, Some(8.5)),
    at_least("stream-64k", "bus2", "tcp", 0.9, Some(1.48)),
    at_most("stream-64 cpu", "bus2", "nats2", 0.2, Some(0.06)),
    at_least("stream-64", "bus1", "nats1", 4.0, Some(8.0)),
    at_most("rtt-64 p50", "bus1", "nats1", 0.5, Some(0.40)),
    at_most("rtt-64 p50", "bus0", "nats1", 0.45, None),
    at_least("stream-64", "bus0", "nats1", 8.0, None),
];
