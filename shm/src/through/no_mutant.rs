//! No bug is planted.

/// A rule that might be broken; see `mutant.rs`.
#[derive(Clone, Copy)]
pub(crate) enum Mutant {
    PlainStore,
    NoFreeze,
    TwoStores,
}

#[inline(always)]
pub(crate) fn is(_: Mutant) -> bool {
    false
}
