//! Records shown one after the other, each given back when whoever sees it has returned: so the
//! reader's counter says how many were seen to the end, whenever the reader dies.

use std::borrow::BorrowMut;

use crate::record::{PAD, RECORD_HEADER_BYTES, RecordHeader, Records};
use crate::ring::{Consumer, Scribbled};
use crate::through::Flow;

/// Bytes that are copied at a time, as in [`Records::drain`].
const PIECE_BYTES: u32 = 64 << 10;

/// With fewer records than these to be shown, only as much is copied as they may be.
const FEW: u32 = 8;

/// Bytes for each of few.
const FEW_BYTES: u32 = 1 << 10;

impl<C: BorrowMut<Consumer>> Records<C> {
    /// Copies records into `private`, many at once, and shows them with their numbers; each is
    /// given back when `each` has returned. Returns how many were shown, `most` at most.
    ///
    /// # Errors
    /// The writer wrote nonsense; what was shown before it is given back.
    pub fn walk(
        &mut self,
        private: &mut Vec<u8>,
        most: u32,
        mut each: impl FnMut(u32, RecordHeader, &[u8]) -> Flow,
    ) -> Result<u32, Scribbled> {
        let ring = self.ring();
        let mut there = ring.available(u32::MAX)?;
        let mut shown = 0;
        while there > 0 && shown < most {
            let piece = piece(ring, there, most - shown)?;
            private.clear();
            ring.append(piece, private);
            let before = there;
            let flow = show(ring, private, &mut there, (&mut shown, most), &mut each)?;
            if flow == Flow::Stop {
                break;
            }
            // The header has changed since the piece was measured.
            if there == before {
                return Err(Scribbled);
            }
        }
        Ok(shown)
    }
}

/// How many bytes to copy of those that are there: at least the first record.
fn piece(ring: &Consumer, there: u32, records: u32) -> Result<u32, Scribbled> {
    if there < RECORD_HEADER_BYTES {
        return Err(Scribbled);
    }
    let all = there.min(ring.to_end(ring.position()));
    let header = RecordHeader::decode(ring.next_word().to_le_bytes());
    let first = header.whole(all).ok_or(Scribbled)?;
    let most = if records < FEW { records * FEW_BYTES } else { PIECE_BYTES };
    Ok(all.min(most).max(first))
}

fn show(
    ring: &mut Consumer,
    piece: &[u8],
    there: &mut u32,
    (shown, most): (&mut u32, u32),
    each: &mut impl FnMut(u32, RecordHeader, &[u8]) -> Flow,
) -> Result<Flow, Scribbled> {
    let mut at = 0;
    while *shown < most
        && let Some(header) = piece.get(at..).and_then(|rest| rest.first_chunk())
    {
        let header = RecordHeader::decode(*header);
        let to_end = ring.to_end(ring.position());
        let whole = header.whole((*there).min(to_end)).ok_or(Scribbled)?;
        if header.kind == PAD {
            if whole != to_end {
                return Err(Scribbled);
            }
            ring.skip(whole, 0);
            *there -= whole;
            break;
        }
        if whole as usize > piece.len() - at {
            break;
        }
        let from = at + RECORD_HEADER_BYTES as usize;
        let seq = ring.seq().wrapping_add(1);
        let flow = each(seq, header, &piece[from..from + header.len as usize]);
        ring.skip(whole, 1);
        ring.release();
        *shown += 1;
        at += whole as usize;
        *there -= whole;
        if flow == Flow::Stop {
            return Ok(Flow::Stop);
        }
    }
    Ok(Flow::Go)
}
