//! What the user sends, and what the relay says of it.

use std::rc::Rc;

use ringlane_api::slab::Key;

use super::out::{Head, Offer, Out, Way};
use super::{Core, Event, Millis, TOKEN_CHAN, kind};
use crate::bus::error::BusError;
use crate::bus::event::{OutStatus, PeerEvent};
use crate::bus::local::{Terms, ToRelay};

/// Bytes of a name at most.
const NAME_BYTES_MAX: usize = 128;

/// What a message is sent with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Post<'a> {
    /// `db`, `db@b` or `@db`.
    pub to: &'a str,
    /// The channel.
    pub chan: u16,
    /// Chooses the member of a group.
    pub key: Option<&'a [u8]>,
    /// Milliseconds after which it is worth nothing, if it has not left.
    pub ttl: Option<u32>,
    /// It may go in pieces.
    pub large: bool,
}

/// What a message is, beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct What {
    pub kind: u16,
    pub number: Option<u64>,
    pub ttl: Option<u32>,
    pub large: bool,
}

impl What {
    fn of(post: Post<'_>, kind: u16, number: Option<u64>) -> What {
        What { kind, number, ttl: post.ttl, large: post.large }
    }
}

impl Core {
    /// Sends a message. `Ok` means that it is accepted: it is in the channel's ring, or waits
    /// beside it.
    #[inline]
    pub fn send(&mut self, post: Post<'_>, body: &[u8]) -> Result<(), BusError> {
        self.post(post, What::of(post, kind::MESSAGE, None), body)
    }

    /// Sends a request; returns its number, which its answer or [`Event::CallFailed`] names.
    pub fn call(&mut self, post: Post<'_>, body: &[u8], within: Millis) -> Result<u64, BusError> {
        let number = self.calls.next_number();
        self.post(post, What::of(post, kind::REQUEST, Some(number)), body)?;
        let to = Rc::from(post.to.split('@').next().unwrap_or_default());
        self.calls.add(number, self.now + within, to, post.chan);
        Ok(number)
    }

    /// Answers a request.
    pub fn reply(&mut self, post: Post<'_>, number: u64, body: &[u8]) -> Result<(), BusError> {
        self.post(post, What::of(post, kind::REPLY, Some(number)), body)
    }

    /// An answer has come. Whether somebody waits for it.
    pub fn answered(&mut self, number: u64) -> bool {
        self.calls.answered(number)
    }

    // A post is taken apart where it is made: put together in memory and read at once, its narrow
    // fields cost more than the message.
    #[inline(always)]
    fn post(&mut self, post: Post<'_>, what: What, body: &[u8]) -> Result<(), BusError> {
        if !self.may_post() {
            return Err(BusError::Closed);
        }
        if post.to.starts_with('@') {
            return self.post_to_group(post, what, body);
        }
        let key = self.out_of(post.to, post.chan)?;
        self.offer(key, what, body)
    }

    pub(super) fn may_post(&self) -> bool {
        !(self.closed || self.closing.is_some() || self.is_over())
    }

    /// The channel to a node, and what precedes a message's bytes there.
    pub(super) fn place_of(
        &mut self,
        post: Post<'_>,
    ) -> Result<Option<(Key, u16, Head)>, BusError> {
        let key = self.out_of(post.to, post.chan)?;
        let now = self.now;
        let Some(out) = self.outs.get(key) else { return Ok(None) };
        let deadline = deadline_of(out, post.ttl, now);
        let flag = if deadline.is_some() { kind::DEADLINE } else { 0 };
        Ok(Some((key, kind::MESSAGE | flag, Head::new(deadline, None))))
    }

    /// Whether messages carry the time, which must be that of this turn then.
    pub fn wants_time(&self) -> bool {
        self.timed
    }

    /// Offers a message to a channel.
    pub(super) fn offer(&mut self, key: Key, what: What, body: &[u8]) -> Result<(), BusError> {
        let (now, limits) = (self.now, self.setup.limits);
        let Some(out) = self.outs.get_mut(key) else { return Err(BusError::Closed) };
        if let Way::None { why, .. } = &out.way {
            return Err(BusError::NoPath { to: out.to.clone(), why: why.clone() });
        }
        if out.closing && out.close_said {
            // The next stream begins when this one is through.
            out.wanted = Some(0);
            return Err(BusError::WouldBlock);
        }
        out.closing = false;
        let deadline = deadline_of(out, what.ttl, now);
        let flag = if deadline.is_some() { kind::DEADLINE } else { 0 };
        let head = Head::new(deadline, what.number);
        let offer = Offer { kind: what.kind | flag, head, body, large: what.large };
        let taken = out.offer(offer, &limits);
        if !out.is_queue_empty() || out.wanted.is_some() {
            self.waiting_room.insert(key);
            if what.large {
                self.work_on(key);
            }
        }
        self.mark_dirty(key);
        // Not moved as a whole: it is wider than what was just written of it, and waits for that.
        taken?;
        Ok(())
    }

    /// It has records to be published: at the end of the turn, or now if nobody is to be rung then.
    pub(super) fn mark_dirty(&mut self, key: Key) {
        let rung = self.has_bell();
        let Some(out) = self.outs.get_mut(key) else { return };
        if !rung {
            self.unrung |= out.publish();
        } else if !std::mem::replace(&mut out.listed, true) {
            self.dirty.push(key);
        }
    }

    /// Whether something was written and perhaps not published.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Lets the relay see everything that was written. Whether there was anything: then ring it.
    pub fn publish(&mut self) -> bool {
        let mut published = std::mem::take(&mut self.unrung);
        for key in self.dirty.drain(..) {
            if let Some(out) = self.outs.get_mut(key) {
                out.listed = false;
                published |= out.publish();
            }
        }
        self.unrung = published && !self.has_bell();
        published
    }

    /// The channel to a node, made if there is none.
    pub(super) fn out_of(&mut self, to: &str, chan: u16) -> Result<Key, BusError> {
        let bare = || to.split('@').next().unwrap_or_default();
        // Mostly it is the one of the message before.
        if let Some(key) = self.last_out
            && let Some(out) = self.outs.get(key)
            && out.chan == chan
            && (*out.node == *to || *out.node == *bare())
            && out.is_open()
        {
            return Ok(key);
        }
        let bare = bare();
        let found = self.out_names.get(bare).and_then(|list| list.iter().find(|at| at.0 == chan));
        if let Some((_, key)) = found {
            let key = *key;
            self.last_out = Some(key);
            let Some(out) = self.outs.get(key) else { return Err(BusError::Closed) };
            if !matches!(out.way, Way::None { until, .. } if until <= self.now) {
                return Ok(key);
            }
            self.forget(key);
        }
        check_name(to)?;
        if chan == TOKEN_CHAN {
            let why = "channel 65535 is the bus's own";
            return Err(BusError::BadName { name: format!("{to}, channel {chan}"), why });
        }
        let most = self.setup.limits.channels;
        if self.outs.len() >= most {
            return Err(BusError::TooMany { most });
        }
        let (id, node) = (self.next_number(), Rc::from(bare));
        let key = self.outs.insert(Out::new(id, to, Rc::clone(&node), chan));
        self.out_ids.insert(id, key);
        self.out_names.entry(node).or_default().push((chan, key));
        self.say_line(ToRelay::Open { id, to: to.to_string(), chan });
        Ok(key)
    }

    pub(super) fn next_number(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// A channel number is over.
    pub(super) fn forget(&mut self, key: Key) -> Option<Out> {
        let out = self.outs.remove(key)?;
        self.out_ids.remove(&out.id);
        self.waiting_room.remove(&key);
        if let Some(list) = self.out_names.get_mut(&out.node) {
            list.retain(|(_, of)| *of != key);
            if list.is_empty() {
                self.out_names.remove(&out.node);
            }
        }
        Some(out)
    }

    pub(super) fn out_by_id(&mut self, id: u32) -> Option<(Key, &mut Out)> {
        let key = *self.out_ids.get(&id)?;
        Some((key, self.outs.get_mut(key)?))
    }

    pub(super) fn path(&mut self, id: u32, node: &str, terms: Terms, direct: bool) {
        let Some((_, out)) = self.out_by_id(id) else { return };
        if !matches!(out.way, Way::Asked | Way::Meeting(_)) {
            return;
        }
        if *out.node != *node {
            log::warn!("bus: the relay calls {} by the name of {node}", out.to);
        }
        out.terms = Some(terms);
        self.timed |= terms.ttl_ms > 0;
        let Some((key, out)) = self.out_by_id(id) else { return };
        if direct {
            out.way = Way::Meeting(None);
            return;
        }
        self.make_ring(key);
    }

    pub(super) fn bound(&mut self, id: u32, epoch: u64) {
        let Some((_, out)) = self.out_by_id(id) else { return };
        (out.epoch, out.here, out.why) = (epoch, true, None);
        let (node, chan) = (Rc::clone(&out.node), out.chan);
        self.events.push_back(Event::Peer(PeerEvent::Here { node, chan, epoch }));
    }

    pub(super) fn out_waits(&mut self, id: u32, why: String) {
        let Some((_, out)) = self.out_by_id(id) else { return };
        (out.here, out.why) = (false, Some(why.clone()));
        let (node, chan) = (Rc::clone(&out.node), out.chan);
        self.events.push_back(Event::Peer(PeerEvent::Waiting { node, chan, why }));
    }

    pub(super) fn stuck(&mut self, id: u32, for_ms: u64, why: String) {
        let Some((_, out)) = self.out_by_id(id) else { return };
        let (node, chan) = (Rc::clone(&out.node), out.chan);
        self.events.push_back(Event::Peer(PeerEvent::Stuck { node, chan, for_ms, why }));
    }

    pub(super) fn out_closed(&mut self, id: u32) {
        let Some(key) = self.out_ids.get(&id).copied() else { return };
        self.groups_have_room(key);
        if let Some(out) = self.forget(key)
            && out.wanted.is_some()
        {
            self.events.push_back(Event::Writable { to: out.node, chan: out.chan });
        }
        self.closed_if_through();
    }

    pub(super) fn close_out(&mut self, key: Key) {
        if let Some(out) = self.outs.get_mut(key) {
            out.closing = true;
            self.work_on(key);
        }
    }

    /// The relay would rather not keep a channel that has been idle for long; the next message
    /// opens another.
    pub(super) fn out_idle(&mut self, id: u32) {
        let Some(key) = self.out_ids.get(&id).copied() else { return };
        let idle = |out: &mut Out| out.acked().is_ok() && out.unacknowledged() == 0;
        if self.outs.get_mut(key).is_some_and(idle) {
            self.close_out(key);
        }
    }

    /// Closes one channel, when all that was accepted for it is acknowledged.
    pub fn close_channel(&mut self, to: &str, chan: u16) {
        let bare = to.split('@').next().unwrap_or_default();
        let found = self.out_names.get(bare).and_then(|list| list.iter().find(|at| at.0 == chan));
        if let Some((_, key)) = found.copied() {
            self.close_out(key);
        }
    }

    /// Breaks off a message in pieces that has not left whole. Whether there was one.
    pub fn abort_large(&mut self, to: &str, chan: u16) -> Result<bool, BusError> {
        let key = self.out_of(to, chan)?;
        let aborted = self.outs.get_mut(key).is_some_and(Out::abort_large);
        self.work_on(key);
        Ok(aborted)
    }

    /// The relay has rung: acknowledgements may have come, and with them room. (What came to be
    /// read is asked for by [`Core::take`].)
    pub fn rang(&mut self) {
        let busy: Vec<Key> = self.waiting_room.iter().copied().collect();
        busy.into_iter().for_each(|key| self.work_on(key));
    }

    /// Whether somebody waits for acknowledgements.
    pub fn wants_room(&self) -> bool {
        !self.waiting_room.is_empty()
    }

    /// Whether something was acknowledged on a channel that waits for that.
    pub fn has_room_news(&mut self) -> bool {
        let outs = &mut self.outs;
        self.waiting_room.iter().any(|key| {
            outs.get_mut(*key).is_some_and(|out| {
                let seen = out.seen_acked;
                out.acked().is_ok_and(|acked| acked != seen)
            })
        })
    }

    /// Looks at a channel: moves what waits, tells who waits for room, goes on closing.
    pub(super) fn work_on(&mut self, key: Key) {
        let limits = self.setup.limits;
        let Some(out) = self.outs.get_mut(key) else { return };
        match out.acked() {
            Ok(acked) => {
                out.seen_acked = acked;
                out.trim_posted();
            }
            Err(_) => {
                log::error!("bus: the relay wrote nonsense of the ring to {}", out.to);
                return self.distrust();
            }
        }
        let moved = out.flush();
        let told = out.wanted.filter(|wanted| out.has_room(*wanted, &limits)).is_some();
        if told {
            out.wanted = None;
            let (to, chan) = (Rc::clone(&out.node), out.chan);
            self.events.push_back(Event::Writable { to, chan });
            self.groups_have_room(key);
        }
        if moved {
            self.mark_dirty(key);
        }
        self.go_on_closing(key);
        let (Some(out), drains) = (self.outs.get(key), self.draining) else { return };
        let left = drains && out.unacknowledged() > 0;
        if left && out.is_direct() {
            self.look_again();
        }
        if self.outs.get(key).is_some_and(|out| left || out.is_busy()) {
            self.waiting_room.insert(key);
        } else {
            self.waiting_room.remove(&key);
        }
    }

    /// From now on, or no longer, every acknowledgement is waited for.
    pub fn drain(&mut self, on: bool) {
        self.draining = on;
        let keys: Vec<Key> = self.outs.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.work_on(key));
    }

    fn go_on_closing(&mut self, key: Key) {
        let here = self.is_here();
        let Some(out) = self.outs.get_mut(key) else { return };
        if !out.closing || !out.is_queue_empty() {
            return;
        }
        let id = out.id;
        match &out.way {
            Way::Ring { .. } if out.close_said || !here => {}
            Way::Ring { .. } => {
                out.publish();
                out.close_said = true;
                self.say_line(ToRelay::Close { id });
            }
            // A neighbour does not say how far it is.
            Way::Direct { .. } if out.unacknowledged() > 0 => self.look_again(),
            Way::Direct { .. } => {
                self.todo.push_back(super::Do::Part { id });
                self.forget(key);
                self.closed_if_through();
            }
            // Nothing was ever sent.
            Way::Asked | Way::Meeting(_) | Way::None { .. } => {
                self.say_line(ToRelay::Close { id });
                self.forget(key);
                self.closed_if_through();
            }
        }
    }

    /// Records and waiting messages that are not acknowledged, on all channels.
    pub fn unacknowledged(&mut self) -> u64 {
        let looked = self.outs.iter_mut().map(|(_, out)| {
            let _ = out.acked();
            u64::from(out.unacknowledged())
        });
        looked.sum()
    }

    /// The channels that are sent on.
    pub fn out_status(&self) -> Vec<OutStatus> {
        self.outs.iter().map(|(_, out)| out.status()).collect()
    }
}

/// When a message is worth nothing any more.
fn deadline_of(out: &Out, ttl: Option<u32>, now: Millis) -> Option<Millis> {
    let ttl = ttl.or(out.terms.map(|terms| terms.ttl_ms)).filter(|ttl| *ttl > 0);
    ttl.map(|ttl| now + Millis::from(ttl))
}

fn check_name(to: &str) -> Result<(), BusError> {
    let why = if to.is_empty() || to.starts_with('@') {
        "a node is db or db@host"
    } else if to.len() > NAME_BYTES_MAX {
        "a name has at most 128 bytes"
    } else if to.bytes().any(|byte| byte.is_ascii_control() || byte == b' ' || byte == b'"') {
        "names have no spaces and no quotes"
    } else if to.matches('@').count() > 1 {
        "a node is db or db@host, with one @"
    } else {
        return Ok(());
    };
    Err(BusError::BadName { name: to.to_string(), why })
}
