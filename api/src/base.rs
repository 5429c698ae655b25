//! The event base: owns everything, and hands out handles that own nothing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::bev::{Bev, Under, flag};
use crate::bufferevent::{Bufferevent, Filter, handle};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::event::{Event, EventSlot, Signal, What};
use crate::fd::{Fd, FdKind};
use crate::limits;
use crate::listener::{Listener, ListenerSlot};
use crate::reactor::{Counters, EngineReport, Reactor};
use crate::remote::{Mailbox, Remote};
use crate::router::{Router, TimerKey};
use crate::slab::Key;
use crate::transport::{LinkId, LinkOptions, ListenOptions, Transport};

pub(crate) type Deferred = Box<dyn FnOnce(&EventBase)>;

/// What every handle points to.
pub struct Inner {
    pub(crate) core: RefCell<Core>,
    pub(crate) deferred: RefCell<VecDeque<Deferred>>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) stopping: Cell<bool>,
    pub(crate) breaking: Cell<bool>,
    pub(crate) turning: Cell<bool>,
}

/// How long [`EventBase::turn`] may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Until something happens.
    Wait,
    /// Not at all.
    NoWait,
}

/// What lives in a base now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct BaseStats {
    /// Bufferevents, with those that were freed and still send.
    pub links: usize,
    /// Listeners.
    pub listeners: usize,
    /// Events, timers among them.
    pub events: usize,
    /// Timers that run.
    pub timers: usize,
    /// Received blocks in somebody's hands.
    pub blocks_out: usize,
}

/// One loop: everything of it stays on the thread that made it. Cloning gives another handle on
/// the same base; the base goes with the last of them.
///
/// A program makes one with `EventBase::new()` from the prelude of the `ringlane` crate.
#[derive(Clone)]
pub struct EventBase(pub(crate) Rc<Inner>);

impl EventBase {
    /// A base over this reactor and these transports.
    ///
    /// # Panics
    /// Panics with more than 128 transports.
    pub fn with(reactor: Box<dyn Reactor>, transports: Vec<Box<dyn Transport>>) -> EventBase {
        assert!(transports.len() <= 128, "the transport's number is part of each token");
        let router = Router::new(reactor.now(), transports.len(), Rc::clone(reactor.home()));
        let mailbox = Mailbox::new(reactor.waker());
        let (done, due) = (Vec::new(), Vec::new());
        let known = &[];
        let core = Core { reactor, transports, known, router, done, due, stop_timer: None };
        EventBase(Rc::new(Inner {
            core: RefCell::new(core),
            deferred: RefCell::new(VecDeque::new()),
            mailbox,
            stopping: Cell::new(false),
            breaking: Cell::new(false),
            turning: Cell::new(false),
        }))
    }

    /// Listens at an address; `callback` gets each connection. Port 0 takes a free one, see
    /// [`Listener::address`].
    ///
    /// ```no_run
    /// # fn f(base: &ringlane_api::EventBase) -> ringlane_api::Result<()> {
    /// use ringlane_api::READ;
    /// base.listen("tcp://127.0.0.1:0", |conn| {
    ///     conn.on_read(|c| { c.output().append(c.input()); });
    ///     conn.on_event(|c, e| if e.is_end() { c.free() });
    ///     conn.enable(READ);
    /// })?;
    /// # Ok(()) }
    /// ```
    pub fn listen(
        &self,
        at: impl AsRef<str>,
        callback: impl FnMut(Bufferevent) + 'static,
    ) -> Result<Listener> {
        self.listen_with(at, &ListenOptions::default(), callback)
    }

    /// [`EventBase::listen`] with options.
    pub fn listen_with(
        &self,
        at: impl AsRef<str>,
        options: &ListenOptions,
        callback: impl FnMut(Bufferevent) + 'static,
    ) -> Result<Listener> {
        let address: Address = at.as_ref().parse()?;
        let mut core = self.0.core.borrow_mut();
        let transport = core.find(&address)?;
        let link = core
            .with_transport(transport, |transport, cx| transport.listen(cx, &address, options))?;
        Ok(self.add_listener(&mut core, transport, link, address, Box::new(callback)))
    }

    /// Takes connections from a descriptor that already listens (systemd's socket activation).
    pub fn listen_on(
        &self,
        fd: OwnedFd,
        options: &ListenOptions,
        callback: impl FnMut(Bufferevent) + 'static,
    ) -> Result<Listener> {
        let mut core = self.0.core.borrow_mut();
        let fd = core.reactor.sys().adopt(fd).map_err(|error| Error::new("adopt", error))?;
        let (transport, link) =
            core.adopt_with(|transport, cx| transport.adopt_listener(cx, fd.clone(), options))?;
        let info = core.with_transport(transport, |transport, cx| transport.info(cx, link));
        let address = info.local.unwrap_or_else(|| Address::new("fd", "adopted"));
        Ok(self.add_listener(&mut core, transport, link, address, Box::new(callback)))
    }

    fn add_listener(
        &self,
        core: &mut Core,
        transport: u8,
        link: LinkId,
        address: Address,
        callback: crate::listener::AcceptCallback,
    ) -> Listener {
        let info = core.with_transport(transport, |transport, cx| transport.info(cx, link));
        let address = info.local.unwrap_or(address);
        let key = core.router.add_listener(
            transport,
            link,
            ListenerSlot {
                transport,
                link,
                address: address.clone(),
                on_accept: Some(callback),
                on_error: None,
                accepted: VecDeque::new(),
                errors: VecDeque::new(),
                priority: 0,
                queued: false,
                enabled: false,
                freed: false,
                counted: false,
            },
        );
        core.switch_listener(key, true);
        Listener { base: Rc::downgrade(&self.0), key, address }
    }

    /// Connects to an address. The result comes as [`BevEvent::Connected`](crate::BevEvent) or an
    /// error event; bytes may be written before.
    pub fn connect(&self, to: impl AsRef<str>) -> Result<Bufferevent> {
        self.connect_with(to, &LinkOptions::default())
    }

    /// [`EventBase::connect`] with options.
    pub fn connect_with(&self, to: impl AsRef<str>, options: &LinkOptions) -> Result<Bufferevent> {
        let address: Address = to.as_ref().parse()?;
        let mut core = self.0.core.borrow_mut();
        let transport = core.find(&address)?;
        let link = core
            .with_transport(transport, |transport, cx| transport.connect(cx, &address, options))?;
        let key = core.router.add_bev(transport, link, false);
        core.router.dials(transport, link, &address);
        Ok(handle(&self.0, key))
    }

    /// Reads an address and says what is wrong with it, without touching anything.
    pub fn check(&self, address: impl AsRef<str>) -> Result<Address> {
        let address: Address = address.as_ref().parse()?;
        let core = self.0.core.borrow();
        let transport = core.find(&address)?;
        core.transports[usize::from(transport)].check(&address)?;
        Ok(address)
    }

    /// Two bufferevents that are connected with each other.
    pub fn pair(&self) -> Result<(Bufferevent, Bufferevent)> {
        let mut core = self.0.core.borrow_mut();
        let pair = core.reactor.sys().pair().map_err(|error| Error::new("pair", error))?;
        let a = self.adopt(&mut core, pair.0, &LinkOptions::default())?;
        match self.adopt(&mut core, pair.1, &LinkOptions::default()) {
            Ok(b) => Ok((a, b)),
            Err(error) => {
                drop(core);
                a.abort();
                Err(error)
            }
        }
    }

    /// Makes a descriptor a bufferevent: a connected socket, a pipe, a FIFO, a tty.
    pub fn from_fd(&self, fd: impl Into<OwnedFd>) -> Result<Bufferevent> {
        self.from_fd_with(fd, &LinkOptions::default())
    }

    /// [`EventBase::from_fd`] with options.
    pub fn from_fd_with(
        &self,
        fd: impl Into<OwnedFd>,
        options: &LinkOptions,
    ) -> Result<Bufferevent> {
        let mut core = self.0.core.borrow_mut();
        let fd = core.reactor.sys().adopt(fd.into()).map_err(|error| Error::new("adopt", error))?;
        if fd.kind() == FdKind::File {
            return Err(Error::refused(
                "adopt",
                "a regular file is always ready; send it with add_file instead",
            ));
        }
        self.adopt(&mut core, fd, options)
    }

    fn adopt(&self, core: &mut Core, fd: Fd, options: &LinkOptions) -> Result<Bufferevent> {
        let (transport, link) =
            core.adopt_with(|transport, cx| transport.adopt(cx, fd.clone(), options))?;
        let key = core.router.add_bev(transport, link, true);
        Ok(handle(&self.0, key))
    }

    /// A bufferevent whose bytes go through `filter` to and from `under`. Freeing it frees
    /// `under`.
    pub fn filter(&self, under: Bufferevent, filter: impl Filter + 'static) -> Bufferevent {
        let mut core = self.0.core.borrow_mut();
        let router = &mut core.router;
        let mut bev = Bev::new(Under::Filter { below: under.key });
        if router.bevs.get(under.key).is_some_and(|below| below.has(flag::CONNECTED)) {
            bev.set(flag::CONNECTED);
        }
        bev.more().filter = Some(Box::new(filter));
        let key = router.bevs.insert(bev);
        if let Some(below) = router.bevs.get_mut(under.key) {
            below.more().above = Some(key);
        }
        router.mark_dirty(key.slot);
        handle(&self.0, key)
    }

    /// Waits for readiness of a descriptor. Call [`Event::add`] to start.
    pub fn event(
        &self,
        fd: impl Into<OwnedFd>,
        what: What,
        callback: impl FnMut(&Event, What) + 'static,
    ) -> Result<Event> {
        let mut core = self.0.core.borrow_mut();
        let fd = core.reactor.sys().adopt(fd.into()).map_err(|error| Error::new("event", error))?;
        Ok(self.add_event(&mut core, Some(fd), what, Box::new(callback)))
    }

    fn add_event(
        &self,
        core: &mut Core,
        fd: Option<Fd>,
        what: What,
        callback: crate::event::EventFn,
    ) -> Event {
        let key = core.router.events.insert(EventSlot::new(fd, what, callback));
        Event { base: Rc::downgrade(&self.0), key }
    }

    /// Calls back once after `after`. Add it again to repeat, or see [`EventBase::every`].
    pub fn timer(&self, after: Duration, mut callback: impl FnMut(&Event) + 'static) -> Event {
        let mut core = self.0.core.borrow_mut();
        let event =
            self.add_event(&mut core, None, What::TIMEOUT, Box::new(move |e, _| callback(e)));
        core.add_event(event.key, Some(after));
        event
    }

    /// Calls back once after `after`, and is gone then.
    pub fn once(&self, after: Duration, callback: impl FnOnce(&EventBase) + 'static) {
        let mut callback = Some(callback);
        self.timer(after, move |event| {
            let base = event.base();
            event.free();
            if let (Some(callback), Some(base)) = (callback.take(), base) {
                callback(&base);
            }
        });
    }

    /// Calls back every `period` until it is deleted.
    pub fn every(&self, period: Duration, mut callback: impl FnMut(&Event) + 'static) -> Event {
        let mut core = self.0.core.borrow_mut();
        let what = What::TIMEOUT | What::PERSIST;
        let event = self.add_event(&mut core, None, what, Box::new(move |e, _| callback(e)));
        core.add_event(event.key, Some(period));
        event
    }

    /// An event that only [`Event::activate`] calls.
    pub fn user_event(&self, callback: impl FnMut(&Event, What) + 'static) -> Event {
        let mut core = self.0.core.borrow_mut();
        self.add_event(&mut core, None, What::PERSIST, Box::new(callback))
    }

    /// Calls back in the loop when a signal comes. It does not keep [`EventBase::dispatch`]
    /// going. One base per process owns the signals.
    ///
    /// ```no_run
    /// # fn f(base: &ringlane_api::EventBase) -> ringlane_api::Result<()> {
    /// base.on_signal(ringlane_api::Signal::SIGTERM, |b| b.stop())?;
    /// # Ok(()) }
    /// ```
    pub fn on_signal(
        &self,
        signal: Signal,
        mut callback: impl FnMut(&EventBase) + 'static,
    ) -> Result<Event> {
        let mut core = self.0.core.borrow_mut();
        let fd = core.reactor.sys().signal(signal.0);
        let fd = fd.map_err(|error| Error::new("signal", error).at(signal.0))?;
        let what = What::READ | What::SIGNAL | What::PERSIST;
        let call = move |event: &Event, _| {
            if let Some(base) = event.base() {
                callback(&base);
            }
        };
        let event = self.add_event(&mut core, Some(fd), what, Box::new(call));
        core.add_event(event.key, None);
        Ok(event)
    }

    /// Runs `callback` in the next turn, before the loop waits.
    pub fn defer(&self, callback: impl FnOnce(&EventBase) + 'static) {
        self.0.deferred.borrow_mut().push_back(Box::new(callback));
    }

    /// Makes [`EventBase::dispatch`] return at the end of this turn.
    pub fn stop(&self) {
        self.0.stopping.set(true);
    }

    /// [`EventBase::stop`] after a while.
    pub fn stop_after(&self, after: Duration) {
        let mut core = self.0.core.borrow_mut();
        let deadline = crate::timeout::at(core.router.now(), after);
        let timer = core.router.wheel.add(deadline, TimerKey::Stop);
        if let Some(old) = core.stop_timer.replace(timer) {
            core.router.wheel.cancel(old);
        }
    }

    /// Makes [`EventBase::dispatch`] return after the running callback.
    pub fn break_now(&self) {
        self.0.breaking.set(true);
    }

    /// How many queues callbacks wait in; 1 at first. Lower numbers are served first, and higher
    /// ones only when no lower one has anything.
    pub fn set_priorities(&self, n: usize) -> Result<()> {
        if n == 0 || n > limits::PRIORITIES_MAX {
            return Err(Error::refused(
                "set_priorities",
                format!("between 1 and {} priorities, not {n}", limits::PRIORITIES_MAX),
            ));
        }
        let router = &mut self.0.core.borrow_mut().router;
        if router.ready_len > 0 {
            return Err(Error::refused("set_priorities", "callbacks are waiting in the old ones"));
        }
        router.ready.resize_with(n, VecDeque::new);
        Ok(())
    }

    /// The handle that other threads may hold.
    pub fn remote(&self) -> Remote {
        Remote::new(&self.0.mailbox)
    }

    /// In a forked child: gives the base a kernel side of its own. Sends and connects that were in
    /// flight belong to the parent: those bufferevents get an error event.
    pub fn reinit(&self) -> Result<()> {
        let mut core = self.0.core.borrow_mut();
        core.reactor.reinit().map_err(|error| Error::new("reinit", error))?;
        for transport in 0..core.transports.len() as u8 {
            core.with_transport(transport, |transport, cx| transport.forked(cx));
        }
        Ok(())
    }

    /// This turn's time.
    pub fn now(&self) -> Instant {
        self.0.core.borrow().router.now()
    }

    /// Which engine runs, and why.
    pub fn report(&self) -> EngineReport {
        self.0.core.borrow().reactor.report()
    }

    /// What the engine did so far.
    pub fn counters(&self) -> Counters {
        self.0.core.borrow().reactor.counters()
    }

    /// What the transport of a scheme did so far, by name; `[]` if it counts nothing.
    pub fn transport_counters(&self, scheme: &str) -> Vec<(&'static str, u64)> {
        let core = self.0.core.borrow();
        let of = core.transports.iter().find(|transport| transport.scheme() == scheme);
        of.map(|transport| transport.counters()).unwrap_or_default()
    }

    /// What lives in it.
    pub fn stats(&self) -> BaseStats {
        let core = self.0.core.borrow();
        BaseStats {
            links: core.router.bevs.len(),
            listeners: core.router.listeners.len(),
            events: core.router.events.len(),
            timers: core.router.wheel.len(),
            blocks_out: core.router.home.out() + core.router.bulk_home().out(),
        }
    }

    /// The schemes of its transports.
    pub fn schemes(&self) -> Vec<&'static str> {
        self.0.core.borrow().transports.iter().map(|transport| transport.scheme()).collect()
    }
}

impl Inner {
    /// Drops what the user owns and nobody needs any more; nothing is borrowed meanwhile.
    pub(crate) fn bury(&self) {
        let dead = {
            let Ok(mut core) = self.core.try_borrow_mut() else { return };
            if core.router.dead.is_empty() {
                return;
            }
            std::mem::take(&mut core.router.dead)
        };
        drop(dead);
    }
}

impl Drop for Inner {
    /// Everything of the user's is dropped while nothing is borrowed, then the transports close
    /// what they have, then the reactor drains.
    fn drop(&mut self) {
        let core = self.core.get_mut();
        let mut remains = crate::core::Remains::new();
        let keys: Vec<Key> = core.router.listeners.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| remains.extend(core.free_listener(key)));
        let keys: Vec<Key> = core.router.events.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| remains.extend(core.free_event(key)));
        let keys: Vec<Key> = core.router.bevs.iter().map(|(key, _)| key).collect();
        for key in keys {
            core.flush_one(key);
            remains.extend(core.free_bev(key, true));
        }
        core.settle(false);
        let mut done = Vec::new();
        for _ in 0..limits::CLOSE_TURNS_MAX {
            if core.router.bevs.is_empty() && core.router.listeners.is_empty() {
                break;
            }
            let wait = Some(Duration::from_millis(1));
            if core.reactor.turn(wait, &mut done).is_err() {
                break;
            }
            done.drain(..).for_each(|completion| core.complete(completion));
            core.settle(false);
        }
        let dead = std::mem::take(&mut core.router.dead);
        drop((remains, dead, self.deferred.take()));
    }
}

impl fmt::Debug for EventBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBase").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
