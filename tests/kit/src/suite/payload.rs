//! Bytes that say where they belong.

/// Length of the table: a prime, so that no power of two in the code under test lines up with it.
const PERIOD: usize = 65_521;

/// A long stream of bytes that differs for each seed and is cheap to make and to check.
#[derive(Clone)]
pub struct Pattern {
    table: Vec<u8>,
}

impl Pattern {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Pattern {
        let mut rng = crate::sim::Rng::new(seed.wrapping_mul(2).wrapping_add(1));
        let mut table: Vec<u8> = (0..PERIOD).map(|_| rng.draw() as u8).collect();
        table.extend_from_within(..);
        Pattern { table }
    }

    /// `len` bytes from position `at` on, at most one period.
    pub fn slice(&self, at: u64, len: usize) -> &[u8] {
        let from = (at % PERIOD as u64) as usize;
        &self.table[from..from + len.min(PERIOD)]
    }

    /// `len` bytes from position `at` on.
    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        while out.len() < len {
            out.extend_from_slice(self.slice(at + out.len() as u64, len - out.len()));
        }
        out
    }
}

/// Checks a stream as it comes.
pub struct Checker {
    pattern: Pattern,
    at: u64,
}

impl Checker {
    /// For the stream of this pattern, from its start.
    pub fn new(pattern: Pattern) -> Checker {
        Checker { pattern, at: 0 }
    }

    /// Bytes that were right so far.
    pub fn count(&self) -> u64 {
        self.at
    }

    /// The next bytes; false if one is wrong.
    #[must_use]
    pub fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let want = self.pattern.slice(self.at, bytes.len());
            let (now, later) = bytes.split_at(want.len());
            if now != want {
                return false;
            }
            self.at += now.len() as u64;
            bytes = later;
        }
        true
    }
}
