//! The bus on one machine: two relays, four processes, one relay killed on the way.
//!
//! ```text
//!     host a                                  host b
//!   login ──┐                              ┌── db
//!     ║     ├── relay a ════ TCP ════ relay b
//!    web  ──┘                              └── audit
//! ```
//!
//! `login` and `web` are neighbours and talk without a relay; everybody else's messages pass both.
//! Each message has a number; what comes is compared with the one before it.

mod hosts;
mod story;
mod table;

use anyhow::{Result, bail};

use self::story::Story;
use crate::cli::serve::say;

/// Messages per second of a flow that is paced.
const RATE: u64 = 1000;

/// Milliseconds that paced flows go on before and after the kill.
const CALM_MS: u64 = 1500;

/// Milliseconds for which there is no relay.
const OUTAGE_MS: u64 = 1000;

/// Messages of a burst.
const BURST: u64 = 300_000;

/// Runs it on an engine and prints the table; an error if a message was lost or came twice.
pub fn run(engine: &str) -> Result<()> {
    say("the bus: login and web on host a, db and audit on host b, a relay on each");
    let mut story = Story::begin(engine)?;
    let abroad = [("login", "db"), ("db", "login"), ("web", "audit"), ("audit", "web")];
    let at_home = [("login", "web"), ("web", "login"), ("db", "audit"), ("audit", "db")];
    let all: Vec<(&str, &str)> = at_home.iter().chain(&abroad).copied().collect();
    story.meet(&all)?;

    let calm = story.pace(&all, RATE, CALM_MS * RATE / 1000)?;
    let messages = (2 * CALM_MS + OUTAGE_MS) * RATE / 1000;
    say(&format!(
        "everybody writes to everybody, {RATE} messages per second each; relay b is killed (-9) \
         and started again after {OUTAGE_MS} ms"
    ));
    let killed = story.pace_and(&all, RATE, messages, |story| {
        story.sleep(CALM_MS);
        story.kill("b")?;
        story.sleep(OUTAGE_MS);
        story.start("b")
    })?;
    let mut rates = Vec::new();
    for (from, to) in [("web", "login"), ("login", "db")] {
        rates.push((from, to, story.burst(from, to, BURST, 64)?));
    }
    let last = story.pace(&all, RATE, 1)?;
    let sent = story.numbers();
    let rows = table::rows(&all, &sent, &calm, &last, &rates);
    say(&table::print(&rows));
    let (lost, doubled) = table::wrong(&rows);
    let longest = killed.values().map(|heard| heard.max_us).max().unwrap_or(0) / 1000;
    say(&format!(
        "lost {lost}, duplicated {doubled} across the killed relay; the longest a message waited \
         was {longest} ms, {OUTAGE_MS} ms of which there was no relay"
    ));
    story.end()?;
    if lost + doubled > 0 {
        bail!("{lost} messages were lost and {doubled} came twice");
    }
    Ok(())
}
