//! The only door to a device, as a contract.
//!
//! It is the part of verbs that this transport needs: registered memory, reliable connected queue
//! pairs, one completion queue, one completion channel. A verbs or libfabric device implements it;
//! [`soft::Device`](crate::soft::Device) does so in software. The rules, each enforced by the
//! software device:
//!
//! 1. **Memory.** Work names memory as a [`Piece`] of a registered [`Region`]. From the post until
//!    its completion was *polled* a piece belongs to the device: [`Verbs::memory`] refuses what
//!    the device may write, [`Verbs::memory_mut`] what it may write or read. An implementation over
//!    raw memory keeps count of the pieces in flight, which is what makes these two sound.
//! 2. **Order.** Work of one queue pair and direction completes in the order in which it was
//!    posted. Between directions, and between queue pairs, there is no order: the peer's answer may
//!    complete before the send that it answers.
//! 3. **Signalled sends.** An unsignalled send has no completion of its own when all goes well: it
//!    is done, and its place in the queue free, when a later signalled one of the same pair was
//!    polled. What fails always completes.
//! 4. **Receives** are posted before the peer sends. A message that finds none makes the peer wait
//!    and try again (RNR), at the latest until [`Retry::not_ready`] tries are used up.
//! 5. **Arming is one-shot, and for the future.** [`Verbs::request_notify`] asks for one event at
//!    the next completion; those that are in the queue already cause none. So: poll until empty,
//!    arm, poll again, and only then wait.
//! 6. **Errors end a pair.** The work that failed completes with its status, everything else of
//!    the pair with [`Status::Flushed`], and nothing is taken out of the queue pair unseen:
//!    [`Verbs::destroy_pair`] refuses until all of it was polled.
//! 7. **A completion queue must not overrun.** Whoever makes pairs keeps the sum of their work
//!    within its entries; an overrun kills the queue, and every pair on it, without completions.

use std::fmt;
use std::io;
use std::time::Duration;

use ringlane_api::fd::Fd;

/// Registered memory, and the key that proves it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Region {
    /// Place in the device's table.
    pub index: u32,
    /// What hardware calls the local key. A stale one is refused.
    pub key: u32,
}

/// A range of a region.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Piece {
    /// In which region.
    pub region: Region,
    /// Bytes from its start.
    pub offset: u32,
    /// Length in bytes.
    pub length: u32,
}

/// A completion queue of a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct QueueNumber(pub u32);

/// A queue pair of a device; what hardware calls QPN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PairNumber(pub u32);

/// Where a device finds a peer's device: an index into what it was told at set-up (a path record,
/// an address vector; for the software device a cable).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Port(pub u32);

/// What a device can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceLimits {
    /// Entries of a completion queue.
    pub queue_entries_max: u32,
    /// Sends of one pair that are posted and not yet polled.
    pub sends_max: u32,
    /// Receives of one pair that are posted and not yet polled.
    pub receives_max: u32,
    /// Pieces in one send.
    pub pieces_max: u32,
    /// Bytes in one message.
    pub message_bytes_max: u32,
    /// Bytes in one region.
    pub region_bytes_max: usize,
    /// Bytes registered at a time.
    pub registered_bytes_max: usize,
}

/// What a queue pair is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PairShape {
    /// Where both directions complete.
    pub queue: QueueNumber,
    /// Sends at a time.
    pub sends: u32,
    /// Receives at a time.
    pub receives: u32,
}

/// How patient a pair is with its peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retry {
    /// Tries after "no receive is posted"; [`Retry::FOR_EVER`] does not count them.
    pub not_ready: u8,
    /// Between two of those.
    pub not_ready_pause: Duration,
    /// Tries after silence.
    pub silence: u8,
    /// What counts as silence.
    pub silence_after: Duration,
}

impl Retry {
    /// As [`Retry::not_ready`]: no end.
    pub const FOR_EVER: u8 = 7;
}

impl Default for Retry {
    /// A peer that has no receive posted breaks the protocol; one that is silent for about a
    /// second is gone.
    fn default() -> Retry {
        Retry {
            not_ready: 6,
            not_ready_pause: Duration::from_millis(1),
            silence: 7,
            silence_after: Duration::from_millis(125),
        }
    }
}

/// A send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendRequest<'a> {
    /// Comes back with its completion.
    pub id: u64,
    /// What, gathered in this order.
    pub pieces: &'a [Piece],
    /// Whether its success completes.
    pub signalled: bool,
}

/// Which direction a completion is of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Work {
    /// A send.
    Send,
    /// A receive.
    Receive,
}

/// How work ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// The peer's device has it, or we have the peer's.
    Success,
    /// A message was longer than the receive it met; here, on the receiver's side.
    LocalLength,
    /// A piece that is not registered, or reaches past its region.
    LocalProtection,
    /// The pair had failed before this work's turn came.
    Flushed,
    /// The peer's device could not place the message.
    RemoteOperation,
    /// The peer had no receive posted, for too long.
    NotReadyExceeded,
    /// The peer's device was silent for too long.
    SilenceExceeded,
}

/// The end of some work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkCompletion {
    /// As posted.
    pub id: u64,
    /// Of which pair.
    pub pair: PairNumber,
    /// Which direction.
    pub work: Work,
    /// How it ended.
    pub status: Status,
    /// Bytes received; 0 for a send, and when it failed.
    pub bytes: u32,
}

/// What happens to a device as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AsyncEvent {
    /// Nothing completes any more.
    DeviceFatal,
    /// A completion queue overran; its pairs are gone without completions.
    QueueOverrun(QueueNumber),
}

/// Why a device does not take what it is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// As many as were asked for when it was made are posted (ENOMEM).
    Full,
    /// Not in this state of the pair.
    State,
    /// No such region, or its key is stale.
    NotRegistered,
    /// Past the end of the region.
    OutOfBounds,
    /// The device owns these bytes.
    DeviceOwned,
    /// More than [`DeviceLimits`] allow.
    Limit,
    /// No such queue or pair.
    Unknown,
    /// Work names it that was not polled.
    Busy,
    /// The memory cannot be locked.
    NoMemory,
    /// The completion queue has overrun.
    Overrun,
    /// The device is dead.
    DeviceGone,
}

impl Refusal {
    /// The error number with which it is told to users (errno(3)).
    pub fn errno(self) -> i32 {
        match self {
            Refusal::Full | Refusal::NoMemory | Refusal::Limit => 105, // ENOBUFS
            Refusal::NotRegistered | Refusal::OutOfBounds | Refusal::DeviceOwned => 14, // EFAULT
            Refusal::State | Refusal::Unknown => 22,                   // EINVAL
            Refusal::Busy => 16,                                       // EBUSY
            Refusal::Overrun | Refusal::DeviceGone => 19,              // ENODEV
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Full => "the queue is full",
            Refusal::State => "not in this state of the queue pair",
            Refusal::NotRegistered => "the memory is not registered",
            Refusal::OutOfBounds => "past the end of the region",
            Refusal::DeviceOwned => "the device owns this memory",
            Refusal::Limit => "more than the device can do",
            Refusal::Unknown => "no such queue or pair",
            Refusal::Busy => "work in flight names it",
            Refusal::NoMemory => "the memory cannot be locked",
            Refusal::Overrun => "the completion queue has overrun",
            Refusal::DeviceGone => "the device is gone",
        })
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> io::Error {
        let kind = io::Error::from_raw_os_error(refusal.errno()).kind();
        io::Error::new(kind, refusal)
    }
}

/// How a sleeping loop hears of an event.
#[derive(Clone, Debug, Default)]
pub enum Channel {
    /// Not at all: somebody asks.
    #[default]
    Polled,
    /// A counter (eventfd(2)) becomes readable; the loop drains it before it asks.
    Counter(Fd),
    /// A descriptor of the device's library becomes readable; the library drains it in
    /// [`Verbs::take_event`].
    Library(Fd),
}

/// A device, as far as this transport needs one. See the module text for the rules.
pub trait Verbs {
    /// What it can do.
    fn limits(&self) -> DeviceLimits;

    /// Locks and registers `bytes` of fresh memory for sends and receives of this device. Peers
    /// get no right to it.
    fn register(&mut self, bytes: usize) -> Result<Region, Refusal>;
    /// Lets go of it; refused while work in flight names it.
    fn deregister(&mut self, region: Region) -> Result<(), Refusal>;
    /// Reads memory that the device does not write to now.
    fn memory(&self, piece: Piece) -> Result<&[u8], Refusal>;
    /// Writes memory that the device does not touch now.
    fn memory_mut(&mut self, piece: Piece) -> Result<&mut [u8], Refusal>;

    /// Makes a completion queue.
    fn create_queue(&mut self, entries: u32) -> Result<QueueNumber, Refusal>;
    /// Makes a queue pair that takes receives and cannot send yet.
    fn create_pair(&mut self, shape: PairShape) -> Result<PairNumber, Refusal>;
    /// Joins it to a peer's: from now on it sends and receives.
    fn connect_pair(
        &mut self,
        pair: PairNumber,
        port: Port,
        peer: PairNumber,
        retry: Retry,
    ) -> Result<(), Refusal>;
    /// Fails it on purpose: what is posted completes as flushed.
    fn fail_pair(&mut self, pair: PairNumber) -> Result<(), Refusal>;
    /// Removes it; refused unless it has failed or was never connected, and everything that was
    /// posted to it was polled.
    fn destroy_pair(&mut self, pair: PairNumber) -> Result<(), Refusal>;

    /// Hands a piece to the device for one message of the peer.
    fn post_receive(&mut self, pair: PairNumber, id: u64, piece: Piece) -> Result<(), Refusal>;
    /// Hands pieces to the device as one message to the peer.
    fn post_send(&mut self, pair: PairNumber, request: &SendRequest<'_>) -> Result<(), Refusal>;

    /// Takes up to `most` completions out of the queue and appends them to `done`.
    fn poll(
        &mut self,
        queue: QueueNumber,
        done: &mut Vec<WorkCompletion>,
        most: usize,
    ) -> Result<usize, Refusal>;
    /// Asks for one event at the next completion.
    fn request_notify(&mut self, queue: QueueNumber) -> Result<(), Refusal>;
    /// Takes and acknowledges an event of the channel; says whether there was one.
    fn take_event(&mut self) -> bool;
    /// What happened to the device as a whole since this was asked last.
    fn take_async_event(&mut self) -> Option<AsyncEvent>;
    /// How the loop hears of events.
    fn channel(&self) -> Channel;
}
