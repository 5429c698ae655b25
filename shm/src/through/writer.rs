//! A relay's end of a receiver's ring.

use super::layout::{self, Kind};
use super::{Ended, Published, SKIP, Scribbled, Unfit, Unstored, follow, is_reserved, run};
use crate::crash::{self, Point};
use crate::layout::Lane;
use crate::map::Map;
use crate::record::Refused;
use crate::ring::{Frozen, Producer, distance, is_near};
use crate::sync::{Ordering, Shared};

/// A relay's end of an [`Inlet`](super::Inlet).
///
/// Order of calls for each batch: [`push_run`](InletWriter::push_run) or
/// [`skip`](InletWriter::skip), [`publish`](InletWriter::publish), ring the receiver, acknowledge
/// [`stored`](InletWriter::stored) to the sender's relay.
#[derive(Debug)]
pub struct InletWriter {
    map: Shared<Map>,
    lane: Lane,
    ring: Producer,
    /// What was published last: the word, unless the receiver has taken the ring away.
    published: Published,
    /// The receiver's head as last seen.
    head: Published,
}

impl InletWriter {
    /// Writes the inlet that lies in `map`, behind what is there.
    ///
    /// # Errors
    /// It is no such segment, or another relay has taken its place.
    pub fn new(map: Shared<Map>) -> Result<InletWriter, Unfit> {
        let cap = layout::check(&map, Kind::Inlet)?;
        InletWriter::laid(map, layout::inlet(cap))
    }

    /// The same with its counters where `lane` says.
    pub(crate) fn laid(map: Shared<Map>, lane: Lane) -> Result<InletWriter, Unfit> {
        // SYNC: ring.head. With the store in `Consumer::release_at`. The head first: the word is
        // not behind it then.
        let head = Published::of(map.u64_at(lane.head).load(Ordering::Acquire));
        // SYNC: ring.word. With the stores in `Inlet::hand_over` and `publish_unless_frozen`.
        let word = Published::of(map.u64_at(lane.word).load(Ordering::Acquire));
        let (records, bytes) = (word.seq.wrapping_sub(head.seq), distance(head.pos, word.pos));
        let level = (records == 0) == (bytes == 0);
        let aligned = (head.pos | word.pos).is_multiple_of(8);
        if head.frozen || records > 1 << 31 || bytes > lane.cap || !level || !aligned {
            return Err(Unfit::Scribbled);
        }
        if word.frozen {
            return Err(Unfit::Frozen);
        }
        let ring = Producer::told(Shared::clone(&map), lane, word, head.pos);
        Ok(InletWriter { map, lane, ring, published: word, head })
    }

    /// The number of the last record that this side has published, or has found.
    pub fn stored(&self) -> u32 {
        self.published.seq
    }

    /// The same, after a look at the word: what may be told to whoever asks where to go on.
    pub fn look(&self) -> Result<u32, Ended> {
        // SYNC: ring.word. With the `fetch_or` in `Consumer::freeze`.
        let found = Published::of(self.map.u64_at(self.lane.word).load(Ordering::Acquire));
        match found {
            _ if found == self.published => Ok(found.seq),
            _ if found.frozen => Err(Ended::Frozen),
            _ => Err(Ended::Scribbled),
        }
    }

    /// The number of the last record that the receiver is through with.
    pub fn consumed(&mut self) -> Result<u32, Scribbled> {
        self.look_at_head()?;
        Ok(self.head.seq)
    }

    fn look_at_head(&mut self) -> Result<(), Scribbled> {
        // SYNC: ring.head. With the store in `Consumer::release_at`.
        let word = self.map.u64_at(self.lane.head).load(Ordering::Acquire);
        if follow(&mut self.head, word, self.published)? {
            self.ring.free_to(self.head.pos);
        }
        Ok(())
    }

    /// How many bytes of whole records may still be promised to the sender: a quarter of the ring
    /// is kept for the filler before its end, which so many bytes can meet once.
    pub fn room(&mut self) -> Result<u32, Scribbled> {
        self.look_at_head()?;
        Ok((self.lane.cap - self.ring.held()).saturating_sub(self.lane.cap / 4))
    }

    /// Bytes a record's payload may have.
    pub fn record_bytes_max(&self) -> u32 {
        self.ring.record_bytes_max()
    }

    /// Whether the receiver was last seen on the processor that this thread runs on.
    pub fn is_near(&self) -> bool {
        is_near(&self.map, self.lane)
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> u32 {
        self.lane.cap
    }

    /// Whether something was written and not published.
    pub fn is_dirty(&self) -> bool {
        self.ring.is_dirty()
    }

    /// Writes records that lie back to back in private memory, headers and payloads padded to
    /// eight bytes: all of them, or none. Returns how many. Nobody sees them before
    /// [`InletWriter::publish`].
    pub fn push_run(&mut self, bytes: &[u8]) -> Result<u32, Unstored> {
        let (records, split) = self.measure(bytes)?;
        let split = split.unwrap_or(bytes.len());
        let pad = if split < bytes.len() { self.ring.to_end() - split as u32 } else { 0 };
        let needed = bytes.len() as u64 + u64::from(pad);
        if needed > u64::from(self.lane.cap - self.ring.held()) {
            self.look_at_head()?;
        }
        if needed > u64::from(self.lane.cap - self.ring.held()) {
            return Err(Unstored::NoRoom);
        }
        self.ring.unstage();
        let (one, two) = bytes.split_at(split);
        self.ring.write_at(0, one);
        if pad > 0 {
            self.ring.write_filler(split as u32, pad);
        }
        self.ring.write_at(split as u32 + pad, two);
        crash::here(Point::RunWritten);
        self.ring.advance(needed as u32, records);
        Ok(records)
    }

    /// Checks a run; returns how many records it has, and where it must be split: the first one
    /// that does not fit before the end of the ring.
    fn measure(&self, bytes: &[u8]) -> Result<(u32, Option<usize>), Unstored> {
        let most = self.record_bytes_max() + crate::record::RECORD_HEADER_BYTES;
        let to_end = self.ring.to_end() as usize;
        let (mut at, mut records, mut split) = (0, 0, None);
        while at < bytes.len() {
            let header = run::header_at(bytes, at).ok_or(Unstored::Malformed)?;
            let whole = header.whole(most).ok_or(Unstored::Malformed)? as usize;
            if whole > bytes.len() - at || is_reserved(header.kind) {
                return Err(Unstored::Malformed);
            }
            if split.is_none() && at < to_end && at + whole > to_end {
                split = Some(at);
            }
            at += whole;
            records += 1;
        }
        Ok((records, split))
    }

    /// Writes one small record that stands for `numbers` numbers whose messages do not come: it
    /// takes [`SKIP_BYTES`](super::SKIP_BYTES) of what was promised. Numbers that are unread stay
    /// below 2^31, as a window of records does.
    pub fn skip(&mut self, numbers: u32) -> Result<(), Unstored> {
        if numbers == 0 {
            return Ok(());
        }
        let pushed = match self.ring.push(SKIP, 0, &numbers.to_le_bytes()) {
            Err(Refused::Full) => {
                self.look_at_head()?;
                self.ring.push(SKIP, 0, &numbers.to_le_bytes())
            }
            pushed => pushed,
        };
        pushed.map_err(|_| Unstored::NoRoom)?;
        self.ring.advance(0, numbers - 1);
        Ok(())
    }

    /// Lets the receiver see everything that was written, unless it has taken the ring away.
    ///
    /// # Errors
    /// Then nothing of it is stored, and nothing more is to be said for this ring.
    pub fn publish(&mut self) -> Result<(), Ended> {
        if !self.ring.is_dirty() {
            return Ok(());
        }
        match self.ring.publish_unless_frozen(self.published) {
            Ok(()) => {
                self.published = self.ring.published();
                Ok(())
            }
            Err(Frozen(found)) if found.frozen => Err(Ended::Frozen),
            Err(_) => Err(Ended::Scribbled),
        }
    }
}
