//! The simulator: a kernel in memory with virtual time and seeded moods.
//!
//! ```text
//!   SimReactor --ops--> State { descriptors, sockets, names, wire } <--ops-- SimReactor
//!        ^                          |                                           ^
//!        +-- due completions -- virtual clock (moves only inside `turn`) -------+
//! ```
//!
//! A [`World`] holds everything; any number of reactors of one thread may live in it. The
//! invariant: nothing in it depends on real time, on addresses in memory or on hash order, so
//! that a seed replays exactly. Descriptor numbers are given out lowest first, as a kernel does,
//! so that a forgotten one is met again soon.

mod desc;
mod fault;
mod files;
mod flight;
mod memory;
mod names;
mod reactor;
mod rng;
mod socket;
mod step;
mod sys;
mod wire;
mod world;

pub use fault::{Fault, Faults, Tally};
pub use reactor::SimReactor;
pub use rng::Rng;
pub use world::{Setup, World};
