//! Planted bugs, one at a time and switched on at run time: tests must find each of them.

use std::cell::Cell;

use super::Inlet;
use crate::ring::FROZEN;
use crate::sync::Ordering;

/// A rule that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A relay publishes by a plain store, not by a compare-exchange.
    PlainStore,
    /// A hand-over does not freeze the old ring.
    NoFreeze,
    /// The number of the last record is stored after its position, not with it.
    TwoStores,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 3] = [Mutant::PlainStore, Mutant::NoFreeze, Mutant::TwoStores];
}

thread_local! {
    static MUTANT: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Breaks a rule on this thread, or none.
pub fn set(mutant: Option<Mutant>) {
    MUTANT.set(mutant);
}

pub(crate) fn is(mutant: Mutant) -> bool {
    MUTANT.get() == Some(mutant)
}

/// Gives a ring that was taken away from one relay to the next as it is; returns its file.
pub fn thaw(inlet: &mut Inlet) -> u64 {
    let word = inlet.map.u64_at(inlet.lane.word);
    word.fetch_and(!FROZEN, Ordering::AcqRel);
    inlet.frozen = false;
    inlet.map.file()
}
