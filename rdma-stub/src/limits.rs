//! The bounds of this transport, each with its reason.

use std::time::Duration;

/// Bytes in a posted receive, header included: half a block of the house, so that a link's
/// registered memory stays under 256 KiB.
pub const MESSAGE_BYTES: u32 = 8 * 1024;

/// The smallest message a peer may ask for; below it headers would be most of what travels.
pub const MESSAGE_BYTES_MIN: u32 = 64;

/// The largest message a peer may ask for: it bounds the memory that a hello can cost.
pub const MESSAGE_BYTES_MAX: u32 = 1024 * 1024;

/// Data messages that a peer may have on their way to us: with full messages 128 KiB, what one arm
/// of a busy TCP link may bring.
pub const WINDOW: u32 = 16;

/// The largest window a peer may announce: totals are compared modulo 2^32, and what a peer may
/// make us queue is bounded by it.
pub const WINDOW_MAX: u32 = 4096;

/// Data messages that may be in flight here, whatever the peer's window: half of it keeps the
/// device busy while the other half is filled.
pub const SENDS: u32 = 8;

/// Receives, and sends, that data can never use: two announcements of credit may be on their way
/// at a time (see [`credit`](crate::credit)), one end of stream, one goodbye.
pub const CONTROL: u32 = 4;

/// Completions handled before others have their turn.
pub const PROGRESS_COMPLETIONS_MAX: usize = 256;

/// Entries of the one completion queue of a reactor's device. Links whose work could overrun it
/// are refused: an overrun kills the device for everybody. Enough for 8,192 links.
pub const QUEUE_ENTRIES: u32 = 256 * 1024;

/// Bytes of messages that wait for room on a wire that is a stream: enough that its sender never
/// waits for us, a message more than that at most.
pub const WIRE_BYTES_MAX: usize = 256 * 1024;

/// Bytes per direction of the rings between processes of one host: seven full messages, so that
/// neither side waits for the other while both keep up.
pub const RING_BYTES: u32 = 64 * 1024;

/// How long a link that was closed here waits until the peer's device has its goodbye.
pub const LINGER: Duration = Duration::from_secs(5);

const _: () = assert!(MESSAGE_BYTES_MIN as usize > crate::message::HEADER_BYTES, "room for a byte");
const _: () = assert!(MESSAGE_BYTES_MIN <= MESSAGE_BYTES && MESSAGE_BYTES <= MESSAGE_BYTES_MAX);
const _: () = assert!(WINDOW <= WINDOW_MAX && WINDOW_MAX < 1 << 16, "totals stay comparable");
const _: () = assert!(QUEUE_ENTRIES >= WINDOW + SENDS + 2 * CONTROL, "at least one link fits");
