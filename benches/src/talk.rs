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

use std::io;
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

    /// Waits until a message is there, `within` at most; shows every one that is at hand, and
    /// returns how many these were.
    fn receive(&mut self, within: Duration, see: &mut dyn FnMut(&[u8])) -> io::Result<usize>;
}

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

/// The side that asks.
pub struct Driver<'a> {
    /// What it speaks through.
    pub client: &'a mut dyn Client,
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
            if self.client.receive(HELLO_EVERY, &mut |_| ())? > 0 {
                return Ok(());
            }
        }
        Err(io::Error::other("the two clients do not hear each other"))
    }

    /// Waits for answers that are not late hellos.
    fn answers(&mut self, see: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        loop {
            let mut late = 0;
            let shown = self.client.receive(PATIENCE, &mut |message| match number(message) {
                HELLO => late += 1,
                _ => see(message),
            })?;
            if shown == 0 {
                return Err(silent());
            }
            if shown > late {
                return Ok(());
            }
        }
    }

    fn exchange(&mut self, message: &mut [u8], n: u64) -> io::Result<()> {
        stamp(message, n);
        self.client.send(message)?;
        self.client.flush()?;
        let mut whole = false;
        self.answers(&mut |answer| whole = is_whole(answer, n))?;
        if whole { Ok(()) } else { Err(io::Error::other(format!("not {n} came back"))) }
    }

    fn round_trips(&mut self) -> io::Result<Outcome> {
        let mut message = vec![0x5a; self.bytes];
        let (mut n, warm) = (0, Instant::now());
        while warm.elapsed() < self.window / 8 {
            self.exchange(&mut message, n)?;
            n += 1;
        }
        let most = PATIENCE.as_nanos() as u64;
        let bounds = Histogram::<u64>::new_with_bounds(1, most, 3);
        let mut times = bounds.expect("1 ns to some seconds at three digits are bounds");
        let (first, before, begun) = (n, self.meter.mark()?, Instant::now());
        let (mut last, end) = (begun, begun + self.window);
        while last < end {
            self.exchange(&mut message, n)?;
            n += 1;
            let now = Instant::now();
            times.saturating_record((now - last).as_nanos() as u64);
            last = now;
        }
        let after = self.meter.mark()?;
        self.exchange(&mut message, END)?;
        let microseconds = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        let (p50, p99) = (microseconds(0.5), microseconds(0.99));
        Ok(outcome(n - first, last - begun, &before, &after, [p50, p99]))
    }

    fn stream(&mut self) -> io::Result<Outcome> {
        let mut message = vec![0x5a; self.bytes];
        let look = (LOOK_BYTES / self.bytes).max(1) as u64;
        let ahead = self.credit.map_or(u64::MAX, |credit| (credit / self.bytes as u64).max(1));
        let (mut n, mut seen) = (0, 0);
        let (before, begun) = (self.meter.mark()?, Instant::now());
        while begun.elapsed() < self.window {
            for _ in 0..look {
                while n - seen >= ahead {
                    self.client.flush()?;
                    self.answers(&mut |answer| seen = seen.max(number(answer)))?;
                    if seen > n {
                        return Err(io::Error::other("it counts more than were sent"));
                    }
                }
                stamp(&mut message, n);
                self.client.send(&message)?;
                n += 1;
            }
        }
        stamp(&mut message, END);
        self.client.send(&message)?;
        self.client.flush()?;
        let mut report = None;
        while report.is_none() {
            self.answers(&mut |answer| {
                if number(answer) == END {
                    let word = |at: usize| number(answer.get(at..).unwrap_or_default());
                    report = Some((word(8), word(16)));
                }
            })?;
        }
        let taken = begun.elapsed();
        match report {
            Some((good, 0)) if good == n => {
                Ok(outcome(n, taken, &before, &self.meter.mark()?, [0.0; 2]))
            }
            Some((good, _)) => {
                let came = format!("{n} went, {good} came whole and in order, then others");
                Err(io::Error::other(came))
            }
            None => Err(silent()),
        }
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
        Kind::Stream => Sink::default().run(client, credit),
    }
}

fn echo(client: &mut dyn Client) -> io::Result<()> {
    let (mut copy, mut ends, mut over) = (Vec::new(), Vec::new(), false);
    while !over {
        copy.clear();
        ends.clear();
        let shown = client.receive(PATIENCE, &mut |message| {
            copy.extend_from_slice(message);
            ends.push(copy.len());
            over |= number(message) == END;
        })?;
        if shown == 0 {
            return Err(silent());
        }
        let mut begin = 0;
        for &end in &ends {
            client.send(&copy[begin..end])?;
            begin = end;
        }
        client.flush()?;
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
                let words = message.as_chunks().0.iter();
                self.sum =
                    words.fold(self.sum, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
            }
        }
    }

    fn run(&mut self, client: &mut dyn Client, credit: Option<u64>) -> io::Result<()> {
        let mut report = vec![0; REPORT_BYTES];
        let (mut told, mut bytes) = (0, REPORT_BYTES as u64);
        while !self.over {
            let shown = client.receive(PATIENCE, &mut |message| {
                bytes = message.len() as u64;
                self.see(message);
            })?;
            if shown == 0 {
                return Err(silent());
            }
            for _ in 0..std::mem::take(&mut self.hellos) {
                stamp(&mut report, HELLO);
                client.send(&report)?;
                client.flush()?;
            }
            // Eight times on the way through the credit.
            if credit.is_some_and(|credit| (self.good - told) * bytes * 8 >= credit) {
                told = self.good;
                stamp(&mut report, told);
                client.send(&report)?;
                client.flush()?;
            }
        }
        std::hint::black_box(self.sum);
        let words = [END, self.good, u64::from(self.wrong)];
        let report: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        client.send(&report)?;
        client.flush()
    }
}
