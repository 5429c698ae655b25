//! Neighbours: processes of the same host, which talk without the relay once it has introduced
//! them.
//!
//! ```text
//!   sender                      relay                      receiver
//!     Open ---------------------> | --------- Expect (token) -> |
//!     | <- Path, direct --------- | <------- Listening -------- |
//!     | <- Connect (token) ------ |                             |
//!     | ====== link; the first record says the token =========> |
//! ```

use std::fmt;
use std::rc::Rc;

use super::ins::{Source, Stream};
use super::out::Way;
use super::{Core, Do, Event, Millis};
use crate::bus::event::PeerEvent;
use crate::bus::local::{Nonce, Terms, ToRelay};
use crate::shm::through::{Flow, Scribbled};
use crate::shm::{RecordHeader, Refused};

/// The kind of a link's first record, which says the token.
pub const TOKEN_KIND: u16 = super::kind::MESSAGE;

/// Its channel, which no messages have.
pub const TOKEN_CHAN: u16 = 0xffff;

/// How long somebody who was announced may take to come.
const EXPECTED: Millis = 10_000;

/// Writes bytes at a position.
pub type Put<'a> = dyn FnMut(usize, &[u8]) + 'a;

/// An open link to a neighbour, one direction of which is used.
pub trait Neighbour: fmt::Debug {
    /// Writes a record of two parts.
    fn push(&self, kind: u16, chan: u16, parts: [&[u8]; 2]) -> Result<(), Refused>;

    /// Writes a record of so many bytes in place: `fill` gets what writes bytes at a position.
    fn push_in_place(
        &self,
        of: (u16, u16),
        bytes: u32,
        fill: &mut dyn FnMut(&mut Put<'_>),
    ) -> Result<(), Refused>;

    /// Whether a record of so many bytes finds room; if not, [`Core::room`] comes when one may.
    fn has_room(&self, bytes: u32) -> bool;

    /// Bytes that a record may have.
    fn record_bytes_max(&self) -> u32;

    /// How many records the peer is through with.
    fn consumed(&self) -> u32;

    /// The records that the peer is not through with, as private copies with their numbers.
    fn unread(&self) -> Vec<(u32, RecordHeader, Vec<u8>)>;

    /// Shows records, at most so many, and gives each back when `each` has returned; how many it
    /// was.
    fn walk(
        &self,
        private: &mut Vec<u8>,
        most: u32,
        each: &mut dyn FnMut(u32, RecordHeader, &[u8]) -> Flow,
    ) -> Result<u32, Scribbled>;
}

/// The token that a link's first record says, if it is one.
pub fn token_of(header: RecordHeader, payload: &[u8]) -> Option<Nonce> {
    let is_token = header.kind == TOKEN_KIND && header.channel == TOKEN_CHAN;
    payload.try_into().ok().filter(|_| is_token).map(Nonce)
}

/// Somebody whom the relay has announced.
#[derive(Debug)]
pub(super) struct Expected {
    from: Rc<str>,
    chan: u16,
    epoch: u64,
    terms: Terms,
    pub until: Millis,
}

impl Expected {
    pub fn new(from: &str, chan: u16, epoch: u64, terms: Terms, now: Millis) -> Expected {
        Expected { from: from.into(), chan, epoch, terms, until: now + EXPECTED }
    }
}

impl Core {
    pub(super) fn expect(&mut self, token: Nonce, expected: Expected, uid: u32) {
        let ring = expected.terms.ring;
        self.expected.insert(token, expected);
        self.todo.push_back(Do::Listen { token, uid, ring });
    }

    /// After [`Do::Listen`]: where a neighbour may connect.
    pub fn listening(&mut self, token: Nonce, address: String) {
        self.say_line(ToRelay::Listening { token, address });
    }

    pub(super) fn connect_to(&mut self, id: u32, address: String, token: Nonce, epoch: u64) {
        let Some(out) = self.out_ids.get(&id).and_then(|key| self.outs.get_mut(*key)) else {
            return;
        };
        if !matches!(out.way, Way::Asked | Way::Meeting(_)) {
            return;
        }
        out.way = Way::Meeting(Some(token));
        out.epoch = epoch;
        self.todo.push_back(Do::Meet { id, address });
    }

    /// After [`Do::Meet`]: the link stands. Whether it is still wanted; if not, close it.
    pub fn met(&mut self, id: u32, neighbour: Rc<dyn Neighbour>) -> bool {
        let Some(key) = self.out_ids.get(&id).copied() else { return false };
        let Some(out) = self.outs.get_mut(key) else { return false };
        let Way::Meeting(Some(token)) = out.way else { return false };
        if neighbour.push(TOKEN_KIND, TOKEN_CHAN, [&token.0, &[]]).is_err() {
            return false;
        }
        out.way = Way::Direct { neighbour, sent: 0 };
        out.why = None;
        out.here = true;
        let (node, chan, epoch) = (Rc::clone(&out.node), out.chan, out.epoch);
        self.events.push_back(Event::Peer(PeerEvent::Here { node, chan, epoch }));
        self.work_on(key);
        true
    }

    /// A link that was met, or was to be, has ended.
    pub fn parted(&mut self, id: u32) {
        let Some(key) = self.out_ids.get(&id).copied() else { return };
        let Some(out) = self.outs.get_mut(key) else { return };
        match &out.way {
            Way::Direct { neighbour, .. } => {
                // The first record is the token.
                let (epoch, first) = (out.epoch, neighbour.consumed().max(1));
                self.gone(id, epoch, first, true);
            }
            Way::Meeting(_) => {
                out.way = Way::Asked;
                self.retry_soon();
            }
            _ => {}
        }
    }

    /// A link that was met has room again.
    pub fn room(&mut self, id: u32) {
        if let Some(key) = self.out_ids.get(&id).copied() {
            self.work_on(key);
        }
    }

    /// Somebody has connected and said a token. The number of the stream if it was expected; if
    /// not, close the link.
    pub fn came(&mut self, token: Nonce, neighbour: Rc<dyn Neighbour>) -> Option<u32> {
        let Expected { from, chan, epoch, terms, .. } = self.expected.remove(&token)?;
        let link = self.next_id;
        let source = Source::Direct { neighbour, link, over: None };
        let stream = self.stream_of(&from, (epoch, token), terms.ring, source);
        if !self.begin(&from, chan, stream) {
            return None;
        }
        self.next_id += 1;
        Some(link)
    }

    fn direct_stream(&mut self, link: u32) -> Option<&mut Stream> {
        let streams = self.ins.iter_mut().flat_map(|(_, into)| into.streams.iter_mut());
        streams.map(|stream| &mut **stream).find(|stream| stream.is_link(link))
    }

    /// There is something to read from a neighbour that came.
    pub fn readable(&mut self, link: u32) {
        if let Some(stream) = self.direct_stream(link) {
            stream.left = true;
        }
    }

    /// A neighbour that came has gone; what it wrote before can still be read.
    pub fn ended(&mut self, link: u32, clean: bool) {
        if let Some(stream) = self.direct_stream(link) {
            stream.left = true;
            if let Source::Direct { over, .. } = &mut stream.source {
                *over = Some(clean);
            }
        }
    }
}
