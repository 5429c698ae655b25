//! What two relays say to each other once the handshake is through: frames, sans IO.
//!
//! ```text
//!   | len u32 | kind u8 | flags u8 | zero u16 | bind u32 | seq u32 | len bytes, by kind |
//! ```
//!
//! Invariant: what [`Decoder::next`] hands out has been checked field by field, so that whoever
//! gets it has to judge its meaning only; what it cannot check (that a binding exists, that a
//! sequence number is the next) is the relay's. Nothing is allocated per frame: a [`Frame`]
//! borrows from the buffer it stands in, and encoding appends to a buffer that the caller keeps.
//!
//! `docs/wire.md` has the same byte by byte.

mod body;
mod codes;
mod decode;
mod encode;
pub(crate) mod fields;
#[cfg(test)]
mod tests;

use std::fmt;

pub use body::{BadRecord, Body, Record, Records};
pub(crate) use codes::code;
pub use codes::{AckAt, Class, Leave, Unreachable, Waits};
pub use decode::{Decoder, Malformed};
pub use encode::{DataStart, StampList, data_header};
pub use fields::{Stamps, is_name};

/// Bytes before a frame's body.
pub const FRAME_HEADER_BYTES: usize = 16;

/// Bytes in a frame's body at most. A DATA frame is stored whole or not at all, so this bounds
/// what a link holds of one that is not complete.
pub const FRAME_BODY_BYTES_MAX: usize = 1 << 20;

/// Bytes in the body of a frame that is not DATA: 16 stamps of 73 bytes and two names.
pub const CONTROL_BODY_BYTES_MAX: usize = 2 << 10;

/// Bytes in the name of a node or of a host.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes in a sentence for the other side's log.
pub const TEXT_BYTES_MAX: usize = 255;

/// Stations that a probe passes at most; a way there and back has eight.
pub const STAMPS_MAX: usize = 16;

const _: () = assert!(
    STAMPS_MAX * (1 + NAME_BYTES_MAX + 8) + 2 * (1 + NAME_BYTES_MAX) + 9 <= CONTROL_BODY_BYTES_MAX,
    "the longest probe fits"
);

/// What a frame is: the byte that says so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// [`Frame::Open`].
    Open = 1,
    /// [`Frame::Resume`].
    Resume = 2,
    /// [`Frame::Pending`].
    Pending = 3,
    /// [`Frame::Stale`].
    Stale = 4,
    /// [`Frame::Unreach`].
    Unreach = 5,
    /// [`Frame::Data`].
    Data = 6,
    /// [`Frame::Skip`].
    Skip = 7,
    /// [`Frame::Ack`].
    Ack = 8,
    /// [`Frame::Fin`].
    Fin = 9,
    /// [`Frame::Abort`].
    Abort = 10,
    /// [`Frame::Closed`].
    Closed = 11,
    /// [`Frame::Gone`].
    Gone = 12,
    /// [`Frame::GoneOk`].
    GoneOk = 13,
    /// [`Frame::Stuck`].
    Stuck = 14,
    /// [`Frame::Ping`].
    Ping = 15,
    /// [`Frame::Pong`].
    Pong = 16,
    /// [`Frame::Probe`].
    Probe = 17,
    /// [`Frame::Probed`].
    Probed = 18,
    /// [`Frame::Bye`].
    Bye = 19,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Kind; 19] = [
        Kind::Open,
        Kind::Resume,
        Kind::Pending,
        Kind::Stale,
        Kind::Unreach,
        Kind::Data,
        Kind::Skip,
        Kind::Ack,
        Kind::Fin,
        Kind::Abort,
        Kind::Closed,
        Kind::Gone,
        Kind::GoneOk,
        Kind::Stuck,
        Kind::Ping,
        Kind::Pong,
        Kind::Probe,
        Kind::Probed,
        Kind::Bye,
    ];

    fn of(byte: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    /// Whether its header names a binding; in the others that field is zero.
    fn has_bind(self) -> bool {
        !matches!(self, Kind::Ping | Kind::Pong | Kind::Probe | Kind::Probed | Kind::Bye)
    }

    /// Whether its header has a sequence number; in the others that field is zero.
    fn has_seq(self) -> bool {
        matches!(self, Kind::Resume | Kind::Data | Kind::Skip | Kind::Ack | Kind::Fin)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Open => "OPEN",
            Kind::Resume => "RESUME",
            Kind::Pending => "PENDING",
            Kind::Stale => "STALE",
            Kind::Unreach => "UNREACH",
            Kind::Data => "DATA",
            Kind::Skip => "SKIP",
            Kind::Ack => "ACK",
            Kind::Fin => "FIN",
            Kind::Abort => "ABORT",
            Kind::Closed => "CLOSED",
            Kind::Gone => "GONE",
            Kind::GoneOk => "GONE_OK",
            Kind::Stuck => "STUCK",
            Kind::Ping => "PING",
            Kind::Pong => "PONG",
            Kind::Probe => "PROBE",
            Kind::Probed => "PROBED",
            Kind::Bye => "BYE",
        })
    }
}

/// [`Frame::Open`]'s fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open<'a> {
    /// The number of the binding: the sender's, never used twice on a link.
    pub bind: u32,
    /// The sending node.
    pub src: &'a str,
    /// The receiving node.
    pub dst: &'a str,
    /// The channel between the two.
    pub chan: u16,
    /// What the channel does with what cannot be stored.
    pub class: Class,
    /// 0 (first) to 3.
    pub priority: u8,
    /// When a record counts as delivered.
    pub ack: AckAt,
    /// The sending process: generation, part one.
    pub epoch: u64,
    /// Which instance of the sending process claims that epoch.
    pub nonce: [u8; 16],
    /// The sending process's attachment: generation, part two.
    pub att: u32,
    /// The sending relay's link: generation, part three.
    pub linkno: u32,
    /// The receiver's epoch to which records have been sent before, or 0.
    pub expected: u64,
    /// Bytes of the sender's ring.
    pub ring: u32,
}

/// A frame. Sequence numbers and positions count around.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Frame<'a> {
    /// Binds a channel to this link. Sender to receiver.
    Open(Open<'a>),
    /// DATA may flow, from record `next` up to `limit` bytes. Receiver to sender.
    Resume { bind: u32, next: u32, limit: u64, epoch: u64, att: u32, record_bytes_max: u32 },
    /// The receiver is not there yet; the OPEN is kept. Receiver to sender.
    Pending { bind: u32, why: Waits },
    /// A newer epoch, or the same of another instance, is known. Receiver to sender.
    Stale { bind: u32, known: u64 },
    /// The OPEN is refused, or the binding ended. Receiver to sender.
    Unreach { bind: u32, why: Unreachable, text: &'a str },
    /// Records back to back, the first of which is number `seq`. `gaps`: it may follow any smaller
    /// number (latest, drop-old). Sender to receiver.
    Data { bind: u32, seq: u32, gaps: bool, body: Body<'a> },
    /// Records `seq` to `to`, both included, have expired. Sender to receiver.
    Skip { bind: u32, seq: u32, to: u32 },
    /// What is stored and consumed, how far may be sent. Receiver to sender.
    Ack { bind: u32, stored: u32, limit: u64, consumed: u32, expired: u32 },
    /// The sender has ended; `last` is its last record. Sender to receiver.
    Fin { bind: u32, last: u32 },
    /// The sender has ended, and what it had not sent is lost. Sender to receiver.
    Abort { bind: u32 },
    /// Answers FIN and ABORT. Receiver to sender.
    Closed { bind: u32 },
    /// The receiver `epoch` is dead; `first` is its first record that was not consumed, or, if not
    /// `exact`, the first that may not have been. Receiver to sender, until GONE_OK.
    Gone { bind: u32, epoch: u64, first: u32, exact: bool },
    /// Answers GONE. Sender to receiver.
    GoneOk { bind: u32 },
    /// The receiver has consumed nothing for so long. Receiver to sender.
    Stuck { bind: u32, millis: u32 },
    /// Are you there?
    Ping { id: u64 },
    /// Yes.
    Pong { id: u64 },
    /// On the way to `dst`: every station adds a stamp.
    Probe { id: u64, src: &'a str, dst: &'a str, stamps: Stamps<'a> },
    /// The same on the way back to `src`.
    Probed { id: u64, src: &'a str, dst: &'a str, stamps: Stamps<'a> },
    /// The last frame before the link is closed.
    Bye { why: Leave, text: &'a str },
}

impl Frame<'_> {
    /// What it is.
    ///
    /// ```
    /// use ringlane::frame::{Frame, Kind};
    /// assert_eq!(Frame::Ping { id: 7 }.kind(), Kind::Ping);
    /// ```
    pub fn kind(&self) -> Kind {
        match self {
            Frame::Open(_) => Kind::Open,
            Frame::Resume { .. } => Kind::Resume,
            Frame::Pending { .. } => Kind::Pending,
            Frame::Stale { .. } => Kind::Stale,
            Frame::Unreach { .. } => Kind::Unreach,
            Frame::Data { .. } => Kind::Data,
            Frame::Skip { .. } => Kind::Skip,
            Frame::Ack { .. } => Kind::Ack,
            Frame::Fin { .. } => Kind::Fin,
            Frame::Abort { .. } => Kind::Abort,
            Frame::Closed { .. } => Kind::Closed,
            Frame::Gone { .. } => Kind::Gone,
            Frame::GoneOk { .. } => Kind::GoneOk,
            Frame::Stuck { .. } => Kind::Stuck,
            Frame::Ping { .. } => Kind::Ping,
            Frame::Pong { .. } => Kind::Pong,
            Frame::Probe { .. } => Kind::Probe,
            Frame::Probed { .. } => Kind::Probed,
            Frame::Bye { .. } => Kind::Bye,
        }
    }

    /// The binding it is about; 0 for one that is about the link.
    ///
    /// ```
    /// use ringlane::frame::Frame;
    /// assert_eq!(Frame::Abort { bind: 3 }.bind(), 3);
    /// assert_eq!(Frame::Ping { id: 7 }.bind(), 0);
    /// ```
    pub fn bind(&self) -> u32 {
        match *self {
            Frame::Open(Open { bind, .. })
            | Frame::Resume { bind, .. }
            | Frame::Pending { bind, .. }
            | Frame::Stale { bind, .. }
            | Frame::Unreach { bind, .. }
            | Frame::Data { bind, .. }
            | Frame::Skip { bind, .. }
            | Frame::Ack { bind, .. }
            | Frame::Fin { bind, .. }
            | Frame::Abort { bind }
            | Frame::Closed { bind }
            | Frame::Gone { bind, .. }
            | Frame::GoneOk { bind }
            | Frame::Stuck { bind, .. } => bind,
            _ => 0,
        }
    }
}
