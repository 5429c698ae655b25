//! Which host a node lives on, and the one link to each host: when to dial, ping, close, and which
//! of two links stays. Sans-IO: events and times come in, [`RouteOut`]s go out.
//!
//! ```text
//!            want                  connected, accepted
//!   Idle ----------> Dialling ---------------------------> Up ---- idle_max ----> Idle
//!                     ^    | failed                         | lost, dead
//!                     |    v                                |
//!              every 100 ms, for 30 s: Down <---------------'
//!              then 0.2 .. 2 s:        Backoff          (not wanted any more: Idle)
//! ```
//!
//! The verbs, in the order of a link's life: [`Routes::want`] asks for one; the daemon answers a
//! [`RouteOut::Dial`] by [`Routes::reached`], [`Routes::connected`] or [`Routes::lost`] and tells
//! of incoming ones by [`Routes::accepted`]; [`Routes::heard`] and [`Routes::pong`] keep it alive,
//! [`Routes::touch`] in use; [`Routes::tick`] runs what is due at [`Routes::next_deadline`].
//! Within a turn, tell what was heard before you call `tick`.
//!
//! Two links between two relays, because both dialled at once: the one that was dialled by the
//! host with the lower name stays, and both sides know that by themselves. (A name and not a place
//! in the config: the two may be reloading it at different times.) But a link that looks alive may
//! be one that the peer has given up, so before the other is closed the older one must answer a
//! ping: [`Policy::trial`]. A link of an older instance of the peer is closed in favour of a newer.
//!
//! Invariant: per host there is at most one link in use, one dial on the way, and one link on
//! trial. A link is named by one [`RouteOut::Use`] at most, so one that was left is never used
//! again, and `linkno` grows from one to the next.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use words::{Closing, HostId, LinkId, Loss, Peer, Policy, Route, RouteOut, Source, State};

use ringlane_api::wheel::Wheel;

use super::aged::{Aged, Evict, Full, Limits};
use host::Host;

mod host;
#[cfg(test)]
mod tests;
mod words;

/// Where a node lives.
#[derive(Clone, Copy, Debug)]
struct Node {
    host: HostId,
    source: Source,
}

impl Evict for Node {
    fn may_go(&self) -> bool {
        self.source == Source::Learned
    }
}

/// What all hosts share.
struct Common {
    me: Rc<str>,
    policy: Policy,
    serial: u32,
    linkno: u32,
    ping: u64,
    random: u64,
}

/// The routing table. See the [module](self).
///
/// ```
/// use ringlane::relay::aged::Limits;
/// use ringlane::relay::routes::{Policy, RouteOut, Routes, Source};
/// use std::time::{Duration, Instant};
/// let idle_max = Duration::from_secs(3600);
/// let limits = Limits { setting: "limits.names", entries_max: 100_000, idle_max };
/// let now = Instant::now();
/// let mut routes = Routes::new("a", Policy::default(), limits, 42, now);
/// let b = routes.add_host("b", &["tcp://10.0.0.2:7000"]);
/// routes.know("db", b, Source::Config, now)?;
///
/// let mut out = Vec::new();
/// let host = routes.resolve("db", now).expect("the config says where");
/// routes.want(host, now, &mut out);
/// let RouteOut::Dial { address, .. } = &out[0] else { panic!("{out:?}") };
/// assert_eq!(&**address, "tcp://10.0.0.2:7000");
/// # Ok::<(), ringlane::relay::aged::Full>(())
/// ```
pub struct Routes {
    common: Common,
    hosts: Vec<Host>,
    names: Aged<Rc<str>, Node>,
    wheel: Wheel<u32>,
    due: Vec<u32>,
}

impl Routes {
    /// A table without hosts, of the relay of the host `me`. `seed` is for the jitter.
    pub fn new(me: &str, policy: Policy, names: Limits, seed: u64, now: Instant) -> Routes {
        let random = seed;
        let common = Common { me: me.into(), policy, serial: 0, linkno: 0, ping: 0, random };
        let (names, wheel) = (Aged::new(names, now), Wheel::new(now));
        Routes { common, hosts: Vec::new(), names, wheel, due: Vec::new() }
    }

    /// Adds a host and where its relay listens, in order of preference; none: it is never dialled.
    pub fn add_host(&mut self, name: &str, addresses: &[&str]) -> HostId {
        let id = HostId(u32::try_from(self.hosts.len()).expect("fewer hosts than 2^32"));
        self.hosts.push(Host::new(id, name, addresses));
        id
    }

    /// Other addresses for a host, from the next dial on.
    pub fn set_addresses(&mut self, host: HostId, addresses: &[&str]) {
        self.host(host).set_addresses(addresses);
    }

    /// The host has left the config: its links are closed, it is not dialled any more.
    pub fn retire(&mut self, host: HostId, out: &mut Vec<RouteOut>) {
        self.host(host).retire(out);
        self.arm(host);
    }

    /// Remembers on which host a node lives. Full: the longest idle learned name makes room.
    pub fn know(
        &mut self,
        node: &str,
        host: HostId,
        source: Source,
        now: Instant,
    ) -> Result<(), Full> {
        let tick = self.names.tick(now);
        self.names.insert(node.into(), Node { host, source }, tick).map(drop)
    }

    /// Forgets a node.
    pub fn forget(&mut self, node: &str) {
        if let Some(id) = self.names.find(node) {
            self.names.remove(id);
        }
    }

    /// On which host a node lives. Keeps the name from ageing.
    pub fn resolve(&mut self, node: &str, now: Instant) -> Option<HostId> {
        let id = self.names.find(node)?;
        self.names.touch(id, self.names.tick(now));
        self.names.get(id).map(|node| node.host)
    }

    /// The table of names, for `status`.
    pub fn names(&self) -> impl Iterator<Item = (&str, HostId, Source)> {
        self.names.iter().map(|(_, name, node)| (&**name, node.host, node.source))
    }

    /// Names known.
    pub fn names_len(&self) -> usize {
        self.names.len()
    }

    /// A channel needs the host: dials unless there is a link or one on the way. Cheap to repeat.
    pub fn want(&mut self, host: HostId, now: Instant, out: &mut Vec<RouteOut>) {
        self.with(host, |host, common| host.want(common, now, out));
    }

    /// The host's link is in use, in whichever direction: a store.
    #[inline]
    pub fn touch(&mut self, host: HostId, now: Instant) {
        self.host(host).last_use = Some(now);
    }

    /// So many bytes to this host are not acknowledged: such a link is not idle, and a lost one is
    /// dialled until it is there again.
    pub fn set_unacked(&mut self, host: HostId, bytes: u64) {
        self.host(host).unacked = bytes;
    }

    /// The dialled address answered; the handshake follows and has a deadline of its own.
    pub fn reached(&mut self, link: LinkId, now: Instant) {
        self.with(link.host, |host, common| host.reached(common, link, now));
    }

    /// The handshake of a dialled link is through.
    pub fn connected(&mut self, link: LinkId, peer: Peer, now: Instant, out: &mut Vec<RouteOut>) {
        self.with(link.host, |host, common| host.connected(common, link, peer, now, out));
    }

    /// The handshake of a link that `host` dialled is through: how it is called. It may be closed
    /// by what is in `out` already.
    pub fn accepted(
        &mut self,
        host: HostId,
        peer: Peer,
        now: Instant,
        out: &mut Vec<RouteOut>,
    ) -> LinkId {
        self.with(host, |host, common| host.accepted(common, peer, now, out))
    }

    /// The link is gone, or the dial came to nothing.
    pub fn lost(&mut self, link: LinkId, loss: Loss, now: Instant, out: &mut Vec<RouteOut>) {
        self.with(link.host, |host, common| host.lost(common, link, loss, now, out));
    }

    /// Anything at all came from the peer on this link: a store.
    #[inline]
    pub fn heard(&mut self, link: LinkId, now: Instant) {
        self.host(link.host).heard(link, now);
    }

    /// The answer to a [`RouteOut::Ping`].
    pub fn pong(&mut self, link: LinkId, id: u64, now: Instant) {
        self.host(link.host).pong(link, id, now);
    }

    /// Runs what is due, and forgets learned names that nobody asked for.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<RouteOut>) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now, &mut due);
        for host in due.drain(..).map(HostId) {
            self.host(host).timer = None;
            self.with(host, |host, common| host.step(common, now, out));
        }
        self.due = due;
        self.names.age(now, &mut Vec::new());
    }

    /// When to call [`Routes::tick`] next.
    pub fn next_deadline(&self) -> Option<Instant> {
        [self.wheel.next_deadline(), self.names.next_deadline()].into_iter().flatten().min()
    }

    /// The link of a host, if it is up.
    pub fn link(&self, host: HostId) -> Option<LinkId> {
        self.hosts.get(host.0 as usize)?.up.as_ref().map(|link| link.id)
    }

    /// The host of a name.
    pub fn host_named(&self, name: &str) -> Option<HostId> {
        self.hosts.iter().find(|host| &*host.name == name).map(|host| host.id)
    }

    /// What is known of a host.
    pub fn route(&self, host: HostId) -> Option<Route<'_>> {
        self.hosts.get(host.0 as usize).map(Host::route)
    }

    /// What is known of every host.
    pub fn routes(&self) -> impl Iterator<Item = Route<'_>> {
        self.hosts.iter().map(Host::route)
    }

    fn host(&mut self, host: HostId) -> &mut Host {
        &mut self.hosts[host.0 as usize]
    }

    /// Tells a host something, and sets its timer anew.
    fn with<T>(&mut self, id: HostId, tell: impl FnOnce(&mut Host, &mut Common) -> T) -> T {
        let answer = tell(&mut self.hosts[id.0 as usize], &mut self.common);
        self.arm(id);
        answer
    }

    fn arm(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0 as usize];
        let deadline = host.deadline(&self.common.policy);
        if host.timer.map(|(_, at)| at) == deadline {
            return;
        }
        if let Some((timer, _)) = host.timer.take() {
            self.wheel.cancel(timer);
        }
        host.timer = deadline.map(|at| (self.wheel.add(at, id.0), at));
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (me, hosts, names) = (&self.common.me, self.hosts.len(), self.names.len());
        write!(f, "Routes of {me}: {hosts} hosts, {names} names")
    }
}

impl Common {
    fn next_link(&mut self, host: HostId) -> LinkId {
        self.serial += 1;
        LinkId { host, serial: self.serial }
    }

    fn next_linkno(&mut self) -> u32 {
        self.linkno += 1;
        self.linkno
    }

    fn next_ping(&mut self) -> u64 {
        self.ping += 1;
        self.ping
    }

    /// Between a half and the whole of a pause (splitmix64).
    fn jitter(&mut self, pause: Duration) -> Duration {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let half = pause / 2;
        half + Duration::from_nanos(z % (half.as_nanos() as u64 + 1))
    }
}
