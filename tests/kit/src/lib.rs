//! What tests ringlane: the simulator that can be the kernel for every transport, and the
//! conformance suite that every transport on every engine must pass.
//!
//! It knows the api alone; a test binary brings reactors and transports.

#![forbid(unsafe_code)]

pub mod seeds;
pub mod sim;
pub mod suite;
