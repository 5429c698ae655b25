//! Who has connected and has not proved anything yet: so many at most, for so long at most.
//!
//! Invariant: a guest is in until he leaves, is shown the door for another, or has been in for
//! the lobby's time; whoever comes is let in, and it is the one longest in who goes for him, of
//! the same source if that has its share. A handshake takes a few milliseconds, so who goes is
//! one who only sits there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a handshake may take.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// Handshakes under way at most: each has a connection and less than 2 KiB.
pub const HANDSHAKES_MAX: usize = 256;

/// Those of one source at most.
pub const HANDSHAKES_PER_SOURCE_MAX: usize = 32;

const _: () =
    assert!(HANDSHAKES_PER_SOURCE_MAX * 4 <= HANDSHAKES_MAX, "one source leaves room for others");

/// One who is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Guest(u64);

struct Waiting<S> {
    source: S,
    until: Instant,
}

/// See the module text. `S` says where a guest comes from: an IP address, a uid.
///
/// ```
/// use ringlane::relay::lobby::Lobby;
/// # let now = std::time::Instant::now();
/// let mut lobby = Lobby::new();
/// let (guest, evicted) = lobby.enter("10.0.0.2", now);
/// assert!(evicted.is_none());
/// assert!(lobby.leave(guest)); // he has proved who he is
/// assert_eq!(lobby.next_deadline(), None);
/// ```
pub struct Lobby<S> {
    /// In the order of their coming, which is that of their deadlines.
    guests: BTreeMap<Guest, Waiting<S>>,
    next: u64,
}

impl<S> Default for Lobby<S> {
    fn default() -> Lobby<S> {
        Lobby { guests: BTreeMap::new(), next: 0 }
    }
}

impl<S: PartialEq> Lobby<S> {
    /// An empty one.
    pub fn new() -> Lobby<S> {
        Lobby::default()
    }

    /// One comes in, and, if there are too many, another goes: his handshake is to be refused
    /// ([`Refused::Busy`](super::handshake::Refused::Busy)) and his connection closed.
    pub fn enter(&mut self, source: S, now: Instant) -> (Guest, Option<Guest>) {
        let mut same = self.guests.iter().filter(|(_, waiting)| waiting.source == source);
        let oldest = same.next().map(|(&guest, _)| guest);
        let of_source = usize::from(oldest.is_some()) + same.count();
        let evicted = if of_source >= HANDSHAKES_PER_SOURCE_MAX {
            oldest
        } else if self.guests.len() >= HANDSHAKES_MAX {
            self.guests.keys().next().copied()
        } else {
            None
        };
        if let Some(evicted) = evicted {
            self.guests.remove(&evicted);
        }
        let guest = Guest(self.next);
        self.next += 1;
        self.guests.insert(guest, Waiting { source, until: now + HANDSHAKE_TIME });
        (guest, evicted)
    }

    /// He has proved who he is, or is gone. `false` if he was not in any more.
    pub fn leave(&mut self, guest: Guest) -> bool {
        self.guests.remove(&guest).is_some()
    }

    /// Takes out one whose time is up, until there is none: to be refused
    /// ([`Refused::TooSlow`](super::handshake::Refused::TooSlow)) and closed.
    pub fn expired(&mut self, now: Instant) -> Option<Guest> {
        let (&guest, waiting) = self.guests.first_key_value()?;
        (waiting.until <= now).then(|| self.leave(guest)).map(|_| guest)
    }

    /// When to ask [`Lobby::expired`] next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.guests.first_key_value().map(|(_, waiting)| waiting.until)
    }

    /// How many are in.
    pub fn len(&self) -> usize {
        self.guests.len()
    }

    /// Whether nobody is in.
    pub fn is_empty(&self) -> bool {
        self.guests.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_who_only_connect_are_never_more_than_the_most_and_the_last_gets_in() {
        let now = Instant::now();
        let mut lobby = Lobby::new();
        let mut evicted = 0;
        for i in 0..10_000_u32 {
            evicted += usize::from(lobby.enter(i % 1000, now).1.is_some());
            assert!(lobby.len() <= HANDSHAKES_MAX);
        }
        assert_eq!(evicted + lobby.len(), 10_000);
        let (last, _) = lobby.enter(1_000_000, now);
        assert!(lobby.leave(last));
    }

    #[test]
    fn one_source_pushes_out_its_own() {
        let now = Instant::now();
        let mut lobby = Lobby::new();
        let (other, _) = lobby.enter("other", now);
        let mut own = Vec::new();
        for i in 0..3 * HANDSHAKES_PER_SOURCE_MAX {
            let (guest, evicted) = lobby.enter("one", now);
            own.push(guest);
            let first = i.checked_sub(HANDSHAKES_PER_SOURCE_MAX).map(|first| own[first]);
            assert_eq!(evicted, first);
        }
        assert!(lobby.leave(other));
    }

    #[test]
    fn who_takes_too_long_is_shown_the_door_in_the_order_of_coming() {
        let begun = Instant::now();
        let mut lobby = Lobby::new();
        let (a, _) = lobby.enter(1, begun);
        let (b, _) = lobby.enter(2, begun + Duration::from_secs(1));
        assert_eq!(lobby.next_deadline(), Some(begun + HANDSHAKE_TIME));
        assert_eq!(lobby.expired(begun), None);
        let late = begun + HANDSHAKE_TIME + Duration::from_secs(1);
        assert_eq!([lobby.expired(late), lobby.expired(late)], [Some(a), Some(b)]);
        assert_eq!((lobby.expired(late), lobby.next_deadline()), (None, None));
        assert!(!lobby.leave(a));
    }
}
