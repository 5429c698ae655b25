//! What one link costs a process that has thousands: a round trip on one of many `shm://` links,
//! and the memory of those that are idle.
//!
//! ```text
//!   server (ringlane_echo, a process per row) <== N - 1 idle links == holder, a process
//!                                             <== 1 link, 64 B there and back == this process
//! ```
//!
//! All rows live at the same time and are measured in turn, round by round, everything on one core
//! with real-time priority if that is allowed: nobody wakes another core. A ratio is taken inside
//! a round; `METHOD.md` says why.
//!
//! ```text
//! cargo bench -p ringlane-benches --bench many
//! cargo bench -p ringlane-benches --bench many -- --links 1,100 --scheme unix --rounds 3
//! ```

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use ringlane::prelude::*;
use ringlane::reactor::Config;
use ringlane_benches::peer::raise_files;
use ringlane_benches::pin::{pin, real_time};
use ringlane_benches::stats::{ratio, spread};

const MESSAGE: [u8; 64] = [7; 64];

/// Round trips before those that count.
const WARM: usize = 300;

/// What a round trip with the most links may cost, in times of that with the fewest.
const RATIO_MAX: f64 = 1.25;

/// Dials that are under way at a time.
const DIALS: usize = 200;

#[derive(Parser, Debug)]
struct Options {
    /// Links of each row; the first one is the reference.
    #[arg(long, value_delimiter = ',', default_value = "1,1000,4000")]
    links: Vec<usize>,
    #[arg(long, default_value = "shm")]
    scheme: String,
    /// Parameters of the links' addresses, like ring=16KiB.
    #[arg(long)]
    parameters: Option<String>,
    #[arg(long, default_value = "auto")]
    engine: String,
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Round trips per round.
    #[arg(long, default_value_t = 2000)]
    trips: usize,
    /// Exit code 1 if the promise is missed.
    #[arg(long)]
    strict: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A process of ours that ends with us.
struct Process {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(program: &str, arguments: &[&str]) -> io::Result<Process> {
        let mut child = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Ok(Process { child, lines })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        match line.trim() {
            "" => Err(io::Error::other("a process ended before it was ready")),
            line => Ok(line.to_string()),
        }
    }

    fn memory(&self) -> io::Result<Memory> {
        Memory::of(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory of a process and of the kernel, in KiB.
#[derive(Clone, Copy, Default)]
struct Memory {
    own: f64,
    shared: f64,
    kernel: f64,
}

impl Memory {
    fn of(pid: u32) -> io::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let machine = fs::read_to_string("/proc/meminfo")?;
        Ok(Memory {
            own: kib(&status, "RssAnon:"),
            shared: kib(&status, "RssShmem:"),
            kernel: kib(&machine, "SUnreclaim:"),
        })
    }

    /// What it has grown by since, per link, in KiB.
    fn per_link(self, since: Memory, links: usize) -> Memory {
        let per = |now: f64, then: f64| (now - then) / links as f64;
        Memory {
            own: per(self.own, since.own),
            shared: per(self.shared, since.shared),
            kernel: per(self.kernel, since.kernel),
        }
    }
}

fn kib(text: &str, key: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

fn base(engine: &str) -> Result<EventBase> {
    let engine = engine.parse()?;
    EventBase::with_config(&Config { engine, ..Config::default() })
}

/// The process that keeps idle links: dials them, says so, and waits to be ended.
fn hold(engine: &str, at: &str, links: usize) -> Result<()> {
    raise_files();
    let base = base(engine)?;
    let open = Rc::new(Cell::new(0));
    let mut kept = Vec::with_capacity(links);
    while open.get() < links {
        while kept.len() < links && kept.len() - open.get() < DIALS {
            let link = base.connect(at)?;
            let open = Rc::clone(&open);
            link.on_event(move |_, event| {
                assert!(matches!(event, BevEvent::Connected), "{event:?}");
                open.set(open.get() + 1);
            });
            link.enable(READ);
            kept.push(link);
        }
        base.turn(Turn::Wait)?;
    }
    // What is still on its way here arrives.
    let late = base.timer(Duration::from_millis(300), |_| println!("holding"));
    base.dispatch()?;
    drop((kept, late));
    Ok(())
}

/// One row: a server with its links.
struct Row {
    links: usize,
    base: EventBase,
    link: Bufferevent,
    back: Rc<Cell<usize>>,
    /// Ends before its server.
    _holder: Option<Process>,
    server: Process,
    idle: [Memory; 2],
    medians: Vec<f64>,
}

impl Row {
    fn start(options: &Options, links: usize) -> Result<Row, Box<dyn std::error::Error>> {
        let Options { scheme, engine, .. } = options;
        let name = format!("{scheme}://@ringlane-many-{}-{links}", std::process::id());
        let to = match &options.parameters {
            Some(parameters) => format!("{name}?{parameters}"),
            None => name.clone(),
        };
        let echo = env!("CARGO_BIN_EXE_ringlane_echo");
        let mut server = Process::start(echo, &["echo", &name, "--engine", engine])?;
        server.line()?;
        let base = base(engine)?;
        let link = base.connect(&to)?;
        let back = Rc::new(Cell::new(0));
        let got = Rc::clone(&back);
        link.on_read(move |c| {
            got.set(got.get() + c.input().len());
            c.input().drain(c.input().len());
        });
        link.enable(READ);
        let mut row = Row {
            links,
            base,
            link,
            back,
            server,
            _holder: None,
            idle: [Memory::default(); 2],
            medians: Vec::new(),
        };
        row.trips(WARM)?;
        if links > 1 {
            let before = row.server.memory()?;
            let count = (links - 1).to_string();
            let me = std::env::current_exe()?.display().to_string();
            let mut holder = Process::start(&me, &["hold", engine, &to, &count])?;
            holder.line()?;
            let held = holder.memory()?;
            row.idle = [
                row.server.memory()?.per_link(before, links - 1),
                held.per_link(Memory { kernel: held.kernel, ..Memory::default() }, links - 1),
            ];
            row._holder = Some(holder);
        }
        Ok(row)
    }

    /// Round trips; the median in us.
    fn trips(&mut self, n: usize) -> Result<f64> {
        let mut micros = Vec::with_capacity(n);
        for _ in 0..n {
            self.back.set(0);
            let begun = Instant::now();
            self.link.output().add(&MESSAGE);
            while self.back.get() < MESSAGE.len() {
                self.base.turn(Turn::Wait)?;
            }
            micros.push(begun.elapsed().as_nanos() as f64 / 1000.0);
        }
        Ok(spread(&micros).expect("at least one trip").median)
    }
}

fn report(rows: &[Row]) -> bool {
    println!("\nround trip of 64 B on one link, us, and in times of the first row");
    let mut holds = true;
    for row in rows {
        let own = spread(&row.medians).expect("at least one round");
        let times = ratio(&row.medians, &rows[0].medians).expect("as many rounds");
        println!(
            "  {:>6} links {:>8.2} [{:.2} {:.2}]   {:.3} [{:.3} {:.3}]",
            row.links, own.median, own.min, own.max, times.median, times.min, times.max
        );
        holds &= times.median <= RATIO_MAX;
    }
    println!("  at most {RATIO_MAX}: {}", if holds { "holds" } else { "MISSED" });
    println!("\nmemory per idle link, KiB: private, shared, and the kernel's slabs for both ends");
    for row in rows.iter().filter(|row| row.links > 1) {
        let [server, holder] = row.idle;
        println!(
            "  {:>6} links   server {:.2} + {:.1}   connector {:.2} + {:.1}   kernel {:.2}",
            row.links, server.own, server.shared, holder.own, holder.shared, server.kernel
        );
    }
    holds
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [what, engine, at, links] = &arguments[..]
        && what == "hold"
    {
        hold(engine, at, links.parse()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::parse();
    raise_files();
    pin(0)?;
    if !real_time(true) {
        println!("no real-time priority: figures are noisier");
    }
    let mut rows = Vec::new();
    for links in &options.links {
        rows.push(Row::start(&options, *links)?);
    }
    let count = rows.len();
    for round in 0..options.rounds {
        for at in 0..count {
            let row = &mut rows[(round + at) % count];
            row.trips(WARM)?;
            let median = row.trips(options.trips)?;
            row.medians.push(median);
        }
    }
    let holds = report(&rows);
    Ok(if options.strict && !holds { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
