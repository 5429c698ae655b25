//! Whole clusters on one machine: a host is a network namespace, and what it is linked by is cut,
//! loses packets, or carries a consumer that reads nothing; relays and processes are killed.
//!
//! ```text
//! cargo test --test hosts                                10 relay kills, about a minute
//! RINGLANE_FAULTS=200 cargo test --release --test hosts  the long run
//! RINGLANE_SEED=7 cargo test --test hosts -- hosts/loss  that run again
//! ```
//!
//! Namespaces live as long as the processes in them, and those end with this one, however it ends.
//! Root is not needed where users may have namespaces of their own.

#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

mod cluster;
mod faults;
mod fleet;
mod ledger;
mod net;
mod slow;

/// A run: its name, whether it needs nft, and what it does.
type Row = (&'static str, bool, fn(&Wish));

const ROWS: [Row; 3] = [
    ("hosts/faults", false, faults::run),
    ("hosts/loss", true, faults::run_with_loss),
    ("hosts/slow", false, slow::run),
];

/// What the environment asks for.
pub struct Wish {
    /// How many faults relays and links and processes have; short runs without it.
    pub faults: Option<usize>,
    /// What is left to chance, by this.
    pub seed: u64,
}

fn wish() -> Wish {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("RINGLANE_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    Wish { faults: number("RINGLANE_FAULTS").map(|n| n as usize), seed }
}

/// Rows whose absence is a failure.
fn must_run() -> Vec<&'static str> {
    let lines = include_str!("must_run.txt").lines();
    lines.map(|line| line.split('#').next().unwrap_or_default().trim()).collect()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match words[..] {
        ["hold", folder] => return net::hold(folder),
        ["enter", pid, program, ..] => return net::enter(pid, program, &words[3..]),
        _ => {}
    }
    let wanted: Vec<&str> = words.into_iter().filter(|word| !word.starts_with('-')).collect();
    let root = nix::unistd::geteuid().is_root();
    let lack = net::move_out().err();
    let (wish, must) = (wish(), must_run());
    let mut failed = 0;
    for (row, nft, run) in ROWS {
        if !wanted.is_empty() && !wanted.iter().any(|part| row.contains(part)) {
            continue;
        }
        let lack = lack.clone().or_else(|| (nft && !net::has_nft()).then(|| "no nft".into()));
        if let Some(lack) = lack {
            let needed = root && must.contains(&row);
            failed += usize::from(needed);
            let mark = if needed { "MUST RUN AND DID NOT" } else { "row skipped" };
            println!("{mark}: {row}: {lack}");
            continue;
        }
        println!("{row}: RINGLANE_SEED={}", wish.seed);
        match catch_unwind(AssertUnwindSafe(|| run(&wish))) {
            Ok(()) => println!("{row}: passed"),
            Err(_) => {
                println!("{row}: FAILED, RINGLANE_SEED={}", wish.seed);
                failed += 1;
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
