//! The client of the demo: many connections, seeded bytes out, the same bytes back or an error.
//!
//! Two parts on the same connections: first small messages, one under way per connection, for
//! rate, latency and CPU per message; then mixed sizes, [`WINDOW_BYTES`] under way per
//! connection, for bytes per second; then the half close goes through the chain and comes back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use ringlane::{BevEvent, Bufferevent, EventBase, Handler, READ, Signal};

use super::stream::Stream;

/// Bytes under way per connection in the second part: no more than every station of the chain is
/// willing to hold, so that nobody stops reading because of it.
const WINDOW_BYTES: u64 = 256 * 1024;

/// Sizes of small messages.
const MESSAGE_BYTES: std::ops::Range<u64> = 16..513;

/// Largest piece of the second part.
const PIECE_BYTES_MAX: u64 = 64 * 1024;

/// Silence after which the run is given up.
const STALL_SECONDS: u32 = 20;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Connections.
    pub connections: usize,
    /// Small messages, over all connections.
    pub messages: u64,
    /// Bytes of the second part, over all connections.
    pub bytes: u64,
    /// What the bytes follow from.
    pub seed: u64,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Small messages per second.
    pub messages_per_second: f64,
    /// Median time from a message to its last byte back.
    pub p50: Duration,
    /// The time that 99 of 100 messages keep.
    pub p99: Duration,
    /// 10^9 bytes per second in the second part, each way.
    pub gigabytes_per_second: f64,
    /// CPU time of all servers per small message.
    pub cpu_per_message: Duration,
    /// Bytes that came back, both parts.
    pub bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Connecting,
    Messages,
    Bulk,
}

/// One connection.
struct Lane {
    conn: Bufferevent,
    out: Stream,
    back: Stream,
    sizes: Stream,
    /// Small messages still to send.
    messages: u64,
    /// When the message under way left.
    asked: Instant,
    /// Where the stream ends.
    goal: u64,
    finished: bool,
}

struct Run {
    part: Cell<Part>,
    lanes: RefCell<Vec<Lane>>,
    /// Connections that have not finished this part.
    waiting: Cell<usize>,
    histogram: RefCell<Histogram<u64>>,
    marks: RefCell<Vec<(Instant, u64)>>,
    moved: Cell<u64>,
    failure: RefCell<Option<String>>,
    scratch: RefCell<(Vec<u8>, Vec<u8>)>,
    cpu_ms: Box<dyn Fn() -> u64>,
}

struct Ear {
    run: Rc<Run>,
    lane: usize,
}

/// Runs the plan against `to`. `cpu_ms` reads the servers' CPU time, `progress` hears what share
/// is done.
pub fn run(
    base: &EventBase,
    to: &str,
    plan: &Plan,
    cpu_ms: impl Fn() -> u64 + 'static,
    progress: impl Fn(f64) + 'static,
) -> Result<Measured> {
    let run = Rc::new(Run {
        part: Cell::new(Part::Connecting),
        lanes: RefCell::new(Vec::new()),
        waiting: Cell::new(plan.connections),
        histogram: RefCell::new(Histogram::new_with_bounds(1, 60_000_000_000, 3)?),
        marks: RefCell::new(Vec::new()),
        moved: Cell::new(0),
        failure: RefCell::new(None),
        scratch: RefCell::new((vec![0; 1 << 16], vec![0; 1 << 16])),
        cpu_ms: Box::new(cpu_ms),
    });
    for number in 0..plan.connections {
        let lane = Lane::new(base, to, plan, number)?;
        lane.conn.set_handler(Ear { run: Rc::clone(&run), lane: number });
        lane.conn.enable(READ);
        run.lanes.borrow_mut().push(lane);
    }
    let watched = [watch(base, &run, plan, progress), give_up_on_signals(base, &run)?];
    base.dispatch()?;
    watched.into_iter().flatten().for_each(|event| event.free());
    for lane in run.lanes.borrow().iter() {
        lane.conn.abort();
    }
    if let Some(failure) = run.failure.take() {
        return Err(anyhow!(failure));
    }
    run.measured(plan)
}

/// Ends the run when nothing moves any more, and tells how far it is.
fn watch(
    base: &EventBase,
    run: &Rc<Run>,
    plan: &Plan,
    progress: impl Fn(f64) + 'static,
) -> Vec<ringlane::Event> {
    let (looked, mut before, mut still) = (Rc::clone(run), 0, 0);
    let stall = base.every(Duration::from_secs(1), move |event| {
        still = if looked.moved.get() == before { still + 1 } else { 0 };
        before = looked.moved.get();
        if still >= STALL_SECONDS {
            looked.fail(event.base().as_ref(), format!("nothing moved for {STALL_SECONDS} s"));
        }
    });
    let average = (MESSAGE_BYTES.start + MESSAGE_BYTES.end) / 2;
    let all = (plan.messages * average + plan.bytes).max(1);
    let told = Rc::clone(run);
    let tell = base.every(Duration::from_millis(100), move |_| {
        progress((told.moved.get() as f64 / all as f64).min(1.0));
    });
    vec![stall, tell]
}

fn give_up_on_signals(base: &EventBase, run: &Rc<Run>) -> Result<Vec<ringlane::Event>> {
    let mut events = Vec::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let run = Rc::clone(run);
        events.push(base.on_signal(signal, move |base| {
            run.fail(Some(base), "interrupted".into());
        })?);
    }
    Ok(events)
}

/// `whole` over `parts`, the rest on the first ones.
fn share(whole: u64, parts: usize, number: usize) -> u64 {
    let parts = parts as u64;
    whole / parts + u64::from((number as u64) < whole % parts)
}

impl Lane {
    fn new(base: &EventBase, to: &str, plan: &Plan, number: usize) -> Result<Lane> {
        let seed = plan.seed.wrapping_mul(1 << 20).wrapping_add(number as u64 * 2);
        Ok(Lane {
            conn: base.connect(to)?,
            out: Stream::new(seed),
            back: Stream::new(seed),
            sizes: Stream::new(seed + 1),
            messages: share(plan.messages, plan.connections, number),
            asked: base.now(),
            goal: share(plan.bytes, plan.connections, number),
            finished: false,
        })
    }

    /// Adds the next `size` bytes of the stream to the output.
    fn send(&mut self, size: u64, scratch: &mut [u8]) {
        let piece = &mut scratch[..size as usize];
        self.out.fill(piece);
        self.conn.output().add(piece);
    }

    /// Sends the next small message; false if that was all.
    fn send_message(&mut self, now: Instant, scratch: &mut [u8]) -> bool {
        if self.messages == 0 {
            return false;
        }
        self.messages -= 1;
        self.asked = now;
        let size = MESSAGE_BYTES.start + self.sizes.below(MESSAGE_BYTES.end - MESSAGE_BYTES.start);
        self.send(size, scratch);
        true
    }

    /// Keeps the window full; after the last byte, ends our direction.
    fn send_pieces(&mut self, scratch: &mut [u8]) {
        while self.out.at() < self.goal {
            // Small, middle and large pieces, a third each.
            let bound = [512, 8 * 1024, PIECE_BYTES_MAX][self.sizes.below(3) as usize];
            let size = (1 + self.sizes.below(bound)).min(self.goal - self.out.at());
            if self.out.at() + size - self.back.at() > WINDOW_BYTES {
                return;
            }
            self.send(size, scratch);
        }
        if !self.finished {
            self.finished = true;
            self.conn.finish();
        }
    }

    /// Takes what came back and compares; how much it was, or what is wrong.
    fn check(&mut self, got: &mut [u8], want: &mut [u8]) -> std::result::Result<u64, String> {
        let mut sum = 0;
        loop {
            let n = self.conn.input().remove(got);
            if n == 0 {
                return Ok(sum);
            }
            let place = self.back.at();
            if place + n as u64 > self.out.at() {
                return Err(format!("{n} bytes came back that nobody sent, at byte {place}"));
            }
            self.back.fill(&mut want[..n]);
            if got[..n] != want[..n] {
                let at = (0..n).find(|&at| got[at] != want[at]).expect("they differ");
                let place = place + at as u64;
                return Err(format!("byte {place} came back as {}, not {}", got[at], want[at]));
            }
            sum += n as u64;
        }
    }
}

impl Run {
    fn fail(&self, base: Option<&EventBase>, what: String) {
        self.failure.borrow_mut().get_or_insert(what);
        if let Some(base) = base {
            base.stop();
        }
    }

    /// A connection has finished its part; the last one starts the next part.
    fn one_done(&self, base: &EventBase) {
        self.waiting.set(self.waiting.get() - 1);
        while self.waiting.get() == 0 {
            self.marks.borrow_mut().push((base.now(), (self.cpu_ms)()));
            match self.part.get() {
                Part::Connecting => self.start_messages(base),
                Part::Messages => self.start_bulk(),
                Part::Bulk => return base.stop(),
            }
        }
    }

    fn start_messages(&self, base: &EventBase) {
        self.part.set(Part::Messages);
        let (scratch, _) = &mut *self.scratch.borrow_mut();
        let mut lanes = self.lanes.borrow_mut();
        let sent = lanes.iter_mut().map(|lane| lane.send_message(base.now(), scratch));
        self.waiting.set(sent.filter(|sent| *sent).count());
    }

    fn start_bulk(&self) {
        self.part.set(Part::Bulk);
        let (scratch, _) = &mut *self.scratch.borrow_mut();
        let mut lanes = self.lanes.borrow_mut();
        self.waiting.set(lanes.len());
        for lane in lanes.iter_mut() {
            lane.goal += lane.out.at();
            lane.send_pieces(scratch);
        }
    }

    /// Bytes came: they are compared, and what follows is sent. True if that was the connection's
    /// last message of the first part.
    fn on_read(&self, base: &EventBase, number: usize) -> bool {
        let mut lanes = self.lanes.borrow_mut();
        let lane = &mut lanes[number];
        let (got, want) = &mut *self.scratch.borrow_mut();
        match lane.check(got, want) {
            Ok(bytes) => self.moved.set(self.moved.get() + bytes),
            Err(wrong) => {
                self.fail(Some(base), format!("connection {number}: {wrong}"));
                return false;
            }
        }
        if self.part.get() == Part::Bulk {
            lane.send_pieces(got);
            return false;
        }
        if lane.back.at() < lane.out.at() {
            return false;
        }
        let now = base.now();
        let nanos = u64::try_from((now - lane.asked).as_nanos()).unwrap_or(u64::MAX);
        self.histogram.borrow_mut().saturating_record(nanos.max(1));
        !lane.send_message(now, got)
    }

    /// The other side ended its direction, which is right only after the last byte.
    fn on_eof(&self, base: &EventBase, number: usize) {
        let lanes = self.lanes.borrow();
        let lane = &lanes[number];
        let (got, sent) = (lane.back.at(), lane.out.at());
        if self.part.get() != Part::Bulk || got != lane.goal {
            let what = format!("connection {number} ended after {got} of {sent} bytes");
            return self.fail(Some(base), what);
        }
        drop(lanes);
        self.one_done(base);
    }

    fn measured(&self, plan: &Plan) -> Result<Measured> {
        let marks = self.marks.borrow();
        let [start, middle, end] = marks[..] else {
            return Err(anyhow!("the connections ended before the data was through"));
        };
        let histogram = self.histogram.borrow();
        let messages = plan.messages.max(1);
        let seconds = |from: Instant, to: Instant| (to - from).as_secs_f64().max(1e-9);
        let percentile = |p| Duration::from_nanos(histogram.value_at_quantile(p));
        Ok(Measured {
            messages_per_second: plan.messages as f64 / seconds(start.0, middle.0),
            p50: percentile(0.50),
            p99: percentile(0.99),
            gigabytes_per_second: plan.bytes as f64 / seconds(middle.0, end.0) / 1e9,
            cpu_per_message: Duration::from_millis(middle.1 - start.1).div_f64(messages as f64),
            bytes: self.moved.get(),
        })
    }
}

impl Handler for Ear {
    fn on_connected(&mut self, conn: &Bufferevent) {
        if let Some(base) = conn.base() {
            self.run.one_done(&base);
        }
    }

    fn on_read(&mut self, conn: &Bufferevent) {
        let Some(base) = conn.base() else { return };
        if self.run.on_read(&base, self.lane) {
            self.run.one_done(&base);
        }
    }

    fn on_event(&mut self, conn: &Bufferevent, event: &BevEvent) {
        let Some(base) = conn.base() else { return };
        match event {
            BevEvent::Eof => self.run.on_eof(&base, self.lane),
            BevEvent::Error { error, .. } => {
                self.run.fail(Some(&base), format!("connection {}: {error}", self.lane));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_whole() {
        for (whole, parts) in [(10, 3), (0, 4), (7, 7), (5, 64)] {
            let sum: u64 = (0..parts).map(|number| share(whole, parts, number)).sum();
            assert_eq!(sum, whole);
        }
    }
}
