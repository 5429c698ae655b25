//! Looking again for a while before going to sleep: `?spin=20us`.
//!
//! Being woken on another core takes 15 to 20 us on the machines this was measured on, a cache line
//! 0.1 us: who knows that an answer comes soon, and has a core to spare, gets it a hundred times
//! sooner by looking. On a core that both sides share it is poison, so it is off where the thread
//! may run on one processor only, and it gives up where it is not rewarded: after [`PATIENCE`]
//! looks in a row that found nothing it lets [`REST`] sleeps pass, then twice as many, up to
//! [`REST_MAX`].

use std::time::Duration;

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

/// How well it has paid so far.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    /// The longest that an open link has asked for.
    pub limit: Duration,
    /// Looks in a row that found nothing.
    in_vain: u32,
    /// Sleeps to let pass.
    resting: u32,
    /// How many it was last.
    rest: u32,
}

impl Spin {
    /// Whether to look again now.
    fn may(&mut self) -> bool {
        if self.limit.is_zero() {
            return false;
        }
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

impl Shm {
    /// One round over the hot links; before the loop sleeps, for as long as an address allows.
    pub(crate) fn serve_hot(&mut self, cx: &mut Cx<'_>, idle: bool) -> Armed {
        if !idle || !self.spin.may() {
            self.round(cx, idle);
        } else if self.round(cx, false) || cx.has_pushed() {
            // Callbacks come first, and so does what others have asked the kernel for.
            return Armed::Busy;
        } else {
            let found = self.look_again(cx);
            self.spin.learn(found);
            self.round(cx, !found);
        }
        if self.hot.is_empty() { Armed::Quiet } else { Armed::Busy }
    }

    /// Looks at the hot links until one has something, or time is up.
    fn look_again(&mut self, cx: &mut Cx<'_>) -> bool {
        let until = cx.clock() + self.spin.limit;
        loop {
            for _ in 0..LOOKS {
                for at in 0..self.hot.len() {
                    let id = self.hot[at];
                    if self.get(id).is_some_and(|link| has_work(link) != Ok(false)) {
                        return true;
                    }
                }
                std::hint::spin_loop();
            }
            if cx.clock() >= until {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_find_nothing_become_rare_and_one_that_does_brings_them_back() {
        let mut spin = Spin { limit: SPIN_MAX, ..Spin::default() };
        let mut looks = |found: bool, sleeps: u32| {
            let mut looked = 0;
            for _ in 0..sleeps {
                if spin.may() {
                    looked += 1;
                    spin.learn(found);
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

    #[test]
    fn nobody_who_did_not_ask_spins() {
        let mut spin = Spin::default();
        assert!((0..100).all(|_| !spin.may()));
    }
}
