//! Sleeps, counted: none is without its wake, so that the sweep never finds one.

use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use ringlane_api::{EventBase, Turn};
use ringlane_reactor::Engine;

use crate::kit;
use crate::meeting::Meeting;
use crate::talk::{End, Talk, sizes};

/// Sleeps of an ordinary run, of both ends together.
const SLEEPS: u64 = 20_000;

/// One of our counters.
fn counter(base: &EventBase, name: &str) -> u64 {
    let counters = base.transport_counters("shm");
    counters.iter().find(|(of, _)| *of == name).expect("it is counted").1
}

/// How often this thread has given up its processor by itself.
fn blocked() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("it is known");
    usage.voluntary_context_switches() as u64
}

/// The number behind a word.
fn number(said: &str, word: &str) -> u64 {
    let mut words = said.split(' ').skip_while(|one| *one != word);
    words.nth(1).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{word} in {said:?}"))
}

/// Both ends sleep over messages of these sizes until it is enough; returns how often they did.
fn sleep(ours: Engine, theirs: Engine, side: usize, of: &'static str, enough: u64) -> u64 {
    let case = format!("{} and {}, {of}", kit::name(ours), kit::name(theirs));
    kit::watch(&case, 120 + enough / 500);
    let begun = Instant::now();
    let base = kit::base(ours);
    let talk = Talk::new(1 - side, sizes(of), u64::MAX);
    let (address, rounds) = (kit::address("sleeps", enough as usize), u64::MAX.to_string());
    let before = blocked();
    let meeting = Meeting::new(&base, side, theirs, &address, &talk, &[of, &rounds]);
    // A sleep is one that the peer ended by ringing, and the kernel says that we did not run.
    let slept = || counter(&base, "sleeps").min(blocked() - before);
    while slept() + counter(&base, "rings") < enough {
        base.turn(Turn::Wait).expect("it turns");
    }
    talk.borrow_mut().stop();
    let slept = slept();
    let (said, signal) = meeting.over(&base);
    assert_eq!((signal, &talk.borrow().end), (None, &Some(End::Eof)), "{case}: {said}");
    let their_sleeps = number(&said, "sleeps").min(number(&said, "blocked"));
    let rescues = [counter(&base, "rescues"), number(&said, "rescues")];
    let took = begun.elapsed().as_secs_f64();
    println!("  {case}: {slept} + {their_sleeps} sleeps in {took:.1} s, rescues {rescues:?}");
    assert_eq!(rescues, [0, 0], "{case}: a wake was lost");
    slept + their_sleeps
}

pub fn none_without_its_wake() {
    let wanted = kit::bound("RINGLANE_SLEEPS", SLEEPS);
    let engines = kit::engines();
    let pairs: Vec<_> =
        engines.iter().flat_map(|ours| engines.iter().map(|theirs| (*ours, *theirs))).collect();
    let each = wanted / (2 * pairs.len() as u64) + 1;
    let mut slept = 0;
    // Whom we rang may not have slept yet, so that it may take a few more.
    for (n, (ours, theirs)) in pairs.into_iter().cycle().enumerate() {
        // Bytes alone wake for bytes; more than a ring wakes for room as well.
        slept += sleep(ours, theirs, n % 2, "byte", each);
        slept += sleep(ours, theirs, (n + 1) % 2, "full", each);
        if slept >= wanted && n + 1 >= engines.len().pow(2) {
            break;
        }
    }
    println!("  {slept} sleeps, each ended by its ring");
}
