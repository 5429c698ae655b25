//! Ratios of ringlane to its peers, from runs that are interleaved round by round.
//!
//! ```text
//!   versus.rs -- cells, servers --> cell.rs --spawns--> server process (core 0)
//!                                     |                      ^
//!                                     +--> load.rs ==========+    one thread, every byte known
//!                                     |
//!                                     +--> stats.rs: ratios inside a round, then their median
//! ```
//!
//! The invariant of every figure: both sides of a ratio were measured in the same round, by the
//! same generator thread, and no figure is kept from a run in which a byte was missing or wrong.
//! `METHOD.md` says why.

#![forbid(unsafe_code)]

pub mod board;
pub mod cell;
pub mod count;
pub mod link;
pub mod load;
pub mod peer;
pub mod pin;
pub mod report;
pub mod resident;
pub mod server;
pub mod stats;
pub mod table;
pub mod talk;
