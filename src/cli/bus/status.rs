//! `ringlane status`: what a relay holds at this moment.

use anyhow::{Context, Result};
use clap::Args;
use ringlane::bus::local::Question;

use crate::cli::serve::say;
use crate::cli::text::columns;

use super::ask::{ask, ask_json};
use super::find::At;
use super::seen::{Channel, Counts, Seen, bytes, grouped, span, span_ms};

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    #[command(flatten)]
    at: At,
    /// Print everything for machines.
    #[arg(long)]
    json: bool,
    /// Print the counters in the text format of Prometheus.
    #[arg(long, conflicts_with = "json")]
    metrics: bool,
}

/// Asks and prints.
pub fn run(asked: &Asked) -> Result<()> {
    let place = asked.at.relay()?;
    if asked.metrics {
        say(ask(&place, Question::Metrics)?.trim_end());
    } else if asked.json {
        let value: serde_json::Value = ask_json(&place, Question::Status)?;
        say(&serde_json::to_string_pretty(&value).context("a status as JSON")?);
    } else {
        say(&print(&ask_json(&place, Question::Status)?));
    }
    Ok(())
}

fn print(seen: &Seen) -> String {
    let parts = [head(seen), processes(seen), channels(seen), hosts(seen), tables(seen)];
    parts.join("\n\n")
}

/// One line: who it is.
pub fn title(seen: &Seen) -> String {
    let relay = &seen.relay;
    let up = span(seen.now.saturating_sub(relay.incarnation).saturating_mul(1000));
    let ending = if seen.ending { ", ending" } else { "" };
    let (host, cluster, pid) = (&relay.host, &relay.cluster, relay.pid);
    format!("relay of host {host}, cluster {cluster}: process {pid}, up {up}{ending}")
}

fn head(seen: &Seen) -> String {
    let mut lines = vec![title(seen)];
    let mut row = |name: &str, text: &str| lines.push(format!("  {name:<10} {text}"));
    row("processes", trimmed(&seen.socket));
    for address in &seen.listening {
        row("relays", address);
    }
    if let Some(address) = &seen.metrics {
        row("metrics", address);
    }
    let reloads = match seen.reloads {
        0 => String::new(),
        n => format!(", reloaded {n} times"),
    };
    row("config", &format!("generation {}{reloads}", seen.generation));
    lines.join("\n")
}

fn trimmed(socket: &str) -> &str {
    let name = socket.trim_start_matches("unix://");
    name.split('?').next().unwrap_or(name)
}

/// A table with a title, or a line that says that there is nothing.
fn section<const N: usize>(
    title: &str,
    names: [&str; N],
    left: usize,
    rows: Vec<[String; N]>,
) -> String {
    if rows.is_empty() {
        return format!("{title}: none");
    }
    let count = rows.len();
    let lines: Vec<_> = std::iter::once(names.map(str::to_string)).chain(rows).collect();
    let table = columns(&lines, left).replace('\n', "\n  ");
    format!("{title}: {count}\n  {table}")
}

fn processes(seen: &Seen) -> String {
    let row = |one: &super::seen::Process| {
        [
            one.node.clone(),
            one.pid.to_string(),
            one.uid.to_string(),
            span(seen.now.saturating_sub(one.since).saturating_mul(1000)),
            one.sends.to_string(),
            one.receives.to_string(),
        ]
    };
    let mut rows: Vec<_> = seen.relay.processes.iter().map(row).collect();
    rows.sort();
    section("processes", ["NODE", "PID", "UID", "HERE FOR", "SENDS", "RECEIVES"], 1, rows)
}

/// What is printed of a channel.
pub fn channel_row(one: &Channel) -> [String; 10] {
    [
        one.src.clone(),
        one.dst.clone(),
        one.chan.to_string(),
        one.direction.clone(),
        one.class(),
        one.state.clone(),
        grouped(u64::from(one.stored)),
        grouped(u64::from(one.waiting())),
        bytes(one.credit),
        if one.direction == "out" { span_ms(one.idle_ms) } else { "-".into() },
    ]
}

/// What stands above them.
pub const CHANNEL_NAMES: [&str; 10] =
    ["FROM", "TO", "CHAN", "WAY", "CLASS", "STATE", "STORED", "WAITING", "CREDIT", "IDLE"];

fn channels(seen: &Seen) -> String {
    let mut rows: Vec<_> = seen.relay.channels.iter().map(channel_row).collect();
    rows.sort();
    section("channels through this relay", CHANNEL_NAMES, 6, rows)
}

fn hosts(seen: &Seen) -> String {
    let row = |route: &super::seen::Route| {
        let link = seen.relay.links.iter().find(|link| link.host == route.host);
        let of_link = |figure: fn(&super::seen::Link) -> String| link.map_or("-".into(), figure);
        [
            route.host.clone(),
            route.stand(),
            route.address.clone().unwrap_or_else(|| "no address".into()),
            link.map_or("-", |_| &route.dialled_by).to_string(),
            route.rtt_us.map_or("-".into(), |us| span(us * 1000)),
            of_link(|link| link.sends.to_string()),
            of_link(|link| link.receives.to_string()),
            bytes(route.unacked),
            of_link(|link| bytes(link.waiting)),
            route.idle_ms.map_or("-".into(), span_ms),
        ]
    };
    let rows = seen.routes.iter().map(row).collect();
    let names = [
        "HOST",
        "LINK",
        "ADDRESS",
        "DIALLED BY",
        "RTT",
        "SENDS",
        "RECEIVES",
        "UNACKED",
        "WAITING",
        "IDLE",
    ];
    section("other hosts", names, 4, rows)
}

fn tables(seen: &Seen) -> String {
    let (relay, table) = (&seen.relay, &seen.relay.table);
    let most = |name: &str| seen.limits.get(name).copied().unwrap_or(0);
    let mut lines = vec!["tables".to_string()];
    let mut row = |name: &str, now: String, most: String, more: String| {
        lines.push(format!("  {name:<11} {now} of {most}{more}"));
    };
    let left = format!(
        " sent on, {} received on; {} left for room, {} for idleness",
        grouped(table.received),
        grouped(table.evicted),
        grouped(table.expired)
    );
    row("channels", grouped(table.entries), grouped(table.entries_max), left);
    row("names", grouped(seen.names), grouped(most("routes")), String::new());
    let processes = relay.processes.len() as u64;
    row("processes", grouped(processes), grouped(most("processes")), String::new());
    row("links", grouped(relay.links.len() as u64), grouped(most("links")), String::new());
    row("ring memory", bytes(relay.ring_bytes), bytes(most("ring_memory")), String::new());
    lines.push(counts(&relay.counts));
    lines.join("\n")
}

fn counts(counts: &Counts) -> String {
    let moved = format!(
        "\nsince the start\n  sent        {} records, {}\n  stored      {} records, {}",
        grouped(counts.sent),
        bytes(counts.sent_bytes),
        grouped(counts.stored),
        bytes(counts.stored_bytes)
    );
    let rare: Vec<String> = [
        ("expired", counts.expired),
        ("conflated", counts.conflated),
        ("channels resumed", counts.resumed),
        ("receivers died", counts.gone),
        ("refused", counts.refused),
        ("protocol broken", counts.broken),
        ("stray frames", counts.stray),
    ]
    .iter()
    .filter(|(_, n)| *n > 0)
    .map(|(name, n)| format!("{name} {}", grouped(*n)))
    .collect();
    let rare = if rare.is_empty() { "nothing".into() } else { rare.join(", ") };
    format!("{moved}\n  else        {rare}")
}
