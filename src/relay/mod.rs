//! The relay: one on each host, which carries what processes send to other hosts.
//!
//! ```text
//!   core.rs       the machine: channels, links, order and acknowledgement; sans IO
//!   aged.rs       bounded tables whose entries age        routes.rs   how links are kept
//!   handshake.rs  who is at the other end of a link       lobby.rs    those who have not said
//! ```

pub mod aged;
pub mod core;
pub mod handshake;
pub mod lobby;
pub mod routes;
