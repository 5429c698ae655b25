//! One link: the credit protocol as a machine without input and output of its own.
//!
//! ```text
//!  open ─► Waiting ─connect─► Open ──abort──► Leaving ─goodbye taken─► Draining ─► Closed
//!             │                │ └─something failed─► Broken ──abort──────^   all polled
//!             └────────────────┴── abort, the peer is gone ───────────────^
//! ```
//!
//! It is told what completed ([`Link::completed`]) and what its owner wants (send, grant, finish,
//! abort), posts work on the device, and says what happens as [`LinkEvent`]s. It never calls back.
//!
//! Memory: one region per link, cut into slots: receives, sends for data, sends for control. A slot
//! is either free, or the device's, or (a receive whose bytes the reader has not taken) held.
//!
//! ```text
//!   | receive … receive | send … send | control … control |
//! ```

mod close;
mod receive;
mod send;

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use ringlane_api::limits::LEASE_BLOCKS_MAX;
use ringlane_api::mutant::{self, Mutant};
use ringlane_api::reactor::forked;
use ringlane_api::segment::{Home, Lease};
use ringlane_api::transport::LinkEvent;

use crate::credit::{Inward, Outward};
use crate::limits;
use crate::message::{HEADER_BYTES, Kind, Violation};
use crate::verbs::{
    PairNumber, PairShape, Piece, Port, QueueNumber, Refusal, Region, Retry, Status, Verbs, Work,
    WorkCompletion,
};

pub use send::FileRead;

/// How much memory and work a link may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Bytes of each posted receive, header included.
    pub message_bytes: u32,
    /// Receives for data.
    pub window: u32,
    /// Data messages in flight.
    pub sends: u32,
    /// Receives and sends that data cannot use. Fewer than [`limits::CONTROL`] deadlock, or make
    /// peers wait for receives; only tests that show this have fewer.
    pub control: u32,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            message_bytes: limits::MESSAGE_BYTES,
            window: limits::WINDOW,
            sends: limits::SENDS,
            control: limits::CONTROL,
        }
    }
}

impl Shape {
    fn receives(&self) -> u32 {
        self.window + self.control
    }

    /// Completions that may lie in the queue at a time.
    pub fn entries(&self) -> u32 {
        self.receives() + self.sends + self.control
    }

    /// Bytes registered for a link.
    pub fn region_bytes(&self) -> usize {
        let whole = (self.receives() + self.sends) as usize * self.message_bytes as usize;
        whole + self.control as usize * HEADER_BYTES
    }
}

/// What each end tells the other before they are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Its queue pair.
    pub pair: PairNumber,
    /// Bytes of each of its posted receives.
    pub message_bytes: u32,
    /// How many of them are for data.
    pub window: u32,
}

impl Offer {
    /// Refuses what no sane peer offers.
    pub fn check(&self) -> io::Result<()> {
        let sizes = limits::MESSAGE_BYTES_MIN..=limits::MESSAGE_BYTES_MAX;
        if !sizes.contains(&self.message_bytes) || !(1..=limits::WINDOW_MAX).contains(&self.window)
        {
            let what = format!(
                "the peer offers {} receives of {} bytes; 1 to {} of {} to {} make sense",
                self.window,
                self.message_bytes,
                limits::WINDOW_MAX,
                limits::MESSAGE_BYTES_MIN,
                limits::MESSAGE_BYTES_MAX
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(())
    }
}

/// Why a link broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The peer went without a goodbye.
    Reset,
    /// The peer's device is silent.
    TimedOut,
    /// The peer broke the protocol.
    Peer(Violation),
    /// The peer's device, or ours, could not place a message, or had no receive for it for too
    /// long: one end is wrong about credit or sizes.
    Unplaced(Status),
    /// The device did not take what we posted.
    Refused(Refusal),
    /// The device is gone.
    DeviceGone,
    /// What the peer's device sent is no frame.
    Frame,
    /// The link belongs to the parent of this process.
    Forked,
}

impl Fault {
    fn of(status: Status) -> Fault {
        match status {
            Status::Success | Status::Flushed => Fault::Reset,
            Status::SilenceExceeded => Fault::TimedOut,
            Status::LocalProtection => Fault::Refused(Refusal::NotRegistered),
            Status::LocalLength | Status::RemoteOperation | Status::NotReadyExceeded => {
                Fault::Unplaced(status)
            }
        }
    }

    /// As the user is told.
    pub fn error(self) -> io::Error {
        let other = |kind, what: String| io::Error::new(kind, what);
        match self {
            Fault::Reset => io::ErrorKind::ConnectionReset.into(),
            Fault::TimedOut => other(io::ErrorKind::TimedOut, "the peer's device is silent".into()),
            Fault::Peer(violation) => {
                other(io::ErrorKind::InvalidData, format!("protocol error: {violation}"))
            }
            Fault::Unplaced(status) => {
                other(io::ErrorKind::InvalidData, format!("a message was not placed: {status:?}"))
            }
            Fault::Refused(refusal) => refusal.into(),
            Fault::DeviceGone => Refusal::DeviceGone.into(),
            Fault::Frame => {
                other(io::ErrorKind::InvalidData, "what the peer's device sent is no frame".into())
            }
            Fault::Forked => forked(),
        }
    }
}

/// What a link needs from around it for the time of a call.
pub struct Scope<'a> {
    /// The device.
    pub verbs: &'a mut dyn Verbs,
    /// Where the blocks of received bytes come from.
    pub home: &'a Rc<Home>,
    /// Where events go.
    pub events: &'a mut Vec<LinkEvent>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Waiting,
    Open,
    Broken,
    Leaving,
    Draining,
    Closed,
}

/// Something that is said at most once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    Unsaid,
    Wanted,
    Posted,
}

/// A send that the device has.
struct Flight {
    id: u64,
    kind: Kind,
    /// Payload.
    bytes: usize,
}

/// A data message whose bytes the reader has not taken.
struct Held {
    slot: u32,
    offset: u32,
    length: u32,
}

/// A link. See the module text.
pub struct Link {
    pair: PairNumber,
    region: Region,
    shape: Shape,
    phase: Phase,
    fault: Option<Fault>,

    outward: Outward,
    /// Bytes that fit into one message; both ends agree to the smaller one's size.
    payload_max: u32,
    sequence: u32,
    data_slots: Vec<u32>,
    control_slots: Vec<u32>,
    in_flight: VecDeque<Flight>,
    unsignalled: u32,
    wants_writable: bool,
    finish: Word,
    goodbye: Word,
    /// The user knows that nothing can be sent any more.
    write_over: bool,

    inward: Inward,
    expected: u32,
    held: VecDeque<Held>,
    posted: u32,
    allowance: u64,
    lease: Rc<Lease>,
    peer_finished: bool,
    peer_gone: bool,
    /// The user knows that nothing can come any more.
    read_over: bool,
    /// It stands in the list of links that may have something to say.
    pub(crate) due: bool,
}

/// In an id: the slot belongs to a send.
const SEND: u64 = 1 << 32;

impl Link {
    /// Makes the memory and the queue pair and posts every receive, so that a peer that was told
    /// of it finds them.
    pub fn open(
        verbs: &mut dyn Verbs,
        queue: QueueNumber,
        shape: Shape,
    ) -> Result<(Link, Offer), Refusal> {
        let control = if mutant::on(Mutant::RdmaNoReserve) { 0 } else { shape.control };
        let shape = Shape { control, ..shape };
        let region = verbs.register(shape.region_bytes())?;
        let sends = shape.sends + shape.control;
        let wanted = PairShape { queue, sends, receives: shape.receives() };
        let pair = match verbs.create_pair(wanted) {
            Ok(pair) => pair,
            Err(refusal) => {
                verbs.deregister(region)?;
                return Err(refusal);
            }
        };
        let mut link = Link::new(pair, region, shape);
        for slot in 0..shape.receives() {
            if let Err(refusal) = link.post_receive(verbs, slot) {
                // Flushed receives lie in the queue now; they find no link, which is harmless.
                verbs.fail_pair(pair)?;
                return Err(refusal);
            }
        }
        let offer = Offer { pair, message_bytes: shape.message_bytes, window: shape.window };
        Ok((link, offer))
    }

    fn new(pair: PairNumber, region: Region, shape: Shape) -> Link {
        let first = shape.receives();
        Link {
            pair,
            region,
            shape,
            phase: Phase::Waiting,
            fault: None,
            outward: Outward::new(0),
            payload_max: 0,
            sequence: 0,
            data_slots: (first..first + shape.sends).rev().collect(),
            control_slots: (first + shape.sends..first + shape.sends + shape.control).collect(),
            in_flight: VecDeque::new(),
            unsignalled: 0,
            wants_writable: false,
            finish: Word::Unsaid,
            goodbye: Word::Unsaid,
            write_over: false,
            inward: Inward::new(shape.window),
            expected: 0,
            held: VecDeque::new(),
            posted: 0,
            allowance: 0,
            lease: Lease::new(LEASE_BLOCKS_MAX),
            peer_finished: false,
            peer_gone: false,
            read_over: false,
            due: false,
        }
    }

    /// Joins it to the peer whose offer this is, and that has ours.
    pub fn connect(
        &mut self,
        verbs: &mut dyn Verbs,
        port: Port,
        peer: &Offer,
        retry: Retry,
    ) -> io::Result<()> {
        peer.check()?;
        verbs.connect_pair(self.pair, port, peer.pair, retry)?;
        self.phase = Phase::Open;
        self.outward = Outward::new(peer.window);
        let message = peer.message_bytes.min(self.shape.message_bytes);
        self.payload_max = message - HEADER_BYTES as u32;
        Ok(())
    }

    /// Its queue pair, by which completions find it.
    pub fn pair(&self) -> PairNumber {
        self.pair
    }

    /// How much work it may have.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether `Closed` was said.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether it waits for its goodbye to be taken; its owner limits that by
    /// [`Link::lingered`].
    pub fn is_leaving(&self) -> bool {
        self.phase == Phase::Leaving
    }

    /// Why it broke.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Data messages whose bytes the reader has not taken; never more than the window.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// A piece of a slot.
    fn piece(&self, slot: u32, from: u32, length: u32) -> Piece {
        let whole = self.shape.receives() + self.shape.sends;
        let control = slot.saturating_sub(whole) * HEADER_BYTES as u32;
        let offset = slot.min(whole) * self.shape.message_bytes + control + from;
        Piece { region: self.region, offset, length }
    }

    fn post_receive(&mut self, verbs: &mut dyn Verbs, slot: u32) -> Result<(), Refusal> {
        let piece = self.piece(slot, 0, self.shape.message_bytes);
        verbs.post_receive(self.pair, u64::from(slot), piece)?;
        self.posted += 1;
        Ok(())
    }

    /// Some of its work is over.
    pub fn completed(&mut self, scope: &mut Scope<'_>, completion: &WorkCompletion) {
        match completion.work {
            Work::Send => self.sent(scope, completion),
            Work::Receive => self.received(scope, completion),
        }
        self.settle(scope);
    }
}
