//! The vocabulary and the machine of ringlane. No system calls, no backend and no transport is
//! named here.

#![forbid(unsafe_code)]

pub mod address;
pub mod error;
pub mod evbuffer;
pub mod fd;
pub mod limits;
pub mod reactor;
pub mod segment;
pub mod slab;
pub mod wheel;

pub use address::Address;
pub use error::{Error, Result};
pub use evbuffer::Evbuffer;
