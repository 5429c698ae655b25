//! A map for loom: its words and bytes are loom's atomics, bytes without any order of their own, so
//! that a byte read too early shows as a wrong one.

use std::collections::BTreeMap;

use loom::sync::atomic::{AtomicU8, Ordering};

use crate::sync::{AtomicU32, AtomicU64};

/// Words by offset, and the bytes behind them.
#[derive(Debug)]
pub struct Map {
    words: BTreeMap<usize, AtomicU64>,
    halves: BTreeMap<usize, AtomicU32>,
    ring: usize,
    bytes: Vec<AtomicU8>,
}

impl Map {
    /// Zeros, with words at the places named and `bytes` bytes at `ring`.
    pub fn modelled(words: &[usize], halves: &[usize], ring: usize, bytes: usize) -> Map {
        Map {
            words: words.iter().map(|at| (*at, AtomicU64::new(0))).collect(),
            halves: halves.iter().map(|at| (*at, AtomicU32::new(0))).collect(),
            ring,
            bytes: (0..bytes).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    /// The word at `at`.
    pub fn u32_at(&self, at: usize) -> &AtomicU32 {
        &self.halves[&at]
    }

    /// The double word at `at`.
    pub fn u64_at(&self, at: usize) -> &AtomicU64 {
        &self.words[&at]
    }

    /// What the double word at `at` says (acquire), or eight bytes in a ring.
    pub fn load_u64(&self, at: usize) -> u64 {
        if let Some(word) = self.words.get(&at) {
            return word.load(Ordering::Acquire);
        }
        let mut bytes = [0; 8];
        self.read(at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Bytes mapped: nobody asks in a model.
    pub fn len(&self) -> usize {
        self.ring + self.bytes.len()
    }

    /// Appends a copy of bytes.
    pub fn append(&self, at: usize, len: usize, into: &mut Vec<u8>) {
        let end = into.len();
        into.resize(end + len, 0);
        self.read(at, &mut into[end..]);
    }

    /// Copies bytes out.
    pub fn read(&self, at: usize, into: &mut [u8]) {
        for (i, byte) in into.iter_mut().enumerate() {
            *byte = self.bytes[at - self.ring + i].load(Ordering::Relaxed);
        }
    }

    /// Copies bytes in, past the caches; a model has none.
    pub fn write_through(&self, at: usize, from: &[u8]) {
        self.write(at, from);
    }

    /// Copies bytes in.
    pub fn write(&self, at: usize, from: &[u8]) {
        for (i, byte) in from.iter().enumerate() {
            self.bytes[at - self.ring + i].store(*byte, Ordering::Relaxed);
        }
    }
}

/// The processor this thread runs on: nobody knows.
pub fn processor() -> u32 {
    0
}
