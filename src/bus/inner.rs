//! What stands behind the handles of a bus: the core, what it has open, and the user's callbacks.
//! The base owns it, through its timer.
//!
//! Callbacks run with nothing borrowed: each is taken out of its place, called, and put back unless
//! the user has set another one meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::clock::Clock;
use super::core::{Core, Event as Told, Millis, Seen, Taken, kind};
use super::error::BusError;
use super::event::{PeerEvent, RelayEvent};
use super::handle::Bus;
use super::linger::Linger;
use super::local::Nonce;
use super::mailbox::Mail;
use super::message::{Message, OwnedMessage};
use super::wires::Wires;
use crate::shm::through::Flow;
use crate::{Event, EventBase, What};

/// Records of one channel that are shown before others have their turn.
const RECORDS_A_TURN: u32 = 256;

/// Channels that are read in one turn of the loop before everything else has its turn.
const READS_A_TURN: u32 = 16;

/// Messages that are kept for [`Bus::try_recv`] while answers are looked for behind them.
const INBOX_MAX: usize = 1024;

pub(super) type OnMessage = Box<dyn FnMut(&Message<'_>)>;
pub(super) type OnPeer = Box<dyn FnMut(&PeerEvent)>;
pub(super) type OnRelay = Box<dyn FnMut(&RelayEvent)>;
pub(super) type OnWritable = Box<dyn FnMut(&str, u16)>;
pub(super) type OnReply = Box<dyn FnOnce(Result<&Message<'_>, BusError>)>;
pub(super) type OnClosed = Box<dyn FnOnce(u64)>;

/// The user's.
#[derive(Default)]
pub(super) struct Callbacks {
    pub message: RefCell<Option<OnMessage>>,
    pub peer: RefCell<Option<OnPeer>>,
    pub relay: RefCell<Option<OnRelay>>,
    pub writable: RefCell<Option<OnWritable>>,
    pub calls: RefCell<HashMap<u64, OnReply>>,
    pub closed: RefCell<Option<OnClosed>>,
    /// A mailbox takes messages, as long as this says so.
    pub accepts: RefCell<Option<Box<dyn Fn() -> bool>>>,
    /// The mailboxes of other threads.
    pub mail: RefCell<Option<Rc<Mail>>>,
}

/// See the module text.
pub(super) struct Inner {
    pub core: RefCell<Core>,
    pub wires: Wires,
    pub callbacks: Callbacks,
    pub socket: String,
    pub uid: u32,
    pub listen_name: Nonce,
    clock: Clock,
    /// Holds this.
    tick: RefCell<Option<Event>>,
    /// When it comes.
    tick_at: Cell<Option<Millis>>,
    /// Calls back in the next turn.
    work: RefCell<Option<Event>>,
    pub inbox: RefCell<VecDeque<OwnedMessage>>,
    /// Room was given back to the relay.
    pub gave: Cell<bool>,
    /// Where records are looked at.
    private: RefCell<Vec<u8>>,
    pumping: Cell<bool>,
    again: Cell<bool>,
    linger: Rc<Linger>,
}

impl Inner {
    pub fn new(core: Core, socket: String, uid: u32, listen_name: Nonce, clock: Clock) -> Inner {
        Inner {
            core: RefCell::new(core),
            wires: Wires::default(),
            callbacks: Callbacks::default(),
            socket,
            uid,
            listen_name,
            clock,
            tick: RefCell::new(None),
            tick_at: Cell::new(None),
            work: RefCell::new(None),
            inbox: RefCell::new(VecDeque::new()),
            gave: Cell::new(false),
            private: RefCell::default(),
            pumping: Cell::new(false),
            again: Cell::new(false),
            linger: Rc::default(),
        }
    }

    /// Gives it to the base, which calls it from now on.
    pub fn live(self: &Rc<Inner>, base: &EventBase) {
        let inner = Rc::clone(self);
        let tick = base.timer(Duration::ZERO, move |_| {
            inner.tick_at.set(None);
            if let Some(base) = inner.base() {
                let now = inner.clock.at(base.now());
                inner.core.borrow_mut().tick(now);
            }
            inner.pump();
        });
        self.tick_at.set(Some(0));
        let inner = Rc::downgrade(self);
        let work = base.user_event(move |_, _| {
            if let Some(inner) = inner.upgrade() {
                inner.pump();
            }
        });
        *self.tick.borrow_mut() = Some(tick);
        *self.work.borrow_mut() = Some(work);
    }

    pub fn base(&self) -> Option<EventBase> {
        self.tick.borrow().as_ref()?.base()
    }

    /// The time of this turn.
    pub fn now(&self) -> Millis {
        self.base().map_or(0, |base| self.clock.at(base.now()))
    }

    /// Has [`Inner::pump`] called in this turn or the next, after something was asked of the core.
    pub fn soon(&self) {
        if let Some(work) = &*self.work.borrow() {
            work.activate(What::TIMEOUT);
        }
    }

    /// Whether messages are taken out of rings when they come.
    pub fn reads(&self) -> bool {
        let message = self.callbacks.message.borrow().is_some() && self.accepts();
        let calls = !self.callbacks.calls.borrow().is_empty();
        message || calls && self.inbox.borrow().len() < INBOX_MAX || self.pumping.get()
    }

    fn accepts(&self) -> bool {
        self.callbacks.accepts.borrow().as_ref().is_none_or(|accepts| accepts())
    }

    /// Does everything that is to be done: shows messages, does what the core wants, tells the
    /// user.
    pub fn pump(self: &Rc<Inner>) {
        if self.pumping.replace(true) {
            return self.again.set(true);
        }
        let pumping = Pumping(self);
        let Some(base) = self.base() else { return };
        let mut reads = 0;
        loop {
            self.again.set(false);
            self.core.borrow_mut().set_now(self.clock.at(base.now()));
            while reads < READS_A_TURN && self.read_some() {
                reads += 1;
            }
            self.settle(&base);
            if !self.again.get() && !self.core.borrow().has_output() {
                break;
            }
        }
        drop(pumping);
        if self.core.borrow().is_closed() {
            return self.end();
        }
        let mail = self.callbacks.mail.borrow().clone();
        if let Some(mail) = mail {
            mail.turned(&Bus::of(self));
        }
        if self.reads() && self.core.borrow().has_arrivals() {
            self.soon();
        }
        self.wires.touch_bell();
        self.arm(&base);
        self.linger.active(&base);
    }

    /// What the core wants, and what the user is to be told.
    fn settle(self: &Rc<Inner>, base: &EventBase) {
        loop {
            let todo = self.core.borrow_mut().next_do();
            if let Some(todo) = todo {
                self.act(base, todo);
                continue;
            }
            let told = self.core.borrow_mut().next_event();
            let Some(told) = told else { break };
            self.tell(told);
        }
    }

    fn arm(&self, base: &EventBase) {
        let deadline = self.core.borrow().deadline();
        if deadline == self.tick_at.get() {
            return;
        }
        self.tick_at.set(deadline);
        let Some(tick) = self.tick.borrow().clone() else { return };
        match deadline {
            Some(at) => {
                let after = at.saturating_sub(self.clock.at(base.now()));
                // Not before it: time is cut to milliseconds.
                tick.add(Some(Duration::from_millis(after + u64::from(after > 0))));
            }
            None => tick.del(),
        }
    }

    /// Closes what is open, and lets the base let go of this.
    fn end(&self) {
        self.wires.close();
        let mail = self.callbacks.mail.borrow_mut().take();
        drop(mail);
        let events = [self.tick.borrow_mut().take(), self.work.borrow_mut().take()];
        events.into_iter().flatten().for_each(|event| event.free());
    }

    fn tell(self: &Rc<Inner>, told: Told) {
        match told {
            Told::Peer(event) => call(&self.callbacks.peer, |callback| callback(&event)),
            Told::Relay(event) => {
                if self.callbacks.relay.borrow().is_none() {
                    log_relay(&event);
                }
                call(&self.callbacks.relay, |callback| callback(&event));
            }
            Told::Writable { to, chan } => {
                call(&self.callbacks.writable, |callback| callback(&to, chan));
                let mail = self.callbacks.mail.borrow().clone();
                if let Some(mail) = mail {
                    mail.work(self);
                }
            }
            Told::CallFailed { call, why } => {
                let callback = self.callbacks.calls.borrow_mut().remove(&call);
                if let Some(callback) = callback {
                    callback(Err(why));
                }
            }
            Told::Closed { left } => {
                let callback = self.callbacks.closed.borrow_mut().take();
                callback.into_iter().for_each(|callback| callback(left));
            }
        }
    }

    /// Shows messages of one channel. Whether there was one to be read.
    fn read_some(self: &Rc<Inner>) -> bool {
        let callback = self.callbacks.message.borrow_mut().take();
        let wants_any = callback.is_some() && self.accepts();
        let wants = wants_any || !self.callbacks.calls.borrow().is_empty();
        let wants = wants && (wants_any || self.inbox.borrow().len() < INBOX_MAX);
        let taken = if wants { self.core.borrow_mut().take() } else { None };
        let found = taken.is_some();
        let mut reading = Reading { inner: self, taken, callback };
        reading.walk();
        found
    }

    /// One message, without a callback.
    pub fn pull(self: &Rc<Inner>) -> Option<OwnedMessage> {
        if let Some(message) = self.inbox.borrow_mut().pop_front() {
            return Some(message);
        }
        let mut found = None;
        while found.is_none() {
            let taken = self.core.borrow_mut().take();
            let mut reading = Reading { inner: self, taken: Some(taken?), callback: None };
            reading.walk_one(&mut found);
        }
        found
    }

    /// An answer that came goes to who asked. Whether it was one.
    fn answer(self: &Rc<Inner>, bus: &Bus, seen: Seen<'_>) -> bool {
        if seen.kind != kind::REPLY {
            return false;
        }
        let wanted = self.core.borrow_mut().answered(seen.number);
        let callback = self.callbacks.calls.borrow_mut().remove(&seen.number);
        match callback.filter(|_| wanted) {
            Some(callback) => callback(Ok(&Message::new(seen, bus))),
            None => log::debug!("bus: an answer of {} comes too late", seen.from),
        }
        true
    }
}

/// Calls a callback that is taken out of its place meanwhile.
fn call<T: ?Sized>(place: &RefCell<Option<Box<T>>>, f: impl FnOnce(&mut Box<T>)) {
    let taken = place.borrow_mut().take();
    let Some(callback) = taken else { return };
    let mut back = Back { place, callback: Some(callback) };
    if let Some(callback) = &mut back.callback {
        f(callback);
    }
}

/// Puts a callback back, also when it has panicked.
struct Back<'a, T: ?Sized> {
    place: &'a RefCell<Option<Box<T>>>,
    callback: Option<Box<T>>,
}

impl<T: ?Sized> Drop for Back<'_, T> {
    fn drop(&mut self) {
        let mut place = self.place.borrow_mut();
        if place.is_none() {
            *place = self.callback.take();
        }
    }
}

/// Ends [`Inner::pumping`], also when a callback has panicked.
struct Pumping<'a>(&'a Inner);

impl Drop for Pumping<'_> {
    fn drop(&mut self) {
        self.0.pumping.set(false);
    }
}

/// A stream and the callback, out of their places.
struct Reading<'a> {
    inner: &'a Rc<Inner>,
    taken: Option<Taken>,
    callback: Option<OnMessage>,
}

impl Reading<'_> {
    fn walk(&mut self) {
        let (inner, callback) = (self.inner, &mut self.callback);
        let Some(taken) = &mut self.taken else { return };
        let bus = Bus::of(inner);
        let mut private = inner.private.take();
        taken.walk(&mut private, RECORDS_A_TURN, &mut |seen| {
            inner.gave.set(true);
            if inner.answer(&bus, seen) {
                return Flow::Go;
            }
            match callback {
                Some(callback) => callback(&Message::new(seen, &bus)),
                None => inner.inbox.borrow_mut().push_back(OwnedMessage::of(seen)),
            }
            // One that was set meanwhile gets the next one.
            let fresh = inner.callbacks.message.borrow_mut().take();
            if fresh.is_some() {
                *callback = fresh;
            }
            let more = if callback.is_some() {
                inner.accepts()
            } else {
                inner.inbox.borrow().len() < INBOX_MAX
            };
            if more { Flow::Go } else { Flow::Stop }
        });
        inner.private.replace(private);
        inner.gave.set(true);
    }

    fn walk_one(&mut self, found: &mut Option<OwnedMessage>) {
        let inner = self.inner;
        let Some(taken) = &mut self.taken else { return };
        let bus = Bus::of(inner);
        taken.walk(&mut Vec::new(), RECORDS_A_TURN, &mut |seen| {
            inner.gave.set(true);
            if inner.answer(&bus, seen) {
                return Flow::Go;
            }
            *found = Some(OwnedMessage::of(seen));
            Flow::Stop
        });
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let inner = self.inner;
        if let Some(taken) = self.taken.take() {
            inner.core.borrow_mut().put(taken);
        }
        let mut place = inner.callbacks.message.borrow_mut();
        if place.is_none() {
            *place = self.callback.take();
        }
    }
}

fn log_relay(event: &RelayEvent) {
    match event {
        RelayEvent::Here { host, incarnation, .. } => {
            log::info!("bus: the relay of host {host} is here (run {incarnation})");
        }
        RelayEvent::Lost { why } => log::warn!("bus: {why}"),
        RelayEvent::NameInUse { pid, .. } => {
            log::error!("bus: process {pid} has the name of this one");
        }
        RelayEvent::Refused { why } => log::error!("bus: the relay refuses: {why}"),
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inner({})", self.socket)
    }
}
