//! Every bound of the house: name with its unit last, a reason, and how it relates to its
//! neighbours.

use std::time::Duration;

/// Bytes in a received block: the fairness quantum of a receive. 64 KiB blocks put 18 ms on a
/// neighbour's p99, 16 KiB ones 1 ms.
pub const BLOCK_BYTES: usize = 16 * 1024;

/// Blocks posted for receiving at first: about the size of L2, because a provided ring walks all
/// of its memory.
pub const RING_BLOCKS: usize = 64;

/// Blocks posted at most, when callbacks hold many of them.
pub const RING_BLOCKS_MAX: usize = 256;

/// Blocks kept at home when idle.
pub const HOME_BLOCKS_MAX: usize = 2 * RING_BLOCKS_MAX;

/// Blocks one link may have out; past them received bytes are copied.
pub const LEASE_BLOCKS_MAX: u32 = 8;

/// Bytes one armed receive may bring before others have their turn.
pub const ARM_BYTES: u32 = 32 * 1024;

/// The same for a link that keeps using it up.
pub const ARM_BYTES_MAX: u32 = 128 * 1024;

/// Bytes in a block of bulk mode.
pub const BULK_BLOCK_BYTES: usize = 256 * 1024;

/// Busy turns in which no bulk block comes home, after which a bulk receive that waits for a hot
/// one takes a cold one. A turn in which nothing happened ends the wait at once: blocks that a slow
/// peer keeps do not come back by waiting.
pub const BULK_PATIENCE_TURNS: u64 = 16;

/// Arms of the largest limit, used up in a row, after which a link goes over to bulk mode.
pub const BULK_AFTER_ARMS: u8 = 4;

/// Bytes in one turn that make an arm count for bulk mode: many messages of a block each, over many
/// turns, are better served by the ring.
pub const BULK_BURST_BYTES: u32 = 64 * 1024;

/// Emptied gather lists a transport keeps for its next sends.
pub const SPARE_LISTS_MAX: usize = 256;

/// Bulk blocks in use at a time while they come back soon. Few, so that they stay in the cache;
/// links take turns with them.
pub const BULK_HOT_BLOCKS: usize = 2;

/// Bulk blocks in use at most: 24 MiB. A peer that stops reading keeps two or three, and the links
/// beside it must not wait for those. Past the most bulk receives take small blocks.
pub const BULK_BLOCKS_MAX: usize = 96;

/// Bulk blocks kept at home when idle.
pub const BULK_HOME_BLOCKS_MAX: usize = 8;

/// Segments in one gathered send; the kernel's limit is 1,024 (UIO_MAXIOV).
pub const SEND_PARTS_MAX: usize = 64;

/// Bytes in one gathered send.
pub const SEND_BYTES_MAX: usize = 1024 * 1024;

/// Completions handled per turn before output is flushed, so that latency does not grow with the
/// number of ready connections.
pub const TURN_COMPLETIONS_MAX: usize = 512;

/// Rounds of sending and looking before the loop waits: what a transport finds there may make
/// output ready once more. After the last the loop looks without sleeping.
pub const SETTLE_ROUNDS_MAX: usize = 4;

/// Deferred callbacks per turn.
pub const TURN_DEFERRED_MAX: usize = 1024;

/// Bytes left in an input after its read callback that are copied out, so that a few bytes do not
/// pin a block.
pub const RESIDUE_BYTES_MAX: usize = 1024;

/// Bytes up to which a split copies instead of sharing.
pub const SPLIT_COPY_BYTES_MAX: usize = 2048;

/// Output above which a bufferevent stops reading from its peer (its own high watermark).
pub const OUTPUT_HIGH_BYTES: usize = 256 * 1024;

/// listen(2) backlog.
pub const BACKLOG: u32 = 4096;

/// One attempt to connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a freed bufferevent may go on sending without progress.
pub const LINGER: Duration = Duration::from_secs(30);

/// How long a listener pauses when descriptors have run out.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the set-up of a ring is tried again on ENOMEM: the memory-lock budget of a dead
/// process comes back after 20 to 150 ms, seldom later.
pub const SETUP_RETRY: Duration = Duration::from_secs(2);

/// Turns of at most a millisecond that a dropped base gives its connections to close.
pub const CLOSE_TURNS_MAX: usize = 100;

/// Descriptors in one message; the kernel's limit is 253 (SCM_MAX_FD).
pub const MESSAGE_FDS_MAX: usize = 64;

/// Priorities of an `EventBase`.
pub const PRIORITIES_MAX: usize = 16;

const _: () = assert!(ARM_BYTES as usize >= 2 * BLOCK_BYTES, "an arm fills at least two blocks");
const _: () = assert!(
    ARM_BYTES_MAX as usize * 8 <= RING_BLOCKS * BLOCK_BYTES,
    "one link may hold at most an eighth of the ring: four bulk links must not starve the rest"
);
const _: () = assert!(RING_BLOCKS_MAX.is_power_of_two(), "a provided ring has 2^n entries");
