//! What the load needs of a system: one end of something that carries messages both ways.

use std::io;
use std::time::Duration;

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

/// One end, in a process of its own.
pub trait Client {
    /// Sends a message. It may be kept back until `flush`, or until many others are kept back.
    fn send(&mut self, message: &[u8]) -> io::Result<()>;

    /// Sends what was kept back.
    fn flush(&mut self) -> io::Result<()>;

    /// Waits until a message is there, `within` at most; shows every one that is at hand, and
    /// returns how many these were.
    fn receive(&mut self, within: Duration, see: &mut dyn FnMut(&[u8])) -> io::Result<usize>;
}
