//! A relay's end of a sender's ring.

use std::collections::VecDeque;

use super::layout::{self, BOUND, Kind, LET_GO, SENT};
use super::run::{self, Law};
use super::{Missed, Published, Scribbled, Unfit, is_reserved};
use crate::crash::{self, Point};
use crate::layout::Lane;
use crate::map::Map;
use crate::record::{PAD, RECORD_HEADER_BYTES, RecordHeader, RingSlice};
use crate::ring::{Consumer, distance};
use crate::sync::{Ordering, Shared};

/// Bytes of payload from which on a record may be taken in place.
pub const LARGE_BYTES: u32 = 16 << 10;

/// Ends of batches that are remembered; between them headers are walked.
const ENDS_MAX: usize = 1024;

/// What was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// The number of the first record.
    pub first: u32,
    /// How many there are, one after the other.
    pub records: u32,
    /// Bytes that were appended: of whole records, headers and all.
    pub bytes: u32,
    /// Every bit that some record has in its kind.
    pub kinds: u16,
}

/// A relay's end of an [`Outlet`](super::Outlet).
///
/// Order of calls for each batch: [`read`](OutletReader::read),
/// [`mark_bound`](OutletReader::mark_bound) where the receiver is another than before,
/// [`mark_sent`](OutletReader::mark_sent), submit the bytes; and when the receiver has them,
/// [`mark_acked`](OutletReader::mark_acked).
#[derive(Debug)]
pub struct OutletReader {
    ring: Consumer,
    control: Shared<Map>,
    law: Law,
    /// What is acknowledged.
    acked: Published,
    /// The largest number marked as sent.
    sent: u32,
    /// Ends of batches that were read and are not acknowledged, in order.
    ends: VecDeque<Published>,
}

impl OutletReader {
    /// Reads the outlet whose segment is `ring` (a [`Map::read_only`] does), which holds records
    /// from behind `from` on, as its sender says.
    pub fn new(
        ring: Shared<Map>,
        control: Shared<Map>,
        from: Published,
    ) -> Result<OutletReader, Unfit> {
        let cap = layout::check(&ring, Kind::Outlet)?;
        if layout::check_control(&control)? != cap {
            return Err(Unfit::Header(crate::layout::Bad::Size));
        }
        Ok(OutletReader::laid(ring, control, layout::outlet(cap), from)?)
    }

    /// The same with its counters where `lane` says.
    pub(crate) fn laid(
        ring: Shared<Map>,
        control: Shared<Map>,
        lane: Lane,
        from: Published,
    ) -> Result<OutletReader, Scribbled> {
        let from = Published { pos: from.pos & !(1 << 31), ..from };
        if from.frozen || !from.pos.is_multiple_of(8) {
            return Err(Scribbled);
        }
        let law = Law { skips: false, whole_max: lane.cap / 4 };
        let consumer = || Consumer::from(Shared::clone(&ring), Shared::clone(&control), lane, from);
        let reader = |ring| OutletReader {
            ring,
            control: Shared::clone(&control),
            law,
            acked: from,
            sent: from.seq,
            ends: VecDeque::new(),
        };
        // One that has looked; to the other one what is there is news.
        reader(consumer()).written()?;
        Ok(reader(consumer()))
    }

    /// The number of the last record that is published, after a look.
    pub fn written(&mut self) -> Result<u32, Scribbled> {
        let seen = self.look()?;
        Ok(seen.seq)
    }

    fn look(&mut self) -> Result<Published, Scribbled> {
        run::look(&mut self.ring, false)?;
        let seen = self.ring.seen();
        if seen.frozen { Err(Scribbled) } else { Ok(seen) }
    }

    /// Whether the sender has published since this side looked last.
    #[inline]
    pub fn news(&self) -> bool {
        self.ring.is_news()
    }

    /// The number of the record that is read next.
    pub fn next(&self) -> u32 {
        self.ring.seq().wrapping_add(1)
    }

    /// Bytes that were published when this side looked last and are not read, filler and all.
    pub fn unread(&self) -> u32 {
        distance(self.ring.position(), self.ring.seen().pos)
    }

    /// Starts reading at record `next`.
    ///
    /// # Errors
    /// [`Missed::NoSuchRecord`] unless it is one that is held, or the one that comes next.
    pub fn seek(&mut self, next: u32) -> Result<(), Missed> {
        let before = next.wrapping_sub(1);
        let end = self.find(before)?;
        self.ring.seek(end);
        let known = self.ends_up_to(before);
        self.ends.truncate(known);
        Ok(())
    }

    /// How many of the ends are of records up to a number.
    fn ends_up_to(&self, seq: u32) -> usize {
        let ahead = |seq: u32| seq.wrapping_sub(self.acked.seq);
        self.ends.partition_point(|end| ahead(end.seq) <= ahead(seq))
    }

    /// Where a record ends that is held, or was acknowledged last.
    fn find(&mut self, seq: u32) -> Result<Published, Missed> {
        let acked = self.acked.seq;
        let held = |seen: Published| seq.wrapping_sub(acked) <= seen.seq.wrapping_sub(acked);
        if !held(self.ring.seen()) && !held(self.look()?) {
            return Err(Missed::NoSuchRecord);
        }
        let known = self.ends_up_to(seq).checked_sub(1);
        let start = known.map_or(self.acked, |at| self.ends[at]);
        Ok(run::walk(&self.ring, start, seq)?)
    }

    /// Copies published records to the end of `out`, one copy for all of them: headers and
    /// payloads padded to eight bytes, back to back, checked there. At most `most_bytes`, or one
    /// record alone that is larger, and never more than `most_credit`.
    pub fn read(
        &mut self,
        most_bytes: u32,
        most_credit: u32,
        out: &mut Vec<u8>,
    ) -> Result<Batch, Scribbled> {
        self.look()?;
        let nothing = Batch { first: self.next(), ..Batch::default() };
        let Some((_, first)) = self.peek()? else { return Ok(nothing) };
        if first > most_credit {
            return Ok(nothing);
        }
        let most = most_bytes.min(most_credit).max(first);
        let (there, end) = (self.unread(), out.len());
        let run = run::take(&mut self.ring, self.law, there, most, out);
        let run = run.inspect_err(|_| out.truncate(end))?;
        crash::here(Point::RunTaken);
        self.note_end(run.end);
        Ok(Batch { records: run.records, bytes: run.bytes, kinds: run.kinds, ..nothing })
    }

    /// The next record's header and bytes, behind the filler before it.
    fn peek(&mut self) -> Result<Option<(RecordHeader, u32)>, Scribbled> {
        loop {
            let there = self.unread();
            if there == 0 {
                return Ok(None);
            }
            let (header, whole) = run::next(&self.ring, there)?;
            if header.kind != PAD {
                let lawful = whole <= self.law.whole_max && !is_reserved(header.kind);
                return if lawful { Ok(Some((header, whole))) } else { Err(Scribbled) };
            }
            // The sender publishes it with the record behind it only.
            if whole == there {
                return Err(Scribbled);
            }
            self.ring.skip(whole, 0);
        }
    }

    fn note_end(&mut self, end: Option<Published>) {
        let Some(end) = end else { return };
        if self.ends.len() == ENDS_MAX {
            self.ends.pop_back();
        }
        self.ends.push_back(end);
    }

    /// The payload's bytes of the next record, if it is one of at least [`LARGE_BYTES`].
    pub fn next_is_large(&mut self) -> Result<Option<u32>, Scribbled> {
        self.look()?;
        let large = self.peek()?.filter(|(header, _)| header.len >= LARGE_BYTES);
        Ok(large.map(|(header, _)| header.len))
    }

    /// Takes the next record in place, whatever its size, with its number; none if there is none.
    /// Its sender may change the payload at any time, and nobody writes over it before it is
    /// acknowledged.
    pub fn read_large(&mut self) -> Result<Option<(u32, RecordHeader, RingSlice)>, Scribbled> {
        self.look()?;
        let Some((header, whole)) = self.peek()? else { return Ok(None) };
        let (map, at, _) = self.ring.place();
        let payload = RingSlice::new(map, at + RECORD_HEADER_BYTES as usize, header.len as usize);
        self.ring.skip(whole, 1);
        let (seq, pos) = (self.ring.seq(), self.ring.position());
        self.note_end(Some(Published { seq, frozen: false, pos }));
        Ok(Some((seq, header, payload)))
    }

    /// Says that records up to `seq` may have left: before they are submitted.
    pub fn mark_sent(&mut self, seq: u32) {
        if seq.wrapping_sub(self.sent) < 1 << 31 {
            self.sent = seq;
            // SYNC: control.sent. With the load in `Outlet::sent`.
            self.control.u32_at(SENT).store(seq, Ordering::Release);
            crash::here(Point::SentMarked);
        }
    }

    /// Says which incarnation of the receiver they go to: before any of them is submitted.
    pub fn mark_bound(&mut self, epoch: u64) {
        // SYNC: control.bound. With the load in `Outlet::bound`.
        self.control.u64_at(BOUND).store(epoch, Ordering::Release);
        crash::here(Point::BoundMarked);
    }

    /// Says that the receiver has everything up to `seq`: the sender may write over it. Returns
    /// whether that is news; what was acknowledged before is none. Reading goes on behind it.
    ///
    /// # Errors
    /// [`Missed::NoSuchRecord`] for one that was not published.
    pub fn mark_acked(&mut self, seq: u32) -> Result<bool, Missed> {
        let ahead = seq.wrapping_sub(self.acked.seq);
        if ahead == 0 || ahead >= 1 << 31 {
            return Ok(false);
        }
        let end = self.find(seq)?;
        let read = self.ring.seq().wrapping_sub(self.acked.seq);
        let before = self.acked.pos;
        if ahead > read {
            self.ring.seek(end);
        } else if distance(before, end.pos) > distance(before, self.ring.position()) {
            // Its headers are others than were read: the sender has written over them.
            return Err(Missed::Scribbled);
        }
        // SYNC: control.acked. With the load in `Outlet::look`.
        self.ring.release_at(end);
        crash::here(Point::AckedMarked);
        let gone = self.ends_up_to(seq);
        self.ends.drain(..gone);
        self.acked = end;
        Ok(true)
    }

    /// Whether the sender has given its ring to another relay, or is about to: what this one thinks
    /// of it does not count any more.
    pub fn is_let_go(&self) -> bool {
        // SYNC: control.let_go. With the store in `Outlet::let_go`.
        self.control.u32_at(LET_GO).load(Ordering::Acquire) != 0
    }

    /// Up to which record the receiver has them.
    pub fn acked(&self) -> Published {
        self.acked
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> u32 {
        self.ring.capacity()
    }
}
