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
use crate::bev::{EventCallback, PlainCallback, flag};
use crate::bufferevent::{BevEvent, Bufferevent, Handler, handle};
use crate::error::{Error, Result};
use crate::event::{Event, EventFn, What};
use crate::limits;
use crate::listener::{AcceptCallback, Listener};
use crate::mutant::{self, Mutant};
use crate::reactor::Side;
use crate::router::{Job, TimerKey};
use crate::slab::Key;

impl EventBase {
    /// Runs until [`EventBase::stop`], or until nothing is left to wait for: no connection that
    /// reads or sends, no listener, no added event.
    pub fn dispatch(&self) -> Result<()> {
        loop {
            let left = self.turn(Turn::Wait)?;
            if !left || self.0.stopping.get() || self.0.breaking.get() {
                break;
            }
        }
        // What the last callbacks wrote leaves before the caller goes on.
        let _turning = Turning::start(&self.0)?;
        self.0.core.borrow_mut().flush_dirty();
        let taken = self.0.take_completions(Some(Duration::ZERO));
        self.0.bury();
        taken
    }

    /// One turn. Returns whether anything is left to wait for.
    pub fn turn(&self, turn: Turn) -> Result<bool> {
        let _turning = Turning::start(&self.0)?;
        self.0.stopping.set(false);
        self.0.breaking.set(false);
        self.0.timers();
        self.0.run_deferred(self);
        self.0.core.borrow_mut().flush_dirty();
        self.0.bury();
        let wait = self.0.wait(turn);
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

    /// How long the reactor may sleep.
    fn wait(&self, turn: Turn) -> Option<Duration> {
        let core = self.core.borrow();
        let at_once = turn == Turn::NoWait
            || core.router.ready_len > 0
            || !core.done.is_empty()
            || core.router.alive == 0
            || self.stopping.get()
            || self.breaking.get()
            || !self.deferred.borrow().is_empty();
        if at_once {
            return Some(Duration::ZERO);
        }
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
                TimerKey::Link(transport, link) => {
                    core.router.link_timer_due(transport, link);
                    core.with_transport(transport, |transport, cx| transport.timer(cx, link));
                }
                TimerKey::ReadTimeout(key) => core.limit_due(key, Side::Read),
                TimerKey::WriteTimeout(key) => core.limit_due(key, Side::Write),
                TimerKey::Linger(key) => core.linger_due(key),
            }
        }
        core.due = due;
    }

    /// Deferred callbacks and other threads' errands that were there when the turn began.
    fn run_deferred(&self, base: &EventBase) {
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
    }

    fn take_completions(&self, wait: Option<Duration>) -> Result<()> {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let mut done = std::mem::take(&mut core.done);
        let result = core.reactor.turn(wait, &mut done);
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

/// A callback out of its slot, with what it is called with.
enum Call {
    Connected(Taken),
    Read(Taken),
    Written(Taken),
    Event(Taken, BevEvent),
    Filter,
    /// Something came for the filter above; `written`: what it wrote has left.
    Above {
        written: bool,
    },
}

/// A callback out of its slot.
enum Taken {
    Read(PlainCallback),
    Write(PlainCallback),
    BevEvent(EventCallback),
    Handler(Box<dyn Handler>),
    Event(EventFn),
    Accept(AcceptCallback),
    AcceptError(crate::listener::ErrorCallback),
}

impl crate::bev::Bev {
    /// Takes the next pending callback out; `None` also if nobody wants it.
    fn next_call(&mut self) -> Option<Call> {
        let handler =
            |bev: &mut Self| bev.more.as_mut().and_then(|m| m.handler.take()).map(Taken::Handler);
        if self.has(flag::PENDING_CONNECTED) {
            self.clear(flag::PENDING_CONNECTED);
            let taken = handler(self).or_else(|| self.on_event.take().map(Taken::BevEvent))?;
            return Some(Call::Connected(taken));
        }
        if self.has(flag::PENDING_READ) {
            self.clear(flag::PENDING_READ);
            let taken = self.on_read.take().map(Taken::Read).or_else(|| handler(self))?;
            return Some(Call::Read(taken));
        }
        if self.has(flag::PENDING_WRITE) {
            self.clear(flag::PENDING_WRITE);
            let taken = self.on_write.take().map(Taken::Write).or_else(|| handler(self))?;
            return Some(Call::Written(taken));
        }
        let next = self.more.as_mut().and_then(|more| more.events.pop_front());
        let Some(event) = next else {
            self.clear(flag::PENDING_EVENT);
            return None;
        };
        let taken = handler(self).or_else(|| self.on_event.take().map(Taken::BevEvent))?;
        Some(Call::Event(taken, event))
    }
}

impl Call {
    fn run(self, inner: &Rc<Inner>, conn: &Bufferevent) {
        let (taken, event) = match self {
            Call::Filter => return inner.run_filter(conn.key),
            Call::Above { written } => return inner.feed_filter(conn.key, written),
            Call::Connected(taken) => (taken, Some(BevEvent::Connected)),
            Call::Event(taken, event) => (taken, Some(event)),
            Call::Read(taken) => {
                let mut back = PutBack { inner, key: conn.key, call: Some(taken) };
                return match &mut back.call {
                    Some(Taken::Read(callback)) => callback(conn),
                    Some(Taken::Handler(handler)) => handler.on_read(conn),
                    _ => {}
                };
            }
            Call::Written(taken) => {
                let mut back = PutBack { inner, key: conn.key, call: Some(taken) };
                return match &mut back.call {
                    Some(Taken::Write(callback)) => callback(conn),
                    Some(Taken::Handler(handler)) => handler.on_written(conn),
                    _ => {}
                };
            }
        };
        let mut back = PutBack { inner, key: conn.key, call: Some(taken) };
        let event = event.expect("both arms above set it");
        match &mut back.call {
            Some(Taken::BevEvent(callback)) => callback(conn, &event),
            Some(Taken::Handler(handler)) if matches!(event, BevEvent::Connected) => {
                handler.on_connected(conn);
            }
            Some(Taken::Handler(handler)) => handler.on_event(conn, &event),
            _ => {}
        }
    }
}

/// Puts a callback back into its slot when it returns or panics, unless the slot was freed or has
/// got another one meanwhile.
struct PutBack<'a> {
    inner: &'a Inner,
    key: Key,
    call: Option<Taken>,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        let mut core = self.inner.core.borrow_mut();
        let router = &mut core.router;
        let taken = self.call.take();
        let left = match taken {
            Some(taken @ (Taken::Event(_) | Taken::Accept(_) | Taken::AcceptError(_))) => {
                put_back_other(router, self.key, taken)
            }
            Some(taken) if mutant::on(Mutant::CallbackNotPutBack) => Some(taken),
            Some(taken) => put_back_bev(router, self.key, taken),
            None => None,
        };
        // Dropping a callback may run the user's code: not while the core is borrowed.
        drop(core);
        drop(left);
    }
}

fn put_back_bev(router: &mut crate::router::Router, key: Key, taken: Taken) -> Option<Taken> {
    let Some(bev) = router.bevs.get_mut(key).filter(|bev| !bev.has(flag::FREED)) else {
        return Some(taken);
    };
    match taken {
        Taken::Read(callback) if bev.on_read.is_none() => bev.on_read = Some(callback),
        Taken::Write(callback) if bev.on_write.is_none() => bev.on_write = Some(callback),
        Taken::BevEvent(callback) if bev.on_event.is_none() => bev.on_event = Some(callback),
        Taken::Handler(handler) if bev.more().handler.is_none() => {
            bev.more().handler = Some(handler);
        }
        other => return Some(other),
    }
    None
}

fn put_back_other(router: &mut crate::router::Router, key: Key, taken: Taken) -> Option<Taken> {
    match taken {
        Taken::Event(callback) => match router.events.get_mut(key) {
            Some(slot) if slot.callback.is_none() => slot.callback = Some(callback),
            _ => return Some(Taken::Event(callback)),
        },
        Taken::Accept(callback) => match router.listeners.get_mut(key) {
            Some(slot) if !slot.freed && slot.on_accept.is_none() => {
                slot.on_accept = Some(callback);
            }
            _ => return Some(Taken::Accept(callback)),
        },
        Taken::AcceptError(callback) => match router.listeners.get_mut(key) {
            Some(slot) if !slot.freed && slot.on_error.is_none() => slot.on_error = Some(callback),
            _ => return Some(Taken::AcceptError(callback)),
        },
        other => return Some(other),
    }
    None
}
