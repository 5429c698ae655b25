//! Links that go on without the device: bytes as they are, over the link that introduced them.
//!
//! Both ends have agreed to it in their hellos. From there on every verb and every event of such a
//! link is its inner link's.

use std::io;

use ringlane_api::segment::Segment;
use ringlane_api::transport::{Cx, LinkEvent, LinkId};

use super::{Rdma, State};

impl Rdma {
    pub(super) fn go_plain(&mut self, cx: &mut Cx<'_>, id: LinkId) -> io::Result<()> {
        cx.no_timer(id);
        let slot = self.slots.get(id).expect("the caller has it");
        (slot.state, slot.plain, slot.told) = (State::Plain, true, true);
        slot.shared = None;
        if let Some(tally) = &self.tally {
            tally.plain.set(tally.plain.get() + 1);
        }
        let (inner, window, listener) = (slot.inner, slot.window, slot.listener);
        match listener {
            Some(listener) => cx.emit(listener, LinkEvent::Accepted(id)),
            None => cx.emit(id, LinkEvent::Connected),
        }
        // A hello was awaited with an open window.
        self.inside(cx, |below, cx| below.grant(cx, inner, 0));
        self.plain_grant(cx, id, window);
        Ok(())
    }

    /// Hands on what came before it was asked for, then lets the link inside bring the rest.
    pub(super) fn plain_grant(&mut self, cx: &mut Cx<'_>, id: LinkId, amount: u64) {
        let Some(slot) = self.slots.get(id) else { return };
        slot.window = amount;
        let inner = slot.inner;
        while slot.window > 0
            && let Some(segment) = slot.greeting.pop_front()
        {
            slot.pay(segment.len());
            cx.emit(id, LinkEvent::Received(segment));
        }
        if slot.greeting.is_empty()
            && let Some(end) = slot.ended.take()
        {
            cx.emit(id, end);
        }
        let window = slot.window;
        self.inside(cx, |below, cx| below.grant(cx, inner, window));
    }

    pub(super) fn plain_received(&mut self, cx: &mut Cx<'_>, id: LinkId, segment: Segment) {
        let Some(slot) = self.slots.get(id) else { return cx.release(segment) };
        if slot.window == 0 || !slot.greeting.is_empty() {
            return slot.greeting.push(segment);
        }
        slot.pay(segment.len());
        cx.emit(id, LinkEvent::Received(segment));
    }

    /// Of what was sent the hello is ours, the rest the owner's.
    pub(super) fn plain_sent(&mut self, cx: &mut Cx<'_>, id: LinkId, n: usize) {
        let Some(slot) = self.slots.get(id) else { return };
        let ours = slot.handed.min(n);
        slot.handed -= ours;
        if n > ours {
            cx.emit(id, LinkEvent::Sent(n - ours));
        }
    }

    pub(super) fn plain_ended(&mut self, cx: &mut Cx<'_>, id: LinkId, end: LinkEvent) {
        let Some(slot) = self.slots.get(id) else { return };
        if slot.greeting.is_empty() || matches!(end, LinkEvent::Failed(..)) {
            return cx.emit(id, end);
        }
        slot.ended = Some(end);
    }
}
