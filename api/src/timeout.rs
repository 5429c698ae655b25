//! Time limits on progress: one timer per limit, which looks at when progress was last made instead
//! of being moved with each byte.

use std::time::{Duration, Instant};

use crate::bev::flag;
use crate::bufferevent::BevEvent;
use crate::core::Core;
use crate::reactor::Side;
use crate::router::{Router, TimerKey};
use crate::slab::Key;

/// A time so far away that a process never sees it.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// `after` from `now`; far away where that is past the end of the clock.
pub(crate) fn at(now: Instant, after: Duration) -> Instant {
    now.checked_add(after).unwrap_or_else(|| now + FAR)
}

/// Starts the timers of limits that have none.
pub(crate) fn restart_timeouts(router: &mut Router, key: Key) {
    let now = router.now();
    let Router { bevs, wheel, .. } = router;
    let Some(more) = bevs.get_mut(key).and_then(|bev| bev.more.as_mut()) else { return };
    let limits = [
        (&mut more.read_timeout, TimerKey::ReadTimeout(key)),
        (&mut more.write_timeout, TimerKey::WriteTimeout(key)),
        (&mut more.linger, TimerKey::Linger(key)),
    ];
    for (limit, name) in limits {
        if let Some(limit) = limit
            && limit.timer.is_none()
        {
            limit.timer = Some(wheel.add(at(now, limit.after), name));
        }
    }
}

impl Core {
    /// A time limit's timer is due: was there progress meanwhile?
    pub(crate) fn limit_due(&mut self, key: Key, side: Side) {
        let now = self.router.now();
        let Some(bev) = self.router.bevs.get_mut(key) else { return };
        let waits = match side {
            Side::Read => bev.has(flag::READ_ON) && !bev.has(flag::READ_OVER),
            _ => bev.has(flag::WRITE_ON) && bev.output_len() > 0 && !bev.has(flag::WRITE_OVER),
        } && bev.has(flag::CONNECTED)
            && !bev.has(flag::FREED);
        let Some(more) = &mut bev.more else { return };
        let (limit, name) = match side {
            Side::Read => (&mut more.read_timeout, TimerKey::ReadTimeout(key)),
            _ => (&mut more.write_timeout, TimerKey::WriteTimeout(key)),
        };
        let Some(limit) = limit else { return };
        limit.timer = None;
        if !waits {
            // It starts anew when the direction wants something again.
            return;
        }
        let due = at(limit.progress, limit.after);
        if due > now {
            limit.timer = Some(self.router.wheel.add(due, name));
            return;
        }
        bev.clear(if side == Side::Read { flag::READ_ON } else { flag::WRITE_ON });
        bev.say(BevEvent::Timeout(side));
        self.router.mark_dirty(key.slot);
        self.router.queue_bev(key.slot);
    }

    /// A freed bufferevent that still sends: is its peer taking anything?
    pub(crate) fn linger_due(&mut self, key: Key) {
        let now = self.router.now();
        let Some(bev) = self.router.bevs.get_mut(key) else { return };
        let Some(linger) = bev.more.as_mut().and_then(|more| more.linger.as_mut()) else { return };
        linger.timer = None;
        let due = at(linger.progress, linger.after);
        if due > now {
            linger.timer = Some(self.router.wheel.add(due, TimerKey::Linger(key)));
            return;
        }
        let remains = self.free_bev(key, true);
        debug_assert!(remains.len() <= 1, "callbacks went when it was freed");
    }
}
