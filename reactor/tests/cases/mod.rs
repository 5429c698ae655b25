//! The cases of the contract, generic over the engine.

pub mod ends;
pub mod events;
pub mod extras;
pub mod shared;
pub mod streams;
