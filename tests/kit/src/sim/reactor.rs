//! The simulator's reactor: push, cancel, turn.
//!
//! A turn is a loop of four: hand over what has arrived, step every op, deliver what is due, and
//! if that is nothing, move the clock to the next thing that will happen. Nothing else moves the
//! clock.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringlane_api::fd::Fd;
use ringlane_api::limits;
use ringlane_api::reactor::{
    Completion, Counters, EngineReport, Op, OpId, Outcome, Reactor, Sys, Token, Wake, forked,
};
use ringlane_api::segment::{Home, Parts, Segment};

use super::desc::DescId;
use super::fault::Fault;
use super::flight::{Due, Dues, Flight, Flights, Way};
use super::names::{errno, os};
use super::step::Step;
use super::world::World;

/// Virtual time that a turn itself takes, so that a program that only looks sees time pass.
const TURN_NANOS: u64 = 1_000;

/// A multishot op brings at most so many completions per pass.
const PASS_MAX: u64 = 4;

/// A reactor over a [`World`].
pub struct SimReactor {
    pub(super) world: World,
    pub(super) home: Rc<Home>,
    pub(super) flights: Flights,
    pub(super) counters: Counters,
    dues: Dues,
    /// Ops per descriptor and way that are not yet known to be over.
    busy: BTreeMap<(i32, Way), u32>,
    /// Receives that are over, by the description they read from, for strays.
    over: VecDeque<(Token, DescId)>,
    waker: Arc<SimWaker>,
}

#[derive(Default)]
struct SimWaker {
    woken: Mutex<bool>,
    rings: Condvar,
}

impl Wake for SimWaker {
    fn wake(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.rings.notify_all();
    }
}

impl SimWaker {
    fn take(&self) -> bool {
        std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sleeps in real time: only another thread can end this.
    fn sleep(&self) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !*woken {
            woken = self.rings.wait(woken).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl SimReactor {
    pub(super) fn new(world: World) -> SimReactor {
        let home = Home::new(limits::BLOCK_BYTES, limits::HOME_BLOCKS_MAX);
        home.set_scarce_at(world.state().setup.blocks_max * 3 / 4);
        SimReactor {
            world,
            home,
            flights: Flights::default(),
            counters: Counters::default(),
            dues: Dues::default(),
            busy: BTreeMap::new(),
            over: VecDeque::new(),
            waker: Arc::default(),
        }
    }

    /// Notes an op that moves bytes, and that no other does so on the same descriptor.
    fn mark_busy(&mut self, flight: &Flight) {
        let Some(way) = way_of(flight) else { return };
        let Some(number) = flight.fd().map(Fd::number) else { return };
        let count = self.busy.entry((number, way)).or_default();
        *count += 1;
        if *count > 1 {
            let what = flight.op.name();
            self.world.state().violation(format!("two {what}s in flight on descriptor {number}"));
        }
    }

    fn check(&self, op: &Op) {
        let wrong = match op {
            Op::Accept { limit: 0, .. }
            | Op::Recv { limit: 0, .. }
            | Op::RecvMsg { limit: 0, .. } => "a limit of 0",
            Op::Send { parts, .. } | Op::SendMsg { parts, .. }
                if parts.iter().any(|part| part.file().is_some()) =>
            {
                "a file range in a gathered send"
            }
            Op::SendMsg { parts, .. } if parts.is_empty() => "descriptors without a byte",
            Op::SendFile { range, .. } if range.file().is_none() => "sendfile of memory",
            _ => return,
        };
        self.world.state().violation(format!("{}: {wrong}", op.name()));
    }

    /// Makes a completion for `id`; it is delivered later.
    fn make(&mut self, id: OpId, step: Step) {
        let (result, more, parts) = match step {
            Step::Idle => return,
            Step::More(outcome) => (Ok(outcome), true, None),
            Step::Last(result, parts) => (result, false, parts),
        };
        let Some(flight) = self.flights.get(id) else { return };
        let at = draw_place(&self.world, flight.latest);
        flight.latest = at;
        flight.undelivered += 1;
        let token = flight.token;
        let completion = Completion { token, result, more, parts };
        let mut due = Due { id, completion, hold: None, ends: None };
        if !more && let Some(flight) = self.flights.remove(id) {
            due.ends = way_of(&flight);
            if due.ends == Some(Way::In) {
                let number = flight.fd().map_or(-1, Fd::number);
                let desc = self.world.state().table.id(number);
                self.over.extend(desc.map(|desc| (token, desc)));
            }
            let closing = matches!(flight.op, Op::Close { .. });
            due.hold = flight.fd().filter(|_| !closing).cloned();
        }
        self.dues.add(at, due);
    }

    /// Gives every op a chance to get on.
    fn step_all(&mut self) {
        let places = self.flights.places();
        // Another first op each time: no op is served first for ever.
        let first = self.world.state().rng.below(places as u64) as usize;
        for place in (first..places).chain(0..first) {
            for _ in 0..PASS_MAX {
                let Some(id) = self.flights.at(place) else { break };
                let step = self.step(id);
                let again = matches!(step, Step::More(_));
                self.make(id, step);
                if !again {
                    break;
                }
            }
        }
    }

    fn step(&mut self, id: OpId) -> Step {
        let clock = self.world.state().clock;
        let Some(flight) = self.flights.get(id) else { return Step::Idle };
        if flight.cancelled {
            return self.step_cancelled(id);
        }
        if flight.not_before > clock {
            return Step::Idle;
        }
        if let Op::Close { fd } = &flight.op {
            let fd = fd.clone();
            let mut others = self.flights.iter().filter(|flight| {
                !matches!(flight.op, Op::Close { .. }) && flight.fd().is_some_and(|f| f.same(&fd))
            });
            let waits = others.next().is_some() || self.dues.holds(&fd);
            return if waits { Step::Idle } else { Step::done() };
        }
        self.advance(id)
    }

    /// A cancelled op ends now; sometimes it was quicker.
    fn step_cancelled(&mut self, id: OpId) -> Step {
        let Some(flight) = self.flights.get(id) else { return Step::Idle };
        flight.not_before = 0;
        let rate = self.world.state().setup.faults.rate(Fault::CancelRace);
        if self.world.state().rng.chance(rate) {
            let quick = match self.advance(id) {
                Step::Idle => None,
                Step::More(outcome) => Some(Step::Last(Ok(outcome), None)),
                last => Some(last),
            };
            if let Some(step) = quick {
                self.world.state().tally.count(Fault::CancelRace);
                return step;
            }
        }
        Step::Last(Err(os(errno::ECANCELED)), self.take_parts(id))
    }

    /// The memory of a send that fails.
    pub(super) fn take_parts(&mut self, id: OpId) -> Option<Box<Parts>> {
        let flight = self.flights.get(id)?;
        match std::mem::replace(&mut flight.op, Op::Nop) {
            Op::Send { fd, parts } | Op::SendMsg { fd, parts, .. } => {
                flight.op = spent(fd);
                Some(Box::new(parts))
            }
            Op::SendFile { fd, range } => {
                flight.op = spent(fd);
                Some(Box::new(Parts { first: range, rest: Vec::new() }))
            }
            other => {
                flight.op = other;
                None
            }
        }
    }

    /// Delivers what is due.
    fn deliver(&mut self, done: &mut Vec<Completion>) -> usize {
        let clock = self.world.state().clock;
        let mut count = 0;
        while count < limits::TURN_COMPLETIONS_MAX
            && let Some(due) = self.dues.pop(clock)
        {
            count += 1;
            if let Some(flight) = self.flights.get(due.id) {
                flight.undelivered -= 1;
            }
            if let (Some(way), Some(fd)) = (due.ends, &due.hold)
                && let Some(busy) = self.busy.get_mut(&(fd.number(), way))
            {
                *busy = busy.saturating_sub(1);
            }
            done.push(due.completion);
        }
        self.counters.cqes += count as u64;
        count
    }

    /// Sometimes answers for a receive of a connection that is long gone.
    fn stray(&mut self, done: &mut Vec<Completion>) {
        let Some(&(token, desc)) = self.over.front() else { return };
        if self.world.state().table.end(desc).is_some() {
            // Still there: look at another one next time.
            self.over.rotate_left(1);
            return;
        }
        self.over.pop_front();
        if self.world.state().strikes(Fault::Stray) {
            let bytes = Segment::copied(b"bytes of a connection that is long gone");
            let result = Ok(Outcome::Received(bytes));
            done.push(Completion { token, result, more: true, parts: None });
        }
    }

    /// What waits for ever, for the report of a stall.
    fn stall(&self) -> String {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for flight in self.flights.iter() {
            *kinds.entry(flight.op.name()).or_default() += 1;
        }
        format!("stalled: nothing can ever happen in this world; in flight: {kinds:?}")
    }

    /// When something will happen next.
    fn next_event(&self) -> Option<u64> {
        let (wire, clock) = {
            let state = self.world.state();
            (state.wire.next(), state.clock)
        };
        let flights = self.flights.iter().map(|flight| flight.not_before).filter(|at| *at > clock);
        wire.into_iter().chain(self.dues.next()).chain(flights).min()
    }
}

/// A send whose memory was taken out: only its descriptor is still of use.
fn spent(fd: Fd) -> Op {
    Op::SendFile { fd, range: Segment::copied(&[]) }
}

fn way_of(flight: &Flight) -> Option<Way> {
    match flight {
        _ if flight.sends() => Some(Way::Out),
        _ if flight.receives() => Some(Way::In),
        _ => None,
    }
}

/// When, and in which order among others, a completion is delivered.
fn draw_place(world: &World, latest: (u64, u32)) -> (u64, u32) {
    let mut state = world.state();
    let mut place = (state.clock, 0);
    if state.strikes(Fault::Late) {
        place.0 += state.rng.between(1_000, 2_000_000);
    }
    if state.strikes(Fault::Reordered) {
        place.1 = state.rng.draw() as u32;
    }
    place.max(latest)
}

impl Reactor for SimReactor {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn now(&self) -> Instant {
        self.world.state().now()
    }

    fn push(&mut self, token: Token, op: Op) -> OpId {
        self.counters.sqes += 1;
        self.check(&op);
        if let Op::Close { fd } = &op {
            for other in self.flights.iter_mut() {
                other.cancelled |= other.fd().is_some_and(|f| f.same(fd));
            }
        }
        let flight = Flight::new(token, op);
        self.mark_busy(&flight);
        self.flights.add(flight)
    }

    fn cancel(&mut self, op: OpId) {
        self.counters.sqes += 1;
        if let Some(flight) = self.flights.get(op) {
            flight.cancelled = true;
        }
    }

    fn turn(&mut self, wait: Option<Duration>, done: &mut Vec<Completion>) -> io::Result<()> {
        self.counters.turns += 1;
        self.counters.syscalls += 1;
        let deadline = {
            let mut state = self.world.state();
            state.clock += TURN_NANOS;
            if state.strikes(Fault::EmptyTurn) {
                self.counters.enter_errors += 1;
                return Ok(());
            }
            state.socket_dies();
            wait.map(|wait| state.clock.saturating_add(wait.as_nanos() as u64))
        };
        let mut fresh = true;
        loop {
            self.world.state().deliver();
            self.step_all();
            if self.deliver(done) > 0 {
                self.stray(done);
                return Ok(());
            }
            if self.waker.take() {
                return Ok(());
            }
            let clock = self.world.state().clock;
            if deadline.is_some_and(|at| at <= clock) {
                return Ok(());
            }
            if std::mem::take(&mut fresh) && self.world.state().strikes(Fault::SpuriousWake) {
                return Ok(());
            }
            // A step may have posted something that has arrived already.
            let next = self.next_event().into_iter().chain(deadline).min();
            if let Some(at) = next {
                self.world.state().clock = at.max(clock);
                continue;
            }
            if self.world.state().setup.fail_when_stalled {
                return Err(io::Error::other(self.stall()));
            }
            self.waker.sleep();
        }
    }

    fn sys(&mut self) -> &mut dyn Sys {
        self
    }

    fn waits_on_words(&self) -> bool {
        true
    }

    fn home(&self) -> &Rc<Home> {
        &self.home
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn reinit(&mut self) -> io::Result<()> {
        for place in 0..self.flights.places() {
            let Some(id) = self.flights.at(place) else { continue };
            let Some(flight) = self.flights.get(id) else { continue };
            let parents = flight.sends()
                || matches!(
                    flight.op,
                    Op::Connect { .. } | Op::FutexWait { .. } | Op::Resolve { .. }
                );
            if parents {
                let parts = self.take_parts(id);
                self.make(id, Step::Last(Err(forked()), parts));
            }
        }
        Ok(())
    }

    fn report(&self) -> EngineReport {
        let seed = self.world.state().setup.seed;
        EngineReport {
            engine: "sim",
            tier: "sim",
            details: vec![format!("seed {seed}")],
            ..EngineReport::default()
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
