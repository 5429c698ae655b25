//! Planted bugs, so that the tests themselves are tested.
//!
//! Each place where a well-known mistake would bite asks `mutant::on(Mutant::X)`. Without the
//! feature `mutants` that is a constant `false` and costs nothing; with it, a test plants one
//! mutant per thread and `tests/mutants.rs` demands that the simulator or a named case finds it.

#[cfg(feature = "mutants")]
mod planted;
#[cfg(not(feature = "mutants"))]
mod sane;

#[cfg(feature = "mutants")]
pub use planted::{on, plant};
#[cfg(not(feature = "mutants"))]
pub use sane::on;

/// One planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Mutant {
    /// A late completion is taken for one of the slot's new owner.
    GenerationIgnored,
    /// A receive that ended (`more == false`) is thought to be still armed.
    MoreIgnored,
    /// A second send is pushed while one is in flight.
    TwoSends,
    /// An accept that ended is not armed again.
    AcceptOnce,
    /// The end of stream is reported twice.
    EofTwice,
    /// `Closed` is emitted while a send is still in flight.
    ClosedBeforeSent,
    /// A receive is armed although the window is used up.
    WindowIgnored,
    /// A received block that is dropped stays charged to its link.
    LeaseLeaked,
    /// An output that changes while its link is being flushed is not flushed again.
    DirtyLost,
    /// A timer that is added again while pending never fires.
    TimerLostOnReAdd,
    /// The transport never says that it would take more.
    WritableForgotten,
    /// A callback that was called is not put back.
    CallbackNotPutBack,
    /// Reading paused by a high watermark is never taken up again.
    WatermarkPauseKept,
    /// A connection accepted after its listener was closed is never closed.
    LateAcceptLeaked,
    /// A half close overtakes the bytes written before it.
    FinishOvertakes,
    /// A callback still runs after `free`.
    CallbackAfterFree,
    /// The deadline of a connect stays armed after it succeeded.
    ConnectDeadlineKept,
    /// Only the first address of a host name is tried.
    FirstAddressOnly,
    /// Nothing is kept for words: data may use every receive.
    RdmaNoReserve,
    /// Credit goes back when bytes arrive, not when they are taken.
    RdmaCreditEarly,
    /// After arming nobody looks once more.
    RdmaArmUnchecked,
    /// After announcing sleep to a peer in shared memory nobody looks once more.
    RdmaRestUnchecked,
    /// What completes on a link that its owner has left is delivered.
    RdmaDeadDelivered,
    /// The end of stream overtakes the bytes before it.
    RdmaEndOvertakes,
    /// A receive that was consumed is promised before it is posted again.
    RdmaPromisedUnposted,
    /// A relay takes a channel from whoever asks, whatever attachment asks for it.
    BusGenerationIgnored,
    /// A receiver hands its old segment to the next relay.
    BusSegmentKept,
    /// A relay acknowledges before it publishes.
    BusAckEarly,
    /// A process does not look at its rings when a relay hangs up.
    BusHangUpIgnored,
    /// A sender that has begun anew goes on in the stream of the one before.
    BusEpochIgnored,
    /// A relay sends whether there is room or not.
    BusCreditIgnored,
}

impl Mutant {
    /// Those of the protocol of rdma://; `rdma-stub/tests/mutants.rs` finds them.
    pub const RDMA: [Mutant; 7] = [
        Mutant::RdmaNoReserve,
        Mutant::RdmaCreditEarly,
        Mutant::RdmaArmUnchecked,
        Mutant::RdmaRestUnchecked,
        Mutant::RdmaDeadDelivered,
        Mutant::RdmaEndOvertakes,
        Mutant::RdmaPromisedUnposted,
    ];

    /// Those of the bus and its relays; `tests/cluster` finds them.
    pub const BUS: [Mutant; 6] = [
        Mutant::BusGenerationIgnored,
        Mutant::BusSegmentKept,
        Mutant::BusAckEarly,
        Mutant::BusHangUpIgnored,
        Mutant::BusEpochIgnored,
        Mutant::BusCreditIgnored,
    ];

    /// All others; `tests/mutants.rs` finds them.
    pub const ALL: [Mutant; 18] = [
        Mutant::GenerationIgnored,
        Mutant::MoreIgnored,
        Mutant::TwoSends,
        Mutant::AcceptOnce,
        Mutant::EofTwice,
        Mutant::ClosedBeforeSent,
        Mutant::WindowIgnored,
        Mutant::LeaseLeaked,
        Mutant::DirtyLost,
        Mutant::TimerLostOnReAdd,
        Mutant::WritableForgotten,
        Mutant::CallbackNotPutBack,
        Mutant::WatermarkPauseKept,
        Mutant::LateAcceptLeaked,
        Mutant::FinishOvertakes,
        Mutant::CallbackAfterFree,
        Mutant::ConnectDeadlineKept,
        Mutant::FirstAddressOnly,
    ];
}
