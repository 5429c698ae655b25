//! What lies where in the three kinds of segments.
//!
//! ```text
//!   outlet   | header | word                | ring |      the sender's; read-only for the relay
//!   control  | header   acked, cpu   sent   bound   let go |
//!                one page; the relay writes it, and the sender at the end
//!   inlet    | header | word     head, cpu  | ring |      both write it
//! ```

use crate::layout::{Bad, Lane, PAGE, is_ring_size};
use crate::map::Map;

/// Bytes of a control page.
pub const CONTROL_BYTES: usize = PAGE;

const LINE: usize = 128;
const WORD: usize = PAGE;
const HEAD: usize = PAGE + 2 * LINE;
const RING: usize = 2 * PAGE;

const ACKED: usize = 2 * LINE;
const ACKED_CPU: usize = ACKED + 8;

/// The number of the last record that may have left (u32).
pub(super) const SENT: usize = 4 * LINE;

/// The epoch of the receiver to which they went (u64).
pub(super) const BOUND: usize = 4 * LINE + 8;

/// Whether the sender has let go of this attachment (u32): its relay is to do nothing more for it.
pub(super) const LET_GO: usize = 6 * LINE;

const _: () = assert!(LET_GO + 4 <= CONTROL_BYTES && HEAD + 16 <= RING, "counters fit their pages");

const MAGIC: u64 = u64::from_le_bytes(*b"rngthru\x01");
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;

/// What a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Outlet = 1,
    Inlet = 2,
    Control = 3,
}

/// Bytes of the segment of an [`Outlet`](super::Outlet) whose ring has `cap` bytes.
pub const fn outlet_bytes(cap: u32) -> usize {
    RING + cap as usize
}

/// Bytes of the segment of an [`Inlet`](super::Inlet) whose ring has `cap` bytes.
pub const fn inlet_bytes(cap: u32) -> usize {
    RING + cap as usize
}

impl Kind {
    fn bytes(self, cap: u32) -> usize {
        match self {
            Kind::Outlet => outlet_bytes(cap),
            Kind::Inlet => inlet_bytes(cap),
            Kind::Control => CONTROL_BYTES,
        }
    }
}

fn header(kind: Kind, cap: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(kind as u32).to_le_bytes());
    bytes[16..20].copy_from_slice(&cap.to_le_bytes());
    bytes[24..].copy_from_slice(&(kind.bytes(cap) as u64).to_le_bytes());
    bytes
}

/// Makes a fresh segment, all zeros, one of a kind.
///
/// # Panics
/// Panics if a ring may not have that size, or the map has another one.
pub(super) fn found(map: &Map, kind: Kind, cap: u32) {
    assert!(is_ring_size(cap), "a ring has a power of two of bytes, 4 KiB to 64 MiB; not {cap}");
    assert_eq!(map.len(), kind.bytes(cap), "the segment is made as large as the ring needs it");
    map.write(0, &header(kind, cap));
}

/// Checks a segment that somebody else made, in a private copy; returns the bytes of its ring.
pub(super) fn check(map: &Map, kind: Kind) -> Result<u32, Bad> {
    let mut bytes = [0; HEADER_BYTES];
    if map.len() < CONTROL_BYTES {
        return Err(Bad::Size);
    }
    map.read(0, &mut bytes);
    let u32_at =
        |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes are four"));
    let cap = u32_at(16);
    let right = header(kind, cap);
    if bytes[..8] != right[..8] || bytes[12..16] != right[12..16] {
        return Err(Bad::Magic);
    }
    if bytes[8..12] != right[8..12] {
        return Err(Bad::Version);
    }
    if !is_ring_size(cap) {
        return Err(Bad::Ring);
    }
    if bytes != right || map.len() != kind.bytes(cap) {
        return Err(Bad::Size);
    }
    Ok(cap)
}

/// The same for a control page, whose header has the bytes of the ring that it belongs to.
pub(super) fn check_control(map: &Map) -> Result<u32, Bad> {
    check(map, Kind::Control)
}

/// Counters and bytes of a sender's ring; those of its reader lie in the control page.
pub(super) fn outlet(cap: u32) -> Lane {
    Lane { word: WORD, state: WORD + 8, head: ACKED, cpu: ACKED_CPU, ring: RING, cap }
}

/// Counters and bytes of a receiver's ring.
pub(super) fn inlet(cap: u32) -> Lane {
    Lane { word: WORD, state: WORD + 8, head: HEAD, cpu: HEAD + 8, ring: RING, cap }
}
