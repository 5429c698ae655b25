//! Segments, and a relay that is a loop.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use ringlane_reactor::{Config, Engine, best};
use ringlane_shm::map::{Fork, Map};
use ringlane_shm::record::RecordHeader;
use ringlane_shm::through::{
    CONTROL_BYTES, Flow, Inlet, InletWriter, Outlet, OutletReader, Published, inlet_bytes,
    outlet_bytes,
};

/// The smallest ring.
pub const CAP: u32 = 4096;

/// Memory of so many bytes, as a file.
pub struct Memory {
    fd: OwnedFd,
    bytes: usize,
}

impl Memory {
    pub fn new(bytes: usize) -> Memory {
        let config = Config { engine: Engine::Epoll, ..Config::default() };
        let mut reactor = best(&config).unwrap();
        let fd = reactor.sys().memory(bytes as u64).unwrap().into_os().unwrap();
        Memory { fd, bytes }
    }

    /// The same file, as another process has it.
    pub fn again(&self) -> Memory {
        Memory { fd: self.fd.try_clone().unwrap(), bytes: self.bytes }
    }

    pub fn map(&self) -> Rc<Map> {
        Map::new(self.fd.as_fd(), self.bytes, 1, &fork()).unwrap()
    }

    pub fn read_only(&self) -> Rc<Map> {
        Map::read_only(self.fd.as_fd(), self.bytes, 1, &fork()).unwrap()
    }
}

fn fork() -> Rc<Fork> {
    Rc::new(Fork::new().unwrap())
}

/// A sender's ring, and what of it a relay gets.
pub struct Sender {
    pub segment: Memory,
    pub control: Memory,
    pub outlet: Outlet,
}

impl Sender {
    pub fn new(cap: u32) -> Sender {
        let segment = Memory::new(outlet_bytes(cap));
        let outlet = Outlet::new(segment.map(), cap);
        Sender { segment, control: Memory::new(CONTROL_BYTES), outlet }
    }

    /// Hands the ring to a new relay.
    pub fn attach(&mut self) -> OutletReader {
        self.control = Memory::new(CONTROL_BYTES);
        let from = self.outlet.attach(self.control.map());
        self.reader(from)
    }

    /// What a relay makes of it.
    pub fn reader(&self, from: Published) -> OutletReader {
        OutletReader::new(self.segment.read_only(), self.control.map(), from).unwrap()
    }
}

/// A receiver's ring, and what of it a relay gets.
pub struct Receiver {
    pub segment: Memory,
    pub inlet: Inlet,
}

impl Receiver {
    pub fn new(cap: u32) -> Receiver {
        let segment = Memory::new(inlet_bytes(cap));
        let inlet = Inlet::new(segment.map(), cap);
        Receiver { segment, inlet }
    }

    pub fn writer(&self) -> InletWriter {
        InletWriter::new(self.segment.map()).unwrap()
    }

    /// Takes the ring from its relay, for another one.
    pub fn hand_over(&mut self) -> InletWriter {
        let cap = self.inlet.capacity();
        let segment = Memory::new(inlet_bytes(cap));
        self.inlet = self.inlet.hand_over(segment.map(), cap).unwrap();
        self.segment = segment;
        self.writer()
    }

    /// Everything that is there: number, channel and payload of each.
    pub fn take(&mut self, most: u32) -> Vec<(u32, u16, Vec<u8>)> {
        let mut got = Vec::new();
        let walked = self.inlet.walk(&mut Vec::new(), most, |seq, header, bytes| {
            got.push((seq, header.channel, bytes.to_vec()));
            Flow::Go
        });
        assert_eq!(walked, Ok(got.len() as u32));
        got
    }
}

/// A run of one record.
pub fn record(payload: &[u8]) -> Vec<u8> {
    let mut run = Vec::new();
    let header = RecordHeader { len: payload.len() as u32, kind: 1, channel: 0 };
    header.append(payload, &mut run);
    run
}

/// xorshift64*: seeds that replay.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }
}
