//! The tests, tested: each planted bug (`ringlane_api::mutant`) must be found by a seed within
//! 1,000, or by a named case of the suite on the simulator.
//!
//! ```text
//! cargo test --features mutants --test mutants
//! cargo test --features mutants --test mutants -- TwoSends
//! ```

use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ringlane::transport::Transport;
use ringlane_api::mutant::{Mutant, plant};
use ringlane_kit::seeds;
use ringlane_kit::sim::{Faults, Setup};
use ringlane_kit::suite::{self, Outcome, simulated};

/// Seeds tried before the named cases, which take longer.
const SEEDS_FIRST: u64 = 60;
/// Seeds tried at most.
const SEEDS_MAX: u64 = 1_000;
/// A run or a case that takes longer hangs, which finds the bug too.
const WATCHDOG: Duration = Duration::from_secs(60);

fn transports() -> Vec<Box<dyn Transport>> {
    vec![ringlane_tcp::transport(), ringlane_uds::transport(), ringlane_shm::transport()]
}

/// Runs `work` on a thread with the mutant planted; `None` if it hangs.
fn infected<T: Send + 'static>(
    mutant: Option<Mutant>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = channel();
    thread::spawn(move || {
        plant(mutant);
        // Nobody listens any more if this comes after the watchdog.
        let _ = tell.send(work());
    });
    told.recv_timeout(WATCHDOG).ok()
}

/// Looks for the mutant with seeds from `first` to `end`.
fn by_seeds(mutant: Option<Mutant>, first: u64, end: u64) -> Option<String> {
    for seed in first..end {
        match infected(mutant, move || seeds::run(seed, transports)) {
            Some(Ok(_)) => {}
            Some(Err(why)) => return Some(format!("seed {seed}: {why}")),
            None => return Some(format!("seed {seed}: it hangs")),
        }
    }
    None
}

/// Looks for the mutant with every case of the suite, on a calm and on a moody simulator.
fn by_cases(mutant: Option<Mutant>) -> Option<String> {
    for (row, faults) in [("sim", Faults::none()), ("sim-moody", Faults::mild())] {
        for scheme in ["tcp", "unix"] {
            for case in suite::all() {
                let verdict = infected(mutant, move || {
                    let setup = Setup { faults, seed: 7, ..Setup::default() };
                    let rig = simulated(&format!("{scheme}/{row}"), scheme, setup, transports);
                    let result = catch_unwind(AssertUnwindSafe(|| (case.run)(&rig)));
                    let left = rig.tools.left_behind.map_or_else(Vec::new, |look| look());
                    match result {
                        Ok(Outcome::Pass) => left.is_empty(),
                        Ok(Outcome::Skip(_)) => true,
                        Err(_) => false,
                    }
                });
                match verdict {
                    Some(true) => {}
                    Some(false) => return Some(format!("{scheme}/{row}: {}", case.name)),
                    None => return Some(format!("{scheme}/{row}: {} (it hangs)", case.name)),
                }
            }
        }
    }
    None
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    // Found bugs panic by the hundred.
    panic::set_hook(Box::new(|_| {}));
    let mut survivors = 0;
    if let Some(why) = by_seeds(None, 0, SEEDS_FIRST).or_else(|| by_cases(None)) {
        println!("FAIL without any mutant: {why}");
        return ExitCode::FAILURE;
    }
    println!("mutants: {} planted", Mutant::ALL.len());
    for mutant in Mutant::ALL {
        let name = format!("{mutant:?}");
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part)) {
            continue;
        }
        let found = by_seeds(Some(mutant), 0, SEEDS_FIRST)
            .or_else(|| by_cases(Some(mutant)))
            .or_else(|| by_seeds(Some(mutant), SEEDS_FIRST, SEEDS_MAX));
        match found {
            Some(how) => {
                let how: String = how.chars().take(100).collect();
                println!("  found    {name:<20} {how}");
            }
            None => {
                survivors += 1;
                println!("  SURVIVED {name}");
            }
        }
    }
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
