//! A wire between processes that is a byte stream: packets in frames, as iWARP puts RDMA on TCP.
//!
//! A machine without input and output: [`StreamWire::feed`] takes what came, [`StreamWire::out`]
//! is what must go. Each connection is a port. A peer whose frames make no sense spoils its own
//! port: nothing more is read from it, and its owner is told by [`StreamWire::is_spoiled`].

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::segment::Segment;

use super::frame::{self, FRAME_BYTES};
use super::wire::{Packet, Wire};
use crate::limits;
use crate::verbs::Port;

#[derive(Default)]
struct Line {
    incoming: Evbuffer,
    outgoing: Evbuffer,
    spoiled: bool,
    /// It stands in the list of those that may have a whole packet.
    fed: bool,
    /// It stands in the list of those that have something to go.
    going: bool,
}

/// The wire; see the module text.
pub struct StreamWire {
    /// A frame with more is no frame: it would fit into no receive, and must not be kept.
    message_bytes_max: u32,
    lines: HashMap<Port, Line>,
    next: u32,
    /// Ports that may have a whole packet, in turn.
    fed: VecDeque<Port>,
    /// Ports that have something to go, each once.
    going: Vec<Port>,
    now: Duration,
}

impl StreamWire {
    /// A wire without ports, for messages of at most so many bytes.
    pub fn new(message_bytes_max: u32) -> StreamWire {
        StreamWire {
            message_bytes_max,
            lines: HashMap::new(),
            next: 0,
            fed: VecDeque::new(),
            going: Vec::new(),
            now: Duration::ZERO,
        }
    }

    /// Adds a connection.
    ///
    /// # Panics
    /// Panics after 2^32 - 1 connections.
    pub fn add(&mut self) -> Port {
        let port = Port(self.next);
        self.next = self.next.checked_add(1).expect("under 2^32 connections per wire");
        self.lines.insert(port, Line::default());
        port
    }

    /// Forgets a connection and what it had.
    pub fn remove(&mut self, port: Port) {
        self.lines.remove(&port);
    }

    /// Bytes came.
    pub fn feed(&mut self, port: Port, segment: Segment) {
        if let Some(line) = self.lines.get_mut(&port)
            && !line.spoiled
        {
            if !std::mem::replace(&mut line.fed, true) {
                self.fed.push_back(port);
            }
            line.incoming.push(segment);
        }
    }

    /// The ports that got something to go since this was asked last.
    pub fn going(&mut self) -> Vec<Port> {
        let going = std::mem::take(&mut self.going);
        for port in &going {
            if let Some(line) = self.lines.get_mut(port) {
                line.going = false;
            }
        }
        going
    }

    /// What must go to a port.
    pub fn out(&mut self, port: Port) -> Option<&mut Evbuffer> {
        self.lines.get_mut(&port).map(|line| &mut line.outgoing)
    }

    /// Whether the peer sent what is no frame.
    pub fn is_spoiled(&self, port: Port) -> bool {
        self.lines.get(&port).is_some_and(|line| line.spoiled)
    }

    /// Sets the clock.
    pub fn set_now(&mut self, now: Duration) {
        self.now = now;
    }
}

impl Line {
    /// The next whole packet. Its bytes are copied out before they are looked at.
    fn packet(&mut self, length_max: u32) -> Option<Packet> {
        let mut front = [0; FRAME_BYTES];
        if self.spoiled || self.incoming.copyout(&mut front) < FRAME_BYTES {
            return None;
        }
        let Some(front) = frame::decode(&front, length_max) else {
            self.spoiled = true;
            self.incoming.drain(self.incoming.len());
            return None;
        };
        if self.incoming.len() < FRAME_BYTES + front.length as usize {
            return None;
        }
        self.incoming.drain(FRAME_BYTES);
        let mut payload = vec![0; front.length as usize];
        self.incoming.remove(&mut payload);
        Some(front.packet(payload))
    }
}

impl Wire for StreamWire {
    fn put(&mut self, port: Port, packet: Packet) -> Result<(), Packet> {
        // A connection that is gone takes everything, as a cut cable does.
        let Some(line) = self.lines.get_mut(&port) else { return Ok(()) };
        // Answers have room that messages cannot use, and no more: a peer that never reads may
        // ask for as many as it likes. One that waits is replaced by the next, which says it too.
        let most = limits::WIRE_BYTES_MAX << u32::from(packet.is_answer());
        if line.outgoing.len() >= most {
            return Err(packet);
        }
        let (front, payload) = frame::encode(&packet);
        line.outgoing.add(&front);
        line.outgoing.add(payload);
        if !std::mem::replace(&mut line.going, true) {
            self.going.push(port);
        }
        Ok(())
    }

    fn take(&mut self) -> Option<(Port, Packet)> {
        while let Some(port) = self.fed.pop_front() {
            let Some(line) = self.lines.get_mut(&port) else { continue };
            if let Some(packet) = line.packet(self.message_bytes_max) {
                self.fed.push_back(port);
                return Some((port, packet));
            }
            line.fed = false;
        }
        None
    }

    fn now(&self) -> Duration {
        self.now
    }

    /// Whoever feeds it runs the device; nothing arrives in between.
    fn interrupts(&mut self) -> bool {
        false
    }

    fn message_bytes_max(&self) -> u32 {
        self.message_bytes_max
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::soft::Says;
    use crate::verbs::PairNumber;

    fn packet() -> impl Strategy<Value = Packet> {
        let says = prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..300).prop_map(Says::Message),
            Just(Says::Placed),
            Just(Says::NotReady),
            Just(Says::Refused),
        ];
        (any::<u32>(), any::<u32>(), any::<u32>(), says).prop_map(|(to, from, number, says)| {
            Packet { to: PairNumber(to), from: PairNumber(from), number, says }
        })
    }

    fn two() -> (StreamWire, StreamWire, Port, Port) {
        let (mut a, mut b) = (StreamWire::new(1 << 20), StreamWire::new(1 << 20));
        let (here, there) = (a.add(), b.add());
        (a, b, here, there)
    }

    proptest! {
        #[test]
        fn packets_come_out_as_they_went_in_however_the_stream_is_cut(
            packets in proptest::collection::vec(packet(), 1..20),
            cut in 1_usize..50,
        ) {
            let (mut a, mut b, here, there) = two();
            packets.iter().for_each(|packet| assert!(a.put(here, packet.clone()).is_ok()));
            prop_assert_eq!(a.going(), [here]);
            let bytes = a.out(here).expect("a port").take();
            let mut got = Vec::new();
            for piece in bytes.chunks(cut) {
                b.feed(there, Segment::copied(piece));
                got.extend(std::iter::from_fn(|| b.take()).map(|(_, packet)| packet));
            }
            prop_assert_eq!(got, packets);
        }

        #[test]
        fn noise_spoils_its_port_or_waits_for_more_and_nothing_else(
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            good in packet(),
        ) {
            let (mut a, mut b, here, there) = two();
            let other = b.add();
            b.feed(there, Segment::copied(&noise));
            assert!(a.put(here, good.clone()).is_ok());
            b.feed(other, Segment::copied(&a.out(here).expect("a port").take()));
            let got: Vec<_> = std::iter::from_fn(|| b.take()).collect();
            prop_assert!(got.contains(&(other, good)) && !b.is_spoiled(other));
        }
    }

    #[test]
    fn a_length_that_no_message_has_spoils_the_port_before_anything_is_kept_for_it() {
        for (length, says) in [(u32::MAX, 1), ((1 << 20) + 1, 1), (0, 1), (1, 2), (0, 0), (0, 5)] {
            let (_, mut b, _, there) = two();
            let mut front = [0; FRAME_BYTES];
            front[..4].copy_from_slice(&u32::to_le_bytes(length));
            front[16] = says;
            b.feed(there, Segment::copied(&front));
            assert!(b.take().is_none() && b.is_spoiled(there), "{length} {says}");
            b.feed(there, Segment::copied(&front));
            assert!(b.lines[&there].incoming.is_empty(), "nothing more is kept");
        }
    }

    #[test]
    fn a_full_line_gives_messages_back_and_takes_some_more_answers() {
        let (mut a, _, here, _) = two();
        let message = |says| Packet { to: PairNumber(1), from: PairNumber(2), number: 0, says };
        while a.put(here, message(Says::Message(vec![0; 60_000]))).is_ok() {}
        assert!(a.out(here).expect("a port").len() < limits::WIRE_BYTES_MAX + 61_000);
        let answers = (0..1_000_000).take_while(|_| a.put(here, message(Says::Placed)).is_ok());
        assert!((1000..20_000).contains(&answers.count()), "some, and not without end");
    }
}
