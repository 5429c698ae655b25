//! The verbs of the bus.

mod ask;
mod check;
mod explain;
mod find;
mod ping;
mod relay;
mod seen;
mod status;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use ringlane::reactor::Config;

/// What can be asked about a cluster.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Checks the config of a cluster without a relay: all that is wrong with it, or what it says.
    Check(check::Asked),
    /// Carries messages between the processes of this host, and to those of other hosts.
    Relay(relay::Asked),
    /// Shows what a relay holds: processes, channels, links to other hosts, tables and counters.
    Status(status::Asked),
    /// Measures how long it takes to a process and back, hop by hop.
    Ping(ping::Asked),
    /// Says which way messages between two nodes go, which line of the config says so, and how
    /// they go now.
    Explain(explain::Asked),
}

/// Does what was asked. The exit code is 0, but for verbs that say otherwise.
pub fn run(config: &Config, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Check(asked) => Ok(check::run(&asked)),
        Verb::Relay(asked) => relay::run(config, &asked).map(|()| ExitCode::SUCCESS),
        Verb::Status(asked) => status::run(&asked).map(|()| ExitCode::SUCCESS),
        Verb::Ping(asked) => ping::run(config, &asked),
        Verb::Explain(asked) => explain::run(&asked).map(|()| ExitCode::SUCCESS),
    }
}
