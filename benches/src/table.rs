//! The cells, and what ringlane promises in each.

use crate::link::Kind;
use crate::load::Group;
use crate::server::Via;

/// Where server and generator run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Both on core 0: they take turns, so a turn serves all connections. For CPU per message.
    Same,
    /// Server on core 0, generator on core 1. For rates and latencies.
    Two,
}

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// Server CPU per message, ns.
    Cpu,
    /// Messages per second of the first group.
    Rate,
    /// 99th percentile of the first group's latency.
    P99,
    /// Bytes per second of the last group.
    Bytes,
}

impl Measure {
    /// Its name in tables and csv.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Cpu => "cpu",
            Measure::Rate => "rate",
            Measure::P99 => "p99",
            Measure::Bytes => "bytes/s",
        }
    }
}

/// What a ratio must be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bound {
    /// Less is better.
    AtMost(f64),
    /// More is better.
    AtLeast(f64),
}

impl Bound {
    /// Whether `ratio` keeps it, at the two digits it is stated with.
    pub fn holds(self, ratio: f64) -> bool {
        let ratio = (ratio * 100.0).round() / 100.0;
        match self {
            Bound::AtMost(most) => ratio <= most,
            Bound::AtLeast(least) => ratio >= least,
        }
    }
}

/// A promise: `ours` over `peer`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Target {
    /// Which of ours.
    pub ours: &'static str,
    /// Beside whom.
    pub peer: &'static str,
    /// In what.
    pub measure: Measure,
    /// How much.
    pub bound: Bound,
}

/// One cell of the table.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// For `--cell`.
    pub name: &'static str,
    /// Over what.
    pub via: Via,
    /// Where.
    pub mode: Mode,
    /// What the connections do.
    pub groups: &'static [Group],
    /// What is shown for pairs without a promise.
    pub measure: Measure,
    /// Who runs by default.
    pub servers: &'static [&'static str],
    /// The promises.
    pub targets: &'static [Target],
}

const fn echo(conns: usize, size: usize, depth: usize) -> Group {
    Group { conns, size, depth, kind: Kind::Echo }
}

const fn stream(conns: usize) -> Group {
    Group { conns, size: 256 << 10, depth: 1, kind: Kind::Stream }
}

const fn at_most(ours: &'static str, peer: &'static str, m: Measure, most: f64) -> Target {
    Target { ours, peer, measure: m, bound: Bound::AtMost(most) }
}

const fn at_least(ours: &'static str, peer: &'static str, m: Measure, least: f64) -> Target {
    Target { ours, peer, measure: m, bound: Bound::AtLeast(least) }
}

const fn cpu(peer: &'static str, most: f64) -> Target {
    at_most("ringlane", peer, Measure::Cpu, most)
}

const EPOLL_SMALL: Target = at_most("ringlane-epoll", "libevent", Measure::Cpu, 0.75);

const SMALL: &[&str] = &["libevent", "epoll", "tokio", "ringlane", "ringlane-epoll"];
const LARGE: &[&str] = &["libevent", "epoll", "tokio", "ringlane"];

const fn same(
    name: &'static str,
    via: Via,
    groups: &'static [Group],
    servers: &'static [&'static str],
    targets: &'static [Target],
) -> Cell {
    Cell { name, via, mode: Mode::Same, groups, measure: Measure::Cpu, servers, targets }
}

const fn two(
    name: &'static str,
    groups: &'static [Group],
    measure: Measure,
    servers: &'static [&'static str],
    targets: &'static [Target],
) -> Cell {
    Cell { name, via: Via::Tcp, mode: Mode::Two, groups, measure, servers, targets }
}

/// All cells, in the order they run.
pub const CELLS: &[Cell] = &[
    same(
        "tcp-64",
        Via::Tcp,
        &[echo(64, 64, 1)],
        SMALL,
        &[cpu("libevent", 0.60), cpu("tokio", 0.90), cpu("epoll", 0.90), EPOLL_SMALL],
    ),
    same(
        "tcp-1k",
        Via::Tcp,
        &[echo(64, 1 << 10, 1)],
        SMALL,
        &[cpu("libevent", 0.60), cpu("tokio", 0.90), cpu("epoll", 0.90), EPOLL_SMALL],
    ),
    same(
        "tcp-16k",
        Via::Tcp,
        &[echo(64, 16 << 10, 1)],
        LARGE,
        &[cpu("libevent", 0.19), cpu("tokio", 0.90), cpu("epoll", 0.95)],
    ),
    same(
        "tcp-256k",
        Via::Tcp,
        &[echo(64, 256 << 10, 1)],
        LARGE,
        &[cpu("libevent", 0.14), cpu("tokio", 0.90), cpu("epoll", 0.90)],
    ),
    same(
        "unix-64",
        Via::Unix,
        &[echo(64, 64, 1)],
        SMALL,
        &[cpu("libevent", 0.43), cpu("tokio", 0.90), cpu("epoll", 0.90), EPOLL_SMALL],
    ),
    same(
        "unix-1k",
        Via::Unix,
        &[echo(64, 1 << 10, 1)],
        SMALL,
        &[cpu("libevent", 0.44), cpu("tokio", 0.90), cpu("epoll", 0.90), EPOLL_SMALL],
    ),
    two(
        "stream-1",
        &[stream(1)],
        Measure::Bytes,
        LARGE,
        &[
            at_least("ringlane", "libevent", Measure::Bytes, 3.0),
            at_least("ringlane", "epoll", Measure::Bytes, 0.95),
        ],
    ),
    two(
        "stream-8",
        &[stream(8)],
        Measure::Bytes,
        LARGE,
        &[
            at_least("ringlane", "libevent", Measure::Bytes, 3.0),
            at_least("ringlane", "epoll", Measure::Bytes, 0.95),
        ],
    ),
    two(
        "one-64",
        &[echo(1, 64, 1)],
        Measure::Rate,
        LARGE,
        &[at_least("ringlane", "libevent", Measure::Rate, 1.0)],
    ),
    same("many-1k", Via::Tcp, &[echo(1000, 1 << 10, 16)], LARGE, &[cpu("libevent", 0.18)]),
    two(
        "fair",
        &[echo(16, 64, 1), echo(4, 256 << 10, 4)],
        Measure::P99,
        &["epoll-64k", "ringlane"],
        &[
            at_most("ringlane", "epoll-64k", Measure::P99, 1.0),
            at_least("ringlane", "epoll-64k", Measure::Bytes, 1.1),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_promise_is_about_servers_that_run_in_its_cell() {
        for cell in CELLS {
            for target in cell.targets {
                assert!(cell.servers.contains(&target.ours), "{}", cell.name);
                assert!(cell.servers.contains(&target.peer), "{}", cell.name);
            }
        }
    }
}
