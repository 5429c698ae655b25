//! `ringlane explain`: which way messages go, and why: from the relay, which says how they go now,
//! or from the config alone.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use ringlane::bus::local::Question;
use ringlane::cluster::{Cluster, explain};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::serve::say;

use super::ask::ask;
use super::find::At;
use super::seen::{Channel, Process, Route, bytes, grouped, span, span_ms};

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// Who sends: a node, or a node with its host, like `login@a`.
    #[arg(value_name = "SRC")]
    src: String,
    /// Who receives.
    #[arg(value_name = "DST")]
    dst: String,
    /// The number of the channel.
    #[arg(long, value_name = "N", default_value = "0")]
    chan: u16,
    /// Ask this config and no relay.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["socket", "host"])]
    config: Option<PathBuf>,
    #[command(flatten)]
    at: At,
    /// Print it for machines.
    #[arg(long)]
    json: bool,
}

/// What a relay answers.
#[derive(Deserialize)]
struct Live {
    host: String,
    now: u64,
    text: String,
    config: Way,
    channel: Option<Channel>,
    sender: Option<Process>,
    receiver: Option<Process>,
    route: Option<Route>,
}

#[derive(Deserialize)]
struct Way {
    src: Node,
    dst: Node,
    way: String,
}

#[derive(Deserialize)]
struct Node {
    node: String,
    host: String,
}

/// Explains.
pub fn run(asked: &Asked) -> Result<()> {
    match &asked.config {
        Some(config) => from_config(asked, config),
        None => from_relay(asked),
    }
}

fn from_relay(asked: &Asked) -> Result<()> {
    let place = asked
        .at
        .relay_of(&asked.src)
        .context("no relay to ask (with --config FILE the config alone is asked)")?;
    let (src, dst) = (asked.src.clone(), asked.dst.clone());
    let text = ask(&place, Question::Explain { src, dst, chan: asked.chan })?;
    if asked.json {
        let value: Value = serde_json::from_str(&text).context("the relay's answer")?;
        say(&serde_json::to_string_pretty(&value).context("an explanation as JSON")?);
        return Ok(());
    }
    let live: Live = serde_json::from_str(&text).context("the relay is of another version")?;
    say(&format!("{}\n{}", live.text, live.lines().join("\n")));
    Ok(())
}

impl Live {
    /// How things stand now, seen from the relay that was asked.
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("now, seen from host {}", self.host)];
        let mut row = |name: &str, text: String| lines.push(format!("  {name:<11} {text}"));
        row("sender", self.process(&self.config.src, self.sender.as_ref()));
        row("receiver", self.process(&self.config.dst, self.receiver.as_ref()));
        if let Some(route) = &self.route {
            let rtt = route.rtt_us.map_or(String::new(), |us| format!(", RTT {}", span(us * 1000)));
            let at = route.address.as_deref().map_or(String::new(), |at| format!(" at {at}"));
            row("link", format!("to host {}: {}{at}{rtt}", route.host, route.stand()));
        }
        match &self.channel {
            Some(one) => {
                row("channel", one.state.clone());
                let figures = format!(
                    "{} stored, {} wait, credit for {}, idle for {}",
                    grouped(u64::from(one.stored)),
                    grouped(u64::from(one.waiting())),
                    bytes(one.credit),
                    span_ms(one.idle_ms)
                );
                row("", figures);
            }
            None if self.config.way == "direct" => {
                row("channel", "not through this relay: the two have a ring of their own".into());
            }
            None => row("channel", "not open".into()),
        }
        lines
    }

    fn process(&self, node: &Node, process: Option<&Process>) -> String {
        match process {
            Some(one) => {
                let since = span(self.now.saturating_sub(one.since).saturating_mul(1000));
                format!("{} is process {}, here for {since}", node.node, one.pid)
            }
            None if node.host == self.host => format!("no process is there as {}", node.node),
            None => format!("{} is the business of host {}", node.node, node.host),
        }
    }
}

fn from_config(asked: &Asked, config: &PathBuf) -> Result<()> {
    // The secret is nobody's business here.
    let cluster = Cluster::load_public(config).map_err(|errors| {
        let file = config.display();
        match errors.problems() {
            [] => anyhow::anyhow!("{errors}"),
            [first, ..] => anyhow::anyhow!(
                "{file}:{}:{}: {}; `ringlane check {file}` says more",
                first.line,
                first.column,
                first.what
            ),
        }
    })?;
    let explanation = explain(&cluster, &asked.src, &asked.dst, asked.chan)?;
    if asked.json {
        say(&serde_json::to_string_pretty(&explanation).context("an explanation as JSON")?);
    } else {
        say(&explanation.to_string());
    }
    Ok(())
}
