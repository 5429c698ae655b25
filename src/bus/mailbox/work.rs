//! The loop's end of mailboxes.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use event_listener::Event;

use super::ticket::{Phase, Ticket};
use super::{Job, Shared, State, Verb};
use crate::bus::error::BusError;
use crate::bus::handle::{Bus, SendOptions};
use crate::bus::inner::Inner;
use crate::bus::message::OwnedMessage;

thread_local! {
    /// The buses of this thread that have mailboxes. Other threads name them by number.
    static BUSES: RefCell<HashMap<u64, Weak<Inner>>> = RefCell::default();
}

/// What a bus has for its mailboxes.
pub(in crate::bus) struct Mail {
    shared: Arc<Shared>,
    /// Jobs that wait for room, in order.
    waiting: RefCell<VecDeque<Job>>,
    flushes: RefCell<Vec<Arc<Ticket>>>,
    working: Cell<bool>,
}

/// Called by an errand of another thread.
pub(super) fn run(id: u64) {
    let inner = BUSES.with_borrow(|buses| buses.get(&id).and_then(Weak::upgrade));
    if let Some(inner) = inner {
        let mail = inner.callbacks.mail.borrow().clone();
        if let Some(mail) = mail {
            mail.work(&inner);
        }
        inner.soon();
    }
}

/// What the mailboxes of a bus share, made for the first of them.
pub(super) fn shared_of(bus: &Bus) -> Result<Arc<Shared>, BusError> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let inner = bus.inner()?;
    if let Some(mail) = &*inner.callbacks.mail.borrow() {
        return Ok(Arc::clone(&mail.shared));
    }
    let base = inner.base().ok_or(BusError::Closed)?;
    let shared = Arc::new(Shared {
        state: Mutex::new(State::default()),
        arrived: Event::new(),
        remote: base.remote(),
        id: NEXT.fetch_add(1, Ordering::Relaxed),
        thread: thread::current().id(),
    });
    BUSES.with_borrow_mut(|buses| buses.insert(shared.id, Rc::downgrade(&inner)));
    let mail = Mail {
        shared: Arc::clone(&shared),
        waiting: RefCell::default(),
        flushes: RefCell::default(),
        working: Cell::new(false),
    };
    *inner.callbacks.mail.borrow_mut() = Some(Rc::new(mail));
    let into = Arc::clone(&shared);
    let accepts = Arc::clone(&shared);
    *inner.callbacks.accepts.borrow_mut() = Some(Box::new(move || {
        let mut state = accepts.state();
        let room = state.has_room();
        state.held |= !room;
        room
    }));
    drop(inner);
    bus.on_message(move |message| {
        let mut state = into.state();
        state.inbox_bytes += message.bytes().len();
        state.inbox.push_back(message.to_owned());
        drop(state);
        into.arrived.notify_additional(1);
    });
    Ok(shared)
}

impl Mail {
    /// Does what there is room for. Calls nobody.
    pub fn work(&self, inner: &Rc<Inner>) {
        if self.working.replace(true) {
            return;
        }
        let mut jobs = std::mem::take(&mut *self.waiting.borrow_mut());
        jobs.append(&mut self.shared.state().jobs);
        let bus = Bus::of(inner);
        let (mut full, mut left) = (HashSet::new(), VecDeque::new());
        for job in jobs {
            let at = (job.to.clone(), job.chan);
            if full.contains(&at) || !self.try_one(&bus, &job) {
                full.insert(at);
                left.push_back(job);
            }
        }
        *self.waiting.borrow_mut() = left;
        self.working.set(false);
    }

    /// Whether the job is done, or handed on.
    fn try_one(&self, bus: &Bus, job: &Job) -> bool {
        let mut phase = job.ticket.phase();
        if !matches!(*phase, Phase::Waiting) {
            return true;
        }
        let options = SendOptions { chan: job.chan, ttl: job.ttl, key: job.key.as_deref() };
        let done = match &job.verb {
            Verb::Send { large: false } => bus.send_with(&job.to, &options, &job.bytes),
            Verb::Send { large: true } => bus.send_large(&job.to, &options, &job.bytes),
            Verb::Reply { to } => bus.reply(to, &job.bytes),
            Verb::Call { within } => {
                drop(phase);
                let owed = Owed::new(&job.ticket);
                let armed = Rc::clone(&owed.armed);
                let called = bus.call_with(&job.to, &options, &job.bytes, *within, move |answer| {
                    owed.ticket.done(answer.map(|message| Some(message.to_owned())));
                });
                armed.set(called.is_ok());
                match called {
                    Err(BusError::WouldBlock) => return false,
                    Err(error) => job.ticket.done(Err(error)),
                    Ok(()) => {}
                }
                return true;
            }
            Verb::Flush => {
                self.flushes.borrow_mut().push(Arc::clone(&job.ticket));
                bus.watch_acknowledgements(true);
                return true;
            }
            Verb::Close { linger } => {
                let owed = Owed::new(&job.ticket);
                owed.armed.set(true);
                bus.close(*linger, move |_| owed.ticket.done(Ok(None)));
                return true;
            }
        };
        if let Err(BusError::WouldBlock) = done {
            return false;
        }
        *phase = Phase::Done(done.map(|()| None::<OwnedMessage>));
        drop(phase);
        job.ticket.tell();
        true
    }

    /// The loop has turned: perhaps everything is acknowledged.
    pub fn turned(&self, bus: &Bus) {
        if self.flushes.borrow().is_empty() || bus.unacknowledged() > 0 {
            return;
        }
        let flushed = std::mem::take(&mut *self.flushes.borrow_mut());
        bus.watch_acknowledgements(false);
        flushed.iter().for_each(|ticket| ticket.done(Ok(None)));
    }
}

/// Somebody waits for a callback, which may be dropped with the bus.
struct Owed {
    ticket: Arc<Ticket>,
    armed: Rc<Cell<bool>>,
}

impl Owed {
    fn new(ticket: &Arc<Ticket>) -> Owed {
        Owed { ticket: Arc::clone(ticket), armed: Rc::default() }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if self.armed.get() {
            self.ticket.done(Err(BusError::Closed));
        }
    }
}

impl Drop for Mail {
    /// The bus is over.
    fn drop(&mut self) {
        let _ = BUSES.try_with(|buses| buses.borrow_mut().remove(&self.shared.id));
        let mut state = self.shared.state();
        state.closed = true;
        let jobs: Vec<Job> = state.jobs.drain(..).chain(self.waiting.take()).collect();
        drop(state);
        jobs.iter().for_each(|job| job.ticket.done(Err(BusError::Closed)));
        self.flushes.take().iter().for_each(|ticket| ticket.done(Err(BusError::Closed)));
        self.shared.arrived.notify(usize::MAX);
    }
}
