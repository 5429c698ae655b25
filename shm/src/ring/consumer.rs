//! The reading end of a ring.

use super::{FIN, FROZEN, Published, Scribbled, State, distance, forward, pieces};
use crate::crash::{self, Point};
use crate::layout::Lane;
use crate::map::{Map, processor};
use crate::sync::{Ordering, Shared};
use crate::through::mutant::{self, Mutant};

/// How much of the ring is read in place before it is given back: less often than that, the writer
/// waits; more often, it and the reader take each other's lines.
const RELEASE_PART: u32 = 8;

/// After so many bytes a consumer says again on which processor it runs.
const SEEN_BYTES: u32 = 4 << 10;

/// The reading end.
#[derive(Debug)]
pub struct Consumer {
    map: Shared<Map>,
    /// Where this side's counters lie.
    own: Shared<Map>,
    lane: Lane,
    /// Where the next byte is read.
    next: u32,
    /// What was given back to the producer.
    released: u32,
    /// What may be given back, and will be when it is worth a store that the producer sees.
    given: u32,
    /// Bytes given back since it was last said on which processor this side runs.
    unseen: u32,
    /// The word as last seen.
    seen: Published,
    /// Records read.
    seq: u32,
}

impl Consumer {
    /// The reading end of a fresh ring.
    pub fn new(map: Shared<Map>, lane: Lane) -> Consumer {
        let own = Shared::clone(&map);
        Consumer::from(map, own, lane, Published::default())
    }

    /// The reading end of a ring that was read up to `at`, with counters in a map of its own.
    pub(crate) fn from(map: Shared<Map>, own: Shared<Map>, lane: Lane, at: Published) -> Consumer {
        let (pos, seq) = (at.pos, at.seq);
        let seen = Published { frozen: false, ..at };
        Consumer {
            map,
            own,
            lane,
            next: pos,
            released: pos,
            given: pos,
            unseen: SEEN_BYTES,
            seen,
            seq,
        }
    }

    /// Bytes to read. Looks at the producer's word only when nothing is left of the last look, or
    /// when it is not `wanted` yet.
    #[inline]
    pub fn available(&mut self, wanted: u32) -> Result<u32, Scribbled> {
        let left = distance(self.next, self.seen.pos);
        if left >= wanted.max(1) { Ok(left) } else { self.available_now(left) }
    }

    fn available_now(&mut self, left: u32) -> Result<u32, Scribbled> {
        // SYNC: ring.word. With the stores in `Producer::publish` and `publish_unless_frozen`.
        let seen = Published::of(self.map.load_u64(self.lane.word));
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
        if !two.is_empty() {
            self.map.read(self.lane.ring, two);
        }
    }

    /// The eight bytes at the next position.
    #[inline]
    pub(crate) fn next_word(&self) -> u64 {
        let (at, to_end) = pieces(&self.lane, self.next, 8);
        if at.is_multiple_of(8) && to_end == 8 {
            let word = u64::from_le(self.map.load_u64(at));
            crash::here(Point::Copied);
            return word;
        }
        // Records lie at multiples of eight; somebody reads bytes of this ring, too.
        let mut bytes = [0; 8];
        self.peek(0, &mut bytes);
        u64::from_le_bytes(bytes)
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

    /// Appends a copy of `len` bytes from the next one on, which lie before the end of the ring.
    pub(crate) fn append(&self, len: u32, into: &mut Vec<u8>) {
        let (at, to_end) = pieces(&self.lane, self.next, len as usize);
        debug_assert_eq!(to_end, len as usize, "the caller has split it at the end");
        self.map.append(at, len as usize, into);
        crash::here(Point::Copied);
    }

    /// The eight bytes at a position that is a multiple of eight.
    pub(crate) fn word_at(&self, pos: u32) -> u64 {
        u64::from_le(self.map.load_u64(pieces(&self.lane, pos, 8).0))
    }

    /// Bytes from a position to the end of the ring.
    pub(crate) fn to_end(&self, pos: u32) -> u32 {
        self.lane.cap - (pos & (self.lane.cap - 1))
    }

    /// Reads on from another place.
    pub(crate) fn seek(&mut self, at: Published) {
        (self.next, self.seq) = (at.pos, at.seq);
    }

    /// The word as last seen.
    pub(crate) fn seen(&self) -> Published {
        self.seen
    }

    /// Whether the word says something else than when it was last looked at.
    pub(crate) fn is_news(&self) -> bool {
        self.map.load_u64(self.lane.word) != self.seen.word()
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
        self.release_at(Published { seq: self.seq, frozen: false, pos })
    }

    /// The same, with the number of the last record before it.
    pub(crate) fn release_at(&mut self, head: Published) -> bool {
        let pos = head.pos;
        debug_assert!(
            distance(self.released, pos) <= distance(self.released, self.next),
            "only what was read is given back"
        );
        if self.released == pos {
            return false;
        }
        self.unseen = self.unseen.saturating_add(distance(self.released, pos));
        (self.released, self.given) = (pos, pos);
        if self.unseen >= SEEN_BYTES {
            self.unseen = 0;
            self.own.u32_at(self.lane.cpu).store(processor(), Ordering::Relaxed);
        }
        // SYNC: ring.head. With the load in `Producer::room`.
        self.own.u64_at(self.lane.head).store(head.word(), Ordering::Release);
        crash::here(Point::Released);
        true
    }

    /// Everything up to a position may be given back: it is when that is worth a store, at the
    /// latest with [`Consumer::settle`].
    #[inline]
    pub(crate) fn give_to(&mut self, pos: u32) {
        self.given = pos;
        if distance(self.released, pos) >= self.lane.cap / RELEASE_PART {
            self.settle();
        }
    }

    /// Gives back what may be. Returns whether there was anything.
    pub fn settle(&mut self) -> bool {
        self.release_to(self.given)
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
        if mutant::is(Mutant::NoFreeze) {
            return Published::of(self.map.load_u64(self.lane.word));
        }
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
