//! Messages that say themselves what they must be.

use ringlane::bus::core::Seen;

/// Which message it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Letter {
    /// The instance of the sender.
    pub from: u32,
    pub counter: u32,
    pub chan: u16,
}

/// Bytes in front of the filling.
const HEAD: usize = 16;

impl Letter {
    /// Its bytes, about so many.
    pub fn write(self, size: u32) -> Vec<u8> {
        let size = (size as usize).max(HEAD);
        let mut bytes = Vec::with_capacity(size + 8);
        bytes.extend(self.from.to_le_bytes());
        bytes.extend(self.counter.to_le_bytes());
        bytes.extend(u32::from(self.chan).to_le_bytes());
        bytes.extend((size as u32).to_le_bytes());
        let mut seed = u64::from(self.from) << 32 | u64::from(self.counter);
        while bytes.len() < size {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(self.chan));
            bytes.extend((seed ^ seed >> 29).to_le_bytes());
        }
        bytes.truncate(size);
        bytes
    }
}

/// A message that was received.
#[derive(Debug)]
pub struct Read {
    /// The node that it is said to come from.
    pub node: String,
    pub chan: u16,
    /// The epoch of the stream, and the record in it.
    pub epoch: u64,
    pub seq: u32,
    pub letter: Result<Letter, String>,
}

impl Read {
    pub fn of(seen: &Seen<'_>) -> Read {
        let (node, chan) = (seen.from.to_string(), seen.chan);
        Read { node, chan, epoch: seen.epoch, seq: seen.seq, letter: parse(seen) }
    }
}

fn parse(seen: &Seen<'_>) -> Result<Letter, String> {
    let word = |at: usize| {
        let bytes = seen.body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or("a message without a head".to_string())
    };
    let letter = Letter { from: word(0)?, counter: word(4)?, chan: seen.chan };
    let size = seen.body.len() as u32;
    if word(8)? != u32::from(seen.chan) || word(12)? != size || letter.write(size) != seen.body {
        return Err(format!("{letter:?} has other bytes than were sent"));
    }
    Ok(letter)
}
