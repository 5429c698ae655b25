//! Every bound of this crate: name with its unit last, a reason, and how it relates to its
//! neighbours.

use std::time::Duration;

use ringlane_api::limits;

use crate::layout::{HEADER_BYTES, Header, RING_BYTES, RING_BYTES_MAX, RING_BYTES_MIN};

/// Memory that this process may share with others before it refuses more, in bytes; counted apart
/// for links it dialled (it pays for those) and for links it accepted (it keeps those in memory).
/// Enough for 4,000 links of the default size, and an eighth of a small machine.
pub(crate) const BUDGET_BYTES: u64 = 1 << 30;

/// The part of it that one user has who is neither ours nor root: a stranger's hundreds of links
/// leave room for everybody else's.
pub(crate) const STRANGER_BUDGET_BYTES: u64 = BUDGET_BYTES / 4;

/// How long either side may take over a hand-over.
pub(crate) const HANDOVER: Duration = Duration::from_secs(5);

/// Connections of one listener that may be amid their hand-over. More than a turn can accept, so
/// that nobody who speaks at once is taken for silent because many came together.
pub(crate) const GUESTS_MAX: usize = 1024;

/// Descriptors that are kept of what came before the message is whole: one is wanted, and a second
/// shows that there were too many.
pub(crate) const FDS_MAX: usize = 2;

/// How often somebody looks whether a sleeping link should have been rung.
pub(crate) const SWEEP: Duration = Duration::from_secs(1);

/// Links that one look of the sweep takes: their rings are cold, and thousands at once would hold
/// the loop up for milliseconds. With more links the looks come more often.
pub(crate) const SWEEP_LINKS: usize = 256;

/// Smallest and largest segment, in bytes.
pub(crate) const SEGMENT_BYTES_MIN: u64 = segment_bytes(RING_BYTES_MIN);
const SEGMENT_BYTES_MAX: u64 = segment_bytes(RING_BYTES_MAX);

/// Bytes of the segment for rings of so many.
pub(crate) const fn segment_bytes(ring: u32) -> u64 {
    Header::new(ring, 0).segment_bytes()
}

const _: () = assert!(GUESTS_MAX >= 2 * limits::TURN_COMPLETIONS_MAX, "two turns' worth");
const _: () = assert!(BUDGET_BYTES >= 4000 * segment_bytes(RING_BYTES), "4,000 usual links");
const _: () = assert!(STRANGER_BUDGET_BYTES >= SEGMENT_BYTES_MAX, "even the largest link fits");
const _: () = assert!(HEADER_BYTES <= SEGMENT_BYTES_MIN as usize, "a segment has its header");
