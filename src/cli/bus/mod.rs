//! The verbs of the bus.

mod check;
mod explain;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What can be asked about a cluster.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Checks the config of a cluster without a relay: all that is wrong with it, or what it says.
    Check(check::Asked),
    /// Says which way messages between two nodes go, and which line of the config says so.
    Explain(explain::Asked),
}

/// Does what was asked. The exit code is 0, but for verbs that say otherwise.
pub fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Check(asked) => Ok(check::run(&asked)),
        Verb::Explain(asked) => explain::run(&asked).map(|()| ExitCode::SUCCESS),
    }
}
