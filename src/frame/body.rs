//! The records in a DATA frame.
//!
//! ```text
//!   | len u32 | kind u16 | channel u16 | payload, padded to 8 |  back to back
//! ```
//!
//! They are as in a ring, without its padding at the end. A body lies in one piece mostly; one
//! that was received in several is shown in several, and only records that lie across a seam are
//! copied.

use std::fmt;

use crate::Evbuffer;

/// Bytes before a record's payload.
const RECORD_HEADER_BYTES: usize = 8;

/// The kind that fills up a ring; it has no place on the wire.
const PAD: u16 = 0x7fff;

/// The body of a DATA frame.
#[derive(Clone, Copy)]
pub struct Body<'a>(Lies<'a>);

#[derive(Clone, Copy)]
enum Lies<'a> {
    InOne(&'a [u8]),
    /// The first so many bytes of a buffer.
    InPieces(&'a Evbuffer, usize),
}

/// The header of a record that lies whole in a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Bytes of payload.
    pub len: u32,
    /// The user's kind and its flags.
    pub kind: u16,
    /// The channel.
    pub channel: u16,
}

impl Record {
    fn of([a, b, c, d, e, f, g, h]: [u8; RECORD_HEADER_BYTES]) -> Record {
        Record {
            len: u32::from_le_bytes([a, b, c, d]),
            kind: u16::from_le_bytes([e, f]),
            channel: u16::from_le_bytes([g, h]),
        }
    }

    /// Its bytes, header and padding and all.
    pub fn whole(self) -> usize {
        (self.len as usize + RECORD_HEADER_BYTES + 7) & !7
    }

    fn check(self, left: usize, record_bytes_max: u32) -> Result<usize, BadRecord> {
        if self.len > record_bytes_max {
            return Err(BadRecord::TooLong { len: self.len, most: record_bytes_max });
        }
        if self.kind == PAD {
            return Err(BadRecord::Pad);
        }
        if self.whole() > left { Err(BadRecord::Cut) } else { Ok(self.whole()) }
    }
}

/// What is wrong with a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BadRecord {
    /// A record is longer than the receiver's ring takes.
    TooLong {
        /// Its payload.
        len: u32,
        /// A payload's most.
        most: u32,
    },
    /// The last record is not whole.
    Cut,
    /// The filler of a ring.
    Pad,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRecord::TooLong { len, most } => {
                write!(f, "a record of {len} bytes, where at most {most} fit")
            }
            BadRecord::Cut => f.write_str("the last record is cut"),
            BadRecord::Pad => f.write_str("a ring's filler stands where a record should"),
        }
    }
}

impl std::error::Error for BadRecord {}

impl<'a> Body<'a> {
    /// Records that lie in one piece.
    pub fn new(records: &'a [u8]) -> Body<'a> {
        Body(Lies::InOne(records))
    }

    pub(super) fn received(input: &'a Evbuffer, len: usize) -> Body<'a> {
        match input.front() {
            Some(front) if front.bytes().len() >= len => Body::new(&front.bytes()[..len]),
            _ => Body(Lies::InPieces(input, len)),
        }
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        match self.0 {
            Lies::InOne(bytes) => bytes.len(),
            Lies::InPieces(_, len) => len,
        }
    }

    /// Whether it has no bytes; a received one has some.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it, if it lies in one piece.
    pub fn in_one(&self) -> Option<&'a [u8]> {
        match self.0 {
            Lies::InOne(bytes) => Some(bytes),
            Lies::InPieces(..) => None,
        }
    }

    /// Its bytes as they lie in memory.
    pub fn slices(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (one, pieces) = match self.0 {
            Lies::InOne(bytes) => (Some(bytes), None),
            Lies::InPieces(input, len) => (None, Some(input.peek(len))),
        };
        one.into_iter().chain(pieces.into_iter().flatten())
    }

    /// The headers of its records, one after the other, each checked; ends after a bad one.
    pub fn records(&self, record_bytes_max: u32) -> Records<'a> {
        Records { body: *self, at: 0, record_bytes_max }
    }

    /// Shows its records in runs: whole records back to back in one piece of memory, and how many.
    /// What lies across a seam is put together in `scratch`. A bad record ends it; those in front
    /// of it have been shown by then. Says how many records there were.
    ///
    /// ```
    /// use ringlane::frame::Body;
    /// let two = [3, 0, 0, 0, 1, 0, 9, 0, b'a', b'b', b'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9, 0];
    /// let mut scratch = Vec::new();
    /// let shown = Body::new(&two).runs(64, &mut scratch, |run, records| {
    ///     assert_eq!((run, records), (&two[..], 2));
    /// });
    /// assert_eq!(shown, Ok(2));
    /// ```
    pub fn runs(
        &self,
        record_bytes_max: u32,
        scratch: &mut Vec<u8>,
        mut each: impl FnMut(&[u8], u32),
    ) -> Result<u32, BadRecord> {
        let (mut left, mut total) = (self.len(), 0);
        scratch.clear();
        for mut slice in self.slices() {
            if !scratch.is_empty() {
                slice = mend(scratch, slice, left, record_bytes_max)?;
                let Some(whole) = whole(scratch, left, record_bytes_max)? else { continue };
                debug_assert_eq!(whole, scratch.len());
                each(scratch, 1);
                (left, total) = (left - whole, total + 1);
                scratch.clear();
            }
            let (run, records, bad) = run(slice, left, record_bytes_max);
            if records > 0 {
                each(&slice[..run], records);
                (left, total) = (left - run, total + records);
            }
            if let Some(bad) = bad {
                return Err(bad);
            }
            scratch.extend_from_slice(&slice[run..]);
        }
        if scratch.is_empty() { Ok(total) } else { Err(BadRecord::Cut) }
    }
}

/// The bytes of the record at the front of `bytes`, as soon as its header is there and if all of
/// it is.
fn whole(bytes: &[u8], left: usize, most: u32) -> Result<Option<usize>, BadRecord> {
    let Some(header) = bytes.first_chunk() else { return Ok(None) };
    let whole = Record::of(*header).check(left, most)?;
    Ok((whole <= bytes.len()).then_some(whole))
}

/// Moves what the record in `scratch` lacks over to it; returns what is left of `slice`.
fn mend<'a>(
    scratch: &mut Vec<u8>,
    mut slice: &'a [u8],
    left: usize,
    most: u32,
) -> Result<&'a [u8], BadRecord> {
    let mut take = |scratch: &mut Vec<u8>, up_to: usize| {
        let n = up_to.saturating_sub(scratch.len()).min(slice.len());
        scratch.extend_from_slice(&slice[..n]);
        slice = &slice[n..];
    };
    take(scratch, RECORD_HEADER_BYTES);
    if let Some(header) = scratch.first_chunk() {
        let whole = Record::of(*header).check(left, most)?;
        take(scratch, whole);
    }
    Ok(slice)
}

/// How many bytes at the front of `slice` are whole records, how many these are, and what is wrong
/// with the next.
fn run(slice: &[u8], left: usize, most: u32) -> (usize, u32, Option<BadRecord>) {
    let (mut at, mut records) = (0, 0);
    loop {
        match whole(&slice[at..], left - at, most) {
            Ok(Some(whole)) => (at, records) = (at + whole, records + 1),
            Ok(None) => return (at, records, None),
            Err(bad) => return (at, records, Some(bad)),
        }
    }
}

/// See [`Body::records`].
pub struct Records<'a> {
    body: Body<'a>,
    at: usize,
    record_bytes_max: u32,
}

impl Iterator for Records<'_> {
    type Item = Result<Record, BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.body.len() - self.at;
        if left == 0 {
            return None;
        }
        let mut header = [0; RECORD_HEADER_BYTES];
        let found = match self.body.0 {
            Lies::InOne(bytes) => match bytes[self.at..].first_chunk() {
                Some(there) => {
                    header = *there;
                    true
                }
                None => false,
            },
            Lies::InPieces(input, _) if left >= RECORD_HEADER_BYTES => {
                input.copyout_from(self.at, &mut header) == RECORD_HEADER_BYTES
            }
            Lies::InPieces(..) => false,
        };
        let record = Record::of(header);
        let checked = match found {
            true => record.check(left, self.record_bytes_max),
            false => Err(BadRecord::Cut),
        };
        self.at = checked.map_or(self.body.len(), |whole| self.at + whole);
        Some(checked.map(|_| record))
    }
}

impl PartialEq for Body<'_> {
    fn eq(&self, other: &Body<'_>) -> bool {
        self.len() == other.len() && self.slices().flatten().eq(other.slices().flatten())
    }
}

impl Eq for Body<'_> {}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.len())
    }
}
