//! Other relays: who dials, who is there, which link is used.

mod words;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use crate::cluster::Cluster;
use crate::frame::{Frame, Leave};
use crate::relay::aged::Limits;
use crate::relay::core::{LinkId as CoreLink, Now};
use crate::relay::handshake::{self, Handshake, Identity, Refused, Step, random};
use crate::relay::lobby::{Guest, Lobby};
use crate::relay::routes::{HostId, LinkId, Loss, Peer, RouteOut, Routes, Source};
use crate::{BevEvent, Bufferevent, Error, LinkOptions, ListenOptions, Listener, READ, Result};

use self::words::{house, leave_of, policy};
use super::socket::patiently;
use super::tls::{Certificates, Shield};
use super::{Inner, Moved};

/// A link's output may fall to this before its channels are asked for more.
const LOW_WATER: usize = 128 << 10;

/// Bytes of input that are read ahead of the machine.
const INPUT_BYTES_MAX: usize = 2 << 20;

/// Other relays, and those who may be some.
pub struct Links {
    pub routes: Routes,
    pub identity: Identity,
    pub lobby: Lobby<String>,
    pub certificates: Certificates,
    links_max: usize,
    /// Guests that were shown out since the log last said so.
    pub turned_away: u32,
    pub said_so: Option<Instant>,
    pub conns: HashMap<LinkId, Conn>,
    pub guests: HashMap<Guest, Shaking>,
    used: HashMap<CoreLink, LinkId>,
    listeners: Vec<Listener>,
}

/// A connection that was dialled, or whose other end has proved who it is.
pub struct Conn {
    pub bev: Bufferevent,
    pub host: String,
    /// Until the handshake is through.
    pub shaking: Option<(Handshake, Option<Shield>)>,
    /// What the machine calls it, once it is used.
    pub used: Option<CoreLink>,
    /// What the other side said of the end.
    pub bye: Option<Loss>,
}

/// One who has connected.
pub struct Shaking {
    pub bev: Bufferevent,
    pub handshake: Handshake,
    pub shield: Option<Shield>,
}

impl Links {
    pub fn new(cluster: &Cluster, host: &str, now: Now) -> Result<Links> {
        let Some(secret) = &cluster.secret else {
            return Err(Error::refused("start the relay", "the cluster's secret was not read"));
        };
        // Which start of this relay it is: a later one is larger.
        let mut instance = random::<16>().map_err(|error| Error::new("random bytes", error))?;
        instance[..8].copy_from_slice(&now.unix_us.to_be_bytes());
        let identity = Identity::new(&cluster.name, host, instance, secret.bytes());
        let limits = &cluster.limits;
        let names = Limits {
            setting: "limits.routes",
            entries_max: limits.routes as usize,
            idle_max: cluster.ageing.idle_route,
        };
        let routes = Routes::new(host, policy(cluster), names, now.unix_us, now.instant);
        let mut links = Links {
            routes,
            identity,
            lobby: Lobby::new(house(cluster)),
            certificates: Certificates::default(),
            links_max: cluster.limits.links as usize,
            turned_away: 0,
            said_so: None,
            conns: HashMap::new(),
            guests: HashMap::new(),
            used: HashMap::new(),
            listeners: Vec::new(),
        };
        links.learn(cluster, now.instant)?;
        Ok(links)
    }

    /// Takes hosts and nodes from a configuration.
    pub fn learn(&mut self, cluster: &Cluster, now: Instant) -> Result<()> {
        for host in cluster.hosts() {
            let relays: Vec<String> = host.relays.iter().map(ToString::to_string).collect();
            let relays: Vec<&str> = relays.iter().map(String::as_str).collect();
            let id = match self.routes.host_named(&host.name) {
                Some(id) => {
                    self.routes.set_addresses(id, &relays);
                    id
                }
                None => self.routes.add_host(&host.name, &relays),
            };
            for node in cluster.nodes_of(host) {
                self.routes
                    .know(node.name, id, Source::Config, now)
                    .map_err(|full| Error::refused("read the configuration", full.to_string()))?;
            }
        }
        Ok(())
    }

    /// Other limits, and other certificates, after a reload.
    pub fn refit(&mut self, cluster: &Cluster) {
        self.lobby.refit(house(cluster));
        self.certificates.forget();
        self.links_max = cluster.limits.links as usize;
    }

    /// Why there may not be one more link, if so.
    pub fn is_full(&self) -> Option<String> {
        let most = self.links_max;
        (self.conns.len() >= most).then(|| format!("limits.links = {most} is reached"))
    }

    fn host_name(&self, host: HostId) -> Option<String> {
        self.routes.route(host).map(|route| route.name.to_string())
    }
}

impl Inner {
    pub(super) fn listen_for_relays(self: &Rc<Self>) -> Result<()> {
        let cluster = Rc::clone(&self.cluster.borrow());
        let host = cluster.host(&self.options.host).expect("it was looked up before");
        // A relay that takes over from one that hangs listens beside it.
        let options = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        for address in &host.listen {
            let address = address.to_string();
            let tls = address.starts_with("tls+");
            let under = address.strip_prefix("tls+").unwrap_or(&address);
            let listener = patiently(|| {
                let inner = Rc::downgrade(self);
                self.base.listen_with(under, &options, move |bev| match inner.upgrade() {
                    Some(inner) => inner.meet(bev, tls),
                    None => bev.abort(),
                })
            })?;
            self.links.borrow_mut().listeners.push(listener);
        }
        Ok(())
    }

    pub(super) fn stop_listening_for_relays(&self) {
        for listener in std::mem::take(&mut self.links.borrow_mut().listeners) {
            listener.free();
        }
    }

    /// Where relays find this one.
    pub(super) fn listening(&self) -> Vec<String> {
        let links = self.links.borrow();
        links.listeners.iter().map(|listener| listener.address().to_string()).collect()
    }

    /// There is something for a host.
    pub(super) fn want(self: &Rc<Self>, host: &str) {
        if self.ending.get() {
            return;
        }
        let mut out = Vec::new();
        let mut links = self.links.borrow_mut();
        if let Some(id) = links.routes.host_named(host) {
            links.routes.want(id, self.base.now(), &mut out);
        }
        drop(links);
        self.follow(out);
    }

    /// Does what the routing table says.
    pub(super) fn follow(self: &Rc<Self>, out: Vec<RouteOut>) {
        for one in out {
            match one {
                RouteOut::Dial { link, address } => self.dial(link, &address),
                RouteOut::Use { link, .. } => self.use_link(link),
                RouteOut::Ping { link, id } => self.say_on(link, &Frame::Ping { id }),
                RouteOut::Close { link, why } => {
                    self.say_on(link, &Frame::Bye { why: leave_of(why), text: "" });
                    self.let_go(link);
                }
            }
        }
    }

    fn dial(self: &Rc<Self>, link: LinkId, address: &str) {
        let now = self.base.now();
        let host = self.links.borrow().host_name(link.host()).unwrap_or_default();
        let under = address.strip_prefix("tls+").unwrap_or(address);
        let full = self.links.borrow().is_full();
        let dialled = match full {
            Some(why) => Err(Error::refused("dial", why)),
            None => self.base.connect_with(under, &LinkOptions::default()),
        };
        let dialled = dialled.and_then(|bev| match under == address {
            true => Ok((bev, None)),
            false => self.dial_tls(bev, &host),
        });
        let (bev, shield) = match dialled {
            Ok(made) => made,
            Err(error) => {
                log::warn!("host {host} at {address}: {error}");
                let mut out = Vec::new();
                self.links.borrow_mut().routes.lost(link, Loss::Broken, now, &mut out);
                return self.follow(out);
            }
        };
        let (nonce, mut hello) = (nonce(), Vec::new());
        let mut links = self.links.borrow_mut();
        let handshake = Handshake::dial(&links.identity, &host, nonce, &mut hello);
        bev.output().add(&hello);
        let shaking = Some((handshake, shield));
        let conn = Conn { bev: bev.clone(), host, shaking, used: None, bye: None };
        links.conns.insert(link, conn);
        drop(links);
        self.wire(&bev, link);
    }

    /// Has the events of a link's connection come here.
    pub(super) fn wire(self: &Rc<Self>, bev: &Bufferevent, link: LinkId) {
        bev.set_write_watermark(LOW_WATER, usize::MAX);
        bev.set_read_watermark(0, INPUT_BYTES_MAX);
        let inner = Rc::downgrade(self);
        bev.on_read(move |_| {
            if let Some(inner) = inner.upgrade() {
                inner.read(link);
            }
        });
        let inner = Rc::downgrade(self);
        bev.on_write(move |_| {
            if let Some(inner) = inner.upgrade() {
                inner.has_room(link);
            }
        });
        let inner = Rc::downgrade(self);
        bev.on_event(move |_, event| {
            let Some(inner) = inner.upgrade() else { return };
            match event {
                BevEvent::Connected => {
                    let now = inner.base.now();
                    inner.links.borrow_mut().routes.reached(link, now);
                }
                event if event.is_end() => inner.lost_link(link, event),
                _ => {}
            }
        });
        bev.enable(READ);
    }

    /// Something came on a link.
    fn read(self: &Rc<Self>, link: LinkId) {
        let (shaking, used, bev) = {
            let mut links = self.links.borrow_mut();
            let Some(conn) = links.conns.get_mut(&link) else { return };
            (conn.shaking.take(), conn.used, conn.bev.clone())
        };
        if let Some(shaking) = shaking {
            return self.shake_back(link, shaking, &bev);
        }
        let now = self.base.now();
        self.links.borrow_mut().routes.heard(link, now);
        let Some(used) = used else { return };
        self.core.borrow_mut().set_now(self.clock.now(&self.base));
        let heard = bev.input().with(|input| self.core.borrow_mut().link_input(used, input));
        self.kick();
        if let Some(Err(malformed)) = heard {
            log::error!("a link is closed: {malformed}");
            self.say_on(link, &Frame::Bye { why: Leave::Malformed, text: "" });
            self.lose(link, Loss::Broken);
        }
    }

    /// The answer of one that we have dialled.
    fn shake_back(
        self: &Rc<Self>,
        link: LinkId,
        (mut handshake, shield): (Handshake, Option<Shield>),
        bev: &Bufferevent,
    ) {
        let (step, bytes) = self.step(&mut handshake, bev);
        bev.output().add(&bytes);
        match step {
            Ok(Step::Wait) => {
                if let Some(conn) = self.links.borrow_mut().conns.get_mut(&link) {
                    conn.shaking = Some((handshake, shield));
                }
            }
            Ok(Step::Known(peer)) if !vouches(shield.as_ref(), &peer.host) => {
                log::warn!("no link: the certificate is not one of host {}", peer.host);
                self.lose(link, Loss::Refused);
            }
            Ok(Step::Known(peer)) => {
                log::info!("link to host {}", peer.host);
                let (mut out, now) = (Vec::new(), self.base.now());
                let peer = peer_of(&peer);
                self.links.borrow_mut().routes.connected(link, peer, now, &mut out);
                self.follow(out);
            }
            Err(refusal) => {
                log::warn!("no link: {refusal}");
                self.lose(link, Loss::Refused);
            }
        }
    }

    /// From now on channels go over this link.
    fn use_link(self: &Rc<Self>, link: LinkId) {
        let mut links = self.links.borrow_mut();
        let Some(conn) = links.conns.get_mut(&link) else { return };
        let used = self.core.borrow_mut().link_up(&conn.host);
        conn.used = Some(used);
        links.used.insert(used, link);
        drop(links);
        // What came behind the handshake.
        self.read(link);
        self.kick();
    }

    fn say_on(&self, link: LinkId, frame: &Frame<'_>) {
        if let Some(conn) = self.links.borrow().conns.get(&link)
            && conn.shaking.is_none()
        {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            conn.bev.output().add(&bytes);
        }
    }

    /// Output of the machine for a link.
    pub(super) fn flush(self: &Rc<Self>, used: CoreLink) {
        let mut links = self.links.borrow_mut();
        let Some(link) = links.used.get(&used).copied() else { return };
        links.routes.touch(link.host(), self.base.now());
        let Some(conn) = links.conns.get(&link) else { return };
        let mut moved = Moved::new();
        let mut core = self.core.borrow_mut();
        core.take_output(used, &mut moved);
        let output = conn.bev.output();
        output.append(&mut moved);
        core.link_room(used, output.len());
        if core.is_stuffed(used) {
            log::error!("the relay of host {} reads nothing: its link is closed", conn.host);
            conn.bev.abort();
            drop((core, links));
            self.lose(link, Loss::Broken);
        }
    }

    fn has_room(self: &Rc<Self>, link: LinkId) {
        let links = self.links.borrow();
        let Some(conn) = links.conns.get(&link) else { return };
        if let Some(used) = conn.used {
            self.core.borrow_mut().link_room(used, conn.bev.output().len());
            drop(links);
            self.kick();
        }
    }

    pub(super) fn ponged(&self, used: CoreLink, id: u64) {
        let mut links = self.links.borrow_mut();
        if let Some(link) = links.used.get(&used).copied() {
            links.routes.pong(link, id, self.base.now());
        }
    }

    /// The other relay says why it closes a link.
    pub(super) fn parted(&self, used: CoreLink, why: Leave) {
        let mut links = self.links.borrow_mut();
        let Some(link) = links.used.get(&used).copied() else { return };
        if let Some(conn) = links.conns.get_mut(&link) {
            log::info!("the relay of host {} closes the link: {why}", conn.host);
            conn.bye = match why {
                Leave::Idle => Some(Loss::Idle),
                Leave::Doubled => Some(Loss::Duplicate),
                _ => None,
            };
        }
    }

    fn lost_link(self: &Rc<Self>, link: LinkId, event: &BevEvent) {
        // What came before the end.
        self.read(link);
        let links = self.links.borrow();
        let Some(conn) = links.conns.get(&link) else { return };
        let loss = conn.bye.unwrap_or(Loss::Broken);
        match conn.used {
            Some(_) => log::warn!("the link with host {} is lost: {event}", conn.host),
            None => log::debug!("no link with host {}: {event}", conn.host),
        }
        drop(links);
        self.lose(link, loss);
    }

    /// A link is gone, and the routing table does not know.
    fn lose(self: &Rc<Self>, link: LinkId, loss: Loss) {
        self.let_go(link);
        let (mut out, now) = (Vec::new(), self.base.now());
        self.links.borrow_mut().routes.lost(link, loss, now, &mut out);
        self.follow(out);
    }

    fn let_go(self: &Rc<Self>, link: LinkId) {
        let mut links = self.links.borrow_mut();
        let Some(conn) = links.conns.remove(&link) else { return };
        if let Some(used) = conn.used {
            links.used.remove(&used);
            self.core.borrow_mut().link_closed(used);
        }
        drop(links);
        conn.bev.free();
        self.kick();
    }

    /// What is due.
    pub(super) fn tick_links(self: &Rc<Self>) {
        let (mut out, now) = (Vec::new(), self.base.now());
        let mut links = self.links.borrow_mut();
        let core = self.core.borrow();
        let unacked = core.unacked_by_host();
        let up = links.routes.routes().filter(|route| route.link.is_some());
        let counts = up.map(|route| (route.host, unacked.get(route.name).copied().unwrap_or(0)));
        let counts: Vec<(HostId, u64)> = counts.collect();
        drop(core);
        for (host, unacked) in counts {
            links.routes.set_unacked(host, unacked);
        }
        links.routes.tick(now, &mut out);
        links.tell_of_guests(now);
        let mut late = Vec::new();
        while let Some(guest) = links.lobby.expired(now) {
            late.push(guest);
        }
        drop(links);
        for guest in late {
            self.show_out(guest, Refused::TooSlow, "the handshake took too long");
        }
        self.follow(out);
    }

    /// Says goodbye on every link.
    pub(super) fn part_with_all(self: &Rc<Self>) {
        let all: Vec<LinkId> = self.links.borrow().conns.keys().copied().collect();
        for link in all {
            self.say_on(link, &Frame::Bye { why: Leave::Draining, text: "" });
            self.let_go(link);
        }
    }
}

pub fn vouches(shield: Option<&Shield>, host: &str) -> bool {
    shield.is_none_or(|shield| shield.vouches_for(host))
}

pub fn nonce() -> [u8; 32] {
    random().expect("the kernel has random bytes")
}

pub fn peer_of(peer: &handshake::Peer) -> Peer {
    let instance = peer.instance.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
    Peer { version: peer.version, instance }
}
