//! A cell's rounds: every server once per round, a fresh process each time, order turned round.

use std::io;
use std::time::Duration;

use crate::link::Kind;
use crate::load::{Group, Load, Outcome, Until};
use crate::peer::Role;
use crate::pin::pin;
use crate::server::{Programs, Server};
use crate::table::{Cell, Measure, Mode};

/// The core of the server, and of the generator in [`Mode::Same`].
pub const SERVER_CORE: usize = 0;
/// The core of the generator in [`Mode::Two`].
pub const LOAD_CORE: usize = 1;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds.
    pub rounds: usize,
    /// Length of the measured window; a quarter of it passes before.
    pub measure: Duration,
}

/// One server in one round.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sample {
    /// Server CPU per message, ns.
    pub cpu_ns: f64,
    /// Messages per second of the first group.
    pub rate: f64,
    /// Median latency of the first group, µs.
    pub p50_us: f64,
    /// 99th percentile of it, µs.
    pub p99_us: f64,
    /// Bytes per second of the last group.
    pub bytes: f64,
    /// Share of the window in which the server was on its core.
    pub busy: f64,
    /// CPU that everybody else used in the window, in cores: the noise.
    pub others: f64,
}

impl Sample {
    fn from(outcome: &Outcome) -> Sample {
        let wall = outcome.wall.as_nanos() as f64;
        let first = &outcome.groups[0];
        let last = &outcome.groups[outcome.groups.len() - 1];
        let used = outcome.server_ns as f64 + outcome.own_ns as f64;
        Sample {
            cpu_ns: outcome.server_ns as f64 / outcome.messages(),
            rate: first.messages / outcome.wall.as_secs_f64(),
            p50_us: first.latency.value_at_quantile(0.5) as f64 / 1e3,
            p99_us: first.latency.value_at_quantile(0.99) as f64 / 1e3,
            bytes: last.bytes as f64 / outcome.wall.as_secs_f64(),
            busy: outcome.server_ns as f64 / wall,
            others: (outcome.machine_ns as f64 - used).max(0.0) / wall,
        }
    }

    /// The value of one measure.
    pub fn value(&self, measure: Measure) -> f64 {
        match measure {
            Measure::Cpu => self.cpu_ns,
            Measure::Rate => self.rate,
            Measure::P99 => self.p99_us,
            Measure::Bytes => self.bytes,
        }
    }
}

/// What a cell's rounds gave: per server its samples in the order of rounds.
#[derive(Debug)]
pub struct Rounds {
    /// Servers that ran every round.
    pub ran: Vec<(String, Vec<Sample>)>,
    /// Servers that could not run or failed, and why.
    pub failed: Vec<(String, String)>,
}

impl Rounds {
    /// One measure of one server, round by round.
    pub fn values(&self, server: &str, measure: Measure) -> Option<Vec<f64>> {
        let (_, samples) = self.ran.iter().find(|(name, _)| name == server)?;
        Some(samples.iter().map(|sample| sample.value(measure)).collect())
    }
}

/// Runs all rounds of `cell`. `tell` is told each sample as it comes.
pub fn run(
    cell: &Cell,
    servers: &[String],
    programs: &Programs,
    plan: Plan,
    tell: &mut dyn FnMut(usize, &str, &Sample) -> io::Result<()>,
) -> io::Result<Rounds> {
    let mut rounds = Rounds {
        ran: servers.iter().map(|name| (name.clone(), Vec::new())).collect(),
        failed: Vec::new(),
    };
    for round in 0..plan.rounds {
        for i in order(rounds.ran.len(), round) {
            let (name, samples) = &mut rounds.ran[i];
            if rounds.failed.iter().any(|(failed, _)| failed == name) {
                continue;
            }
            match once(cell, name, programs, plan) {
                Ok(sample) => {
                    tell(round, name, &sample)?;
                    samples.push(sample);
                }
                Err(error) => rounds.failed.push((name.clone(), error.to_string())),
            }
        }
    }
    let failed: Vec<String> = rounds.failed.iter().map(|(name, _)| name.clone()).collect();
    rounds.ran.retain(|(name, _)| !failed.contains(name));
    Ok(rounds)
}

/// A turned by one each round, and back to front every other round: nobody always follows the
/// same neighbour.
fn order(n: usize, round: usize) -> Vec<usize> {
    let turned = (0..n).map(|i| (i + round / 2) % n);
    if round.is_multiple_of(2) { turned.collect() } else { turned.rev().collect() }
}

fn once(cell: &Cell, name: &str, programs: &Programs, plan: Plan) -> io::Result<Sample> {
    let until = Until::Time { warm: plan.measure / 4, measure: plan.measure };
    let (outcome, server) = drive(cell, name, programs, until, &[])?;
    if !server.stop()? {
        return Err(io::Error::other("it did not end well on SIGTERM"));
    }
    Ok(Sample::from(&outcome))
}

/// Starts a server (`under` a counting program if given), drives the cell's connections, and hands
/// back the server, still running.
pub fn drive(
    cell: &Cell,
    name: &str,
    programs: &Programs,
    until: Until,
    under: &[String],
) -> io::Result<(Outcome, Server)> {
    pin(SERVER_CORE)?;
    let server = Server::start(programs, name, role(cell.groups), cell.via, under)?;
    if cell.mode == Mode::Two {
        pin(LOAD_CORE)?;
    }
    let outcome = Load::open(&server.address, cell.groups)?.run(until, &server.cpu())?;
    Ok((outcome, server))
}

fn role(groups: &[Group]) -> Role {
    if groups.iter().any(|group| group.kind == Kind::Stream) { Role::Sink } else { Role::Echo }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_runs_once_in_each_round() {
        for n in 1..6 {
            for round in 0..9 {
                let mut seen = order(n, round);
                seen.sort_unstable();
                assert_eq!(seen, (0..n).collect::<Vec<_>>());
            }
        }
    }
}
