//! The tests, tested: each planted bug of the protocol must be found by a run on the seeded wire,
//! or on the wire of shared memory.
//!
//! ```text
//! cargo test -p ringlane-rdma-stub --features mutants --test mutants
//! ```

#![forbid(unsafe_code)]

mod world;

use std::panic;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ringlane_api::mutant::{Mutant, plant};
use ringlane_rdma_stub::link::Shape;
use ringlane_rdma_stub::soft::{MemoryWire, Packet, Says, Wire};
use ringlane_rdma_stub::verbs::PairNumber;
use world::memory::pair;
use world::{Plan, World};

/// Seeds per kind of run.
const SEEDS: u64 = 60;
/// A run that takes longer hangs, which finds the bug, too.
const WATCHDOG: Duration = Duration::from_secs(60);

const SHAPE: Shape = Shape { message_bytes: 64, window: 4, sends: 4, control: 4 };

/// A kind of run; it panics where something is wrong.
type Run = fn(u64);

const RUNS: [(&str, Run); 4] =
    [("saturated", saturated), ("paused", paused), ("closed", closed), ("asleep", asleep)];

/// Both ways full.
fn saturated(seed: u64) {
    let mut world = World::new(seed);
    let plan = || Plan { writes: 20_000, chunk: 5_000, window: 0, finishes: true };
    world.link([SHAPE; 2], [plan(), plan()]);
    world.run();
}

/// Readers that take little at a time, and sometimes nothing.
fn paused(seed: u64) {
    let mut world = World::new(seed);
    let plan = || Plan { writes: 3_000, chunk: 700, window: 90, finishes: true };
    world.link([SHAPE; 2], [plan(), plan()]);
    world.run();
    for node in &world.nodes {
        let end = &node.ends[0];
        assert!(end.received == 3_000 && end.eof && end.failures.is_empty());
    }
}

/// An owner leaves amid what comes.
fn closed(seed: u64) {
    let mut world = World::new(seed);
    let plan = || Plan { writes: 5_000, chunk: 700, window: 0, finishes: true };
    world.link([SHAPE; 2], [plan(), plan()]);
    for _ in 0..40 + 3 * seed {
        world.step();
    }
    let node = &mut world.nodes[0];
    if !node.ends[0].aborted {
        node.leave(0);
    }
    world.run();
}

/// Two processes in shared memory, one of which says something just before the other sleeps.
fn asleep(seed: u64) {
    let (mut a, mut b, here, there) = pair();
    for n in 0..seed as u32 % 5 + 1 {
        let says = Says::Message(vec![1; 10]);
        let packet = Packet { to: PairNumber(1), from: PairNumber(2), number: n, says };
        assert!(a.put(here, packet).is_ok());
        let rung = !a.publish().is_empty();
        if rung {
            b.wake(there);
        }
        // It sleeps when nothing is there, and then only a bell wakes it.
        let awake = |b: &mut MemoryWire| b.rest();
        let mut got = 0;
        while awake(&mut b) {
            got += std::iter::from_fn(|| b.take()).count();
            b.publish();
        }
        assert_eq!(got, 1, "it sleeps over message {n}");
    }
}

/// Runs with the mutant planted; what was wrong, if anything.
fn infected(mutant: Option<Mutant>, run: Run, seed: u64) -> Option<String> {
    let (tell, told) = channel();
    let body = move || {
        plant(mutant);
        let result = panic::catch_unwind(|| run(seed));
        let why = result.err().map(|panic| match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => panic.downcast_ref::<&str>().map_or("", |text| text).to_string(),
        });
        // Nobody listens any more if this comes after the watchdog.
        let _ = tell.send(why);
    };
    thread::spawn(body);
    told.recv_timeout(WATCHDOG).unwrap_or_else(|_| Some("it hangs".into()))
}

fn found(mutant: Option<Mutant>) -> Option<String> {
    let runs = (0..SEEDS).flat_map(|seed| RUNS.map(|(name, run)| (seed, name, run)));
    runs.into_iter().find_map(|(seed, name, run)| {
        infected(mutant, run, seed).map(|why| format!("{name}, seed {seed}: {why}"))
    })
}

fn main() -> ExitCode {
    // Found bugs panic by the dozen.
    panic::set_hook(Box::new(|_| {}));
    if let Some(why) = found(None) {
        println!("FAIL without any mutant: {why}");
        return ExitCode::FAILURE;
    }
    let mut survivors = 0;
    for mutant in Mutant::RDMA {
        let name = format!("{mutant:?}");
        match found(Some(mutant)) {
            Some(how) => println!("  found    {name:<22} {:.100}", how.replace('\n', " ")),
            None => {
                survivors += 1;
                println!("  SURVIVED {name}");
            }
        }
    }
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
