//! With the feature: one mutant per thread.

use std::cell::Cell;

use super::Mutant;

thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Whether `mutant` is planted on this thread.
#[inline]
pub fn on(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Plants `mutant` on this thread in place of what was planted before.
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}
