//! `ringlane demo`: the bus across a killed relay, every message counted; then data through an
//! echo server and proxies, over every transport of this build, every byte checked, on each engine
//! in turn.

#[cfg(feature = "relay")]
mod bus;
#[cfg(not(feature = "relay"))]
#[path = "bus_absent.rs"]
mod bus;
mod load;
mod servers;
mod stream;
mod table;

use std::io::IsTerminal;
use std::rc::Rc;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringlane::prelude::*;
use ringlane::reactor::{Config, Engine};

use self::load::Plan;
use self::servers::Chain;
use self::table::Row;
use super::child::Runs;
use super::serve::say;
use super::{descriptors, parse_bytes};

/// Steps of the progress bar.
const STEPS: u64 = 1000;

/// A part of the demo.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// Two relays and four processes, one relay killed on the way.
    Bus,
    /// Bytes through every transport, on each engine.
    Transports,
}

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// Only this part of it.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Bytes of mixed sizes to push through, over all connections.
    #[arg(long, default_value = "1G", value_parser = parse_bytes)]
    bytes: u64,
    /// Small messages, over all connections.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// What the bytes follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs it and prints the tables; an error if a message was lost or doubled, or a byte was wrong.
pub fn run(config: &Config, asked: &Asked) -> Result<()> {
    if asked.only != Some(Part::Transports) {
        bus::run(&config.engine.to_string())?;
    }
    if asked.only != Some(Part::Bus) {
        run_transports(config, asked)?;
    }
    Ok(())
}

fn run_transports(config: &Config, asked: &Asked) -> Result<()> {
    let plan = Plan {
        connections: asked.connections as usize,
        messages: asked.messages,
        bytes: asked.bytes,
        seed: asked.seed,
    };
    descriptors::raise(1)?;
    servers::way().iter().for_each(|line| say(line));
    say(&format!(
        "{} small messages and {} bytes of mixed sizes on {} connections, every byte compared",
        plan.messages, plan.bytes, plan.connections
    ));
    let insisted = config.engine != Engine::Auto;
    let engines = if insisted { vec![config.engine] } else { vec![Engine::Auto, Engine::Epoll] };
    let mut rows: Vec<Row> = Vec::new();
    for (number, engine) in engines.into_iter().enumerate() {
        // Where the best engine is epoll there is nothing to compare with.
        if rows.iter().any(|row| row.runs.iter().all(|runs| runs.engine == engine.to_string())) {
            continue;
        }
        rows.push(run_on(&Config { engine, ..config.clone() }, &plan, number)?);
    }
    say(&table::print(&rows));
    let bytes: u64 = rows.iter().map(|row| row.measured.bytes).sum();
    say(&format!("all right: {bytes} bytes came back as they were sent"));
    Ok(())
}

fn run_on(config: &Config, plan: &Plan, number: usize) -> Result<Row> {
    let base = EventBase::with_config(config)?;
    let report = base.report();
    let ours = Runs {
        engine: report.engine.into(),
        tier: report.tier.into(),
        fell_back: report.fell_back.unwrap_or_default(),
    };
    let chain = Rc::new(Chain::start(&config.engine.to_string(), number)?);
    let bar = progress_bar(&ours);
    let (cpu, shown) = (Rc::clone(&chain), bar.clone());
    let measured = load::run(
        &base,
        chain.address(),
        plan,
        move || cpu.cpu_ms(),
        move |share| shown.set_position((share * STEPS as f64) as u64),
    );
    bar.finish_and_clear();
    let measured = measured.map_err(|error| {
        let said: String = chain.complaints().iter().map(|line| format!(" [{line}]")).collect();
        anyhow!("demo on {} {}: {error}{said}", ours.engine, ours.tier)
    })?;
    let runs = std::iter::once(&ours).chain(chain.runs()).cloned().collect();
    Ok(Row { runs, measured, peak_kib: chain.peak_kib() })
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar(runs: &Runs) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{msg:<10} [{bar:50}] {percent:>3} % {elapsed}")
        .expect("the template is right");
    ProgressBar::with_draw_target(Some(STEPS), target)
        .with_style(style.progress_chars("=> "))
        .with_message(format!("{} {}", runs.engine, runs.tier))
}
