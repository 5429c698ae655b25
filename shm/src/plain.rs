//! Links without memory: `fallback=unix`. Where no segment can be had, and both ends have said so,
//! the bytes go through the socket that was to hand it over. Nothing else is different for who
//! uses the link; one line in the log says it.
//!
//! The socket has carried the hand-over before: those bytes are not told as sent, and what came
//! right behind the answer is the first that is received.

use ringlane_api::segment::Segment;
use ringlane_api::transport::{Cx, LinkEvent, LinkId};

use crate::link::State;
use crate::table::Shm;

impl Shm {
    /// The socket of a plain link.
    pub(crate) fn plain(&mut self, id: LinkId) -> Option<LinkId> {
        self.get(id).filter(|link| link.state == State::Plain).and_then(|link| link.inner)
    }

    /// Both ends go on without memory.
    pub(crate) fn go_plain(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        link.state = State::Plain;
        let (inner, window) = (link.inner, link.window);
        let listener = link.cold.take().and_then(|cold| cold.listener);
        cx.no_timer(id);
        if let Some(inner) = inner {
            self.inside(cx, |uds, cx| uds.grant(cx, inner, window));
        }
        let event = match listener {
            Some(listener) => {
                self.guest_left(cx, listener);
                return cx.emit(listener, LinkEvent::Accepted(id));
            }
            None => LinkEvent::Connected,
        };
        cx.emit(id, event);
    }

    /// What came behind a message of the hand-over, of which `told` bytes were taken.
    pub(crate) fn behind(&mut self, cx: &mut Cx<'_>, id: LinkId, segment: Segment, told: usize) {
        let mut segment = segment;
        let more = told < segment.len() && self.plain(id).is_some();
        if !more {
            return cx.release(segment);
        }
        segment.advance(told);
        self.plain_event(cx, id, LinkEvent::Received(segment));
    }

    /// What happened to the socket of a plain link.
    pub(crate) fn plain_event(&mut self, cx: &mut Cx<'_>, id: LinkId, event: LinkEvent) {
        let Some(link) = self.get(id) else { return };
        let event = match event {
            LinkEvent::Sent(n) => {
                let ours = n.min(link.unsaid);
                link.unsaid -= ours;
                match n - ours {
                    0 => return,
                    theirs => LinkEvent::Sent(theirs),
                }
            }
            // Nobody has asked for descriptors.
            LinkEvent::Descriptors(_) => return,
            event => event,
        };
        if let LinkEvent::Received(segment) = &event
            && link.window != u64::MAX
        {
            link.window = link.window.saturating_sub(segment.len() as u64);
        }
        cx.emit(id, event);
    }
}
