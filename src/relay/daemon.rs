//! The relay on an event loop: sockets, bells and time around the machine in
//! [`core`](super::core).
//!
//! ```text
//!   socket.rs   processes and operators: lines over a Unix socket
//!   bells.rs    a shm:// link with each process, whose bell serves all rings between the two
//!   links.rs    other relays: who dials, which link is used    guests.rs   who is there
//!   answers.rs  status, metrics, explanations, pings          http.rs     counters
//!   life.rs     signals, reload, drain, end
//! ```
//!
//! Whatever happens in a turn of the loop is told to the machine at once; what it wants to say is
//! said at the end of the turn, in one go: one publication and one acknowledgement per channel, one
//! bell per process, one write per link.

mod answers;
mod bells;
mod clock;
mod guests;
mod http;
mod life;
mod links;
mod metrics;
mod socket;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "daemon/untls.rs"]
mod tls;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::bus::linger::Linger;
use crate::bus::local::{FromRelay, Nonce};
use crate::bus::memory::Memory;
use crate::cluster::Cluster;
use crate::relay::handshake::random;
use crate::{Error, Evbuffer, EventBase, Result};

use super::core::{ConnId, Core, Note, Out, Setup};
use super::lock::Lock;

use self::bells::Bells;
use self::clock::Clock;
use self::http::Readers;
use self::links::Links;
use self::socket::Sockets;

pub use self::life::Ended;

/// How often the machine looks after what waits for a time.
const TICK: Duration = Duration::from_millis(100);

/// How a relay is run, beside its cluster's configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The host whose relay it is.
    pub host: String,
    /// Where processes find it: `unix:///run/…` or `unix://@name`.
    pub socket: String,
    /// The user it runs as.
    pub uid: u32,
    /// Its process.
    pub pid: u32,
    /// After SIGTERM, how long messages that are under way may take.
    pub drain: Duration,
}

/// A relay that runs on a base. A handle: cloning it gives another.
#[derive(Clone)]
pub struct Relay(Rc<Inner>);

pub(crate) struct Inner {
    base: EventBase,
    options: Options,
    core: RefCell<Core>,
    sockets: RefCell<Sockets>,
    bells: RefCell<Bells>,
    links: RefCell<Links>,
    readers: RefCell<Readers>,
    cluster: RefCell<Rc<Cluster>>,
    /// Where the configuration is read again.
    config: RefCell<Option<PathBuf>>,
    clock: Clock,
    /// A turn of the machine is due.
    queued: Cell<bool>,
    /// It is by a timer.
    alarmed: Cell<bool>,
    linger: Rc<Linger>,
    ending: Cell<bool>,
    reloads: Cell<u64>,
    lock: RefCell<Option<Lock>>,
    ticked: Cell<Instant>,
    replaced: Cell<bool>,
}

impl Relay {
    /// Starts the relay of a host: it listens when this returns.
    ///
    /// # Errors
    /// The host is not in the configuration, or an address cannot be listened at; the error says
    /// which and why.
    pub fn start(base: &EventBase, cluster: Cluster, options: Options) -> Result<Relay> {
        let cluster = Rc::new(cluster);
        if cluster.host(&options.host).is_none() {
            let names: Vec<&str> = cluster.hosts().iter().map(|host| host.name.as_str()).collect();
            let what = format!(
                "cluster `{}` has no host `{}`; it has {}",
                cluster.name,
                options.host,
                names.join(", ")
            );
            return Err(Error::refused("start the relay", what));
        }
        let clock = Clock::new(base)?;
        let now = clock.now(base);
        let memory = Memory::new().map_err(|error| Error::new("map memory", error))?;
        let core = Core::new(Setup {
            host: options.host.clone(),
            cluster: Rc::clone(&cluster),
            incarnation: now.unix_us,
            uid: options.uid,
            pid: options.pid,
            memory,
            tokens: Box::new(token),
            now,
        });
        let links = Links::new(&cluster, &options.host, now)?;
        let inner = Rc::new(Inner {
            base: base.clone(),
            options,
            core: RefCell::new(core),
            sockets: RefCell::new(Sockets::new(&cluster)),
            bells: RefCell::default(),
            links: RefCell::new(links),
            readers: RefCell::default(),
            cluster: RefCell::new(cluster),
            config: RefCell::new(None),
            clock,
            queued: Cell::new(false),
            alarmed: Cell::new(false),
            linger: Rc::default(),
            ending: Cell::new(false),
            reloads: Cell::new(0),
            lock: RefCell::new(None),
            ticked: Cell::new(base.now()),
            replaced: Cell::new(false),
        });
        inner.listen_for_processes()?;
        inner.listen_for_relays()?;
        inner.listen_for_readers();
        let ticks = Rc::downgrade(&inner);
        base.every(TICK, move |_| {
            if let Some(inner) = ticks.upgrade() {
                inner.tick();
            }
        });
        Ok(Relay(inner))
    }
}

/// 128 random bits.
fn token() -> Nonce {
    Nonce(random().expect("the kernel has random bytes"))
}

impl Inner {
    /// Has the machine work at the end of this turn of the loop.
    fn kick(self: &Rc<Self>) {
        self.linger.active(&self.base);
        if !self.queued.replace(true) {
            let inner = Rc::downgrade(self);
            self.base.defer(move |_| {
                if let Some(inner) = inner.upgrade() {
                    inner.work();
                }
            });
        }
    }

    fn work(self: &Rc<Self>) {
        self.queued.set(false);
        let now = self.clock.now(&self.base);
        let more = self.core.borrow_mut().turn(now);
        self.obey();
        if more {
            self.kick();
        }
        let due = self.core.borrow().next_deadline();
        if let Some(due) = due
            && !self.alarmed.replace(true)
        {
            let inner = Rc::downgrade(self);
            let after = due.saturating_duration_since(now.instant);
            self.base.once(after, move |_| {
                if let Some(inner) = inner.upgrade() {
                    inner.alarmed.set(false);
                    inner.kick();
                }
            });
        }
    }

    /// Does what the machine says.
    fn obey(self: &Rc<Self>) {
        loop {
            let out = self.core.borrow_mut().take();
            match out {
                None => return,
                Some(Out::Say(conn, line)) => self.say(conn, line),
                Some(Out::Drop(conn)) => self.drop_local(conn),
                Some(Out::Ring(conn, bell)) => self.bells.borrow().ring(conn, bell),
                Some(Out::Pong(link, id)) => self.ponged(link, id),
                Some(Out::Bye(link, why)) => self.parted(link, why),
                Some(Out::Want(host)) => self.want(&host),
                Some(Out::Flush(link)) => self.flush(link),
                Some(Out::Note(note)) => tell(&note),
            }
        }
    }

    fn tick(self: &Rc<Self>) {
        self.look_at_lock();
        let now = self.clock.now(&self.base);
        self.core.borrow_mut().tick(now);
        self.tick_links();
        self.tick_sockets();
        self.kick();
    }

    fn say(self: &Rc<Self>, conn: ConnId, line: FromRelay) {
        let line = match line {
            FromRelay::Registered { host, cluster, token, pid, incarnation, .. } => {
                let bell = match self.bell_for(conn) {
                    Ok(bell) => bell,
                    Err(error) => {
                        let why = format!("the relay cannot listen for its bell: {error}");
                        return self.send_line(conn, &FromRelay::Refused { why });
                    }
                };
                self.seated(conn);
                FromRelay::Registered { host, cluster, bell, token, pid, incarnation }
            }
            line => line,
        };
        self.send_line(conn, &line);
        if let FromRelay::Answer { .. } = line {
            // To a question, which was all.
            self.drop_local(conn);
        }
    }
}

/// Writes what an operator should know into the log.
fn tell(note: &Note) {
    match note {
        Note::Here { node, pid, epoch } => log::info!("{node} is process {pid}, epoch {epoch}"),
        Note::Left { node, pid, died: true } => log::info!("{node}, process {pid}, has gone"),
        Note::Left { node, pid, died: false } => log::info!("{node}, process {pid}, has left"),
        Note::Refused { what } => log::warn!("refused: {what}"),
        Note::Stuck { channel, for_ms, why } => {
            let (src, dst, chan) = (&channel.src, &channel.dst, channel.chan);
            log::warn!("{src} to {dst}/{chan} is stuck for {for_ms} ms: {why}");
        }
        Note::Gone { channel, first, exact } => {
            let (src, dst, chan) = (&channel.src, &channel.dst, channel.chan);
            let sure = if *exact { "" } else { ", perhaps earlier" };
            log::warn!("{dst} has died; of {src}/{chan} it lacks messages from {first} on{sure}");
        }
        Note::Broken { what } => log::error!("the protocol was broken: {what}"),
    }
}

/// Connections by what the machine calls them.
type ByConn<T> = HashMap<ConnId, T>;

/// Bytes to be moved to a connection.
type Moved = Evbuffer;
