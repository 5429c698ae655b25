//! `ringlane relay`: what carries messages between the processes of this host and others.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use nix::unistd::geteuid;
use ringlane::cluster::{Cluster, ConfigErrors};
use ringlane::prelude::*;
use ringlane::reactor::Config;
use ringlane::relay::daemon::{Options, Relay};
use ringlane::relay::lock::{Lock, socket_of};

use crate::cli::serve::{end_with_stdin, say};
use crate::cli::{descriptors, parse_seconds};

/// Descriptors per process: its socket, its bell's socket, its process.
const DESCRIPTORS_PER_PROCESS: u64 = 3;

/// Where relays of root have their sockets.
const RUN: &str = "/run/ringlane";

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// The config of the cluster; `ringlane check FILE` says what is wrong with one.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which of its hosts this is.
    #[arg(long, value_name = "NAME")]
    host: String,
    /// Where processes find it, /run/x.sock or @name. Default: what the config says, else
    /// /run/ringlane/HOST.sock for root and @ringlane-UID-HOST for others.
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// Starts beside a relay of this host that hangs. That one ends if it ever goes on.
    #[arg(long)]
    takeover: bool,
    /// After SIGTERM or SIGINT, how long what is under way may take; a second signal ends at once.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    drain: Duration,
    /// The end of stdin ends the process: how `ringlane demo` runs it.
    #[arg(long, hide = true)]
    child: bool,
}

/// Runs a relay until a signal ends it.
pub fn run(config: &Config, asked: &Asked) -> anyhow::Result<()> {
    let cluster = load(&asked.config)?;
    let uid = geteuid().as_raw();
    let lock = Lock::take(uid, &asked.host, asked.takeover)
        .with_context(|| format!("no relay for host {}", asked.host))?;
    let usual = socket(&cluster, asked, uid)?;
    let socket = socket_of(&usual, lock.number());
    descriptors::raise(DESCRIPTORS_PER_PROCESS)?;
    let base = EventBase::with_config(config)?;
    let (host, name) = (asked.host.clone(), cluster.name.clone());
    let pid = std::process::id();
    let options = Options { host, socket: mode(&socket), uid, pid, drain: asked.drain };
    let relay = Relay::start(&base, cluster, options)?;
    relay.hold(lock);
    relay.obey_signals(&asked.config)?;
    say(&format!("relay of host {} in cluster {name}, process {pid}", asked.host));
    say(&format!("processes {}", socket.trim_start_matches("unix://")));
    for address in relay.listening() {
        say(&format!("relays {address}"));
    }
    if let Some(address) = relay.showing() {
        say(&format!("metrics {address}"));
    }
    if asked.child {
        end_with_stdin(&base)?;
    }
    base.dispatch()?;
    let ended = relay.ended();
    if ended.replaced {
        bail!("another relay of host {} has taken over", asked.host);
    }
    if ended.unacked > 0 {
        let n = ended.unacked;
        eprintln!("ringlane: {n} messages were under way; their senders hold them for the next");
    }
    Ok(())
}

fn load(config: &Path) -> anyhow::Result<Cluster> {
    Cluster::load(config).map_err(|errors| match errors {
        ConfigErrors::Wrong { .. } => {
            let file = config.display();
            anyhow::anyhow!("{file} is wrong; `ringlane check {file}` says where:\n{errors}")
        }
        errors => anyhow::anyhow!("{errors}"),
    })
}

/// The usual socket of a relay, as an address.
fn socket(cluster: &Cluster, asked: &Asked, uid: u32) -> anyhow::Result<String> {
    let host = cluster.host(&asked.host);
    let configured = host.and_then(|host| host.socket.as_ref());
    if let Some(socket) = &asked.socket {
        let target = socket.trim_start_matches("unix://");
        return Ok(format!("unix://{target}"));
    }
    if let Some(address) = configured {
        return Ok(address.to_string());
    }
    if uid != 0 {
        return Ok(format!("unix://@ringlane-{uid}-{}", asked.host));
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(RUN).with_context(|| format!("{RUN}; say --socket"))?;
    Ok(format!("unix://{RUN}/{}.sock", asked.host))
}

/// Anybody may connect; who may register is the configuration's.
fn mode(socket: &str) -> String {
    match socket.starts_with("unix:///") {
        true if !socket.contains('?') => format!("{socket}?mode=0666"),
        _ => socket.to_string(),
    }
}
