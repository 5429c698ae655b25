//! Planted bugs, one at a time and switched on at run time: tests must find each of them.

use std::cell::Cell;

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
