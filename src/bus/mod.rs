//! The bus: processes that find each other by name.

pub mod core;
mod error;
mod event;
pub mod local;
pub mod memory;

pub use error::BusError;
pub use event::{InCounts, InStatus, OutCounts, OutStatus, PeerEvent, RelayEvent, Undelivered};
