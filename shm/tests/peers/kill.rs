//! kill -9 at random, amid traffic both ways.

use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringlane_reactor::Engine;

use crate::kit::{self, Dice};
use crate::meeting::{Meeting, judge};
use crate::records;
use crate::talk::{MIXED, Talk};

/// Kills in an ordinary run.
const KILLS: u64 = 200;

/// Kills before memory is taken for what it stays.
const WARM: u64 = 40;

/// KiB by which resident memory may differ at the end, for the allocator's sake.
const GROWTH_KIB: u64 = 4096;

/// Links are killed when they are open for up to so long; one in five from its start on.
const LIFE: Duration = Duration::from_millis(4);

fn kill_after(child: u32, delay: Duration) -> Instant {
    std::thread::sleep(delay);
    let at = Instant::now();
    kill(Pid::from_raw(child as i32), Signal::SIGKILL).expect("it is ours and not waited for");
    at
}

pub fn at_random() {
    let kills = kit::bound("RINGLANE_KILLS", KILLS);
    let engines = kit::engines();
    let bases: Vec<_> = engines.iter().map(|engine| kit::base(*engine)).collect();
    let mut notices = [Vec::new(), Vec::new()];
    let (mut dice, mut fins, mut never_open) = (Dice(0x5eed), 0, 0);
    let (mut bytes, mut before) = (0, (0, 0, 0));
    for n in 0..kills {
        if n == WARM.min(kills / 2) {
            before = (kit::open_fds(), kit::maps(), kit::resident());
        }
        let base = &bases[dice.below(bases.len() as u64) as usize];
        let engine = engines[dice.below(engines.len() as u64) as usize];
        let side = dice.below(2) as usize;
        let case = format!("kill {n}, side {side}, {engine:?}, {}", base.report().engine);
        kit::watch(&case, 60);
        let talk = Talk::new(1 - side, MIXED, u64::MAX);
        let (rounds, address) = (u64::MAX.to_string(), kit::address("kill", n as usize));
        let more = ["mixed", rounds.as_str()];
        let meeting = Meeting::new(base, side, engine, &address, &talk, &more);
        let early = dice.below(5) == 0;
        while !early && !talk.borrow().open {
            base.turn(ringlane_api::Turn::Wait).expect("it turns");
        }
        let delay = Duration::from_nanos(dice.below(LIFE.as_nanos() as u64));
        let (child, (tell, told)) = (meeting.child.id(), channel());
        // Our loop sleeps and works meanwhile, as it would.
        std::thread::spawn(move || tell.send(kill_after(child, delay)));
        let (_, signal) = meeting.over(base);
        let killed = told.recv().expect("it was killed");
        assert_eq!(signal, Some(9), "{case}");
        let talk = talk.borrow();
        judge(&talk, side, &case);
        match talk.heard {
            Some(heard) if talk.open => {
                let of = usize::from(engine == Engine::Epoll);
                notices[of].push(heard.saturating_duration_since(killed));
            }
            _ => never_open += 1,
        }
        fins += u64::from(talk.said.is_some_and(|(_, over)| over));
        bytes += talk.received;
    }
    let after = (kit::open_fds(), kit::maps(), kit::resident());
    println!("  {kills} kills, {bytes} bytes came before, {never_open} before the link was open");
    println!("  from the kill to our end's notice:");
    for (engine, times) in [Engine::Uring, Engine::Epoll].into_iter().zip(&mut notices) {
        println!("    a dead {}: {}", kit::name(engine), kit::median_and_worst(times));
    }
    println!("  descriptors, maps, KiB resident: {before:?}, at the end {after:?}");
    assert_eq!((fins, after.0), (0, before.0), "ends nobody said; descriptors left");
    assert!(after.1 <= before.1 + 8, "maps pile up");
    assert!(after.2 <= before.2 + GROWTH_KIB, "memory piles up");
}

pub fn among_records() {
    let kills = kit::bound("RINGLANE_KILLS", KILLS);
    let mut dice = Dice(0xdead);
    let mut before = (0, 0, 0);
    for n in 0..kills {
        if n == WARM.min(kills / 2) {
            before = (kit::open_fds(), kit::maps(), kit::resident());
        }
        kit::watch(format!("kill {n} among records"), 60);
        let fd = records::memory();
        let stdin = Stdio::from(fd.try_clone().expect("a descriptor"));
        let seed = (dice.roll() | 1).to_string();
        let (child, _told) = kit::child(&["records", &seed], stdin);
        let delay = Duration::from_nanos(dice.below(LIFE.as_nanos() as u64));
        let id = child.id();
        let killer = std::thread::spawn(move || kill_after(id, delay));
        records::bury(child, &fd, n + 1);
        killer.join().expect("it kills");
    }
    let after = (kit::open_fds(), kit::maps(), kit::resident());
    println!("  {kills} kills; descriptors, maps, KiB resident: {before:?}, at the end {after:?}");
    assert_eq!(after.0, before.0, "descriptors left");
    assert!(after.1 <= before.1 + 8 && after.2 <= before.2 + GROWTH_KIB, "memory piles up");
}
