//! What the relay's daemon will be, without sockets: the core and the table of routes, and what
//! they say carried to the world.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringlane::Evbuffer;
use ringlane::bus::local::Nonce;
use ringlane::bus::memory::Memory;
use ringlane::cluster::Cluster;
use ringlane::frame::Frame;
use ringlane::relay::aged::Limits;
use ringlane::relay::core::{ConnId, Core, LinkId, Note, Now, Out, Setup, Status};
use ringlane::relay::routes::{self, Loss, Peer, Policy, RouteOut, Routes};

use crate::HOSTS;
use crate::relay::{Baton, Done, Effect, Happened, Sock, Start, Wire};

/// What a link holds before channels wait, as the core has it.
const FULL: usize = 512 << 10;

/// Rounds of one turn.
const ROUNDS: u32 = 8;

/// An open link.
struct End {
    route: routes::LinkId,
    /// In use.
    core: Option<LinkId>,
    input: Evbuffer,
}

pub struct Driver {
    baton: Rc<Baton>,
    core: Core,
    routes: Routes,
    hosts: Vec<Option<routes::HostId>>,
    conns: BTreeMap<Sock, ConnId>,
    ends: BTreeMap<Wire, End>,
    dials: BTreeMap<u32, routes::LinkId>,
    next_dial: u32,
    origin: Instant,
    now: Instant,
    slow: bool,
}

fn now(origin: Instant, at: Duration) -> Now {
    let unix_us = 1_000_000 + at.as_micros() as u64;
    Now { instant: origin + at, mono_ms: at.as_millis() as u64, unix_us }
}

impl Driver {
    pub fn new(baton: Rc<Baton>, start: &Start) -> Driver {
        let host = HOSTS[start.host];
        let seed = start.incarnation * 16 + start.host as u64;
        let mut next = seed;
        let core = Core::new(Setup {
            host: host.into(),
            cluster: Rc::new(Cluster::parse(&start.config).expect("a config as it should be")),
            incarnation: start.incarnation,
            uid: 0,
            pid: start.incarnation as u32,
            memory: Memory::new().expect("a page"),
            tokens: Box::new(move || {
                next += 1 << 32;
                Nonce(u128::from(next).to_le_bytes())
            }),
            now: now(start.origin, start.at),
        });
        let limits =
            Limits { setting: "limits.names", entries_max: 99, idle_max: Duration::from_secs(999) };
        let instant = start.origin + start.at;
        let mut routes = Routes::new(host, Policy::default(), limits, seed, instant);
        let other = |at: usize| (at != start.host).then(|| routes.add_host(HOSTS[at], &["x"]));
        let hosts = (0..start.hosts).map(other).collect();
        Driver {
            baton,
            core,
            routes,
            hosts,
            conns: BTreeMap::new(),
            ends: BTreeMap::new(),
            dials: BTreeMap::new(),
            next_dial: 0,
            origin: start.origin,
            now: instant,
            slow: start.slow,
        }
    }

    pub fn status(&mut self) -> Status {
        self.core.status()
    }

    /// One turn of the daemon's loop.
    pub fn turn(&mut self, at: Duration, happened: Vec<Happened>) -> Done {
        self.now = self.origin + at;
        for one in happened {
            self.happened(at, one);
        }
        let mut more = true;
        for _ in 0..ROUNDS {
            more = self.core.turn(now(self.origin, at));
            let mut did = false;
            while let Some(out) = self.core.take() {
                did = true;
                self.act(out);
            }
            // The second look, before it sleeps.
            let conns: Vec<ConnId> = self.conns.values().copied().collect();
            let mut news = false;
            for conn in conns {
                if self.core.has_news(conn) {
                    news = true;
                    self.core.rang(conn);
                }
            }
            more |= news;
            if !more && !did {
                break;
            }
        }
        for (at, host) in self.hosts.iter().enumerate() {
            if let Some(host) = host {
                let unacked = self.core.unacked_by_host().get(HOSTS[at]).copied().unwrap_or(0);
                self.routes.set_unacked(*host, unacked);
            }
        }
        let wants = |(sock, conn): (&Sock, &ConnId)| (*sock, self.core.wants_consumed(*conn));
        Done {
            more,
            wants: self.conns.iter().map(wants).collect(),
            wake: self.routes.next_deadline().map(|at| at.saturating_duration_since(self.origin)),
            ..Done::default()
        }
    }

    fn happened(&mut self, at: Duration, happened: Happened) {
        let mut out = Vec::new();
        match happened {
            Happened::Opened(sock) => {
                self.conns.insert(sock, self.core.local_opened(sock, 0));
            }
            Happened::Said(sock, line, fds) => {
                if let Some(conn) = self.conns.get(&sock) {
                    self.core.local_said(*conn, line, fds);
                }
            }
            Happened::Closed(sock) => {
                if let Some(conn) = self.conns.remove(&sock) {
                    self.core.local_closed(conn);
                }
            }
            Happened::Rang(sock) => {
                if let Some(conn) = self.conns.get(&sock) {
                    self.core.rang(*conn);
                }
            }
            Happened::Accepted(wire, host, instance) => {
                let Some(host) = self.hosts[host] else { return };
                let peer = Peer { version: 1, instance };
                let route = self.routes.accepted(host, peer, self.now, &mut out);
                self.ends.insert(wire, End { route, core: None, input: Evbuffer::new() });
            }
            Happened::Connected(dial, wire, instance) => {
                let Some(route) = self.dials.remove(&dial) else {
                    return self.baton.perform(Effect::Hangup(wire));
                };
                self.ends.insert(wire, End { route, core: None, input: Evbuffer::new() });
                let peer = Peer { version: 1, instance };
                self.routes.connected(route, peer, self.now, &mut out);
            }
            Happened::DialFailed(dial) => {
                if let Some(route) = self.dials.remove(&dial) {
                    self.routes.lost(route, Loss::Broken, self.now, &mut out);
                }
            }
            Happened::Bytes(wire, bytes) => self.bytes(wire, &bytes),
            Happened::LinkGone(wire) => {
                if let Some(end) = self.ends.remove(&wire) {
                    if let Some(core) = end.core {
                        self.core.link_closed(core);
                    }
                    self.routes.lost(end.route, Loss::Broken, self.now, &mut out);
                }
            }
            Happened::LinkRoom(wire) => {
                if let Some(core) = self.ends.get(&wire).and_then(|end| end.core) {
                    self.core.link_room(core, 0);
                }
            }
            Happened::Tick => {
                self.core.tick(now(self.origin, at));
                self.routes.tick(self.now, &mut out);
            }
        }
        self.obey(out);
    }

    fn bytes(&mut self, wire: Wire, bytes: &[u8]) {
        let Some(end) = self.ends.get_mut(&wire) else { return };
        self.routes.heard(end.route, self.now);
        end.input.add(bytes);
        match end.core {
            Some(core) => {
                let heard = self.core.link_input(core, &mut end.input);
                if let Err(malformed) = heard {
                    self.baton.perform(Effect::Broken(format!("a link: {malformed}")));
                }
            }
            // Not in use: what comes is for later. But whoever asks whether we live is answered.
            None => {
                let mut peeked = Evbuffer::new();
                peeked.add(&end.input.to_vec());
                let mut decoder = ringlane::frame::Decoder::new();
                while let Ok(Some(frame)) = decoder.next(&mut peeked) {
                    if let Frame::Ping { id } = frame {
                        let mut bytes = Vec::new();
                        Frame::Pong { id }.encode(&mut bytes);
                        self.baton.perform(Effect::Send(wire, bytes));
                    }
                }
            }
        }
    }

    fn wire_of(&self, fits: impl Fn(&End) -> bool) -> Option<Wire> {
        self.ends.iter().find(|(_, end)| fits(end)).map(|(wire, _)| *wire)
    }

    /// Does what the table of routes says.
    fn obey(&mut self, outs: Vec<RouteOut>) {
        for out in outs {
            match out {
                RouteOut::Dial { link, .. } => {
                    self.next_dial += 1;
                    self.dials.insert(self.next_dial, link);
                    let host = self.hosts.iter().position(|host| *host == Some(link.host()));
                    let host = host.expect("a host that it was told of");
                    self.baton.perform(Effect::Dial(self.next_dial, host));
                }
                RouteOut::Use { link, .. } => self.put_to_use(link),
                RouteOut::Ping { link, id } => {
                    if let Some(wire) = self.wire_of(|end| end.route == link) {
                        let mut bytes = Vec::new();
                        Frame::Ping { id }.encode(&mut bytes);
                        self.baton.perform(Effect::Send(wire, bytes));
                    }
                }
                RouteOut::Close { link, .. } => self.close(link),
                _ => {}
            }
        }
    }

    fn put_to_use(&mut self, link: routes::LinkId) {
        let Some(wire) = self.wire_of(|end| end.route == link) else { return };
        let host = self.hosts.iter().position(|host| *host == Some(link.host()));
        let core = self.core.link_up(HOSTS[host.expect("a host that it was told of")]);
        if let Some(end) = self.ends.get_mut(&wire) {
            end.core = Some(core);
        }
        self.bytes(wire, &[]);
    }

    fn close(&mut self, link: routes::LinkId) {
        if let Some(dial) = self.dials.iter().find(|(_, one)| **one == link).map(|(dial, _)| *dial)
        {
            self.dials.remove(&dial);
            self.baton.perform(Effect::GiveUp(dial));
        }
        if let Some(wire) = self.wire_of(|end| end.route == link) {
            self.hang_up(wire);
        }
    }

    fn hang_up(&mut self, wire: Wire) {
        if let Some(core) = self.ends.remove(&wire).and_then(|end| end.core) {
            self.core.link_closed(core);
        }
        self.baton.perform(Effect::Hangup(wire));
    }

    fn sock_of(&self, conn: ConnId) -> Option<Sock> {
        self.conns.iter().find(|(_, one)| **one == conn).map(|(sock, _)| *sock)
    }

    /// Does what the core says.
    fn act(&mut self, out: Out) {
        match out {
            Out::Say(conn, line) => {
                if let Some(sock) = self.sock_of(conn) {
                    self.baton.perform(Effect::Say(sock, line));
                }
            }
            Out::Drop(conn) => {
                if let Some(sock) = self.sock_of(conn) {
                    self.conns.remove(&sock);
                    self.baton.perform(Effect::Hang(sock));
                    self.core.local_closed(conn);
                }
            }
            Out::Ring(conn, bell) => {
                if let Some(sock) = self.sock_of(conn) {
                    self.baton.perform(Effect::Ring(sock, bell));
                }
            }
            Out::Pong(link, id) => {
                let end = self.ends.values().find(|end| end.core == Some(link));
                if let Some(route) = end.map(|end| end.route) {
                    self.routes.pong(route, id, self.now);
                }
            }
            Out::Want(host) => {
                let mut outs = Vec::new();
                let at = HOSTS.iter().position(|one| **one == *host).expect("a host of the config");
                if let Some(id) = self.hosts[at] {
                    self.routes.want(id, self.now, &mut outs);
                }
                self.obey(outs);
            }
            Out::Flush(link) => self.flush(link),
            Out::Bye(..) => {}
            Out::Note(Note::Broken { what }) => self.baton.perform(Effect::Broken(what)),
            Out::Note(_) => {}
        }
    }

    fn flush(&mut self, link: LinkId) {
        let Some(wire) = self.wire_of(|end| end.core == Some(link)) else { return };
        let mut bytes = Evbuffer::new();
        self.core.take_output(link, &mut bytes);
        let bytes = bytes.take();
        if !bytes.is_empty() {
            self.baton.perform(Effect::Send(wire, bytes));
        }
        self.core.link_room(link, if self.slow { FULL } else { 0 });
    }
}
