//! Filters: bytes that go through a [`Filter`](crate::bufferevent::Filter) between the bufferevent
//! the user holds and the one it stands on. The filter and both buffers are out of their slots
//! while it works, so nothing is borrowed.

use std::rc::Rc;

use crate::base::Inner;
use crate::bev::{Under, flag};
use crate::bufferevent::{BevEvent, Filter};
use crate::core::Remains;
use crate::error::Error;
use crate::evbuffer::Evbuffer;
use crate::reactor::Side;
use crate::slab::Key;

/// A filter and two buffers out of their slots. They are put back when the filter returns or
/// panics.
struct Out<'a> {
    inner: &'a Inner,
    above: Key,
    below: Key,
    inward: bool,
    filter: Option<Box<dyn Filter>>,
    /// Of the one above.
    high: Evbuffer,
    /// Of the one below.
    low: Evbuffer,
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        let mut core = self.inner.core.borrow_mut();
        let router = &mut core.router;
        let inward = self.inward;
        if let Some(under) = router.bevs.get_mut(self.below) {
            let place = if inward { &mut under.input } else { &mut under.output };
            std::mem::swap(place, &mut self.low);
        }
        if let Some(top) = router.bevs.get_mut(self.above) {
            let place = if inward { &mut top.input } else { &mut top.output };
            std::mem::swap(place, &mut self.high);
            top.more().filter = self.filter.take();
        }
        router.mark_dirty(self.below.slot);
        // What found no slot any more goes with `self`, when nothing is borrowed.
    }
}

impl Inner {
    /// What came to the bufferevent under a filter goes through the filter to the one above.
    pub(crate) fn feed_filter(self: &Rc<Self>, below: Key, written: bool) {
        let above = {
            let mut core = self.core.borrow_mut();
            let bev = core.router.bevs.get_mut(below);
            let Some(above) = bev.and_then(|bev| bev.more().above) else { return };
            above
        };
        {
            let mut core = self.core.borrow_mut();
            let router = &mut core.router;
            let Some(bev) = router.bevs.get_mut(below) else { return };
            let connected = bev.has(flag::CONNECTED);
            let events = std::mem::take(&mut bev.more().events);
            let Some(top) = router.bevs.get_mut(above) else { return };
            if connected && !top.has(flag::CONNECTED) {
                top.set(flag::CONNECTED | flag::PENDING_CONNECTED | flag::PENDING_FILTER);
            }
            for event in events {
                match event {
                    BevEvent::Eof => top.set(flag::READ_OVER),
                    BevEvent::Error { side: Side::Read, .. } => top.set(flag::READ_OVER),
                    BevEvent::Error { side: Side::Write, .. } => top.set(flag::WRITE_OVER),
                    BevEvent::Error { .. } => top.set(flag::READ_OVER | flag::WRITE_OVER),
                    _ => {}
                }
                top.say(event);
            }
        }
        let answers = self.run_filter_input(below, above);
        let mut core = self.core.borrow_mut();
        if let Some(top) = core.router.bevs.get_mut(above) {
            if written && top.wants_written() && top.output.is_empty() {
                top.set(flag::PENDING_WRITE);
            }
            // What came may be what the filter has waited for to let these through, or to be
            // answered by the filter itself.
            if answers || !top.output.is_empty() {
                top.set(flag::PENDING_FILTER);
            }
        }
        core.router.queue_bev(above.slot);
        core.router.mark_dirty(above.slot);
    }

    /// Runs a filter on two buffers, all out of their slots; says what came of it, and whether the
    /// filter has something to send by itself.
    fn with_filter(
        self: &Rc<Self>,
        above: Key,
        below: Key,
        inward: bool,
    ) -> Option<(std::io::Result<()>, bool)> {
        let (mut out, end) = {
            let mut core = self.core.borrow_mut();
            let router = &mut core.router;
            // Nothing is taken out before it is sure that it can be put back.
            router.bevs.get(below)?;
            let top = router.bevs.get_mut(above)?;
            let end = if inward {
                top.has(flag::READ_OVER)
            } else {
                top.has(flag::FINISH) || top.has(flag::FREED)
            };
            let filter = top.more().filter.take()?;
            let high = std::mem::take(if inward { &mut top.input } else { &mut top.output });
            let under = router.bevs.get_mut(below).expect("it was just here");
            let low = std::mem::take(if inward { &mut under.input } else { &mut under.output });
            (Out { inner: self, above, below, inward, filter: Some(filter), high, low }, end)
        };
        let Out { filter: Some(filter), high, low, .. } = &mut out else { return None };
        let result = match inward {
            true => filter.input(low, high, end),
            false => filter.output(high, low, end),
        };
        Some((result, filter.has_output()))
    }

    /// Says whether the filter has something to send by itself.
    fn run_filter_input(self: &Rc<Self>, below: Key, above: Key) -> bool {
        let before = self.core.borrow().router.bevs.get(above).map_or(0, |bev| bev.input.len());
        let Some((result, answers)) = self.with_filter(above, below, true) else { return false };
        let mut core = self.core.borrow_mut();
        let now = core.router.now();
        let Some(top) = core.router.bevs.get_mut(above) else { return false };
        if top.input.len() > before {
            top.progress(Side::Read, now);
            if top.input.len() >= top.read_low() {
                top.set(flag::PENDING_READ);
            }
        }
        if let Err(error) = result {
            top.set(flag::READ_OVER);
            top.say(BevEvent::Error { side: Side::Read, error: Error::new("filter", error) });
        }
        answers
    }

    /// What was written above goes through the filter to the one below; a freed filter lets go of
    /// both.
    pub(crate) fn run_filter(self: &Rc<Self>, above: Key) {
        let below = {
            let core = self.core.borrow();
            match core.router.bevs.get(above).map(|bev| (bev.under, bev.has(flag::CONNECTED))) {
                Some((Under::Filter { below }, _)) => below,
                _ => return,
            }
        };
        let result = self.with_filter(above, below, false);
        let mut core = self.core.borrow_mut();
        let Some(top) = core.router.bevs.get_mut(above) else { return };
        if let Some((Err(error), _)) = result {
            top.set(flag::WRITE_OVER);
            top.say(BevEvent::Error { side: Side::Write, error: Error::new("filter", error) });
        }
        let (freed, finish) = (top.has(flag::FREED), top.has(flag::FINISH));
        if let Some(under) = core.router.bevs.get_mut(below) {
            if finish {
                under.set(flag::FINISH);
            }
            // A filter on a filter: what went down goes on down.
            if let Under::Filter { .. } = under.under {
                under.set(flag::PENDING_FILTER);
                core.router.queue_bev(below.slot);
            }
        }
        core.router.mark_dirty(below.slot);
        let mut remains = Remains::new();
        if freed {
            remains.extend(core.drop_filter(above));
            remains.extend(core.free_bev(below, false));
        } else {
            core.router.queue_bev(above.slot);
        }
        drop(core);
        drop(remains);
    }
}
