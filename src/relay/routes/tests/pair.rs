//! Two relays and what lies between them, in virtual time: a network that can be cut, relays that
//! can be killed, links that know only what a socket knows.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;

/// What travels over a connection.
#[derive(Clone, Copy, Debug)]
enum Message {
    Ping(u64),
    Pong(u64),
    Bye(Closing),
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// The dial arrives at the other side.
    Syn,
    Reached,
    Accepted,
    Connected,
    Deliver(usize, Message),
    /// A reset arrives.
    Reset(usize),
}

/// A connection, and how each of its ends is called while it is open there.
struct Connection {
    dialler: usize,
    ends: [Option<LinkId>; 2],
    latency: Duration,
}

pub struct Relay {
    pub routes: Routes,
    pub host: HostId,
    pub alive: bool,
    pub uses: Option<LinkId>,
    pub dials: Vec<(Instant, String)>,
    pub closed: Vec<Closing>,
    instance: u64,
    used: BTreeSet<LinkId>,
    linkno: u32,
}

pub struct Pair {
    pub now: Instant,
    pub relays: [Relay; 2],
    pub cut: bool,
    connections: Vec<Connection>,
    events: BTreeMap<(Instant, usize), (usize, What)>,
    serial: usize,
    random: u64,
}

pub const NAMES: [&str; 2] = ["a", "b"];

fn relay(side: usize, addresses: &[&str], instance: u64, now: Instant) -> Relay {
    let limits = Limits { setting: "limits.names", entries_max: 9, idle_max: Duration::MAX };
    let seed = instance + side as u64;
    let mut routes = Routes::new(NAMES[side], Policy::default(), limits, seed, now);
    let host = routes.add_host(NAMES[1 - side], addresses);
    Relay {
        routes,
        host,
        alive: true,
        uses: None,
        dials: Vec::new(),
        closed: Vec::new(),
        instance,
        used: BTreeSet::new(),
        linkno: 0,
    }
}

impl Pair {
    pub fn new(seed: u64) -> Pair {
        Pair::with_addresses(seed, &["good"])
    }

    /// `good` addresses lead to the other side, `hole`s swallow, all others refuse.
    pub fn with_addresses(seed: u64, addresses: &[&str]) -> Pair {
        let now = Instant::now();
        let relays = [relay(0, addresses, 1, now), relay(1, addresses, 1, now)];
        Pair {
            now,
            relays,
            cut: false,
            connections: Vec::new(),
            events: BTreeMap::new(),
            serial: 0,
            random: seed,
        }
    }

    /// Under `n`, by chance.
    pub fn random(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % n
    }

    pub fn want(&mut self, side: usize) {
        let relay = &mut self.relays[side];
        if relay.alive {
            let mut out = Vec::new();
            relay.routes.want(relay.host, self.now, &mut out);
            self.obey(side, out);
        }
    }

    pub fn kill(&mut self, side: usize) {
        self.relays[side].alive = false;
        self.relays[side].uses = None;
        for at in 0..self.connections.len() {
            if self.connections[at].ends[side].take().is_some() {
                self.later(at, What::Reset(1 - side));
            }
        }
    }

    pub fn restart(&mut self, side: usize) {
        let old = &self.relays[side];
        let addresses = old.routes.route(old.host).expect("it has one").addresses.to_vec();
        let addresses: Vec<&str> = addresses.iter().map(|address| &**address).collect();
        self.relays[side] = relay(side, &addresses, old.instance + 1, self.now);
    }

    /// One side's link breaks, and the other side is not told.
    pub fn break_at(&mut self, side: usize) {
        if let Some(at) = self.relays[side].uses.and_then(|link| self.connection(side, link)) {
            self.lose(at, side, Loss::Broken);
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..1_000_000 {
            let event = self.events.keys().next().map(|&(at, _)| at);
            let alive = self.relays.iter().filter(|relay| relay.alive);
            let timer = alive.filter_map(|relay| relay.routes.next_deadline()).min();
            let Some(next) = [event, timer].into_iter().flatten().min().filter(|at| *at <= until)
            else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            while let Some(entry) =
                self.events.first_entry().filter(|entry| entry.key().0 <= self.now)
            {
                let (connection, what) = entry.remove();
                self.happen(connection, what);
            }
            for side in 0..2 {
                if self.relays[side].alive {
                    let mut out = Vec::new();
                    self.relays[side].routes.tick(self.now, &mut out);
                    self.obey(side, out);
                }
            }
        }
        panic!("it turns and turns and time does not pass: {:?}", self.relays[0].routes);
    }

    /// Runs until both use one link; how long it took.
    pub fn until_agreed(&mut self, most: Duration) -> Option<Duration> {
        let start = self.now;
        while self.now < start + most {
            if self.agreed().is_some() {
                return Some(self.now - start);
            }
            self.run(Duration::from_millis(5));
        }
        None
    }

    /// The side that dialled the one link that both use.
    pub fn agreed(&self) -> Option<usize> {
        let [a, b] = [0, 1].map(|side| self.relays[side].uses);
        let same = |c: &&Connection| c.ends == [a, b] && a.is_some() && b.is_some();
        self.connections.iter().find(same).map(|connection| connection.dialler)
    }

    /// Connections of which at least one side believes that they are open.
    pub fn open(&self) -> usize {
        let open = |c: &&Connection| c.ends.iter().any(Option::is_some);
        self.connections.iter().filter(open).count()
    }

    fn later(&mut self, connection: usize, what: What) {
        let latency = self.connections[connection].latency;
        self.after(connection, latency, what);
    }

    fn after(&mut self, connection: usize, time: Duration, what: What) {
        self.serial += 1;
        self.events.insert((self.now + time, self.serial), (connection, what));
    }

    fn obey(&mut self, side: usize, out: Vec<RouteOut>) {
        for out in out {
            match out {
                RouteOut::Dial { link, address } => self.dial(side, link, &address),
                RouteOut::Use { link, linkno } => {
                    let relay = &mut self.relays[side];
                    assert!(relay.used.insert(link), "{link:?} was used before");
                    assert!(linkno > relay.linkno, "link numbers grow");
                    (relay.uses, relay.linkno) = (Some(link), linkno);
                    assert!(self.connection(side, link).is_some(), "{link:?} is open");
                }
                RouteOut::Ping { link, id } => {
                    let at = self.connection(side, link).expect("an open link is pinged");
                    self.later(at, What::Deliver(1 - side, Message::Ping(id)));
                }
                RouteOut::Close { link, why } => {
                    let at = self.connection(side, link).expect("an open link is closed");
                    self.connections[at].ends[side] = None;
                    self.later(at, What::Deliver(1 - side, Message::Bye(why)));
                    let relay = &mut self.relays[side];
                    relay.uses = relay.uses.filter(|used| *used != link);
                    relay.closed.push(why);
                }
            }
        }
    }

    fn connection(&self, side: usize, link: LinkId) -> Option<usize> {
        self.connections.iter().rposition(|connection| connection.ends[side] == Some(link))
    }

    fn dial(&mut self, dialler: usize, link: LinkId, address: &str) {
        let latency = Duration::from_micros(50 + self.random(20_000));
        let mut ends = [None; 2];
        ends[dialler] = Some(link);
        self.relays[dialler].dials.push((self.now, address.to_string()));
        let at = self.connections.len();
        self.connections.push(Connection { dialler, ends, latency });
        match address {
            "good" => self.later(at, What::Syn),
            "hole" => {}
            _ => self.later(at, What::Reset(dialler)),
        }
    }

    fn happen(&mut self, at: usize, what: What) {
        if self.cut {
            return;
        }
        let (dialler, latency) = (self.connections[at].dialler, self.connections[at].latency);
        match what {
            What::Syn if !self.relays[1 - dialler].alive => self.later(at, What::Reset(dialler)),
            What::Syn => {
                self.later(at, What::Reached);
                // Either side may be the first that is through.
                let (first, second) = match self.random(2) {
                    0 => (What::Accepted, What::Connected),
                    _ => (What::Connected, What::Accepted),
                };
                self.after(at, latency * 2, first);
                self.after(at, latency * 3, second);
            }
            What::Reached => {
                if let Some(link) = self.connections[at].ends[dialler] {
                    self.relays[dialler].routes.reached(link, self.now);
                }
            }
            What::Accepted => self.accept(at, 1 - dialler),
            What::Connected => self.tell(at, dialler, |routes, link, peer, now, out| {
                routes.connected(link, peer, now, out);
            }),
            What::Reset(side) => self.lose(at, side, Loss::Broken),
            What::Deliver(side, message) => self.deliver(at, side, message),
        }
    }

    fn accept(&mut self, at: usize, side: usize) {
        let peer = Peer { version: 1, instance: self.relays[1 - side].instance };
        if self.connections[at].ends[1 - side].is_none() || !self.relays[side].alive {
            return;
        }
        let mut out = Vec::new();
        let relay = &mut self.relays[side];
        let link = relay.routes.accepted(relay.host, peer, self.now, &mut out);
        self.connections[at].ends[side] = Some(link);
        self.obey(side, out);
    }

    fn tell(
        &mut self,
        at: usize,
        side: usize,
        tell: impl FnOnce(&mut Routes, LinkId, Peer, Instant, &mut Vec<RouteOut>),
    ) {
        let peer = Peer { version: 1, instance: self.relays[1 - side].instance };
        if let Some(link) = self.connections[at].ends[side] {
            let mut out = Vec::new();
            tell(&mut self.relays[side].routes, link, peer, self.now, &mut out);
            self.obey(side, out);
        }
    }

    fn lose(&mut self, at: usize, side: usize, loss: Loss) {
        let relay = &mut self.relays[side];
        relay.uses = relay.uses.filter(|used| self.connections[at].ends[side] != Some(*used));
        self.tell(at, side, |routes, link, _, now, out| routes.lost(link, loss, now, out));
        self.connections[at].ends[side] = None;
    }

    fn deliver(&mut self, at: usize, side: usize, message: Message) {
        let Some(link) = self.connections[at].ends[side] else {
            // Nobody has such a socket.
            if !matches!(message, Message::Bye(_)) {
                self.later(at, What::Reset(1 - side));
            }
            return;
        };
        match message {
            Message::Ping(id) => {
                self.relays[side].routes.heard(link, self.now);
                self.later(at, What::Deliver(1 - side, Message::Pong(id)));
            }
            Message::Pong(id) => self.relays[side].routes.pong(link, id, self.now),
            Message::Bye(Closing::Duplicate) => self.lose(at, side, Loss::Duplicate),
            Message::Bye(Closing::Idle) => self.lose(at, side, Loss::Idle),
            Message::Bye(_) => self.lose(at, side, Loss::Broken),
        }
    }
}
