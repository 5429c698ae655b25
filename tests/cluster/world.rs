//! The cluster in virtual time: who runs when, and how long everything takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringlane::bus::memory::Memory;
use ringlane_kit::sim::Rng;

use crate::check::Book;
use crate::mutant;
use crate::net::{Socket, WireState};
use crate::plan::Plan;
use crate::process::{Heard, Process};
use crate::relay::{Happened, Report, Sock, Start, Thread, Trap, Wire};
use crate::tally::{Fault, Tally};

/// Sockets of a host at which relays listen: the relay's own, and those of its successors.
pub const SLOTS: usize = 9;

/// How a relay stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stand {
    Runs,
    /// Between turns, or amid one.
    Stopped {
        amid: bool,
    },
    Dead,
}

pub struct Relay {
    pub thread: Thread,
    pub host: usize,
    pub slot: usize,
    pub incarnation: u64,
    pub stand: Stand,
    pub inbox: Vec<Happened>,
    /// A turn is on its way.
    pub due: bool,
    /// The time of a tick that is on its way.
    pub tick_at: Option<u64>,
    /// Where it stops.
    pub trap: Trap,
    /// It is killed there, or stands still for so long.
    pub then: Then,
    /// Another one was started over it.
    pub replaced: bool,
}

/// What becomes of a relay that has run into its trap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    Killed,
    Stopped(u64),
}

/// Something that comes later.
pub enum Later {
    Relay(usize, Happened),
    Turn(usize),
    Tick(usize),
    Go(usize),
    Zombie(usize),
    StartRelay(usize),
    TakeOver(usize, usize),
    Process(usize, Heard),
    Wake(usize),
    Send(usize, usize),
    StartProcess(usize),
    Deliver(Wire, usize),
    Dialled { relay: usize, dial: u32, host: usize },
    Heal(usize, usize),
    Fault,
}

pub struct World {
    pub rng: Rng,
    pub plan: Plan,
    /// Microseconds.
    pub now: u64,
    pub origin: Instant,
    pub queue: BTreeMap<(u64, u64), Later>,
    serial: u64,
    pub relays: Vec<Relay>,
    pub slots: Vec<[Option<usize>; SLOTS]>,
    pub processes: Vec<Process>,
    /// Who is which node now.
    pub current: Vec<Option<usize>>,
    pub socks: BTreeMap<Sock, Socket>,
    pub wires: BTreeMap<Wire, WireState>,
    pub next: u32,
    /// Pairs of hosts between which nothing goes.
    pub cut: Vec<(usize, usize)>,
    pub book: Book,
    pub tally: Tally,
    pub wrong: Option<String>,
    pub calm: bool,
    /// Nobody comes back any more.
    pub over: bool,
    pub memory: Memory,
    pub mutant: mutant::Planted,
    pub log: Option<Vec<String>>,
}

impl World {
    pub fn new(seed: u64, mutant: mutant::Planted, logs: bool) -> World {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let (hosts, nodes) = (plan.hosts, plan.nodes.len());
        crate::process::watch();
        let mut world = World {
            rng,
            plan,
            now: 1_000,
            origin: crate::origin(),
            queue: BTreeMap::new(),
            serial: 0,
            relays: Vec::new(),
            slots: vec![[None; SLOTS]; hosts],
            processes: Vec::new(),
            current: vec![None; nodes],
            socks: BTreeMap::new(),
            wires: BTreeMap::new(),
            next: 1,
            cut: Vec::new(),
            book: Book::default(),
            tally: Tally::default(),
            wrong: None,
            calm: false,
            over: false,
            memory: Memory::new().expect("a page"),
            mutant,
            log: logs.then(Vec::new),
        };
        for host in 0..hosts {
            world.soon(2_000, Later::StartRelay(host));
        }
        for node in 0..nodes {
            world.soon(300_000, Later::StartProcess(node));
        }
        let every = world.plan.fault_every;
        world.soon(2 * every, Later::Fault);
        for (flag, fault) in [
            (world.plan.slow_kernel, Fault::SlowKernel),
            (world.plan.slow_consumers, Fault::SlowConsumer),
        ] {
            if flag {
                world.tally.count(fault);
            }
        }
        world
    }

    pub fn time(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    pub fn log(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            log.push(format!("{:>10} {}", now, what()));
        }
    }

    pub fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.wrong.is_none() {
            let what = what();
            self.log(|| format!("WRONG {what}"));
            self.wrong = Some(what);
        }
    }

    pub fn at(&mut self, at: u64, later: Later) {
        self.serial += 1;
        self.queue.insert((at.max(self.now), self.serial), later);
    }

    /// Within so many microseconds.
    pub fn soon(&mut self, within: u64, later: Later) {
        let at = self.now + 1 + self.rng.below(within);
        self.at(at, later);
    }

    /// How long something takes that is told.
    pub fn latency(&mut self) -> u64 {
        let most = self.plan.latency;
        match self.rng.below(50) {
            0 => self.rng.below(40 * most),
            1..10 => self.rng.below(4 * most),
            _ => self.rng.below(most),
        }
    }

    /// Runs what is next; false if there is nothing, or something went wrong.
    pub fn step(&mut self) -> bool {
        let Some(((at, _), later)) = self.queue.pop_first() else { return false };
        self.now = at;
        match later {
            Later::Relay(relay, happened) => self.happen(relay, happened),
            Later::Turn(relay) => {
                self.relays[relay].due = false;
                self.turn(relay);
            }
            Later::Tick(relay) => {
                if self.relays[relay].tick_at.is_some_and(|tick| tick <= at) {
                    self.relays[relay].tick_at = None;
                    self.happen(relay, Happened::Tick);
                }
            }
            Later::Go(relay) => self.go(relay),
            Later::Zombie(relay) => self.end_zombie(relay),
            Later::StartRelay(host) => self.start_relay(host),
            Later::TakeOver(host, relay) => self.take_over(host, relay),
            Later::Process(process, heard) => self.process(process, heard),
            Later::Wake(process) => self.wake_process(process),
            Later::Send(process, line) => self.send(process, line),
            Later::StartProcess(node) => self.start_process(node),
            Later::Deliver(wire, side) => self.deliver(wire, side),
            Later::Dialled { relay, dial, host } => self.dialled(relay, dial, host),
            Later::Heal(a, b) => self.heal(a, b),
            Later::Fault => self.fault(),
        }
        self.wrong.is_none()
    }

    /// Something happens to a relay, which has a turn soon.
    pub fn happen(&mut self, relay: usize, happened: Happened) {
        if self.relays[relay].stand == Stand::Dead {
            return;
        }
        self.relays[relay].inbox.push(happened);
        self.schedule_turn(relay);
    }

    pub fn schedule_turn(&mut self, relay: usize) {
        let it = &mut self.relays[relay];
        if it.stand == Stand::Runs && !std::mem::replace(&mut it.due, true) {
            let within = self.plan.latency / 4 + 1;
            self.soon(within, Later::Turn(relay));
        }
    }

    fn turn(&mut self, relay: usize) {
        if self.relays[relay].stand != Stand::Runs {
            return;
        }
        self.set_trap(relay);
        let at = self.time();
        let it = &mut self.relays[relay];
        let happened = std::mem::take(&mut it.inbox);
        for socket in self.socks.values_mut().filter(|socket| socket.relay == relay) {
            socket.wants = false;
        }
        let trap = it.trap;
        let report = it.thread.run(crate::relay::Job::Turn { at, happened, trap });
        self.hear(relay, report);
    }

    /// Takes what a relay's thread reports.
    pub fn hear(&mut self, relay: usize, report: Report) {
        let name = self.relay_name(relay);
        match report {
            Report::Done(done) => {
                self.tally.points += done.points;
                self.relays[relay].trap = done.trap;
                self.effects(relay, done.effects);
                for (sock, wants) in done.wants {
                    if let Some(socket) = self.socks.get_mut(&sock) {
                        socket.wants = wants;
                    }
                }
                if done.more {
                    self.schedule_turn(relay);
                }
                self.schedule_tick(relay, done.wake);
            }
            Report::At(step, effects) => {
                self.effects(relay, effects);
                let then = self.relays[relay].then;
                self.log(|| format!("{name} at {step:?}: {then:?}"));
                self.trapped(relay, then);
            }
            Report::Status(_) | Report::Dead => {}
            Report::Panicked(why) => self.fail(|| format!("{name} panicked: {why}")),
        }
    }

    fn schedule_tick(&mut self, relay: usize, wake: Option<Duration>) {
        let next = self.now + 100_000;
        let wake = wake.map_or(next, |wake| wake.as_micros() as u64 + 1).clamp(self.now + 1, next);
        let it = &mut self.relays[relay];
        if it.tick_at.is_none_or(|at| at > wake) {
            it.tick_at = Some(wake);
            self.at(wake, Later::Tick(relay));
        }
    }

    pub fn relay_name(&self, relay: usize) -> String {
        format!("relay {}{}", crate::HOSTS[self.relays[relay].host], relay)
    }

    pub fn spawn_relay(&mut self, host: usize, slot: usize) {
        let incarnation = self.relays.len() as u64 + 1;
        let start = Start {
            host,
            hosts: self.plan.hosts,
            config: self.plan.config.clone(),
            incarnation,
            origin: self.origin,
            at: self.time(),
            slow: self.plan.slow_kernel,
            mutant: self.mutant,
        };
        let relay = self.relays.len();
        self.relays.push(Relay {
            thread: Thread::spawn(start),
            host,
            slot,
            incarnation,
            stand: Stand::Runs,
            inbox: Vec::new(),
            due: false,
            tick_at: None,
            trap: Trap::default(),
            then: Then::Killed,
            replaced: false,
        });
        self.slots[host][slot] = Some(relay);
        let name = self.relay_name(relay);
        self.log(|| format!("{name} starts at slot {slot}"));
        self.happen(relay, Happened::Tick);
    }

    /// A relay that is not replaced and not dead.
    pub fn serving(&self, host: usize) -> Option<usize> {
        let lives = |relay: &usize| self.relays[*relay].stand != Stand::Dead;
        (0..self.relays.len()).filter(|at| self.relays[*at].host == host).rfind(lives)
    }

    fn start_relay(&mut self, host: usize) {
        if self.serving(host).is_some() {
            return;
        }
        self.spawn_relay(host, 0);
    }
}
