//! `rdma://host:port`, `rdma:///run/x.sock`: links over the software device, introduced by a TCP
//! link or a Unix one that stays.
//!
//! ```text
//!  connect ─► Dialing ─there─► Greeting ─hellos─► Open ──abort─► Leaving ─all closed─► free
//!  (accepted) ───────────────────^  └─no device─► Plain ──abort───^
//!  listen  ─► Listening ──────────────────────────────────────────^
//! ```
//!
//! The link that introduces carries the hellos, and its end is the notice of the peer's death,
//! which the device alone might never get. TCP carries the device's packets, too ([`StreamWire`]);
//! between processes of one host they travel in shared memory ([`MemoryWire`]). The device runs,
//! and everything that is due leaves, in
//! [`Transport::arm`](ringlane_api::transport::Transport::arm), once per turn.

mod address;
mod below;
mod drive;
mod greet;
mod memory;
mod plain;
mod slots;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringlane_api::address::Address;
use ringlane_api::error::{Error, Result};
use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::fd::Fd;
use ringlane_api::reactor::Completion;
use ringlane_api::slab::Key;
use ringlane_api::stream::{Family, Stream};
use ringlane_api::transport::{
    Armed, Caps, Cx, InnerEvents, LinkEvent, LinkId, LinkInfo, LinkOptions, ListenOptions,
    Transport,
};

use crate::dispatch::{Dispatch, Events};
use crate::limits;
use crate::link::{Fault, Shape};
use crate::soft::{Device, Joined, MemoryWire, MoodTally, Moods, Moody, StreamWire};
use crate::verbs::{DeviceLimits, Port, Refusal};
use address::terms;
use slots::{Slots, State};

pub(crate) use below::Below;

/// What carries the device's packets.
type Carrier = Joined<StreamWire, MemoryWire>;

/// What addresses begin with.
const SCHEME: &str = "rdma";

/// The name of the device's own timer; no link has this slot.
const DEVICE: LinkId = LinkId { slot: u32::MAX, generation: 0 };

/// The transport, over whatever introduces its links.
pub(crate) struct Rdma {
    inner: Box<dyn Transport>,
    dispatch: Dispatch<Device<Moody<Carrier>>>,
    shape: Shape,
    slots: Slots,
    by_inner: HashMap<LinkId, LinkId>,
    by_key: HashMap<Key, LinkId>,
    by_port: HashMap<Port, LinkId>,
    /// What happened inside, and was not looked at.
    happened: VecDeque<(LinkId, LinkEvent)>,
    spare: InnerEvents,
    /// Ports that were fed since the device ran.
    fed: Vec<Port>,
    events: Events,
    /// The device has something to do.
    stirred: bool,
    epoch: Option<Instant>,
    /// When the device's own timer is due, by the device's clock.
    alarm: Option<Duration>,
    /// Messages without a receive that were told of.
    not_ready_told: u64,
    /// Completions found after arming that were counted.
    rescued_told: u64,
    tally: Option<Rc<MoodTally>>,
}

impl Rdma {
    pub(crate) fn new(
        below: Below<impl Family + 'static, impl Family + 'static>,
        shape: Shape,
        limits: DeviceLimits,
        moods: Option<Moods>,
    ) -> Result<Rdma, Refusal> {
        let tally = moods.as_ref().map(|moods| Rc::clone(&moods.tally));
        let wire = Joined {
            first: StreamWire::new(shape.message_bytes),
            second: MemoryWire::new(shape.message_bytes),
        };
        Ok(Rdma {
            inner: Box::new(Stream::new(below)),
            dispatch: Dispatch::new(Device::new(Moody::new(wire, moods), limits))?,
            shape,
            slots: Slots::default(),
            by_inner: HashMap::new(),
            by_key: HashMap::new(),
            by_port: HashMap::new(),
            happened: VecDeque::new(),
            spare: Vec::new(),
            fed: Vec::new(),
            events: Vec::new(),
            stirred: false,
            epoch: None,
            alarm: None,
            not_ready_told: 0,
            rescued_told: 0,
            tally,
        })
    }

    fn stream(&mut self) -> &mut StreamWire {
        &mut self.dispatch.verbs_mut().wire_mut().wire_mut().first
    }

    fn memory(&mut self) -> &mut MemoryWire {
        &mut self.dispatch.verbs_mut().wire_mut().wire_mut().second
    }

    /// Calls the transport inside and keeps what happened there.
    fn inside<R>(
        &mut self,
        cx: &mut Cx<'_>,
        call: impl FnOnce(&mut dyn Transport, &mut Cx<'_>) -> R,
    ) -> R {
        let mut events = std::mem::take(&mut self.spare);
        let result = call(self.inner.as_mut(), &mut cx.inner(&mut events));
        self.happened.extend(events.drain(..));
        self.spare = events;
        result
    }
}

impl Transport for Rdma {
    fn scheme(&self) -> &'static str {
        SCHEME
    }

    fn caps(&self) -> &Caps {
        &Caps {
            fd_passing: false,
            credentials: false,
            half_close: true,
            send_file: false,
            adopt: false,
            host_names: true,
        }
    }

    fn check(&self, address: &Address) -> Result<()> {
        self.inner.check(&terms(address)?.below).map_err(|error| error.at(address))
    }

    fn listen(&mut self, cx: &mut Cx<'_>, at: &Address, options: &ListenOptions) -> Result<LinkId> {
        let terms = terms(at)?;
        let mut options = options.clone();
        options.link.receive_fds = terms.local;
        let inner = self
            .inside(cx, |inner, cx| inner.listen(cx, &terms.below, &options))
            .map_err(|error| error.at(at))?;
        let id = self.slots.insert(State::Listening, inner, Rc::new(terms));
        self.by_inner.insert(inner, id);
        Ok(id)
    }

    fn connect(&mut self, cx: &mut Cx<'_>, to: &Address, options: &LinkOptions) -> Result<LinkId> {
        let terms = terms(to)?;
        let options = LinkOptions { receive_fds: terms.local, ..options.clone() };
        let inner = self
            .inside(cx, |inner, cx| inner.connect(cx, &terms.below, &options))
            .map_err(|error| error.at(to))?;
        let id = self.slots.insert(State::Dialing, inner, Rc::new(terms));
        self.by_inner.insert(inner, id);
        let slot = self.slots.get(id).expect("just made");
        slot.told = true;
        slot.patience = options.connect_timeout;
        self.stirred = true;
        Ok(id)
    }

    fn adopt(&mut self, _cx: &mut Cx<'_>, _fd: Fd, _options: &LinkOptions) -> Result<LinkId> {
        Err(Error::refused("adopt", "an rdma:// link is more than a descriptor"))
    }

    fn adopt_listener(
        &mut self,
        _cx: &mut Cx<'_>,
        _fd: Fd,
        _options: &ListenOptions,
    ) -> Result<LinkId> {
        Err(Error::refused("adopt", "an rdma:// listener is more than a descriptor"))
    }

    fn release_fd(&mut self, _cx: &mut Cx<'_>, _link: LinkId) -> Option<Fd> {
        None
    }

    fn info(&mut self, cx: &mut Cx<'_>, link: LinkId) -> LinkInfo {
        let Some(slot) = self.slots.get(link) else { return LinkInfo::default() };
        let (inner, local) = (slot.inner, slot.terms.local);
        let info = self.inside(cx, |below, cx| below.info(cx, inner));
        let above = |address: &Option<Address>| address.as_ref().map(address::above);
        LinkInfo {
            local: above(&info.local),
            peer: above(&info.peer),
            credentials: info.credentials.filter(|_| local),
            ..info
        }
    }

    fn send(&mut self, cx: &mut Cx<'_>, link: LinkId, out: &mut Evbuffer, fds: &mut Vec<Fd>) {
        fds.clear();
        if let Some(inner) = self.slots.plain(link) {
            self.inside(cx, |below, cx| below.send(cx, inner, out, fds));
            return self.look_inside(cx);
        }
        let Some(key) = self.slots.open_key(link) else { return };
        let mut dead = Vec::new();
        let mut file = |fd: &Fd, offset, into: &mut [u8]| cx.sys().read_at(fd, offset, into);
        self.dispatch.send(key, out, &mut file, &mut dead, &mut self.events);
        dead.into_iter().for_each(|segment| cx.release(segment));
        self.stirred = true;
        self.tell(cx);
    }

    fn grant(&mut self, cx: &mut Cx<'_>, link: LinkId, amount: u64) {
        let Some(slot) = self.slots.get(link) else { return };
        slot.window = amount;
        if slot.state == State::Listening {
            let inner = slot.inner;
            return self.inside(cx, |below, cx| below.grant(cx, inner, amount));
        }
        if slot.state == State::Plain {
            self.plain_grant(cx, link, amount);
            return self.look_inside(cx);
        }
        let Some(key) = self.slots.open_key(link) else { return };
        self.dispatch.grant(key, amount, &mut self.events);
        self.stirred = true;
        self.tell(cx);
    }

    fn finish(&mut self, cx: &mut Cx<'_>, link: LinkId) {
        if let Some(inner) = self.slots.plain(link) {
            self.inside(cx, |below, cx| below.finish(cx, inner));
            return self.look_inside(cx);
        }
        let Some(key) = self.slots.open_key(link) else { return };
        self.dispatch.finish(key, &mut self.events);
        self.stirred = true;
        self.tell(cx);
    }

    fn abort(&mut self, cx: &mut Cx<'_>, link: LinkId) {
        let Some(slot) = self.slots.get(link) else { return };
        let (state, inner, key) = (slot.state, slot.inner, slot.key);
        slot.state = State::Leaving;
        self.stirred = true;
        match (state, key) {
            (State::Leaving, _) => {}
            (State::Open, Some(key)) => {
                cx.timer(link, limits::LINGER);
                self.dispatch.abort(key, &mut self.events);
                self.tell(cx);
            }
            (_, key) => {
                if let Some(key) = key {
                    self.dispatch.abort(key, &mut self.events);
                    self.tell(cx);
                }
                self.inside(cx, |below, cx| below.abort(cx, inner));
            }
        }
        self.look_inside(cx);
    }

    fn complete(&mut self, cx: &mut Cx<'_>, completion: Completion) {
        if !completion.token.is_inner() {
            return self.bell_rang(cx, &completion);
        }
        self.inside(cx, |inner, cx| inner.complete(cx, completion.of_inner()));
        self.look_inside(cx);
    }

    fn timer(&mut self, cx: &mut Cx<'_>, link: LinkId) {
        self.stirred = true;
        if link == DEVICE {
            self.alarm = None;
            return;
        }
        let Some(slot) = self.slots.get(link) else { return };
        match (slot.state, slot.key) {
            (State::Greeting, _) => self.too_late(cx, link),
            (State::Leaving, Some(key)) => {
                // What is still to go to a peer that does not read is given up in its time, too.
                cx.timer(link, limits::LINGER);
                self.dispatch.lingered(key, &mut self.events);
                self.tell(cx);
            }
            (State::Leaving, None) => self.hang_up(cx, link),
            (State::Listening | State::Dialing | State::Open | State::Plain, _) => {}
        }
    }

    fn inner_timer(&mut self, cx: &mut Cx<'_>, link: LinkId) {
        self.inside(cx, |inner, cx| inner.timer(cx, link));
        self.look_inside(cx);
    }

    fn arm(&mut self, cx: &mut Cx<'_>, idle: bool) -> Armed {
        self.inside(cx, |inner, cx| inner.arm(cx, idle));
        self.look_inside(cx);
        self.drive(cx, idle)
    }

    /// The links belong to the parent: their memory and their packets cannot be had twice.
    fn forked(&mut self, cx: &mut Cx<'_>) {
        self.inside(cx, |inner, cx| inner.forked(cx));
        for key in self.by_key.keys().copied().collect::<Vec<_>>() {
            self.dispatch.peer_lost(key, Fault::Forked, &mut self.events);
        }
        self.tell(cx);
        self.look_inside(cx);
    }
}
