//! What each end says first on the link that the two are introduced by.
//!
//! ```text
//!   0                8      12               16       20      21       22    24         32
//!   | R L r d m a 0 1 | pair | message bytes | window | flags | reason | 0 0 | memory id |
//! ```
//!
//! Little-endian. The connecting end speaks first; its receives are posted then, and the listening
//! end posts its own before it answers. So whoever has read an offer may send at once.
//!
//! Between processes of one host an offer names the memory that the packets travel in, and comes
//! with descriptors: from the connecting end the memory file and its bell, from the listening end
//! its bell.

use std::io;

use crate::link::Offer;
use crate::verbs::PairNumber;

/// Bytes in a hello.
pub const HELLO_BYTES: usize = 32;

/// The protocol and its version.
const MAGIC: [u8; 8] = *b"RLrdma\0\x01";

mod flag {
    pub const MAY_FALL_BACK: u8 = 1;
    pub const PLAIN: u8 = 2;
    pub const REFUSED: u8 = 4;
    pub const MEMORY: u8 = 8;
    pub const ALL: u8 = 15;
}

/// Why an end does not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Its device has no room for another link.
    Device = 1,
    /// It does not take our memory, or our bell.
    Memory = 2,
    /// Our user may not share memory with it.
    User = 3,
    /// It does not go on without its device.
    NoFallback = 4,
}

impl Reason {
    fn of(code: u8) -> Option<Reason> {
        let all = [Reason::Device, Reason::Memory, Reason::User, Reason::NoFallback];
        all.into_iter().find(|reason| *reason as u8 == code)
    }

    /// As the user is told, who may write `fallback=` with this value.
    pub fn error(self, fallback: &str) -> io::Error {
        let (kind, what) = match self {
            Reason::Device => (
                io::ErrorKind::OutOfMemory,
                format!(
                    "the peer's device has no room for another link; fallback={fallback} in both \
                     addresses goes on without it"
                ),
            ),
            Reason::Memory => (
                io::ErrorKind::InvalidData,
                "the peer does not take our memory: not sealed, or of another size".into(),
            ),
            Reason::User => (
                io::ErrorKind::PermissionDenied,
                "this user may not connect there; the listener's address wants uid= or mode="
                    .into(),
            ),
            Reason::NoFallback => (
                io::ErrorKind::OutOfMemory,
                format!(
                    "our device has no room for another link, and the peer does not go on without; \
                     say fallback={fallback} in its address, too"
                ),
            ),
        };
        io::Error::new(kind, what)
    }
}

/// What a hello says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Over the device. `memory` is the id of the file that the packets travel in, or 0.
    Offer {
        /// What to know of the sender's queue pair.
        offer: Offer,
        /// The file's id.
        memory: u64,
    },
    /// Bytes as they are, over the link that introduces.
    Plain,
    /// Not at all.
    Refused(Reason),
}

/// A hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// What it says.
    pub what: What,
    /// Its sender goes on without the device if it must.
    pub may_fall_back: bool,
}

impl Hello {
    /// As it travels.
    ///
    /// ```
    /// use ringlane_rdma_stub::hello::{Hello, What};
    /// use ringlane_rdma_stub::{link::Offer, verbs::PairNumber};
    /// let offer = Offer { pair: PairNumber(2), message_bytes: 16384, window: 16 };
    /// let hello = Hello { what: What::Offer { offer, memory: 0 }, may_fall_back: true };
    /// assert_eq!(Hello::decode(&hello.encode()).ok(), Some(hello));
    /// ```
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[20] = if self.may_fall_back { flag::MAY_FALL_BACK } else { 0 };
        match self.what {
            What::Offer { offer, memory } => {
                bytes[8..12].copy_from_slice(&offer.pair.0.to_le_bytes());
                bytes[12..16].copy_from_slice(&offer.message_bytes.to_le_bytes());
                bytes[16..20].copy_from_slice(&offer.window.to_le_bytes());
                bytes[20] |= if memory != 0 { flag::MEMORY } else { 0 };
                bytes[24..].copy_from_slice(&memory.to_le_bytes());
            }
            What::Plain => bytes[20] |= flag::PLAIN,
            What::Refused(reason) => {
                bytes[20] |= flag::REFUSED;
                bytes[21] = reason as u8;
            }
        }
        bytes
    }

    /// Reads a copy of one, and refuses what makes no sense.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> io::Result<Hello> {
        let refused = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if bytes[..6] != MAGIC[..6] {
            return refused("who is there does not speak rdma://");
        }
        let (flags, reason) = (bytes[20], Reason::of(bytes[21]));
        let known = flags & !flag::ALL == 0 && bytes[22..24] == [0; 2];
        if bytes[6..8] != MAGIC[6..] || !known || reason.is_none() != (bytes[21] == 0) {
            return refused("who is there speaks another version of rdma://");
        }
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let memory = u64::from(word(24)) | u64::from(word(28)) << 32;
        let empty = bytes[8..20] == [0; 12] && memory == 0;
        let what = match (flags & !flag::MAY_FALL_BACK, reason) {
            (flag::PLAIN, None) if empty => What::Plain,
            (flag::REFUSED, Some(reason)) if empty => What::Refused(reason),
            (0, None) if memory == 0 => What::Offer { offer: offer(word)?, memory },
            (flag::MEMORY, None) if memory != 0 => What::Offer { offer: offer(word)?, memory },
            _ => return refused("the peer contradicts itself in its first words"),
        };
        Ok(Hello { what, may_fall_back: flags & flag::MAY_FALL_BACK != 0 })
    }
}

fn offer(word: impl Fn(usize) -> u32) -> io::Result<Offer> {
    let offer = Offer { pair: PairNumber(word(8)), message_bytes: word(12), window: word(16) };
    offer.check()?;
    Ok(offer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer = Offer { pair: PairNumber(2), message_bytes: 256, window: 8 };

    fn hellos() -> Vec<Hello> {
        let offer = OFFER;
        let reasons = [Reason::Device, Reason::Memory, Reason::User, Reason::NoFallback];
        let mut all: Vec<What> = reasons.map(What::Refused).to_vec();
        all.extend([What::Plain, What::Offer { offer, memory: 0 }]);
        all.push(What::Offer { offer, memory: u64::MAX - 5 });
        let both = |what| [false, true].map(|may_fall_back| Hello { what, may_fall_back });
        all.into_iter().flat_map(both).collect()
    }

    #[test]
    fn every_hello_is_read_as_it_was_written() {
        for hello in hellos() {
            assert_eq!(Hello::decode(&hello.encode()).ok(), Some(hello));
        }
    }

    #[test]
    fn a_hello_that_is_not_exactly_one_is_refused() {
        let good = Hello { what: What::Offer { offer: OFFER, memory: 0 }, may_fall_back: false };
        for at in (0..8).chain(21..HELLO_BYTES) {
            let mut bad = good.encode();
            bad[at] ^= 1;
            assert!(Hello::decode(&bad).is_err(), "byte {at}");
        }
        for bit in 1..8 {
            let mut bad = good.encode();
            bad[20] ^= 1 << bit;
            assert!(Hello::decode(&bad).is_err(), "flag {bit}");
        }
        let mut bad = good.encode();
        bad[15] = 0xff;
        assert!(Hello::decode(&bad).is_err(), "the offer is checked, too");
    }
}
