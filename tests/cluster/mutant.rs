//! Planted bugs, in a build that has them.

#[cfg(feature = "mutants")]
mod planted {
    use ringlane_api::mutant::Mutant;

    pub type Planted = Option<Mutant>;

    /// Whether processes look at nothing when a relay hangs up.
    pub fn deaf(_: Planted) -> bool {
        false
    }

    /// Plants one on this thread.
    pub fn plant(mutant: Planted) {
        ringlane_api::mutant::plant(mutant);
    }
}

#[cfg(not(feature = "mutants"))]
mod planted {
    pub type Planted = ();

    /// Whether processes look at nothing when a relay hangs up.
    pub fn deaf((): Planted) -> bool {
        false
    }

    /// There are none.
    pub fn plant((): Planted) {}
}

pub use planted::{Planted, deaf, plant};
