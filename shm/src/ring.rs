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

mod consumer;

pub use consumer::Consumer;

use crate::crash::{self, Point};
use crate::layout::Lane;
use crate::map::{Map, processor};
use crate::record::RECORD_HEADER_BYTES;
use crate::sync::{Ordering, Shared};
use crate::through::mutant::{self, Mutant};

/// Set in the publish word when the ring was taken over: nothing is published any more.
pub const FROZEN: u64 = 1 << 31;

const POSITION: u32 = (1 << 31) - 1;

/// Bytes that a producer keeps back at most, to write them at once. Half a first-level cache's
/// share is left for what else is hot.
pub(crate) const STAGE_BYTES: usize = 8 << 10;

/// From so many bytes on, what goes to a reader on another core is written past the caches.
/// Measured: 16 KiB in 2.2 GB/s through far caches and 13 past them, 8 to 14 and 11 to 15 where
/// they are near; 1 KiB is where the two meet when they are near.
const THROUGH_BYTES: usize = 2 << 10;

const _: () = assert!(THROUGH_BYTES <= STAGE_BYTES, "what was kept back can go past the caches");

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

pub(crate) fn distance(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from) & POSITION
}

pub(crate) fn forward(pos: u32, by: u32) -> u32 {
    pos.wrapping_add(by) & POSITION
}

/// Where `n` bytes at a position lie: up to the ring's end, then from its beginning.
fn pieces(lane: &Lane, pos: u32, n: usize) -> (usize, usize) {
    let at = (pos & (lane.cap - 1)) as usize;
    (lane.ring + at, n.min(lane.cap as usize - at))
}

/// Whether the consumer with counters in a map was last seen on this thread's processor.
pub(crate) fn is_near(map: &Map, lane: Lane) -> bool {
    let cpu = map.u32_at(lane.cpu).load(Ordering::Relaxed);
    cpu != 0 && cpu == processor()
}

/// The writing end.
#[derive(Debug)]
pub struct Producer {
    map: Shared<Map>,
    lane: Lane,
    /// The consumer's counters lie in this map, too. Where they do not, this side is told of them
    /// by [`Producer::free_to`].
    looks: bool,
    /// Bytes of payload that a record may have.
    pub(crate) record_bytes_max: u32,
    /// The word as this side published it last.
    word: Published,
    /// Where the next byte goes.
    next: u32,
    /// The consumer's position, as last seen.
    head: u32,
    /// The consumer was last seen on another processor.
    far: bool,
    /// Small records that are written and not in the ring yet, and one that is being written.
    stage: Vec<u8>,
    /// How many of those bytes are written: the ones up to `next`.
    staged: usize,
}

impl Producer {
    /// The writing end of a fresh ring.
    pub fn new(map: Shared<Map>, lane: Lane) -> Producer {
        Producer {
            map,
            lane,
            looks: true,
            record_bytes_max: (lane.cap / 4).saturating_sub(RECORD_HEADER_BYTES),
            word: Published::default(),
            next: 0,
            head: 0,
            far: false,
            stage: Vec::new(),
            staged: 0,
        }
    }

    /// The writing end of a ring whose `word` was published last and that is free from `head` on.
    /// It reads no counter of the consumer's: its owner does, and calls [`Producer::free_to`].
    pub(crate) fn told(map: Shared<Map>, lane: Lane, word: Published, head: u32) -> Producer {
        let (looks, next) = (false, word.pos);
        Producer { looks, word, next, head, ..Producer::new(map, lane) }
    }

    /// Bytes that are written and not given back, as far as this side knows.
    pub(crate) fn held(&self) -> u32 {
        distance(self.head, self.next)
    }

    /// How far the consumer says it is.
    ///
    /// # Errors
    /// It says that it has read what was not published.
    pub(crate) fn consumed(&self) -> Result<Published, Scribbled> {
        // SYNC: ring.head. With the store in `Consumer::release`.
        let head = Published::of(self.map.u64_at(self.lane.head).load(Ordering::Acquire));
        let (records, bytes) =
            (self.word.seq.wrapping_sub(head.seq), distance(head.pos, self.next));
        if records > bytes || bytes > self.lane.cap { Err(Scribbled) } else { Ok(head) }
    }

    /// A reading end of this side's own, behind a place that the consumer has said: it gives
    /// nothing back.
    pub(crate) fn behind(&self, at: Published) -> Consumer {
        Consumer::from(Shared::clone(&self.map), Shared::clone(&self.map), self.lane, at)
    }

    /// Everything before `head` may be written over. The caller has checked that it was published.
    pub(crate) fn free_to(&mut self, head: u32) {
        debug_assert!(distance(head, self.next) <= distance(self.head, self.next), "onwards only");
        self.head = head;
    }

    /// Goes on where somebody else's producer stopped, whose word was `word`: a ring that was
    /// handed over.
    pub fn resume(map: Shared<Map>, lane: Lane, word: Published) -> Result<Producer, Scribbled> {
        // SYNC: ring.head. With the store in `Consumer::release`.
        let head = Published::of(map.u64_at(lane.head).load(Ordering::Acquire)).pos;
        let next = word.pos & POSITION;
        if distance(head, next) > lane.cap {
            return Err(Scribbled);
        }
        Ok(Producer { word, next, head, ..Producer::new(map, lane) })
    }

    /// Bytes that fit now. Looks at the consumer's counter only when the last look does not do for
    /// `wanted`.
    #[inline]
    pub fn room(&mut self, wanted: u32) -> Result<u32, Scribbled> {
        let room = self.lane.cap - distance(self.head, self.next);
        if room >= wanted.min(self.lane.cap) { Ok(room) } else { self.room_now() }
    }

    fn room_now(&mut self) -> Result<u32, Scribbled> {
        if !self.looks {
            return Ok(self.lane.cap - distance(self.head, self.next));
        }
        // SYNC: ring.head. With the store in `Consumer::release`.
        let head = Published::of(self.map.u64_at(self.lane.head).load(Ordering::Acquire)).pos;
        let held = distance(head, self.next);
        if held > self.lane.cap || distance(self.head, head) > distance(self.head, self.next) {
            return Err(Scribbled);
        }
        self.head = head;
        // It comes with the same line. One that lies about it is written to as it says.
        let cpu = self.map.u32_at(self.lane.cpu).load(Ordering::Relaxed);
        self.far = cpu != 0 && cpu != processor();
        Ok(self.lane.cap - held)
    }

    /// Copies as many bytes as fit behind what was written; returns how many. Nobody sees them
    /// before [`Producer::publish`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Scribbled> {
        let wanted = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let n = bytes.len().min(self.room(wanted)? as usize);
        self.unstage();
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
        self.put(pos, bytes);
    }

    /// Copies bytes to a position.
    fn put(&self, pos: u32, bytes: &[u8]) {
        let (at, first) = pieces(&self.lane, pos, bytes.len());
        for (at, bytes) in [(at, &bytes[..first]), (self.lane.ring, &bytes[first..])] {
            if self.far && bytes.len() >= THROUGH_BYTES {
                self.map.write_through(at, bytes);
            } else if !bytes.is_empty() {
                self.map.write(at, bytes);
            }
        }
    }

    /// Makes place behind what is kept back for `bytes` that are being written, all zeros;
    /// returns where in [`Producer::stage`].
    #[inline]
    pub(crate) fn extend(&mut self, bytes: usize) -> usize {
        let at = self.make_place(bytes);
        self.stage.resize(at + bytes, 0);
        at
    }

    /// The same, to be filled by the caller.
    #[inline]
    pub(crate) fn make_place(&mut self, bytes: usize) -> usize {
        debug_assert!(bytes <= STAGE_BYTES, "what is larger goes straight into the ring");
        // What was being written and never committed.
        self.stage.truncate(self.staged);
        if self.staged + bytes > STAGE_BYTES {
            self.unstage();
        }
        self.staged
    }

    /// What is kept back, with what is being written behind it.
    #[inline]
    pub(crate) fn stage(&mut self) -> &mut Vec<u8> {
        &mut self.stage
    }

    /// Counts bytes behind those kept back as written, one record, behind `pad` bytes of the ring
    /// that are skipped.
    #[inline]
    pub(crate) fn keep(&mut self, pad: u32, bytes: u32) {
        debug_assert!(pad == 0 || self.staged == 0, "what is kept back is one piece");
        self.staged += bytes as usize;
        debug_assert_eq!(self.staged, self.stage.len());
        self.advance(pad + bytes, 1);
    }

    /// Copies what was kept back into the ring, at once.
    pub(crate) fn unstage(&mut self) {
        if self.staged > 0 {
            let start = self.next.wrapping_sub(self.staged as u32) & POSITION;
            self.put(start, &self.stage[..self.staged]);
        }
        self.stage.clear();
        self.staged = 0;
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

    /// Whether the consumer was last seen on the processor that this thread runs on.
    pub fn is_near(&self) -> bool {
        debug_assert!(self.looks, "the consumer's counters lie beside the word");
        is_near(&self.map, self.lane)
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
        self.unstage();
        self.word.pos = self.next;
        // SYNC: ring.word. With the load in `Consumer::available`.
        self.map.u64_at(self.lane.word).store(self.word.word(), Ordering::Release);
        crash::here(Point::Published);
        true
    }

    /// The same where the consumer may take the ring away at any moment: what a frozen word says
    /// is what was published, and it never changes again.
    pub fn publish_unless_frozen(&mut self, before: Published) -> Result<(), Frozen> {
        self.unstage();
        let after = Published { pos: self.next, ..self.word };
        if mutant::is(Mutant::TwoStores) {
            self.exchange(before, Published { seq: before.seq, ..after })?;
            self.exchange(Published { seq: before.seq, ..after }, after)?;
        } else {
            self.exchange(before, after)?;
        }
        self.word = after;
        Ok(())
    }

    fn exchange(&self, before: Published, after: Published) -> Result<(), Frozen> {
        let word = self.map.u64_at(self.lane.word);
        if mutant::is(Mutant::PlainStore) {
            word.store(after.word(), Ordering::Release);
            return Ok(());
        }
        // SYNC: ring.word, and with the `fetch_or` in `Consumer::freeze`.
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let swapped = word.compare_exchange(before.word(), after.word(), success, failure);
        let swapped = swapped.map_err(|found| Frozen(Published::of(found)));
        if swapped.is_ok() {
            crash::here(Point::Published);
        }
        swapped.map(drop)
    }

    /// Says that nothing comes behind what is published.
    pub fn finish(&mut self) {
        debug_assert!(!self.is_dirty(), "everything is published first");
        // SYNC: ring.state. With the load in `Consumer::state`.
        self.map.u32_at(self.lane.state).store(FIN, Ordering::Release);
        crash::here(Point::Finished);
    }
}
