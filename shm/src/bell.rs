//! Announcing sleep, and whether the other side must be rung.
//!
//! ```text
//!   sleeper                                 ringer
//!   announce = 1 or 3                       publish (word, head or state)
//!   fence SeqCst          SYNC: bell        fence SeqCst
//!   look once more                          announced, and news to it? swap 0: ring
//!   wait(announce == 1 or 3)
//! ```
//!
//! Of the two looks at least one sees what the other side did (Dekker), so no wake is lost. The
//! word is what the futex waits on, too: a ring between the look and the wait makes it 0, and the
//! wait ends at once. One word per side serves for bytes and for room alike, and two parties know
//! it: the pair. It says what would be news to the sleeper: bytes always are, room only if it had
//! too little, so that a reader who keeps up does not wake a writer who has nothing to write.

use crate::crash::{self, Point};
use crate::map::Map;
use crate::sync::{Ordering, Shared, fence};

/// One side's announce word.
#[derive(Clone, Debug)]
pub struct Bell {
    map: Shared<Map>,
    at: usize,
}

/// The value of the word while its side sleeps until bytes come, or an end.
pub const ASLEEP: u32 = 1;

/// The same, where room to write would be news, too.
pub const WANTS_ROOM: u32 = 3;

/// What was published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// Bytes, or that no more come.
    Bytes,
    /// Room only.
    Room,
}

impl Bell {
    /// The word at `at`.
    pub fn new(map: Shared<Map>, at: usize) -> Bell {
        Bell { map, at }
    }

    /// Says that this side is going to sleep, and whether it waits for room. Look once more before
    /// sleeping. Returns the value of the word.
    pub fn announce(&self, wants_room: bool) -> u32 {
        let value = if wants_room { WANTS_ROOM } else { ASLEEP };
        self.map.u32_at(self.at).store(value, Ordering::Relaxed);
        // SYNC: bell. With the fence in `must_ring`.
        fence(Ordering::SeqCst);
        crash::here(Point::Announced);
        value
    }

    /// Takes it back: this side looks by itself again.
    pub fn retract(&self) {
        self.map.u32_at(self.at).store(0, Ordering::Relaxed);
    }

    /// Whether this side is announced asleep.
    pub fn is_announced(&self) -> bool {
        self.map.u32_at(self.at).load(Ordering::Relaxed) != 0
    }

    /// After something was published: whether the side that this word belongs to sleeps and is to
    /// be rung for it. One ring per announcement.
    pub fn must_ring(&self, news: News) -> bool {
        // SYNC: bell. With the fence in `announce`.
        fence(Ordering::SeqCst);
        let word = self.map.u32_at(self.at);
        match (word.load(Ordering::Relaxed), news) {
            (0, _) | (ASLEEP, News::Room) => false,
            // A peer that writes other values there rings itself awake.
            _ => {
                let slept = word.swap(0, Ordering::Relaxed) != 0;
                crash::here(Point::BellTaken);
                slept
            }
        }
    }

    /// The map and the offset, for what waits on it.
    pub fn place(&self) -> (&Shared<Map>, usize) {
        (&self.map, self.at)
    }
}
