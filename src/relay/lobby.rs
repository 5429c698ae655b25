//! Who has connected and has not proved anything yet: so many at most, for so long at most.
//!
//! Invariant: a guest is in until he leaves, is shown the door for another, or has been in for
//! the lobby's time; whoever comes is let in, and it is the one longest in who goes for him, of
//! the same source if that has its share. A handshake takes a few milliseconds, so who goes is
//! one who only sits there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How many may be in, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct House {
    /// Guests at once.
    pub guests_max: usize,
    /// Those of one source.
    pub per_source_max: usize,
    /// How long one may be in.
    pub time: Duration,
}

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
/// use ringlane::relay::lobby::{House, Lobby};
/// # let now = std::time::Instant::now();
/// let time = std::time::Duration::from_secs(5);
/// let house = House { guests_max: 256, per_source_max: 16, time };
/// let mut lobby = Lobby::new(house);
/// let (guest, evicted) = lobby.enter("10.0.0.2", now);
/// assert!(evicted.is_none());
/// assert!(lobby.leave(guest)); // he has proved who he is
/// assert_eq!(lobby.next_deadline(), None);
/// ```
pub struct Lobby<S> {
    house: House,
    /// In the order of their coming, which is nearly that of their deadlines.
    guests: BTreeMap<Guest, Waiting<S>>,
    of: HashMap<S, BTreeSet<Guest>>,
    next: u64,
}

impl<S: Clone + Eq + Hash> Lobby<S> {
    /// An empty one.
    pub fn new(house: House) -> Lobby<S> {
        Lobby { house, guests: BTreeMap::new(), of: HashMap::new(), next: 0 }
    }

    /// From now on others may be in; who is in already stays for as long as he was told.
    pub fn refit(&mut self, house: House) {
        self.house = house;
    }

    /// One comes in, and, if there are too many, another goes: his handshake is to be refused
    /// ([`Refused::Busy`](super::handshake::Refused::Busy)) and his connection closed.
    pub fn enter(&mut self, source: S, now: Instant) -> (Guest, Option<Guest>) {
        let same = self.of.get(&source);
        let evicted = if same.is_some_and(|same| same.len() >= self.house.per_source_max) {
            same.and_then(|same| same.first().copied())
        } else if self.guests.len() >= self.house.guests_max {
            self.guests.keys().next().copied()
        } else {
            None
        };
        if let Some(evicted) = evicted {
            self.leave(evicted);
        }
        let guest = Guest(self.next);
        self.next += 1;
        self.of.entry(source.clone()).or_default().insert(guest);
        self.guests.insert(guest, Waiting { source, until: now + self.house.time });
        (guest, evicted)
    }

    /// He has proved who he is, or is gone. `false` if he was not in any more.
    pub fn leave(&mut self, guest: Guest) -> bool {
        let Some(gone) = self.guests.remove(&guest) else { return false };
        if let Some(same) = self.of.get_mut(&gone.source) {
            same.remove(&guest);
            if same.is_empty() {
                self.of.remove(&gone.source);
            }
        }
        true
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

    const HOUSE: House =
        House { guests_max: 256, per_source_max: 32, time: Duration::from_secs(5) };

    #[test]
    fn ten_thousand_who_only_connect_are_never_more_than_the_most_and_the_last_gets_in() {
        let now = Instant::now();
        let mut lobby = Lobby::new(HOUSE);
        let mut evicted = 0;
        for i in 0..10_000_u32 {
            evicted += usize::from(lobby.enter(i % 1000, now).1.is_some());
            assert!(lobby.len() <= HOUSE.guests_max);
        }
        assert_eq!(evicted + lobby.len(), 10_000);
        let (last, _) = lobby.enter(1_000_000, now);
        assert!(lobby.leave(last));
    }

    #[test]
    fn one_source_pushes_out_its_own() {
        let now = Instant::now();
        let mut lobby = Lobby::new(HOUSE);
        let (other, _) = lobby.enter("other", now);
        let mut own = Vec::new();
        for i in 0..3 * HOUSE.per_source_max {
            let (guest, evicted) = lobby.enter("one", now);
            own.push(guest);
            let first = i.checked_sub(HOUSE.per_source_max).map(|first| own[first]);
            assert_eq!(evicted, first);
        }
        assert!(lobby.leave(other));
    }

    #[test]
    fn who_takes_too_long_is_shown_the_door_in_the_order_of_coming() {
        let begun = Instant::now();
        let mut lobby = Lobby::new(HOUSE);
        let (a, _) = lobby.enter(1, begun);
        let (b, _) = lobby.enter(2, begun + Duration::from_secs(1));
        assert_eq!(lobby.next_deadline(), Some(begun + HOUSE.time));
        assert_eq!(lobby.expired(begun), None);
        let late = begun + HOUSE.time + Duration::from_secs(1);
        assert_eq!([lobby.expired(late), lobby.expired(late)], [Some(a), Some(b)]);
        assert_eq!((lobby.expired(late), lobby.next_deadline()), (None, None));
        assert!(!lobby.leave(a));
    }
}
