//! What two processes say to each other, the same text over everything that carries messages.
//!
//! ```text
//!   asks      HELLO ...          until one comes back: by then both ways are open
//!   round trip   n ->, <- n      one under way at a time
//!   stream       0 1 2 3 ... ->  for as long as the window is, then END
//!                <- count        now and then, where the system itself holds nobody back
//!   END ->, <- END, how many came whole and in order
//! ```
//!
//! A message carries its number at both ends of it. The side that answers checks both and adds up
//! every word between them. A stream with one message lost, doubled, torn or out of order has no
//! figure.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::pin::{Cpu, machine_busy_ns};
use hdrhistogram::Histogram;

#[cfg(test)]
mod tests;

/// One of the two ends, in a process of its own.
pub trait Client {
    /// Sends a message. It may be kept back until `flush`, or until many others are kept back.
    fn send(&mut self, message: &[u8]) -> io::Result<()>;

    /// Sends what was kept back.
    fn flush(&mut self) -> io::Result<()>;

    /// What messages are shown to from now on, where they lie.
    fn hear(&mut self, see: See);

    /// Waits until a message is there, `within` at most; shows every one that is at hand, and
    /// returns how many these were.
    fn receive(&mut self, within: Duration) -> io::Result<usize>;
}

/// What looks at messages.
pub type See = Box<dyn FnMut(&[u8])>;

/// What is asked of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Messages there and back, one under way at a time.
    RoundTrip,
    /// Messages one way.
    Stream,
}

/// Numbers that are no message's.
const HELLO: u64 = u64::MAX - 1;
const END: u64 = u64::MAX;

/// Something comes within this, or nothing will.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two hellos.
const HELLO_EVERY: Duration = Duration::from_millis(50);
/// A stream looks at the clock after so many bytes.
const LOOK_BYTES: usize = 64 << 10;
/// The smallest message: it has a number at both ends.
const REPORT_BYTES: usize = 16;

/// The CPU of those who take part.
#[derive(Default, Debug)]
pub struct Meter {
    /// What is between the two.
    pub relays: Vec<Cpu>,
    /// The two clients.
    pub clients: Vec<Cpu>,
}

/// A look at the meter.
struct Mark {
    relays: u64,
    others: u64,
}

impl Meter {
    fn mark(&self) -> io::Result<Mark> {
        let sum = |of: &[Cpu]| of.iter().map(Cpu::ns).sum::<io::Result<u64>>();
        let relays = sum(&self.relays)?;
        let ours = relays + sum(&self.clients)?;
        Ok(Mark { relays, others: machine_busy_ns()?.saturating_sub(ours) })
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// How many were measured.
    pub messages: u64,
    /// For how long.
    pub seconds: f64,
    /// The median of a round trip, in microseconds.
    pub p50: f64,
    /// Its 99th percentile.
    pub p99: f64,
    /// CPU of what is between the two, in nanoseconds.
    pub relay_ns: u64,
    /// Cores that those used meanwhile who take no part.
    pub others: f64,
}

fn number(message: &[u8]) -> u64 {
    message.first_chunk().map_or(HELLO, |bytes| u64::from_le_bytes(*bytes))
}

fn stamp(message: &mut [u8], n: u64) {
    let last = message.len() - 8;
    message[..8].copy_from_slice(&n.to_le_bytes());
    message[last..].copy_from_slice(&n.to_le_bytes());
}

/// Whether both ends carry `n`.
fn is_whole(message: &[u8], n: u64) -> bool {
    message.last_chunk().is_some_and(|bytes| u64::from_le_bytes(*bytes) == n)
        && number(message) == n
}

fn silent() -> io::Error {
    io::Error::other(format!("nothing came for {} s", PATIENCE.as_secs()))
}

/// What the side that asks has heard.
#[derive(Default)]
struct Heard {
    hellos: u64,
    answers: u64,
    /// The last answer's number, and whether it was whole.
    number: u64,
    whole: bool,
    /// How many the far side has counted.
    counted: u64,
    /// How many it counted at the end, and whether others came, too.
    report: Option<(u64, u64)>,
}

impl Heard {
    fn hear(&mut self, message: &[u8]) {
        let word = |at: usize| number(message.get(at..).unwrap_or_default());
        let n = number(message);
        if n == HELLO {
            self.hellos += 1;
            return;
        }
        self.answers += 1;
        self.number = n;
        self.whole = is_whole(message, n);
        match n {
            END => self.report = Some((word(8), word(16))),
            n => self.counted = self.counted.max(n),
        }
    }
}

/// The side that asks.
pub struct Driver<'a> {
    /// What it speaks through.
    client: &'a mut dyn Client,
    heard: Rc<RefCell<Heard>>,
    ask: Ask,
}

/// What it is to do.
#[derive(Debug)]
pub struct Ask {
    /// Of a message, 16 at least.
    pub bytes: usize,
    /// Bytes that may be under way, if that is not the system's business.
    pub credit: Option<u64>,
    /// For how long.
    pub window: Duration,
    /// Whose CPU.
    pub meter: Meter,
}

impl Driver<'_> {
    /// One that has not spoken yet.
    pub fn new(client: &mut dyn Client, ask: Ask) -> Driver<'_> {
        let heard: Rc<RefCell<Heard>> = Rc::default();
        let hears = Rc::clone(&heard);
        client.hear(Box::new(move |message| hears.borrow_mut().hear(message)));
        Driver { client, heard, ask }
    }

    /// Says hello, and then what is to be measured.
    pub fn run(&mut self, kind: Kind) -> io::Result<Outcome> {
        self.hello()?;
        match kind {
            Kind::RoundTrip => self.round_trips(),
            Kind::Stream => self.stream(),
        }
    }

    /// Both ways are open once a hello came back.
    fn hello(&mut self) -> io::Result<()> {
        let mut hello = vec![0; REPORT_BYTES];
        stamp(&mut hello, HELLO);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            self.client.send(&hello)?;
            self.client.flush()?;
            if self.client.receive(HELLO_EVERY)? > 0 {
                return Ok(());
            }
        }
        Err(io::Error::other("the two clients do not hear each other"))
    }

    /// Waits for an answer that is not a late hello.
    fn answers(&mut self) -> io::Result<()> {
        let before = self.heard.borrow().answers;
        while self.heard.borrow().answers == before {
            if self.client.receive(PATIENCE)? == 0 {
                return Err(silent());
            }
        }
        Ok(())
    }

    fn exchange(&mut self, message: &mut [u8], n: u64) -> io::Result<()> {
        stamp(message, n);
        self.client.send(message)?;
        self.client.flush()?;
        self.answers()?;
        let heard = self.heard.borrow();
        if heard.whole && heard.number == n {
            Ok(())
        } else {
            Err(io::Error::other(format!("not {n} came back, whole")))
        }
    }

    fn round_trips(&mut self) -> io::Result<Outcome> {
        let mut message = vec![0x5a; self.ask.bytes];
        let (mut n, warm) = (0, Instant::now());
        while warm.elapsed() < self.ask.window / 8 {
            self.exchange(&mut message, n)?;
            n += 1;
        }
        let most = PATIENCE.as_nanos() as u64;
        let bounds = Histogram::<u64>::new_with_bounds(1, most, 3);
        let mut times = bounds.expect("1 ns to some seconds at three digits are bounds");
        let (first, before, begun) = (n, self.ask.meter.mark()?, Instant::now());
        let (mut last, end) = (begun, begun + self.ask.window);
        while last < end {
            self.exchange(&mut message, n)?;
            n += 1;
            let now = Instant::now();
            times.saturating_record((now - last).as_nanos() as u64);
            last = now;
        }
        let after = self.ask.meter.mark()?;
        self.exchange(&mut message, END)?;
        let microseconds = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        let (p50, p99) = (microseconds(0.5), microseconds(0.99));
        Ok(outcome(n - first, last - begun, &before, &after, [p50, p99]))
    }

    fn stream(&mut self) -> io::Result<Outcome> {
        let mut message = vec![0x5a; self.ask.bytes];
        let look = (LOOK_BYTES / self.ask.bytes).max(1) as u64;
        let ahead =
            self.ask.credit.map_or(u64::MAX, |credit| (credit / self.ask.bytes as u64).max(1));
        let mut n = 0;
        let (before, begun) = (self.ask.meter.mark()?, Instant::now());
        while begun.elapsed() < self.ask.window {
            for _ in 0..look {
                // At most so many are under way when this one is.
                if n >= ahead {
                    self.wait_for_count(n - ahead + 1)?;
                }
                stamp(&mut message, n);
                self.client.send(&message)?;
                n += 1;
            }
        }
        stamp(&mut message, END);
        self.client.send(&message)?;
        self.client.flush()?;
        while self.heard.borrow().report.is_none() {
            self.answers()?;
        }
        let report = self.heard.borrow().report;
        let taken = begun.elapsed();
        match report {
            Some((good, 0)) if good == n => {
                Ok(outcome(n, taken, &before, &self.ask.meter.mark()?, [0.0; 2]))
            }
            Some((good, _)) => {
                let came = format!("{n} went, {good} came whole and in order, then others");
                Err(io::Error::other(came))
            }
            None => Err(silent()),
        }
    }
    /// Waits until the far side has counted so many.
    fn wait_for_count(&mut self, least: u64) -> io::Result<()> {
        if self.heard.borrow().counted < least {
            self.client.flush()?;
        }
        while self.heard.borrow().counted < least {
            self.answers()?;
        }
        Ok(())
    }
}

fn outcome(messages: u64, taken: Duration, before: &Mark, after: &Mark, p: [f64; 2]) -> Outcome {
    let seconds = taken.as_secs_f64();
    Outcome {
        messages,
        seconds,
        p50: p[0],
        p99: p[1],
        relay_ns: after.relays - before.relays,
        others: after.others.saturating_sub(before.others) as f64 / 1e9 / seconds,
    }
}

/// The side that answers, until END.
pub fn answer(client: &mut dyn Client, kind: Kind, credit: Option<u64>) -> io::Result<()> {
    match kind {
        Kind::RoundTrip => echo(client),
        Kind::Stream => sink(client, credit),
    }
}

/// What came in one go.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    over: bool,
}

fn echo(client: &mut dyn Client) -> io::Result<()> {
    let batch: Rc<RefCell<Batch>> = Rc::default();
    let hears = Rc::clone(&batch);
    client.hear(Box::new(move |message| {
        let mut batch = hears.borrow_mut();
        batch.bytes.extend_from_slice(message);
        let end = batch.bytes.len();
        batch.ends.push(end);
        batch.over |= number(message) == END;
    }));
    while !batch.borrow().over {
        if client.receive(PATIENCE)? == 0 {
            return Err(silent());
        }
        let Batch { bytes, ends, over } = batch.take();
        let mut begin = 0;
        for &end in &ends {
            client.send(&bytes[begin..end])?;
            begin = end;
        }
        client.flush()?;
        batch.borrow_mut().over = over;
    }
    Ok(())
}

#[derive(Default)]
struct Sink {
    /// Messages that came whole, each behind the one before.
    good: u64,
    /// Something came that was not the next one, whole.
    wrong: bool,
    hellos: u64,
    over: bool,
    /// Of the last message.
    bytes: u64,
    sum: u64,
}

impl Sink {
    fn see(&mut self, message: &[u8]) {
        match number(message) {
            HELLO => self.hellos += 1,
            END => self.over = true,
            _ => {
                self.wrong |= !is_whole(message, self.good);
                self.good += u64::from(!self.wrong);
                self.bytes = message.len() as u64;
                let words = message.as_chunks().0.iter();
                self.sum =
                    words.fold(self.sum, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
            }
        }
    }
}

fn sink(client: &mut dyn Client, credit: Option<u64>) -> io::Result<()> {
    let sink: Rc<RefCell<Sink>> = Rc::default();
    let sees = Rc::clone(&sink);
    client.hear(Box::new(move |message| sees.borrow_mut().see(message)));
    let (mut report, mut told) = (vec![0; REPORT_BYTES], 0);
    while !sink.borrow().over {
        if client.receive(PATIENCE)? == 0 {
            return Err(silent());
        }
        let hellos = std::mem::take(&mut sink.borrow_mut().hellos);
        for _ in 0..hellos {
            stamp(&mut report, HELLO);
            client.send(&report)?;
            client.flush()?;
        }
        let (good, bytes) = (sink.borrow().good, sink.borrow().bytes);
        // Eight times on the way through the credit.
        if good > told && credit.is_some_and(|credit| (good - told) * bytes * 8 >= credit) {
            told = good;
            stamp(&mut report, told);
            client.send(&report)?;
            client.flush()?;
        }
    }
    let sink = sink.borrow();
    std::hint::black_box(sink.sum);
    let words = [END, sink.good, u64::from(sink.wrong)];
    let report: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    client.send(&report)?;
    client.flush()
}
