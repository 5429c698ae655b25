//! What each end says first on the link that the two are introduced by.
//!
//! ```text
//!   0                8      12               16       20              32
//!   | R L r d m a 0 1 | pair | message bytes | window | 0 …            |   little-endian
//! ```
//!
//! The connecting end speaks first; its receives are posted then, and the listening end posts its
//! own before it answers. So whoever has read a hello may send at once.

use std::io;

use crate::link::Offer;
use crate::verbs::PairNumber;

/// Bytes in a hello.
pub const HELLO_BYTES: usize = 32;

/// The protocol and its version.
const MAGIC: [u8; 8] = *b"RLrdma\0\x01";

/// As it travels.
///
/// ```
/// use ringlane_rdma_stub::{hello, link::Offer, verbs::PairNumber};
/// let offer = Offer { pair: PairNumber(2), message_bytes: 16384, window: 16 };
/// assert_eq!(hello::decode(&hello::encode(&offer)).ok(), Some(offer));
/// ```
pub fn encode(offer: &Offer) -> [u8; HELLO_BYTES] {
    let mut bytes = [0; HELLO_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&offer.pair.0.to_le_bytes());
    bytes[12..16].copy_from_slice(&offer.message_bytes.to_le_bytes());
    bytes[16..20].copy_from_slice(&offer.window.to_le_bytes());
    bytes
}

/// Reads it, and refuses what makes no sense.
pub fn decode(bytes: &[u8; HELLO_BYTES]) -> io::Result<Offer> {
    let refused = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    if bytes[..6] != MAGIC[..6] {
        return refused("who is there does not speak rdma://");
    }
    if bytes[6..8] != MAGIC[6..] || bytes[20..] != [0; 12] {
        return refused("who is there speaks another version of rdma://");
    }
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let offer = Offer { pair: PairNumber(word(8)), message_bytes: word(12), window: word(16) };
    offer.check()?;
    Ok(offer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_that_is_not_exactly_one_is_refused() {
        let good = encode(&Offer { pair: PairNumber(2), message_bytes: 256, window: 8 });
        assert!(decode(&good).is_ok());
        for at in (0..8).chain(20..HELLO_BYTES) {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(decode(&bad).is_err(), "byte {at}");
        }
        let mut bad = good;
        bad[15] = 0xff;
        assert!(decode(&bad).is_err(), "the offer is checked, too");
    }
}
