//! The verbs of the bus.

mod agent;
mod check;
mod explain;
mod relay;

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
    /// Does what it is told on stdin: for `ringlane demo` and tests of clusters.
    #[command(hide = true)]
    Agent(agent::Asked),
    /// Says which way messages between two nodes go, and which line of the config says so.
    Explain(explain::Asked),
}

/// Does what was asked. The exit code is 0, but for verbs that say otherwise.
pub fn run(config: &Config, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Check(asked) => Ok(check::run(&asked)),
        Verb::Agent(asked) => agent::run(config, &asked).map(|()| ExitCode::SUCCESS),
        Verb::Relay(asked) => relay::run(config, &asked).map(|()| ExitCode::SUCCESS),
        Verb::Explain(asked) => explain::run(&asked).map(|()| ExitCode::SUCCESS),
    }
}
