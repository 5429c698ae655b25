//! Two wires as one: a device whose packets travel by either.

use std::time::Duration;

use super::wire::{Packet, Wire};
use crate::verbs::Port;

/// Set in the ports of the second wire.
const SECOND: u32 = 1 << 31;

/// Both wires; each numbers its own ports.
pub struct Joined<A, B> {
    /// One.
    pub first: A,
    /// And the other.
    pub second: B,
}

impl<A, B> Joined<A, B> {
    /// As the device names a port of the second wire.
    pub fn outside(port: Port) -> Port {
        debug_assert!(port.0 & SECOND == 0, "a wire has under 2^31 ports");
        Port(port.0 | SECOND)
    }

    /// As the second wire names it; `None` for a port of the first.
    pub fn inside(port: Port) -> Option<Port> {
        (port.0 & SECOND != 0).then_some(Port(port.0 & !SECOND))
    }
}

impl<A: Wire, B: Wire> Wire for Joined<A, B> {
    fn put(&mut self, port: Port, packet: Packet) -> Result<(), Packet> {
        match Joined::<A, B>::inside(port) {
            None => self.first.put(port, packet),
            Some(port) => self.second.put(port, packet),
        }
    }

    fn take(&mut self) -> Option<(Port, Packet)> {
        let second = |(port, packet)| (Joined::<A, B>::outside(port), packet);
        self.first.take().or_else(|| self.second.take().map(second))
    }

    fn now(&self) -> Duration {
        self.first.now()
    }

    fn interrupts(&mut self) -> bool {
        self.first.interrupts() | self.second.interrupts()
    }

    fn message_bytes_max(&self) -> u32 {
        self.first.message_bytes_max().min(self.second.message_bytes_max())
    }

    fn deadline(&self) -> Option<Duration> {
        self.first.deadline().into_iter().chain(self.second.deadline()).min()
    }
}
