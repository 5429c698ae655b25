//! Rings that go through a relay and outlive it.
//!
//! ```text
//!   process S                     relay                             process D
//!   Outlet ====== data =========> OutletReader   InletWriter ======> Inlet
//!     ^                               |              ^                 |
//!     '--- control: acked, sent ------'              '----- head ------'
//! ```
//!
//! A relay keeps nothing of its own: everything that a new one must know stands in two words that
//! the processes own. The publish word of each ring holds the sequence number of its last record
//! and its position in one ([`Published`]), so that no crash comes between the two.
//!
//! **The sender's ring.** Its data is read-only for the relay. What the relay has to say goes into
//! a control page, a fresh one for each attachment: up to which record the receiver has it
//! (`acked`), which was the last that may have left (`sent`), and to which incarnation of the
//! receiver they went (`bound`). Space is written over up to the largest `acked` of the current
//! page. An older page is read for `sent` and `bound` only, whatever a relay that comes back
//! writes there.
//!
//! **The receiver's ring.** The relay writes records and publishes them by one compare-exchange.
//! [`Inlet::hand_over`] freezes the word: what it says then is stored, and nothing is afterwards.
//! The records that are unread go into a fresh segment, since the old relay may still be amid a
//! copy. Its head holds the number of the last record whose callback has returned.
//!
//! **Trust.** Each side checks what the other may write once, in a private copy, and ends with
//! [`Scribbled`]; it never panics over it, and never reads or writes outside of a ring.
//!
//! What was decided here, beside the protocol:
//! - A mark (`acked`, `head`) is the end of a record, never of the filler before the ring's end.
//!   It moves its number and its position together, and onwards only; anything else is a scribble.
//! - [`Outlet::written`] counts records that are pushed and not yet published.
//!   [`OutletReader::written`] and [`Inlet::stored`] are of what is published.
//! - `news` says whether the publish word has changed since this side last looked at it, not
//!   whether something is left. Reading, `written` and `walk` look.
//! - A skipped range is one record of kind [`SKIP`] with its count as payload, which only
//!   [`InletWriter::skip`] writes: where a sender's ring has one, the sender has scribbled. It
//!   takes [`SKIP_BYTES`] of the credit, which both relays must count.
//! - Who has failed with [`Scribbled`] may be asked again, and says so again or goes on with what
//!   became sane; nothing that came of nonsense is let out.
//! - In a forked child none of these maps is there: ask [`Fork`](crate::map::Fork) before any call.
//! - Numbers and positions wrap. Whoever compares numbers takes their wrapping difference.
//! - The page of a relay that was let go more than [`PAGES_MAX`] attachments ago is read no more.

mod inlet;
mod layout;
#[cfg(all(loom, test))]
mod model;
#[cfg(feature = "mutants")]
pub mod mutant;
#[cfg(not(feature = "mutants"))]
#[path = "no_mutant.rs"]
pub(crate) mod mutant;
mod outlet;
mod reader;
mod run;
#[cfg(all(test, not(loom)))]
mod wrap;
mod writer;

use std::fmt;

use crate::layout::Bad;
use crate::record::{MORE, PAD};
use crate::ring::distance;

pub use crate::ring::{Published, Scribbled};
pub use inlet::{Flow, Inlet};
pub use layout::{CONTROL_BYTES, inlet_bytes, outlet_bytes};
pub use outlet::{Outlet, PAGES_MAX, RECORD_BYTES_MAX, Undelivered};
pub use reader::{Batch, LARGE_BYTES, OutletReader};
pub use writer::InletWriter;

/// The kind of a record that stands for a range of numbers whose messages will not come.
pub const SKIP: u16 = 4;

/// Bytes of a whole record of that kind, which count as any other record's where room was promised.
pub const SKIP_BYTES: u32 = 16;

/// Whether a kind means something to rings themselves.
fn is_reserved(kind: u16) -> bool {
    kind & 0xff == SKIP || kind | MORE == PAD | MORE
}

/// Why a segment that somebody else made is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unfit {
    /// It is no such segment, or of another version or size.
    Header(Bad),
    /// Its counters contradict each other.
    Scribbled,
    /// It was taken over: another one has its place.
    Frozen,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Header(Bad::Magic) => f.write_str("the memory is no segment of this kind"),
            Unfit::Header(Bad::Version | Bad::Features) => {
                f.write_str("the segment is of another version; run the same ringlane on both ends")
            }
            Unfit::Header(Bad::Ring | Bad::Size) => {
                f.write_str("the segment has not the size that its header says")
            }
            Unfit::Scribbled => f.write_str("the counters of the segment contradict each other"),
            Unfit::Frozen => f.write_str("the segment was handed over: another one has its place"),
        }
    }
}

impl std::error::Error for Unfit {}

impl From<Scribbled> for Unfit {
    fn from(_: Scribbled) -> Unfit {
        Unfit::Scribbled
    }
}

impl From<Bad> for Unfit {
    fn from(bad: Bad) -> Unfit {
        Unfit::Header(bad)
    }
}

/// Why a relay has not found a record in a sender's ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Missed {
    /// The ring does not hold that number: whoever named it is mistaken.
    NoSuchRecord,
    /// The sender's ring says nonsense.
    Scribbled,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missed::NoSuchRecord => "the sender's ring does not hold a record of that number",
            Missed::Scribbled => "the sender wrote nonsense into its ring",
        })
    }
}

impl std::error::Error for Missed {}

impl From<Scribbled> for Missed {
    fn from(_: Scribbled) -> Missed {
        Missed::Scribbled
    }
}

/// Why records are not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unstored {
    /// There is no room; nothing was written.
    NoRoom,
    /// They are no whole records, or one is larger than the ring takes; nothing was written.
    Malformed,
    /// The receiver's counter is impossible.
    Scribbled,
}

impl fmt::Display for Unstored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unstored::NoRoom => "the receiver's ring is full: more came than was granted",
            Unstored::Malformed => "the bytes are no whole records that the ring may take",
            Unstored::Scribbled => "the receiver wrote nonsense into its ring",
        })
    }
}

impl std::error::Error for Unstored {}

impl From<Scribbled> for Unstored {
    fn from(_: Scribbled) -> Unstored {
        Unstored::Scribbled
    }
}

/// Why nothing is published any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The receiver has taken the ring away: another relay has its place, this one says nothing
    /// more.
    Frozen,
    /// The receiver wrote nonsense into the publish word.
    Scribbled,
}

/// Takes over what the other side says of how far it is: the end of a record, not before `seen` and
/// not behind `until`.
fn follow(seen: &mut Published, word: u64, until: Published) -> Result<bool, Scribbled> {
    if word == seen.word() {
        return Ok(false);
    }
    let found = Published::of(word);
    let (records, bytes) = (found.seq.wrapping_sub(seen.seq), distance(seen.pos, found.pos));
    let inside =
        records <= until.seq.wrapping_sub(seen.seq) && bytes <= distance(seen.pos, until.pos);
    let moves = records > 0 && bytes > 0;
    // Who has everything is where the ring's writer is, and nobody else.
    let level = (found.seq == until.seq) == (found.pos == until.pos);
    if found.frozen || !inside || !moves || !level || !found.pos.is_multiple_of(8) {
        return Err(Scribbled);
    }
    *seen = found;
    Ok(true)
}
