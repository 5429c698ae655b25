//! One direction: a single-producer single-consumer ring of bytes.
//!
//! ```text
//!        head (consumer)        word (producer)     next (producer, private)
//!   ......|######################|..................|......
//!         '- published, unread --'- written, unseen-'
//! ```
//!
//! Positions count modulo 2^31. The publish word is one u64: sequence number, frozen bit, position
//! (`seq << 32 | frozen << 31 | pos`), because a sequence word of its own would lose or repeat a
//! record at a crash between two stores. Each side keeps its own position privately and never
//! reads it back; of the other side only the one counter is read, once, and checked: the distance
//! between the two is at most the ring's size, or the peer has scribbled ([`Scribbled`]) and the
//! link ends. So a hostile peer can make bytes arbitrary, and nothing else.

use crate::crash::{self, Point};
use crate::layout::Lane;
use crate::map::Map;
use crate::sync::{Ordering, Shared};

/// Set in the publish word when the ring was taken over: nothing is published any more.
pub const FROZEN: u64 = 1 << 31;

const POSITION: u32 = (1 << 31) - 1;

/// The peer's counter was impossible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scribbled;

/// The ring was frozen for a hand-over; what the word says now is what was published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frozen(pub Published);

/// The publish word, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Published {
    /// Sequence number of the last record, or count of publications in a stream of bytes.
    pub seq: u32,
    /// The ring was taken over.
    pub frozen: bool,
    /// Position, modulo 2^31.
    pub pos: u32,
}

impl Published {
    /// Takes a word apart.
    pub fn of(word: u64) -> Published {
        Published {
            seq: (word >> 32) as u32,
            frozen: word & FROZEN != 0,
            pos: word as u32 & POSITION,
        }
    }

    /// Puts it together.
    pub fn word(self) -> u64 {
        let frozen = if self.frozen { FROZEN } else { 0 };
        u64::from(self.seq) << 32 | frozen | u64::from(self.pos & POSITION)
    }
}

/// How a producer's side stands; beside the publish word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// More may come.
    Open,
    /// Nothing comes behind what is published.
    Fin,
}

const FIN: u32 = 1;

fn distance(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from) & POSITION
}

fn forward(pos: u32, by: u32) -> u32 {
    pos.wrapping_add(by) & POSITION
}

/// Where `n` bytes at a position lie: up to the ring's end, then from its beginning.
fn pieces(lane: &Lane, pos: u32, n: usize) -> (usize, usize) {
    let at = (pos & (lane.cap - 1)) as usize;
    (lane.ring + at, n.min(lane.cap as usize - at))
}

/// The writing end.
#[derive(Debug)]
pub struct Producer {
    map: Shared<Map>,
    lane: Lane,
    /// The word as this side published it last.
    word: Published,
    /// Where the next byte goes.
    next: u32,
    /// The consumer's position, as last seen.
    head: u32,
}

impl Producer {
    /// The writing end of a fresh ring.
    pub fn new(map: Shared<Map>, lane: Lane) -> Producer {
        Producer { map, lane, word: Published::default(), next: 0, head: 0 }
    }

    /// Goes on where somebody else's producer stopped, whose word was `word`: a ring that was
    /// handed over.
    pub fn resume(map: Shared<Map>, lane: Lane, word: Published) -> Result<Producer, Scribbled> {
        // SYNC: ring.head. With the store in `Consumer::release`.
        let head = Published::of(map.u64_at(lane.head).load(Ordering::Acquire)).pos;
        let next = word.pos & POSITION;
        match distance(head, next) <= lane.cap {
            true => Ok(Producer { map, lane, word, next, head }),
            false => Err(Scribbled),
        }
    }

    /// Bytes that fit now. Looks at the consumer's counter only when the last look does not do for
    /// `wanted`.
    pub fn room(&mut self, wanted: u32) -> Result<u32, Scribbled> {
        let room = self.lane.cap - distance(self.head, self.next);
        if room >= wanted.min(self.lane.cap) {
            return Ok(room);
        }
        // SYNC: ring.head. With the store in `Consumer::release`.
        let head = Published::of(self.map.u64_at(self.lane.head).load(Ordering::Acquire)).pos;
        let held = distance(head, self.next);
        if held > self.lane.cap || distance(self.head, head) > distance(self.head, self.next) {
            return Err(Scribbled);
        }
        self.head = head;
        Ok(self.lane.cap - held)
    }

    /// Copies as many bytes as fit behind what was written; returns how many. Nobody sees them
    /// before [`Producer::publish`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Scribbled> {
        let wanted = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let n = bytes.len().min(self.room(wanted)? as usize);
        self.write_at(0, &bytes[..n]);
        crash::here(Point::Written);
        self.next = forward(self.next, n as u32);
        Ok(n)
    }

    /// Copies bytes to `skip` behind what was written, inside room that was asked for.
    pub(crate) fn write_at(&mut self, skip: u32, bytes: &[u8]) {
        let pos = forward(self.next, skip);
        debug_assert!(
            distance(self.head, pos) as usize + bytes.len() <= self.lane.cap as usize,
            "writing stays inside the room"
        );
        let (at, first) = pieces(&self.lane, pos, bytes.len());
        self.map.write(at, &bytes[..first]);
        self.map.write(self.lane.ring, &bytes[first..]);
    }

    /// Counts bytes as written that [`Producer::write_at`] has placed, with their records.
    pub(crate) fn advance(&mut self, bytes: u32, records: u32) {
        self.next = forward(self.next, bytes);
        self.word.seq = self.word.seq.wrapping_add(records);
    }

    /// Bytes from the position of the next one to the end of the ring.
    pub(crate) fn to_end(&self) -> u32 {
        self.lane.cap - (self.next & (self.lane.cap - 1))
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> u32 {
        self.lane.cap
    }

    /// Whether something was written and not published.
    pub fn is_dirty(&self) -> bool {
        self.next != self.word.pos
    }

    /// What this side has published last, with records that are written counted in.
    pub fn published(&self) -> Published {
        self.word
    }

    /// Lets the consumer see everything that was written: one store. Returns whether there was
    /// anything.
    pub fn publish(&mut self) -> bool {
        if !self.is_dirty() {
            return false;
        }
        self.word.pos = self.next;
        // SYNC: ring.word. With the load in `Consumer::available`.
        self.map.u64_at(self.lane.word).store(self.word.word(), Ordering::Release);
        crash::here(Point::Published);
        true
    }

    /// The same where the consumer may take the ring away at any moment: what a frozen word says
    /// is what was published, and it never changes again.
    pub fn publish_unless_frozen(&mut self, before: Published) -> Result<(), Frozen> {
        let after = Published { pos: self.next, ..self.word };
        // SYNC: ring.word, and with the `fetch_or` in `Consumer::freeze`.
        let swapped = self.map.u64_at(self.lane.word).compare_exchange(
            before.word(),
            after.word(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        match swapped {
            Ok(_) => {
                crash::here(Point::Published);
                self.word = after;
                Ok(())
            }
            Err(found) => Err(Frozen(Published::of(found))),
        }
    }

    /// Says that nothing comes behind what is published.
    pub fn finish(&mut self) {
        debug_assert!(!self.is_dirty(), "everything is published first");
        // SYNC: ring.state. With the load in `Consumer::state`.
        self.map.u32_at(self.lane.state).store(FIN, Ordering::Release);
        crash::here(Point::Finished);
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Consumer {
    map: Shared<Map>,
    lane: Lane,
    /// Where the next byte is read.
    next: u32,
    /// What was given back to the producer.
    released: u32,
    /// The word as last seen.
    seen: Published,
    /// Records read.
    seq: u32,
}

impl Consumer {
    /// The reading end of a fresh ring.
    pub fn new(map: Shared<Map>, lane: Lane) -> Consumer {
        Consumer { map, lane, next: 0, released: 0, seen: Published::default(), seq: 0 }
    }

    /// Bytes to read. Looks at the producer's word only when nothing is left of the last look, or
    /// when it is not `wanted` yet.
    pub fn available(&mut self, wanted: u32) -> Result<u32, Scribbled> {
        let left = distance(self.next, self.seen.pos);
        if left >= wanted.max(1) {
            return Ok(left);
        }
        // SYNC: ring.word. With the stores in `Producer::publish` and `publish_unless_frozen`.
        let seen = Published::of(self.map.u64_at(self.lane.word).load(Ordering::Acquire));
        let available = distance(self.next, seen.pos);
        let held = distance(self.released, self.next);
        if available < left || available > self.lane.cap - held.min(self.lane.cap) {
            return Err(Scribbled);
        }
        self.seen = seen;
        if available > left {
            crash::here(Point::WordLoaded);
        }
        Ok(available)
    }

    /// Copies bytes out, at most those that are [available](Consumer::available) and `into` holds;
    /// returns how many.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let n = into.len().min(distance(self.next, self.seen.pos) as usize);
        self.peek(0, &mut into[..n]);
        crash::here(Point::Copied);
        self.next = forward(self.next, n as u32);
        n
    }

    /// Copies bytes out that lie `skip` behind the next one.
    pub(crate) fn peek(&self, skip: u32, into: &mut [u8]) {
        let (at, first) = pieces(&self.lane, forward(self.next, skip), into.len());
        let (one, two) = into.split_at_mut(first);
        self.map.read(at, one);
        self.map.read(self.lane.ring, two);
    }

    /// Leaves bytes and records behind.
    pub(crate) fn skip(&mut self, bytes: u32, records: u32) {
        self.next = forward(self.next, bytes);
        self.seq = self.seq.wrapping_add(records);
    }

    /// Where the next byte lies in the map, and how many follow it to the end of the ring.
    pub(crate) fn place(&self) -> (Shared<Map>, usize, u32) {
        let (at, to_end) = pieces(&self.lane, self.next, self.lane.cap as usize);
        (Shared::clone(&self.map), at, to_end as u32)
    }

    /// The position of the next byte.
    pub(crate) fn position(&self) -> u32 {
        self.next
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> u32 {
        self.lane.cap
    }

    /// Gives everything that was read back to the producer. Returns whether there was anything.
    pub fn release(&mut self) -> bool {
        self.release_to(self.next)
    }

    /// The same up to a position, where something behind it is still held.
    pub(crate) fn release_to(&mut self, pos: u32) -> bool {
        debug_assert!(
            distance(self.released, pos) <= distance(self.released, self.next),
            "only what was read is given back"
        );
        if self.released == pos {
            return false;
        }
        self.released = pos;
        let head = Published { seq: self.seq, frozen: false, pos };
        // SYNC: ring.head. With the load in `Producer::room`.
        self.map.u64_at(self.lane.head).store(head.word(), Ordering::Release);
        crash::here(Point::Released);
        true
    }

    /// Whether the producer has said that nothing more comes. Look at the bytes after this, not
    /// before: what was published before the end is seen behind it.
    pub fn state(&self) -> State {
        // SYNC: ring.state. With the store in `Producer::finish`.
        match self.map.u32_at(self.lane.state).load(Ordering::Acquire) {
            FIN => State::Fin,
            _ => State::Open,
        }
    }

    /// Takes the ring away from its producer: what the word says now was published, and nothing
    /// is from now on.
    pub fn freeze(&mut self) -> Published {
        // SYNC: ring.word. With the exchange in `Producer::publish_unless_frozen`.
        Published::of(self.map.u64_at(self.lane.word).fetch_or(FROZEN, Ordering::AcqRel))
    }

    /// Sequence number of the last record that was read.
    pub fn seq(&self) -> u32 {
        self.seq
    }

    /// Sequence number of the last record that was seen published.
    pub fn published_seq(&self) -> u32 {
        self.seen.seq
    }
}
