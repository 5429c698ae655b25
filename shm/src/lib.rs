//! The `shm://` transport and the rings it stands on.
//!
//! ```text
//!   transport.rs  what a base asks for                   link.rs    what a link has
//!   table.rs      links, and the Unix sockets inside
//!   handover.rs   how two ends come to share a segment   address.rs, budget.rs
//!   plain.rs      links that go on without one           death.rs   when the peer's process ends
//!   flow.rs       bytes of bufferevents in and out
//!   port.rs       records of a link, for its user
//!   spin.rs       looking again before sleep
//!   record.rs     records in a ring                      bell.rs    who sleeps, whom to ring
//!   walk.rs       records given back one by one
//!   ring.rs       a single-producer single-consumer ring of bytes
//!   through/      rings whose other end a relay has, and which outlive it
//!   layout.rs     what lies where, what is believed of it
//!   map.rs, map/  mapped memory a peer may write: atomics and checked copies (the unsafe room)
//!   crash.rs      where tests kill a process
//!   sync.rs       atomics: the processor's, or loom's in a model
//! ```
//!
//! `shm:///run/x.sock?ring=1MiB`, `shm://@name`. Parameters: `ring=` bytes per direction, a power
//! of two from 4KiB to 64MiB (64KiB); `uid=` another user who may be there; `mode=` the listener's
//! socket file's mode, and whoever may open it may come, otherwise both ends belong to one user,
//! or to root; `budget=` memory that this process may share (1GiB), `uid_budget=` what of it one
//! user at the other ends may have (all; a stranger 256MiB); `fallback=unix` goes on through the
//! socket where no memory can be had, if both ends say so. `face=records`, on both ends: the link
//! carries records and not a stream of bytes, see [`port`]. `spin=20us`, on either end: looks so
//! long before it sleeps (up to 200us; off). `yield=0`: does not give way to a peer on the same
//! processor before it sleeps.

#![deny(unsafe_code)]

pub mod bell;
#[doc(hidden)]
pub mod crash;
pub mod layout;
pub mod record;
pub mod ring;
mod sync;
pub mod through;

#[cfg(not(loom))]
#[allow(unsafe_code)]
pub mod map;

#[cfg(loom)]
#[path = "map_loom.rs"]
pub mod map;

#[cfg(not(loom))]
mod address;
#[cfg(not(loom))]
mod budget;
#[cfg(not(loom))]
mod death;
#[cfg(not(loom))]
mod flow;
#[cfg(not(loom))]
mod handover;
#[cfg(not(loom))]
mod limits;
#[cfg(not(loom))]
mod link;
#[cfg(not(loom))]
mod plain;
#[cfg(not(loom))]
pub mod port;
#[cfg(not(loom))]
mod spin;
#[cfg(not(loom))]
mod table;
#[cfg(not(loom))]
mod transport;
#[cfg(not(loom))]
mod walk;

#[cfg(not(loom))]
pub use transport::transport;

#[cfg(all(loom, test))]
mod model;
