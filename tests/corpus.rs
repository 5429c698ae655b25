//! Every input that a fuzzer, or somebody, has thought of, as an ordinary test. `fuzz/run` looks
//! for more.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

#[path = "../fuzz/src/config.rs"]
mod config;
#[path = "../fuzz/src/frames.rs"]
mod frames;
#[path = "../fuzz/src/handshake.rs"]
mod handshake;
#[path = "../fuzz/src/lines.rs"]
mod lines;
#[path = "../fuzz/src/rings.rs"]
mod rings;

/// Runs over all inputs of a target, and over each cut off at many a place.
fn replay(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&dir).expect("the corpus is there") {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        let input = fs::read(&path).expect("an input");
        (0..=input.len()).rev().take(64).for_each(|end| run(&input[..end]));
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", dir.display());
}

#[test]
fn the_decoder_of_frames_keeps_its_promises_over_the_corpus() {
    replay("frames", frames::run);
}

#[test]
fn the_handshake_keeps_its_promises_over_the_corpus() {
    replay("handshake", handshake::run);
}

#[test]
fn lines_keep_their_promises_over_the_corpus() {
    replay("lines", lines::run);
}

#[test]
fn the_configuration_keeps_its_promises_over_the_corpus() {
    replay("config", config::run);
}

#[test]
fn a_relay_survives_senders_that_scribble_over_the_corpus() {
    replay("outlet", rings::outlet);
}

#[test]
fn both_ends_of_a_receivers_ring_survive_the_corpus() {
    replay("inlet", rings::inlet);
}
