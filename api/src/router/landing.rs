//! What a link event does to the slot of its bufferevent or listener. It runs no callback: it sets
//! what is pending, and queues the slot.

use super::{Owner, Route, Router};
use crate::bev::{HeldEnd, Under, flag};
use crate::bufferevent::BevEvent;
use crate::error::Error;
use crate::link_timer::LinkTimer;
use crate::mutant::{self, Mutant};
use crate::reactor::Side;
use crate::segment::Segment;
use crate::timeout::restart_timeouts;
use crate::transport::{LinkEvent, LinkId};

impl Router {
    #[inline]
    pub(crate) fn emit(&mut self, transport: u8, link: LinkId, event: LinkEvent) {
        let route = self.routes[transport as usize].get(link.slot as usize).copied();
        match route {
            Some(Route { generation, owner: Owner::Bev, slot })
                if generation == link.generation || mutant::on(Mutant::GenerationIgnored) =>
            {
                self.bev_event(slot, transport, link, event);
            }
            Some(Route { generation, owner: Owner::Listener, slot })
                if generation == link.generation =>
            {
                self.listener_event(slot, transport, link, event);
            }
            // A link whose owner is gone: its memory still has to be dropped outside the borrow.
            _ => {
                if let LinkEvent::Received(segment) = event {
                    self.release(segment);
                }
            }
        }
    }

    fn bev_event(&mut self, slot: u32, transport: u8, link: LinkId, event: LinkEvent) {
        match event {
            LinkEvent::Received(segment) => self.received(slot, segment),
            LinkEvent::Readable => self.readable(slot),
            LinkEvent::Sent(bytes) => self.sent(slot, bytes),
            LinkEvent::Writable => self.writable(slot),
            LinkEvent::Connected => {
                self.dials.remove(&(transport, link));
                self.connected(slot);
                self.touch(slot);
            }
            LinkEvent::Descriptors(fds) => {
                if let Some(bev) = self.bevs.at_mut(slot) {
                    bev.more().fds_in.extend(fds);
                }
            }
            LinkEvent::Eof => self.read_over(slot, HeldEnd::Eof),
            LinkEvent::Failed(side, error) => {
                let at = self.dials.remove(&(transport, link));
                self.failed(slot, side, error, at);
            }
            LinkEvent::Closed => self.closed(slot, transport, link),
            LinkEvent::Accepted(_) => debug_assert!(false, "only listeners accept"),
        }
    }

    /// From now on both directions can make progress, and their limits count.
    fn connected(&mut self, slot: u32) {
        let now = self.now;
        let Some(bev) = self.bevs.at_mut(slot) else { return };
        bev.set(flag::CONNECTED | flag::PENDING_CONNECTED);
        if bev.more.is_some() {
            bev.progress(Side::Read, now);
            bev.progress(Side::Write, now);
            if let Some(key) = self.bevs.key_at(slot) {
                restart_timeouts(self, key);
            }
        }
    }

    /// Marks for flushing and queues what is pending.
    fn touch(&mut self, slot: u32) {
        self.mark_dirty(slot);
        self.queue_bev(slot);
    }

    #[inline]
    fn received(&mut self, slot: u32, segment: Segment) {
        let now = self.now;
        let Some(bev) = self.bevs.at_mut(slot) else { return };
        if bev.has(flag::FREED) {
            return self.release(segment);
        }
        let n = segment.len();
        if bev.more.is_some() {
            bev.progress(Side::Read, now);
            if bev.has(flag::GRANT_SOME) {
                let more = bev.more();
                more.window = more.window.saturating_sub(n as u64);
            }
        }
        if !bev.has(flag::READ_ON) {
            bev.set(flag::HELD);
            bev.more().held.push(segment);
            return;
        }
        bev.input.push(segment);
        if bev.more.is_none() || bev.input.len() >= bev.read_low() {
            bev.set(flag::PENDING_READ);
            self.queue_bev(slot);
        }
    }

    /// There is something to read that does not come as bytes.
    fn readable(&mut self, slot: u32) {
        let now = self.now;
        let Some(bev) = self.bevs.at_mut(slot) else { return };
        if bev.has(flag::FREED) || !bev.has(flag::READ_ON) {
            return;
        }
        if bev.more.is_some() {
            bev.progress(Side::Read, now);
        }
        bev.set(flag::PENDING_READ);
        self.queue_bev(slot);
    }

    /// The transport would take more; what is left of the output goes to it. Where nothing is,
    /// room was wanted through the link's face, and its user is told.
    fn writable(&mut self, slot: u32) {
        let Some(bev) = self.bevs.at_mut(slot) else { return };
        bev.clear(flag::BLOCKED);
        if bev.output_len() == 0 && bev.wants_written() {
            bev.set(flag::PENDING_WRITE);
            self.queue_bev(slot);
        }
        self.mark_dirty(slot);
    }

    #[inline]
    fn sent(&mut self, slot: u32, bytes: usize) {
        let now = self.now;
        let Some(bev) = self.bevs.at_mut(slot) else { return };
        debug_assert!(bev.in_flight >= bytes as u64, "no more is released than was taken");
        bev.in_flight = bev.in_flight.saturating_sub(bytes as u64);
        if bev.more.is_some() {
            bev.progress(Side::Write, now);
        }
        let left = bev.output_len();
        let mut dirty = left == 0 && (!bev.has(flag::READ_ON) || bev.has(flag::READ_OVER));
        dirty |= bev.has(flag::FREED);
        dirty |= bev.has(flag::OUT_PAUSED) && left <= bev.write_high() / 2;
        if bev.wants_written() && left <= bev.write_low() {
            bev.set(flag::PENDING_WRITE);
            self.queue_bev(slot);
        }
        if dirty {
            self.mark_dirty(slot);
        }
    }

    /// The reading side has ended; told to the user when everything before it was.
    fn read_over(&mut self, slot: u32, end: HeldEnd) {
        let Some(bev) = self.bevs.at_mut(slot) else { return };
        let told = bev.has(flag::READ_OVER) && !mutant::on(Mutant::EofTwice);
        if told || bev.has(flag::FREED) {
            return;
        }
        bev.set(flag::READ_OVER);
        if bev.has(flag::READ_ON) {
            bev.say(match end {
                HeldEnd::Eof => BevEvent::Eof,
                HeldEnd::Failed(error) => BevEvent::Error { side: Side::Read, error },
            });
        } else {
            bev.more().held_end = Some(end);
        }
        self.touch(slot);
    }

    fn failed(&mut self, slot: u32, side: Side, error: std::io::Error, at: Option<String>) {
        let Some(bev) = self.bevs.at_mut(slot) else { return };
        if bev.has(flag::FREED) {
            bev.set(flag::WRITE_OVER | flag::READ_OVER);
            return self.mark_dirty(slot);
        }
        let operation = match side {
            Side::Read => "receive",
            Side::Write => "send",
            Side::Both if bev.has(flag::CONNECTED) => "link",
            Side::Both => "connect",
        };
        let error = Error::new(operation, error);
        let error = match at {
            Some(address) => error.at(address),
            None => error,
        };
        match side {
            Side::Read if !bev.has(flag::READ_ON) => {
                return self.read_over(slot, HeldEnd::Failed(error));
            }
            Side::Read if bev.has(flag::READ_OVER) => return,
            Side::Read => bev.set(flag::READ_OVER),
            Side::Write if bev.has(flag::WRITE_OVER) => return,
            Side::Write => bev.set(flag::WRITE_OVER),
            Side::Both => bev.set(flag::READ_OVER | flag::WRITE_OVER),
        }
        bev.say(BevEvent::Error { side, error });
        self.touch(slot);
    }

    fn closed(&mut self, slot: u32, transport: u8, link: LinkId) {
        if !self.dials.is_empty() {
            self.dials.remove(&(transport, link));
        }
        self.no_link_timer(LinkTimer { transport, inner: false, link });
        self.routes[transport as usize][link.slot as usize].owner = Owner::Nobody;
        let Some(bev) = self.bevs.at_mut(slot) else { return };
        bev.under = Under::Nothing;
        bev.in_flight = 0;
        bev.set(flag::READ_OVER | flag::WRITE_OVER);
        if bev.has(flag::FREED) {
            self.remove_bev(slot);
        } else {
            self.recount(slot);
        }
    }

    fn listener_event(&mut self, slot: u32, transport: u8, link: LinkId, event: LinkEvent) {
        match event {
            LinkEvent::Accepted(new) => {
                let key = self.add_bev(transport, new, true);
                let Some(listener) = self.listeners.at_mut(slot) else { return };
                listener.accepted.push_back(key);
                self.queue_listener(slot);
            }
            LinkEvent::Failed(_, error) => {
                let Some(listener) = self.listeners.at_mut(slot) else { return };
                listener.errors.push_back(error);
                self.queue_listener(slot);
            }
            LinkEvent::Closed => {
                self.no_link_timer(LinkTimer { transport, inner: false, link });
                self.routes[transport as usize][link.slot as usize].owner = Owner::Nobody;
                if let Some(key) = self.listeners.key_at(slot)
                    && let Some(gone) = self.listeners.remove(key)
                {
                    if gone.counted {
                        self.alive -= 1;
                    }
                    debug_assert!(gone.on_accept.is_none(), "the callback left at free");
                }
            }
            _ => debug_assert!(false, "a listener only accepts, fails and closes"),
        }
    }
}
