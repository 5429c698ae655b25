//! The two client processes.

pub use ringlane_benches::talk::Client;

/// Which of the two client processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Sends first and measures.
    Asks,
    /// Sends back, or counts.
    Answers,
}

impl Side {
    /// The topic that it sends to.
    pub fn sends_to(self) -> &'static str {
        match self {
            Side::Asks => "there",
            Side::Answers => "back",
        }
    }

    /// The topic that it listens to.
    pub fn hears(self) -> &'static str {
        match self {
            Side::Asks => "back",
            Side::Answers => "there",
        }
    }
}
