//! `ringlane forward`: a proxy between any two addresses.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use ringlane::EventBase;
use ringlane::forward::{Forwarder, Limits};

use super::{Cli, Serving, parse_seconds, serve};

/// The client's connection and the one to the target.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// Pairs of addresses, like tcp://127.0.0.1:8080 unix:///run/app.sock; port 0 takes a free
    /// one.
    #[arg(required = true, num_args = 2.., value_names = ["FROM", "TO"])]
    addresses: Vec<String>,
    /// End connections on which nothing moves for so long. Default: never.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    idle_timeout: Option<Duration>,
    /// How long one attempt to connect to TO may take.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    connect_timeout: Duration,
    #[command(flatten)]
    serving: Serving,
}

impl serve::Service for Forwarder {
    fn stop_accepting(&self) {
        Forwarder::stop_accepting(self);
    }

    fn connections(&self) -> usize {
        Forwarder::connections(self)
    }

    fn counters(&self) -> Vec<String> {
        self.counts().iter().map(ToString::to_string).collect()
    }
}

/// Forwards until a signal ends it.
pub fn run(base: &EventBase, asked: &Asked) -> Result<()> {
    let (pairs, odd) = asked.addresses.as_chunks::<2>();
    if let [from] = odd {
        let what = format!("FROM {from} has no TO: addresses come in pairs");
        Cli::command().error(ErrorKind::WrongNumberOfValues, what).exit();
    }
    let room = asked.serving.room(DESCRIPTORS_PER_CONNECTION)?;
    let limits = Limits {
        connections: asked.serving.max_connections.map_or(room, |most| most as usize),
        idle: asked.idle_timeout.filter(|idle| !idle.is_zero()),
        connect: asked.connect_timeout,
    };
    let forwarder = Forwarder::new(base, limits);
    let mut lines = Vec::new();
    for [from, to] in pairs {
        let address = forwarder.add(base, from, to)?;
        lines.push(format!("listening {address} -> {to}"));
    }
    serve::run(base, Rc::new(forwarder), &asked.serving, &lines)
}
