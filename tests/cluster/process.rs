//! A process: the machine of the bus, and a user of it who sends numbered messages and writes down
//! what he gets.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use ringlane::bus::core::{ConnNo, Core, Do, Event, Limits, Post, Setup};
use ringlane::bus::local::{FromRelay, Nonce};
use ringlane::bus::memory::Memory;
use ringlane::bus::{BusError, PeerEvent, RelayEvent};
use ringlane::relay::core::Bell;
use ringlane::shm::crash::{self, Point};
use ringlane::shm::through::Flow;

use crate::message::{Letter, Read};
use crate::relay::Sock;

thread_local! {
    /// Points until the process that runs on this thread is killed; 0: it is not.
    static TRAP: Cell<u32> = const { Cell::new(0) };
    /// At which it was.
    static DIED_AT: Cell<Option<Point>> = const { Cell::new(None) };
}

struct Killed;

/// Counts the points of processes on this thread.
pub fn watch() {
    crash::watch(Some(Box::new(|point| match TRAP.get() {
        0 => {}
        1 => {
            TRAP.set(0);
            DIED_AT.set(Some(point));
            resume_unwind(Box::new(Killed));
        }
        left => TRAP.set(left - 1),
    })));
}

/// What happens to a process.
pub enum Heard {
    Connected(ConnNo),
    Failed(ConnNo),
    Said(ConnNo, FromRelay),
    HungUp(ConnNo),
    BellOpen,
    Rang(Bell),
    Tick,
    Consume,
    /// Sends so many messages on the channel at that place.
    Send(usize, u32),
    CloseChannels,
    Close,
}

/// A channel that a process sends on.
#[derive(Clone, Debug)]
pub struct Line {
    pub to: usize,
    pub name: String,
    pub chan: u16,
    /// Bytes of its ring.
    pub ring: u32,
    /// Some messages are worth nothing after a while, some go in pieces.
    pub ttl: bool,
    pub large: bool,
    /// Messages accepted, and which of them may be missing.
    pub letters: Vec<bool>,
    /// With which messages streams began.
    pub bases: Vec<u32>,
}

pub struct Process {
    pub node: usize,
    pub number: u32,
    pub core: Core,
    pub lines: Vec<Line>,
    pub conns: BTreeMap<ConnNo, Sock>,
    /// The connection whose bell this process has.
    pub bell: Option<Sock>,
    pub alive: bool,
    /// Nothing is heard before.
    pub stopped_until: Duration,
    pub pending: VecDeque<Heard>,
    /// There may be something to read.
    pub look: bool,
    /// Messages at a time, if it is slow.
    pub pace: Option<u32>,
    pub got: Rc<RefCell<Vec<Read>>>,
    pub told: Vec<PeerEvent>,
    /// All that it had, the present one last.
    pub epochs: Vec<u64>,
    /// A turn to consume, and a tick, are on their way.
    pub consuming: bool,
    pub tick_at: Option<u64>,
    /// Points until it is killed.
    pub trap: u32,
    pub closed_left: Option<u64>,
    pub over: Option<String>,
    /// It was killed there.
    pub died_at: Option<Point>,
    pub random: u64,
}

/// What came of a turn.
#[derive(Default)]
pub struct Outcome {
    pub published: bool,
    pub consumed: bool,
    pub todo: Vec<Do>,
    pub killed: bool,
    pub panicked: Option<String>,
}

impl Process {
    pub fn new(
        (node, name, number): (usize, &str, u32),
        epoch: u64,
        memory: &Memory,
        lines: Vec<Line>,
    ) -> Process {
        let nonce = Nonce(u128::from(number + 1).to_le_bytes());
        let limits = Limits { queue_bytes: 8 << 10, ..Limits::default() };
        let (node_name, memory) = (name.to_string(), memory.clone());
        let setup = Setup { node: node_name, epoch, nonce, replace: false, uid: 0, memory, limits };
        Process {
            node,
            number,
            core: Core::new(setup),
            lines,
            conns: BTreeMap::new(),
            bell: None,
            alive: true,
            stopped_until: Duration::ZERO,
            pending: VecDeque::new(),
            look: false,
            pace: None,
            got: Rc::default(),
            told: Vec::new(),
            epochs: vec![epoch],
            consuming: false,
            tick_at: None,
            trap: 0,
            closed_left: None,
            over: None,
            died_at: None,
            random: u64::from(number) << 32 | 0x5a5a,
        }
    }

    /// Its memory goes.
    pub fn bury(&mut self, memory: &Memory) {
        let setup = Setup {
            node: String::new(),
            epoch: self.core.epoch(),
            nonce: Nonce::default(),
            replace: false,
            uid: 0,
            memory: memory.clone(),
            limits: Limits::default(),
        };
        self.core = Core::new(setup);
        self.bell = None;
        self.pending.clear();
    }

    pub fn random(&mut self, below: u32) -> u32 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) as u32 % below
    }

    /// One turn, in which it is perhaps killed.
    pub fn turn(&mut self, at: Duration, heard: Heard) -> Outcome {
        TRAP.set(self.trap);
        let turn = catch_unwind(AssertUnwindSafe(|| self.run(at, heard)));
        self.trap = TRAP.take();
        match turn {
            Ok(outcome) => outcome,
            Err(payload) if payload.is::<Killed>() => {
                watch();
                self.died_at = DIED_AT.take();
                Outcome { killed: true, ..Outcome::default() }
            }
            Err(payload) => {
                let why = crate::quiet::why(&*payload);
                Outcome { panicked: Some(why), ..Outcome::default() }
            }
        }
    }

    fn run(&mut self, at: Duration, heard: Heard) -> Outcome {
        let now = at.as_millis() as u64;
        self.core.set_now(now);
        let mut outcome = Outcome::default();
        let mut consume = true;
        match heard {
            Heard::Connected(conn) => self.core.connected(conn),
            Heard::Failed(conn) => self.core.failed(conn),
            Heard::Said(conn, line) => self.core.said(conn, line),
            Heard::HungUp(conn) => self.core.hung_up(conn),
            Heard::BellOpen => {
                self.core.bell_open();
                self.look |= !crate::mutant::deaf();
            }
            Heard::Rang(Bell::Room) => self.core.rang(),
            Heard::Rang(Bell::Messages) => {
                self.core.rang();
                self.look = true;
                consume = self.pace.is_none();
            }
            Heard::Tick => self.core.tick(now),
            Heard::Consume => self.consuming = false,
            Heard::Send(line, messages) => self.send(line, messages),
            Heard::CloseChannels => self.close_channels(),
            Heard::Close => self.core.close(5_000),
        }
        self.hear_events();
        if consume && self.look {
            outcome.consumed = self.consume();
            self.hear_events();
        }
        outcome.published = self.core.publish();
        while let Some(todo) = self.core.next_do() {
            outcome.todo.push(todo);
        }
        outcome
    }

    fn send(&mut self, at: usize, messages: u32) {
        for _ in 0..messages {
            let spice = self.random(u32::MAX);
            let line = &self.lines[at];
            let whole = (line.ring / 4 - 64).min(60_000);
            let expires = line.ttl && spice.is_multiple_of(2);
            let large = line.large && spice.is_multiple_of(5);
            let size = match spice / 16 % 8 {
                _ if large => whole * 2 + spice % whole,
                0 => whole - spice % 64,
                1 => spice % whole,
                _ => spice % 200,
            };
            let counter = line.letters.len() as u32;
            let letter = Letter { from: self.number, counter, chan: line.chan };
            let ttl = expires.then_some(spice % 300 + 1);
            let post = Post { to: &line.name, chan: line.chan, key: None, ttl, large };
            match self.core.send(post, &letter.write(size)) {
                Ok(()) => self.lines[at].letters.push(expires),
                Err(BusError::WouldBlock | BusError::Closed) => return,
                Err(error) => {
                    self.over.get_or_insert_with(|| format!("send fails: {error}"));
                    return;
                }
            }
        }
    }

    fn close_channels(&mut self) {
        for line in &self.lines {
            self.core.close_channel(&line.name, line.chan);
        }
    }

    fn hear_events(&mut self) {
        while let Some(event) = self.core.next_event() {
            match event {
                Event::Peer(event) => self.told_of(event),
                Event::Relay(RelayEvent::Lost { .. }) => self.look |= !crate::mutant::deaf(),
                Event::Relay(RelayEvent::Here { .. }) => {}
                Event::Relay(event) => {
                    self.over.get_or_insert_with(|| format!("{event:?}"));
                }
                Event::Closed { left } => self.closed_left = Some(left),
                Event::Writable { .. } | Event::CallFailed { .. } => {}
            }
        }
    }

    fn told_of(&mut self, event: PeerEvent) {
        if let PeerEvent::Gone { node, chan, .. } = &event {
            let fits = |line: &&mut Line| *line.name == **node && line.chan == *chan;
            if let Some(line) = self.lines.iter_mut().find(fits) {
                line.bases.push(line.letters.len() as u32);
            }
        }
        self.told.push(event);
    }

    /// Reads what there is, or some of it.
    fn consume(&mut self) -> bool {
        let mut left = self.pace.unwrap_or(u32::MAX);
        let mut any = false;
        while left > 0 {
            let Some(mut taken) = self.core.take() else {
                self.look = false;
                break;
            };
            let most = left.min(1 + self.random(40));
            let got = Rc::clone(&self.got);
            let walked = taken.walk(&mut Vec::new(), most, &mut |seen| {
                got.borrow_mut().push(Read::of(&seen));
                Flow::Go
            });
            self.core.put(taken);
            any = true;
            left -= walked.shown.clamp(1, left);
        }
        any
    }
}
