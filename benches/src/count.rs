//! System calls per message, from counts: the same server is driven twice, for few and for many
//! messages, and the difference of calls over the difference of messages leaves nothing of
//! starting, accepting and ending.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cell;
use crate::load::Until;
use crate::report::verdict;
use crate::server::Programs;
use crate::table::Cell;

const FEW: u64 = 300;
const MANY: u64 = 1500;
/// How far the epoll twin may be from two receives-or-sends per message.
const TWO_WITHIN: f64 = 0.01;

/// What a program that counts system calls from outside says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// `perf stat -e raw_syscalls:sys_enter`
    Perf,
    /// `strace -c -f`
    Strace,
    /// Neither works here.
    Nothing,
}

impl Counter {
    /// The first that works.
    pub fn find() -> Counter {
        let out = out_file();
        for counter in [Counter::Perf, Counter::Strace] {
            let mut command = counter.under(&out);
            command.push("true".into());
            let ran = Command::new(&command[0]).args(&command[1..]).stderr(Stdio::null()).status();
            let works = ran.is_ok_and(|status| status.success()) && counter.read(&out).is_ok();
            let _there_or_not = std::fs::remove_file(&out);
            if works {
                return counter;
            }
        }
        Counter::Nothing
    }

    fn under(self, out: &Path) -> Vec<String> {
        let out = out.display().to_string();
        let words: &[&str] = match self {
            Counter::Perf => {
                &["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o", &out, "--"]
            }
            Counter::Strace => &["strace", "-c", "-f", "-o", &out, "--"],
            Counter::Nothing => &[],
        };
        words.iter().map(|word| (*word).to_string()).collect()
    }

    fn read(self, out: &Path) -> io::Result<u64> {
        let text = std::fs::read_to_string(out)?;
        let number = match self {
            Counter::Perf => text
                .lines()
                .find(|line| line.contains("raw_syscalls:sys_enter"))
                .and_then(|line| line.split(',').next()),
            Counter::Strace => text
                .lines()
                .find(|line| line.trim_end().ends_with("total"))
                .and_then(|line| line.split_whitespace().nth(3)),
            Counter::Nothing => None,
        };
        number
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| io::Error::other("the counting program gave no count"))
    }
}

fn out_file() -> PathBuf {
    std::env::temp_dir().join(format!("versus-{}-calls", std::process::id()))
}

struct Run {
    messages: f64,
    calls: Option<u64>,
    own: BTreeMap<String, u64>,
}

/// Prints calls per message of each server in `cell`; returns how many promises were missed.
/// They are about 64 B at a time; other cells are only shown.
pub fn print(
    cell: &Cell,
    servers: &[String],
    programs: &Programs,
    counter: Counter,
) -> io::Result<usize> {
    println!(
        "\n{}: system calls per message (by {counter:?}, and by the server's own count)",
        cell.name
    );
    let mut missed = 0;
    for name in servers {
        let runs = [FEW, MANY].map(|turns| once(cell, name, programs, counter, turns));
        match runs {
            [Ok(few), Ok(many)] => missed += line(cell, name, &few, &many),
            [Err(error), _] | [_, Err(error)] => println!("  {name:<16}no figures: {error}"),
        }
    }
    Ok(missed)
}

fn once(
    cell: &Cell,
    name: &str,
    programs: &Programs,
    counter: Counter,
    turns: u64,
) -> io::Result<Run> {
    let out = out_file();
    let conns: usize = cell.groups.iter().map(|group| group.conns).sum();
    let until = Until::Messages(turns * conns as u64);
    let (outcome, mut server) = cell::drive(cell, name, programs, until, &counter.under(&out))?;
    // libevent's twin counts nothing.
    let own =
        if name == "libevent" || name == "tokio" { BTreeMap::new() } else { server.counters()? };
    let _status_of_the_counter = server.stop()?;
    let calls = if counter == Counter::Nothing { None } else { Some(counter.read(&out)?) };
    let _there_or_not = std::fs::remove_file(&out);
    Ok(Run { messages: outcome.messages(), calls, own })
}

fn line(cell: &Cell, name: &str, few: &Run, many: &Run) -> usize {
    let messages = many.messages - few.messages;
    let calls = match (few.calls, many.calls) {
        (Some(few), Some(many)) => Some((many as f64 - few as f64) / messages),
        _ => None,
    };
    let per = |key: &str| Some((*many.own.get(key)? as f64 - *few.own.get(key)? as f64) / messages);
    let outside = calls.map_or("-".into(), |calls| format!("{calls:.3}"));
    print!("  {name:<16}{outside:>8}");
    for (key, value) in many.own.iter().filter(|(key, _)| *key != "bytes") {
        let per_message = per(key).filter(|per_message| *per_message >= 0.0005);
        match per_message {
            Some(per_message) => print!("  {key} {per_message:.3}"),
            // What happened seldom or never is told by its number, if there is one.
            None if *value > 0 => print!("  {key} ~0"),
            None => {}
        }
    }
    let promised = cell.groups.iter().all(|group| (group.size, group.depth) == (64, 1));
    if !promised {
        println!();
        return 0;
    }
    let mut checks: Vec<(String, bool)> = Vec::new();
    if let ("epoll", Some(recv), Some(send)) = (name, per("recv"), per("send")) {
        let two = (recv + send - 2.0).abs() <= TWO_WITHIN;
        checks.push(("recv+send = 2".into(), two));
    }
    let most = match name {
        "ringlane-epoll" => Some(2.1),
        _ if name.starts_with("ringlane") => Some(0.20),
        _ => None,
    };
    if let (Some(most), Some(got)) = (most, calls.or_else(|| per("syscalls"))) {
        checks.push((format!("<= {most:.2}"), (got * 1000.0).round() <= most * 1000.0));
    }
    if let ("ringlane-epoll", Some(ctl)) = (name, per("epoll_ctls")) {
        checks.push(("no epoll_ctl".into(), ctl < 0.001));
    }
    for (what, holds) in &checks {
        print!("   {what}  {}", verdict(*holds));
    }
    println!();
    checks.iter().filter(|(_, holds)| !holds).count()
}
