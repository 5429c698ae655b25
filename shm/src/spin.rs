//! Looking again before going to sleep.
//!
//! **Giving way.** Where the peer was last seen on this very processor, it is the one who wants it:
//! the processor is offered to it up to [`WAYS`] times, and what it answers is found without a
//! sleep and a wake on either side. Nothing is burnt by that, so it is the default; `?yield=0`
//! forbids it.
//!
//! **Spinning**, `?spin=20us`.
//! Being woken on another core takes 15 to 20 us on the machines this was measured on, a cache line
//! 0.1 us: who knows that an answer comes soon, and has a core to spare, gets it a hundred times
//! sooner by looking. On a core that both sides share it is poison, so it is off where the thread
//! may run on one processor only.
//!
//! Both give up where they are not rewarded: after [`PATIENCE`] times in a row that found nothing
//! they let [`REST`] sleeps pass, then twice as many, up to [`REST_MAX`].

use std::time::{Duration, Instant};

use ringlane_api::transport::{Armed, Cx};

use crate::flow::has_work;
use crate::table::Shm;

/// The longest time one look may take: sockets and timers of the same loop wait meanwhile.
pub(crate) const SPIN_MAX: Duration = Duration::from_micros(200);

const PATIENCE: u32 = 8;
const REST: u32 = 16;
const REST_MAX: u32 = 1024;

const _: () = assert!(REST < REST_MAX, "it can double");

/// Looks at the rings between two looks at the clock.
const LOOKS: u32 = 16;

/// How often the processor is offered before a sleep: a peer needs it once, or once more where
/// others take it first.
const WAYS: u32 = 2;

/// With more hot links than this nobody gives way: there is enough to do.
const NEAR_MAX: usize = 8;

/// How well looking again has paid so far.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// Times in a row that found nothing.
    in_vain: u32,
    /// Sleeps to let pass.
    resting: u32,
    /// How many it was last.
    rest: u32,
}

impl Patience {
    /// Whether to look again now.
    fn may(&mut self) -> bool {
        match self.resting.checked_sub(1) {
            Some(left) => {
                self.resting = left;
                false
            }
            None => true,
        }
    }

    fn learn(&mut self, found: bool) {
        if found {
            (self.in_vain, self.rest) = (0, 0);
            return;
        }
        self.in_vain += 1;
        if self.in_vain >= PATIENCE {
            self.in_vain = 0;
            self.rest = (self.rest * 2).clamp(REST, REST_MAX);
            self.resting = self.rest;
        }
    }
}

/// How to look again.
#[derive(Clone, Copy)]
enum Look {
    Spin,
    Way,
}

impl Shm {
    /// One round over the hot links; before the loop sleeps, a second look where it may pay.
    pub(crate) fn serve_hot(&mut self, cx: &mut Cx<'_>, idle: bool) -> Armed {
        match idle.then(|| self.second_look()).flatten() {
            None => {
                self.round(cx, idle);
            }
            // Callbacks come first.
            Some(_) if self.round(cx, false) => return Armed::Busy,
            // And so does what was asked of the kernel: in a turn of its own where we would keep
            // the loop, with the sleep where the peer may be waiting for just that.
            Some(Look::Spin) if cx.has_pushed() => return Armed::Busy,
            Some(Look::Way) if cx.has_pushed() => {
                self.round(cx, true);
            }
            Some(how) => {
                let found = self.look_again(cx, how);
                self.round(cx, !found);
            }
        }
        if self.hot.is_empty() { Armed::Quiet } else { Armed::Busy }
    }

    /// Whether and how to look again before sleeping.
    fn second_look(&mut self) -> Option<Look> {
        if self.hot.is_empty() {
            return None;
        }
        if !self.spin.is_zero() && self.spins.may() {
            return Some(Look::Spin);
        }
        let few = self.gives_way && self.hot.len() <= NEAR_MAX;
        (few && self.any_near() && self.ways.may()).then_some(Look::Way)
    }

    /// Looks at the hot links again. Returns whether one has something.
    fn look_again(&mut self, cx: &mut Cx<'_>, how: Look) -> bool {
        match how {
            Look::Spin => {
                let found = self.look_until(cx.clock() + self.spin, cx);
                self.spins.learn(found);
                found
            }
            Look::Way => {
                let found = (0..WAYS).any(|_| {
                    cx.sys().give_way();
                    self.any_has_work()
                });
                self.ways.learn(found);
                found
            }
        }
    }

    fn look_until(&mut self, until: Instant, cx: &mut Cx<'_>) -> bool {
        loop {
            for _ in 0..LOOKS {
                if self.any_has_work() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if cx.clock() >= until {
                return false;
            }
        }
    }

    fn any_has_work(&mut self) -> bool {
        (0..self.hot.len()).any(|at| {
            let id = self.hot[at];
            self.get(id).is_some_and(|link| has_work(link) != Ok(false))
        })
    }

    /// Whether a peer of a hot link was last seen on this processor.
    fn any_near(&mut self) -> bool {
        (0..self.hot.len()).any(|at| {
            let open = self.get(self.hot[at]).and_then(|link| link.open.as_ref());
            open.is_some_and(|open| {
                let rings = &open.rings;
                match rings.has_attached() {
                    // The link's own rings only ring, and say nothing of where the peer is now.
                    true => rings.any_attached(|rings| rings.is_near()),
                    false => rings.tx.try_borrow().is_ok_and(|tx| tx.is_near()),
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_find_nothing_become_rare_and_one_that_does_brings_them_back() {
        let mut patience = Patience::default();
        let mut looks = |found: bool, sleeps: u32| {
            let mut looked = 0;
            for _ in 0..sleeps {
                if patience.may() {
                    looked += 1;
                    patience.learn(found);
                }
            }
            looked
        };
        assert_eq!(looks(true, 1000), 1000);
        // 8 looks, 16 sleeps, 8 looks, 32 sleeps …
        assert_eq!(looks(false, 8 + 16 + 8), 16);
        let long = looks(false, 100_000);
        assert!(long < 100_000 * 8 / 900, "{long}");
        let mut waited = 0;
        while looks(true, 1) == 0 {
            waited += 1;
        }
        assert!(waited <= REST_MAX);
        assert_eq!(looks(true, 1000), 1000);
    }
}
