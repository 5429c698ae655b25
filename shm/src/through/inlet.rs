//! The receiver's end of a ring that a relay writes.

use super::layout::{self, Kind};
use super::run::{self, Law};
use super::{Published, Scribbled};
use crate::crash::{self, Point};
use crate::layout::Lane;
use crate::map::Map;
use crate::record::{DRAIN_BYTES, PAD, RECORD_HEADER_BYTES, RecordHeader};
use crate::ring::Consumer;
use crate::sync::{Ordering, Shared};

/// Below so many records that are asked for, their headers are walked first, so that no more is
/// copied than is shown.
const FEW: u32 = 64;

/// Whether to show the next record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Go on.
    Go,
    /// This one was the last for now.
    Stop,
}

/// The receiver's end. See the [module](super) for what lies where.
///
/// ```no_run
/// use ringlane_shm::through::{Flow, Inlet, Scribbled};
///
/// fn show(inlet: &mut Inlet, private: &mut Vec<u8>) -> Result<(), Scribbled> {
///     let shown = inlet.walk(private, 100, |seq, header, bytes| {
///         println!("{seq}: {} bytes for channel {}", bytes.len(), header.channel);
///         Flow::Go
///     })?;
///     println!("{shown} records, up to number {}", inlet.consumed());
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Inlet {
    pub(super) map: Shared<Map>,
    pub(super) lane: Lane,
    ring: Consumer,
    law: Law,
    pub(super) frozen: bool,
}

impl Inlet {
    /// Makes a fresh map an inlet whose ring has `cap` bytes.
    ///
    /// # Panics
    /// Panics if a ring may not have that size, or the map has not
    /// [`inlet_bytes`](super::inlet_bytes).
    pub fn new(map: Shared<Map>, cap: u32) -> Inlet {
        layout::found(&map, Kind::Inlet, cap);
        Inlet::laid(map, layout::inlet(cap), Published::default())
    }

    /// The same with its counters where `lane` says, read up to `at`.
    pub(crate) fn laid(map: Shared<Map>, lane: Lane, at: Published) -> Inlet {
        let ring = Consumer::from(Shared::clone(&map), Shared::clone(&map), lane, at);
        let law = Law { skips: true, whole_max: lane.cap / 4 };
        Inlet { map, lane, ring, law, frozen: false }
    }

    /// Whether the relay has published since this side looked last.
    #[inline]
    pub fn news(&self) -> bool {
        self.ring.is_news()
    }

    /// How many numbers were published when this side looked last and are not consumed.
    pub fn unread(&self) -> u32 {
        self.ring.seen().seq.wrapping_sub(self.ring.seq())
    }

    /// Copies records that are published into private memory, many at a time, and shows them to
    /// `each`, at most `most_records`, with their numbers. When `each` has returned, its record is
    /// [consumed](Inlet::consumed), before the next one is shown. Ranges that were skipped are
    /// consumed and not shown. Returns how many were.
    ///
    /// # Errors
    /// The relay wrote nonsense; what was shown before it is consumed.
    pub fn walk(
        &mut self,
        private: &mut Vec<u8>,
        most_records: u32,
        mut each: impl FnMut(u32, RecordHeader, &[u8]) -> Flow,
    ) -> Result<u32, Scribbled> {
        let mut there = run::look(&mut self.ring, true)?;
        let mut shown = 0;
        while there > 0 && shown < most_records {
            let piece = self.piece(there, most_records - shown)?;
            private.clear();
            self.ring.append(piece, private);
            let before = there;
            let flow = self.show(private, &mut there, (&mut shown, most_records), &mut each)?;
            if flow == Flow::Stop {
                break;
            }
            // The header has changed since the piece was measured.
            if there == before {
                return Err(Scribbled);
            }
        }
        let left = self.unread();
        if (there == 0) != (left == 0) || left > 1 << 31 {
            return Err(Scribbled);
        }
        Ok(shown)
    }

    /// How many bytes to copy for so many records, of those that are there: whole records, unless
    /// there are many.
    fn piece(&self, there: u32, records: u32) -> Result<u32, Scribbled> {
        let to_end = self.ring.to_end(self.ring.position());
        let all = there.min(to_end);
        if records >= FEW {
            let (_, first) = run::next(&self.ring, there)?;
            return Ok(all.min(DRAIN_BYTES).max(first));
        }
        let (mut bytes, mut left) = (0, records);
        while left > 0 && bytes < all && bytes < DRAIN_BYTES {
            let pos = crate::ring::forward(self.ring.position(), bytes);
            let header = RecordHeader::decode(self.ring.word_at(pos).to_le_bytes());
            bytes += run::whole(header, there - bytes, to_end - bytes)?;
            left -= u32::from(header.kind & 0xff != super::SKIP && header.kind != PAD);
        }
        Ok(bytes)
    }

    /// Shows the records of a piece that was copied, and consumes them one by one.
    fn show(
        &mut self,
        piece: &[u8],
        there: &mut u32,
        (shown, most): (&mut u32, u32),
        each: &mut impl FnMut(u32, RecordHeader, &[u8]) -> Flow,
    ) -> Result<Flow, Scribbled> {
        let mut at = 0;
        let to_end = self.ring.to_end(self.ring.position());
        while *shown < most
            && let Some(header) = run::header_at(piece, at)
        {
            let whole = run::whole(header, *there, to_end - at as u32)?;
            if header.kind == PAD {
                self.ring.skip(whole, 0);
                *there -= whole;
                break;
            }
            if whole as usize > piece.len() - at {
                break;
            }
            let from = at + RECORD_HEADER_BYTES as usize;
            let numbers = self.law.count(header, whole, &piece[from..])?;
            if numbers == 0 || numbers > self.unread() {
                return Err(Scribbled);
            }
            let mut flow = Flow::Go;
            if header.kind != super::SKIP {
                let seq = self.ring.seq().wrapping_add(1);
                flow = each(seq, header, &piece[from..from + header.len as usize]);
                *shown += 1;
                crash::here(Point::Shown);
            }
            self.ring.skip(whole, numbers);
            // SYNC: ring.head. With the load in `InletWriter::look_at_head`.
            self.ring.release();
            at += whole as usize;
            *there -= whole;
            if flow == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(Flow::Go)
    }

    /// The number of the last record that is published.
    pub fn stored(&self) -> u32 {
        Published::of(self.map.load_u64(self.lane.word)).seq
    }

    /// The number of the last record whose callback has returned, or that was skipped.
    pub fn consumed(&self) -> u32 {
        self.ring.seq()
    }

    /// Whether it was taken away from its relay.
    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> u32 {
        self.ring.capacity()
    }

    /// Takes the ring away from its relay: what is published now is stored, nothing is from now
    /// on. Returns the number of the last record.
    pub fn freeze(&mut self) -> u32 {
        let was = self.ring.freeze();
        self.frozen = true;
        crash::here(Point::Frozen);
        was.seq
    }

    /// Freezes this ring and goes on in a fresh map, for another relay: with the records that are
    /// unread, and the numbers as they are. This one has nothing more to show.
    ///
    /// # Errors
    /// The relay wrote nonsense: what is unread cannot be told from it.
    ///
    /// # Panics
    /// Panics as [`Inlet::new`], and where the new ring is smaller.
    pub fn hand_over(&mut self, map: Shared<Map>, cap: u32) -> Result<Inlet, Scribbled> {
        assert!(cap >= self.lane.cap, "what is unread in {} bytes fits", self.lane.cap);
        layout::found(&map, Kind::Inlet, cap);
        self.hand_over_laid(map, layout::inlet(cap))
    }

    pub(crate) fn hand_over_laid(
        &mut self,
        map: Shared<Map>,
        lane: Lane,
    ) -> Result<Inlet, Scribbled> {
        self.freeze();
        let consumed = self.ring.seq();
        let there = run::look(&mut self.ring, true)?;
        let mut unread = Vec::new();
        let run = run::take(&mut self.ring, self.law, there, there, &mut unread)?;
        let stored = self.ring.seen().seq;
        if self.ring.seq() != stored || run.records != stored.wrapping_sub(consumed) {
            return Err(Scribbled);
        }
        map.write(lane.ring, &unread);
        crash::here(Point::UnreadCopied);
        // Nobody has this map yet; who gets it sees all of this.
        let head = Published { seq: consumed, frozen: false, pos: 0 };
        map.u64_at(lane.head).store(head.word(), Ordering::Relaxed);
        let word = Published { seq: stored, frozen: false, pos: run.bytes };
        // SYNC: ring.word. With the load in `InletWriter::new`.
        map.u64_at(lane.word).store(word.word(), Ordering::Release);
        crash::here(Point::HandedOver);
        Ok(Inlet::laid(map, lane, head))
    }
}
