//! The bus: processes that find each other by name, through shared memory.
//!
//! ```text
//!   handle.rs   Bus: open, send, call, close     message.rs, event.rs, error.rs   what it says
//!   inner.rs    callbacks, the turn              wires.rs    sockets, bell, links
//!   mailbox.rs  for other threads
//!   core.rs     all of it as a machine           memory.rs   rings that are shared
//!   local.rs    what a process and its relay say find.rs     where the relay is
//! ```
//!
//! ```no_run
//! use std::time::Duration;
//! use ringlane::bus::{Bus, PeerEvent};
//! use ringlane::prelude::*;
//!
//! let base = EventBase::new()?;
//! let bus = Bus::open(&base, "login@hostA")?;
//! bus.on_message(|m| {
//!     if m.wants_reply() {
//!         m.reply(b"here").expect("there is room");
//!     }
//! });
//! bus.on_peer(|event| {
//!     if let PeerEvent::Gone { node, first, exact, .. } = event {
//!         println!("{node} is gone; {first} is the first it has not consumed (exact: {exact})");
//!     }
//! });
//! bus.send("db@hostB", b"hello")?;
//! bus.call("db@hostB", b"how much?", Duration::from_secs(1), |answer| match answer {
//!     Ok(answer) => println!("{}", answer.text()),
//!     Err(error) => eprintln!("{error}"),
//! })?;
//! base.dispatch()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clock;
pub mod core;
mod error;
mod event;
mod find;
mod handle;
mod inner;
pub(crate) mod linger;
pub mod local;
mod mailbox;
pub mod memory;
mod message;
mod nonce;
mod wires;

pub use core::{Limits, Slot};
pub use error::BusError;
pub use event::{InCounts, InStatus, OutCounts, OutStatus, PeerEvent, RelayEvent, Undelivered};
pub use find::socket_of_host;
pub use handle::{Bus, LINGER, Options, SendOptions};
pub use mailbox::Mailbox;
pub use message::{Message, OwnedMessage, ReplyTo};
