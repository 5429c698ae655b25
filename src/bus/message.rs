//! Messages as callbacks and mailboxes see them.

use std::borrow::Cow;
use std::fmt;

use super::core::{Seen, kind};
use super::error::BusError;
use super::handle::Bus;

/// A message that came, in the hands of a callback: it counts as consumed when that returns.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    seen: Seen<'a>,
    bus: &'a Bus,
}

impl<'a> Message<'a> {
    pub(super) fn new(seen: Seen<'a>, bus: &'a Bus) -> Message<'a> {
        Message { seen, bus }
    }

    /// The sender's name.
    pub fn from(&self) -> &'a str {
        self.seen.from
    }

    /// The channel.
    pub fn chan(&self) -> u16 {
        self.seen.chan
    }

    /// Its number in the sender's stream; of a message in pieces that of the last one.
    pub fn seq(&self) -> u32 {
        self.seen.seq
    }

    /// The sender's epoch: which instance of it.
    pub fn epoch(&self) -> u64 {
        self.seen.epoch
    }

    /// Its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.seen.body
    }

    /// Its bytes as text.
    pub fn text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.seen.body)
    }

    /// Whether its sender waits for an answer.
    pub fn wants_reply(&self) -> bool {
        self.seen.kind == kind::REQUEST
    }

    /// Answers a request.
    ///
    /// # Errors
    /// As [`Bus::send`]; for an answer later on, keep [`Message::reply_to`].
    pub fn reply(&self, bytes: &[u8]) -> Result<(), BusError> {
        self.bus.reply(&self.reply_to(), bytes)
    }

    /// To whom an answer goes, to be given later by [`Bus::reply`].
    pub fn reply_to(&self) -> ReplyTo {
        let Seen { from, chan, number, .. } = self.seen;
        ReplyTo { to: from.to_string(), chan, number, wanted: self.wants_reply() }
    }

    /// A copy that may be kept and sent to other threads.
    pub fn to_owned(&self) -> OwnedMessage {
        OwnedMessage::of(self.seen)
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { from, chan, seq, body, .. } = self.seen;
        write!(f, "Message({} bytes from {from}, channel {chan}, number {seq})", body.len())
    }
}

/// To whom the answer to a request goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplyTo {
    pub(super) to: String,
    pub(super) chan: u16,
    pub(super) number: u64,
    pub(super) wanted: bool,
}

impl ReplyTo {
    /// The name of who asked.
    pub fn node(&self) -> &str {
        &self.to
    }
}

/// A message of one's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnedMessage {
    reply_to: ReplyTo,
    seq: u32,
    epoch: u64,
    bytes: Vec<u8>,
}

impl OwnedMessage {
    pub(super) fn of(seen: Seen<'_>) -> OwnedMessage {
        let Seen { from, chan, epoch, seq, kind: of, number, body } = seen;
        let wanted = of == kind::REQUEST;
        let reply_to = ReplyTo { to: from.to_string(), chan, number, wanted };
        OwnedMessage { reply_to, seq, epoch, bytes: body.to_vec() }
    }

    /// The sender's name.
    pub fn from(&self) -> &str {
        &self.reply_to.to
    }

    /// The channel.
    pub fn chan(&self) -> u16 {
        self.reply_to.chan
    }

    /// Its number in the sender's stream.
    pub fn seq(&self) -> u32 {
        self.seq
    }

    /// The sender's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its bytes, taken out.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Its bytes as text.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// Whether its sender waits for an answer.
    pub fn wants_reply(&self) -> bool {
        self.reply_to.wanted
    }

    /// To whom an answer goes.
    pub fn reply_to(&self) -> &ReplyTo {
        &self.reply_to
    }
}
