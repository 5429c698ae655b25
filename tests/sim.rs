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
    let mut all =
        vec![ringlane_tcp::transport(), ringlane_uds::transport(), ringlane_shm::transport()];
    device::add(&mut all);
    all
}

/// What a device of this thread went through, in a build that has one.
type Device = Vec<(&'static str, u64)>;

#[cfg(feature = "rdma")]
mod device {
    use std::rc::Rc;
    use std::time::Duration;

    use ringlane_rdma_stub::soft::{LIMITS, MoodTally, Moods};
    use ringlane_rdma_stub::verbs::DeviceLimits;

    use super::{Device, Transport};

    /// Memory for fewer links than a wave dials, so that some go on without the device.
    const SCARCE: DeviceLimits = DeviceLimits { registered_bytes_max: 10 * 230_000, ..LIMITS };

    thread_local! {
        static TALLY: Rc<MoodTally> = Rc::default();
    }

    pub fn add(all: &mut Vec<Box<dyn Transport>>) {
        let moods = Moods {
            seed: 7,
            late: 60,
            late_max: Duration::from_micros(300),
            not_ready: 10,
            refused: 1,
            interrupts: 100,
            tally: TALLY.with(Rc::clone),
        };
        all.push(ringlane_rdma_stub::moody(moods, SCARCE));
    }

    pub fn tally() -> Device {
        TALLY.with(|tally| tally.all().to_vec())
    }

    /// Credits promise receives, whatever the device does; what it makes up itself is not counted.
    pub fn check() -> Result<(), String> {
        match ringlane_rdma_stub::not_ready_naks() {
            0 => Ok(()),
            n => Err(format!("{n} messages found no receive posted")),
        }
    }
}

#[cfg(not(feature = "rdma"))]
mod device {
    use super::{Device, Transport};

    pub fn add(_all: &mut Vec<Box<dyn Transport>>) {}

    pub fn tally() -> Device {
        Vec::new()
    }

    pub fn check() -> Result<(), String> {
        Ok(())
    }
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
    device: Device,
    failures: Vec<(u64, String)>,
}

fn work(next: &AtomicU64, end: u64) -> Share {
    let mut share = Share::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || share.failures.len() >= FAILURES_MAX {
            share.device = device::tally();
            return share;
        }
        match seeds::run(seed, transports).and_then(|summary| device::check().map(|()| summary)) {
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
        sum.device = match sum.device.is_empty() {
            true => share.device,
            false => {
                let both = sum.device.iter().zip(&share.device);
                both.map(|((name, a), (_, b))| (*name, a + b)).collect()
            }
        };
        sum.failures.extend(share.failures);
    }
    let seeds = end - first;
    println!("sim: {seeds} seeds, {} links, {} events; faults injected:", sum.links, sum.events);
    print!("{}", sum.tally);
    for (name, n) in &sum.device {
        println!("  {name:<14} {n:>10}");
    }
    sum.failures.sort();
    for (seed, why) in &sum.failures {
        println!("FAIL seed {seed}: {why}\n     again: SEED={seed} cargo test --test sim");
    }
    let never = Fault::ALL.into_iter().filter(|fault| sum.tally.of(*fault) == 0);
    let never = never.map(|fault| format!("{fault:?}"));
    let unseen = sum.device.iter().filter(|(_, n)| *n == 0).map(|(name, _)| (*name).into());
    let never: Vec<String> = if seeds < SEEDS { Vec::new() } else { never.chain(unseen).collect() };
    if !never.is_empty() {
        println!("FAIL these faults were never injected: {never:?}");
    }
    if sum.failures.is_empty() && never.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
