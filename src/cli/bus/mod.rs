//! The verbs of the bus.
//!
//! ```text
//!   check.rs, relay.rs                     a config; the relay itself
//!   find.rs, ask.rs, seen.rs               which relay is meant; questions to it; what it tells
//!   status.rs, top.rs, ping.rs, explain.rs   operators
//!   join.rs, send.rs, recv.rs, call.rs, load.rs   processes on the bus
//!   agent.rs                               a process that does what a test tells it
//! ```

mod agent;
mod ask;
mod call;
mod check;
mod explain;
mod find;
mod join;
mod load;
mod ping;
mod recv;
mod relay;
mod seen;
mod send;
mod status;
mod top;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use ringlane::reactor::Config;

pub use load::{Load, run as load};

/// What can be asked about a cluster.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Checks the config of a cluster without a relay: all that is wrong with it, or what it says.
    Check(check::Asked),
    /// Carries messages between the processes of this host, and to those of other hosts.
    Relay(relay::Asked),
    /// Sends messages, and exits with 0 when all of them are acknowledged.
    Send(send::Asked),
    /// Receives messages and prints them; answers requests, if told how.
    Recv(recv::Asked),
    /// Sends a request and prints the answer.
    Call(call::Asked),
    /// Shows what a relay holds: processes, channels, links to other hosts, tables and counters.
    Status(status::Asked),
    /// Shows a relay live: rates of channels and links; q ends it.
    Top(top::Asked),
    /// Measures how long it takes to a process and back, hop by hop.
    Ping(ping::Asked),
    /// Says which way messages between two nodes go, which line of the config says so, and how
    /// they go now.
    Explain(explain::Asked),
    /// Does what it is told on stdin: for `ringlane demo` and tests of clusters.
    #[command(hide = true)]
    Agent(agent::Asked),
}

/// Does what was asked. The exit code is 0, but for verbs that say otherwise. On a `dumb` terminal
/// nothing is drawn.
pub fn run(config: &Config, verb: Verb, dumb: bool) -> Result<ExitCode> {
    let done = |result: Result<()>| result.map(|()| ExitCode::SUCCESS);
    match verb {
        Verb::Check(asked) => Ok(check::run(&asked)),
        Verb::Relay(asked) => done(relay::run(config, &asked)),
        Verb::Send(asked) => done(send::run(config, &asked)),
        Verb::Recv(asked) => done(recv::run(config, asked)),
        Verb::Call(asked) => done(call::run(config, &asked)),
        Verb::Status(asked) => done(status::run(&asked)),
        Verb::Top(asked) => done(top::run(config, &asked, dumb)),
        Verb::Ping(asked) => ping::run(config, &asked),
        Verb::Explain(asked) => done(explain::run(&asked)),
        Verb::Agent(asked) => done(agent::run(config, &asked)),
    }
}
