//! How the program serves: signals, the drain, and the end.
//!
//! ```text
//!   SIGUSR1          counters to stderr
//!   SIGTERM, SIGINT  no new connections; the open ones go on until they end, at most --drain
//!   a second one     the end, now
//! ```

use std::cell::Cell;
use std::io::Write;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use ringlane::reactor::EngineReport;
use ringlane::{EventBase, Signal, What};

use super::Serving;

/// How often a draining server looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// What can be served and drained.
pub trait Service {
    /// Closes the listeners.
    fn stop_accepting(&self);
    /// Connections that are still open.
    fn connections(&self) -> usize;
    /// The counters, one line each.
    fn counters(&self) -> Vec<String>;
}

/// Prints a line on stdout at once. A reader that went away is no reason to stop.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Says `lines` when signals are in our hands, and serves until one of them ends it.
pub fn run(
    base: &EventBase,
    service: Rc<dyn Service>,
    asked: &Serving,
    lines: &[String],
) -> Result<()> {
    let report = base.report();
    log::info!("engine {} {}", report.engine, report.tier);
    let signals = Rc::new(Cell::new(0_u32));
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (signals, service, drain) = (Rc::clone(&signals), Rc::clone(&service), asked.drain);
        base.on_signal(signal, move |base| {
            signals.set(signals.get() + 1);
            if signals.get() > 1 || drain.is_zero() {
                service.stop_accepting();
                base.stop();
            } else {
                begin_drain(base, &service, drain);
            }
        })
        .context("signals")?;
    }
    let told = Rc::clone(&service);
    base.on_signal(Signal::SIGUSR1, move |_| {
        for line in told.counters() {
            eprintln!("ringlane: {line}");
        }
    })
    .context("signals")?;
    if asked.child {
        end_with_stdin(base)?;
        say(&engine_line(&report));
    }
    lines.iter().for_each(|line| say(line));
    base.dispatch()?;
    let left = service.connections();
    if left > 0 {
        eprintln!("ringlane: {left} connections were cut off");
    }
    for line in service.counters() {
        log::info!("{line}");
    }
    Ok(())
}

fn begin_drain(base: &EventBase, service: &Rc<dyn Service>, drain: Duration) {
    service.stop_accepting();
    let open = service.connections();
    if open > 0 {
        eprintln!("ringlane: draining {open} connections, at most {} s", drain.as_secs_f64());
    }
    base.stop_after(drain);
    let service = Rc::clone(service);
    base.every(DRAIN_LOOK, move |look| {
        // Freed links count until their last byte is out.
        let Some(base) = look.base() else { return };
        if service.connections() == 0 && base.stats().links == 0 {
            base.stop();
        }
    });
}

/// The end of stdin is the end of this process.
pub fn end_with_stdin(base: &EventBase) -> Result<()> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("stdin")?;
    // Nobody writes to it, and a build without Unix sockets has no bufferevent for pipes.
    let end = base.event(stdin, What::READ, |event, _| {
        if let Some(base) = event.base() {
            base.stop();
        }
    });
    end.context("stdin")?.add(None);
    Ok(())
}

/// What engine runs, for the process that started this one.
fn engine_line(report: &EngineReport) -> String {
    let why = report.fell_back.as_deref().unwrap_or("").replace('\n', " ");
    format!("engine {} {} {why}", report.engine, report.tier)
}
