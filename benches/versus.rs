//! The A B A B harness: `cargo bench -p ringlane-benches --bench versus`.
//! See METHOD.md for what it does and how to read it, `-- --help` for its options.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ringlane_benches::cell::{self, Plan};
use ringlane_benches::count::{self, Counter};
use ringlane_benches::peer::raise_files;
use ringlane_benches::pin::real_time;
use ringlane_benches::report::{self, Csv};
use ringlane_benches::resident;
use ringlane_benches::server::{Programs, compile_libevent};
use ringlane_benches::table::{CELLS, Cell};

/// ringlane beside libevent, tokio and epoll by hand, in interleaved rounds.
#[derive(Parser)]
struct Args {
    /// Only these cells (comma-separated).
    #[arg(long, value_delimiter = ',', value_parser = cell_names())]
    cell: Vec<String>,
    /// These servers instead of each cell's own: libevent, epoll, epoll-64k, tokio, ringlane,
    /// ringlane-ENGINE (comma-separated; the first is the reference of ratios without a promise).
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Rounds.
    #[arg(long)]
    rounds: Option<usize>,
    /// Length of the measured window.
    #[arg(long)]
    seconds: Option<f64>,
    /// 3 rounds of 0.3 s: a look, not a figure to quote.
    #[arg(long)]
    quick: bool,
    /// Writes every sample to this file.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Counts system calls per message instead of measuring time.
    #[arg(long)]
    syscalls: bool,
    /// Measures resident memory per idle connection instead of time.
    #[arg(long)]
    rss: bool,
    /// Idle connections for --rss.
    #[arg(long, default_value_t = 5000)]
    idle: usize,
    /// Runs without real-time priority even where it is allowed.
    #[arg(long)]
    no_real_time: bool,
    /// Exits with 1 when a promise is missed, not only when a server failed.
    #[arg(long)]
    strict: bool,
    /// What cargo bench says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn cell_names() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(CELLS.iter().map(|cell| cell.name))
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(missed) => {
            println!("\npromises missed: {missed}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("versus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<usize> {
    let programs = programs();
    raise_files();
    for line in report::machine() {
        println!("{line}");
    }
    let missed = if args.rss {
        {
            let servers = available(servers(args, DEFAULT_COUNTED), &programs);
            resident::print(&servers, &programs, args.idle)?
        }
    } else {
        let allowed = !args.no_real_time && real_time(true);
        if !allowed {
            println!("normal priority: run as root for SCHED_FIFO, the ratios are steadier");
        }
        let done =
            if args.syscalls { calls(args, &programs) } else { times(args, &programs, allowed) };
        if allowed {
            real_time(false);
        }
        done?
    };
    if args.strict && missed > 0 {
        return Err(io::Error::other(format!("{missed} promises missed")));
    }
    Ok(missed)
}

const DEFAULT_COUNTED: &[&str] = &["libevent", "epoll", "tokio", "ringlane", "ringlane-epoll"];
const DEFAULT_COUNTED_CELLS: &[&str] = &["tcp-64", "unix-64"];

fn servers(args: &Args, default: &[&str]) -> Vec<String> {
    if args.servers.is_empty() {
        default.iter().map(|name| (*name).to_string()).collect()
    } else {
        args.servers.clone()
    }
}

fn cells<'a>(args: &Args, default: &'a [&str]) -> impl Iterator<Item = &'static Cell> + use<'a> {
    let asked = args.cell.clone();
    CELLS.iter().filter(move |cell| {
        if asked.is_empty() {
            default.is_empty() || default.contains(&cell.name)
        } else {
            asked.iter().any(|name| name == cell.name)
        }
    })
}

fn times(args: &Args, programs: &Programs, real_time: bool) -> io::Result<usize> {
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 9 });
    let seconds = args.seconds.unwrap_or(if args.quick { 0.3 } else { 1.0 });
    let plan = Plan { rounds, measure: Duration::from_secs_f64(seconds) };
    let mut csv = Csv::create(args.csv.as_deref(), plan, real_time)?;
    let (mut missed, mut broken) = (0, 0);
    for cell in cells(args, &[]) {
        let servers: Vec<String> = available(servers(args, cell.servers), programs);
        let mut tell = |round, name: &str, sample: &_| csv.line(cell.name, round, name, sample);
        let rounds = cell::run(cell, &servers, programs, plan, &mut tell)?;
        missed += report::print(cell, &rounds);
        broken += rounds.failed.len();
    }
    if broken > 0 {
        return Err(io::Error::other(format!("{broken} runs failed")));
    }
    Ok(missed)
}

fn calls(args: &Args, programs: &Programs) -> io::Result<usize> {
    let counter = Counter::find();
    let mut missed = 0;
    for cell in cells(args, DEFAULT_COUNTED_CELLS) {
        let servers = available(servers(args, DEFAULT_COUNTED), programs);
        missed += count::print(cell, &servers, programs, counter)?;
    }
    Ok(missed)
}

/// Leaves out what is not built here; [`programs`] has said why.
fn available(servers: Vec<String>, programs: &Programs) -> Vec<String> {
    servers.into_iter().filter(|name| name != "libevent" || programs.libevent.is_ok()).collect()
}

fn programs() -> Programs {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/libevent_echo.c");
    let libevent = compile_libevent(&source, Path::new(env!("CARGO_TARGET_TMPDIR")));
    if let Err(why) = &libevent {
        println!("libevent is left out: {why}");
    }
    Programs {
        libevent,
        epoll: env!("CARGO_BIN_EXE_epoll_echo").into(),
        tokio: env!("CARGO_BIN_EXE_tokio_echo").into(),
        ringlane: env!("CARGO_BIN_EXE_ringlane_echo").into(),
    }
}
