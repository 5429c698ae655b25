//! The epoll engine: the whole contract on every kernel, and the reference semantics.
//!
//! ```text
//!   push --> flight table + list of its descriptor --> run queue
//!   turn:  settle   cancels, what is due, look-ups
//!          work     each queued descriptor: sends, one receive, polls       (submit)
//!          close    what was asked to close
//!          recheck  level polls that reported last time: one poll(2) for all
//!          wait     epoll_wait, edge-triggered; the events mark descriptors and queue them
//!          work     again, until the turn's bound
//! ```
//!
//! Each descriptor is registered once, at the first op that has to wait for it; there is no
//! epoll_ctl per message. Edges only ever *set* `readable` and `writable`; `EAGAIN` and short
//! transfers clear them. So an echoed message costs a receive and a send, and their share of one
//! wait.
//!
//! A turn that completed something before its wait returns without waiting, every other time:
//! the wait of the next turn then blocks at once instead of being asked twice.

mod end;
mod entry;
mod flight;
mod polls;
mod work;

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};
use ringlane_api::limits;
use ringlane_api::reactor::{
    Completion, Counters, EngineReport, Feature, Op, OpId, Outcome, Reactor, Ready, Sys, Token,
    Wake,
};
use ringlane_api::segment::Home;

use crate::config::{Config, Fault};
use crate::resolve::Resolver;
use crate::sys::{self, Kernel, Watch};
use crate::wake::Waker;
use entry::{Entries, Key, Watched};
use flight::{Flights, Lane};

/// Events taken from the kernel at a time.
const EVENTS: usize = 256;

/// What the bell's registration carries; no descriptor has such a number.
const BELL: u64 = u64::MAX;

/// How long a connect that only time can help is left alone.
const CONNECT_RETRY: Duration = Duration::from_millis(5);

/// How often one descriptor has its turn in one turn, while others have theirs.
const ROUNDS: usize = 4;

/// The epoll engine.
pub(crate) struct Epoll {
    // Declared first, so that descriptors are closed before the epoll instance is.
    flights: Flights,
    entries: Entries,
    watch: Watch,
    events: Vec<EpollEvent>,
    /// Descriptors with something to try.
    run: VecDeque<Key>,
    /// Ops to cancel.
    cancels: VecDeque<OpId>,
    /// Descriptors to close.
    closing: VecDeque<OpId>,
    /// Completions that are ready.
    due: VecDeque<Completion>,
    /// Polls to ask about before the next wait.
    checks: Vec<u32>,
    /// The question, kept for its memory.
    asked: Vec<libc::pollfd>,
    /// Connects to try again after a while.
    later: Vec<Key>,
    /// The last turn did not wait.
    skipped: bool,
    /// The last turn had something to report.
    reported: bool,
    kernel: Kernel,
    waker: Arc<Waker>,
    resolver: Resolver,
    home: Rc<Home>,
    counters: Counters,
    fault: Fault,
    waits: u32,
    sends: u32,
    fell_back: Option<String>,
}

impl Epoll {
    /// An engine; `fell_back` says why it is not a better one.
    pub(crate) fn new(config: &Config, fell_back: Option<String>) -> io::Result<Epoll> {
        let waker = Arc::new(Waker::new()?);
        let watch = watch_with_bell(&waker)?;
        let home = Home::new(config.block_bytes, config.home_blocks_max);
        home.set_scarce_at(config.ring_blocks_max / 4 * 3);
        Ok(Epoll {
            flights: Flights::default(),
            entries: Entries::default(),
            watch,
            events: vec![EpollEvent::empty(); EVENTS],
            run: VecDeque::new(),
            cancels: VecDeque::new(),
            closing: VecDeque::new(),
            due: VecDeque::new(),
            checks: Vec::new(),
            asked: Vec::new(),
            later: Vec::new(),
            skipped: false,
            reported: false,
            kernel: Kernel::new(),
            resolver: Resolver::new(Arc::clone(&waker) as Arc<dyn Wake>),
            waker,
            home,
            counters: Counters::default(),
            fault: config.fault.unwrap_or_default(),
            waits: 0,
            sends: 0,
            fell_back,
        })
    }

    /// Waits, and queues what the events name.
    fn wait(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.counters.syscalls += 1;
        self.waits = self.waits.wrapping_add(1);
        if self.fault.wait_every > 0 && self.waits.is_multiple_of(self.fault.wait_every) {
            return Err(io::Error::from_raw_os_error(self.fault.wait_errno));
        }
        let found = self.watch.wait(&mut self.events, wait)?;
        for at in 0..found {
            let event = self.events[at];
            if event.data() == BELL {
                continue;
            }
            let key = Key::from_data(event.data());
            let Some(entry) = self.entries.get(key) else { continue };
            if entry.is_orphan() {
                // Dropped without a close while a copy of it lives on, or given away.
                entry.unbind();
                self.counters.epoll_ctls += 1;
                self.counters.syscalls += 1;
                self.watch.delete_number(key.number);
                continue;
            }
            entry.learn(event.events());
            self.enqueue(key);
        }
        Ok(())
    }

    fn enqueue(&mut self, key: Key) {
        if let Some(entry) = self.entries.get(key)
            && !entry.queued
        {
            entry.queued = true;
            self.run.push_back(key);
        }
    }

    /// Whether something is to be done before anybody may sleep.
    fn busy(&self) -> bool {
        !(self.run.is_empty()
            && self.due.is_empty()
            && self.cancels.is_empty()
            && self.closing.is_empty()
            && self.checks.is_empty())
            || self.resolver.has_answers()
    }

    fn take_turn(&mut self, wait: Option<Duration>, done: &mut Vec<Completion>) -> io::Result<()> {
        let floor = done.len();
        let end = floor + limits::TURN_COMPLETIONS_MAX;
        self.counters.turns += 1;
        self.settle(done, end);
        self.work(done, end);
        self.close(done, end);
        self.recheck(done, end);
        if done.len() > floor && !self.skipped {
            self.skipped = true;
            return Ok(());
        }
        self.skipped = false;
        let mut wait = wait;
        if done.len() > floor || self.busy() {
            wait = Some(Duration::ZERO);
        } else if !self.later.is_empty() {
            wait = Some(wait.unwrap_or(CONNECT_RETRY).min(CONNECT_RETRY));
        }
        if wait != Some(Duration::ZERO) && !self.waker.sleep() {
            wait = Some(Duration::ZERO);
        }
        let waited = self.wait(wait);
        self.waker.awake();
        match waited {
            Ok(()) => {}
            Err(error) if survivable(&error) => {
                self.counters.enter_errors += 1;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.answers(done, end);
        self.work(done, end);
        Ok(())
    }
}

/// A new instance that watches the bell. Edge-triggered: each ring is an edge, so nobody has to
/// take them off.
fn watch_with_bell(waker: &Waker) -> io::Result<Watch> {
    let watch = Watch::new()?;
    watch.add(waker.bell(), EpollFlags::EPOLLIN | EpollFlags::EPOLLET, BELL)?;
    Ok(watch)
}

/// Failures of a wait that a later one makes good (rule 8).
fn survivable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM))
}

impl Reactor for Epoll {
    fn name(&self) -> &'static str {
        "epoll"
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn push(&mut self, token: Token, op: Op) -> OpId {
        let id = self.flights.insert(token, op);
        let flight = self.flights.at(id.slot);
        let refused = flight.pending.fd().and_then(|fd| sys::os(fd).err());
        if let Some(error) = refused {
            let flight = self.flights.take(id.slot);
            self.due.push_back(flight.pending.end(token, Err(error)));
            return id;
        }
        match (&mut flight.pending.op, flight.lane) {
            (Op::Close { .. }, _) => self.closing.push_back(id),
            (Op::Resolve { host, port }, _) => {
                let (host, port) = (std::mem::take(host), *port);
                self.resolver.ask(id, host, port);
            }
            (Op::FutexWait { .. }, _) => {
                self.flights.take(id.slot);
                let error = io::ErrorKind::Unsupported.into();
                self.due.push_back(Completion::last(token, Err(error)));
            }
            (Op::Nop, _) => {
                self.flights.take(id.slot);
                self.due.push_back(Completion::last(token, Ok(Outcome::Done)));
            }
            (_, lane) => {
                let fd = flight.pending.fd().expect("all other ops name a descriptor");
                let (key, entry) = self.entries.bind(fd);
                entry.lane(lane).push(id.slot);
                let told = match entry.watched {
                    Watched::InOut => false,
                    Watched::In => flight.wants(Ready::WRITE),
                    // A new registration tells what holds already.
                    Watched::No => true,
                    Watched::Always => false,
                };
                if lane == Lane::Poll && !told {
                    flight.checking = true;
                    self.checks.push(id.slot);
                }
                self.enqueue(key);
            }
        }
        id
    }

    fn cancel(&mut self, op: OpId) {
        if self.flights.get(op).is_some() {
            self.cancels.push_back(op);
        }
    }

    fn turn(&mut self, wait: Option<Duration>, done: &mut Vec<Completion>) -> io::Result<()> {
        let floor = done.len();
        let turned = self.take_turn(wait, done);
        self.reported = done.len() > floor;
        turned
    }

    fn sys(&mut self) -> &mut dyn Sys {
        &mut self.kernel
    }

    fn home(&self) -> &Rc<Home> {
        &self.home
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn reinit(&mut self) -> io::Result<()> {
        self.waker.after_fork()?;
        self.kernel.after_fork()?;
        self.resolver.after_fork();
        // The old instance is the parent's too: it is closed here, and never told anything.
        self.watch = watch_with_bell(&self.waker)?;
        self.start_over();
        Ok(())
    }

    fn report(&self) -> EngineReport {
        EngineReport {
            engine: "epoll",
            tier: "e",
            features: vec![Feature {
                name: "precise waits",
                present: self.watch.precise(),
                note: "5.11 (epoll_pwait2): timers to the nanosecond instead of the millisecond",
            }],
            fell_back: self.fell_back.clone(),
            details: vec![
                format!("block {} B", self.home.block_bytes()),
                format!("{} ops under way", self.flights.len()),
            ],
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
