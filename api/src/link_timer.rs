//! The timers of links: one per link, and one more per link of a transport inside a transport.

use std::time::Duration;

use crate::router::{Router, TimerKey};
use crate::timeout::at;
use crate::transport::LinkId;

/// Whose timer it is: a link's, or a link's of the transport inside a transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LinkTimer {
    pub transport: u8,
    pub inner: bool,
    pub link: LinkId,
}

impl Router {
    pub(crate) fn link_timer(&mut self, whose: LinkTimer, after: Duration) {
        let timer = self.wheel.add(at(self.now(), after), TimerKey::Link(whose));
        if let Some(old) = self.link_timers.insert(whose, timer) {
            self.wheel.cancel(old);
        }
    }

    pub(crate) fn no_link_timer(&mut self, whose: LinkTimer) {
        if self.link_timers.is_empty() {
            return;
        }
        if let Some(timer) = self.link_timers.remove(&whose) {
            self.wheel.cancel(timer);
        }
    }

    pub(crate) fn link_timer_due(&mut self, whose: LinkTimer) {
        self.link_timers.remove(&whose);
    }
}
