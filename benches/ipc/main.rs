//! Two processes on one machine: ringlane's shared memory beside a bare cache line, Unix sockets
//! and iceoryx2, in interleaved rounds.
//!
//! ```text
//!   this process, core 1: client --messages--> a process of its own, core 0 (or 1): server
//!   round trip   one message there and back
//!   stream       messages one way; the server looks at both ends of each, and answers the last
//! ```
//!
//! `cargo bench -p ringlane-benches --bench ipc`; METHOD.md says how to read it.

#![forbid(unsafe_code)]

mod cells;
mod ends;
mod ice;
mod line;
mod loops;
mod ring;
mod unix;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use ringlane_benches::pin::{pin, real_time};
use ringlane_benches::report::machine;
use ringlane_benches::stats::{ratio, spread};

use crate::cells::{Bound, CELLS, Cell, Cores};

/// ringlane's shared memory beside a cache line, Unix sockets and iceoryx2.
#[derive(Parser)]
struct Args {
    /// Only these cells (comma-separated).
    #[arg(long, value_delimiter = ',')]
    cell: Vec<String>,
    /// Only these subjects (comma-separated).
    #[arg(long, value_delimiter = ',')]
    subject: Vec<String>,
    /// Rounds.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Length of one measurement, in seconds.
    #[arg(long, default_value_t = 0.4)]
    seconds: f64,
    /// Writes every sample to this file.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Runs without real-time priority even where it is allowed.
    #[arg(long)]
    no_real_time: bool,
    /// Exits with 1 when a promise is missed, not only when a run failed.
    #[arg(long)]
    strict: bool,
    /// How this program runs its other process: SUBJECT NAME CORE.
    #[arg(long, hide = true, num_args = 3)]
    serve: Option<Vec<String>>,
    /// What cargo bench says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A look at the distance of the cores.
const LINE_WINDOW: Duration = Duration::from_millis(20);

/// Round trips of a cache line above this are those of cores that are far apart, in ns.
const FAR_NS: f64 = 150.0;

/// Cores of the client, and of the server where it has one of its own.
const CLIENT: usize = 1;
const SERVER: usize = 0;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.serve {
        Some(words) => serve(words).map(|()| 0),
        None => run(&args),
    };
    match done {
        Ok(missed) if missed > 0 && args.strict => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ipc: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(words: &[String]) -> io::Result<()> {
    // By itself: a client of the same priority must not wait on the core of a server that spins.
    pin(words[2].parse().map_err(io::Error::other)?)?;
    cells::serve(&words[0], &words[1])
}

fn run(args: &Args) -> io::Result<usize> {
    for line in machine() {
        println!("{line}");
    }
    let mut csv = args.csv.as_ref().map(File::create).transpose()?;
    if let Some(csv) = &mut csv {
        for line in machine() {
            writeln!(csv, "# {line}")?;
        }
        writeln!(csv, "cell,round,line_ns,subject,value,unit")?;
    }
    let wanted = |cell: &&Cell| args.cell.is_empty() || args.cell.iter().any(|c| c == cell.name);
    let window = Duration::from_secs_f64(args.seconds);
    let mut missed = 0;
    for cell in CELLS.iter().filter(wanted) {
        let mut rows: Vec<Vec<f64>> = vec![Vec::new(); cell.subjects.len()];
        let mut lines = Vec::new();
        for round in 0..args.rounds {
            // How far apart the two cores are now: a host moves them.
            lines.push(match cell.cores {
                Cores::Two => sample(cell, "line", LINE_WINDOW, !args.no_real_time)?,
                Cores::One => 0.0,
            });
            for step in 0..cell.subjects.len() {
                let at = (step + round) % cell.subjects.len();
                let subject = cell.subjects[at];
                if !args.subject.is_empty() && !args.subject.iter().any(|s| s == subject) {
                    continue;
                }
                let value = sample(cell, subject, window, !args.no_real_time)
                    .map_err(|error| io::Error::other(format!("{subject}: {error}")))?;
                rows[at].push(value);
                if let Some(csv) = &mut csv {
                    let (name, line) = (cell.name, lines[round]);
                    writeln!(csv, "{name},{round},{line:.0},{subject},{value:.1},{}", cell.unit)?;
                }
            }
        }
        missed += print(cell, &rows, &lines);
    }
    println!("\npromises missed: {missed}");
    Ok(missed)
}

/// A server process, for as long as it is needed.
struct Server(Child);

impl Server {
    fn start(subject: &str, name: &str, core: usize) -> io::Result<Server> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--serve", subject, name, &core.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or_else(|| io::Error::other("no stdout"))?;
        let server = Server(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        match line.trim() {
            "ready" => Ok(server),
            other => Err(io::Error::other(format!("the server said {other:?}"))),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends by itself when it was told; a broken one does not hang the bench.
        for _ in 0..1000 {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sample(cell: &Cell, subject: &str, window: Duration, allowed: bool) -> io::Result<f64> {
    let name = format!("ringlane-ipc-{}-{subject}", std::process::id());
    pin(CLIENT)?;
    let core = if cell.cores == Cores::Two { SERVER } else { CLIENT };
    let real = allowed && real_time(true);
    let done = Server::start(subject, &name, core).and_then(|server| {
        let value = cells::drive(subject, &name, window)?;
        drop(server);
        Ok(value)
    });
    if real {
        real_time(false);
    }
    done
}

fn print(cell: &Cell, rows: &[Vec<f64>], lines: &[f64]) -> usize {
    println!("\n{}  ({}, {})", cell.name, cell.what, cell.cores.words());
    let mut missed = 0;
    for far in [false, true] {
        let picked: Vec<usize> =
            (0..lines.len()).filter(|round| (lines[*round] > FAR_NS) == far).collect();
        if picked.is_empty() {
            continue;
        }
        let pick = |row: &Vec<f64>| picked.iter().filter_map(|at| row.get(*at).copied()).collect();
        let rows: Vec<Vec<f64>> = rows.iter().map(pick).collect();
        if cell.cores == Cores::Two {
            let near = if far { "far apart" } else { "near" };
            println!("  {} rounds with the cores {near}:", picked.len());
        }
        missed += print_rows(cell, &rows, far);
    }
    missed
}

fn print_rows(cell: &Cell, rows: &[Vec<f64>], far: bool) -> usize {
    for (subject, row) in cell.subjects.iter().zip(rows) {
        if let Some(s) = spread(row) {
            println!("  {subject:<18}{:>12.0} {} ({:.0}-{:.0})", s.median, cell.unit, s.min, s.max);
        }
    }
    let row = |name: &str| cell.subjects.iter().position(|s| *s == name).map(|at| &rows[at]);
    let mut missed = 0;
    for promise in cell.promises {
        let (Some(ours), Some(peer)) = (row(promise.ours), row(promise.peer)) else { continue };
        let Some(r) = ratio(ours, peer) else { continue };
        let bound = promise.far.filter(|_| far).unwrap_or(promise.bound);
        let (kept, sign) = match bound {
            Bound::AtMost(most) => (r.median <= most, format!("<= {most}")),
            Bound::AtLeast(least) => (r.median >= least, format!(">= {least}")),
        };
        missed += usize::from(!kept);
        println!(
            "  {} / {}: {:.3} ({:.3}-{:.3}), wanted {sign}: {}",
            promise.ours,
            promise.peer,
            r.median,
            r.min,
            r.max,
            if kept { "ok" } else { "MISS" }
        );
    }
    missed
}
