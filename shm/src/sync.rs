//! Where this crate's atomics come from. `RUSTFLAGS="--cfg loom"` puts loom's in their place, so
//! that the models in `model.rs` run the ring's own code.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// What several holders of a map in one thread share; loom's threads are threads.
#[cfg(not(loom))]
pub use std::rc::Rc as Shared;

/// See above.
#[cfg(loom)]
pub use std::sync::Arc as Shared;
