//! What is fuzzed: a function per decoder, which panics if the decoder breaks a promise.
//!
//! `fuzz_targets/NAME.rs` gives it to libFuzzer; `tests/corpus.rs` of the root runs it over
//! `corpus/NAME` as an ordinary test. A new target is a file here, one there, a `[[bin]]` in
//! `Cargo.toml`, a folder with a few inputs, and a line in each of `run` and `tests/corpus.rs`.

#![forbid(unsafe_code)]

pub mod config;
pub mod frames;
pub mod handshake;
pub mod lines;
pub mod rings;
