//! What happens inside and in the device, told to the base.

use std::io;
use std::time::Duration;

use ringlane_api::reactor::Side;
use ringlane_api::segment::Segment;
use ringlane_api::transport::{Armed, Cx, LinkEvent, LinkId};

use super::memory::FDS_MAX;
use super::{Carrier, DEVICE, Rdma, State};
use crate::dispatch;
use crate::health;
use crate::link::Fault;
use crate::verbs::{Port, Verbs};

/// Rounds of the device per turn; what is left then keeps the loop awake.
const ROUNDS_MAX: usize = 4;

impl Rdma {
    /// Looks at what happened to the links inside.
    pub(super) fn look_inside(&mut self, cx: &mut Cx<'_>) {
        while let Some((inner, event)) = self.happened.pop_front() {
            let Some(id) = self.by_inner.get(&inner).copied() else { continue };
            self.happened_to(cx, id, inner, event);
        }
    }

    fn happened_to(&mut self, cx: &mut Cx<'_>, id: LinkId, inner: LinkId, event: LinkEvent) {
        let Some(slot) = self.slots.get(id) else { return };
        match event {
            LinkEvent::Connected if slot.state == State::Dialing => self.dialed(cx, id),
            LinkEvent::Accepted(new) => match slot.state {
                State::Listening => self.called(cx, id, new),
                // Its listener has gone. Nobody will hear of its end.
                _ => self.inside(cx, |below, cx| below.abort(cx, new)),
            },
            LinkEvent::Received(segment) => match (slot.state, slot.port) {
                (State::Greeting, _) => {
                    slot.greeting.push(segment);
                    self.greeted(cx, id);
                }
                (State::Plain, _) => self.plain_received(cx, id, segment),
                (State::Open | State::Leaving, Some(port)) => self.arrived(cx, port, segment),
                _ => cx.release(segment),
            },
            LinkEvent::Descriptors(fds) if slot.state == State::Greeting => {
                slot.fds.extend(fds);
                slot.fds.truncate(FDS_MAX);
            }
            LinkEvent::Sent(n) => self.inner_sent(cx, id, n),
            LinkEvent::Writable if slot.state == State::Plain => cx.emit(id, event),
            LinkEvent::Writable => {
                if let Some(port) = slot.port {
                    self.push_out(cx, port);
                }
                self.stirred = true;
            }
            LinkEvent::Eof | LinkEvent::Failed(..) if slot.state == State::Plain => {
                self.plain_ended(cx, id, event);
            }
            LinkEvent::Eof => self.inner_over(cx, id, io::ErrorKind::ConnectionReset.into()),
            LinkEvent::Failed(side, error) if slot.state == State::Listening => {
                cx.emit(id, LinkEvent::Failed(side, error));
            }
            LinkEvent::Failed(_, error) => self.inner_over(cx, id, error),
            LinkEvent::Closed => {
                slot.inner_closed = true;
                self.by_inner.remove(&inner);
                self.close_if_over(cx, id);
            }
            LinkEvent::Connected | LinkEvent::Descriptors(_) | LinkEvent::Readable => {}
        }
    }

    /// Bytes of an open link: packets, or, where those travel in memory, a ring.
    pub(super) fn arrived(&mut self, cx: &mut Cx<'_>, port: Port, segment: Segment) {
        match Carrier::inside(port) {
            None => {
                self.stream().feed(port, segment);
                self.fed.push(port);
            }
            Some(port) => {
                cx.release(segment);
                self.memory().wake(port);
            }
        }
        self.stirred = true;
    }

    fn inner_sent(&mut self, cx: &mut Cx<'_>, id: LinkId, n: usize) {
        let Some(slot) = self.slots.get(id) else { return };
        if slot.plain {
            self.plain_sent(cx, id, n);
        } else {
            slot.handed -= n;
            if slot.ring_due {
                self.ring_by_byte(cx, id);
            }
        }
        self.leave_if_said(cx, id);
    }

    /// The link that introduced ends: the peer is gone.
    fn inner_over(&mut self, cx: &mut Cx<'_>, id: LinkId, error: io::Error) {
        let Some(slot) = self.slots.get(id) else { return };
        if std::mem::replace(&mut slot.inner_over, true) {
            return;
        }
        let (state, key) = (slot.state, slot.key);
        match (state, key) {
            (State::Dialing, _) => cx.emit(id, LinkEvent::Failed(Side::Both, error)),
            (State::Greeting, _) => self.unmet(cx, id, error),
            (State::Open | State::Leaving, Some(key)) => {
                // What had come before counts.
                self.wake(id);
                self.dispatch.verbs_mut().wire_mut().hurry();
                self.dispatch.verbs_mut().run();
                self.dispatch.peer_lost(key, Fault::Reset, &mut self.events);
                self.stirred = true;
                self.tell(cx);
            }
            (State::Leaving, None) => self.hang_up(cx, id),
            (State::Listening | State::Open | State::Plain, _) => {}
        }
    }

    /// One turn of the device, and everything that is due leaves. `idle`: the loop sleeps if there
    /// is nothing to do.
    pub(super) fn drive(&mut self, cx: &mut Cx<'_>, idle: bool) -> Armed {
        if !std::mem::take(&mut self.stirred) && !self.memory().is_hot() {
            return Armed::Quiet;
        }
        let epoch = *self.epoch.get_or_insert(cx.now());
        let now = cx.now().saturating_duration_since(epoch);
        self.stream().set_now(now);
        self.memory().set_now(now);
        let mut again = true;
        for _ in 0..ROUNDS_MAX {
            again = self.round(cx);
            // Asleep from here on for peers in shared memory, unless one of them was quicker.
            again = again || (idle && self.memory().rest());
            if !again {
                break;
            }
        }
        self.set_alarm(cx, now);
        self.watch();
        self.stirred |= again;
        if self.stirred { Armed::Busy } else { Armed::Quiet }
    }

    /// Tells of messages that credits should have held back.
    fn watch(&mut self) {
        let naks = self.dispatch.verbs().counters().not_ready_naks;
        let before = std::mem::replace(&mut self.not_ready_told, naks);
        if naks > before {
            health::add_not_ready(naks - before);
        }
        let rescued = self.dispatch.counters().rescued_by_looking_again;
        let before = std::mem::replace(&mut self.rescued_told, rescued);
        if let Some(tally) = &self.tally {
            tally.lost_arms.set(tally.lost_arms.get() + rescued - before);
        }
    }

    /// The device runs, the links hear of it, and what is due leaves. Whether there is more.
    fn round(&mut self, cx: &mut Cx<'_>) -> bool {
        self.dispatch.verbs_mut().run();
        self.spoiled(cx);
        let more = self.dispatch.progress(&mut self.events);
        let armed = self.dispatch.arm(&mut self.events);
        // The words that were due go on the wire. A peer in shared memory may have written
        // meanwhile: that is what was armed for.
        self.dispatch.verbs_mut().run();
        let event = self.dispatch.verbs_mut().take_event();
        self.tell(cx);
        for port in self.stream().going() {
            self.push_out(cx, port);
        }
        self.publish(cx);
        self.look_inside(cx);
        armed == dispatch::Armed::Again || more || event
    }

    /// The device is run again when its clock wants it, as long as anybody has a link on it.
    fn set_alarm(&mut self, cx: &mut Cx<'_>, now: Duration) {
        let alarm = self.dispatch.verbs().deadline().filter(|_| !self.by_key.is_empty());
        if alarm == std::mem::replace(&mut self.alarm, alarm) {
            return;
        }
        match alarm {
            Some(at) => cx.timer(DEVICE, at.saturating_sub(now).max(Duration::from_micros(1))),
            None => cx.no_timer(DEVICE),
        }
    }

    /// Peers whose frames made no sense have lost their links.
    fn spoiled(&mut self, cx: &mut Cx<'_>) {
        let mut fed = std::mem::take(&mut self.fed);
        let mut lost = self.memory().spoiled();
        lost.iter_mut().for_each(|port| *port = Carrier::outside(*port));
        let stream = self.stream();
        lost.extend(fed.drain(..).filter(|port| stream.is_spoiled(*port)));
        self.fed = fed;
        for port in lost {
            let key = self.by_port.get(&port).copied().and_then(|id| self.slots.get(id)?.key);
            if let Some(key) = key {
                self.dispatch.peer_lost(key, Fault::Frame, &mut self.events);
            }
        }
        self.tell(cx);
    }

    /// Hands a port's bytes to its link, as much as that takes.
    fn push_out(&mut self, cx: &mut Cx<'_>, port: Port) {
        let Some(id) = self.by_port.get(&port).copied() else { return };
        let Some(slot) = self.slots.get(id) else { return };
        let (inner, over) = (slot.inner, slot.inner_over || slot.inner_closed);
        let Some(out) = self.stream().out(port) else { return };
        let mut bytes = std::mem::take(out);
        let before = bytes.len();
        if over {
            bytes.drain(before);
        } else {
            self.inside(cx, |below, cx| below.send(cx, inner, &mut bytes, &mut Vec::new()));
            self.slots.get(id).expect("still there").handed += before - bytes.len();
        }
        if let Some(out) = self.stream().out(port) {
            *out = bytes;
        }
        self.leave_if_said(cx, id);
    }

    /// Tells the base what happened in the device.
    pub(super) fn tell(&mut self, cx: &mut Cx<'_>) {
        let mut events = std::mem::take(&mut self.events);
        for (key, event) in events.drain(..) {
            let Some(id) = self.by_key.get(&key).copied() else { continue };
            if !matches!(event, LinkEvent::Closed) {
                if self.slots.get(id).is_some_and(|slot| slot.told) {
                    cx.emit(id, event);
                }
                continue;
            }
            self.by_key.remove(&key);
            if let Some(slot) = self.slots.get(id) {
                slot.key = None;
            }
            // The last answers and words go first.
            self.dispatch.verbs_mut().run();
            self.leave_if_said(cx, id);
        }
        self.events = events;
    }

    /// When the device has let go and everything it said is out, the link inside ends, too.
    fn leave_if_said(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(slot) = self.slots.get(id) else { return };
        if slot.state != State::Leaving || slot.key.is_some() {
            return;
        }
        let (over, handed, port) = (slot.inner_over, slot.handed, slot.port);
        let stream = self.stream();
        let unsaid = port.and_then(|port| stream.out(port)).is_some_and(|out| !out.is_empty());
        if over || (handed == 0 && !unsaid) {
            self.hang_up(cx, id);
        }
    }

    pub(super) fn hang_up(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(slot) = self.slots.get(id) else { return };
        let inner = slot.inner;
        if slot.inner_closed {
            return self.close_if_over(cx, id);
        }
        // The peer finds what was said last when it hears of our end.
        self.publish(cx);
        self.forget_bell(cx, id);
        self.inside(cx, |below, cx| below.abort(cx, inner));
        self.stirred = true;
    }

    /// Frees a link that has nothing left anywhere.
    pub(super) fn close_if_over(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(slot) = self.slots.get(id) else { return };
        if !slot.inner_closed || slot.key.is_some() {
            return;
        }
        if slot.poll.is_some() {
            return self.forget_bell(cx, id);
        }
        let (port, told) = (slot.port, slot.told);
        if let Some(port) = port {
            match Carrier::inside(port) {
                None => self.stream().remove(port),
                Some(port) => self.memory().remove(port),
            }
            self.by_port.remove(&port);
        }
        self.slots.remove(id);
        cx.no_timer(id);
        if told {
            cx.emit(id, LinkEvent::Closed);
        }
    }
}
