//! The bus beside its peers: NATS, MQTT, ZeroMQ and raw TCP between two processes of one machine,
//! in interleaved rounds.
//!
//! ```text
//!   this process ---starts---> one or two relays or servers
//!                ---starts---> client that answers --+
//!                ---starts---> client that asks    --+-- the same load over every system
//! ```
//!
//! `cargo bench -p ringlane-benches --features zmq --bench bus`; METHOD.md says how to read it.

#![forbid(unsafe_code)]

mod cells;
mod client;
mod daemon;
mod mqtt;
mod nats;
mod ringlane;
mod run;
mod system;
mod tcp;
mod wire;
#[cfg(feature = "zmq")]
mod zmq;
#[cfg(not(feature = "zmq"))]
#[path = "zmq_absent.rs"]
mod zmq;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// The bus beside NATS, MQTT, ZeroMQ and raw TCP.
#[derive(Parser)]
pub struct Args {
    /// Only these cells (comma-separated): rtt-64, stream-64, stream-1k, stream-64k.
    #[arg(long, value_delimiter = ',')]
    cell: Vec<String>,
    /// Only these systems (comma-separated): tcp, bus0, bus1, nats1, mqtt1, zmq1, bus2, nats2,
    /// mqtt2, zmq2.
    #[arg(long, value_delimiter = ',')]
    system: Vec<String>,
    /// Rounds.
    #[arg(long)]
    rounds: Option<usize>,
    /// Length of one measurement, in seconds.
    #[arg(long)]
    seconds: Option<f64>,
    /// 3 rounds of 0.3 s: a look, not a figure to quote.
    #[arg(long)]
    quick: bool,
    /// Writes every sample to this file.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Bytes that may be under way in NATS and MQTT, instead of each one's own figure.
    #[arg(long)]
    credit: Option<u64>,
    /// Exits with 1 when a promise is missed, not only when a run failed.
    #[arg(long)]
    strict: bool,
    /// What cargo bench says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.first().map(String::as_str) {
        Some(daemon::BECOME) => Err(daemon::become_program(&words[1..])),
        Some(run::CLIENT) => daemon::die_with_parent().and_then(|()| run::client(&words[1..])),
        Some(run::RELAY) => daemon::die_with_parent().and_then(|()| zmq::relay(&words[1..])),
        Some(ringlane::RELAY) => {
            daemon::die_with_parent().and_then(|()| ringlane::relay(&words[1..]))
        }
        _ => run::all(&Args::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bus: {error}");
            ExitCode::FAILURE
        }
    }
}
