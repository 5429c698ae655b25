//! What a relay costs that has much to do and nothing to say: 100,000 names, 1,000 processes, a
//! channel of each; memory and descriptors of each of them, and the time that all that takes when
//! nothing happens, and per message when something does.
//!
//! ```text
//!   this process: N processes of host a, as Bus objects <== rings, bells ==> relay of a, a child
//! ```
//!
//! ```text
//! cargo run --release -p ringlane-benches --bin scale
//! cargo run --release -p ringlane-benches --bin scale -- --processes 100 --names 1000
//! ```
//!
//! Memory is `RssAnon` of `/proc/PID/status`, and `RssShmem` where rings count; time is that of
//! `/proc/PID/schedstat`, user and kernel together.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use ringlane::bus::Bus;
use ringlane::cluster::Cluster;
use ringlane::prelude::*;
use ringlane::relay::daemon::{Options as RelayOptions, Relay};
use ringlane_benches::peer::raise_files;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Parser, Debug)]
struct Options {
    /// Processes of host a.
    #[arg(long, default_value_t = 1000)]
    processes: usize,
    /// Names in the routing table beside them, of host b.
    #[arg(long, default_value_t = 100_000)]
    names: usize,
    /// How long nothing happens.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Messages of the busy pair.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Is the relay, with that configuration and socket.
    #[arg(long, hide = true, num_args = 2)]
    relay: Option<Vec<String>>,
}

/// What the kernel says of a process.
#[derive(Clone, Copy)]
struct Seen {
    anon: u64,
    shmem: u64,
    cpu: Duration,
    files: u64,
}

impl Seen {
    fn of(pid: u32) -> Result<Seen> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = |key: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|rest| rest.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let mut cpu = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            cpu += stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0_u64);
        }
        let files = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
        Ok(Seen {
            anon: kib("RssAnon:") << 10,
            shmem: kib("RssShmem:") << 10,
            cpu: Duration::from_nanos(cpu),
            files,
        })
    }
}

/// The relay, until the end of its input.
fn relay(config: &str, socket: &str) -> Result<()> {
    raise_files();
    let base = EventBase::new()?;
    let cluster = Cluster::load(config)?;
    let uid = nix::unistd::geteuid().as_raw();
    let (host, socket) = ("a".to_string(), socket.to_string());
    let options =
        RelayOptions { host, socket, uid, pid: std::process::id(), drain: Duration::from_secs(1) };
    let _relay = Relay::start(&base, cluster, options)?;
    println!("ready");
    base.dispatch()?;
    Ok(())
}

struct Daemon {
    child: Child,
    socket: String,
}

impl Daemon {
    fn start(dir: &Path, options: &Options, names: usize) -> Result<Daemon> {
        let config = dir.join(format!("{names}.toml"));
        fs::write(&config, config_text(options.processes, names)?)?;
        let socket = format!("unix://@ringlane-scale-{}-{names}", std::process::id());
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--relay", &config.display().to_string(), &socket])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("a pipe")?).read_line(&mut line)?;
        match line.trim() {
            "ready" => Ok(Daemon { child, socket }),
            _ => Err("the relay has not started".into()),
        }
    }

    fn seen(&self) -> Result<Seen> {
        Seen::of(self.child.id())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail harmlessly if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config_text(processes: usize, names: usize) -> Result<String> {
    let list = |prefix: &str, n: usize| {
        let names: Vec<String> = (0..n).map(|i| format!("\"{prefix}{i}\"")).collect();
        names.join(",")
    };
    let mut text = String::new();
    write!(
        text,
        "[cluster]\nname = \"scale\"\nsecret_file = \"secret\"\n\
         [[host]]\nname = \"a\"\nrelay = [\"unix://@ringlane-scale-{pid}-{names}-a\"]\n\
         nodes = [{}]\n\
         [[host]]\nname = \"b\"\nrelay = [\"unix://@ringlane-scale-{pid}-{names}-b\"]\n\
         nodes = [{}]\n\
         [[channel]]\nfrom = \"*\"\nto = \"*\"\npath = \"relay\"\nring = \"64KiB\"\n",
        list("n", processes),
        list("far", names.max(1)),
        pid = std::process::id(),
    )?;
    Ok(text)
}

/// Turns the base until something holds.
fn until(base: &EventBase, mut holds: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    let tick = base.every(Duration::from_millis(5), |_| {});
    while !holds() {
        base.turn(Turn::Wait)?;
        if begun.elapsed() > Duration::from_secs(120) {
            return Err("it takes too long".into());
        }
    }
    tick.free();
    Ok(())
}

/// What the relay's processor does while nothing happens, as a share of one.
fn idle(base: &EventBase, daemon: &Daemon, seconds: u64) -> Result<f64> {
    let settle = Instant::now() + Duration::from_secs(1);
    until(base, || Instant::now() >= settle)?;
    let (before, begun) = (daemon.seen()?, Instant::now());
    let end = begun + Duration::from_secs(seconds);
    until(base, || Instant::now() >= end)?;
    let spent = daemon.seen()?.cpu - before.cpu;
    Ok(spent.as_secs_f64() / begun.elapsed().as_secs_f64())
}

fn measure(options: &Options, dir: &Path) -> Result<()> {
    let (small, large) =
        (Daemon::start(dir, options, 1)?, Daemon::start(dir, options, options.names)?);
    let (bare, full) = (small.seen()?, large.seen()?);
    drop(small);
    let per = |more: u64, n: usize| more as f64 / n as f64;
    let names = per(full.anon.saturating_sub(bare.anon), options.names);
    println!(
        "a name          {names:>9.0} B, {} names; {} KiB without",
        options.names,
        bare.anon >> 10
    );

    let base = EventBase::new()?;
    println!(
        "idle            {:>9.3} % of a core, nobody there",
        100.0 * idle(&base, &large, options.seconds)?
    );
    let mut all = Vec::new();
    let got = Rc::new(Cell::new(0_u64));
    for n in 0..options.processes {
        let bus = Bus::open_at(&base, &format!("n{n}"), &large.socket)?;
        let got = Rc::clone(&got);
        bus.on_message(move |_| got.set(got.get() + 1));
        all.push(bus);
    }
    until(&base, || all.iter().all(Bus::is_here))?;
    let share = idle(&base, &large, options.seconds)?;
    let here = large.seen()?;
    let process = per(here.anon.saturating_sub(full.anon), options.processes);
    let files = per(here.files.saturating_sub(full.files), options.processes);
    println!("a process       {process:>9.0} B, {files:.1} descriptors");
    println!("idle            {:>9.3} % of a core, {} processes", 100.0 * share, options.processes);

    let next = |n: usize| format!("n{}", (n + 1) % options.processes);
    for (n, bus) in all.iter().enumerate() {
        bus.send(&next(n), &[7; 64])?;
    }
    until(&base, || got.get() >= options.processes as u64)?;
    let share = idle(&base, &large, options.seconds)?;
    let open = large.seen()?;
    let channel = per(open.anon.saturating_sub(here.anon), options.processes);
    let rings = per(open.shmem.saturating_sub(here.shmem), options.processes);
    println!("a channel       {channel:>9.0} B, and {rings:.0} B of rings that are mapped");
    println!("idle            {:>9.3} % of a core, as many channels", 100.0 * share);

    let (before, begun) = (large.seen()?, Instant::now());
    let (due, mut sent) = (got.get() + options.messages, 0);
    until(&base, || {
        while sent < options.messages && all[0].send(&next(0), &[7; 64]).is_ok() {
            sent += 1;
        }
        got.get() >= due
    })?;
    let (spent, took) = (large.seen()?.cpu - before.cpu, begun.elapsed());
    let each = spent.as_secs_f64() * 1e9 / options.messages as f64;
    println!(
        "a message       {each:>9.0} ns of the relay, in a stream of {} that took {took:.1?}",
        options.messages
    );
    Ok(())
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(asked) = &options.relay {
        return relay(&asked[0], &asked[1]);
    }
    raise_files();
    let dir: PathBuf = std::env::temp_dir().join(format!("ringlane-scale-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let secret = dir.join("secret");
    fs::write(&secret, b"0123456789abcdef0123456789abcdef")?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&secret, mode)?;
    let measured = measure(&options, &dir);
    fs::remove_dir_all(&dir)?;
    measured
}
