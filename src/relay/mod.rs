//! The relay: one on each host, which carries what processes send to other hosts.
//!
//! ```text
//!   core.rs       the machine: channels, links, order and acknowledgement; sans IO
//!   aged.rs       bounded tables whose entries age        routes.rs   how links are kept
//!   handshake.rs  who is at the other end of a link       lobby.rs    those who have not said
//!   daemon.rs     all that on an event loop               lock.rs     one relay per host
//!   tls.rs        TLS under a link
//! ```

pub mod aged;
pub mod core;
pub mod daemon;
pub mod handshake;
pub mod lobby;
pub mod lock;
pub mod routes;
#[cfg(feature = "tls")]
pub mod tls;
