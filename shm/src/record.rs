//! Records in a ring: whole messages with a header, written and read in place.
//!
//! ```text
//!   | len u32 | kind u16 | channel u16 | payload, padded to 8 |   | ... |  PAD to the ring's end |
//! ```
//!
//! A record never wraps, so that its payload is one piece. Its sequence number is not stored: it
//! is the publish word's, counted back. A record is at most a quarter of the ring; larger messages
//! go in pieces ([`MORE`]).
//!
//! A ring carries records or a stream of bytes, never both.
//!
//! The reader checks each header against what was published, after copying it into a register, and
//! a payload is reached through [`RingSlice`], never as a slice of Rust: its writer may still
//! change it. [`Records::drain`] is the careful way: one copy of everything that is there, parsed
//! in private memory.

use std::borrow::BorrowMut;
use std::fmt;
use std::ops::DerefMut;

use crate::crash::{self, Point};
use crate::map::Map;
use crate::ring::{Consumer, Producer, STAGE_BYTES, Scribbled};
use crate::sync::Shared;

/// Bytes before a record's payload.
pub const RECORD_HEADER_BYTES: u32 = 8;

/// Set in a record's kind where the message goes on in the next record of its channel.
pub const MORE: u16 = 1 << 15;

/// The kind that fills the ring up to its end; not for users.
pub const PAD: u16 = 0x7fff;

/// Records up to so many bytes, header and all, are gathered and written to the ring at once.
const SMALL_BYTES: u32 = 2 << 10;

const _: () = assert!(4 * SMALL_BYTES as usize <= STAGE_BYTES, "several are gathered");

/// Bytes that [`Records::drain`] copies at a time: what was copied is still in a near cache when it
/// is looked at.
pub(crate) const DRAIN_BYTES: u32 = 64 << 10;

/// A record's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// Bytes of payload.
    pub len: u32,
    /// The user's; [`MORE`] and [`PAD`] have meanings.
    pub kind: u16,
    /// The user's.
    pub channel: u16,
}

impl RecordHeader {
    pub(crate) fn encode(self) -> [u8; 8] {
        let [a, b, c, d] = self.len.to_le_bytes();
        let ([e, f], [g, h]) = (self.kind.to_le_bytes(), self.channel.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }

    pub(crate) fn decode([a, b, c, d, e, f, g, h]: [u8; 8]) -> RecordHeader {
        RecordHeader {
            len: u32::from_le_bytes([a, b, c, d]),
            kind: u16::from_le_bytes([e, f]),
            channel: u16::from_le_bytes([g, h]),
        }
    }

    /// Appends a record in the form in which runs of them travel: back to back, payloads padded
    /// to eight bytes.
    ///
    /// ```
    /// use ringlane_shm::record::RecordHeader;
    ///
    /// let (mut run, header) = (Vec::new(), RecordHeader { len: 5, kind: 1, channel: 7 });
    /// header.append(b"hello", &mut run);
    /// assert_eq!(run, b"\x05\0\0\0\x01\0\x07\0hello\0\0\0");
    /// assert_eq!(RecordHeader::split(&run), Some((header, &b"hello"[..], &b""[..])));
    /// ```
    ///
    /// # Panics
    /// Panics if the payload has another length than the header says.
    pub fn append(self, payload: &[u8], run: &mut Vec<u8>) {
        assert_eq!(self.len as usize, payload.len(), "a header says how long its payload is");
        run.extend_from_slice(&self.encode());
        run.extend_from_slice(payload);
        run.resize(run.len().next_multiple_of(8), 0);
    }

    /// The first record of a run, and what follows it; none where no whole one is left.
    pub fn split(run: &[u8]) -> Option<(RecordHeader, &[u8], &[u8])> {
        let (header, rest) = run.split_first_chunk()?;
        let header = RecordHeader::decode(*header);
        let padded = usize::try_from(header.len).ok()?.checked_next_multiple_of(8)?;
        let (payload, rest) = rest.split_at_checked(padded)?;
        Some((header, &payload[..header.len as usize], rest))
    }

    /// Bytes of the whole record, if it fits into `most`.
    pub(crate) fn whole(self, most: u32) -> Option<u32> {
        let whole = self.len.checked_add(RECORD_HEADER_BYTES + 7)? & !7;
        (whole <= most).then_some(whole)
    }
}

/// Why a record is not taken now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// There is no room until the consumer gets on.
    Full,
    /// It is longer than a record may be; send it in pieces.
    TooLong,
    /// The consumer's counter was impossible.
    Scribbled,
    /// The link is over: nobody will read it.
    Closed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Full => "the ring is full until its reader gets on",
            Refused::TooLong => {
                "the record is longer than a quarter of the ring; send it in pieces"
            }
            Refused::Scribbled => "the reader wrote nonsense into the shared ring",
            Refused::Closed => "the link is over",
        })
    }
}

impl std::error::Error for Refused {}

impl From<Scribbled> for Refused {
    fn from(_: Scribbled) -> Refused {
        Refused::Scribbled
    }
}

impl Producer {
    /// Bytes a record's payload may have.
    pub fn record_bytes_max(&self) -> u32 {
        self.record_bytes_max
    }

    /// Room for a payload of `len` bytes, to be written in place. Dropping it takes it back.
    pub fn reserve(&mut self, len: u32) -> Result<Reservation<&mut Producer>, Refused> {
        Reservation::of(self, len)
    }

    /// Writes a whole record.
    #[inline]
    pub fn push(&mut self, kind: u16, channel: u16, payload: &[u8]) -> Result<(), Refused> {
        let len = u32::try_from(payload.len()).map_err(|_| Refused::TooLong)?;
        if len > SMALL_BYTES - RECORD_HEADER_BYTES {
            let mut place = self.reserve(len)?;
            place.write(0, payload);
            place.commit(kind, channel);
            return Ok(());
        }
        let (pad, whole) = self.find_place(len)?;
        let at = self.make_place(whole as usize);
        let stage = self.stage();
        stage.extend_from_slice(&RecordHeader { len, kind, channel }.encode());
        stage.extend_from_slice(payload);
        stage.resize(at + whole as usize, 0);
        crash::here(Point::Filled);
        self.keep(pad, whole);
        crash::here(Point::Committed);
        Ok(())
    }

    /// Whether a record of `len` bytes may be written now: bytes to skip up to the end of the
    /// ring, and its own bytes, header and all.
    #[inline]
    pub(crate) fn find_place(&mut self, len: u32) -> Result<(u32, u32), Refused> {
        if len > self.record_bytes_max() {
            return Err(Refused::TooLong);
        }
        let whole = (len + RECORD_HEADER_BYTES + 7) & !7;
        let to_end = self.to_end();
        let pad = if to_end < whole { to_end } else { 0 };
        if self.room(pad + whole)? < pad + whole {
            return Err(Refused::Full);
        }
        if pad > 0 {
            self.unstage();
            self.write_filler(0, pad);
        }
        crash::here(Point::Reserved);
        Ok((pad, whole))
    }

    /// Writes filler of `pad` bytes, up to the end of the ring, `skip` behind what was written.
    pub(crate) fn write_filler(&mut self, skip: u32, pad: u32) {
        let filler = RecordHeader { len: pad - RECORD_HEADER_BYTES, kind: PAD, channel: 0 };
        self.write_at(skip, &filler.encode());
    }

    /// Writes as much of a message as there is room for, in pieces that say that more follow;
    /// returns how many of its bytes. Call again with the rest.
    pub fn push_pieces(
        &mut self,
        kind: u16,
        channel: u16,
        message: &[u8],
    ) -> Result<usize, Refused> {
        let piece = self.record_bytes_max() as usize;
        let mut taken = 0;
        while taken < message.len() {
            let part = &message[taken..message.len().min(taken + piece)];
            let more = if taken + part.len() < message.len() { MORE } else { 0 };
            match self.push(kind | more, channel, part) {
                Ok(()) => taken += part.len(),
                Err(Refused::Full) => break,
                Err(refused) => return Err(refused),
            }
        }
        Ok(taken)
    }
}

/// Room in the ring that is being written.
#[derive(Debug)]
#[must_use = "dropping it takes the room back"]
pub struct Reservation<P> {
    producer: P,
    pad: u32,
    whole: u32,
    len: u32,
    /// Where it stands among what is gathered.
    staged: Option<usize>,
}

impl<P: DerefMut<Target = Producer>> Reservation<P> {
    #[inline]
    pub(crate) fn of(mut producer: P, len: u32) -> Result<Reservation<P>, Refused> {
        let (pad, whole) = producer.find_place(len)?;
        let staged = if whole <= SMALL_BYTES {
            Some(producer.extend(whole as usize))
        } else {
            producer.unstage();
            None
        };
        Ok(Reservation { producer, pad, whole, len, staged })
    }

    /// Bytes of the payload.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes into the payload.
    ///
    /// # Panics
    /// Panics where the bytes do not lie inside it.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let inside = at.checked_add(bytes.len()).is_some_and(|end| end <= self.len());
        assert!(inside, "a payload is written inside its reservation");
        self.put(RECORD_HEADER_BYTES as usize + at, bytes);
        crash::here(Point::Filled);
    }

    #[inline]
    fn put(&mut self, at: usize, bytes: &[u8]) {
        match self.staged {
            Some(start) => {
                let at = start + at;
                self.producer.stage()[at..at + bytes.len()].copy_from_slice(bytes);
            }
            None => self.producer.write_at(self.pad + at as u32, bytes),
        }
    }

    /// Makes it a record; seen with the next publication, any number at a time.
    #[inline]
    pub fn commit(mut self, kind: u16, channel: u16) {
        self.put(0, &RecordHeader { len: self.len, kind, channel }.encode());
        match self.staged {
            Some(_) => self.producer.keep(self.pad, self.whole),
            None => self.producer.advance(self.pad + self.whole, 1),
        }
        crash::here(Point::Committed);
    }
}

/// Bytes in a ring whose writer may change them at any time.
#[derive(Clone, Debug)]
pub struct RingSlice {
    map: Shared<Map>,
    at: usize,
    len: usize,
}

impl RingSlice {
    /// Bytes that lie inside of a map.
    pub(crate) fn new(map: Shared<Map>, at: usize, len: usize) -> RingSlice {
        RingSlice { map, at, len }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies bytes from `at` on; returns how many there were, at most `into` holds.
    pub fn copy_to(&self, at: usize, into: &mut [u8]) -> usize {
        let n = into.len().min(self.len.saturating_sub(at));
        if n > 0 {
            self.map.read(self.at + at, &mut into[..n]);
        }
        n
    }

    /// A copy.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = vec![0; self.len];
        self.copy_to(0, &mut copy);
        copy
    }

    /// Four bytes at `at`, little end first, read once.
    #[inline]
    pub fn get_u32(&self, at: usize) -> Option<u32> {
        let mut bytes = [0; 4];
        (self.copy_to(at, &mut bytes) == 4).then(|| u32::from_le_bytes(bytes))
    }

    /// Eight bytes at `at`, little end first, read once.
    #[inline]
    pub fn get_u64(&self, at: usize) -> Option<u64> {
        let place = self.at + at;
        if place.is_multiple_of(8) && self.len.checked_sub(8).is_some_and(|last| at <= last) {
            return Some(u64::from_le(self.map.load_u64(place)));
        }
        let mut bytes = [0; 8];
        (self.copy_to(at, &mut bytes) == 8).then(|| u64::from_le_bytes(bytes))
    }
}

/// A record that was read and not given back.
#[derive(Debug)]
pub struct Borrowed {
    /// Its header, as copied once.
    pub header: RecordHeader,
    /// Its payload, in the ring.
    pub payload: RingSlice,
    /// Its sequence number.
    pub seq: u32,
    end: u32,
}

/// The reading end of a ring of records: a [`Consumer`], owned or borrowed.
#[derive(Debug)]
pub struct Records<C: BorrowMut<Consumer> = Consumer>(C);

impl<C: BorrowMut<Consumer>> Records<C> {
    /// Reads records from a ring.
    pub fn new(consumer: C) -> Records<C> {
        Records(consumer)
    }

    /// The ring under it.
    pub fn ring(&mut self) -> &mut Consumer {
        self.0.borrow_mut()
    }

    /// The next record, in place. It stays the reader's until [`Records::give_back`].
    pub fn borrow(&mut self) -> Result<Option<Borrowed>, Scribbled> {
        let ring = self.ring();
        loop {
            let available = ring.available(1)?;
            if available == 0 {
                ring.settle();
                return Ok(None);
            }
            let (map, at, to_end) = ring.place();
            if available < RECORD_HEADER_BYTES || to_end < RECORD_HEADER_BYTES {
                return Err(Scribbled);
            }
            let header = RecordHeader::decode(ring.next_word().to_le_bytes());
            let whole = header.whole(available.min(to_end)).ok_or(Scribbled)?;
            if header.kind == PAD {
                if whole != to_end {
                    return Err(Scribbled);
                }
                ring.skip(whole, 0);
                continue;
            }
            ring.skip(whole, 1);
            let at = at + RECORD_HEADER_BYTES as usize;
            let payload = RingSlice { map, at, len: header.len as usize };
            let (seq, end) = (ring.seq(), ring.position());
            crash::here(Point::Borrowed);
            return Ok(Some(Borrowed { header, payload, seq, end }));
        }
    }

    /// Gives a record and all before it back to the producer, who sees it when that is worth it: an
    /// eighth of the ring later, or when [`Records::borrow`] finds nothing more, or after
    /// [`Consumer::settle`].
    #[inline]
    pub fn give_back(&mut self, record: Borrowed) {
        self.ring().give_to(record.end);
    }

    /// Copies what is published into private memory, at once, and gives it back to the producer;
    /// `each` sees one record after the other. For peers that are not trusted, and for small
    /// records, whose headers lie side by side then. Returns how many records it was: of more than
    /// 64 KiB the first ones, so call again until it is none.
    pub fn drain(
        &mut self,
        private: &mut Vec<u8>,
        mut each: impl FnMut(RecordHeader, &[u8]),
    ) -> Result<usize, Scribbled> {
        let ring = self.ring();
        let available = ring.available(u32::MAX)?;
        if available == 0 {
            return Ok(0);
        }
        let start = ring.position();
        let mut copied = available.min(DRAIN_BYTES);
        if available > copied && available >= RECORD_HEADER_BYTES {
            // The first one whole, however large it says it is; that is checked below.
            let first = RecordHeader::decode(ring.next_word().to_le_bytes());
            copied = first.whole(available).unwrap_or(0).clamp(copied, available);
        }
        if private.len() < copied as usize {
            private.resize(copied as usize, 0);
        }
        ring.peek(0, &mut private[..copied as usize]);
        let (mut at, mut records) = (0, 0);
        while at < copied {
            let Some(header) = private[at as usize..copied as usize].first_chunk() else { break };
            let header = RecordHeader::decode(*header);
            let to_end = ring.capacity() - (start.wrapping_add(at) & (ring.capacity() - 1));
            let whole = header.whole((available - at).min(to_end)).ok_or(Scribbled)?;
            if header.kind == PAD {
                if whole != to_end {
                    return Err(Scribbled);
                }
            } else if whole > copied - at {
                break;
            } else {
                let from = (at + RECORD_HEADER_BYTES) as usize;
                each(header, &private[from..from + header.len as usize]);
                records += 1;
            }
            at += whole;
        }
        if at == 0 {
            return Err(Scribbled);
        }
        ring.skip(at, records);
        ring.release();
        Ok(records as usize)
    }
}
