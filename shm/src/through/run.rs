//! Runs of records: taken out of a ring by one copy, checked in the copy.

use super::{SKIP, is_reserved};
use crate::record::{PAD, RECORD_HEADER_BYTES, RecordHeader};
use crate::ring::{Consumer, Published, Scribbled, distance, forward};

/// What was taken out of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Run {
    /// Bytes of records, without filler.
    pub bytes: u32,
    pub records: u32,
    /// Every bit that some record has in its kind.
    pub kinds: u16,
    /// The end of the last record.
    pub end: Option<Published>,
}

/// Looks at the publish word; returns how many bytes lie there. Every number of a record that is
/// there is less than those bytes' eighth away, skipped ones aside.
pub(super) fn look(ring: &mut Consumer, skips: bool) -> Result<u32, Scribbled> {
    let there = ring.available(u32::MAX)?;
    let records = ring.seen().seq.wrapping_sub(ring.seq());
    let many = if skips { 1 << 31 } else { there / RECORD_HEADER_BYTES };
    let level = (there == 0) == (records == 0);
    if !there.is_multiple_of(8) || records > many || !level {
        return Err(Scribbled);
    }
    Ok(there)
}

/// Bytes of a whole record that lies before the end of the ring and inside of what is there.
pub(super) fn whole(header: RecordHeader, there: u32, to_end: u32) -> Result<u32, Scribbled> {
    let whole = header.whole(there.min(to_end)).ok_or(Scribbled)?;
    if header.kind == PAD && whole != to_end { Err(Scribbled) } else { Ok(whole) }
}

/// The header at the next position, of `there` bytes that are there, and its record's bytes.
pub(super) fn next(ring: &Consumer, there: u32) -> Result<(RecordHeader, u32), Scribbled> {
    let header = RecordHeader::decode(ring.next_word().to_le_bytes());
    Ok((header, whole(header, there, ring.to_end(ring.position()))?))
}

/// The header of the record that begins at an offset of private memory.
#[inline]
pub(super) fn header_at(bytes: &[u8], at: usize) -> Option<RecordHeader> {
    bytes.get(at..)?.first_chunk().map(|header| RecordHeader::decode(*header))
}

/// Which records may be in a ring, and how large.
#[derive(Clone, Copy, Debug)]
pub(super) struct Law {
    /// Ranges may be skipped.
    pub skips: bool,
    /// Bytes of a whole record at most.
    pub whole_max: u32,
}

impl Law {
    /// How many numbers a record stands for, whose payload begins at `at`.
    #[inline]
    pub fn count(self, header: RecordHeader, whole: u32, payload: &[u8]) -> Result<u32, Scribbled> {
        if whole > self.whole_max {
            return Err(Scribbled);
        }
        if !is_reserved(header.kind) {
            return Ok(1);
        }
        match payload.first_chunk() {
            Some(count) if self.skips && header.kind == SKIP && header.len == 4 => {
                Ok(u32::from_le_bytes(*count))
            }
            _ => Err(Scribbled),
        }
    }
}

/// Moves whole records out of a ring to the end of `out`, of `there` bytes at most `most`.
pub(super) fn take(
    ring: &mut Consumer,
    law: Law,
    there: u32,
    most: u32,
    out: &mut Vec<u8>,
) -> Result<Run, Scribbled> {
    let (mut run, mut there) = (Run::default(), there);
    while there > 0 {
        // Records are taken whole, so what is left of a multiple of eight is one, too.
        let most = (most & !7) - run.bytes;
        let piece = there.min(ring.to_end(ring.position())).min(most);
        let (taken, ended) = take_piece(ring, law, (there, piece), &mut run, out)?;
        there -= taken;
        if ended {
            break;
        }
    }
    let left = ring.seen().seq.wrapping_sub(ring.seq());
    if (there == 0) != (left == 0) || (!law.skips && left > there / RECORD_HEADER_BYTES) {
        return Err(Scribbled);
    }
    Ok(run)
}

/// The same up to the end of the ring; returns how many bytes of the ring it was, and whether
/// that is all for now.
fn take_piece(
    ring: &mut Consumer,
    law: Law,
    (there, piece): (u32, u32),
    run: &mut Run,
    out: &mut Vec<u8>,
) -> Result<(u32, bool), Scribbled> {
    let (start, to_end) = (out.len(), ring.to_end(ring.position()));
    ring.append(piece, out);
    let (mut at, mut records, mut pad) = (0, 0_u32, 0);
    while let Some(header) = header_at(&out[start..], at as usize) {
        let whole = whole(header, there - at, to_end - at)?;
        if header.kind == PAD {
            pad = whole;
            break;
        }
        if whole > piece - at {
            break;
        }
        let payload = start + (at + RECORD_HEADER_BYTES) as usize;
        records = records.wrapping_add(law.count(header, whole, &out[payload..])?);
        run.kinds |= header.kind;
        at += whole;
    }
    out.truncate(start + at as usize);
    run.bytes += at;
    run.records = run.records.wrapping_add(records);
    let end = Published { seq: ring.seq().wrapping_add(records), ..here(ring, at) };
    if at > 0 {
        run.end = Some(end);
    }
    ring.skip(at + pad, records);
    Ok((at + pad, at + pad < to_end))
}

fn here(ring: &Consumer, ahead: u32) -> Published {
    Published { seq: ring.seq(), frozen: false, pos: forward(ring.position(), ahead) }
}

/// Walks from the end of one record to that of number `to`, by headers alone.
pub(super) fn walk(ring: &Consumer, from: Published, to: u32) -> Result<Published, Scribbled> {
    let until = ring.seen().pos;
    let mut end = from;
    let mut pos = from.pos;
    while end.seq != to {
        let there = distance(pos, until);
        if there < RECORD_HEADER_BYTES || there > ring.capacity() {
            return Err(Scribbled);
        }
        let header = RecordHeader::decode(ring.word_at(pos).to_le_bytes());
        let whole = whole(header, there, ring.to_end(pos))?;
        pos = forward(pos, whole);
        if header.kind != PAD {
            end = Published { seq: end.seq.wrapping_add(1), frozen: false, pos };
        }
    }
    Ok(end)
}
