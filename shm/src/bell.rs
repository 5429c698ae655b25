//! Announcing sleep, and whether the other side must be rung.
//!
//! ```text
//!   sleeper                                 ringer
//!   announce = 1                            publish (word, head or state)
//!   fence SeqCst          SYNC: bell        fence SeqCst
//!   look once more                          announce == 1? swap 0: ring
//!   wait(announce == 1)
//! ```
//!
//! Of the two looks at least one sees what the other side did (Dekker), so no wake is lost. The
//! word is what the futex waits on, too: a ring between the look and the wait makes it 0, and the
//! wait ends at once. One word per side serves for bytes and for space alike, and two parties know
//! it: the pair.

use crate::map::Map;
use crate::sync::{Ordering, Shared, fence};

/// One side's announce word.
#[derive(Clone, Debug)]
pub struct Bell {
    map: Shared<Map>,
    at: usize,
}

/// The value of the word while its side sleeps.
pub const ASLEEP: u32 = 1;

impl Bell {
    /// The word at `at`.
    pub fn new(map: Shared<Map>, at: usize) -> Bell {
        Bell { map, at }
    }

    /// Says that this side is going to sleep. Look once more before sleeping.
    pub fn announce(&self) {
        self.map.u32_at(self.at).store(ASLEEP, Ordering::Relaxed);
        // SYNC: bell. With the fence in `must_ring`.
        fence(Ordering::SeqCst);
    }

    /// Takes it back: this side looks by itself again.
    pub fn retract(&self) {
        self.map.u32_at(self.at).store(0, Ordering::Relaxed);
    }

    /// Whether this side is announced asleep.
    pub fn is_announced(&self) -> bool {
        self.map.u32_at(self.at).load(Ordering::Relaxed) == ASLEEP
    }

    /// After something was published: whether the side that this word belongs to sleeps and is to
    /// be rung. One ring per announcement.
    pub fn must_ring(&self) -> bool {
        // SYNC: bell. With the fence in `announce`.
        fence(Ordering::SeqCst);
        let word = self.map.u32_at(self.at);
        word.load(Ordering::Relaxed) == ASLEEP && word.swap(0, Ordering::Relaxed) == ASLEEP
    }

    /// The map and the offset, for what waits on it.
    pub fn place(&self) -> (&Shared<Map>, usize) {
        (&self.map, self.at)
    }
}
