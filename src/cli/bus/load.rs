//! `ringlane perf SRC DST`: how fast the bus is between two names, through the relays that run.
//!
//! ```text
//!   round trip   SRC --request--> DST --the same bytes--> SRC, `depth` under way
//!   stream       SRC ==== as fast as it is accepted ====> DST; counted when acknowledged
//! ```
//!
//! DST is a process of its own: `ringlane recv DST --echo --quiet`.

use std::cell::{Cell, RefCell};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use ringlane::Turn;
use ringlane::bus::{BusError, SendOptions};
use ringlane::reactor::Config;

use crate::cli::child::this_program;
use crate::cli::serve::say;
use crate::cli::text::columns;

use super::find::At;
use super::join::{Joining, Member};
use super::seen::{bytes, grouped, span};

/// How long the first answer may take: DST starts, and relays may have to connect.
const FIRST: Duration = Duration::from_secs(10);

/// How long what is under way at the end of a measurement may take.
const REST: Duration = Duration::from_secs(10);

/// Messages that are accepted before the clock is looked at.
const GULP: u64 = 256;

/// The longest time that is told apart, in nanoseconds.
const NANOS_MAX: u64 = 60_000_000_000;

/// What is measured.
pub struct Load<'a> {
    pub src: &'a str,
    pub dst: &'a str,
    /// Bytes of a message, one after the other.
    pub sizes: Vec<usize>,
    /// Requests under way.
    pub depth: u32,
    /// How long one measurement takes.
    pub seconds: Duration,
    pub rounds: u32,
    /// DST runs already.
    pub connect: bool,
}

/// The process of DST, ended when this is dropped.
struct Answering(Child);

impl Drop for Answering {
    fn drop(&mut self) {
        // It fails harmlessly if the process has ended.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// What came of one size.
struct Row {
    size: usize,
    /// Nothing where a message of this size does not go whole.
    trips: Option<Histogram<u64>>,
    /// Messages per second of each round.
    rates: Vec<f64>,
}

struct Measuring {
    member: Member,
    to: String,
    /// Requests under way.
    under: Cell<u32>,
    trips: RefCell<Histogram<u64>>,
    failed: RefCell<Option<BusError>>,
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    time.map_or(0, |time| time.as_nanos() as u64)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, NANOS_MAX, 3).expect("the bounds are in order")
}

/// Measures and prints.
pub fn run(config: &Config, load: &Load<'_>) -> Result<()> {
    let _answering = match load.connect {
        true => None,
        false => Some(start(load.dst)?),
    };
    let member = Joining::default().join(config, load.src)?;
    let on = Rc::new(Measuring {
        member,
        to: load.dst.to_string(),
        under: Cell::new(0),
        trips: RefCell::new(histogram()),
        failed: RefCell::default(),
    });
    on.first()?;
    let steps = load.sizes.len() as u64 * u64::from(load.rounds) * 2;
    let bar = bar(steps);
    let mut rows = Vec::new();
    for &size in &load.sizes {
        rows.push(on.row(size, load, &bar)?);
    }
    bar.finish_and_clear();
    say(&print(&on, load, &rows));
    let _ = on.member.bus.close_now(Duration::from_secs(1));
    on.member.part();
    Ok(())
}

/// Starts DST on this machine.
fn start(dst: &str) -> Result<Answering> {
    let place = At::default().relay_of(dst).with_context(|| {
        format!(
            "{dst} lives elsewhere? start `ringlane recv {dst} --echo --quiet` there, and say \
             --connect"
        )
    })?;
    let child = Command::new(this_program()?)
        .args(["recv", dst, "--echo", "--quiet", "--socket", &place.usual])
        .stdin(Stdio::null())
        .spawn()
        .context("starting the process that answers")?;
    Ok(Answering(child))
}

fn bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{msg:<28} {bar:32} {pos}/{len}");
    bar.set_style(style.expect("the template is right"));
    bar
}

impl Measuring {
    /// Turns the loop until something holds, at most so long. Whether it does.
    fn turn_until(&self, within: Duration, holds: impl Fn() -> bool) -> Result<bool> {
        let over = Rc::new(Cell::new(false));
        let told = Rc::clone(&over);
        let timer = self.member.base.timer(within, move |_| told.set(true));
        while !holds() && !over.get() && self.failed.borrow().is_none() {
            self.member.base.turn(Turn::Wait)?;
            self.member.failed()?;
        }
        timer.free();
        match self.failed.take() {
            Some(error) => Err(anyhow!("{}: {error}{}", self.to, self.member.waiting())),
            None => Ok(holds()),
        }
    }

    /// The first answer: everybody is there.
    fn first(self: &Rc<Self>) -> Result<()> {
        self.call(&[0; 8], FIRST).map_err(|error| anyhow!("{error}"))?;
        if !self.turn_until(FIRST + REST, || self.under.get() == 0)? {
            bail!("no answer from {}", self.to);
        }
        self.trips.borrow_mut().reset();
        Ok(())
    }

    fn call(self: &Rc<Self>, body: &[u8], within: Duration) -> Result<(), BusError> {
        let (on, begun, len) = (Rc::clone(self), now(), body.len());
        let options = SendOptions::default();
        self.member.bus.call_with(&self.to, &options, body, within, move |answer| {
            on.under.set(on.under.get() - 1);
            match answer {
                Ok(answer) if answer.bytes().len() == len => {
                    let took = now().saturating_sub(begun).clamp(1, NANOS_MAX);
                    on.trips.borrow_mut().saturating_record(took);
                }
                Ok(_) => {
                    let why = "it answers with something else; run it with --echo".to_string();
                    on.failed.replace(Some(BusError::Refused { why }));
                }
                Err(error) => drop(on.failed.replace(Some(error))),
            }
        })?;
        self.under.set(self.under.get() + 1);
        Ok(())
    }

    fn row(self: &Rc<Self>, size: usize, load: &Load<'_>, bar: &ProgressBar) -> Result<Row> {
        let body = vec![0x5a; size];
        let (mut whole, mut rates) = (true, Vec::new());
        self.trips.borrow_mut().reset();
        for _ in 0..load.rounds {
            bar.set_message(format!("{} round trips", bytes(size as u64)));
            whole = whole && self.round_trips(&body, load)?;
            bar.inc(1);
            bar.set_message(format!("{} stream", bytes(size as u64)));
            rates.push(self.stream(&body, load.seconds)?);
            bar.inc(1);
        }
        let trips = whole.then(|| self.trips.borrow().clone());
        Ok(Row { size, trips, rates })
    }

    /// Whether a message of this size goes whole.
    fn round_trips(self: &Rc<Self>, body: &[u8], load: &Load<'_>) -> Result<bool> {
        let end = now() + load.seconds.as_nanos() as u64;
        while now() < end {
            while self.under.get() < load.depth {
                match self.call(body, REST) {
                    Ok(()) => {}
                    Err(BusError::WouldBlock) => break,
                    Err(BusError::TooLong { .. }) => return Ok(false),
                    Err(error) => bail!("{error}"),
                }
            }
            let wanted = self.under.get().saturating_sub(1);
            self.turn_until(REST, || self.under.get() <= wanted)?;
        }
        self.turn_until(REST, || self.under.get() == 0)?;
        Ok(true)
    }

    /// Messages per second, each counted when it is acknowledged.
    fn stream(self: &Rc<Self>, body: &[u8], seconds: Duration) -> Result<f64> {
        let (begun, mut accepted) = (now(), 0_u64);
        let end = begun + seconds.as_nanos() as u64;
        let writable = Rc::new(Cell::new(true));
        let told = Rc::clone(&writable);
        self.member.bus.on_writable(move |_, _| told.set(true));
        while now() < end {
            for _ in 0..GULP {
                match self.send(body) {
                    Ok(()) => accepted += 1,
                    Err(BusError::WouldBlock) => {
                        writable.set(false);
                        break;
                    }
                    Err(error) => bail!("{error}"),
                }
            }
            match writable.get() {
                true => {
                    self.member.base.turn(Turn::NoWait)?;
                }
                false => drop(self.turn_until(REST, || writable.get())?),
            }
        }
        let left = self.member.bus.flush(REST).map_err(|error| anyhow!("{error}"))?;
        if left > 0 {
            bail!("{left} records are not acknowledged after {} s", REST.as_secs());
        }
        Ok(accepted as f64 * 1e9 / (now() - begun) as f64)
    }

    fn send(&self, body: &[u8]) -> Result<(), BusError> {
        match self.member.bus.send(&self.to, body) {
            Err(BusError::TooLong { .. }) => {
                self.member.bus.send_large(&self.to, &SendOptions::default(), body)
            }
            other => other,
        }
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(0.0)
}

fn print(on: &Measuring, load: &Load<'_>, rows: &[Row]) -> String {
    let channels = on.member.bus.out_status();
    let way = channels.first().map_or("?", |one| match one.way {
        "direct" => "directly, both are on one host",
        "relay" => "through relays",
        other => other,
    });
    let names = ["SIZE", "P50", "P99", "P99.9", "MAX", "ROUND TRIPS/s", "STREAM/s", "BYTES/s"];
    let mut lines = vec![names.map(str::to_string)];
    for row in rows {
        let of = |quantile| match &row.trips {
            Some(trips) => span(trips.value_at_quantile(quantile)),
            None => "-".to_string(),
        };
        let seconds = load.seconds.as_secs_f64() * f64::from(load.rounds);
        let trips = row.trips.as_ref().map(|trips| trips.len() as f64 / seconds);
        let rate = median(row.rates.clone());
        lines.push([
            bytes(row.size as u64),
            of(0.5),
            of(0.99),
            of(0.999),
            of(1.0),
            trips.map_or("-".to_string(), |rate| grouped(rate.round() as u64)),
            grouped(rate.round() as u64),
            bytes((rate * row.size as f64).round() as u64),
        ]);
    }
    let Load { src, dst, depth, rounds, seconds, .. } = load;
    let head = format!(
        "{src} to {dst}, {way}: {depth} under way in the round trip, {rounds} rounds of {} s each, \
         the stream's median\n",
        seconds.as_secs_f64()
    );
    let cut = rows.iter().filter(|row| row.trips.is_none()).map(|row| bytes(row.size as u64));
    let cut = match cut.collect::<Vec<_>>() {
        cut if cut.is_empty() => String::new(),
        cut => format!("\n\n{}: too large for a request; sent in pieces", cut.join(", ")),
    };
    format!("{head}\n{}{cut}", columns(&lines, 0))
}
