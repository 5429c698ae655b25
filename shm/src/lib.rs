//! The `shm://` transport and the rings it stands on.
//!
//! ```text
//!   map.rs     mapped memory a peer may write: atomics and checked copies   (the unsafe room)
//!   layout.rs  what lies where, what is believed of it
//!   ring.rs    a single-producer single-consumer ring of bytes
//!   record.rs  records in a ring
//!   bell.rs    who sleeps, who must be rung
//!   sync.rs    atomics: the processor's, or loom's in a model
//! ```

#![deny(unsafe_code)]

pub mod bell;
pub mod layout;
pub mod record;
pub mod ring;
mod sync;

#[cfg(not(loom))]
#[allow(unsafe_code)]
pub mod map;

#[cfg(loom)]
#[path = "map_loom.rs"]
pub mod map;

#[cfg(all(loom, test))]
mod model;
