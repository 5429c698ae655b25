//! Without the feature: no mutant is ever on.

use super::Mutant;

/// Whether `mutant` is planted on this thread: never.
#[inline(always)]
pub const fn on(_mutant: Mutant) -> bool {
    false
}
