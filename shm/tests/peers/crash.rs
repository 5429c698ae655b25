//! A process that is killed behind every step of the protocol, and what the other one sees of it.

use std::collections::BTreeSet;

use ringlane_reactor::Engine;
use ringlane_shm::crash::{Point, arm as arm_point};

use crate::kit;
use crate::meeting::{Meeting, judge};
use crate::records;
use crate::talk::{MIXED, Talk};

/// Rounds after which both ends say that it is over. Who is to die at what happens more than once
/// goes on until it did: how often one sleeps in so many rounds is the scheduler's to say.
const ROUNDS: u64 = 13;

/// Kills this process, as `kill -9` does.
fn die() {
    nix::sys::signal::raise(nix::sys::signal::SIGKILL).expect("nobody survives it");
}

/// Arms a point by name, in the child.
pub fn arm(point: &str, nth: &str) {
    let named = Point::ALL.iter().find(|one| format!("{one:?}") == point);
    arm_point(*named.expect("a point's name"), nth.parse().expect("a number"), die);
}

/// The how manieth time a process comes by a point is tried, over a link. Empty: it never does.
fn times(point: Point, side: usize, survivor: Engine) -> &'static [u32] {
    match point {
        Point::Connected | Point::SegmentMade | Point::HelloSent | Point::WelcomeRead
            if side == 0 =>
        {
            &[1]
        }
        Point::Accepted | Point::HelloRead | Point::Mapped if side == 1 => &[1],
        // Beside the answer of an acceptor: the byte that rings who cannot wait on words.
        Point::WelcomeSent if survivor == Engine::Epoll => &[1, 3],
        Point::WelcomeSent if side == 1 => &[1],
        Point::Opened | Point::Finished | Point::Ending => &[1],
        Point::Written
        | Point::Published
        | Point::WordLoaded
        | Point::Copied
        | Point::Released
        | Point::Announced
        | Point::Resting
        | Point::Woken
        | Point::Blocked => &[1, 2, 9],
        Point::BellTaken | Point::Rung => &[1, 2],
        _ => &[],
    }
}

/// The same among records, where a child has both rings of a segment.
fn times_among_records(point: Point) -> &'static [u32] {
    match point {
        Point::Reserved | Point::Filled | Point::Committed => &[1, 2, 100],
        Point::Published | Point::WordLoaded | Point::Borrowed | Point::Released => &[1, 2, 100],
        Point::Copied => &[1, 30],
        Point::Finished => &[1],
        _ => &[],
    }
}

pub fn every_step() {
    let mut reached = BTreeSet::new();
    let (mut links, mut rings) = (0, 0);
    let engines = kit::engines();
    for &survivor in &engines {
        let base = kit::base(survivor);
        for &engine in &engines {
            for side in [0, 1] {
                for point in Point::ALL {
                    for nth in times(point, side, survivor) {
                        let name = format!("{point:?}");
                        let case = format!("{name} {nth}, side {side}, {engine:?}, {survivor:?}");
                        kit::watch(&case, 60);
                        let ends = matches!(point, Point::Finished | Point::Ending);
                        let rounds = if ends { ROUNDS } else { u64::MAX };
                        let talk = Talk::new(1 - side, MIXED, rounds);
                        let address = kit::address("crash", links);
                        let (rounds, nth) = (rounds.to_string(), nth.to_string());
                        let more = ["mixed", rounds.as_str(), name.as_str(), nth.as_str()];
                        let meeting = Meeting::new(&base, side, engine, &address, &talk, &more);
                        let (said, signal) = meeting.over(&base);
                        assert_eq!(signal, Some(9), "{case}: never reached; it says {said}");
                        judge(&talk.borrow(), side, &case);
                        links += 1;
                        reached.insert(name);
                    }
                }
            }
        }
    }
    for point in Point::ALL {
        for nth in times_among_records(point) {
            let name = format!("{point:?}");
            kit::watch(format!("{name} {nth} among records"), 60);
            let signal = records::crash(&name, &nth.to_string());
            assert_eq!(signal, Some(9), "{name} {nth} among records: never reached");
            rings += 1;
            reached.insert(name);
        }
    }
    let all: BTreeSet<String> = Point::ALL.iter().map(|point| format!("{point:?}")).collect();
    assert_eq!(reached, all, "a step behind which nobody was killed");
    println!("  {} steps, {links} deaths over links, {rings} among records", all.len());
}
