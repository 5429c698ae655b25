//! Runs rows x cases and prints the table.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::rig::{self, Rig};
use super::{Case, Outcome, all};

/// How long a case may take before it counts as hung. Far above what any needs;
/// `RINGLANE_WATCHDOG` sets other seconds.
const WATCHDOG: Duration = Duration::from_secs(120);

fn watchdog() -> Duration {
    let wish = std::env::var("RINGLANE_WATCHDOG").ok().and_then(|text| text.parse().ok());
    wish.map_or(WATCHDOG, Duration::from_secs)
}

/// How long descriptors may take to go after a case: a ring is torn down after its close.
const LEAK_PATIENCE_TRIES: usize = 100;

/// A row: one that runs, or one that cannot and why.
#[allow(clippy::large_enum_variant, reason = "a handful of rows per run")]
pub enum Row {
    /// It runs.
    Ready(Rig),
    /// It cannot run here.
    Absent {
        /// e.g. `tcp/u5`.
        row: String,
        /// Why not.
        reason: String,
    },
}

#[derive(Clone, Debug)]
enum Verdict {
    Pass,
    Skip(String),
    Fail(String),
}

/// Runs everything and prints the table. `must_run` names the rows (one per line, `#` begins a
/// comment) whose absence is a failure. Arguments that are not options filter cases by a part of
/// their name; `RINGLANE_ROWS` filters rows by parts of theirs, separated by commas.
pub fn run(rows: Vec<Row>, must_run: &str) -> ExitCode {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let row_filter = std::env::var("RINGLANE_ROWS").unwrap_or_default();
    let row_parts: Vec<&str> = row_filter.split(',').filter(|part| !part.is_empty()).collect();
    let keeps_row = |row: &str| row_parts.is_empty() || row_parts.iter().any(|p| row.contains(p));
    let cases: Vec<Case> = all()
        .into_iter()
        .filter(|case| wanted.is_empty() || wanted.iter().any(|part| case.name.contains(part)))
        .collect();
    let mut absent = Vec::new();
    let mut columns: Vec<(String, Vec<Verdict>)> = Vec::new();
    for row in rows {
        match row {
            Row::Absent { row, reason } if keeps_row(&row) => absent.push((row, reason)),
            Row::Ready(rig) if keeps_row(&rig.row) => {
                let verdicts = run_row(&rig, &cases);
                columns.push((rig.row.clone(), verdicts));
            }
            _ => {}
        }
    }
    let _ = fs::remove_dir_all(rig::directory());
    print_table(&cases, &columns);
    let failures = print_details(&cases, &columns);
    let missing = print_absent(&absent, must_run);
    if failures + missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a row; failures are told at once, in case the table is never reached.
fn run_row(rig: &Rig, cases: &[Case]) -> Vec<Verdict> {
    let mut verdicts = Vec::with_capacity(cases.len());
    for case in cases {
        let verdict = run_case(rig, *case);
        if let Verdict::Fail(why) = &verdict {
            eprintln!("FAIL {}: {}: {why}", rig.row, case.name);
        }
        verdicts.push(verdict);
    }
    verdicts
}

/// Runs one case; what seems to leak descriptors is given a second chance, because the first use
/// of some things (a resolver, a signal) opens descriptors that the process keeps.
fn run_case(rig: &Rig, case: Case) -> Verdict {
    let first = run_watched(rig, case);
    match &first {
        Verdict::Fail(why) if why.starts_with("leaked") => run_watched(rig, case),
        _ => first,
    }
}

fn run_watched(rig: &Rig, case: Case) -> Verdict {
    let before = open_fds();
    let (tell, told) = channel();
    let mine = rig.clone();
    let name = format!("{}: {}", rig.row, case.name);
    let body = move || {
        let verdict = match catch_unwind(AssertUnwindSafe(|| (case.run)(&mine))) {
            Ok(Outcome::Pass) => left_behind(&mine),
            Ok(Outcome::Skip(why)) => Verdict::Skip(why),
            Err(panic) => Verdict::Fail(message(&*panic)),
        };
        // The receiver is gone only after the watchdog has given up.
        let _ = tell.send(verdict);
    };
    let thread = match thread::Builder::new().name(name).spawn(body) {
        Ok(thread) => thread,
        Err(error) => return Verdict::Fail(format!("no thread: {error}")),
    };
    let verdict = match told.recv_timeout(watchdog()) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Timeout) => {
            if let Some(limit) = rig.tools.limit_fds {
                limit(None);
            }
            return Verdict::Fail("hung: the watchdog gave up".into());
        }
        Err(RecvTimeoutError::Disconnected) => Verdict::Fail("its thread died".into()),
    };
    let _ = thread.join();
    if let Some(limit) = rig.tools.limit_fds {
        limit(None);
    }
    match verdict {
        Verdict::Pass if rig.real => leaked(before),
        other => other,
    }
}

fn left_behind(rig: &Rig) -> Verdict {
    let left = rig.tools.left_behind.map_or_else(Vec::new, |look| look());
    if left.is_empty() { Verdict::Pass } else { Verdict::Fail(left.join("; ")) }
}

fn leaked(before: usize) -> Verdict {
    for _ in 0..LEAK_PATIENCE_TRIES {
        if open_fds() <= before {
            return Verdict::Pass;
        }
        thread::sleep(Duration::from_millis(10));
    }
    Verdict::Fail(format!("leaked descriptors: {before} before, {} after", open_fds()))
}

/// Descriptors open in this process.
pub(super) fn open_fds() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without words".into())
}

fn print_table(cases: &[Case], columns: &[(String, Vec<Verdict>)]) {
    println!(
        "\nconformance: {} cases x {} rows (. pass, s skip, F FAIL)\n",
        cases.len(),
        columns.len()
    );
    for (at, (row, _)) in columns.iter().enumerate() {
        println!("  {:>2} = {row}", at + 1);
    }
    let header: String = (1..=columns.len()).map(|n| format!("{n:>3}")).collect();
    println!("\n{:<74}{header}", "case");
    for (at, case) in cases.iter().enumerate() {
        let marks: String = columns
            .iter()
            .map(|(_, verdicts)| match verdicts[at] {
                Verdict::Pass => "  .",
                Verdict::Skip(_) => "  s",
                Verdict::Fail(_) => "  F",
            })
            .collect();
        println!("{:<74}{marks}", case.name);
    }
}

/// Prints sums, skips with their reasons, and failures; returns how many failed.
fn print_details(cases: &[Case], columns: &[(String, Vec<Verdict>)]) -> usize {
    let mut skips: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    let mut failures = 0;
    println!("\n{:<24}{:>6}{:>6}{:>6}", "row", "pass", "skip", "FAIL");
    for (row, verdicts) in columns {
        let (mut pass, mut skip, mut fail) = (0, 0, 0);
        for (case, verdict) in cases.iter().zip(verdicts) {
            match verdict {
                Verdict::Pass => pass += 1,
                Verdict::Skip(why) => {
                    skip += 1;
                    skips.entry((case.name, why)).or_default().push(row);
                }
                Verdict::Fail(_) => fail += 1,
            }
        }
        failures += fail;
        println!("{row:<24}{pass:>6}{skip:>6}{fail:>6}");
    }
    if !skips.is_empty() {
        println!("\nskips:");
    }
    for ((case, why), rows) in skips {
        println!("  {case}: {why} [{}]", rows.join(" "));
    }
    for (row, verdicts) in columns {
        for (case, verdict) in cases.iter().zip(verdicts) {
            if let Verdict::Fail(why) = verdict {
                println!("\nFAIL {row}: {}\n     {why}", case.name);
            }
        }
    }
    failures
}

/// Prints the rows that did not run; returns how many of them must.
fn print_absent(absent: &[(String, String)], must_run: &str) -> usize {
    let must: Vec<&str> = must_run
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .collect();
    let mut missing = 0;
    for (row, reason) in absent {
        let needed = must.contains(&row.as_str());
        missing += usize::from(needed);
        let mark = if needed { "MUST RUN AND DID NOT" } else { "row skipped" };
        println!("{mark}: {row}: {reason}");
    }
    missing
}
