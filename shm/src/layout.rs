//! What lies where in a segment, and what is believed of one that a stranger made.
//!
//! ```text
//!   page 0   header: written once by the connector, copied once by the acceptor, then never read
//!   page 1   lane 0: word, state | head, cpu      lane 1 likewise      announce 0 | announce 1
//!   page 2   ring of lane 0 (connector to acceptor), then that of lane 1
//! ```
//!
//! Each counter has 128 bytes to itself: processors fetch lines in pairs. Everything in page 1 and
//! behind it may change at any time to anything; what is read there is read once and checked.

/// A page; rings begin on one.
pub const PAGE: usize = 4096;

/// Smallest ring, in bytes.
pub const RING_BYTES_MIN: u32 = 4096;

/// Largest ring, in bytes: positions count modulo 2^31, and reading them must stay unambiguous.
pub const RING_BYTES_MAX: u32 = 64 << 20;

/// Ring per direction where the address does not say, in bytes.
pub const RING_BYTES: u32 = 64 << 10;

const _: () = assert!(RING_BYTES_MAX < 1 << 30, "a lapped counter must be told from a full ring");
const _: () = assert!(RING_BYTES_MIN as usize == PAGE, "rings are whole pages");

const LINE: usize = 128;
const LANE: usize = 4 * LINE;
const ANNOUNCE: usize = PAGE + 2 * LANE;
const RINGS: usize = 2 * PAGE;

const _: () = assert!(ANNOUNCE + 2 * LINE <= RINGS, "the counters fit in their page");

/// Where one direction's counters and bytes are: offsets from the beginning of the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lane {
    /// The publish word (u64).
    pub word: usize,
    /// The producer's state (u32), beside the word.
    pub state: usize,
    /// The consumer's position (u64).
    pub head: usize,
    /// The processor on which the consumer was seen (u32), beside its position.
    pub cpu: usize,
    /// The first byte of the ring.
    pub ring: usize,
    /// Bytes of the ring, a power of two.
    pub cap: u32,
}

/// The header, as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Bytes of each ring.
    pub cap: u32,
    /// The memory file's id, told on the socket and in the segment: one cannot stand for another.
    pub nonce: u64,
    /// What the segment has beside two rings; see [`FEATURES`].
    pub features: u32,
}

/// Bytes of a header, in the segment and on the socket.
pub const HEADER_BYTES: usize = 40;

/// Features of segments that this build knows; none so far. Whoever does not know one that a
/// segment has refuses it, so that a bit may change what anything behind it means.
pub const FEATURES: u32 = 0;

const MAGIC: u64 = u64::from_le_bytes(*b"rnglane\x01");
const VERSION: u32 = 1;

/// Why a segment or a message about one is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    /// It does not begin as ours do.
    Magic,
    /// Another version of the layout.
    Version,
    /// Rings of a size that is none.
    Ring,
    /// The size is not what the header says.
    Size,
    /// It has features that this build does not know.
    Features,
}

impl Header {
    /// A header for rings of `cap` bytes each.
    pub const fn new(cap: u32, nonce: u64) -> Header {
        Header { cap, nonce, features: FEATURES }
    }

    /// As bytes, little end first.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.cap.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.nonce.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.segment_bytes().to_le_bytes());
        // Four bytes more are zero.
        bytes[32..36].copy_from_slice(&self.features.to_le_bytes());
        bytes
    }

    /// Reads a copy of one, and believes nothing.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, Bad> {
        let u64_at = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight"))
        };
        let u32_at = |at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes are four"))
        };
        if u64_at(0) != MAGIC {
            return Err(Bad::Magic);
        }
        if u32_at(8) != VERSION {
            return Err(Bad::Version);
        }
        let header = Header { cap: u32_at(12), nonce: u64_at(16), features: u32_at(32) };
        if header.features & !FEATURES != 0 || u32_at(36) != 0 {
            return Err(Bad::Features);
        }
        if !is_ring_size(header.cap) {
            return Err(Bad::Ring);
        }
        if header.segment_bytes() != u64_at(24) {
            return Err(Bad::Size);
        }
        Ok(header)
    }

    /// Bytes of the whole segment.
    pub const fn segment_bytes(&self) -> u64 {
        RINGS as u64 + 2 * self.cap as u64
    }

    /// Where a direction lies: 0 from the connector to the acceptor, 1 back.
    pub fn lane(&self, direction: usize) -> Lane {
        let at = PAGE + direction * LANE;
        Lane {
            word: at,
            state: at + 8,
            head: at + 2 * LINE,
            cpu: at + 2 * LINE + 8,
            ring: RINGS + direction * self.cap as usize,
            cap: self.cap,
        }
    }
}

/// Where a side's announce word lies: 0 the connector's, 1 the acceptor's.
pub fn announce(side: usize) -> usize {
    ANNOUNCE + side * LINE
}

/// Whether a ring may have so many bytes.
pub fn is_ring_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && (RING_BYTES_MIN..=RING_BYTES_MAX).contains(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_rings_share_no_byte_and_no_line() {
        let header = Header::new(RING_BYTES_MIN, 7);
        let (a, b) = (header.lane(0), header.lane(1));
        let mut lines = vec![a.word, a.head, b.word, b.head, announce(0), announce(1)];
        lines.iter_mut().for_each(|at| *at /= LINE);
        let before = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), before);
        assert!(announce(1) + LINE <= a.ring && a.ring + a.cap as usize == b.ring);
        assert_eq!(b.ring as u64 + u64::from(b.cap), header.segment_bytes());
    }

    #[test]
    fn a_header_that_says_something_else_is_refused() {
        let good = Header::new(RING_BYTES, 42);
        assert_eq!(Header::decode(&good.encode()), Ok(good));
        for (at, bad) in [
            (0, Bad::Magic),
            (8, Bad::Version),
            (12, Bad::Ring),
            (24, Bad::Size),
            (32, Bad::Features),
            (39, Bad::Features),
        ] {
            let mut bytes = good.encode();
            bytes[at] ^= 1;
            assert_eq!(Header::decode(&bytes), Err(bad));
        }
        for cap in [0, 1, 2048, 4095, 128 << 20, u32::MAX] {
            assert!(!is_ring_size(cap), "{cap}");
        }
        assert_eq!(Header::decode(&[0; HEADER_BYTES]), Err(Bad::Magic), "a punched hole");
    }
}
