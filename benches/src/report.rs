//! What is printed for people, and the csv for the record.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::cell::{Plan, Rounds, Sample};
use crate::stats::{Spread, ratio, spread};
use crate::table::{Bound, Cell, Measure, Mode};

/// A csv with one line per server and round, or nothing if no file was asked for.
pub struct Csv(Option<BufWriter<File>>);

impl Csv {
    /// Opens the file and writes the head: lines with `#` say where it was measured.
    pub fn create(path: Option<&Path>, plan: Plan, real_time: bool) -> io::Result<Csv> {
        let Some(path) = path else { return Ok(Csv(None)) };
        let mut out = BufWriter::new(File::create(path)?);
        for line in machine() {
            writeln!(out, "# {line}")?;
        }
        writeln!(out, "# rounds {}, window {:?}", plan.rounds, plan.measure)?;
        writeln!(out, "# real-time priority: {}", if real_time { "yes" } else { "no" })?;
        writeln!(
            out,
            "cell,round,server,cpu_ns_per_message,messages_per_s,p50_us,p99_us,bytes_per_s,\
             busy,others"
        )?;
        Ok(Csv(Some(out)))
    }

    /// One line.
    pub fn line(&mut self, cell: &str, round: usize, name: &str, s: &Sample) -> io::Result<()> {
        let Some(out) = &mut self.0 else { return Ok(()) };
        writeln!(
            out,
            "{cell},{round},{name},{:.1},{:.0},{:.1},{:.1},{:.0},{:.3},{:.3}",
            s.cpu_ns, s.rate, s.p50_us, s.p99_us, s.bytes, s.busy, s.others
        )?;
        out.flush()
    }
}

/// Kernel and processor.
pub fn machine() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    vec![
        format!("kernel {}", read("/proc/sys/kernel/osrelease").trim()),
        format!("cpu {} x {cores}", model.unwrap_or("").trim_start_matches(['\t', ':', ' '])),
        format!("load average {}", read("/proc/loadavg").trim()),
    ]
}

/// Prints a cell; returns how many promises were missed.
pub fn print(cell: &Cell, rounds: &Rounds) -> usize {
    let mode = if cell.mode == Mode::Same { "one core" } else { "two cores" };
    let shape: Vec<String> =
        cell.groups.iter().map(|g| format!("{} x {} B x {}", g.conns, g.size, g.depth)).collect();
    println!("\n{}  ({:?}, {}, {mode})", cell.name, cell.via, shape.join(" + "));
    println!(
        "  {:<16}{:>12}{:>12}{:>10}{:>10}{:>10}{:>7}{:>8}",
        "server", "cpu ns/msg", "msg/s", "p50 us", "p99 us", "MB/s", "busy", "others"
    );
    for (name, samples) in &rounds.ran {
        let mid = |f: fn(&Sample) -> f64| {
            let values: Vec<f64> = samples.iter().map(f).collect();
            spread(&values).map_or(f64::NAN, |s| s.median)
        };
        println!(
            "  {name:<16}{:>12.0}{:>12.0}{:>10.1}{:>10.1}{:>10.0}{:>6.0}%{:>7.0}%",
            mid(|s| s.cpu_ns),
            mid(|s| s.rate),
            mid(|s| s.p50_us),
            mid(|s| s.p99_us),
            mid(|s| s.bytes) / 1e6,
            mid(|s| s.busy) * 100.0,
            mid(|s| s.others) * 100.0
        );
    }
    for (name, why) in &rounds.failed {
        println!("  {name:<16}no figures: {why}");
    }
    ratios(cell, rounds)
}

fn ratios(cell: &Cell, rounds: &Rounds) -> usize {
    let between = |ours: &str, peer: &str, measure: Measure| {
        ratio(&rounds.values(ours, measure)?, &rounds.values(peer, measure)?)
    };
    let mut missed = 0;
    for target in cell.targets {
        let Some(got) = between(target.ours, target.peer, target.measure) else { continue };
        let holds = target.bound.holds(got.median);
        missed += usize::from(!holds);
        let want = match target.bound {
            Bound::AtMost(most) => format!("<= {most:.2}"),
            Bound::AtLeast(least) => format!(">= {least:.2}"),
        };
        let pair = format!("{} / {}", target.ours, target.peer);
        line(&pair, target.measure, got, &format!("{want:>9}  {}", verdict(holds)));
    }
    let Some((reference, _)) = rounds.ran.first() else { return missed };
    for (name, _) in &rounds.ran[1..] {
        let promised = cell.targets.iter().any(|target| {
            target.ours == name && target.peer == reference && target.measure == cell.measure
        });
        if let (false, Some(got)) = (promised, between(name, reference, cell.measure)) {
            line(&format!("{name} / {reference}"), cell.measure, got, "");
        }
    }
    missed
}

/// `ok` or `MISS`.
pub fn verdict(holds: bool) -> &'static str {
    if holds { "ok" } else { "MISS" }
}

fn line(pair: &str, measure: Measure, got: Spread, want: &str) {
    let spread = format!("({:.3}..{:.3})", got.min, got.max);
    println!("  {pair:<28}{:<8}{:>8.3}  {spread:<17}{want}", measure.name(), got.median);
}
