//! One seed from its beginning to its end.

use crate::mutant::Planted;
use crate::process::Heard;
use crate::relay::{Job, Report};
use crate::tally::Tally;
use crate::world::{Later, Stand, World};

/// Steps of one run; more is a storm.
const STEPS_MAX: u64 = 400_000;

/// Virtual time that everything may take to come to rest, in microseconds.
const REST: u64 = 60_000_000;

/// Runs a seed; the error says what went wrong first.
pub fn run(seed: u64, mutant: Planted, logs: bool) -> Result<Tally, String> {
    crate::mutant::plant(mutant);
    let mut world = World::new(seed, mutant, logs);
    let mut steps = 0;
    let result = live(&mut world, &mut steps);
    if let Some(log) = world.log.take() {
        for line in log {
            println!("{line}");
        }
    }
    result.map(|()| world.tally)
}

fn live(world: &mut World, steps: &mut u64) -> Result<(), String> {
    let until = world.plan.trouble.as_micros() as u64;
    advance(world, steps, until)?;
    world.make_calm();
    wait(world, steps, World::missing)?;
    // Senders first, so that nobody's peer is gone before it has ended.
    for process in world.current.clone().into_iter().flatten() {
        world.at(world.now, Later::Process(process, Heard::CloseChannels));
    }
    wait(world, steps, |world| {
        world.current.clone().into_iter().flatten().find_map(|process| {
            let status = world.processes[process].core.out_status();
            (!status.is_empty()).then(|| format!("process {process} does not close: {status:?}"))
        })
    })?;
    world.over = true;
    for process in world.current.clone().into_iter().flatten() {
        world.at(world.now, Later::Process(process, Heard::Close));
    }
    wait(world, steps, |world| {
        let alive = world.processes.iter().find(|process| process.alive);
        alive.map(|process| format!("process {} does not leave", process.number))
    })?;
    wait(world, steps, nothing_left)
}

/// Writes down how everybody stands.
fn log_relays(world: &mut World) {
    for relay in 0..world.relays.len() {
        let (name, stand) = (world.relay_name(relay), world.relays[relay].stand);
        if stand == Stand::Runs
            && let Report::Status(status) = world.relays[relay].thread.run(Job::Status)
        {
            world.log(|| format!("{name} {:?} {:?}", status.processes, status.links));
            for channel in status.channels {
                world.log(|| format!("{name} {channel:?}"));
            }
        }
    }
}

/// What a relay still has although nobody is there.
fn nothing_left(world: &mut World) -> Option<String> {
    for relay in 0..world.relays.len() {
        if world.relays[relay].stand == Stand::Dead {
            continue;
        }
        let name = world.relay_name(relay);
        if let Report::Status(status) = world.relays[relay].thread.run(Job::Status)
            && (status.channels.iter().any(|channel| channel.direction == "out")
                || !status.processes.is_empty()
                || status.ring_bytes > 0)
        {
            let (channels, processes) = (status.channels, status.processes);
            return Some(format!("{name} still has {channels:?} {processes:?}"));
        }
    }
    None
}

fn advance(world: &mut World, steps: &mut u64, until: u64) -> Result<(), String> {
    while world.queue.first_key_value().is_some_and(|((at, _), _)| *at <= until) {
        *steps += 1;
        if !world.step() {
            break;
        }
        if *steps > STEPS_MAX {
            world.fail(|| "a storm: it does not come to rest".into());
        }
    }
    world.now = world.now.max(until);
    world.wrong.take().map_or(Ok(()), Err)
}

/// Lets time pass until nothing is missing.
fn wait(
    world: &mut World,
    steps: &mut u64,
    missing: impl Fn(&mut World) -> Option<String>,
) -> Result<(), String> {
    let deadline = world.now + REST;
    loop {
        let Some(what) = missing(world) else { return Ok(()) };
        if world.now >= deadline {
            log_relays(world);
            return Err(format!("after 60 s without trouble: {what}"));
        }
        let until = world.now + 50_000;
        advance(world, steps, until)?;
    }
}
