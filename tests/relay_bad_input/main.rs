//! What strangers, other relays and processes may say to a relay: it costs them their connection,
//! with a word that says why, and nobody else a message.
//!
//! Every case runs beside two pairs that talk through the same relays, one abroad and one at home,
//! and ends by counting their messages.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod fds;
mod frames;
mod limits;
mod lines;
mod pair;
mod relay_peer;
mod rings;
mod strangers;
mod tls;
mod world;
