//! Where link events land (`router/landing.rs`): the slots of bufferevents, listeners and events,
//! and the lists of what the turn has to do next. Nothing here runs a callback.

mod landing;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use crate::address::Address;
use crate::bev::{Bev, Under, flag};
use crate::event::EventSlot;
use crate::fd::Fd;
use crate::limits;
use crate::link_timer::LinkTimer;
use crate::listener::ListenerSlot;
use crate::segment::{Home, Segment};
use crate::slab::{Key, Slab};
use crate::transport::LinkId;
use crate::wheel::{TimerId, Wheel};

/// Who a link belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Nobody,
    Bev,
    Listener,
}

#[derive(Clone, Copy)]
struct Route {
    generation: u16,
    owner: Owner,
    slot: u32,
}

/// A callback that waits for its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job {
    Bev(Key),
    Event(Key),
    Listener(Key),
}

/// What a timer of the base is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimerKey {
    ReadTimeout(Key),
    WriteTimeout(Key),
    Linger(Key),
    Event(Key),
    Link(LinkTimer),
    Stop,
}

/// See the module text. Public because [`Cx`](crate::transport::Cx) holds it; it has no public
/// parts.
pub struct Router {
    now: Instant,
    pub(crate) turn: u32,
    /// Ops were pushed since the reactor's last turn.
    pub(crate) pushed: bool,
    routes: Vec<Vec<Route>>,
    pub(crate) bevs: Slab<Bev>,
    pub(crate) listeners: Slab<ListenerSlot>,
    pub(crate) events: Slab<EventSlot>,
    pub(crate) ready: Vec<VecDeque<Job>>,
    pub(crate) ready_len: usize,
    pub(crate) dirty: Vec<u32>,
    pub(crate) wheel: Wheel<TimerKey>,
    pub(crate) link_timers: HashMap<LinkTimer, TimerId>,
    /// Where links that are not connected yet want to go, for their errors.
    dials: HashMap<(u8, LinkId), String>,
    /// The user's memory and callbacks, to be dropped when nothing is borrowed.
    pub(crate) dead: Vec<Segment>,
    /// The reactor's pool, for receiving only: what users write must not eat what receives need.
    pub(crate) home: Rc<Home>,
    /// Blocks that users write into.
    pub(crate) writing: Rc<Home>,
    bulk: Rc<Home>,
    /// What keeps `dispatch` going.
    pub(crate) alive: usize,
}

impl Router {
    pub(crate) fn new(now: Instant, transports: usize, home: Rc<Home>) -> Router {
        Router {
            now,
            turn: 0,
            pushed: false,
            routes: (0..transports).map(|_| Vec::new()).collect(),
            bevs: Slab::new(),
            listeners: Slab::new(),
            events: Slab::new(),
            ready: vec![VecDeque::new()],
            ready_len: 0,
            dirty: Vec::new(),
            wheel: Wheel::new(now),
            link_timers: HashMap::new(),
            dials: HashMap::new(),
            dead: Vec::new(),
            home,
            writing: Home::new(limits::BLOCK_BYTES, limits::RING_BLOCKS),
            bulk: Home::new(limits::BULK_BLOCK_BYTES, limits::BULK_HOME_BLOCKS_MAX),
            alive: 0,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.turn = self.turn.wrapping_add(1);
    }

    pub(crate) fn bulk_home(&self) -> &Rc<Home> {
        &self.bulk
    }

    fn route(&mut self, transport: u8, link: LinkId, owner: Owner, slot: u32) {
        let routes = &mut self.routes[transport as usize];
        if routes.len() <= link.slot as usize {
            let none = Route { generation: 0, owner: Owner::Nobody, slot: 0 };
            routes.resize(link.slot as usize + 1, none);
        }
        routes[link.slot as usize] = Route { generation: link.generation, owner, slot };
    }

    /// A new bufferevent over a link.
    pub(crate) fn add_bev(&mut self, transport: u8, link: LinkId, connected: bool) -> Key {
        let mut bev = Bev::new(Under::Link { transport, link });
        if connected {
            bev.set(flag::CONNECTED);
        }
        let key = self.bevs.insert(bev);
        self.route(transport, link, Owner::Bev, key.slot);
        self.mark_dirty(key.slot);
        key
    }

    pub(crate) fn add_listener(
        &mut self,
        transport: u8,
        link: LinkId,
        listener: ListenerSlot,
    ) -> Key {
        let key = self.listeners.insert(listener);
        self.route(transport, link, Owner::Listener, key.slot);
        key
    }

    pub(crate) fn release(&mut self, segment: Segment) {
        if segment.foreign() {
            self.dead.push(segment);
        }
    }

    /// Puts a bufferevent on the list of those to be flushed before the loop waits.
    #[inline]
    pub(crate) fn mark_dirty(&mut self, slot: u32) {
        if let Some(bev) = self.bevs.at_mut(slot)
            && !bev.has(flag::DIRTY)
        {
            bev.set(flag::DIRTY);
            self.dirty.push(slot);
        }
    }

    /// Queues a bufferevent that has something pending.
    #[inline]
    pub(crate) fn queue_bev(&mut self, slot: u32) {
        let Some(key) = self.bevs.key_at(slot) else { return };
        let Some(bev) = self.bevs.at_mut(slot) else { return };
        if bev.has(flag::PENDING_ANY) && !bev.has(flag::QUEUED | flag::FREED) {
            bev.set(flag::QUEUED);
            let priority = bev.priority;
            self.queue(priority, Job::Bev(key));
        }
    }

    #[inline]
    pub(crate) fn queue(&mut self, priority: u8, job: Job) {
        let last = self.ready.len() - 1;
        self.ready[(priority as usize).min(last)].push_back(job);
        self.ready_len += 1;
    }

    /// Counts or uncounts a bufferevent among what keeps `dispatch` going.
    pub(crate) fn recount(&mut self, slot: u32) {
        let Some(bev) = self.bevs.at_mut(slot) else { return };
        let (is, was) = (bev.alive(), bev.has(flag::COUNTED));
        if is && !was {
            bev.set(flag::COUNTED);
            self.alive += 1;
        } else if was && !is {
            bev.clear(flag::COUNTED);
            self.alive -= 1;
        }
    }

    /// Takes the slot out; what the user owns in it goes to `dead`.
    pub(crate) fn remove_bev(&mut self, slot: u32) {
        let Some(key) = self.bevs.key_at(slot) else { return };
        let Some(mut bev) = self.bevs.remove(key) else { return };
        if bev.has(flag::COUNTED) {
            self.alive -= 1;
        }
        debug_assert!(bev.on_read.is_none() && bev.on_event.is_none(), "callbacks left at free");
        let (input, output) = (bev.input.len(), bev.output.len());
        bev.input.drain_into(input, &mut self.dead);
        bev.output.drain_into(output, &mut self.dead);
        let Some(mut more) = bev.more.take() else { return };
        let held = more.held.len();
        more.held.drain_into(held, &mut self.dead);
        for limit in [more.read_timeout, more.write_timeout, more.linger].into_iter().flatten() {
            if let Some(timer) = limit.timer {
                self.wheel.cancel(timer);
            }
        }
    }

    fn queue_listener(&mut self, slot: u32) {
        let Some(key) = self.listeners.key_at(slot) else { return };
        let Some(listener) = self.listeners.at_mut(slot) else { return };
        if !listener.queued {
            listener.queued = true;
            let priority = listener.priority;
            self.queue(priority, Job::Listener(key));
        }
    }

    /// Bytes written and not yet sent, with those that have gone down through filters.
    #[inline]
    pub(crate) fn unsent(&self, key: Key) -> usize {
        let (mut sum, mut at) = (0, Some(key));
        while let Some(bev) = at.and_then(|key| self.bevs.get(key)) {
            sum += bev.output_len();
            at = match bev.under {
                Under::Filter { below } => Some(below),
                _ => None,
            };
        }
        sum
    }

    /// Stops reading from the peer until half of what was written is sent. It is the link's own
    /// bufferevent that pauses, because it is there that sent bytes are counted.
    pub(crate) fn pause(&mut self, mut key: Key) {
        while let Some(Under::Filter { below }) = self.bevs.get(key).map(|bev| bev.under) {
            key = below;
        }
        if let Some(bev) = self.bevs.get_mut(key) {
            bev.set(flag::OUT_PAUSED);
            self.mark_dirty(key.slot);
        }
    }

    /// Queues a listener that has more to tell.
    pub(crate) fn queue_rest(&mut self, key: Key) {
        let listener = self.listeners.get(key);
        if listener.is_some_and(|listener| {
            !(listener.freed || listener.accepted.is_empty() && listener.errors.is_empty())
        }) {
            self.queue_listener(key.slot);
        }
    }

    /// Notes where a link that is being connected wants to go.
    pub(crate) fn dials(&mut self, transport: u8, link: LinkId, to: &Address) {
        self.dials.insert((transport, link), to.to_string());
    }

    /// Descriptors that arrived for a bufferevent.
    pub(crate) fn take_fds(&mut self, key: Key) -> Vec<Fd> {
        let bev = self.bevs.get_mut(key);
        bev.and_then(|bev| bev.more.as_mut())
            .map_or_else(Vec::new, |more| std::mem::take(&mut more.fds_in))
    }
}
