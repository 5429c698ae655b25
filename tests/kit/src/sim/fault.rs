//! What may go wrong, how often, and how often it did.

use std::fmt;

/// One kind of trouble the simulator makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A receive brings less than has arrived.
    ShortReceive,
    /// The kernel takes a send in several pieces.
    ShortSend,
    /// A completion comes later than what it reports.
    Late,
    /// Completions of different ops change places.
    Reordered,
    /// A multishot op ends (`more == false`) without an error and before its limit.
    EndedEarly,
    /// A receive finds no block and is parked.
    NoBlock,
    /// A turn comes back empty although something is ready (an interrupted wait).
    EmptyTurn,
    /// A turn comes back before anything has happened.
    SpuriousWake,
    /// An op that was cancelled succeeds all the same.
    CancelRace,
    /// A word was rung, and who waits on it hears of it later.
    WakeLate,
    /// A wait on a word ends though nobody has rung it.
    WakeSpurious,
    /// A connection is reset while bytes are on their way.
    Reset,
    /// A connection is reset, whatever it is doing: bytes may be on their way elsewhere.
    SocketDies,
    /// The process at the other end of a connection ends, and a child of it keeps the connection.
    ProcessEnds,
    /// There is no memory to share.
    MemoryRefused,
    /// A connect is refused although somebody listens.
    Refused,
    /// A connect is not answered.
    Unanswered,
    /// Descriptors run out at an accept.
    NoDescriptor,
    /// A completion comes for a connection that is long gone. No kernel does that; a forgotten
    /// op would.
    Stray,
}

impl Fault {
    /// All of them, in the order of [`Faults`].
    pub const ALL: [Fault; 19] = [
        Fault::ShortReceive,
        Fault::ShortSend,
        Fault::Late,
        Fault::Reordered,
        Fault::EndedEarly,
        Fault::NoBlock,
        Fault::EmptyTurn,
        Fault::SpuriousWake,
        Fault::CancelRace,
        Fault::WakeLate,
        Fault::WakeSpurious,
        Fault::Reset,
        Fault::SocketDies,
        Fault::ProcessEnds,
        Fault::MemoryRefused,
        Fault::Refused,
        Fault::Unanswered,
        Fault::NoDescriptor,
        Fault::Stray,
    ];
}

/// How often each fault is injected where it could be, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults([u16; Fault::ALL.len()]);

impl Faults {
    /// A kernel without moods.
    pub fn none() -> Faults {
        Faults([0; Fault::ALL.len()])
    }

    /// Everything a healthy kernel may do and a program must not notice.
    pub fn mild() -> Faults {
        Faults::none()
            .with(Fault::ShortReceive, 150)
            .with(Fault::ShortSend, 150)
            .with(Fault::Late, 150)
            .with(Fault::Reordered, 300)
            .with(Fault::EndedEarly, 80)
            .with(Fault::NoBlock, 30)
            .with(Fault::EmptyTurn, 40)
            .with(Fault::SpuriousWake, 30)
            .with(Fault::CancelRace, 500)
            .with(Fault::WakeLate, 150)
            .with(Fault::WakeSpurious, 30)
    }

    /// The same, and broken connections.
    pub fn wild() -> Faults {
        Faults::mild()
            .with(Fault::Reset, 2)
            .with(Fault::SocketDies, 1)
            .with(Fault::ProcessEnds, 30)
            .with(Fault::MemoryRefused, 60)
            .with(Fault::Refused, 40)
            .with(Fault::Unanswered, 25)
            .with(Fault::NoDescriptor, 30)
            .with(Fault::Stray, 20)
    }

    /// The same with another rate for one fault.
    #[must_use]
    pub fn with(mut self, fault: Fault, per_mille: u16) -> Faults {
        self.0[fault as usize] = per_mille;
        self
    }

    /// The rate of one fault.
    pub fn rate(&self, fault: Fault) -> u16 {
        self.0[fault as usize]
    }
}

/// How often each fault was injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally([u64; Fault::ALL.len()]);

impl Tally {
    /// Counts one.
    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How often `fault` was injected.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Tally) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in Fault::ALL {
            writeln!(f, "  {:<14} {:>10}", format!("{fault:?}"), self.of(fault))?;
        }
        Ok(())
    }
}
