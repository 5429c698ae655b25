//! The vocabulary and the machine of ringlane: [`EventBase`], [`Bufferevent`], [`Evbuffer`],
//! [`Listener`] and [`Event`], and the two traits they stand on, [`reactor::Reactor`] and
//! [`transport::Transport`]. No system calls, no backend and no transport is named here.

#![forbid(unsafe_code)]

pub mod address;
mod base;
mod bev;
mod buffer;
mod bufferevent;
mod call;
mod core;
pub mod error;
pub mod evbuffer;
mod event;
pub mod fd;
mod filter;
mod find;
pub mod limits;
mod link_timer;
mod listener;
pub mod mutant;
pub mod near;
pub mod reactor;
mod remote;
mod router;
pub mod segment;
mod shared;
pub mod slab;
pub mod stream;
mod sys;
mod timeout;
pub mod transport;
mod turn;
pub mod wheel;

pub use address::Address;
pub use base::{BaseStats, EventBase, Turn};
pub use buffer::{Buffer, Source};
pub use bufferevent::{BevEvent, Bufferevent, Direction, Filter, Handler, READ, WRITE};
pub use error::{Error, Result};
pub use evbuffer::{Eol, Evbuffer};
pub use event::{Event, Signal, What};
pub use find::Known;
pub use listener::Listener;
pub use reactor::Side;
pub use remote::Remote;
pub use transport::{LinkInfo, LinkOptions, ListenOptions};
