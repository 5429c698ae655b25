//! `ringlane doctor`: what this kernel offers, what is used of it, how the transports fare, and
//! what to do about the rest.

mod transports;

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use ringlane::reactor::{Config, probe};
use serde::Serialize;

use self::transports::Carrier;
use super::proc;

/// CAP_IPC_LOCK in a capability mask (capability.h): locked memory is not counted.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// Locked memory below which rings of several processes of one user hardly fit.
const MEMLOCK_COMFORT_BYTES: u64 = 8 << 20;

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// Print it for machines.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Feature {
    name: &'static str,
    present: bool,
    note: &'static str,
}

/// A limit; `None` is none at all.
#[derive(Serialize)]
struct Limit {
    soft: Option<u64>,
    hard: Option<u64>,
}

#[derive(Serialize)]
struct Finding {
    kernel: String,
    engine: &'static str,
    tier: &'static str,
    fell_back: Option<String>,
    features: Vec<Feature>,
    details: Vec<String>,
    memlock_bytes: Limit,
    /// Whether locked memory is charged to us: not with CAP_IPC_LOCK.
    memlock_counts: bool,
    nofile: Limit,
    io_uring_disabled: Option<u32>,
    io_uring_group: Option<i64>,
    /// 0 none, 1 strict, 2 filter (proc_pid_status(5)).
    seccomp: Option<u32>,
    somaxconn: Option<u32>,
    transports: Vec<Carrier>,
    advice: Vec<String>,
}

/// Looks and tells.
pub fn run(config: &Config, asked: &Asked) -> Result<()> {
    let mut finding = look(config)?;
    finding.advice = advise(&finding);
    let text = if asked.json { serde_json::to_string_pretty(&finding)? } else { tell(&finding) };
    super::serve::say(text.trim_end());
    Ok(())
}

fn look(config: &Config) -> Result<Finding> {
    let report = probe(config);
    let feature =
        |f: &ringlane::reactor::Feature| Feature { name: f.name, present: f.present, note: f.note };
    let mask = proc::status("CapEff").and_then(|hex| u64::from_str_radix(&hex, 16).ok());
    Ok(Finding {
        kernel: proc::line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
        engine: report.engine,
        tier: report.tier,
        fell_back: report.fell_back,
        features: report.features.iter().map(feature).collect(),
        details: report.details,
        memlock_bytes: limit(Resource::RLIMIT_MEMLOCK)?,
        memlock_counts: mask.is_none_or(|mask| mask & CAP_IPC_LOCK == 0),
        nofile: limit(Resource::RLIMIT_NOFILE)?,
        io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
        io_uring_group: number("/proc/sys/kernel/io_uring_group"),
        seccomp: proc::status("Seccomp").and_then(|mode| mode.parse().ok()),
        somaxconn: number("/proc/sys/net/core/somaxconn"),
        transports: transports::look(config),
        advice: Vec::new(),
    })
}

fn number<N: std::str::FromStr>(path: &str) -> Option<N> {
    proc::line(path)?.parse().ok()
}

fn limit(resource: Resource) -> Result<Limit> {
    let (soft, hard) = getrlimit(resource).context("resource limits")?;
    let some = |value| (value != RLIM_INFINITY).then_some(value);
    Ok(Limit { soft: some(soft), hard: some(hard) })
}

/// What it means and what to do, one sentence or two each.
fn advise(f: &Finding) -> Vec<String> {
    let mut advice = Vec::new();
    let uring = f.engine == "uring";
    match f.io_uring_disabled {
        Some(2) => advice.push(
            "sysctl kernel.io_uring_disabled = 2 forbids io_uring to everyone. Allow it with: \
             sysctl -w kernel.io_uring_disabled=0"
                .into(),
        ),
        Some(1) => advice.push(format!(
            "sysctl kernel.io_uring_disabled = 1 allows io_uring only with CAP_SYS_ADMIN or to \
             members of group {}. Join that group, or: sysctl -w kernel.io_uring_disabled=0",
            f.io_uring_group.unwrap_or(-1)
        )),
        _ => {}
    }
    if !uring && f.seccomp == Some(2) && f.io_uring_disabled.unwrap_or(0) == 0 {
        advice.push(
            "A seccomp filter is on, as in most containers, and they refuse io_uring by default. \
             Allow io_uring_setup, io_uring_enter and io_uring_register in its profile (docker \
             run --security-opt seccomp=PROFILE.json)."
                .into(),
        );
    }
    if f.memlock_counts && f.memlock_bytes.soft.is_some_and(|b| b < MEMLOCK_COMFORT_BYTES) {
        advice.push(
            "Rings count as locked memory, and the limit is low; all processes of a user share \
             it. Raise it to 8 MiB or more: ulimit -l 8192, or LimitMEMLOCK=8M in a systemd unit."
                .into(),
        );
    }
    if f.nofile.soft.is_some_and(|n| n < 4096) {
        advice.push(
            "Each connection takes a descriptor, and a forwarded one two. The program raises its \
             soft limit to the hard one by itself; a library user's program has to."
                .into(),
        );
    }
    if f.somaxconn.is_some_and(|n| n < ringlane::limits::BACKLOG) {
        advice.push(format!(
            "net.core.somaxconn = {} caps the queue of connections not yet accepted. For bursts: \
             sysctl -w net.core.somaxconn={}",
            f.somaxconn.unwrap_or(0),
            ringlane::limits::BACKLOG
        ));
    }
    for carrier in f.transports.iter().filter(|carrier| carrier.built_in) {
        advice.extend(carrier.advice.iter().cloned());
    }
    if f.engine == "epoll" && advice.is_empty() && f.fell_back.is_some() {
        advice.push(
            "The epoll engine does everything the io_uring engine does, at a higher cost per \
             message."
                .into(),
        );
    }
    if advice.is_empty() {
        advice.push("Nothing to do.".into());
    }
    advice
}

fn tell(f: &Finding) -> String {
    let mut lines = vec![
        format!("kernel             {}", f.kernel),
        format!("engine             {}, tier {}", f.engine, f.tier),
    ];
    if let Some(why) = &f.fell_back {
        lines.push(format!("fell back          {why}"));
    }
    let width = f.features.iter().map(|feature| feature.name.len()).max().unwrap_or(0);
    for feature in &f.features {
        let present = if feature.present { "yes" } else { "no" };
        lines.push(format!("  {:<width$}  {present:<3}  {}", feature.name, feature.note));
    }
    lines.extend(f.details.iter().map(|detail| format!("  {detail}")));
    let counts = if f.memlock_counts { "" } else { " (not counted: CAP_IPC_LOCK)" };
    lines.push(format!("memlock            {}{counts}", pair(&f.memlock_bytes, " bytes")));
    lines.push(format!("descriptors        {}", pair(&f.nofile, "")));
    let or_absent = |value: Option<String>| value.unwrap_or_else(|| "absent".into());
    lines.push(format!(
        "io_uring_disabled  {}",
        or_absent(f.io_uring_disabled.map(|value| format!("{value} ({})", disabled(value))))
    ));
    lines.push(format!(
        "io_uring_group     {}",
        or_absent(f.io_uring_group.map(|value| value.to_string()))
    ));
    lines.push(format!("seccomp            {}", or_absent(f.seccomp.map(seccomp))));
    lines.push(format!(
        "somaxconn          {}",
        or_absent(f.somaxconn.map(|value| value.to_string()))
    ));
    lines.extend(transports::tell(&f.transports));
    lines.push("what to do".into());
    lines.extend(f.advice.iter().map(|advice| format!("  {advice}")));
    lines.join("\n")
}

fn pair(limit: &Limit, unit: &str) -> String {
    let one = |value: Option<u64>| value.map_or("unlimited".into(), |v| format!("{v}{unit}"));
    format!("soft {}, hard {}", one(limit.soft), one(limit.hard))
}

fn disabled(value: u32) -> &'static str {
    match value {
        0 => "allowed to everyone",
        1 => "allowed to CAP_SYS_ADMIN and io_uring_group",
        _ => "allowed to nobody",
    }
}

fn seccomp(mode: u32) -> String {
    match mode {
        0 => "none".into(),
        1 => "strict".into(),
        _ => "a filter is on".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Finding {
        let limit = || Limit { soft: Some(1 << 20), hard: None };
        Finding {
            kernel: "6.18.0".into(),
            engine: "uring",
            tier: "u5",
            fell_back: None,
            features: vec![Feature { name: "multishot accept", present: true, note: "5.19" }],
            details: Vec::new(),
            memlock_bytes: Limit { soft: Some(MEMLOCK_COMFORT_BYTES), hard: None },
            memlock_counts: true,
            nofile: limit(),
            io_uring_disabled: Some(0),
            io_uring_group: Some(-1),
            seccomp: Some(0),
            somaxconn: Some(4096),
            transports: Vec::new(),
            advice: Vec::new(),
        }
    }

    #[test]
    fn a_healthy_machine_needs_nothing() {
        assert_eq!(advise(&healthy()), ["Nothing to do."]);
        assert!(tell(&healthy()).contains("multishot accept  yes"));
    }

    #[test]
    fn each_refusal_names_its_cause_and_a_way_out() {
        let epoll = || Finding { engine: "epoll", fell_back: Some("EPERM".into()), ..healthy() };
        for (finding, word) in [
            (Finding { io_uring_disabled: Some(2), ..epoll() }, "sysctl -w"),
            (Finding { io_uring_disabled: Some(1), ..epoll() }, "group -1"),
            (Finding { seccomp: Some(2), ..epoll() }, "--security-opt"),
            (
                Finding { memlock_bytes: Limit { soft: Some(65536), hard: None }, ..epoll() },
                "ulimit -l",
            ),
            (Finding { somaxconn: Some(128), ..epoll() }, "somaxconn = 128"),
            (epoll(), "epoll engine"),
        ] {
            let advice = advise(&finding).join(" ");
            assert!(advice.contains(word), "{advice}");
        }
    }

    #[test]
    fn a_transport_that_is_here_says_what_it_lacks() {
        let carrier = |built_in| Carrier {
            scheme: "road",
            feature: "track",
            built_in,
            failure: built_in.then(|| "no wheels".into()),
            notes: vec!["a note".into()],
            advice: vec!["Get wheels.".into()],
        };
        let finding = |built_in| Finding { transports: vec![carrier(built_in)], ..healthy() };
        assert_eq!(advise(&finding(true)), ["Get wheels."]);
        assert!(tell(&finding(true)).contains("road://  DOES NOT WORK: no wheels"));
        assert_eq!(advise(&finding(false)), ["Nothing to do."]);
        assert!(tell(&finding(false)).contains("road://  not in this build: --features track"));
    }

    #[test]
    fn locked_memory_that_is_not_counted_is_no_finding() {
        let limit = Limit { soft: Some(65536), hard: Some(65536) };
        let finding = Finding { memlock_bytes: limit, memlock_counts: false, ..healthy() };
        assert_eq!(advise(&finding), ["Nothing to do."]);
    }
}
