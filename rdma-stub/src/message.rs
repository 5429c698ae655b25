//! What the two ends say: one header of 16 bytes, and behind it the bytes of a data message.
//!
//! ```text
//!   0      1         4            8              12
//!   | kind | 0  0  0 | length u32 | sequence u32 | credit u32 |  bytes …
//! ```
//!
//! Little-endian. `sequence` counts every message of a direction from 0. `credit` is the running
//! total of data messages that the writer's peer may have sent: absolute, so that a message says
//! all that earlier ones did. Everything is checked before anything is used; a message that is not
//! exactly as it should be ends the link that brought it.

use std::fmt;

/// Bytes in front of a data message's payload, and all of any other message.
pub const HEADER_BYTES: usize = 16;

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Bytes of the stream, at least one. Costs a credit.
    Data,
    /// Nothing but credit.
    Credit,
    /// The stream ends here.
    Finish,
    /// The writer is gone for both directions.
    Goodbye,
}

/// The front of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Payload in bytes.
    pub length: u32,
    /// Its number in its direction, modulo 2^32.
    pub sequence: u32,
    /// Data messages that may have been sent to its writer, modulo 2^32.
    pub credit: u32,
}

/// What is wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Violation {
    /// Shorter than a header.
    Short,
    /// No such kind.
    Kind,
    /// Bytes that must be zero are not.
    Reserved,
    /// The length is not what arrived, or none where some must be, or some where none may be.
    Length,
    /// Not the next number.
    Sequence,
    /// Credit was taken back, is more than the window, or a message of nothing else says no more.
    Credit,
    /// A data message without credit.
    NoCredit,
    /// A message behind the one that ends the stream.
    AfterEnd,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::Short => "a message is shorter than its header",
            Violation::Kind => "a message of no known kind",
            Violation::Reserved => "reserved bytes of a message are not zero",
            Violation::Length => "a message's length is not what arrived",
            Violation::Sequence => "a message is not the next one",
            Violation::Credit => "credit was taken back, repeated, or is more than the window",
            Violation::NoCredit => "a data message came without credit",
            Violation::AfterEnd => "a message came behind the end",
        })
    }
}

impl std::error::Error for Violation {}

impl Header {
    /// As it travels.
    ///
    /// ```
    /// use ringlane_rdma_stub::message::{Header, Kind};
    /// let header = Header { kind: Kind::Data, length: 1, sequence: 7, credit: 16 };
    /// let mut bytes = header.encode().to_vec();
    /// bytes.push(b'x');
    /// assert_eq!(Header::decode(&bytes), Ok(header));
    /// ```
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = match self.kind {
            Kind::Data => 1,
            Kind::Credit => 2,
            Kind::Finish => 3,
            Kind::Goodbye => 4,
        };
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.credit.to_le_bytes());
        bytes
    }

    /// Reads the front of a whole message.
    pub fn decode(message: &[u8]) -> Result<Header, Violation> {
        let (front, payload) =
            message.split_first_chunk::<HEADER_BYTES>().ok_or(Violation::Short)?;
        let word = |at: usize| {
            u32::from_le_bytes([front[at], front[at + 1], front[at + 2], front[at + 3]])
        };
        let kind = match front[0] {
            1 => Kind::Data,
            2 => Kind::Credit,
            3 => Kind::Finish,
            4 => Kind::Goodbye,
            _ => return Err(Violation::Kind),
        };
        if front[1..4] != [0; 3] {
            return Err(Violation::Reserved);
        }
        let header = Header { kind, length: word(4), sequence: word(8), credit: word(12) };
        let fits = payload.len() == header.length as usize;
        if !fits || (kind == Kind::Data) == payload.is_empty() {
            return Err(Violation::Length);
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_arrives_is_a_message_or_a_violation_and_a_message_prints_as_it_came(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                (1_u8..5, 0_u32..4, any::<u32>(), any::<u32>(), 0_usize..4).prop_map(
                    |(kind, length, sequence, credit, payload)| {
                        let mut bytes = vec![kind, 0, 0, 0];
                        for word in [length, sequence, credit] {
                            bytes.extend(word.to_le_bytes());
                        }
                        bytes.extend(std::iter::repeat_n(7, payload));
                        bytes
                    }
                ),
            ]
        ) {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(header.length as usize, bytes.len() - HEADER_BYTES);
                prop_assert_eq!(&header.encode()[..], &bytes[..HEADER_BYTES]);
            }
        }
    }

    #[test]
    fn each_thing_that_can_be_wrong_with_a_message_has_its_name() {
        let good = Header { kind: Kind::Data, length: 1, sequence: 0, credit: 0 }.encode();
        let with = |change: fn(&mut Vec<u8>)| {
            let mut bytes = good.to_vec();
            bytes.push(9);
            change(&mut bytes);
            Header::decode(&bytes).expect_err("it was damaged")
        };
        assert_eq!(with(|bytes| bytes.truncate(15)), Violation::Short);
        assert_eq!(with(|bytes| bytes[0] = 0), Violation::Kind);
        assert_eq!(with(|bytes| bytes[0] = 5), Violation::Kind);
        assert_eq!(with(|bytes| bytes[2] = 1), Violation::Reserved);
        assert_eq!(with(|bytes| bytes[4] = 2), Violation::Length);
        assert_eq!(with(|bytes| bytes[0] = 3), Violation::Length);
        assert_eq!(
            with(|bytes| {
                bytes[4] = 0;
                bytes.truncate(16);
            }),
            Violation::Length
        );
    }
}
