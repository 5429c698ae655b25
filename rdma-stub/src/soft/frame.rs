//! A packet as bytes, for wires that are streams of them.
//!
//! ```text
//!   0         4    8      12       16     17       20
//!   | length  | to | from | number | says | 0 0 0  | payload …      little-endian
//! ```

use super::wire::{Packet, Says};
use crate::verbs::PairNumber;

/// Bytes in front of a payload.
pub(super) const FRAME_BYTES: usize = 20;

/// The front of a frame, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Front {
    pub(super) length: u32,
    to: PairNumber,
    from: PairNumber,
    number: u32,
    says: u8,
}

/// A packet's front and payload.
pub(super) fn encode(packet: &Packet) -> ([u8; FRAME_BYTES], &[u8]) {
    let (says, payload): (u8, &[u8]) = match &packet.says {
        Says::Message(bytes) => (1, bytes),
        Says::Placed => (2, &[]),
        Says::NotReady => (3, &[]),
        Says::Refused => (4, &[]),
    };
    let mut front = [0; FRAME_BYTES];
    front[0..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    front[4..8].copy_from_slice(&packet.to.0.to_le_bytes());
    front[8..12].copy_from_slice(&packet.from.0.to_le_bytes());
    front[12..16].copy_from_slice(&packet.number.to_le_bytes());
    front[16] = says;
    (front, payload)
}

/// Reads a copy of a front; `None` if it is none. A message longer than `length_max` would fit
/// into no receive, and must not be kept.
pub(super) fn decode(front: &[u8; FRAME_BYTES], length_max: u32) -> Option<Front> {
    let word =
        |at: usize| u32::from_le_bytes([front[at], front[at + 1], front[at + 2], front[at + 3]]);
    let length = word(0);
    let known = match front[16] {
        1 => (1..=length_max).contains(&length),
        2..=4 => length == 0,
        _ => false,
    };
    let (to, from) = (PairNumber(word(4)), PairNumber(word(8)));
    let whole = Front { length, to, from, number: word(12), says: front[16] };
    (known && front[17..] == [0; 3]).then_some(whole)
}

impl Front {
    /// The packet, with the payload that followed.
    pub(super) fn packet(self, payload: Vec<u8>) -> Packet {
        debug_assert_eq!(payload.len(), self.length as usize, "the front says how many follow");
        let says = match self.says {
            1 => Says::Message(payload),
            2 => Says::Placed,
            3 => Says::NotReady,
            _ => Says::Refused,
        };
        Packet { to: self.to, from: self.from, number: self.number, says }
    }
}
