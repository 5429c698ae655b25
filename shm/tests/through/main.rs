//! Rings that go through a relay, from outside: what a sender wrote is what a receiver sees, once
//! and in order, whoever of the relays comes and goes.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "crash-points")]
mod death;
mod hostile;
mod kit;
mod model;
#[cfg(all(feature = "crash-points", feature = "mutants"))]
mod mutants;
mod relay;
