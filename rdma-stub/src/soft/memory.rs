//! A wire between processes of one host: packets in frames, in a pair of rings in shared memory.
//!
//! ```text
//!   put ─► ring ── publish ─► the peer's ring; has it announced sleep? ring its bell, once
//!   take ◄─ ring ◄─ hot?   ◄─ our bell
//! ```
//!
//! A machine without input and output. Each link is a port with two rings and two announce words
//! (`ringlane_shm`). A port is *hot* while this side looks by itself; [`MemoryWire::rest`]
//! announces the hot ones, looks once more, and lets them cool: from then on the peer rings when it
//! has published, once per announcement. That is a completion channel and its one-shot arming,
//! between processes.
//!
//! The memory may be rewritten by the peer at any moment. A counter is read once and checked, a
//! frame is copied out before it is looked at, and what does not fit spoils its own port: nothing
//! more is read from it, and its owner is told by [`MemoryWire::spoiled`].

use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::mutant::{self, Mutant};
use ringlane_shm::bell::{Bell, News};
use ringlane_shm::layout::{Header, announce};
use ringlane_shm::map::{Fork, Map};
use ringlane_shm::ring::{Consumer, Producer, Scribbled};

use super::frame::{self, FRAME_BYTES, Front};
use super::wire::{Packet, Wire};
use crate::limits;
use crate::verbs::Port;

/// Room that messages leave to answers: a few of them, each of which says all that earlier ones
/// did.
const ANSWER_BYTES: u32 = 16 * FRAME_BYTES as u32;

const _: () = assert!(
    limits::MESSAGE_BYTES + FRAME_BYTES as u32 + ANSWER_BYTES <= limits::RING_BYTES,
    "a whole message fits"
);

struct Line {
    tx: Producer,
    rx: Consumer,
    mine: Bell,
    theirs: Bell,
    /// The front of a frame whose payload is not all there.
    front: Option<Front>,
    /// Bytes that lie in the ring and are no whole frame.
    rest: u32,
    /// The least room without which a packet did not fit since room was found last, or 0.
    wanted: u32,
    spoiled: bool,
    hot: bool,
    /// Something was written or read and not published.
    dirty: bool,
}

/// What it did so far; all of it only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryCounters {
    /// Times that a port was announced asleep.
    pub announced: u64,
    /// Of these: times that the look afterwards found something.
    pub rescued_by_looking_again: u64,
    /// Times that a peer was to be rung.
    pub rung: u64,
}

/// The wire; see the module text.
pub struct MemoryWire {
    message_bytes_max: u32,
    lines: HashMap<Port, Line>,
    next: u32,
    hot: Vec<Port>,
    dirty: Vec<Port>,
    spoiled: Vec<Port>,
    /// Ports of this pass, and what each had when it began: a peer that writes on waits its turn.
    pass: VecDeque<(Port, u32)>,
    passing: bool,
    fork: Option<Rc<Fork>>,
    now: Duration,
    counters: MemoryCounters,
}

impl MemoryWire {
    /// A wire without ports, for messages of at most so many bytes.
    pub fn new(message_bytes_max: u32) -> MemoryWire {
        MemoryWire {
            message_bytes_max,
            lines: HashMap::new(),
            next: 0,
            hot: Vec::new(),
            dirty: Vec::new(),
            spoiled: Vec::new(),
            pass: VecDeque::new(),
            passing: false,
            fork: None,
            now: Duration::ZERO,
            counters: MemoryCounters::default(),
        }
    }

    /// What tells maps of this process from those of its parent; maps are made with it.
    pub fn guard(&mut self) -> io::Result<Rc<Fork>> {
        match &self.fork {
            Some(fork) => Ok(Rc::clone(fork)),
            None => Ok(Rc::clone(self.fork.insert(Rc::new(Fork::new()?)))),
        }
    }

    /// Adds a link's memory. Side 0 made it. It begins hot.
    ///
    /// # Panics
    /// Panics after 2^31 links.
    pub fn add(&mut self, map: &Rc<Map>, header: Header, side: usize) -> Port {
        let port = Port(self.next);
        self.next += 1;
        assert!(self.next < 1 << 31, "under 2^31 links per wire");
        let other = 1 - side;
        let line = Line {
            tx: Producer::new(Rc::clone(map), header.lane(side)),
            rx: Consumer::new(Rc::clone(map), header.lane(other)),
            mine: Bell::new(Rc::clone(map), announce(side)),
            theirs: Bell::new(Rc::clone(map), announce(other)),
            front: None,
            rest: 0,
            wanted: 0,
            spoiled: false,
            hot: true,
            dirty: false,
        };
        self.lines.insert(port, line);
        self.hot.push(port);
        port
    }

    /// Forgets a link and its memory.
    pub fn remove(&mut self, port: Port) {
        self.lines.remove(&port);
    }

    /// Its bell has rung, or there is another reason to look.
    pub fn wake(&mut self, port: Port) {
        if self.is_orphan() {
            return;
        }
        if let Some(line) = self.lines.get_mut(&port) {
            line.mine.retract();
            if !std::mem::replace(&mut line.hot, true) {
                self.hot.push(port);
            }
        }
    }

    /// Whether a port is looked at before the loop sleeps.
    pub fn is_hot(&self) -> bool {
        !self.hot.is_empty()
    }

    /// Makes visible what was put, gives back what was taken. Returns whose bell is to be rung.
    pub fn publish(&mut self) -> Vec<Port> {
        let mut ring = Vec::new();
        if self.is_orphan() {
            return ring;
        }
        for port in self.dirty.drain(..) {
            let Some(line) = self.lines.get_mut(&port) else { continue };
            line.dirty = false;
            let (bytes, room) = (line.tx.publish(), line.rx.release());
            let news = if bytes { News::Bytes } else { News::Room };
            if (bytes || room) && line.theirs.must_ring(news) {
                self.counters.rung += 1;
                ring.push(port);
            }
        }
        ring
    }

    /// Announces sleep on every hot port and looks once more. Returns whether there is something
    /// to do instead of sleeping.
    pub fn rest(&mut self) -> bool {
        if self.is_orphan() {
            return false;
        }
        let (lines, counters, spoiled) = (&mut self.lines, &mut self.counters, &mut self.spoiled);
        let mut any = false;
        self.hot.retain(|port| {
            let Some(line) = lines.get_mut(port) else { return false };
            if line.spoiled {
                line.hot = false;
                return false;
            }
            line.mine.announce(line.wanted > 0);
            counters.announced += 1;
            let news = match mutant::on(Mutant::RdmaRestUnchecked) {
                true => Ok(false),
                false => line.has_news(),
            };
            line.hot = news.unwrap_or_else(|Scribbled| {
                line.spoiled = true;
                spoiled.push(*port);
                true
            });
            if line.hot {
                counters.rescued_by_looking_again += 1;
                line.mine.retract();
                any = true;
            }
            line.hot
        });
        any
    }

    /// Ports whose peers wrote what makes no sense, each once.
    pub fn spoiled(&mut self) -> Vec<Port> {
        std::mem::take(&mut self.spoiled)
    }

    /// Sets the clock.
    pub fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    /// What it did so far.
    pub fn counters(&self) -> MemoryCounters {
        self.counters
    }

    /// In a forked child the memory is not there, and every link is the parent's.
    fn is_orphan(&mut self) -> bool {
        let orphan = self.fork.as_ref().is_some_and(|fork| fork.happened());
        if orphan {
            self.fork = None;
            self.lines.clear();
            self.hot.clear();
            self.dirty.clear();
            self.pass.clear();
        }
        orphan
    }

    fn begin_pass(&mut self) {
        for port in &self.hot {
            let Some(line) = self.lines.get_mut(port).filter(|line| !line.spoiled) else {
                continue;
            };
            match line.rx.available(u32::MAX) {
                Ok(there) => {
                    if there > line.rest {
                        self.pass.push_back((*port, there));
                    }
                }
                Err(Scribbled) => {
                    line.spoiled = true;
                    self.spoiled.push(*port);
                }
            }
        }
    }

    fn touch(&mut self, port: Port) {
        if let Some(line) = self.lines.get_mut(&port)
            && !std::mem::replace(&mut line.dirty, true)
        {
            self.dirty.push(port);
        }
    }
}

impl Line {
    /// The next whole packet among `there` bytes, and how many are left; none if it is not all
    /// there.
    fn packet(&mut self, there: u32, most: u32) -> Result<Option<(Packet, u32)>, Scribbled> {
        let mut left = there;
        let front = match self.front.take() {
            Some(front) => front,
            None if (left as usize) < FRAME_BYTES => {
                self.rest = left;
                return Ok(None);
            }
            None => {
                let mut bytes = [0; FRAME_BYTES];
                self.rx.read(&mut bytes);
                left -= FRAME_BYTES as u32;
                frame::decode(&bytes, most).ok_or(Scribbled)?
            }
        };
        if left < front.length {
            (self.front, self.rest) = (Some(front), left);
            return Ok(None);
        }
        let mut payload = vec![0; front.length as usize];
        self.rx.read(&mut payload);
        left -= front.length;
        self.rest = 0;
        Ok(Some((front.packet(payload), left)))
    }

    /// Whether a look would find more bytes, or the room that was wanted.
    fn has_news(&mut self) -> Result<bool, Scribbled> {
        if self.wanted > 0 && self.tx.room(self.wanted)? >= self.wanted {
            // Whoever waits asks again, and says so if it was not enough.
            self.wanted = 0;
            return Ok(true);
        }
        Ok(self.rx.available(self.rest + 1)? > self.rest)
    }
}

impl Wire for MemoryWire {
    fn put(&mut self, port: Port, packet: Packet) -> Result<(), Packet> {
        if self.is_orphan() {
            return Ok(());
        }
        // A link that is gone takes everything, as a cut cable does.
        let Some(line) = self.lines.get_mut(&port).filter(|line| !line.spoiled) else {
            return Ok(());
        };
        let (front, payload) = frame::encode(&packet);
        let kept = if packet.is_answer() { 0 } else { ANSWER_BYTES };
        let wanted = (FRAME_BYTES + payload.len()) as u32 + kept;
        let room = match line.tx.room(wanted) {
            Ok(room) => room,
            Err(Scribbled) => {
                line.spoiled = true;
                self.spoiled.push(port);
                return Ok(());
            }
        };
        if room < wanted {
            line.wanted = if line.wanted == 0 { wanted } else { line.wanted.min(wanted) };
            return Err(packet);
        }
        // There is room for both; what the counter says meanwhile is not asked again.
        let wrote = line.tx.write(&front).and_then(|_| line.tx.write(payload));
        debug_assert_eq!(wrote, Ok(payload.len()), "there was room");
        self.touch(port);
        Ok(())
    }

    fn take(&mut self) -> Option<(Port, Packet)> {
        if self.is_orphan() {
            return None;
        }
        if !std::mem::replace(&mut self.passing, true) {
            self.begin_pass();
        }
        while let Some((port, there)) = self.pass.pop_front() {
            let Some(line) = self.lines.get_mut(&port) else { continue };
            let packet = line.packet(there, self.message_bytes_max);
            self.touch(port);
            match packet {
                Ok(Some((packet, left))) => {
                    self.pass.push_back((port, left));
                    return Some((port, packet));
                }
                Ok(None) => {}
                Err(Scribbled) => {
                    self.lines.get_mut(&port)?.spoiled = true;
                    self.spoiled.push(port);
                }
            }
        }
        self.passing = false;
        None
    }

    fn now(&self) -> Duration {
        self.now
    }

    /// Whoever has it runs the device; nothing arrives in between.
    fn interrupts(&mut self) -> bool {
        false
    }

    fn message_bytes_max(&self) -> u32 {
        self.message_bytes_max
    }
}
