//! Looking again before a loop sleeps: after something has happened, for some microseconds, with
//! the processor offered to others in between.
//!
//! A message and its answer pass several processes, and where each of them sleeps, each is a wake
//! that may have to fetch a processor from its own sleep. Who lingers is still awake when the next
//! message comes. It costs time that nobody else wants, since every look is behind a yield, and it
//! is given up where it does not pay: after some looks in vain in a row it rests, for longer each
//! time, and one that found something brings it back.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use nix::sched::sched_yield;

use crate::EventBase;

/// How long to look: a little more than a round trip through two relays takes where all are awake.
const LINGER: Duration = Duration::from_micros(40);

/// Times in vain, one after the other, before it rests.
const PATIENCE: u32 = 8;

/// So many sleeps it rests first, and at most.
const REST: u32 = 16;
const REST_MAX: u32 = 1024;

/// See the module text.
#[derive(Debug, Default)]
pub struct Linger {
    /// Something has happened since it was looked last.
    seen: Cell<bool>,
    until: Cell<Option<Instant>>,
    in_vain: Cell<u32>,
    resting: Cell<u32>,
    rest: Cell<u32>,
}

impl Linger {
    /// Something has happened: looks for more before the loop sleeps, if that has paid of late.
    pub fn active(self: &Rc<Self>, base: &EventBase) {
        self.seen.set(true);
        if self.until.get().is_some() {
            return;
        }
        if let Some(left) = self.resting.get().checked_sub(1) {
            return self.resting.set(left);
        }
        self.seen.set(false);
        self.until.set(Some(base.now() + LINGER));
        again(Rc::downgrade(self), base);
    }

    fn look(self: &Rc<Self>, base: &EventBase) {
        let Some(until) = self.until.get() else { return };
        let now = base.now();
        if self.seen.take() {
            self.in_vain.set(0);
            self.rest.set(0);
            self.until.set(Some(now + LINGER));
        } else if now >= until {
            self.until.set(None);
            return self.give_up();
        }
        // It cannot fail on Linux.
        let _ = sched_yield();
        again(Rc::downgrade(self), base);
    }

    fn give_up(&self) {
        let in_vain = self.in_vain.get() + 1;
        if in_vain < PATIENCE {
            return self.in_vain.set(in_vain);
        }
        self.in_vain.set(0);
        self.rest.set((self.rest.get() * 2).clamp(REST, REST_MAX));
        self.resting.set(self.rest.get());
    }
}

fn again(linger: Weak<Linger>, base: &EventBase) {
    base.defer(move |base| {
        if let Some(linger) = linger.upgrade() {
            linger.look(base);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::New;

    #[test]
    fn who_looks_in_vain_rests_and_longer_each_time() {
        let base = EventBase::new().expect("there is an engine");
        let linger = Rc::new(Linger::default());
        let mut looked = Vec::new();
        for _ in 0..200 {
            linger.active(&base);
            looked.push(linger.until.get().is_some());
            while linger.until.get().is_some() {
                base.turn(crate::Turn::NoWait).expect("it turns");
            }
        }
        let rest = |from: usize| looked[from..].iter().take_while(|looked| !**looked).count();
        assert!(looked[..8].iter().all(|looked| *looked));
        assert_eq!(rest(8), 16);
        assert_eq!(rest(8 + 16 + 8), 32);
    }
}
