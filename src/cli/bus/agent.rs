//! A process on the bus that does what it is told on stdin and counts what comes: for `ringlane
//! demo`, and for tests of whole clusters.
//!
//! ```text
//!   pace TO CHAN RATE COUNT [BYTES]  sends COUNT messages at RATE per second; says `paced TO`
//!   burst TO CHAN COUNT BYTES  sends as fast as it may; says `burst TO COUNT NANOSECONDS`
//!   mark                       says what came since the last mark, `from` lines, then `marked`
//!   stop                       sends no more; says `stopped` when everything is acknowledged
//! ```
//!
//! It says `here` when the relay has taken it in, `peer …` and `relay …` of what it hears. Every
//! message has its number, and the time when it was sent; what comes is checked against the number
//! before it. With `--log` each message that was accepted is written to a file, and each that was
//! consumed, before its callback returns, so that a log outlives the process that is killed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use hdrhistogram::Histogram;
use nix::time::{ClockId, clock_gettime};
use ringlane::bus::{Bus, BusError, Message, Options, PeerEvent, RelayEvent, SendOptions};
use ringlane::prelude::{EventBase, New, READ, Signal};
use ringlane::reactor::Config;
use ringlane::{Bufferevent, Eol};

use crate::cli::serve::say;

/// Bytes of a paced message.
const BYTES: usize = 64;

/// Number, time: what every message begins with.
const HEAD_BYTES: usize = 16;

/// A record of the log: number, epoch of the sender or 0, nanoseconds of the monotonic clock,
/// number in the stream or 0, channel; `<` consumed, `>` accepted; the other node's name.
const LOG_BYTES: usize = 48;

/// How often paced messages leave.
const STEP: Duration = Duration::from_millis(1);

/// Messages of a burst that are accepted before others have their turn.
const GULP: u64 = 4096;

/// The longest latency that is told apart, in nanoseconds.
const LATENCY_MAX: u64 = 600_000_000_000;

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// The node.
    name: String,
    /// The relay's socket.
    #[arg(long)]
    socket: String,
    /// Writes down what was accepted and consumed: 48 bytes for each message.
    #[arg(long)]
    log: Option<PathBuf>,
    /// Ends the process that has the name.
    #[arg(long)]
    replace: bool,
}

/// Messages that are being sent to a peer.
struct Flow {
    to: String,
    chan: u16,
    /// Per second; none is as fast as it may.
    rate: Option<u64>,
    left: u64,
    bytes: usize,
    begun: u64,
    /// Of those accepted, when the last one was due.
    due: u64,
    all: u64,
}

/// What came from a peer on a channel.
struct Heard {
    next: u64,
    epoch: u64,
    got: u64,
    lost: u64,
    doubled: u64,
    latency: Histogram<u64>,
}

struct Agent {
    bus: Bus,
    flows: RefCell<Vec<Flow>>,
    /// The next number to a peer, by name and channel.
    numbers: RefCell<BTreeMap<(String, u16), u64>>,
    heard: RefCell<BTreeMap<(String, u16), Heard>>,
    log: Option<RefCell<File>>,
    /// What was accepted and is not in the log yet: in the turn before, and since.
    accepted: RefCell<[Vec<u8>; 2]>,
    stopping: Cell<bool>,
    payload: RefCell<Vec<u8>>,
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    time.map_or(0, |time| time.as_nanos() as u64)
}

/// Runs until stdin ends, or a signal comes.
pub fn run(config: &Config, asked: &Asked) -> Result<()> {
    let base = EventBase::with_config(config)?;
    let options = Options { replace: asked.replace, ..Options::default() };
    let bus = Bus::open_with(&base, &asked.name, &asked.socket, &options)?;
    let log = match &asked.log {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Some(RefCell::new(file.with_context(|| path.display().to_string())?))
        }
        None => None,
    };
    let agent = Rc::new(Agent {
        bus: bus.clone(),
        flows: RefCell::default(),
        numbers: RefCell::default(),
        heard: RefCell::default(),
        log,
        accepted: RefCell::default(),
        stopping: Cell::new(false),
        payload: RefCell::new(vec![0; 1 << 20]),
    });
    let hears = Rc::clone(&agent);
    bus.on_message(move |message| hears.hear(message));
    let tells = Rc::clone(&agent);
    bus.on_peer(move |event| tells.tell_peer(event));
    bus.on_relay(tell_relay);
    let writes = Rc::clone(&agent);
    bus.on_writable(move |_, _| writes.send());
    let paces = Rc::clone(&agent);
    base.every(STEP, move |_| {
        paces.write_accepted();
        paces.send();
    });
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("stdin")?;
    let orders = base.from_fd(stdin).context("stdin")?;
    agent.obey(&base, &orders);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        base.on_signal(signal, |base| base.stop())?;
    }
    base.dispatch()?;
    let left = bus.close_now(Duration::from_secs(5))?;
    if left > 0 {
        bail!("{left} messages were not acknowledged");
    }
    Ok(())
}

impl Agent {
    /// Reads orders.
    fn obey(self: &Rc<Self>, base: &EventBase, orders: &Bufferevent) {
        let agent = Rc::clone(self);
        orders.on_read(move |orders| {
            while let Some(line) = orders.input().readln(Eol::Lf) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let words: Vec<&str> = line.split_whitespace().collect();
                if let Err(error) = agent.order(&words) {
                    say(&format!("error {line}: {error:#}"));
                }
            }
        });
        let base = base.clone();
        orders.on_event(move |_, event| {
            if event.is_end() {
                base.stop();
            }
        });
        orders.enable(READ);
    }

    fn order(self: &Rc<Self>, words: &[&str]) -> Result<()> {
        match words {
            ["pace", to, chan, rate, count] => {
                self.flow(to, chan.parse()?, Some(rate.parse()?), count.parse()?, BYTES);
            }
            ["pace", to, chan, rate, count, bytes] => {
                let (rate, bytes) = (Some(rate.parse()?), bytes.parse()?);
                self.flow(to, chan.parse()?, rate, count.parse()?, bytes);
            }
            ["burst", to, chan, count, bytes] => {
                self.flow(to, chan.parse()?, None, count.parse()?, bytes.parse()?);
            }
            ["mark"] => self.mark(),
            ["stop"] => self.stop(),
            _ => bail!("no such order"),
        }
        Ok(())
    }

    fn flow(self: &Rc<Self>, to: &str, chan: u16, rate: Option<u64>, count: u64, bytes: usize) {
        let (to, begun) = (to.to_string(), now());
        let bytes = bytes.clamp(HEAD_BYTES, 1 << 20);
        let (left, all, due) = (count, count, begun);
        self.flows.borrow_mut().push(Flow { to, chan, rate, left, bytes, begun, due, all });
        self.send();
    }

    /// Sends what is due, as far as there is room.
    fn send(self: &Rc<Self>) {
        let mut flows = std::mem::take(&mut *self.flows.borrow_mut());
        flows.retain_mut(|flow| {
            if !self.stopping.get() {
                self.send_of(flow);
            }
            if flow.left > 0 || self.bus.unacknowledged() > 0 {
                return !self.stopping.get();
            }
            match flow.rate {
                Some(_) => say(&format!("paced {}", flow.to)),
                None => say(&format!("burst {} {} {}", flow.to, flow.all, now() - flow.begun)),
            }
            false
        });
        let more = std::mem::replace(&mut *self.flows.borrow_mut(), flows);
        self.flows.borrow_mut().extend(more);
        let endless = self.flows.borrow().iter().any(|flow| flow.rate.is_none() && flow.left > 0);
        if self.stopping.get() && self.bus.unacknowledged() == 0 {
            self.stopping.set(false);
            say("stopped");
        } else if endless && let Some(base) = self.bus.base() {
            let agent = Rc::clone(self);
            base.defer(move |_| agent.send());
        }
    }

    fn send_of(&self, flow: &mut Flow) {
        let time = now();
        let gulp = match flow.rate {
            Some(rate) => {
                let step = 1_000_000_000 / rate.max(1);
                let due = (time.saturating_sub(flow.due) / step).min(flow.left);
                flow.due += due * step;
                due
            }
            None => flow.left.min(GULP),
        };
        let mut numbers = self.numbers.borrow_mut();
        let number = numbers.entry((flow.to.clone(), flow.chan)).or_insert(1);
        let mut payload = self.payload.borrow_mut();
        let options = SendOptions { chan: flow.chan, ..SendOptions::default() };
        for sent in 0..gulp {
            payload[..8].copy_from_slice(&number.to_le_bytes());
            payload[8..HEAD_BYTES].copy_from_slice(&now().to_le_bytes());
            match self.bus.send_with(&flow.to, &options, &payload[..flow.bytes]) {
                Ok(()) => {
                    self.write_down(b'>', *number, (0, 0), flow.chan, &flow.to);
                    *number += 1;
                    flow.left -= 1;
                }
                Err(BusError::WouldBlock) => {
                    // What was due and found no room stays due.
                    if let Some(rate) = flow.rate {
                        flow.due -= (gulp - sent) * (1_000_000_000 / rate.max(1));
                    }
                    return;
                }
                Err(error) => {
                    say(&format!("error to {}: {error}", flow.to));
                    flow.left = 0;
                    return;
                }
            }
        }
    }

    fn hear(&self, message: &Message<'_>) {
        let Some((head, _)) = message.bytes().split_at_checked(HEAD_BYTES) else { return };
        let word = |at: usize| {
            u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes are eight"))
        };
        let (number, sent) = (word(0), word(8));
        let mut heard = self.heard.borrow_mut();
        let one =
            heard.entry((message.from().to_string(), message.chan())).or_insert_with(Heard::new);
        if one.epoch != message.epoch() {
            // Another instance of the sender, which counts from one.
            (one.epoch, one.next) = (message.epoch(), 1);
        }
        one.got += 1;
        match number.cmp(&one.next) {
            std::cmp::Ordering::Less => one.doubled += 1,
            _ => {
                one.lost += number - one.next;
                one.next = number + 1;
            }
        }
        one.latency.saturating_record(now().saturating_sub(sent).max(1));
        let stream = (message.epoch(), message.seq());
        self.write_down(b'<', number, stream, message.chan(), message.from());
    }

    /// Writes a message into the log: one that was consumed at once.
    fn write_down(&self, way: u8, number: u64, stream: (u64, u32), chan: u16, peer: &str) {
        if self.log.is_none() {
            return;
        }
        let mut record = [0; LOG_BYTES];
        record[..8].copy_from_slice(&number.to_le_bytes());
        record[8..16].copy_from_slice(&stream.0.to_le_bytes());
        record[16..24].copy_from_slice(&now().to_le_bytes());
        record[24..28].copy_from_slice(&stream.1.to_le_bytes());
        record[28..30].copy_from_slice(&chan.to_le_bytes());
        record[30] = way;
        let n = peer.len().min(LOG_BYTES - 31);
        record[31..31 + n].copy_from_slice(&peer.as_bytes()[..n]);
        match way {
            b'<' => self.write_log(&record),
            _ => self.accepted.borrow_mut()[1].extend_from_slice(&record),
        }
    }

    fn write_log(&self, records: &[u8]) {
        let Some(log) = &self.log else { return };
        if let Err(error) = log.borrow_mut().write_all(records) {
            say(&format!("error log: {error}"));
        }
    }

    /// Writes down what was accepted before the last turn: the bus publishes at the end of a turn,
    /// and what is in the log is to be safe from the death of this process.
    fn write_accepted(&self) {
        let [old, new] = &mut *self.accepted.borrow_mut();
        if !old.is_empty() {
            self.write_log(old);
        }
        std::mem::swap(old, new);
        new.clear();
    }

    fn tell_peer(&self, event: &PeerEvent) {
        if let PeerEvent::Gone { node, chan, epoch, first, exact, sent, .. } = event {
            // The next message begins the next stream.
            let numbers = self.numbers.borrow();
            let next = numbers.get(&(node.to_string(), *chan)).copied().unwrap_or(1);
            let what = format!("first {first} exact {exact} sent {sent} next {next}");
            return say(&format!("peer {node} {chan} gone {epoch} {what}"));
        }
        tell_peer(event);
    }

    /// Says what came since the last mark.
    fn mark(&self) {
        for ((from, chan), heard) in self.heard.borrow_mut().iter_mut() {
            let quantile = |q: f64| heard.latency.value_at_quantile(q);
            say(&format!(
                "from {from} {chan} got {} next {} lost {} doubled {} p50 {} p99 {} max {} \
                 epoch {}",
                heard.got,
                heard.next,
                heard.lost,
                heard.doubled,
                quantile(0.5),
                quantile(0.99),
                heard.latency.max(),
                heard.epoch,
            ));
            heard.latency.reset();
        }
        say("marked");
    }

    fn stop(self: &Rc<Self>) {
        for flow in self.flows.borrow_mut().drain(..) {
            let sent = flow.all - flow.left;
            say(&format!("sent {} {} {sent}", flow.to, flow.chan));
        }
        self.stopping.set(true);
        self.send();
    }
}

impl Heard {
    fn new() -> Heard {
        let latency = Histogram::new_with_max(LATENCY_MAX, 3).expect("the bounds are right");
        Heard { next: 1, epoch: 0, got: 0, lost: 0, doubled: 0, latency }
    }
}

fn tell_peer(event: &PeerEvent) {
    match event {
        PeerEvent::Here { node, chan, epoch } => say(&format!("peer {node} {chan} here {epoch}")),
        PeerEvent::Ended { node, chan, epoch, last, clean } => {
            say(&format!("peer {node} {chan} ended {epoch} last {last} clean {clean}"));
        }
        PeerEvent::Waiting { node, chan, why } => {
            say(&format!("peer {node} {chan} waits for {why}"));
        }
        PeerEvent::Stuck { node, chan, for_ms, why } => {
            say(&format!("peer {node} {chan} stuck {for_ms} {why}"));
        }
        other => say(&format!("peer {other:?}")),
    }
}

fn tell_relay(event: &RelayEvent) {
    match event {
        RelayEvent::Here { incarnation, .. } => say(&format!("here {incarnation}")),
        RelayEvent::Lost { why } => say(&format!("relay lost: {why}")),
        RelayEvent::NameInUse { pid, .. } => say(&format!("relay refuses: name in use by {pid}")),
        RelayEvent::Refused { why } => say(&format!("relay refuses: {why}")),
        _ => {}
    }
}
