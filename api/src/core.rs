//! What the base does with its slots while it is borrowed: flushing, freeing, adding. No callback
//! runs here, and nothing of the user's is dropped here: it is handed out to be dropped later.

use std::any::Any;
use std::time::Duration;

use crate::bev::{Timeout, Under, flag};
use crate::bufferevent::{BevEvent, tell_held};
use crate::error::Error;
use crate::event::What;
use crate::find::Known;
use crate::limits;
use crate::mutant::{self, Mutant};
use crate::reactor::{Completion, Op, Outcome, Reactor, Side, Token};
use crate::router::{Job, Router, TimerKey};
use crate::slab::Key;
use crate::timeout::{at, restart_timeouts};
use crate::transport::{Armed, Cx, Transport};

/// The transport number of the base's own polls.
const OWN: u8 = u8::MAX;

/// The part of an event's token that is its slot; half of the epoch lies above it.
const EVENT_SLOT_MASK: u32 = 0xff_ffff;

/// Names the poll of an event, and which of its polls.
fn event_token(key: Key, epoch: u16) -> Token {
    debug_assert!(key.slot <= EVENT_SLOT_MASK, "there are under 2^24 events");
    let [low, high] = epoch.to_le_bytes();
    Token::new(OWN, low, key.generation as u16, key.slot | u32::from(high) << 24)
}

/// What a freed slot leaves behind, to be dropped when nothing is borrowed.
pub(crate) type Remains = Vec<Box<dyn Any>>;

pub(crate) struct Core {
    pub reactor: Box<dyn Reactor>,
    pub transports: Vec<Box<dyn Transport>>,
    /// Every transport there is, built in or not.
    pub known: &'static [Known],
    pub router: Router,
    pub done: Vec<Completion>,
    pub due: Vec<TimerKey>,
    pub stop_timer: Option<crate::wheel::TimerId>,
}

impl Core {
    /// Runs `f` with a transport and what it may reach.
    #[inline]
    pub fn with_transport<R>(
        &mut self,
        transport: u8,
        f: impl FnOnce(&mut dyn Transport, &mut Cx<'_>) -> R,
    ) -> R {
        let Core { reactor, transports, router, .. } = self;
        let mut cx = Cx::new(reactor.as_mut(), router, transport);
        f(transports[transport as usize].as_mut(), &mut cx)
    }

    /// Flushes every dirty bufferevent, the one that received last first: its bytes are hottest.
    pub fn flush_dirty(&mut self) {
        // What becomes dirty meanwhile is flushed too; each is flushed once per mark.
        while let Some(slot) = self.router.dirty.pop() {
            if let Some(key) = self.router.bevs.key_at(slot) {
                self.flush_one(key);
            }
        }
    }

    /// The last calls before the loop waits: output goes to the transports, they publish it and
    /// look for what has come, and what that makes dirty goes out, too. `idle`: the loop sleeps if
    /// nothing turns up. Returns whether the transports let it.
    pub fn settle(&mut self, idle: bool) -> bool {
        for _ in 0..limits::SETTLE_ROUNDS_MAX {
            self.flush_dirty();
            let mut quiet = true;
            for transport in 0..self.transports.len() as u8 {
                let idle = idle && self.router.ready_len == 0;
                let armed = self.with_transport(transport, |transport, cx| transport.arm(cx, idle));
                quiet &= armed == Armed::Quiet;
            }
            if self.router.dirty.is_empty() {
                return quiet;
            }
        }
        false
    }

    /// Output to the transport, grant, half close, close: whatever this one needs now.
    pub fn flush_one(&mut self, key: Key) {
        let Some(bev) = self.router.bevs.get_mut(key) else { return };
        bev.clear(flag::DIRTY);
        if let Under::Link { transport, link } = bev.under {
            self.send_output(key, transport, link);
            self.update_grant(key, transport, link);
            self.finish_or_close(key, transport, link);
        } else {
            self.flush_unlinked(key);
        }
        self.router.recount(key.slot);
    }

    /// A filter passes its wish to read on to what it stands on; an orphan that is freed goes.
    fn flush_unlinked(&mut self, key: Key) {
        let Some(bev) = self.router.bevs.get_mut(key) else { return };
        let Under::Filter { below } = bev.under else {
            if bev.has(flag::FREED) {
                self.router.remove_bev(key.slot);
            }
            return;
        };
        let open = bev.window() > 0;
        if let Some(under) = self.router.bevs.get_mut(below)
            && under.has(flag::READ_ON) != open
        {
            under.flags ^= flag::READ_ON;
            if open {
                tell_held(under);
            }
            self.router.mark_dirty(below.slot);
            self.router.queue_bev(below.slot);
        }
    }

    #[inline]
    fn send_output(&mut self, key: Key, transport: u8, link: crate::transport::LinkId) {
        let Core { reactor, transports, router, .. } = self;
        let Some(bev) = router.bevs.get_mut(key) else { return };
        let stuck = flag::BLOCKED | flag::WRITE_OVER | flag::FINISHED | flag::ABORTED;
        if bev.output.is_empty() || bev.has(stuck) || !bev.has(flag::CONNECTED) {
            return;
        }
        if !bev.has(flag::WRITE_ON | flag::FREED) {
            return;
        }
        if bev.in_flight == 0 && bev.more.is_some() {
            let now = router.now();
            let Some(bev) = router.bevs.get_mut(key) else { return };
            bev.progress(Side::Write, now);
        }
        let Some(bev) = router.bevs.get_mut(key) else { return };
        let mut output = std::mem::take(&mut bev.output);
        let mut fds = match &mut bev.more {
            Some(more) => std::mem::take(&mut more.fds_out),
            None => Vec::new(),
        };
        let before = output.len();
        let mut cx = Cx::new(reactor.as_mut(), router, transport);
        transports[transport as usize].send(&mut cx, link, &mut output, &mut fds);
        let Some(bev) = router.bevs.get_mut(key) else { return };
        bev.in_flight += (before - output.len()) as u64;
        if !output.is_empty() {
            bev.set(flag::BLOCKED);
        }
        bev.output = output;
        if !fds.is_empty() {
            bev.more().fds_out = fds;
        }
        if bev.more.is_some() {
            restart_timeouts(router, key);
        }
    }

    #[inline]
    fn update_grant(&mut self, key: Key, transport: u8, link: crate::transport::LinkId) {
        let Some(bev) = self.router.bevs.get_mut(key) else { return };
        let want = bev.window();
        let granted = flag::GRANT_FULL | flag::GRANT_SOME;
        let change = match want {
            0 => bev.has(granted),
            u64::MAX => !bev.has(flag::GRANT_FULL),
            some => !bev.has(flag::GRANT_SOME) || bev.more().window != some,
        };
        if !change {
            return;
        }
        bev.clear(granted);
        match want {
            0 => {}
            u64::MAX => bev.set(flag::GRANT_FULL),
            some => {
                bev.set(flag::GRANT_SOME);
                bev.more().window = some;
            }
        }
        self.with_transport(transport, |transport, cx| transport.grant(cx, link, want));
    }

    fn finish_or_close(&mut self, key: Key, transport: u8, link: crate::transport::LinkId) {
        let Some(bev) = self.router.bevs.get_mut(key) else { return };
        if !bev.has(flag::FINISH | flag::FREED) || bev.has(flag::ABORTED) {
            return;
        }
        // Behind a half close nothing is sent, so what was written there is not waited for.
        let all_taken = bev.output.is_empty() || bev.has(flag::WRITE_OVER | flag::FINISHED);
        // What was written before the connection was made waits for it.
        if bev.has(flag::FREED) && (all_taken && bev.in_flight == 0 || bev.has(flag::WRITE_OVER)) {
            bev.set(flag::ABORTED);
            self.with_transport(transport, |transport, cx| transport.abort(cx, link));
            return;
        }
        if bev.has(flag::FINISH)
            && bev.has(flag::CONNECTED)
            && !bev.has(flag::FINISHED)
            && all_taken
        {
            bev.set(flag::FINISHED);
            self.with_transport(transport, |transport, cx| transport.finish(cx, link));
        }
    }

    /// Lets go of a bufferevent. `now` drops its output; otherwise that is still sent.
    pub fn free_bev(&mut self, key: Key, now: bool) -> Remains {
        let mut remains: Remains = Vec::new();
        let Some(bev) = self.router.bevs.get_mut(key) else { return remains };
        if bev.has(flag::FREED) && !now {
            return remains;
        }
        bev.set(flag::FREED);
        if mutant::on(Mutant::CallbackAfterFree) {
            bev.clear(flag::FREED);
            return remains;
        }
        bev.clear(flag::PENDING_ANY);
        remains.extend(bev.on_read.take().map(|old| Box::new(old) as Box<dyn Any>));
        remains.extend(bev.on_write.take().map(|old| Box::new(old) as Box<dyn Any>));
        remains.extend(bev.on_event.take().map(|old| Box::new(old) as Box<dyn Any>));
        remains.extend(bev.input.strip());
        remains.extend(bev.output.strip());
        let input = bev.input.len();
        bev.input.drain_into(input, &mut self.router.dead);
        if now {
            let output = bev.output.len();
            bev.output.drain_into(output, &mut self.router.dead);
            bev.set(flag::WRITE_OVER);
        }
        let under = bev.under;
        if let Some(more) = &mut bev.more {
            remains.extend(more.handler.take().map(|old| Box::new(old) as Box<dyn Any>));
            let fds = std::mem::take(&mut more.fds_in);
            remains.push(Box::new(fds));
            if let Some(above) = more.above.take() {
                self.undermine(above);
            }
        }
        match under {
            Under::Filter { .. } if !now => {
                // The filter still has to turn what was written, and to hear of the end; then it
                // lets go of both.
                let bev = self.router.bevs.get_mut(key).expect("the slot was just here");
                bev.set(flag::PENDING_FILTER | flag::QUEUED);
                let priority = bev.priority;
                self.router.queue(priority, Job::Bev(key));
            }
            Under::Filter { below } => {
                remains.extend(self.drop_filter(key));
                remains.extend(self.free_bev(below, now));
            }
            Under::Link { .. } if !now => self.start_linger(key),
            _ => {}
        }
        self.router.mark_dirty(key.slot);
        remains
    }

    /// What a filter stands on was freed by its own handle: the filter is told.
    fn undermine(&mut self, above: Key) {
        let Some(top) = self.router.bevs.get_mut(above).filter(|top| !top.has(flag::FREED)) else {
            return;
        };
        top.under = Under::Nothing;
        top.set(flag::READ_OVER | flag::WRITE_OVER);
        let error = Error::refused("filter", "the bufferevent under it was freed");
        top.say(BevEvent::Error { side: Side::Both, error });
        self.router.queue_bev(above.slot);
        self.router.mark_dirty(above.slot);
    }

    /// Takes a freed filter's slot out.
    pub fn drop_filter(&mut self, key: Key) -> Remains {
        let mut remains: Remains = Vec::new();
        if let Some(bev) = self.router.bevs.get_mut(key) {
            bev.under = Under::Nothing;
            if let Some(more) = &mut bev.more {
                remains.extend(more.filter.take().map(|old| Box::new(old) as Box<dyn Any>));
            }
            self.router.remove_bev(key.slot);
        }
        remains
    }

    /// A freed bufferevent sends what is left, but not for ever.
    fn start_linger(&mut self, key: Key) {
        let now = self.router.now();
        let Some(bev) = self.router.bevs.get_mut(key) else { return };
        if bev.output_len() > 0 {
            let limit = Timeout { after: limits::LINGER, progress: now, timer: None };
            bev.more().linger = Some(limit);
            restart_timeouts(&mut self.router, key);
        }
    }

    pub fn switch_listener(&mut self, key: Key, on: bool) {
        let Some(slot) = self.router.listeners.get_mut(key) else { return };
        if slot.freed || slot.enabled == on {
            return;
        }
        slot.enabled = on;
        slot.counted = on;
        let (transport, link) = (slot.transport, slot.link);
        if on {
            self.router.alive += 1;
        } else {
            self.router.alive -= 1;
        }
        let amount = if on { u64::MAX } else { 0 };
        self.with_transport(transport, |transport, cx| transport.grant(cx, link, amount));
    }

    pub fn free_listener(&mut self, key: Key) -> Remains {
        let mut remains: Remains = Vec::new();
        self.switch_listener(key, false);
        let Some(slot) = self.router.listeners.get_mut(key) else { return remains };
        if std::mem::replace(&mut slot.freed, true) {
            return remains;
        }
        remains.extend(slot.on_accept.take().map(|old| Box::new(old) as Box<dyn Any>));
        remains.extend(slot.on_error.take().map(|old| Box::new(old) as Box<dyn Any>));
        let waiting = std::mem::take(&mut slot.accepted);
        let (transport, link) = (slot.transport, slot.link);
        for bev in waiting {
            remains.extend(self.free_bev(bev, true));
        }
        // Its close is waited for, so that the name is free when dispatch returns.
        if let Some(slot) = self.router.listeners.get_mut(key) {
            slot.counted = true;
            self.router.alive += 1;
        }
        self.with_transport(transport, |transport, cx| transport.abort(cx, link));
        remains
    }

    pub fn add_event(&mut self, key: Key, timeout: Option<Duration>) {
        let now = self.router.now();
        let Some(slot) = self.router.events.get_mut(key).filter(|slot| !slot.freed) else {
            return;
        };
        slot.added = true;
        let again = slot.timer.is_some();
        if let Some(old) = slot.timer.take() {
            self.router.wheel.cancel(old);
        }
        slot.timeout = timeout;
        let lost = again && mutant::on(Mutant::TimerLostOnReAdd);
        slot.timer = timeout
            .filter(|_| !lost)
            .map(|after| self.router.wheel.add(at(now, after), TimerKey::Event(key)));
        if let Some(fd) = &slot.fd
            && slot.op.is_none()
        {
            slot.epoch = slot.epoch.wrapping_add(1);
            let op = Op::Poll {
                fd: fd.clone(),
                ready: slot.what.ready(),
                multishot: slot.what.contains(What::PERSIST),
                edge: slot.what.contains(What::EDGE),
            };
            let token = event_token(key, slot.epoch);
            slot.op = Some(self.reactor.push(token, op));
        }
        if !slot.counted && !slot.what.contains(What::SIGNAL) {
            slot.counted = true;
            self.router.alive += 1;
        }
    }

    pub fn del_event(&mut self, key: Key) {
        let Some(slot) = self.router.events.get_mut(key) else { return };
        slot.added = false;
        slot.pending = What::NONE;
        // A late completion of the cancelled poll must find another epoch.
        slot.epoch = slot.epoch.wrapping_add(1);
        let (op, timer) = (slot.op.take(), slot.timer.take());
        if std::mem::replace(&mut slot.counted, false) {
            self.router.alive -= 1;
        }
        if let Some(timer) = timer {
            self.router.wheel.cancel(timer);
        }
        if let Some(op) = op {
            self.reactor.cancel(op);
        }
    }

    pub fn activate_event(&mut self, key: Key, what: What) {
        let Some(slot) = self.router.events.get_mut(key).filter(|slot| !slot.freed) else {
            return;
        };
        slot.pending = slot.pending | what;
        if !std::mem::replace(&mut slot.queued, true) {
            let priority = slot.priority;
            self.router.queue(priority, Job::Event(key));
        }
    }

    pub fn free_event(&mut self, key: Key) -> Remains {
        let mut remains: Remains = Vec::new();
        self.del_event(key);
        if let Some(mut slot) = self.router.events.remove(key) {
            slot.freed = true;
            remains.extend(slot.callback.take().map(|old| Box::new(old) as Box<dyn Any>));
        }
        remains
    }

    /// Routes a completion to the transport, or to the event, that asked.
    #[inline]
    pub fn complete(&mut self, completion: Completion) {
        let transport = completion.token.transport();
        if transport == OWN {
            return self.event_complete(completion);
        }
        self.with_transport(transport, |transport, cx| transport.complete(cx, completion));
    }

    fn event_complete(&mut self, completion: Completion) {
        let token = completion.token;
        let place = token.slot() & EVENT_SLOT_MASK;
        let Some(key) = self.router.events.find16(place, token.generation()) else { return };
        let Some(slot) = self.router.events.get_mut(key) else { return };
        if event_token(key, slot.epoch) != token {
            return;
        }
        if !completion.more {
            slot.op = None;
        }
        let what = match completion.result {
            Ok(Outcome::Ready(ready)) => slot.what.met_by(ready),
            Ok(_) => What::NONE,
            // A poll that failed is reported as readiness: the next call on the descriptor says
            // what is wrong, as with epoll.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => What::NONE,
            Err(_) => slot.what.met_by(crate::reactor::Ready::HANGUP),
        };
        let (persist, fd) = (slot.what.contains(What::PERSIST), slot.fd.clone());
        let failed = slot.op.is_none() && persist;
        let mut happened = what;
        if slot.what.contains(What::SIGNAL) {
            happened = What::SIGNAL;
            if let Some(fd) = &fd
                && matches!(self.reactor.sys().drain(fd), Ok(0) | Err(_))
            {
                happened = What::NONE;
            }
        }
        if happened != What::NONE {
            self.event_came(key, happened);
        }
        // A multishot poll that the kernel ended is armed again.
        if failed && self.router.events.get(key).is_some_and(|slot| slot.added) {
            let timeout = self.router.events.get(key).and_then(|slot| slot.timeout);
            self.add_event(key, timeout);
        }
    }

    /// Readiness, a time-out or a signal has come to an added event.
    pub fn event_came(&mut self, key: Key, what: What) {
        let now = self.router.now();
        let Some(slot) = self.router.events.get_mut(key) else { return };
        if !slot.added {
            return;
        }
        let (persist, timeout) = (slot.what.contains(What::PERSIST), slot.timeout);
        if !persist {
            self.del_event(key);
        } else if let Some(after) = timeout {
            if let Some(old) = slot.timer.take() {
                self.router.wheel.cancel(old);
            }
            slot.timer = Some(self.router.wheel.add(at(now, after), TimerKey::Event(key)));
        }
        self.activate_event(key, what);
    }
}
