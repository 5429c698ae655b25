//! Planted bugs, in a build that has them.

#[cfg(feature = "mutants")]
mod planted {
    use ringlane::shm::through::mutant;
    use ringlane_api::mutant::{Mutant, on, plant as plant_api};

    /// A rule that is broken.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Bug {
        Bus(Mutant),
        Ring(mutant::Mutant),
    }

    pub type Planted = Option<Bug>;

    /// Each of them.
    pub fn all() -> Vec<Planted> {
        let bus = Mutant::BUS.into_iter().map(Bug::Bus);
        bus.chain(mutant::Mutant::ALL.into_iter().map(Bug::Ring)).map(Some).collect()
    }

    /// Whether processes look at nothing when a relay hangs up, or comes.
    pub fn deaf() -> bool {
        on(Mutant::BusHangUpIgnored)
    }

    /// Plants one on this thread.
    pub fn plant(bug: Planted) {
        plant_api(match bug {
            Some(Bug::Bus(mutant)) => Some(mutant),
            _ => None,
        });
        mutant::set(match bug {
            Some(Bug::Ring(mutant)) => Some(mutant),
            _ => None,
        });
    }
}

#[cfg(not(feature = "mutants"))]
mod planted {
    pub type Planted = Option<std::convert::Infallible>;

    /// There are none.
    pub fn all() -> Vec<Planted> {
        Vec::new()
    }

    pub fn deaf() -> bool {
        false
    }

    pub fn plant(_: Planted) {}
}

pub use planted::{Planted, all, deaf, plant};
