//! One of eight consumers over a link is stopped: the others go on, and nothing is lost.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::Wish;
use crate::fleet::{Fleet, PATIENCE};
use crate::ledger::Log;

const CONSUMERS: [&str; 8] = ["c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8"];

/// Messages per second of each channel, and bytes of each: a ring is full in less than a second.
const RATE: u64 = 200;
const BYTES: u64 = 4096;

/// What a relay may have resident: its configuration says 256 MiB, of which rings are no part.
const MEMORY_MAX_KIB: u64 = 256 << 10;

fn counts(logs: &mut [Log]) -> Vec<u64> {
    let count = |log: &mut Log| {
        log.read();
        log.heard.values().map(|one| one.count).sum()
    };
    logs.iter_mut().map(count).collect()
}

/// Messages per second that come to each.
fn rates(logs: &mut [Log], time: Duration) -> Vec<f64> {
    let (before, begun) = (counts(logs), Instant::now());
    thread::sleep(time);
    let seconds = begun.elapsed().as_secs_f64();
    let after = counts(logs);
    before.iter().zip(after).map(|(before, after)| (after - before) as f64 / seconds).collect()
}

fn memory(fleet: &Fleet) -> Vec<u64> {
    fleet.relays.iter().map(|relay| relay.memory_kib()).collect()
}

pub fn run(wish: &Wish) {
    let hosts: [(&str, &[&str]); 2] = [("a", &["s"]), ("b", &CONSUMERS)];
    let mut fleet = Fleet::start(&hosts, "[defaults]\nring = \"256KiB\"\n");
    let consumers = fleet.agents.iter().filter(|agent| agent.name != "s");
    let mut logs: Vec<Log> = consumers.map(|agent| Log::open(&agent.name, &agent.log)).collect();
    for to in CONSUMERS {
        fleet.agents[0].run.order(&format!("pace {to} 0 {RATE} 1000000000 {BYTES}"));
    }
    thread::sleep(Duration::from_millis(1000));
    let (usual, calm) = (rates(&mut logs, Duration::from_secs(2)), memory(&fleet));
    let stopped = Duration::from_secs(if wish.faults.is_some() { 10 } else { 4 });
    fleet.agents[1].run.signal(Signal::SIGSTOP);
    let slow = rates(&mut logs, stopped);
    let full = memory(&fleet);
    fleet.agents[1].run.signal(Signal::SIGCONT);
    let share = |at: usize| slow[at] / usual[at].max(1.0) * 100.0;
    let least = (1..8).map(share).fold(f64::MAX, f64::min);
    println!("  one of eight consumers stopped for {} s:", stopped.as_secs());
    println!("  the slowest of the other seven kept {least:.1} % of its rate");
    println!("  resident, KiB: {calm:?} before, {full:?} behind it");
    assert!(full.iter().all(|kib| *kib < MEMORY_MAX_KIB), "{full:?} KiB resident");
    fleet.agents[0].run.order("stop");
    fleet.agents[0].run.wait_for(0, "stopped");
    let mut sender = Log::open("s", &fleet.agents[0].log);
    sender.read();
    let until = Instant::now() + PATIENCE;
    for log in &mut logs {
        let accepted = sender.accepted[&log.name];
        let last = |log: &Log| log.heard.get("s").map_or(0, |one| one.last);
        while last(log) != accepted && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
            log.read();
        }
        assert_eq!(last(log), accepted, "lost on the way to {}", log.name);
        assert_eq!(log.heard["s"].first, 1, "lost at the beginning");
        assert!(log.wrong.is_empty(), "{:#?}", log.wrong);
    }
    let messages: u64 = counts(&mut logs).iter().sum();
    println!("  {messages} messages: lost 0, doubled 0");
}
