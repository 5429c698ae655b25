//! A channel that is sent on: its ring, what waits beside it, and what its class does when there
//! is no room.
//!
//! ```text
//!   offer --> queue --> ring ===> relay (Way::Ring) or neighbour (Way::Direct)
//!             before there is a way; pieces of large messages;
//!             the newest one of `latest`; what `drop-old` may drop
//! ```

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::neighbour::Neighbour;
use super::{Limits, Millis, kind};
use crate::bus::error::BusError;
use crate::bus::event::{OutCounts, OutStatus};
use crate::bus::local::{Class, Nonce, Terms};
use crate::shm::through::{Outlet, Scribbled};
use crate::shm::{MORE, Refused};

/// Bytes of a piece of a large message, header and all.
const PIECE_BYTES: u32 = (64 << 10) - 8;

/// The class before the relay has said which.
const UNTOLD: Class = Class::Reliable;

/// How messages of a channel reach their receiver.
#[derive(Debug)]
pub(super) enum Way {
    /// The relay is asked, or will be.
    Asked,
    /// The relay introduces a neighbour, and has said which token once it is there.
    Meeting(Option<Nonce>),
    /// Through the relay.
    Ring { outlet: Box<Outlet>, fd: OwnedFd },
    /// To a neighbour, with the number of messages sent.
    Direct { neighbour: Rc<dyn Neighbour>, sent: u32 },
    /// There is none. Asked again after a while.
    None { why: String, until: Millis },
}

/// A message that waits beside the ring.
#[derive(Debug)]
pub(super) struct Waiting {
    pub kind: u16,
    pub payload: Vec<u8>,
    /// So much of it is in the ring.
    pub at: usize,
}

/// What precedes the user's bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    bytes: [u8; 16],
    len: usize,
}

impl Head {
    /// A deadline, and the number of a request.
    pub fn new(deadline: Option<u64>, number: Option<u64>) -> Head {
        let mut head = Head::default();
        for word in [deadline, number].into_iter().flatten() {
            head.bytes[head.len..head.len + 8].copy_from_slice(&word.to_le_bytes());
            head.len += 8;
        }
        head
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A message on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'a> {
    pub kind: u16,
    pub head: Head,
    pub body: &'a [u8],
    /// It may go in pieces.
    pub large: bool,
}

impl Offer<'_> {
    pub fn len(&self) -> usize {
        self.head.len + self.body.len()
    }
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Out {
    pub id: u32,
    /// As the user has named it.
    pub to: String,
    pub node: Rc<str>,
    pub chan: u16,
    pub terms: Option<Terms>,
    pub way: Way,
    pub queue: VecDeque<Waiting>,
    pub queued: usize,
    pub counts: OutCounts,
    /// The receiver's, once it is known.
    pub epoch: u64,
    /// What is waited for.
    pub why: Option<String>,
    /// The receiver is there.
    pub here: bool,
    /// The user waits for room for so many bytes.
    pub wanted: Option<u32>,
    pub closing: bool,
    /// The relay has been told so.
    pub close_said: bool,
    /// It is on the list of those to be published.
    pub listed: bool,
    /// Numbers of messages that any member of a group may have, with the group's place.
    pub posted: VecDeque<(u32, usize)>,
    /// What was acknowledged at the last look.
    pub seen_acked: u32,
}

impl Out {
    pub fn new(id: u32, to: &str, node: Rc<str>, chan: u16) -> Out {
        Out {
            id,
            to: to.to_string(),
            node,
            chan,
            terms: None,
            way: Way::Asked,
            queue: VecDeque::new(),
            queued: 0,
            counts: OutCounts::default(),
            epoch: 0,
            why: None,
            here: false,
            wanted: None,
            closing: false,
            close_said: false,
            listed: false,
            posted: VecDeque::new(),
            seen_acked: 0,
        }
    }

    pub fn class(&self) -> Class {
        self.terms.map_or(UNTOLD, |terms| terms.class)
    }

    pub fn is_direct(&self) -> bool {
        matches!(self.way, Way::Direct { .. })
    }

    /// Whether records are written to a ring.
    pub fn is_open(&self) -> bool {
        matches!(self.way, Way::Ring { .. } | Way::Direct { .. })
    }

    /// Bytes of payload that go as one record.
    pub fn record_bytes_max(&self) -> usize {
        let ring = self.terms.map_or(u32::MAX, |terms| terms.ring / 4 - 8);
        let most = match &self.way {
            Way::Ring { outlet, .. } => outlet.record_bytes_max(),
            Way::Direct { neighbour, .. } => neighbour.record_bytes_max(),
            _ => ring,
        };
        most as usize
    }

    /// Whether something of it still has to be looked after.
    pub fn is_busy(&self) -> bool {
        self.closing || self.wanted.is_some() || !self.queue.is_empty()
    }

    /// Forgets what another member need not get any more.
    pub fn trim_posted(&mut self) {
        let Ok(acked) = self.acked() else { return };
        while self.posted.front().is_some_and(|at| acked.wrapping_sub(at.0) < 1 << 31) {
            self.posted.pop_front();
        }
    }

    pub fn is_queue_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The relay that has the ring is not to take this process for dead.
    pub fn let_go(&self) {
        if let Way::Ring { outlet, .. } = &self.way {
            outlet.let_go();
        }
    }

    /// Number of the last message that was written to the ring.
    pub fn written(&self) -> u32 {
        match &self.way {
            Way::Ring { outlet, .. } => outlet.written(),
            Way::Direct { sent, .. } => *sent,
            _ => 0,
        }
    }

    /// Number of the last message that is acknowledged.
    pub fn acked(&mut self) -> Result<u32, Scribbled> {
        match &mut self.way {
            Way::Ring { outlet, .. } => Ok(outlet.acked()?.seq),
            Way::Direct { neighbour, .. } => Ok(neighbour.consumed().saturating_sub(1)),
            _ => Ok(0),
        }
    }

    /// Records and waiting messages that are not acknowledged, as last seen.
    pub fn unacknowledged(&self) -> u32 {
        let in_ring = match &self.way {
            Way::Ring { outlet, .. } => outlet.written().wrapping_sub(outlet.from().seq),
            Way::Direct { neighbour, sent } => {
                sent.saturating_sub(neighbour.consumed().saturating_sub(1))
            }
            _ => 0,
        };
        in_ring + self.queue.len() as u32
    }

    /// Writes a record. The user's channel stands in its header.
    fn push(&mut self, kind: u16, parts: [&[u8]; 2]) -> Result<(), Refused> {
        let chan = self.chan;
        match &mut self.way {
            Way::Ring { outlet, .. } if parts[0].is_empty() => outlet.push(kind, chan, parts[1]),
            Way::Ring { outlet, .. } => {
                let len = u32::try_from(parts[0].len() + parts[1].len());
                let mut place = outlet.reserve(len.map_err(|_| Refused::TooLong)?)?;
                place.write(0, parts[0]);
                place.write(parts[0].len(), parts[1]);
                place.commit(kind, chan);
                Ok(())
            }
            Way::Direct { neighbour, sent } => {
                neighbour.push(kind, chan, parts)?;
                *sent = sent.wrapping_add(1);
                Ok(())
            }
            _ => Err(Refused::Full),
        }
    }

    /// `latest` holds the next one back until the last one was stored.
    fn holds_back(&mut self) -> bool {
        self.class() == Class::Latest && self.acked().is_ok_and(|acked| acked != self.written())
    }

    /// Whether a message of so many bytes goes straight into the ring, if there is room.
    pub fn takes_now(&mut self, len: usize) -> bool {
        let open = self.queue.is_empty() && self.is_open() && len <= self.record_bytes_max();
        open && !self.closing && !self.holds_back()
    }

    /// Takes a message, or says that there is no room. What its class drops is taken.
    pub fn offer(&mut self, offer: Offer<'_>, limits: &Limits) -> Result<(), BusError> {
        let (len, most) = (offer.len(), self.record_bytes_max());
        if offer.large && len > limits.message_bytes {
            return Err(BusError::TooLarge { bytes: len, most: limits.message_bytes });
        }
        if !offer.large && len > most {
            return Err(BusError::TooLong { bytes: len, most });
        }
        if self.takes_now(len) {
            match self.push(offer.kind, [offer.head.as_bytes(), offer.body]) {
                Ok(()) => {
                    self.counts.accepted += 1;
                    return Ok(());
                }
                Err(Refused::TooLong) => return Err(BusError::TooLong { bytes: len, most }),
                Err(Refused::Full | Refused::Scribbled | Refused::Closed) => {}
            }
        }
        self.no_room(offer, limits)
    }

    /// What the class does with a message that the ring does not take.
    fn no_room(&mut self, offer: Offer<'_>, limits: &Limits) -> Result<(), BusError> {
        let first = self.queue.is_empty() && (offer.large || !self.is_open());
        let fits = !self.is_open() && self.queued + offer.len() <= limits.queue_bytes;
        match self.class() {
            Class::Reliable if !(first || fits) => {
                self.wanted = Some(u32::try_from(offer.len()).unwrap_or(u32::MAX));
                self.counts.refused += 1;
                return Err(BusError::WouldBlock);
            }
            Class::DropNew if !(first || fits) => {
                self.counts.dropped_new += 1;
                return Ok(());
            }
            Class::Latest => self.counts.conflated += self.drop_waiting(0),
            _ => {}
        }
        let mut payload = Vec::with_capacity(offer.len());
        payload.extend_from_slice(offer.head.as_bytes());
        payload.extend_from_slice(offer.body);
        self.enqueue(Waiting { kind: offer.kind, payload, at: 0 });
        self.counts.accepted += 1;
        if self.class() == Class::DropOld {
            self.counts.dropped_old += self.drop_waiting(limits.queue_bytes);
        }
        Ok(())
    }

    pub fn enqueue(&mut self, waiting: Waiting) {
        self.queued += waiting.payload.len();
        self.queue.push_back(waiting);
    }

    /// Drops the oldest messages that have not begun to leave, until no more than so many bytes
    /// wait; returns how many.
    fn drop_waiting(&mut self, most: usize) -> u64 {
        let mut dropped = 0;
        let begun = usize::from(self.queue.front().is_some_and(|first| first.at > 0));
        let last = usize::from(most > 0);
        while self.queued > most && self.queue.len() > begun + last {
            let gone = self.queue.remove(begun);
            self.queued -= gone.map_or(0, |gone| gone.payload.len());
            dropped += 1;
        }
        // An empty one counts no bytes.
        while most == 0 && self.queue.len() > begun {
            self.queue.remove(begun);
            dropped += 1;
        }
        dropped
    }

    /// Moves what waits into the ring, as far as there is room. Returns whether anything moved.
    pub fn flush(&mut self) -> bool {
        let mut moved = false;
        while self.is_open()
            && let Some(first) = self.queue.front()
            && !(first.at == 0 && self.holds_back())
        {
            let Some(mut first) = self.queue.pop_front() else { break };
            let whole = self.flush_one(&mut first, &mut moved);
            if !whole {
                self.queue.push_front(first);
                break;
            }
            self.queued -= first.payload.len();
        }
        moved
    }

    /// The same for one message; whether all of it has moved.
    fn flush_one(&mut self, first: &mut Waiting, moved: &mut bool) -> bool {
        let most = self.record_bytes_max();
        if first.at == 0 && first.payload.len() <= most {
            let pushed = self.push(first.kind, [&[], &first.payload]).is_ok();
            *moved |= pushed;
            return pushed;
        }
        let piece = most.min(PIECE_BYTES as usize);
        while first.at < first.payload.len() {
            let end = first.payload.len().min(first.at + piece);
            let more = if end < first.payload.len() { MORE } else { 0 };
            // Only the first one begins with a deadline.
            let of = if first.at == 0 { first.kind } else { first.kind & !kind::DEADLINE };
            if self.push(of | more, [&[], &first.payload[first.at..end]]).is_err() {
                return false;
            }
            first.at = end;
            *moved = true;
        }
        true
    }

    /// Breaks off the message in pieces that is under way. Whether there was one.
    pub fn abort_large(&mut self) -> bool {
        let most = self.record_bytes_max();
        match self.queue.front() {
            Some(first) if first.at > 0 || first.payload.len() > most => {}
            _ => return false,
        }
        let Some(first) = self.queue.pop_front() else { return false };
        self.queued -= first.payload.len();
        if first.at > 0 {
            self.queue.push_front(Waiting { kind: kind::ABORT, payload: Vec::new(), at: 0 });
        }
        true
    }

    /// Whether a message of so many bytes would be taken now.
    pub fn has_room(&mut self, bytes: u32, limits: &Limits) -> bool {
        if self.close_said {
            return false;
        }
        if !self.is_open() {
            return self.queue.is_empty() || self.queued + bytes as usize <= limits.queue_bytes;
        }
        let bytes = bytes.min(self.record_bytes_max() as u32);
        self.queue.is_empty()
            && match &mut self.way {
                Way::Ring { outlet, .. } => outlet.reserve(bytes).is_ok(),
                Way::Direct { neighbour, .. } => neighbour.has_room(bytes),
                _ => false,
            }
    }

    /// Lets the relay see what was written. Whether there was anything.
    pub fn publish(&mut self) -> bool {
        match &mut self.way {
            Way::Ring { outlet, .. } => outlet.publish(),
            _ => false,
        }
    }

    pub fn status(&self) -> OutStatus {
        let way = match &self.way {
            Way::Asked => "asked",
            Way::Meeting(_) => "waiting",
            Way::Ring { .. } => "relay",
            Way::Direct { .. } => "direct",
            Way::None { .. } => "none",
        };
        OutStatus {
            node: Rc::clone(&self.node),
            chan: self.chan,
            way,
            why: self.why.clone(),
            unacknowledged: self.unacknowledged(),
            queued_bytes: self.queued,
            epoch: self.epoch,
            counts: self.counts,
        }
    }
}
