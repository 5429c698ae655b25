//! Ops in flight, and completions that are on their way up.
//!
//! An op stays in the table until its last completion is *made*; what the completion still needs
//! (the descriptor) stays with the completion until it is *delivered*. Completions of one op keep
//! their order whatever delays are drawn for them.

use std::collections::BTreeMap;

use ringlane_api::fd::Fd;
use ringlane_api::reactor::{Completion, Op, OpId, Token};

/// An op in flight, with how far it has come.
pub(super) struct Flight {
    pub token: Token,
    pub op: Op,
    /// Bytes taken, or connections or bytes brought.
    pub progress: u64,
    /// Whether its first step was made (a connect has knocked, a look-up was sent).
    pub started: bool,
    pub cancelled: bool,
    /// It makes no step before this time.
    pub not_before: u64,
    /// The place of its latest completion among those due.
    pub latest: (u64, u32),
    /// Completions made and not yet delivered.
    pub undelivered: u32,
    /// What an edge-triggered poll has reported.
    pub seen: (u64, u64),
    /// The turn of a level-triggered poll's latest report.
    pub reported: u64,
}

impl Flight {
    pub fn new(token: Token, op: Op) -> Flight {
        Flight {
            token,
            op,
            progress: 0,
            started: false,
            cancelled: false,
            not_before: 0,
            latest: (0, 0),
            undelivered: 0,
            seen: (0, 0),
            reported: 0,
        }
    }

    /// The descriptor it works on.
    pub fn fd(&self) -> Option<&Fd> {
        match &self.op {
            Op::Nop | Op::FutexWait { .. } | Op::Resolve { .. } => None,
            Op::Poll { fd, .. }
            | Op::Accept { fd, .. }
            | Op::Connect { fd, .. }
            | Op::Recv { fd, .. }
            | Op::RecvBulk { fd, .. }
            | Op::RecvMsg { fd, .. }
            | Op::Send { fd, .. }
            | Op::SendMsg { fd, .. }
            | Op::SendFile { fd, .. }
            | Op::Close { fd } => Some(fd),
        }
    }

    /// Whether it moves bytes out; one such op per descriptor.
    pub fn sends(&self) -> bool {
        matches!(self.op, Op::Send { .. } | Op::SendMsg { .. } | Op::SendFile { .. })
    }

    /// Whether it moves bytes in; one such op per descriptor.
    pub fn receives(&self) -> bool {
        matches!(self.op, Op::Recv { .. } | Op::RecvBulk { .. } | Op::RecvMsg { .. })
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    flight: Option<Flight>,
}

/// The flight table.
#[derive(Default)]
pub(super) struct Flights {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Flights {
    pub fn add(&mut self, flight: Flight) -> OpId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        place.flight = Some(flight);
        OpId { slot, generation: place.generation }
    }

    pub fn get(&mut self, id: OpId) -> Option<&mut Flight> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.flight.as_mut()
    }

    pub fn remove(&mut self, id: OpId) -> Option<Flight> {
        self.get(id)?;
        let slot = &mut self.slots[id.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        slot.flight.take()
    }

    /// The op in a place, if one is there.
    pub fn at(&self, slot: usize) -> Option<OpId> {
        let place = self.slots.get(slot)?;
        place.flight.as_ref().map(|_| OpId { slot: slot as u32, generation: place.generation })
    }

    /// Places there are.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Flight> {
        self.slots.iter().filter_map(|slot| slot.flight.as_ref())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flight> {
        self.slots.iter_mut().filter_map(|slot| slot.flight.as_mut())
    }
}

/// A completion on its way up.
pub(super) struct Due {
    pub id: OpId,
    pub completion: Completion,
    /// Keeps the descriptor until the completion is delivered.
    pub hold: Option<Fd>,
    /// A last completion of an op that moves bytes out, or in.
    pub ends: Option<Way>,
}

/// Which way an op moves bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Way {
    Out,
    In,
}

/// Completions by time of delivery.
#[derive(Default)]
pub(super) struct Dues {
    dues: BTreeMap<(u64, u32, u64), Due>,
    sequence: u64,
}

impl Dues {
    pub fn add(&mut self, at: (u64, u32), due: Due) {
        self.sequence += 1;
        self.dues.insert((at.0, at.1, self.sequence), due);
    }

    pub fn next(&self) -> Option<u64> {
        self.dues.keys().next().map(|key| key.0)
    }

    pub fn pop(&mut self, now: u64) -> Option<Due> {
        let key = *self.dues.keys().next()?;
        if key.0 > now {
            return None;
        }
        self.dues.remove(&key)
    }

    /// Whether a completion that names this descriptor is still on its way.
    pub fn holds(&self, fd: &Fd) -> bool {
        self.dues.values().any(|due| due.hold.as_ref().is_some_and(|hold| hold.same(fd)))
    }
}
