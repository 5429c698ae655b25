//! The relay: what one host says to another for all of its processes.

pub mod handshake;
pub mod lobby;
#[cfg(feature = "tls")]
pub mod tls;
