//! `ringlane ping`: to a process of the cluster and back, split by what takes the time.
//!
//! ```text
//!   this command --relay--> relay a ---link---> relay b --process--> db
//!                <---------         <---------          <-----------
//! ```

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use ringlane::bus::local::Question;
use ringlane::prelude::*;
use ringlane::reactor::Config;

use crate::cli::parse_seconds;
use crate::cli::serve::say;

use super::ask;
use super::find::{At, Place};
use super::seen::span;

/// A link that is not there yet is asked for by the first ping, and looked for so often.
const AGAIN: Duration = Duration::from_millis(50);

/// Looks for a link that is not there yet.
const TRIES_MAX: u32 = 40;

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// The node whose process answers.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    at: At,
    /// Pings; without it until Ctrl-C.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// From one to the next.
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    interval: Duration,
    /// Print only the summary.
    #[arg(short, long)]
    quiet: bool,
}

/// Where the time of a ping went, in nanoseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Answer {
    whole: u64,
    /// Name and time of each station.
    parts: Vec<(String, u64)>,
}

/// Why there was no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Missing {
    /// The link is being made.
    NoLink,
    Why(String),
}

/// Reads what a relay says of a probe that took `whole` in all.
fn read(text: &str, whole: u64, to: &str) -> Result<Answer, Missing> {
    let mut parts = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let took = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
        match (words.next(), words.next(), took(words.next())) {
            (Some("process"), Some(name), Some(nanos)) => {
                parts.push((format!("process {name}"), nanos));
            }
            (Some("link"), Some(_), Some(nanos)) => parts.push(("link".into(), nanos)),
            (Some("absent"), Some(name), _) => {
                let why = format!("its relay answers, but no process is there as `{name}`");
                return Err(Missing::Why(why));
            }
            _ => return Err(Missing::Why(line.to_string())),
        }
    }
    if parts.is_empty() {
        return Err(Missing::Why(format!("the relay says nothing of {to}")));
    }
    let inside: u64 = parts.iter().map(|(_, nanos)| nanos).sum();
    // The way from us to the relay, and its own time.
    parts.push(("relay".into(), whole.saturating_sub(inside)));
    parts.reverse();
    Ok(Answer { whole, parts })
}

/// The pings so far.
struct Pings {
    base: EventBase,
    place: Place,
    to: String,
    count: Option<u32>,
    interval: Duration,
    quiet: bool,
    sent: Cell<u32>,
    tries: Cell<u32>,
    answers: RefCell<Vec<Answer>>,
    last_why: RefCell<Option<String>>,
    failed: RefCell<Option<anyhow::Error>>,
}

/// Pings. Exit code 1 if one was not answered.
pub fn run(config: &Config, asked: &Asked) -> Result<ExitCode> {
    let place = asked.at.relay()?;
    let base = EventBase::with_config(config)?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        base.on_signal(signal, EventBase::stop)?;
    }
    let pings = Rc::new(Pings {
        base: base.clone(),
        place,
        to: asked.name.clone(),
        count: asked.count,
        interval: asked.interval.max(Duration::from_millis(1)),
        quiet: asked.quiet,
        sent: Cell::new(0),
        tries: Cell::new(0),
        answers: RefCell::default(),
        last_why: RefCell::default(),
        failed: RefCell::default(),
    });
    say(&format!("ping {} through the relay at {}", asked.name, pings.place.socket()));
    pings.ping();
    base.dispatch()?;
    if let Some(error) = pings.failed.take() {
        return Err(error);
    }
    let answered = pings.answers.borrow().len();
    say(&pings.summary());
    if let (0, Some(why)) = (answered, pings.last_why.take()) {
        bail!("no answer from {}: {why}", asked.name);
    }
    let all = answered as u32 >= pings.sent.get();
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Pings {
    fn ping(self: &Rc<Self>) {
        self.sent.set(self.sent.get() + 1);
        self.ask();
    }

    fn ask(self: &Rc<Self>) {
        let (pings, began) = (Rc::clone(self), self.base.now());
        let question = Question::Ping { to: self.to.clone() };
        ask::later(&self.base, &self.place, question, move |answer| pings.heard(began, answer));
    }

    fn heard(self: &Rc<Self>, began: Instant, answer: Result<Result<String, String>>) {
        let whole = self.base.now().saturating_duration_since(began).as_nanos() as u64;
        let answer = match answer {
            Ok(Ok(text)) => read(&text, whole, &self.to),
            Ok(Err(why)) if why.contains("no link") => Err(Missing::NoLink),
            // A wrong name, or one who may not ask: that does not change.
            Ok(Err(why)) if !why.contains("no process") => {
                self.failed.replace(Some(anyhow::anyhow!("{why}")));
                return self.base.stop();
            }
            Ok(Err(why)) => Err(Missing::Why(why)),
            Err(error) if self.answers.borrow().is_empty() => {
                self.failed.replace(Some(error));
                return self.base.stop();
            }
            Err(error) => Err(Missing::Why(error.to_string())),
        };
        if answer == Err(Missing::NoLink) && self.tries.replace(self.tries.get() + 1) < TRIES_MAX {
            let pings = Rc::clone(self);
            return self.base.once(AGAIN, move |_| pings.ask());
        }
        self.tries.set(0);
        self.tell(answer);
        if self.count.is_some_and(|count| self.sent.get() >= count) {
            return self.base.stop();
        }
        let pings = Rc::clone(self);
        let spent = Duration::from_nanos(whole);
        self.base.once(self.interval.saturating_sub(spent), move |_| pings.ping());
    }

    fn tell(&self, answer: Result<Answer, Missing>) {
        let n = self.sent.get();
        let line = match answer {
            Ok(answer) => {
                let part = |(name, nanos): &(String, u64)| format!("{name} {}", span(*nanos));
                let parts: Vec<String> = answer.parts.iter().map(part).collect();
                let line = format!("{n}: {} = {}", span(answer.whole), parts.join(" + "));
                self.answers.borrow_mut().push(answer);
                line
            }
            Err(missing) => {
                let why = match missing {
                    Missing::NoLink => "there is no link to the relay of its host".to_string(),
                    Missing::Why(why) => why,
                };
                let line = format!("{n}: no answer: {why}");
                self.last_why.replace(Some(why));
                line
            }
        };
        if !self.quiet {
            say(&line);
        }
    }

    fn summary(&self) -> String {
        let answers = self.answers.borrow();
        // The last one may be under way still.
        let sent = self.sent.get().max(answers.len() as u32);
        let lost = (sent - answers.len() as u32) * 100 / sent.max(1);
        let mut text =
            format!("\n{}: {sent} pings, {} answers, {lost} % lost", self.to, answers.len());
        let Some(first) = answers.first() else { return text };
        let whole: Vec<u64> = answers.iter().map(|answer| answer.whole).collect();
        text += &format!("\n  min/median/max  {}", spread(whole));
        for (at, (name, _)) in first.parts.iter().enumerate() {
            let of = |answer: &Answer| Some(answer.parts.get(at)?.1);
            text += &format!("\n  {name:<15} {}", spread(answers.iter().filter_map(of).collect()));
        }
        text
    }
}

/// Least, median and most of some times.
fn spread(mut nanos: Vec<u64>) -> String {
    nanos.sort_unstable();
    match nanos[..] {
        [] => "-".into(),
        [least, ..] => {
            let (middle, most) = (nanos[nanos.len() / 2], nanos[nanos.len() - 1]);
            format!("{} / {} / {}", span(least), span(middle), span(most))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_ping_add_up_to_the_whole() {
        let answer = read("process db 300\nlink va 500\n", 1000, "db").expect("an answer");
        let parts = [("relay", 200), ("link", 500), ("process db", 300)];
        assert_eq!(answer.parts, parts.map(|(name, nanos)| (name.to_string(), nanos)));
        assert_eq!(answer.parts.iter().map(|(_, nanos)| nanos).sum::<u64>(), answer.whole);
    }

    #[test]
    fn a_process_that_is_not_there_is_no_answer_and_is_named() {
        let missing = read("absent db\nlink va 500\n", 1000, "db").expect_err("nobody");
        assert!(
            matches!(missing, Missing::Why(why) if why.contains("no process is there as `db`"))
        );
        assert!(read("no answer from db in 10 s\n", 1000, "db").is_err());
        assert!(read("", 1000, "db").is_err());
    }

    #[test]
    fn the_spread_of_times_is_least_median_and_most() {
        assert_eq!(spread(vec![3, 1, 2]), "1 ns / 2 ns / 3 ns");
        assert_eq!(spread(Vec::new()), "-");
    }
}
