//! Seeds through the simulator: many connections' whole lives under a moody kernel, byte for byte.
//!
//! ```text
//! cargo test --test sim                        200 seeds
//! SEEDS=10000 cargo test --release --test sim  the record
//! SEED=42 cargo test --test sim                one seed again
//! ```

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ringlane::transport::Transport;
use ringlane_kit::seeds;
use ringlane_kit::sim::{Fault, Tally};

/// Seeds of a run that does not say how many.
const SEEDS: u64 = 200;

/// Failing seeds after which it gives up.
const FAILURES_MAX: usize = 10;

fn transports() -> Vec<Box<dyn Transport>> {
    vec![ringlane_tcp::transport(), ringlane_uds::transport(), ringlane_shm::transport()]
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// What one thread's share came to.
#[derive(Default)]
struct Share {
    tally: Tally,
    links: u64,
    events: u64,
    failures: Vec<(u64, String)>,
}

fn work(next: &AtomicU64, end: u64) -> Share {
    let mut share = Share::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || share.failures.len() >= FAILURES_MAX {
            return share;
        }
        match seeds::run(seed, transports) {
            Ok(summary) => {
                share.tally.add(&summary.tally);
                share.links += u64::from(summary.links);
                share.events += summary.events;
            }
            Err(why) => share.failures.push((seed, why)),
        }
    }
}

fn main() -> ExitCode {
    let (first, end) = match number("SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let shares: Vec<Share> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&next, end))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a run's panic is caught")).collect()
    });
    let mut sum = Share::default();
    for share in shares {
        sum.tally.add(&share.tally);
        sum.links += share.links;
        sum.events += share.events;
        sum.failures.extend(share.failures);
    }
    let seeds = end - first;
    println!("sim: {seeds} seeds, {} links, {} events; faults injected:", sum.links, sum.events);
    print!("{}", sum.tally);
    sum.failures.sort();
    for (seed, why) in &sum.failures {
        println!("FAIL seed {seed}: {why}\n     again: SEED={seed} cargo test --test sim");
    }
    let never = Fault::ALL.into_iter().filter(|fault| sum.tally.of(*fault) == 0);
    let never: Vec<Fault> = if seeds < SEEDS { Vec::new() } else { never.collect() };
    if !never.is_empty() {
        println!("FAIL these faults were never injected: {never:?}");
    }
    if sum.failures.is_empty() && never.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
