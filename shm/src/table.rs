//! The table of links, and what happens to their sockets.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::reactor::{Side, forked};
use ringlane_api::transport::{Cx, InnerEvents, LinkEvent, LinkId, Transport};

use crate::crash::{self, Point};
use crate::link::{Cold, Link, State, bit};
use crate::map::Fork;
use crate::port::Used;
use crate::spin::Patience;
use crate::transport::SWEEPER;

/// What the transport has counted.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Links that slept and were rung.
    pub sleeps: u64,
    /// Peers that slept and were rung by us.
    pub rings: u64,
    /// Links that the sweep found asleep over something to do: wakes that were lost.
    pub rescues: u64,
}

/// The transport.
pub(crate) struct Shm {
    pub(crate) uds: Box<dyn Transport>,
    pub(crate) events: InnerEvents,
    pub(crate) links: Vec<Link>,
    pub(crate) free: Vec<u32>,
    /// Whose each socket is, by its slot: its generation and our link.
    pub(crate) owners: Vec<Option<(u16, LinkId)>>,
    pub(crate) hot: Vec<LinkId>,
    /// Links whose ports were used since they were looked at.
    pub(crate) used: Used,
    /// Made with the first segment.
    pub(crate) fork: Option<Rc<Fork>>,
    /// How long to look before sleeping: the longest that an open link asks for.
    pub(crate) spin: Duration,
    /// No open link has forbidden to give way.
    pub(crate) gives_way: bool,
    pub(crate) spins: Patience,
    pub(crate) ways: Patience,
    pub(crate) sweeping: bool,
    /// Where the sweep goes on.
    pub(crate) swept: usize,
    /// Links that were opened and are not closed.
    pub(crate) opens: usize,
    pub(crate) counts: Counts,
}

impl Shm {
    pub(crate) fn insert(&mut self, state: State, cold: Option<Box<Cold>>) -> LinkId {
        let link = |generation| Link {
            generation,
            state,
            bits: 0,
            inner: None,
            wait: None,
            death: None,
            window: 0,
            unsaid: 0,
            lease: None,
            open: None,
            cold,
        };
        match self.free.pop() {
            Some(slot) => {
                let place = &mut self.links[slot as usize];
                let generation = place.generation.wrapping_add(1);
                *place = link(generation);
                LinkId { slot, generation }
            }
            None => {
                self.links.push(link(1));
                LinkId { slot: self.links.len() as u32 - 1, generation: 1 }
            }
        }
    }

    pub(crate) fn get(&mut self, id: LinkId) -> Option<&mut Link> {
        let link = self.links.get_mut(id.slot as usize)?;
        (link.generation == id.generation && link.state != State::Free).then_some(link)
    }

    /// Makes a socket a link's.
    pub(crate) fn bind(&mut self, id: LinkId, inner: LinkId) {
        let at = inner.slot as usize;
        if self.owners.len() <= at {
            self.owners.resize(at + 1, None);
        }
        self.owners[at] = Some((inner.generation, id));
        if let Some(link) = self.get(id) {
            link.inner = Some(inner);
        }
    }

    pub(crate) fn owner(&self, inner: LinkId) -> Option<LinkId> {
        let (generation, id) = self.owners.get(inner.slot as usize).copied()??;
        (generation == inner.generation).then_some(id)
    }

    /// Calls the transport inside; what happens there is handled by [`Shm::news`].
    pub(crate) fn inside<R>(
        &mut self,
        cx: &mut Cx<'_>,
        call: impl FnOnce(&mut dyn Transport, &mut Cx<'_>) -> R,
    ) -> R {
        let mut events = std::mem::take(&mut self.events);
        let result = call(self.uds.as_mut(), &mut cx.inner(&mut events));
        debug_assert!(self.events.is_empty(), "nothing calls us back from inside");
        self.events = events;
        result
    }

    /// Handles what has happened to sockets.
    pub(crate) fn news(&mut self, cx: &mut Cx<'_>) {
        while !self.events.is_empty() {
            for (inner, event) in std::mem::take(&mut self.events) {
                self.socket_event(cx, inner, event);
            }
        }
    }

    pub(crate) fn socket_event(&mut self, cx: &mut Cx<'_>, inner: LinkId, event: LinkEvent) {
        let Some(id) = self.owner(inner) else { return discard(cx, event) };
        let Some(link) = self.get(id) else { return discard(cx, event) };
        match (link.state, event) {
            (_, LinkEvent::Closed) => {
                link.inner = None;
                self.owners[inner.slot as usize] = None;
                self.try_close(cx, id);
            }
            (State::Listening, LinkEvent::Accepted(new)) => self.meet(cx, id, new),
            (_, LinkEvent::Accepted(new)) => self.inside(cx, |uds, cx| uds.abort(cx, new)),
            (State::Listening, LinkEvent::Failed(side, error)) => {
                cx.emit(id, LinkEvent::Failed(side, error));
            }
            (State::Dialing, LinkEvent::Connected) => self.offer(cx, id),
            (State::Dialing, LinkEvent::Failed(_, error)) => {
                self.break_off(cx, id, Side::Both, error);
            }
            (State::Dialing | State::Greeting, LinkEvent::Received(segment)) => {
                let told = self.greeted(cx, id, segment.bytes(), Vec::new());
                self.behind(cx, id, segment, told);
            }
            (State::Dialing | State::Greeting, LinkEvent::Sent(n)) => {
                link.unsaid = link.unsaid.saturating_sub(n);
                if link.state == State::Dialing {
                    crash::here(Point::HelloSent);
                }
            }
            (State::Greeting, LinkEvent::Descriptors(fds)) => {
                self.greeted(cx, id, &[], fds);
            }
            (State::Plain, event) => self.plain_event(cx, id, event),
            (State::Dialing, LinkEvent::Eof) => {
                let error = io::ErrorKind::ConnectionReset.into();
                self.break_off(cx, id, Side::Both, error);
            }
            (State::Greeting, LinkEvent::Eof | LinkEvent::Failed(..)) => self.abort(cx, id),
            // A refused connector: gone, or told.
            (State::Broken, LinkEvent::Sent(_) | LinkEvent::Eof | LinkEvent::Failed(..))
                if link.cold.as_ref().is_some_and(|cold| cold.listener.is_some()) =>
            {
                self.abort(cx, id);
            }
            (State::Open, LinkEvent::Received(segment)) => {
                cx.release(segment);
                self.rung(id);
                self.peek(cx, id);
            }
            (State::Open, LinkEvent::Sent(_)) => {
                link.bits &= !bit::SPEAKING;
                crash::here(Point::WelcomeSent);
            }
            (State::Open, LinkEvent::Eof | LinkEvent::Failed(..)) => self.gone(id),
            // Aborted while an answer was on its way: the peer needs it to find what we published.
            (State::Closing, LinkEvent::Sent(_) | LinkEvent::Eof | LinkEvent::Failed(..)) => {
                self.inside(cx, |uds, cx| uds.abort(cx, inner));
            }
            (_, event) => discard(cx, event),
        }
    }

    /// Puts a link on the list of those that are looked at before the loop waits.
    pub(crate) fn heat(&mut self, id: LinkId) {
        if let Some(link) = self.get(id)
            && link.bits & bit::HOT == 0
        {
            // Asleep no more, it is no suspect either.
            link.bits = (link.bits | bit::HOT) & !bit::SUSPECT;
            self.hot.push(id);
        }
    }

    /// The peer has rung.
    pub(crate) fn rung(&mut self, id: LinkId) {
        if let Some(link) = self.get(id) {
            let slept = link.state == State::Open && link.bits & bit::HOT == 0;
            self.counts.sleeps += u64::from(slept);
        }
        self.wake(id);
        crash::here(Point::Woken);
    }

    /// The peer has rung, or the socket has told something.
    pub(crate) fn wake(&mut self, id: LinkId) {
        if let Some(open) = self.get(id).and_then(|link| link.open.as_ref()) {
            open.mine.retract();
        }
        self.heat(id);
    }

    /// The link has failed; what is left to come is `Closed`, after its abort.
    pub(crate) fn break_off(&mut self, cx: &mut Cx<'_>, id: LinkId, side: Side, error: io::Error) {
        let Some(link) = self.get(id) else { return };
        if side == Side::Both {
            link.state = State::Broken;
            link.open = None;
            cx.no_timer(id);
        } else {
            link.bits |= bit::WRITE_OVER;
        }
        let (ops, inner) = (link.ops(), link.inner);
        if side == Side::Both {
            ops.for_each(|op| cx.cancel(op));
            if let Some(inner) = inner {
                self.inside(cx, |uds, cx| uds.abort(cx, inner));
            }
        }
        cx.emit(id, LinkEvent::Failed(side, error));
    }

    pub(crate) fn try_close(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        let waits = link.wait.is_some() || link.death.is_some() || link.inner.is_some();
        if link.state != State::Closing || waits {
            return;
        }
        if link.cold.as_ref().is_some_and(|cold| cold.present > 0) {
            return;
        }
        let counted = link.bits & bit::COUNTED != 0;
        link.state = State::Free;
        link.open = None;
        let cold = link.cold.take();
        link.lease = None;
        self.free.push(id.slot);
        if counted {
            self.opens -= 1;
        }
        if self.opens == 0 {
            (self.spin, self.gives_way) = (Duration::ZERO, true);
            if std::mem::take(&mut self.sweeping) {
                cx.no_timer(SWEEPER);
            }
        }
        cx.emit(id, LinkEvent::Closed);
        if let Some(listener) = cold.and_then(|cold| cold.listener) {
            self.guest_left(cx, listener);
        }
    }

    /// A listener's guest has become a link, or is gone; the last one lets the listener close.
    pub(crate) fn guest_left(&mut self, cx: &mut Cx<'_>, listener: LinkId) {
        if let Some(cold) = self.get(listener).and_then(|link| link.cold.as_mut()) {
            cold.present -= 1;
            self.try_close(cx, listener);
        }
    }

    /// What tells maps of this process from those of its parent.
    pub(crate) fn guard(&mut self) -> io::Result<Rc<Fork>> {
        match &self.fork {
            Some(fork) => Ok(Rc::clone(fork)),
            None => Ok(Rc::clone(self.fork.insert(Rc::new(Fork::new()?)))),
        }
    }

    /// Drops the rings of all links if this is a forked child: they are not mapped here, and what
    /// is amid its hand-over is the parent's.
    pub(crate) fn check_fork(&mut self, cx: &mut Cx<'_>) {
        if !self.fork.as_ref().is_some_and(|fork| fork.happened()) {
            return;
        }
        self.fork = None;
        for slot in 0..self.links.len() as u32 {
            let link = &mut self.links[slot as usize];
            let id = LinkId { slot, generation: link.generation };
            let offered = link.cold.as_ref().is_some_and(|cold| cold.offered.is_some());
            if let (State::Listening, Some(cold)) = (link.state, &mut link.cold) {
                cold.inherited = true;
            }
            match link.state {
                State::Open => self.break_off(cx, id, Side::Both, forked()),
                State::Dialing if offered => self.break_off(cx, id, Side::Both, forked()),
                State::Greeting => self.abort(cx, id),
                _ => {}
            }
        }
    }
}

fn discard(cx: &mut Cx<'_>, event: LinkEvent) {
    if let LinkEvent::Received(segment) = event {
        cx.release(segment);
    }
}
