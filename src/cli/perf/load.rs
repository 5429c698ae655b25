//! The client of `ringlane perf` on an event base.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use hdrhistogram::Histogram;
use ringlane::{BevEvent, Bufferevent, EventBase, Handler, READ, Signal, Turn};

use crate::cli::held::Held;
use crate::cli::proc;

/// The largest message.
pub const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// Time before the window: connections are made, caches and buffers fill.
const WARM_UP: Duration = Duration::from_millis(100);

/// How long connecting may take, and how long a window may bring nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that a stream keeps in its output.
const STREAM_BYTES: usize = 512 * 1024;

/// Messages up to here are copied into the output; larger ones are shared.
const COPY_BYTES_MAX: usize = 4096;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A message goes and comes back.
    RoundTrip,
    /// Messages go one way.
    Stream,
}

impl Kind {
    /// Both.
    pub const ALL: [Kind; 2] = [Kind::RoundTrip, Kind::Stream];
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Load {
    /// What.
    pub kind: Kind,
    /// Bytes of a message.
    pub size: usize,
    /// Connections.
    pub connections: usize,
    /// Messages under way on each, in the round trip.
    pub depth: usize,
    /// How long.
    pub window: Duration,
}

/// What came out of one.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Messages per second.
    pub rate: f64,
    /// Median, 99th and 99.9th percentile of the round trip, us; 0 for a stream.
    pub latency: [f64; 3],
    /// CPU per message here and at the server, us; the latter may be unknown.
    pub cpu: [Option<f64>; 2],
}

impl Sample {
    /// Puts a sample together from what was counted between two marks.
    pub fn new(from: &Mark, to: &Mark, histogram: &Histogram<u64>) -> Result<Sample> {
        let (messages, time) = (to.messages - from.messages, to.at - from.at);
        if messages == 0 {
            bail!("no message went through in {:.1} s", time.as_secs_f64());
        }
        let per = |ns: u64| ns as f64 / 1000.0 / messages as f64;
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let theirs = to.theirs - from.theirs;
        Ok(Sample {
            rate: messages as f64 / time.as_secs_f64(),
            latency: [us(0.5), us(0.99), us(0.999)],
            cpu: [Some(per(to.ours - from.ours)), (theirs > 0).then(|| per(theirs))],
        })
    }
}

/// The state at one end of the window.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When.
    pub at: Instant,
    /// Messages so far.
    pub messages: u64,
    /// Our CPU time so far, ns.
    pub ours: u64,
    /// The server's, ns.
    pub theirs: u64,
}

/// An empty histogram of nanoseconds.
pub fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

struct Run {
    load: Load,
    /// What is sent, again and again.
    message: Rc<[u8]>,
    connected: Cell<usize>,
    bytes: Cell<u64>,
    /// Whether latencies count.
    open: Cell<bool>,
    histogram: RefCell<Histogram<u64>>,
    marks: RefCell<Vec<Mark>>,
    failure: RefCell<Option<String>>,
    theirs: Box<dyn Fn() -> u64>,
}

/// One connection.
struct Lane {
    run: Rc<Run>,
    /// When the messages under way left.
    asked: VecDeque<Instant>,
    /// Bytes of the oldest of them that are back.
    back: usize,
    connected: bool,
    /// A stream's bytes that were written so far, and how many of them had left at the last look.
    written: u64,
    left: u64,
}

/// Runs one measurement against `to`; `theirs` reads the server's CPU time in ns.
pub fn run(
    base: EventBase,
    to: &str,
    load: &Load,
    theirs: impl Fn() -> u64 + 'static,
) -> Result<Sample> {
    let run = Rc::new(Run {
        load: load.clone(),
        message: vec![0x5a; load.size].into(),
        connected: Cell::new(0),
        bytes: Cell::new(0),
        open: Cell::new(false),
        histogram: RefCell::new(histogram()?),
        marks: RefCell::new(Vec::new()),
        failure: RefCell::new(None),
        theirs: Box::new(theirs),
    });
    let mut conns = Vec::new();
    for _ in 0..load.connections {
        let conn = base.connect(to)?;
        let asked = VecDeque::with_capacity(load.depth);
        let run = Rc::clone(&run);
        let lane = Lane { run, asked, back: 0, connected: false, written: 0, left: 0 };
        conn.set_handler(lane);
        conn.set_write_watermark(STREAM_BYTES / 2, usize::MAX);
        conn.enable(READ);
        conns.push(conn);
    }
    let late = Rc::clone(&run);
    let limit = base.timer(PATIENCE + load.window, move |event| {
        if let Some(base) = event.base() {
            late.fail(&base, "it takes too long".into());
        }
    });
    let signals = [Signal::SIGINT, Signal::SIGTERM].map(|signal| {
        let run = Rc::clone(&run);
        base.on_signal(signal, move |base| run.fail(base, "interrupted".into()))
    });
    base.dispatch()?;
    limit.free();
    // A base takes its time to go, and until it is gone it would swallow a signal.
    let held = Held::new()?;
    for _ in 0..2 {
        base.turn(Turn::NoWait)?;
    }
    for signal in signals {
        signal?.free();
    }
    for conn in conns {
        conn.abort();
    }
    drop(base);
    drop(held);
    if let Some(failure) = run.failure.take() {
        return Err(anyhow!(failure));
    }
    match &run.marks.borrow()[..] {
        [from, to] => Sample::new(from, to, &run.histogram.borrow()),
        _ => bail!("it ended before the window did"),
    }
}

impl Run {
    fn fail(&self, base: &EventBase, what: String) {
        self.failure.borrow_mut().get_or_insert(what);
        base.stop();
    }

    fn mark(&self, base: &EventBase) {
        self.marks.borrow_mut().push(Mark {
            at: base.now(),
            messages: self.bytes.get() / self.load.size as u64,
            ours: proc::cpu_ns(std::process::id()),
            theirs: (self.theirs)(),
        });
    }

    /// The last connection is made: the warm-up, then the window.
    fn begin(self: &Rc<Self>, base: &EventBase) {
        let run = Rc::clone(self);
        base.once(WARM_UP, move |base| {
            run.mark(base);
            run.open.set(true);
            run.end_after_window(base);
        });
    }

    /// The window ends, or begins again as long as nothing has come through it.
    fn end_after_window(self: &Rc<Self>, base: &EventBase) {
        let run = Rc::clone(self);
        base.once(self.load.window, move |base| {
            run.mark(base);
            let marks = run.marks.borrow().iter().map(|mark| mark.messages).collect::<Vec<_>>();
            if marks.first() < marks.last() {
                return base.stop();
            }
            run.marks.borrow_mut().pop();
            run.end_after_window(base);
        });
    }
}

impl Lane {
    fn send(&self, conn: &Bufferevent) {
        let output = conn.output();
        if self.run.message.len() <= COPY_BYTES_MAX {
            output.add(&self.run.message);
        } else {
            output.add_reference(Rc::clone(&self.run.message));
        }
    }

    fn ask(&mut self, conn: &Bufferevent, now: Instant) {
        self.asked.push_back(now);
        self.send(conn);
    }

    /// Fills a stream's output, and counts what has left it.
    fn fill(&mut self, conn: &Bufferevent) {
        let waiting = conn.output().len();
        let left = self.written - waiting as u64;
        self.run.bytes.set(self.run.bytes.get() + left - self.left);
        self.left = left;
        let size = self.run.message.len();
        let add = STREAM_BYTES.saturating_sub(waiting).div_ceil(size);
        (0..add).for_each(|_| self.send(conn));
        self.written += (add * size) as u64;
    }
}

impl Handler for Lane {
    fn on_connected(&mut self, conn: &Bufferevent) {
        let Some(base) = conn.base() else { return };
        self.connected = true;
        match self.run.load.kind {
            Kind::RoundTrip => (0..self.run.load.depth).for_each(|_| self.ask(conn, base.now())),
            Kind::Stream => self.fill(conn),
        }
        self.run.connected.set(self.run.connected.get() + 1);
        if self.run.connected.get() == self.run.load.connections {
            self.run.begin(&base);
        }
    }

    fn on_read(&mut self, conn: &Bufferevent) {
        let Some(base) = conn.base() else { return };
        let (size, now) = (self.run.load.size, base.now());
        let n = conn.input().len();
        conn.input().drain(n);
        self.run.bytes.set(self.run.bytes.get() + n as u64);
        self.back += n;
        while self.back >= size {
            self.back -= size;
            let Some(asked) = self.asked.pop_front() else {
                return self.run.fail(&base, "more came back than was sent".into());
            };
            if self.run.open.get() {
                let nanos = u64::try_from((now - asked).as_nanos()).unwrap_or(u64::MAX);
                self.run.histogram.borrow_mut().saturating_record(nanos.max(1));
            }
            self.ask(conn, now);
        }
    }

    fn on_written(&mut self, conn: &Bufferevent) {
        if self.run.load.kind == Kind::Stream {
            self.fill(conn);
        }
    }

    fn on_event(&mut self, conn: &Bufferevent, event: &BevEvent) {
        if event.is_end()
            && let Some(base) = conn.base()
        {
            let what = if self.connected { "the connection ended: " } else { "" };
            self.run.fail(&base, format!("{what}{event}"));
        }
    }
}
