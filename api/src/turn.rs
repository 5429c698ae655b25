//! One turn of the loop, as told in `docs/turn.md`:
//!
//! ```text
//! 1 now -> 2 due timers -> 3 deferred -> 4 flush, submit, wait -> 5 completions -> 6 callbacks
//! ```
//!
//! Callbacks run with nothing borrowed: each is taken out of its slot, called, and put back if the
//! slot is still the same. A panic goes through to the caller of `dispatch`; the callback is put
//! back all the same, and what was not handled yet stays for the next turn.

use std::rc::Rc;
use std::time::Duration;

use crate::base::{EventBase, Inner, Turn};
use crate::bev::flag;
use crate::bufferevent::handle;
use crate::call::{Call, PutBack, Taken};
use crate::error::{Error, Result};
use crate::event::{Event, What};
use crate::limits;
use crate::link_timer::LinkTimer;
use crate::listener::Listener;
use crate::reactor::Side;
use crate::router::{Job, TimerKey};
use crate::slab::Key;

impl EventBase {
    /// Runs until [`EventBase::stop`], or until nothing is left to wait for: no connection that
    /// reads or sends, no listener, no added event.
    pub fn dispatch(&self) -> Result<()> {
        loop {
            let left = self.one_turn(Turn::Wait, true)?;
            if !left || self.0.stopping.get() || self.0.breaking.get() {
                break;
            }
        }
        // What the last callbacks wrote leaves before the caller goes on.
        let _turning = Turning::start(&self.0)?;
        self.0.core.borrow_mut().settle(false);
        let taken = self.0.take_completions(Some(Duration::ZERO));
        self.0.bury();
        taken
    }

    /// One turn. Returns whether anything is left to wait for. One in which deferred callbacks ran
    /// does not wait: its caller may have waited for just that.
    pub fn turn(&self, turn: Turn) -> Result<bool> {
        self.one_turn(turn, false)
    }

    fn one_turn(&self, turn: Turn, goes_on: bool) -> Result<bool> {
        let _turning = Turning::start(&self.0)?;
        self.0.stopping.set(false);
        self.0.breaking.set(false);
        self.0.timers();
        let deferred = self.0.run_deferred(self);
        let turn = if deferred > 0 && !goes_on { Turn::NoWait } else { turn };
        self.0.core.borrow_mut().flush_dirty();
        self.0.bury();
        let wait = self.0.settle(turn);
        self.0.take_completions(wait)?;
        self.0.run_ready();
        self.0.bury();
        Ok(self.0.busy())
    }
}

/// Refuses a turn inside a turn, and forgets about it even when a callback panics.
struct Turning<'a>(&'a Inner);

impl<'a> Turning<'a> {
    fn start(inner: &'a Inner) -> Result<Turning<'a>> {
        if inner.turning.replace(true) {
            return Err(Error::refused("dispatch", "it is already running: this is a callback"));
        }
        Ok(Turning(inner))
    }
}

impl Drop for Turning<'_> {
    fn drop(&mut self) {
        self.0.turning.set(false);
    }
}

impl Inner {
    fn busy(&self) -> bool {
        let core = self.core.borrow();
        core.router.alive > 0
            || core.router.ready_len > 0
            || !core.router.dirty.is_empty()
            || !self.deferred.borrow().is_empty()
    }

    /// The transports' last word before the wait, and how long that may be.
    fn settle(&self, turn: Turn) -> Option<Duration> {
        let idle = !self.at_once(turn);
        let quiet = self.core.borrow_mut().settle(idle);
        self.bury();
        if quiet { self.wait(turn) } else { Some(Duration::ZERO) }
    }

    /// Whether there is something to do before anything could be waited for.
    fn at_once(&self, turn: Turn) -> bool {
        let core = self.core.borrow();
        turn == Turn::NoWait
            || core.router.ready_len > 0
            || !core.done.is_empty()
            || core.router.alive == 0
            || self.stopping.get()
            || self.breaking.get()
            || !self.deferred.borrow().is_empty()
    }

    /// How long the reactor may sleep.
    fn wait(&self, turn: Turn) -> Option<Duration> {
        if self.at_once(turn) {
            return Some(Duration::ZERO);
        }
        let core = self.core.borrow();
        let next = core.router.wheel.next_deadline()?;
        // The turn's own time may be old by now: deferred callbacks took theirs.
        Some(next.saturating_duration_since(core.reactor.now()))
    }

    fn timers(&self) {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let now = core.reactor.now();
        core.router.set_now(now);
        if core.router.wheel.is_empty() {
            return;
        }
        let mut due = std::mem::take(&mut core.due);
        core.router.wheel.advance(now, &mut due);
        for key in due.drain(..) {
            match key {
                TimerKey::Stop => self.stopping.set(true),
                TimerKey::Event(key) => {
                    if let Some(slot) = core.router.events.get_mut(key) {
                        slot.timer = None;
                        core.event_came(key, What::TIMEOUT);
                    }
                }
                TimerKey::Link(whose) => {
                    core.router.link_timer_due(whose);
                    let LinkTimer { transport, inner, link } = whose;
                    core.with_transport(transport, |transport, cx| match inner {
                        false => transport.timer(cx, link),
                        true => transport.inner_timer(cx, link),
                    });
                }
                TimerKey::ReadTimeout(key) => core.limit_due(key, Side::Read),
                TimerKey::WriteTimeout(key) => core.limit_due(key, Side::Write),
                TimerKey::Linger(key) => core.linger_due(key),
            }
        }
        core.due = due;
    }

    /// Deferred callbacks and other threads' errands that were there when the turn began; says how
    /// many.
    fn run_deferred(&self, base: &EventBase) -> usize {
        let errands = self.mailbox.take();
        for errand in errands {
            self.deferred.borrow_mut().push_back(Box::new(errand));
        }
        let n = self.deferred.borrow().len().min(limits::TURN_DEFERRED_MAX);
        for _ in 0..n {
            let Some(callback) = self.deferred.borrow_mut().pop_front() else { break };
            callback(base);
            if self.breaking.get() {
                break;
            }
        }
        n
    }

    fn take_completions(&self, wait: Option<Duration>) -> Result<()> {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let mut done = std::mem::take(&mut core.done);
        let result = core.reactor.turn(wait, &mut done);
        core.router.pushed = false;
        let now = core.reactor.now();
        core.router.set_now(now);
        for completion in done.drain(..) {
            core.complete(completion);
        }
        core.done = done;
        result.map_err(|error| Error::new("wait", error))
    }

    /// Callbacks of the most urgent queue that has any. What they queue waits for the next turn.
    fn run_ready(self: &Rc<Self>) {
        let (urgent, n) = {
            let core = self.core.borrow();
            let queues = &core.router.ready;
            let Some(urgent) = queues.iter().position(|queue| !queue.is_empty()) else { return };
            (urgent, queues[urgent].len())
        };
        for _ in 0..n {
            if self.breaking.get() {
                return;
            }
            let job = {
                let mut core = self.core.borrow_mut();
                let Some(job) = core.router.ready[urgent].pop_front() else { return };
                core.router.ready_len -= 1;
                job
            };
            match job {
                Job::Bev(key) => self.run_bev(key),
                Job::Event(key) => self.run_event(key),
                Job::Listener(key) => self.run_listener(key),
            }
        }
    }

    /// Everything that is pending on one bufferevent, in order.
    fn run_bev(self: &Rc<Self>, key: Key) {
        let conn = handle(self, key);
        let written = {
            let mut core = self.core.borrow_mut();
            if let Some(bev) = core.router.bevs.get_mut(key) {
                bev.clear(flag::QUEUED);
            }
            core.router.unsent(key)
        };
        let _rest = Rest { inner: self, job: Job::Bev(key) };
        while !self.breaking.get()
            && let Some(call) = self.next_call(key)
        {
            call.run(self, &conn);
        }
        let mut core = self.core.borrow_mut();
        let Some(bev) = core.router.bevs.get_mut(key) else { return };
        if !bev.input.is_empty() {
            bev.input.charge_residue();
        }
        // Only answers pause the peer: bytes written from elsewhere must not, or two ends that
        // both write first would wait for each other for ever.
        let high = bev.write_high();
        let answered = core.router.unsent(key);
        let Some(bev) = core.router.bevs.get_mut(key) else { return };
        if answered > written && answered > high {
            core.router.pause(key);
        } else if bev.more.is_some() || !bev.alive() {
            core.router.mark_dirty(key.slot);
        }
    }

    /// Takes the next pending callback out of its slot.
    fn next_call(&self, key: Key) -> Option<Call> {
        let mut core = self.core.borrow_mut();
        loop {
            let bev = core.router.bevs.get_mut(key)?;
            if !bev.has(flag::PENDING_ANY) {
                return None;
            }
            if bev.has(flag::PENDING_FILTER) {
                bev.clear(flag::PENDING_FILTER);
                return Some(Call::Filter);
            }
            if bev.has(flag::FREED) {
                return None;
            }
            if bev.more.as_ref().is_some_and(|more| more.above.is_some()) {
                let written = bev.has(flag::PENDING_WRITE);
                bev.clear(flag::PENDING_ANY);
                return Some(Call::Above { written });
            }
            let call = bev.next_call();
            if call.is_some() {
                return call;
            }
        }
    }

    fn run_event(self: &Rc<Self>, key: Key) {
        let (callback, what) = {
            let mut core = self.core.borrow_mut();
            let Some(slot) = core.router.events.get_mut(key) else { return };
            slot.queued = false;
            let what = std::mem::take(&mut slot.pending);
            if what == What::NONE {
                return;
            }
            let Some(callback) = slot.callback.take() else { return };
            (callback, what)
        };
        let event = Event { base: Rc::downgrade(self), key };
        let mut back = PutBack { inner: self, key, call: Some(Taken::Event(callback)) };
        if let Some(Taken::Event(callback)) = &mut back.call {
            callback(&event, what);
        }
    }

    fn run_listener(self: &Rc<Self>, key: Key) {
        if let Some(slot) = self.core.borrow_mut().router.listeners.get_mut(key) {
            slot.queued = false;
        }
        let _rest = Rest { inner: self, job: Job::Listener(key) };
        while let Some(conn) = self.next_accepted(key) {
            let callback = {
                let mut core = self.core.borrow_mut();
                core.router.listeners.get_mut(key).and_then(|slot| slot.on_accept.take())
            };
            let Some(callback) = callback else { return };
            let mut back = PutBack { inner: self, key, call: Some(Taken::Accept(callback)) };
            if let Some(Taken::Accept(callback)) = &mut back.call {
                callback(handle(self, conn));
            }
            drop(back);
            if self.breaking.get() {
                return;
            }
        }
        self.tell_listener_errors(key);
    }

    fn next_accepted(&self, key: Key) -> Option<Key> {
        let mut core = self.core.borrow_mut();
        core.router.listeners.get_mut(key)?.accepted.pop_front()
    }

    fn tell_listener_errors(self: &Rc<Self>, key: Key) {
        loop {
            let (error, address, callback) = {
                let mut core = self.core.borrow_mut();
                let Some(slot) = core.router.listeners.get_mut(key) else { return };
                let Some(error) = slot.errors.pop_front() else { return };
                (error, slot.address.clone(), slot.on_error.take())
            };
            let error = Error::new("accept", error).at(&address);
            let Some(callback) = callback else {
                log::warn!("{error}; it goes on when it can");
                continue;
            };
            let listener = Listener { base: Rc::downgrade(self), key, address };
            let mut back = PutBack { inner: self, key, call: Some(Taken::AcceptError(callback)) };
            if let Some(Taken::AcceptError(callback)) = &mut back.call {
                callback(&listener, &error);
            }
        }
    }
}

/// Queues what a job has not come to, because a callback panicked or broke the loop.
struct Rest<'a> {
    inner: &'a Inner,
    job: Job,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        if !self.inner.breaking.get() && !std::thread::panicking() {
            return;
        }
        let mut core = self.inner.core.borrow_mut();
        match self.job {
            Job::Bev(key) if core.router.bevs.contains(key) => core.router.queue_bev(key.slot),
            Job::Listener(key) => core.router.queue_rest(key),
            _ => {}
        }
    }
}
