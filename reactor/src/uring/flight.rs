//! The flight table: what was asked of the kernel and is not answered yet.
//!
//! A [`Flight`] is 40 bytes, so that thousands of idle connections with an armed receive stay
//! cheap; what only some operations need lies in a [`Store`] beside the table. Invariants: a slot
//! is freed after the last completion entry of its operation and not before, and its generation
//! grows with each use, so that a late entry or a stale [`OpId`] finds nobody home. Flights on
//! one descriptor are linked, so that closing finds them without a search.

use ringlane_api::fd::Fd;
use ringlane_api::reactor::{OpId, Token};

/// "No slot" in links and places.
pub(super) const NONE: u32 = u32::MAX;

/// Bits of a generation; the two above them in `user_data` mark the reactor's own entries.
const GENERATION_MASK: u32 = 0x3fff_ffff;

/// Set in the `user_data` of a cancel request for the flight named by the other bits.
pub(super) const CANCEL: u64 = 1 << 62;

/// `user_data` of the poll on the waker.
pub(super) const WAKE: u64 = 1 << 63;

/// What a flight does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The slot is free.
    Free,
    /// Readiness; `a` is the poll mask.
    Poll,
    /// Connections; `a` is how many more, `b` a connection held back or [`NONE`].
    Accept,
    /// `a` is the place of the peer's name.
    Connect,
    /// `a` is the byte limit.
    Recv,
    /// `a` is the place of the payload.
    Send,
    /// Non-blocking calls when the descriptor is ready; `a` is the place of the attempt.
    Attempt,
    /// A look-up; `a` is its number.
    Resolve,
    /// A word of shared memory; `a` is its place, `b` the value that lets it sleep.
    Futex,
    /// Waits until it is alone on its descriptor.
    Close,
}

/// The ring works on it: an entry is queued, or with the kernel.
pub(super) const ARMED: u8 = 1;
/// Somebody asked for its end.
pub(super) const CANCELLED: u8 = 2;
/// A receive that waits for a block, or an attempt that waits for its first try.
pub(super) const PARKED: u8 = 4;
/// A poll that reports until it is cancelled.
pub(super) const MULTISHOT: u8 = 8;
/// A multishot poll that reports news only.
pub(super) const EDGE: u8 = 16;
/// An accept without multishot.
pub(super) const ONE_BY_ONE: u8 = 32;

/// One operation in flight.
pub(super) struct Flight {
    pub token: Token,
    pub fd: Option<Fd>,
    pub a: u32,
    pub b: u32,
    generation: u32,
    next: u32,
    prev: u32,
    pub kind: Kind,
    pub flags: u8,
    /// How often its cancel request found nothing.
    pub misses: u8,
}

const _: () = assert!(size_of::<Flight>() <= 40, "an idle connection has one armed flight");

impl Flight {
    #[inline]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
    #[inline]
    pub fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }
    #[inline]
    pub fn clear(&mut self, flag: u8) {
        self.flags &= !flag;
    }
    /// The descriptor's number, for an entry.
    #[inline]
    pub fn number(&self) -> i32 {
        self.fd.as_ref().map_or(-1, Fd::number)
    }
}

/// The table.
pub(super) struct Flights {
    slots: Vec<Flight>,
    free: u32,
    live: usize,
    /// First flight on each descriptor number.
    heads: Vec<u32>,
}

impl Flights {
    pub fn new() -> Flights {
        Flights { slots: Vec::new(), free: NONE, live: 0, heads: Vec::new() }
    }

    /// How many are in flight.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Slots that exist, free ones included.
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Takes a slot.
    #[inline]
    pub fn insert(&mut self, token: Token, kind: Kind, fd: Option<Fd>, a: u32) -> u32 {
        let slot = self.free;
        let slot = if slot == NONE {
            assert!(self.slots.len() < NONE as usize, "fewer than 2^32 operations are in flight");
            self.slots.push(Flight {
                token,
                fd: None,
                a,
                b: NONE,
                generation: 0,
                next: NONE,
                prev: NONE,
                kind: Kind::Free,
                flags: 0,
                misses: 0,
            });
            self.slots.len() as u32 - 1
        } else {
            self.free = self.slots[slot as usize].next;
            slot
        };
        let number = fd.as_ref().map(Fd::number);
        let flight = &mut self.slots[slot as usize];
        debug_assert!(flight.kind == Kind::Free, "a slot is used once at a time");
        flight.token = token;
        flight.fd = fd;
        (flight.a, flight.b) = (a, NONE);
        (flight.next, flight.prev) = (NONE, NONE);
        flight.kind = kind;
        (flight.flags, flight.misses) = (0, 0);
        self.live += 1;
        if let Some(number) = number {
            self.link(slot, number);
        }
        slot
    }

    fn link(&mut self, slot: u32, number: i32) {
        let number = usize::try_from(number).expect("descriptors are not negative");
        if number >= self.heads.len() {
            self.heads.resize(number + 1, NONE);
        }
        let next = std::mem::replace(&mut self.heads[number], slot);
        self.slots[slot as usize].next = next;
        if next != NONE {
            self.slots[next as usize].prev = slot;
        }
    }

    /// Frees a slot. Its descriptor comes back, and with it the slot of a close that is now alone
    /// on that descriptor.
    #[inline]
    pub fn remove(&mut self, slot: u32) -> (Option<Fd>, Option<u32>) {
        let flight = &mut self.slots[slot as usize];
        debug_assert!(flight.kind != Kind::Free, "a flight ends once");
        let (fd, next, prev) = (flight.fd.take(), flight.next, flight.prev);
        flight.kind = Kind::Free;
        flight.generation = (flight.generation + 1) & GENERATION_MASK;
        flight.next = self.free;
        self.free = slot;
        self.live -= 1;
        let mut closing = None;
        if let Some(fd) = &fd {
            if prev == NONE {
                self.heads[fd.number() as usize] = next;
            } else {
                self.slots[prev as usize].next = next;
            }
            if next != NONE {
                self.slots[next as usize].prev = prev;
            }
            closing = self.lone_close(fd.number());
        }
        (fd, closing)
    }

    /// The close on a descriptor, if nothing else is in flight on it.
    #[inline]
    pub fn lone_close(&self, number: i32) -> Option<u32> {
        let head = self.heads[number as usize];
        if head == NONE {
            return None;
        }
        let flight = &self.slots[head as usize];
        (flight.kind == Kind::Close && flight.next == NONE).then_some(head)
    }

    /// The first flight on a descriptor.
    pub fn first_on(&self, number: i32) -> u32 {
        self.heads.get(number as usize).copied().unwrap_or(NONE)
    }

    /// The flight behind `slot` on the same descriptor.
    pub fn next_on(&self, slot: u32) -> u32 {
        self.slots[slot as usize].next
    }

    /// A flight by its slot alone, which the caller knows to be in use.
    #[inline]
    pub fn at(&mut self, slot: u32) -> &mut Flight {
        &mut self.slots[slot as usize]
    }

    /// What the kernel carries for this flight.
    #[inline]
    pub fn user_data(&self, slot: u32) -> u64 {
        u64::from(self.slots[slot as usize].generation) << 32 | u64::from(slot)
    }

    /// The slot a completion entry is for, if its flight is still in the air.
    #[inline]
    pub fn find(&self, user_data: u64) -> Option<u32> {
        let slot = user_data as u32;
        let flight = self.slots.get(slot as usize)?;
        let generation = (user_data >> 32) as u32 & GENERATION_MASK;
        (flight.kind != Kind::Free && flight.generation == generation).then_some(slot)
    }

    /// The name that the world above knows a flight by.
    #[inline]
    pub fn id(&self, slot: u32) -> OpId {
        OpId { slot, generation: self.slots[slot as usize].generation }
    }

    /// The slot of an operation, if it is still in flight.
    pub fn of(&self, id: OpId) -> Option<u32> {
        self.find(u64::from(id.generation) << 32 | u64::from(id.slot))
            .filter(|_| id.generation <= GENERATION_MASK)
    }
}

/// Things kept beside the table, by place.
pub(super) struct Store<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Store<T> {
    pub fn new() -> Store<T> {
        Store { items: Vec::new(), free: Vec::new() }
    }

    #[inline]
    pub fn insert(&mut self, item: T) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self.items[place as usize] = Some(item);
                place
            }
            None => {
                self.items.push(Some(item));
                self.items.len() as u32 - 1
            }
        }
    }

    #[inline]
    pub fn get(&mut self, place: u32) -> &mut T {
        self.items[place as usize].as_mut().expect("a flight's place is filled until it ends")
    }

    #[inline]
    pub fn remove(&mut self, place: u32) -> T {
        self.free.push(place);
        self.items[place as usize].take().expect("a flight's place is filled until it ends")
    }

    /// Empties it.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.free.clear();
        std::mem::take(&mut self.items).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(slot: u32) -> Token {
        Token::new(0, 0, 0, slot)
    }

    #[test]
    fn a_reused_slot_does_not_answer_to_its_old_name() {
        let mut flights = Flights::new();
        let slot = flights.insert(token(1), Kind::Recv, None, 0);
        let (old, old_data) = (flights.id(slot), flights.user_data(slot));
        flights.remove(slot);
        assert_eq!(flights.insert(token(2), Kind::Recv, None, 0), slot);
        assert_eq!((flights.of(old), flights.find(old_data)), (None, None));
        assert_eq!(flights.of(flights.id(slot)), Some(slot));
        assert_eq!(flights.find(flights.user_data(slot) | CANCEL), Some(slot));
    }

    #[test]
    fn a_close_is_found_when_the_last_other_flight_on_its_descriptor_ends() {
        use ringlane_api::fd::FdKind;
        let fd = Fd::from_other(7, FdKind::Socket, Box::new(()));
        let mut flights = Flights::new();
        let recv = flights.insert(token(1), Kind::Recv, Some(fd.clone()), 0);
        let send = flights.insert(token(2), Kind::Send, Some(fd.clone()), 0);
        let close = flights.insert(token(3), Kind::Close, Some(fd), 0);
        assert_eq!(flights.lone_close(7), None);
        assert_eq!(flights.remove(send).1, None);
        assert_eq!(flights.remove(recv).1, Some(close));
        flights.remove(close);
        assert_eq!(flights.first_on(7), NONE);
    }
}
