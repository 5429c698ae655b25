//! The flight table: every op that was pushed and has not ended, and its name for the outside.
//!
//! Invariant: an [`OpId`] finds its flight exactly as long as the op is under way; the generation
//! of a place grows when it is given free, so that a stale id finds nobody.

use ringlane_api::reactor::{Op, OpId, Token};

use crate::attempt::Pending;

/// Which list of its descriptor's entry an op stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// Receives and accepts, in order.
    In,
    /// Sends and connects, in order.
    Out,
    /// Polls.
    Poll,
    /// None: closes and look-ups.
    Aside,
}

impl Lane {
    /// Where an op belongs.
    pub(super) fn of(op: &Op) -> Lane {
        match op {
            Op::Accept { .. } | Op::Recv { .. } | Op::RecvBulk { .. } | Op::RecvMsg { .. } => {
                Lane::In
            }
            Op::Connect { .. } | Op::Send { .. } | Op::SendMsg { .. } | Op::SendFile { .. } => {
                Lane::Out
            }
            Op::Poll { .. } => Lane::Poll,
            Op::Nop | Op::FutexWait { .. } | Op::Resolve { .. } | Op::Close { .. } => Lane::Aside,
        }
    }
}

/// An op under way.
pub(super) struct Flight {
    /// Who asked.
    pub(super) token: Token,
    /// The op and how far it is.
    pub(super) pending: Pending,
    /// Its list.
    pub(super) lane: Lane,
    /// Its descriptor's number, or -1.
    pub(super) number: i32,
    /// A poll that is asked for again before the next wait.
    pub(super) checking: bool,
}

struct Place {
    generation: u32,
    flight: Option<Flight>,
}

/// The table.
#[derive(Default)]
pub(super) struct Flights {
    places: Vec<Place>,
    free: Vec<u32>,
}

impl Flights {
    /// Takes an op in.
    pub(super) fn insert(&mut self, token: Token, op: Op) -> OpId {
        let lane = Lane::of(&op);
        let pending = Pending::new(op);
        let number = pending.fd().map_or(-1, |fd| fd.number());
        let flight = Some(Flight { token, pending, lane, number, checking: false });
        match self.free.pop() {
            Some(slot) => {
                let place = &mut self.places[slot as usize];
                debug_assert!(place.flight.is_none(), "a free place is empty");
                place.flight = flight;
                OpId { slot, generation: place.generation }
            }
            None => {
                let slot = u32::try_from(self.places.len()).expect("fewer than 2^32 ops at a time");
                self.places.push(Place { generation: 1, flight });
                OpId { slot, generation: 1 }
            }
        }
    }

    /// The flight in a place that is known to be taken.
    pub(super) fn at(&mut self, slot: u32) -> &mut Flight {
        self.places[slot as usize].flight.as_mut().expect("a listed op is under way")
    }

    /// The flight of an id, if it is still under way.
    pub(super) fn get(&self, id: OpId) -> Option<&Flight> {
        let place = self.places.get(id.slot as usize)?;
        place.flight.as_ref().filter(|_| place.generation == id.generation)
    }

    /// Takes a flight out; its place is free.
    pub(super) fn take(&mut self, slot: u32) -> Flight {
        let place = &mut self.places[slot as usize];
        let flight = place.flight.take().expect("a listed op is under way");
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot);
        flight
    }

    /// The places of all ops for which `which` holds.
    pub(super) fn slots(&self, which: impl Fn(&Flight) -> bool) -> Vec<u32> {
        let taken = |(slot, place): (usize, &Place)| {
            place.flight.as_ref().filter(|flight| which(flight)).map(|_| slot as u32)
        };
        self.places.iter().enumerate().filter_map(taken).collect()
    }

    /// How many ops are under way.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}
