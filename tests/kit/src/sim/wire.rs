//! What is on its way, in order of arrival.

use std::collections::BTreeMap;

use ringlane_api::reactor::SockName;

use super::desc::{Chunk, DescId};

/// Something that arrives at a description.
pub(super) enum Parcel {
    /// Bytes for an end.
    Data(DescId, Chunk),
    /// The peer's half close.
    Fin(DescId),
    /// A reset.
    Reset(DescId),
    /// A connect that looks for a listener.
    Syn { from: DescId, to: SockName, tries: u32 },
    /// A refusal for a connecting socket: an errno.
    Refusal(DescId, i32),
    /// A signal.
    Signal(i32),
    /// The end of a process.
    Exit(DescId),
}

/// The wire: parcels by time of arrival, then by order of sending.
#[derive(Default)]
pub(super) struct Wire {
    parcels: BTreeMap<(u64, u64), Parcel>,
    sequence: u64,
}

impl Wire {
    pub fn post(&mut self, at: u64, parcel: Parcel) {
        self.sequence += 1;
        self.parcels.insert((at, self.sequence), parcel);
    }

    /// When the next parcel arrives.
    pub fn next(&self) -> Option<u64> {
        self.parcels.keys().next().map(|key| key.0)
    }

    /// The next parcel that has arrived by `now`.
    pub fn pop(&mut self, now: u64) -> Option<Parcel> {
        let key = *self.parcels.keys().next()?;
        if key.0 > now {
            return None;
        }
        self.parcels.remove(&key)
    }
}
