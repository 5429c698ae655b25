//! What software devices send each other, and what carries it.

use std::time::Duration;

use super::super::verbs::{PairNumber, Port};

/// One packet. `number` counts the messages of a pair's direction modulo 2^32; an answer says
/// which one it is about and acknowledges all before that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The pair it is for.
    pub to: PairNumber,
    /// The pair it is from.
    pub from: PairNumber,
    /// Of which message.
    pub number: u32,
    /// What it says.
    pub says: Says,
}

/// What a packet says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Says {
    /// A message, whole.
    Message(Vec<u8>),
    /// It was placed.
    Placed,
    /// No receive was posted (RNR NAK).
    NotReady,
    /// It could not be placed.
    Refused,
}

impl Packet {
    /// Whether it answers one of the other direction.
    pub fn is_answer(&self) -> bool {
        !matches!(self.says, Says::Message(_))
    }
}

/// What carries packets between devices. In order for one sender, one pair and one direction;
/// answers may overtake messages.
pub trait Wire {
    /// Takes a packet, or gives it back when there is no room now.
    fn put(&mut self, port: Port, packet: Packet) -> Result<(), Packet>;
    /// A packet that has arrived, and from where.
    fn take(&mut self) -> Option<(Port, Packet)>;
    /// The device's clock.
    fn now(&self) -> Duration;
    /// Whether the hardware gets ahead right now, in the middle of a call.
    fn interrupts(&mut self) -> bool;
    /// The longest message it can carry, in bytes.
    fn message_bytes_max(&self) -> u32;
    /// When something arrives that is on its way already, if only the clock has to go on.
    fn deadline(&self) -> Option<Duration> {
        None
    }
}
