//! The world: what all reactors of one simulation share.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::reactor::Place;

use super::desc::{DescId, Passed, Table, What};
use super::fault::{Fault, Faults, Tally};
use super::names::Names;
use super::reactor::SimReactor;
use super::rng::Rng;
use super::wire::{Parcel, Wire};

/// How a world is built.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What every random choice comes from, and whether this kernel rings counters for others.
    pub seed: u64,
    /// How often things go wrong.
    pub faults: Faults,
    /// Bytes a socket's receive buffer holds.
    pub socket_bytes: usize,
    /// How long bytes travel: shortest and longest.
    pub latency: (Duration, Duration),
    /// Descriptor numbers there are.
    pub fd_max: usize,
    /// Blocks a reactor may have out; receives are parked beyond.
    pub blocks_max: usize,
    /// A reactor that waits for ever while nothing can ever happen fails instead of sleeping.
    pub fail_when_stalled: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            seed: 1,
            faults: Faults::none(),
            socket_bytes: 128 * 1024,
            latency: (Duration::from_micros(5), Duration::from_micros(200)),
            fd_max: 1 << 16,
            blocks_max: 256,
            fail_when_stalled: false,
        }
    }
}

/// A kernel in memory. Cloning gives another handle on the same one.
#[derive(Clone)]
pub struct World {
    state: Rc<RefCell<State>>,
    closing: Closing,
}

/// Numbers whose last holder is gone; closed at the next access, because the last holder may go
/// while the state is borrowed.
type Closing = Rc<RefCell<Vec<i32>>>;

/// What keeps a virtual number open.
struct Keeper {
    number: i32,
    closing: Closing,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.closing.borrow_mut().push(self.number);
    }
}

/// Everything inside a world.
pub(super) struct State {
    pub epoch: Instant,
    /// Virtual nanoseconds since the epoch.
    pub clock: u64,
    pub rng: Rng,
    pub setup: Setup,
    pub tally: Tally,
    pub table: Table,
    pub names: Names,
    pub wire: Wire,
    /// How often each word of shared memory was rung.
    pub rings: BTreeMap<Place, u64>,
    pub violations: Vec<String>,
}

impl World {
    /// An empty world.
    pub fn new(setup: Setup) -> World {
        let state = State {
            // The only look at a real clock: virtual time needs an origin of type `Instant`.
            epoch: Instant::now(),
            clock: 0,
            rng: Rng::new(setup.seed),
            table: Table::new(setup.fd_max),
            names: Names::new(),
            wire: Wire::default(),
            rings: BTreeMap::new(),
            tally: Tally::default(),
            violations: Vec::new(),
            setup,
        };
        World { state: Rc::new(RefCell::new(state)), closing: Closing::default() }
    }

    /// A reactor in this world.
    pub fn reactor(&self) -> SimReactor {
        SimReactor::new(self.clone())
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.state().clock)
    }

    /// Descriptor numbers in use.
    pub fn open_fds(&self) -> usize {
        self.state().table.open()
    }

    /// Descriptions that exist: numbers, and connections nobody has accepted yet.
    pub fn descriptions(&self) -> usize {
        self.state().table.descs.len()
    }

    /// Faults injected so far.
    pub fn tally(&self) -> Tally {
        self.state().tally
    }

    /// Changes how often things go wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().setup.faults = faults;
    }

    /// Changes how many descriptor numbers there are.
    pub fn set_fd_max(&self, fd_max: usize) {
        self.state().table.fd_max = fd_max;
    }

    /// What users of the world did that the contract forbids.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// Lets a host name stand for addresses.
    pub fn add_host(&self, name: &str, addresses: &[IpAddr]) {
        self.state().names.hosts.insert(name.into(), addresses.to_vec());
    }

    /// Sends a signal to this process; it arrives at the next turn.
    pub fn raise(&self, signal: i32) {
        let mut state = self.state();
        let now = state.clock;
        state.wire.post(now, Parcel::Signal(signal));
    }

    /// Resets one connection chosen by `pick` among those that exist; false if there is none.
    pub fn reset_one(&self, pick: u64) -> bool {
        self.state().reset_one(pick)
    }

    /// The state, with every number closed whose last holder is gone.
    pub(super) fn state(&self) -> RefMut<'_, State> {
        let mut state = self.state.borrow_mut();
        loop {
            let number = self.closing.borrow_mut().pop();
            let Some(number) = number else { return state };
            state.close_number(number);
        }
    }

    /// Gives a description the lowest free number.
    pub(super) fn open(&self, state: &mut State, id: DescId) -> Option<Fd> {
        let number = state.table.number(id)?;
        Some(self.wrap(number))
    }

    /// An `Fd` over a number that the table has just given out.
    fn wrap(&self, number: i32) -> Fd {
        let keeper = Keeper { number, closing: Rc::clone(&self.closing) };
        Fd::from_other(number, FdKind::Socket, Box::new(keeper))
    }

    /// Installs the descriptors of a message. Those that find no number are dropped, and the
    /// second value says so.
    pub(super) fn install(&self, state: &mut State, passed: Vec<Passed>) -> (Vec<Fd>, bool) {
        let mut fds = Vec::with_capacity(passed.len());
        let mut truncated = false;
        for one in passed {
            match one {
                Passed::Real(fd) => fds.push(fd),
                Passed::Virtual(id) => {
                    match self.open(state, id) {
                        Some(fd) => fds.push(fd),
                        None => truncated = true,
                    }
                    state.release(id);
                }
            }
        }
        (fds, truncated)
    }
}

impl State {
    pub fn now(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.clock)
    }

    /// Whether to inject `fault` here; counts it if so.
    pub fn strikes(&mut self, fault: Fault) -> bool {
        let rate = self.setup.faults.rate(fault);
        let hit = self.rng.chance(rate);
        if hit {
            self.tally.count(fault);
        }
        hit
    }

    /// How long the next parcel travels.
    pub fn latency(&mut self) -> u64 {
        let (low, high) = self.setup.latency;
        self.rng.between(low.as_nanos() as u64, high.as_nanos() as u64)
    }

    /// Notes that somebody broke the contract.
    pub fn violation(&mut self, what: String) {
        if self.violations.len() < 100 {
            self.violations.push(what);
        }
    }

    fn close_number(&mut self, number: i32) {
        let at = number as usize;
        if let Some(id) = self.table.fds.get_mut(at).and_then(Option::take) {
            self.release(id);
        }
    }

    /// Lets go of a description; the last one closes it.
    pub fn release(&mut self, id: DescId) {
        let Some(desc) = self.table.descs.get_mut(&id) else { return };
        desc.refs -= 1;
        if desc.refs > 0 {
            return;
        }
        let desc = self.table.descs.remove(&id).expect("found a line above");
        match desc.what {
            What::Fresh(_) => self.names.forget(id),
            What::Signal { .. } | What::Event { .. } | What::Process { .. } => {}
            What::Listener(listener) => {
                self.names.forget(id);
                for waiting in listener.queue {
                    if let Some(end) = self.table.end(waiting) {
                        end.options.reset_on_close = true;
                    }
                    self.release(waiting);
                }
            }
            What::End(end) => {
                self.names.forget(id);
                self.close_end(*end);
            }
        }
    }
}
