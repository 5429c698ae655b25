//! Rings that go through a relay, from outside: what a sender wrote is what a receiver sees, once
//! and in order, whoever of the relays comes and goes.
#![allow(clippy::unwrap_used)]

mod kit;
mod relay;
