//! Clusters in virtual time: relays, tables and rings as they are, everything around them made up,
//! every store of a relay a point at which it is killed or stands still.
//!
//! ```text
//! cargo test --features crash-points --test cluster                        300 seeds
//! SEEDS=10000 cargo test --release --features crash-points --test cluster  the record
//! SEED=42 cargo test --features crash-points --test cluster                one seed again
//! LOG=1 SEED=42 ...                                                        with what happened
//! ```
//!
//! ```text
//!   world.rs   who runs when      trouble.rs  faults       net.rs     sockets and links
//!   relay.rs   a relay's thread   driver.rs   its daemon   process.rs a process and its user
//!   plan.rs    what a seed means  check.rs    what holds   message.rs, tally.rs, quiet.rs
//! ```

#![forbid(unsafe_code)]

mod check;
mod driver;
mod message;
mod mutant;
mod net;
mod plan;
mod process;
mod quiet;
mod relay;
mod run;
mod tally;
mod trouble;
mod world;

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use tally::{Fault, Tally};

/// Names of hosts.
pub const HOSTS: [&str; 3] = ["a", "b", "c"];

/// Seeds of a run that does not say how many.
const SEEDS: u64 = 300;

/// Failing seeds after which it gives up.
const FAILURES_MAX: usize = 10;

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Where virtual time begins.
pub fn origin() -> Instant {
    *ORIGIN.get_or_init(Instant::now)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// What one thread's share came to.
#[derive(Default)]
struct Share {
    tally: Tally,
    failures: Vec<(u64, String)>,
}

fn work(next: &AtomicU64, end: u64, logs: bool) -> Share {
    let mut share = Share::default();
    quiet::hush();
    while share.failures.len() < FAILURES_MAX {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            break;
        }
        match run::run(seed, mutant::Planted::default(), logs) {
            Ok(tally) => share.tally.add(&tally),
            Err(why) => {
                eprintln!("seed {seed}: {why:.200}");
                share.failures.push((seed, why));
            }
        }
    }
    share
}

/// Memory of rings that this process still has mapped, or open.
fn left_behind() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let maps = maps.lines().filter(|line| line.contains("memfd:ringlane-bus")).count();
    let fds = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let fds = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    maps + fds.filter(|to| to.to_string_lossy().contains("memfd:ringlane-bus")).count()
}

/// Seeds among which one must fail.
const SEEDS_OF_MUTANTS: u64 = 3_000;

/// The first seed, or one of the first, that fails with that bug, and how.
fn first_failing(bug: mutant::Planted) -> Option<(u64, String)> {
    let next = AtomicU64::new(0);
    let look = || {
        quiet::hush();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS_OF_MUTANTS {
                return None;
            }
            if let Err(why) = run::run(seed, bug, false) {
                next.store(SEEDS_OF_MUTANTS, Ordering::Relaxed);
                return Some((seed, why));
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let looks: Vec<_> = (0..threads).map(|_| scope.spawn(look)).collect();
        let found = looks.into_iter().filter_map(|look| look.join().ok().flatten());
        found.min_by_key(|(seed, _)| *seed)
    })
}

/// Looks for each planted bug; says which were not found.
fn hunt() -> Vec<String> {
    quiet::hush();
    let wanted = std::env::args().nth(1).filter(|wanted| !wanted.starts_with('-'));
    let mut survivors = Vec::new();
    for bug in mutant::all() {
        let name = format!("{bug:?}").trim_start_matches("Some(").replace(')', "");
        if wanted.as_ref().is_some_and(|wanted| !name.contains(wanted)) {
            continue;
        }
        match first_failing(bug) {
            Some((seed, why)) => println!("  found    {name}: seed {seed}: {why:.120}"),
            None => {
                println!("  SURVIVED {name}");
                survivors.push(name);
            }
        }
    }
    mutant::plant(None);
    survivors
}

fn main() -> ExitCode {
    if !mutant::all().is_empty() {
        return if hunt().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (first, end) = match number("SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let logs = number("LOG").is_some();
    let shares: Vec<Share> = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| work(&next, end, logs))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a run's panic is caught")).collect()
    });
    let mut sum = Share::default();
    for share in shares {
        sum.tally.add(&share.tally);
        sum.failures.extend(share.failures);
    }
    let (seeds, Tally { messages, points, gone: [exact, vague], .. }) = (end - first, &sum.tally);
    println!("cluster: {seeds} seeds, {messages} messages, {points} points of relays passed");
    println!("  {exact} deaths told exactly, {vague} as a range; faults injected:");
    print!("{}", sum.tally);
    sum.failures.sort();
    for (seed, why) in &sum.failures {
        println!("FAIL seed {seed}: {why}");
        println!("     again: SEED={seed} cargo test --features crash-points --test cluster");
    }
    let never = Fault::ALL.into_iter().filter(|fault| sum.tally.of(*fault) == 0);
    let never: Vec<Fault> = if seeds < SEEDS { Vec::new() } else { never.collect() };
    if !never.is_empty() {
        println!("FAIL these faults were never injected: {never:?}");
    }
    let left = left_behind();
    if left > 0 {
        println!("FAIL {left} rings are still mapped, or open");
    }
    match sum.failures.is_empty() && never.is_empty() && left == 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
