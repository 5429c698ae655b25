//! What went wrong on purpose, and how often.

use std::fmt;

/// One kind of trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A relay is killed between two turns,
    RelayKilled,
    /// or behind a store, or between two things it does.
    RelayKilledAt,
    /// The relays of all hosts are killed at once.
    AllKilled,
    /// A relay stands still for less than anybody takes notice of, between turns or within one.
    RelayStopped,
    RelayStoppedAt,
    /// It stands still for so long that its processes take it for hung and connect to it again.
    RelayHung,
    /// A second one is started over one that stands still,
    Takeover,
    /// which goes on later.
    ZombieWoke,
    /// A link breaks: what was under way arrives in part.
    LinkCut,
    /// No bytes go between two hosts for a while.
    Partition,
    /// Bytes of a link arrive after a later link between the two stands.
    LateBytes,
    /// A process is killed between turns, or behind a store, and started again.
    ProcessKilled,
    ProcessKilledAt,
    /// A process stands still.
    ProcessStopped,
    /// A process has an epoch that is not larger than that of the instance before it.
    ClockBack,
    /// A process ends in peace and is started again.
    ProcessLeft,
    /// Consumers take a few messages now and then.
    SlowConsumer,
    /// Links take bytes only as they are delivered.
    SlowKernel,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 18] = [
        Fault::RelayKilled,
        Fault::RelayKilledAt,
        Fault::AllKilled,
        Fault::RelayStopped,
        Fault::RelayStoppedAt,
        Fault::RelayHung,
        Fault::Takeover,
        Fault::ZombieWoke,
        Fault::LinkCut,
        Fault::Partition,
        Fault::LateBytes,
        Fault::ProcessKilled,
        Fault::ProcessKilledAt,
        Fault::ProcessStopped,
        Fault::ClockBack,
        Fault::ProcessLeft,
        Fault::SlowConsumer,
        Fault::SlowKernel,
    ];
}

/// How often each was injected, and what came of it.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    faults: [u64; Fault::ALL.len()],
    /// Points at which a relay could have been killed.
    pub points: u64,
    pub messages: u64,
    /// Receivers whose death was told, exactly or not.
    pub gone: [u64; 2],
}

impl Tally {
    pub fn count(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    pub fn of(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }

    pub fn add(&mut self, other: &Tally) {
        for (mine, theirs) in self.faults.iter_mut().zip(other.faults) {
            *mine += theirs;
        }
        for (mine, theirs) in self.gone.iter_mut().zip(other.gone) {
            *mine += theirs;
        }
        self.points += other.points;
        self.messages += other.messages;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in Fault::ALL {
            writeln!(f, "  {:<16} {:>10}", format!("{fault:?}"), self.of(fault))?;
        }
        Ok(())
    }
}
