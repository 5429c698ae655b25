//! A relay for one host, as small as can be: it is what tests of the process's side talk to. It
//! believes everybody, and does everything in the turn in which it hears of it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use ringlane::ListenOptions;
use ringlane::bus::local::{self, FromRelay, Nonce, Pick, Said, Terms, ToRelay};
use ringlane::bus::memory::Memory;
use ringlane::prelude::*;
use ringlane::shm::through::{InletWriter, OutletReader, Published};
use ringlane::shm::{Attached, Port};

/// A registered process.
struct Node {
    conn: Bufferevent,
    port: Option<Port>,
    token: Nonce,
    epoch: u64,
    nonce: Nonce,
    rings: Rc<Rings>,
}

/// One channel in one direction.
struct Chan {
    src: String,
    dst: String,
    chan: u16,
    id: u32,
    epoch: u64,
    reader: Option<OutletReader>,
    writer: Option<InletWriter>,
    /// The reader stands where the writer is.
    begun: bool,
    /// Something is left that found no room.
    blocked: bool,
    closing: bool,
    sender_died: bool,
    token: Nonce,
}

/// What a relay must do for one process.
#[derive(Default)]
struct Rings {
    relay: RefCell<Weak<Relay>>,
    node: String,
    published: Cell<bool>,
    gave: Cell<bool>,
}

/// See the module text.
pub struct Relay {
    memory: Memory,
    terms: Terms,
    nodes: RefCell<HashMap<String, Node>>,
    chans: RefCell<Vec<Chan>>,
    /// Who is introduced and not sent through here.
    pub direct: Cell<bool>,
    pub groups: RefCell<HashMap<String, (Vec<String>, Pick)>>,
    socket: RefCell<Option<Listener>>,
    bell: RefCell<Option<Listener>>,
    conns: RefCell<Vec<Bufferevent>>,
    tokens: Cell<u8>,
    run: u64,
}

impl Relay {
    /// Listens at `unix://@name`.
    pub fn start(base: &EventBase, name: &str, terms: Terms, run: u64) -> Rc<Relay> {
        let relay = Rc::new(Relay {
            memory: Memory::new().unwrap(),
            terms,
            nodes: RefCell::default(),
            chans: RefCell::default(),
            direct: Cell::new(false),
            groups: RefCell::default(),
            socket: RefCell::default(),
            bell: RefCell::default(),
            conns: RefCell::default(),
            tokens: Cell::new(1),
            run,
        });
        let mut options = ListenOptions::default();
        options.link.receive_fds = true;
        let weak = Rc::downgrade(&relay);
        let socket = base
            .listen_with(format!("unix://@{name}"), &options, move |conn| {
                if let Some(relay) = weak.upgrade() {
                    relay.accept(&conn);
                }
            })
            .unwrap();
        *relay.socket.borrow_mut() = Some(socket);
        let weak = Rc::downgrade(&relay);
        let bell = base
            .listen(format!("shm://@{name}-bell-{run}?face=records"), move |conn| {
                if let Some(relay) = weak.upgrade() {
                    relay.ring_connected(&conn);
                }
            })
            .unwrap();
        *relay.bell.borrow_mut() = Some(bell);
        relay
    }

    /// As kill -9 would.
    pub fn die(self: Rc<Relay>) {
        self.socket.borrow_mut().take().unwrap().free();
        self.bell.borrow_mut().take().unwrap().free();
        for (_, node) in self.nodes.borrow_mut().drain() {
            node.conn.abort();
        }
        for conn in self.conns.borrow_mut().drain(..) {
            conn.abort();
        }
        self.chans.borrow_mut().clear();
    }

    fn accept(self: &Rc<Relay>, conn: &Bufferevent) {
        let weak = Rc::downgrade(self);
        let name: Rc<RefCell<Option<String>>> = Rc::default();
        let of = Rc::clone(&name);
        let mut fds: Vec<OwnedFd> = Vec::new();
        conn.on_read(move |conn| {
            let Some(relay) = weak.upgrade() else { return };
            fds.extend(conn.take_fds());
            while let Some(line) = conn.input().readln(Eol::Lf) {
                let line: ToRelay = local::decode(&line).unwrap();
                let own = fds.drain(..line.descriptors()).collect();
                relay.hear(conn, &of, Said { line, fds: own });
            }
            relay.work();
        });
        let weak = Rc::downgrade(self);
        conn.on_event(move |conn, event| {
            if event.is_end()
                && let Some(relay) = weak.upgrade()
                && let Some(name) = &*name.borrow()
            {
                relay.died(name, conn);
            }
            conn.free();
        });
        conn.enable(READ);
        self.conns.borrow_mut().push(conn.clone());
    }

    fn say(&self, node: &str, line: &FromRelay) {
        if let Some(node) = self.nodes.borrow().get(node) {
            node.conn.output().add(&local::encode(line));
        }
    }

    fn token(&self) -> Nonce {
        self.tokens.set(self.tokens.get() + 1);
        Nonce([self.tokens.get(); 16])
    }

    fn hear(
        self: &Rc<Relay>,
        conn: &Bufferevent,
        of: &RefCell<Option<String>>,
        said: Said<ToRelay>,
    ) {
        let me = of.borrow().clone().unwrap_or_default();
        match said.line {
            ToRelay::Register { node, epoch, nonce, replace, .. } => {
                let name = node.split('@').next().unwrap().to_string();
                self.register(conn, of, (name, epoch, nonce, replace));
            }
            ToRelay::Open { id, to, chan } => self.open(&me, id, &to, chan),
            ToRelay::Attach { id, to, chan, epoch, from, ring, .. } => {
                let data = self.memory.outlet(&said.fds[0], ring).unwrap();
                let control = self.memory.control(&said.fds[1]).unwrap();
                let from = Published { seq: from.seq, frozen: false, pos: from.pos };
                let reader = OutletReader::new(data, control, from).unwrap();
                let dst = to.split('@').next().unwrap();
                let mut chans = self.chans.borrow_mut();
                let at = Relay::chan(&mut chans, &me, dst, chan);
                chans[at].reader = Some(reader);
                (chans[at].id, chans[at].epoch, chans[at].begun) = (id, epoch, false);
                drop(chans);
                self.want_segment(at);
            }
            ToRelay::Segment { from, chan, ring, .. } => {
                let map = self.memory.inlet(&said.fds[0], ring).unwrap();
                let mut chans = self.chans.borrow_mut();
                let at = Relay::chan(&mut chans, &from, &me, chan);
                chans[at].writer = Some(InletWriter::new(map).unwrap());
                chans[at].begun = false;
                let (id, epoch) = (chans[at].id, self.nodes.borrow()[&me].epoch);
                drop(chans);
                self.say(&from, &FromRelay::Bound { id, epoch });
            }
            ToRelay::Listening { token, address } => {
                let chans = self.chans.borrow();
                let Some(chan) = chans.iter().find(|chan| chan.token == token) else { return };
                let (id, epoch) = (chan.id, self.nodes.borrow()[&me].epoch);
                self.say(&chan.src, &FromRelay::Connect { id, address, token, epoch });
            }
            ToRelay::Close { id } => {
                let mut chans = self.chans.borrow_mut();
                for chan in chans.iter_mut().filter(|chan| chan.src == me && chan.id == id) {
                    chan.closing = true;
                }
            }
            ToRelay::Ping { id } => self.say(&me, &FromRelay::Pong { id }),
            ToRelay::GoneSeen { .. }
            | ToRelay::Leave
            | ToRelay::Probed { .. }
            | ToRelay::Ask(_) => {}
        }
    }

    fn chan(chans: &mut Vec<Chan>, src: &str, dst: &str, chan: u16) -> usize {
        let found =
            chans.iter().position(|one| one.src == src && one.dst == dst && one.chan == chan);
        found.unwrap_or_else(|| {
            chans.push(Chan {
                src: src.to_string(),
                dst: dst.to_string(),
                chan,
                id: 0,
                epoch: 0,
                reader: None,
                writer: None,
                begun: false,
                blocked: false,
                closing: false,
                sender_died: false,
                token: Nonce::default(),
            });
            chans.len() - 1
        })
    }

    fn register(
        self: &Rc<Relay>,
        conn: &Bufferevent,
        of: &RefCell<Option<String>>,
        (name, epoch, nonce, replace): (String, u64, Nonce, bool),
    ) {
        if !replace && self.nodes.borrow().get(&name).is_some_and(|node| node.nonce != nonce) {
            let line = FromRelay::NameInUse { pid: std::process::id(), since: 1 };
            return conn.output().add(&local::encode(&line));
        }
        *of.borrow_mut() = Some(name.clone());
        let token = self.token();
        let rings = Rc::new(Rings { node: name.clone(), ..Rings::default() });
        *rings.relay.borrow_mut() = Rc::downgrade(self);
        let node = Node { conn: conn.clone(), port: None, token, epoch, nonce, rings };
        self.nodes.borrow_mut().insert(name.clone(), node);
        let address = self.bell.borrow().as_ref().unwrap().address().to_string();
        let bell = format!("{}?face=records", address.split('?').next().unwrap());
        let line = FromRelay::Registered {
            host: "a".to_string(),
            cluster: "demo".to_string(),
            bell,
            token,
            pid: std::process::id(),
            incarnation: self.run,
        };
        self.say(&name, &line);
        // Who has written to it before it was there.
        let waiting: Vec<usize> = (0..self.chans.borrow().len())
            .filter(|at| self.chans.borrow()[*at].dst == name)
            .collect();
        waiting.into_iter().for_each(|at| self.want_segment(at));
    }

    fn open(&self, me: &str, id: u32, to: &str, chan: u16) {
        if let Some((nodes, pick)) = self.groups.borrow().get(to) {
            return self.say(me, &FromRelay::Members { id, nodes: nodes.clone(), pick: *pick });
        }
        let (node, direct) = (to.split('@').next().unwrap().to_string(), self.direct.get());
        if node == "nobody" {
            let why = "no node has that name; add it to the cluster's file".to_string();
            return self.say(me, &FromRelay::NoPath { id, why });
        }
        let (host, terms) = ("a".to_string(), self.terms);
        self.say(me, &FromRelay::Path { id, node: node.clone(), host, terms, direct });
        let mut chans = self.chans.borrow_mut();
        let at = Relay::chan(&mut chans, me, &node, chan);
        chans[at].id = id;
        drop(chans);
        if direct {
            self.want_segment(at);
        }
    }

    /// Asks the receiver for a ring, or for where it listens, if it is there.
    fn want_segment(&self, at: usize) {
        let mut chans = self.chans.borrow_mut();
        let one = &mut chans[at];
        let (src, dst, chan) = (one.src.clone(), one.dst.clone(), one.chan);
        let nodes = self.nodes.borrow();
        let (Some(sender), true) = (nodes.get(&src), nodes.contains_key(&dst)) else { return };
        let (epoch, nonce, terms) = (sender.epoch, sender.nonce, self.terms);
        drop(nodes);
        if one.reader.is_some() {
            drop(chans);
            self.say(&dst, &FromRelay::Incoming { from: src, chan, epoch, nonce, terms });
        } else if self.direct.get() {
            let token = self.token();
            one.token = token;
            drop(chans);
            let uid = nix::unistd::geteuid().as_raw();
            self.say(&dst, &FromRelay::Expect { token, from: src, chan, epoch, uid, terms });
        }
    }

    fn ring_connected(self: &Rc<Relay>, conn: &Bufferevent) {
        let weak = Rc::downgrade(self);
        let mut known = false;
        conn.on_read(move |conn| {
            let Some(relay) = weak.upgrade() else { return };
            let port = conn.face::<Port>().unwrap();
            let mut said = None;
            port.drain(&mut Vec::new(), |_, bytes| said = Some(Nonce(bytes.try_into().unwrap())))
                .unwrap();
            if !known {
                known = true;
                let mut nodes = relay.nodes.borrow_mut();
                let node = nodes.values_mut().find(|node| Some(node.token) == said).unwrap();
                port.attach(Rc::clone(&node.rings) as Rc<dyn Attached>);
                node.port = Some(port);
            }
            relay.work();
        });
        conn.on_event(|conn, _| conn.free());
        conn.enable(READ);
        self.conns.borrow_mut().push(conn.clone());
    }

    /// Moves everything that can be moved.
    fn work(self: &Rc<Relay>) {
        let mut ends = Vec::new();
        for (at, chan) in self.chans.borrow_mut().iter_mut().enumerate() {
            self.move_one(chan);
            let through = chan.begun && !chan.blocked;
            if through && (chan.closing || chan.sender_died) {
                ends.push(at);
            }
        }
        for at in ends.into_iter().rev() {
            let chan = self.chans.borrow_mut().remove(at);
            let last = chan.writer.as_ref().unwrap().stored();
            let Chan { src: from, dst, chan: number, epoch, closing: clean, id, .. } = chan;
            self.say(&from, &FromRelay::Closed { id });
            self.say(&dst, &FromRelay::End { from, chan: number, epoch, last, clean });
        }
        for node in self.nodes.borrow().values() {
            node.port.iter().for_each(Port::touch);
        }
    }

    fn move_one(&self, chan: &mut Chan) {
        let (Some(reader), Some(writer)) = (&mut chan.reader, &mut chan.writer) else { return };
        let nodes = self.nodes.borrow();
        if !chan.begun {
            let next = writer.stored().wrapping_add(1);
            reader.written().unwrap();
            reader.mark_acked(writer.stored()).unwrap();
            reader.seek(next).unwrap();
            chan.begun = true;
        }
        chan.blocked = false;
        loop {
            let (mut run, room) = (Vec::new(), writer.room().unwrap());
            let batch = reader.read(64 << 10, room, &mut run).unwrap();
            if batch.records == 0 {
                chan.blocked = reader.unread() > 0;
                break;
            }
            let last = batch.first + batch.records - 1;
            reader.mark_sent(last);
            writer.push_run(&run).unwrap();
            if writer.publish().is_err() {
                // It was taken away: a fresh one comes.
                chan.writer = None;
                chan.begun = false;
                return;
            }
            reader.mark_acked(last).unwrap();
            nodes.get(&chan.dst).iter().for_each(|node| node.rings.published.set(true));
            nodes.get(&chan.src).iter().for_each(|node| node.rings.gave.set(true));
        }
    }

    /// A process has gone.
    fn died(self: &Rc<Relay>, name: &str, conn: &Bufferevent) {
        let mut nodes = self.nodes.borrow_mut();
        if nodes.get(name).is_none_or(|node| node.conn != *conn) {
            return;
        }
        let epoch = nodes.remove(name).unwrap().epoch;
        drop(nodes);
        let mut gone = Vec::new();
        self.chans.borrow_mut().retain_mut(|chan| {
            chan.sender_died |= chan.src == name;
            let Some(writer) = chan.writer.as_mut().filter(|_| chan.dst == name) else {
                return true;
            };
            let first = writer.consumed().unwrap() + 1;
            gone.push((
                chan.src.clone(),
                FromRelay::Gone { id: chan.id, epoch, first, exact: true },
            ));
            false
        });
        gone.into_iter().for_each(|(src, line)| self.say(&src, &line));
        self.work();
    }
}

impl Rings {
    fn any(&self, ask: impl Fn(&mut Chan) -> bool) -> bool {
        let Some(relay) = self.relay.borrow().upgrade() else { return false };
        let Ok(mut chans) = relay.chans.try_borrow_mut() else { return true };
        chans.iter_mut().any(ask)
    }
}

impl Attached for Rings {
    fn publish(&self) -> bool {
        self.published.take()
    }
    fn gave(&self) -> bool {
        self.gave.take()
    }
    fn news(&self) -> bool {
        self.any(|chan| {
            let written = chan.src == self.node
                && chan.writer.is_some()
                && chan.reader.as_ref().is_some_and(OutletReader::news);
            let next = chan.blocked && chan.dst == self.node;
            written || next && chan.writer.as_mut().unwrap().room().unwrap() >= 4096
        })
    }
    fn wants_room(&self) -> bool {
        self.any(|chan| chan.blocked && chan.dst == self.node)
    }
}
