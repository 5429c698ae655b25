//! A proxy between any two addresses, as a part that programs can use.
//!
//! ```text
//!   client ──> near.input ══ append ══> far.output ──> target
//!   client <── near.output <══ append ══ far.input <── target
//! ```
//!
//! Invariant: a pair lives in the table from the moment its client was accepted until both its
//! ends are freed, and nothing else keeps it. Bytes are moved, not copied: what one end received
//! becomes the other's output as it is. Per message nothing is allocated.
//!
//! - **The end of a direction** is carried: when one end says Eof, the other is finished after
//!   what it still has to send; the other direction goes on. When both have ended and everything
//!   is handed to the kernel, both ends are freed.
//! - **Back-pressure** is carried: an end whose peer has more than [`HIGH_BYTES`] to send is not
//!   read until that fell to [`LOW_BYTES`]. The two directions do not hold each other up.
//! - **A failure** of one end aborts the other.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use crate::{
    Address, BevEvent, Bufferevent, Error, Event, EventBase, Handler, LinkOptions, Listener, READ,
    Result, WRITE,
};

/// Output above which the other end is not read.
pub const HIGH_BYTES: usize = 256 * 1024;

/// Output at which the other end is read again: a quarter, so that the pipe does not run dry
/// meanwhile.
pub const LOW_BYTES: usize = HIGH_BYTES / 4;

/// How often silence is looked for within one idle timeout; a silent pair ends at most one such
/// part late.
const IDLE_PARTS: u32 = 4;

/// Log lines about failures of one route, at most one in this time.
const LOG_PERIOD: Duration = Duration::from_secs(1);

const _: () = assert!(LOW_BYTES < HIGH_BYTES, "reading must resume below where it stopped");

/// What a [`Forwarder`] allows.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Pairs at once; clients beyond are closed when they come.
    pub connections: usize,
    /// Silence in both directions after which a pair is ended; `None` is for ever.
    pub idle: Option<Duration>,
    /// How long one attempt to reach the target may take.
    pub connect: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let connect = LinkOptions::default().connect_timeout;
        Limits { connections: 1024, idle: None, connect }
    }
}

/// What one route did so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCounts {
    /// Where it listens.
    pub from: String,
    /// Where it connects to.
    pub to: String,
    /// Pairs now.
    pub now: u64,
    /// Clients accepted since the start.
    pub total: u64,
    /// Clients closed because there were too many.
    pub refused: u64,
    /// Pairs that ended by an error, the target out of reach among them.
    pub failed: u64,
    /// Pairs ended by the idle timeout.
    pub idle: u64,
    /// Bytes from clients to the target.
    pub forth: u64,
    /// Bytes from the target to clients.
    pub back: u64,
}

impl fmt::Display for RouteCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} -> {}: connections now {} total {} refused {} failed {} idle {}, bytes forth {} \
             back {}",
            self.from,
            self.to,
            self.now,
            self.total,
            self.refused,
            self.failed,
            self.idle,
            self.forth,
            self.back
        )
    }
}

/// A proxy on one [`EventBase`]; a handle that may be cloned.
///
/// ```no_run
/// use ringlane::forward::{Forwarder, Limits};
/// use ringlane::prelude::*;
///
/// let base = EventBase::new()?;
/// let forwarder = Forwarder::new(&base, Limits::default());
/// let address = forwarder.add(&base, "tcp://127.0.0.1:0", "unix:///run/app.sock")?;
/// println!("listening on {address}");
/// base.dispatch()?;
/// # Ok::<(), ringlane::Error>(())
/// ```
#[derive(Clone)]
pub struct Forwarder(Rc<Hub>);

struct Hub {
    limits: Limits,
    pairs: RefCell<Vec<Option<Rc<Pair>>>>,
    vacant: RefCell<Vec<usize>>,
    now: Cell<usize>,
    routes: RefCell<Vec<(Rc<Route>, Listener)>>,
    sweep: RefCell<Option<Event>>,
}

/// One FROM and TO, and what happened there.
struct Route {
    from: String,
    to: String,
    now: Cell<u64>,
    total: Cell<u64>,
    refused: Cell<u64>,
    failed: Cell<u64>,
    idle: Cell<u64>,
    moved: [Cell<u64>; 2],
    said: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

/// A client and its connection to the target; end 0 is the client.
struct Pair {
    ends: [Bufferevent; 2],
    /// Whether an end said Eof.
    ended: [Cell<bool>; 2],
    /// Whether reading from an end waits for the other's output.
    held: [Cell<bool>; 2],
    /// Whether the target answered.
    reached: Cell<bool>,
    /// Bytes received from both ends.
    received: Cell<u64>,
    /// What had been handed on at the last sweep, and for how many sweeps that has not changed.
    quiet: Cell<(u64, u32)>,
    slot: usize,
    route: Rc<Route>,
    hub: Weak<Hub>,
}

/// What one end of a pair answers to.
struct End {
    pair: Rc<Pair>,
    which: usize,
}

fn add(counter: &Cell<u64>, n: u64) {
    counter.set(counter.get() + n);
}

impl Forwarder {
    /// A proxy without routes.
    pub fn new(base: &EventBase, limits: Limits) -> Forwarder {
        let idle = limits.idle;
        let hub = Rc::new(Hub {
            limits,
            pairs: RefCell::new(Vec::new()),
            vacant: RefCell::new(Vec::new()),
            now: Cell::new(0),
            routes: RefCell::new(Vec::new()),
            sweep: RefCell::new(None),
        });
        if let Some(idle) = idle {
            let weak = Rc::downgrade(&hub);
            let sweep = base.every(idle / IDLE_PARTS, move |_| {
                if let Some(hub) = weak.upgrade() {
                    hub.sweep();
                }
            });
            *hub.sweep.borrow_mut() = Some(sweep);
        }
        Forwarder(hub)
    }

    /// Listens at `from` and joins each client to `to`. Returns the address with its real port.
    pub fn add(&self, base: &EventBase, from: &str, to: &str) -> Result<Address> {
        // Clients must not be the first to find out.
        base.check(to)?;
        // The listener's callback needs the route, and the route the listener's address.
        let route = Rc::new(RefCell::new(None::<Rc<Route>>));
        let (hub, known) = (Rc::downgrade(&self.0), Rc::clone(&route));
        let listener = base.listen(from, move |near| {
            let route = known.borrow().clone();
            match (hub.upgrade(), route) {
                (Some(hub), Some(route)) => Hub::accept(&hub, &route, near),
                _ => near.abort(),
            }
        })?;
        let address = listener.address().clone();
        let made = Rc::new(Route::new(address.to_string(), to.to_string()));
        *route.borrow_mut() = Some(Rc::clone(&made));
        self.0.routes.borrow_mut().push((made, listener));
        Ok(address)
    }

    /// Closes the listeners; pairs go on.
    pub fn stop_accepting(&self) {
        for (_, listener) in self.0.routes.borrow().iter() {
            listener.free();
        }
    }

    /// Pairs now.
    pub fn connections(&self) -> usize {
        self.0.now.get()
    }

    /// What each route did so far.
    pub fn counts(&self) -> Vec<RouteCounts> {
        self.0.routes.borrow().iter().map(|(route, _)| route.counts()).collect()
    }

    /// Ends every pair at once.
    pub fn abort(&self) {
        let pairs: Vec<_> = self.0.pairs.borrow().iter().flatten().cloned().collect();
        for pair in pairs {
            pair.end(Bufferevent::abort);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(sweep) = self.sweep.get_mut().take() {
            sweep.free();
        }
    }
}

impl Hub {
    fn accept(hub: &Rc<Hub>, route: &Rc<Route>, near: Bufferevent) {
        let Some(base) = near.base() else { return };
        add(&route.total, 1);
        if hub.now.get() >= hub.limits.connections {
            add(&route.refused, 1);
            let most = hub.limits.connections;
            route.say(&base, || format!("a client is closed: {most} connections are open"));
            near.abort();
            return;
        }
        let options = LinkOptions { connect_timeout: hub.limits.connect, ..LinkOptions::default() };
        match base.connect_with(&route.to, &options) {
            Ok(far) => Hub::join(hub, route, near, far),
            Err(error) => {
                add(&route.failed, 1);
                route.say(&base, || format!("a client is closed: {error}"));
                near.abort();
            }
        }
    }

    fn join(hub: &Rc<Hub>, route: &Rc<Route>, near: Bufferevent, far: Bufferevent) {
        let mut pairs = hub.pairs.borrow_mut();
        let slot = hub.vacant.borrow_mut().pop().unwrap_or_else(|| {
            pairs.push(None);
            pairs.len() - 1
        });
        let pair = Rc::new(Pair {
            ends: [near, far],
            ended: Default::default(),
            held: Default::default(),
            reached: Cell::new(false),
            received: Cell::new(0),
            quiet: Cell::new((0, 0)),
            slot,
            route: Rc::clone(route),
            hub: Rc::downgrade(hub),
        });
        pairs[slot] = Some(Rc::clone(&pair));
        hub.now.set(hub.now.get() + 1);
        add(&route.now, 1);
        for (which, end) in pair.ends.iter().enumerate() {
            // This end's own output must not stop its reading: the directions are independent.
            end.set_write_watermark(LOW_BYTES, usize::MAX);
            end.set_handler(End { pair: Rc::clone(&pair), which });
            end.enable(READ | WRITE);
        }
    }

    /// Ends the pairs through which nothing went for a whole idle timeout.
    fn sweep(&self) {
        let pairs: Vec<_> = self.pairs.borrow().iter().flatten().cloned().collect();
        for pair in pairs {
            let (before, times) = pair.quiet.get();
            let handed_on = pair.handed_on();
            if handed_on != before {
                pair.quiet.set((handed_on, 0));
            } else if times + 1 < IDLE_PARTS {
                pair.quiet.set((before, times + 1));
            } else {
                add(&pair.route.idle, 1);
                pair.end(Bufferevent::abort);
            }
        }
    }
}

impl Route {
    fn new(from: String, to: String) -> Route {
        Route {
            from,
            to,
            now: Cell::new(0),
            total: Cell::new(0),
            refused: Cell::new(0),
            failed: Cell::new(0),
            idle: Cell::new(0),
            moved: Default::default(),
            said: Cell::new(None),
            unsaid: Cell::new(0),
        }
    }

    fn counts(&self) -> RouteCounts {
        RouteCounts {
            from: self.from.clone(),
            to: self.to.clone(),
            now: self.now.get(),
            total: self.total.get(),
            refused: self.refused.get(),
            failed: self.failed.get(),
            idle: self.idle.get(),
            forth: self.moved[0].get(),
            back: self.moved[1].get(),
        }
    }

    /// Logs a line, or counts it for the next one if the last was a moment ago.
    fn say(&self, base: &EventBase, line: impl FnOnce() -> String) {
        let now = base.now();
        if self.said.get().is_some_and(|said| now.duration_since(said) < LOG_PERIOD) {
            add(&self.unsaid, 1);
            return;
        }
        self.said.set(Some(now));
        match self.unsaid.take() {
            0 => log::warn!("{} -> {}: {}", self.from, self.to, line()),
            n => log::warn!("{} -> {}: {} ({n} more like it)", self.from, self.to, line()),
        }
    }
}

impl Pair {
    /// Moves what `which` received to the other end.
    fn carry(&self, which: usize) {
        let (from, to) = (&self.ends[which], &self.ends[1 - which]);
        let bytes = from.input().len();
        if bytes == 0 {
            return;
        }
        to.output().append(from.input());
        add(&self.received, bytes as u64);
        add(&self.route.moved[which], bytes as u64);
        if to.output().len() > HIGH_BYTES && !self.held[which].get() {
            self.held[which].set(true);
            from.disable(READ);
        }
    }

    /// An end's output has drained: its peer may be read again.
    fn drained(&self, which: usize) {
        if self.held[1 - which].get() && self.ends[which].output().len() <= LOW_BYTES {
            self.held[1 - which].set(false);
            self.ends[1 - which].enable(READ);
        }
        self.settle();
    }

    /// An end will send nothing more.
    fn eof(&self, which: usize) {
        self.carry(which);
        self.ended[which].set(true);
        let other = &self.ends[1 - which];
        other.finish();
        if self.ended[1 - which].get() {
            for end in &self.ends {
                end.set_write_watermark(0, usize::MAX);
            }
        }
        self.settle();
    }

    /// Frees the pair if both directions have ended and everything is out.
    fn settle(&self) {
        let over = self.ended.iter().all(Cell::get);
        if over && self.ends.iter().all(|end| end.output().is_empty()) {
            self.end(Bufferevent::free);
        }
    }

    /// An end broke.
    fn fail(&self, base: Option<&EventBase>, which: usize, error: &Error) {
        add(&self.route.failed, 1);
        if which == 1
            && !self.reached.get()
            && let Some(base) = base
        {
            self.route.say(base, || format!("a client is closed: {error}"));
        }
        log::debug!("{} -> {}: {error}", self.route.from, self.route.to);
        self.end(Bufferevent::abort);
    }

    /// Takes the pair out of the table and ends both ends. The second time it does nothing.
    fn end(&self, how: fn(&Bufferevent)) {
        let Some(hub) = self.hub.upgrade() else { return };
        let Some(pair) = hub.pairs.borrow_mut()[self.slot].take() else { return };
        hub.vacant.borrow_mut().push(self.slot);
        hub.now.set(hub.now.get() - 1);
        self.route.now.set(self.route.now.get() - 1);
        for end in &pair.ends {
            how(end);
        }
    }

    /// Bytes that were received and left again.
    fn handed_on(&self) -> u64 {
        let waiting: usize = self.ends.iter().map(|end| end.output().len()).sum();
        self.received.get().saturating_sub(waiting as u64)
    }
}

impl Handler for End {
    fn on_connected(&mut self, _: &Bufferevent) {
        self.pair.reached.set(true);
    }

    fn on_read(&mut self, _: &Bufferevent) {
        self.pair.carry(self.which);
    }

    fn on_written(&mut self, _: &Bufferevent) {
        self.pair.drained(self.which);
    }

    fn on_event(&mut self, end: &Bufferevent, event: &BevEvent) {
        match event {
            BevEvent::Eof => self.pair.eof(self.which),
            BevEvent::Error { error, .. } => {
                self.pair.fail(end.base().as_ref(), self.which, error);
            }
            _ => {}
        }
    }
}
