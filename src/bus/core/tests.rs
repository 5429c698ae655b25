//! The core, driven by hand: these tests play its relay, with the relay's ends of real rings.

mod classes;
mod incoming;
mod relay;
mod sending;

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use super::*;
use crate::bus::local::{AckWhen, Class, Terms};
use crate::shm::RecordHeader;
use crate::shm::through::{Flow, InletWriter, OutletReader, Published};

pub(super) const RING: u32 = 16 << 10;

pub(super) fn terms(class: Class) -> Terms {
    Terms { class, ack: AckWhen::Stored, ring: RING, priority: 1, stuck_after_ms: 1000, ttl_ms: 0 }
}

/// A ring that the core sends from, at the relay's end.
pub(super) struct Source {
    pub reader: OutletReader,
    pub att: u32,
    pub epoch: u64,
}

/// A core, and a relay that these tests play.
pub(super) struct Rig {
    pub core: Core,
    memory: Memory,
    pub class: Class,
    pub said: Vec<ToRelay>,
    pub conn: ConnNo,
    pub dials: Vec<(ConnNo, u8)>,
    pub hung: Vec<ConnNo>,
    /// What came of `Attach`, by channel number.
    pub sources: HashMap<u32, Source>,
    /// What came of `Segment`, by sender.
    pub sinks: HashMap<String, (InletWriter, u32)>,
    pub events: Vec<Event>,
    /// Names that are neighbours.
    pub neighbours: Vec<String>,
    /// Does not answer.
    pub deaf: bool,
}

impl Rig {
    /// A core that no relay has seen yet.
    pub fn new() -> Rig {
        let memory = Memory::new().expect("a page");
        let setup = Setup {
            node: "login@a".to_string(),
            epoch: 1000,
            nonce: Nonce([7; 16]),
            replace: false,
            uid: 0,
            memory: memory.clone(),
            limits: Limits { queue_bytes: 4096, ..Limits::default() },
        };
        Rig {
            core: Core::new(setup),
            memory,
            class: Class::Reliable,
            said: Vec::new(),
            conn: 0,
            dials: Vec::new(),
            hung: Vec::new(),
            sources: HashMap::new(),
            sinks: HashMap::new(),
            events: Vec::new(),
            neighbours: Vec::new(),
            deaf: false,
        }
    }

    /// One that the relay has taken in.
    pub fn here() -> Rig {
        let mut rig = Rig::new();
        rig.core.tick(1);
        rig.run();
        assert!(rig.core.is_here());
        rig
    }

    /// Does what the core wants, until it wants nothing more.
    pub fn run(&mut self) {
        self.core.publish();
        loop {
            while let Some(event) = self.core.next_event() {
                self.events.push(event);
            }
            let Some(todo) = self.core.next_do() else { break };
            self.act(todo);
        }
    }

    fn act(&mut self, todo: Do) {
        match todo {
            Do::Dial { conn, successor } => {
                self.dials.push((conn, successor));
                if successor == 0 && !self.deaf {
                    self.conn = conn;
                    self.core.connected(conn);
                }
            }
            Do::Say(conn, said) => {
                assert_eq!(said.line.descriptors(), said.fds.len());
                if conn == self.conn && !self.deaf {
                    self.hear(said);
                }
            }
            Do::Hang(conn) => self.hung.push(conn),
            Do::OpenBell { .. } => self.core.bell_open(),
            Do::CloseBell | Do::Listen { .. } | Do::Meet { .. } | Do::Part { .. } => {}
        }
    }

    fn hear(&mut self, said: Said<ToRelay>) {
        let (line, fds) = (said.line, said.fds);
        let answer = match &line {
            ToRelay::Register { .. } => Some(self.registered()),
            ToRelay::Open { id, to, .. } => {
                let node = to.split('@').next().unwrap_or_default().to_string();
                let direct = self.neighbours.contains(&node);
                let host = "b".to_string();
                Some(FromRelay::Path { id: *id, node, host, terms: terms(self.class), direct })
            }
            ToRelay::Attach { id, epoch, att, from, ring, .. } => {
                let source = self.attached(&fds, *ring, (from.seq, from.pos));
                let source = Source { reader: source, att: *att, epoch: *epoch };
                self.sources.insert(*id, source);
                None
            }
            ToRelay::Segment { from, att, ring, .. } => {
                let map = self.memory.inlet(&fds[0], *ring).expect("a ring to receive into");
                let writer = InletWriter::new(map).expect("a fresh one");
                self.sinks.insert(from.clone(), (writer, *att));
                None
            }
            ToRelay::Ping { id } => Some(FromRelay::Pong { id: *id }),
            _ => None,
        };
        self.said.push(line);
        if let Some(answer) = answer.filter(|answer| !self.is_asked_group(answer)) {
            self.core.said(self.conn, answer);
        }
    }

    /// Groups are answered by the tests themselves.
    fn is_asked_group(&self, answer: &FromRelay) -> bool {
        matches!(answer, FromRelay::Path { node, .. } if node.is_empty())
    }

    fn registered(&self) -> FromRelay {
        FromRelay::Registered {
            host: "a".to_string(),
            cluster: "demo".to_string(),
            bell: "shm://@bell?face=records".to_string(),
            token: Nonce([1; 16]),
            pid: 1,
            incarnation: 1,
        }
    }

    fn attached(&self, fds: &[OwnedFd], ring: u32, (seq, pos): (u32, u32)) -> OutletReader {
        let data = self.memory.outlet(&fds[0], ring).expect("a ring to send from");
        let control = self.memory.control(&fds[1]).expect("a control page");
        let from = Published { seq, frozen: false, pos };
        OutletReader::new(data, control, from).expect("a ring as it should be")
    }

    pub fn said(&mut self, line: FromRelay) {
        self.core.said(self.conn, line);
        self.run();
    }

    /// The relay's process dies.
    pub fn relay_dies(&mut self) {
        self.core.hung_up(self.conn);
        self.sources.clear();
        self.sinks.clear();
        self.run();
    }

    /// The records that the relay finds in the ring of a channel, behind those it has read.
    pub fn read(&mut self, id: u32) -> Vec<(u32, u16, Vec<u8>)> {
        self.core.publish();
        let source = self.sources.get_mut(&id).expect("it was attached");
        let mut bytes = Vec::new();
        let batch = source.reader.read(u32::MAX, u32::MAX, &mut bytes).expect("records");
        let (mut at, mut seq, mut found) = (0, batch.first, Vec::new());
        while at < bytes.len() {
            let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let len = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
            found.push((seq, word(at + 4), bytes[at + 8..at + 8 + len].to_vec()));
            at += (8 + len).next_multiple_of(8);
            seq += 1;
        }
        found
    }

    /// The payloads of plain messages, of what [`Rig::read`] finds.
    pub fn texts(&mut self, id: u32) -> Vec<String> {
        let found = self.read(id).into_iter();
        found.map(|(_, _, bytes)| String::from_utf8_lossy(&bytes).into_owned()).collect()
    }

    pub fn ack(&mut self, id: u32, seq: u32) {
        let source = self.sources.get_mut(&id).expect("it was attached");
        source.reader.mark_acked(seq).expect("it holds that");
        self.core.rang();
        self.run();
    }

    /// The relay stores records for the core, kind and payload each.
    pub fn store(&mut self, from: &str, records: &[(u16, &[u8])]) {
        let mut run = Vec::new();
        for (kind, payload) in records {
            let header = RecordHeader { len: payload.len() as u32, kind: *kind, channel: 0 };
            header.append(payload, &mut run);
        }
        let (writer, _) = self.sinks.get_mut(from).expect("it has a ring");
        writer.push_run(&run).expect("there is room");
        writer.publish().expect("it is not frozen");
    }

    pub fn incoming(&mut self, from: &str, epoch: u64) {
        self.said(FromRelay::Incoming {
            from: from.to_string(),
            chan: 0,
            epoch,
            nonce: Nonce([epoch as u8; 16]),
            terms: terms(Class::Reliable),
        });
    }

    /// Everything that there is to read: sender, number, text.
    pub fn receive(&mut self) -> Vec<(String, u32, String)> {
        let (mut seen, mut private) = (Vec::new(), Vec::new());
        while let Some(mut taken) = self.core.take() {
            taken.walk(&mut private, 100, &mut |message| {
                let text = String::from_utf8_lossy(message.body).into_owned();
                seen.push((message.from.to_string(), message.seq, text));
                Flow::Go
            });
            self.core.put(taken);
        }
        self.run();
        seen
    }

    pub fn send(&mut self, to: &str, text: &str) -> Result<(), BusError> {
        let sent = self.core.send(Post { to, ..Post::default() }, text.as_bytes());
        self.run();
        sent
    }

    pub fn peer_events(&mut self) -> Vec<PeerEvent> {
        let events = std::mem::take(&mut self.events);
        let of_peers = |event| match event {
            Event::Peer(event) => Some(event),
            _ => None,
        };
        events.into_iter().filter_map(of_peers).collect()
    }

    pub fn writable(&mut self) -> Vec<String> {
        let events = std::mem::take(&mut self.events);
        let writable = |event| match event {
            Event::Writable { to, .. } => Some(to.to_string()),
            _ => None,
        };
        events.into_iter().filter_map(writable).collect()
    }
}
