//! What an entry of the relay's tables costs, from a thousand of them to a million. The work of a
//! touch, an insert, an eviction and an expiry is the same; what grows are misses of the caches,
//! which hit twins without any ageing just as much: a vector of the same entries for the touch, a
//! hash map for the rest. So the ratios are what must stay flat.
//!
//! ```text
//! cargo bench -p ringlane-benches --bench ageing
//! cargo bench -p ringlane-benches --bench ageing -- --entries 1000,100000 --rounds 3
//! ```
//!
//! Time is virtual: the table is told what time it is, so ten minutes pass at once. A figure is
//! the median over the rounds, of the mean over all entries within a round; the touches come in an
//! order that no cache can foresee. Memory is what the process grew by, resident, for the first
//! table of each large size.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::time::{ClockId, clock_gettime};
use ringlane::relay::aged::{Aged, Evict, Id, Limits};
use ringlane::relay::routes::{Policy, Routes, Source};
use ringlane_benches::stats::{ratio, spread};

const IDLE: Duration = Duration::from_secs(600);

/// Calls of `age` that find nothing, to be measured.
const QUIET_CALLS: u32 = 1_000;

#[derive(Parser, Debug)]
struct Options {
    /// Entries of each row.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    entries: Vec<usize>,
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Said by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// As large as the row of a channel table: both nodes and the channel.
type Key = (u32, u32, u32);

/// What a channel keeps: epochs, cursors, credit, counters.
struct Channel {
    words: [u64; 12],
    unacked: u64,
}

impl Evict for Channel {
    fn may_go(&self) -> bool {
        self.unacked == 0
    }
}

/// Nanoseconds per entry, and bytes.
#[derive(Default)]
struct Costs {
    insert: Vec<f64>,
    touch: Vec<f64>,
    change: Vec<f64>,
    quiet: Vec<f64>,
    evict: Vec<f64>,
    expire: Vec<f64>,
    twin_insert: Vec<f64>,
    twin_touch: Vec<f64>,
    twin_evict: Vec<f64>,
    twin_expire: Vec<f64>,
    bytes: Option<f64>,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    // First, since a heap that has been used tells nothing.
    names(100_000)?;
    let rounds = options.rounds;
    println!("nanoseconds per entry, and times those of a twin; median of {rounds} rounds");
    print!("{:>9}{:>15}{:>15}{:>15}", "entries", "insert", "touch", "evict");
    println!("{:>15}{:>9}{:>11}{:>8}", "expire", "get_mut", "quiet age", "bytes");
    for &entries in &options.entries {
        let mut costs = Costs::default();
        for _ in 0..rounds {
            round(entries, &mut costs)?;
            twin(entries, &mut costs);
        }
        costs.print(entries);
    }
    Ok(())
}

impl Costs {
    fn print(&self, entries: usize) {
        let median = |of: &[f64]| spread(of).map_or(f64::NAN, |spread| spread.median);
        let beside = |ours: &[f64], twin: &[f64]| {
            let times = ratio(ours, twin).map_or(f64::NAN, |spread| spread.median);
            format!("{:.1} {times:>5.1}x", median(ours))
        };
        print!("{entries:>9}{:>15}", beside(&self.insert, &self.twin_insert));
        print!("{:>15}", beside(&self.touch, &self.twin_touch));
        print!("{:>15}", beside(&self.evict, &self.twin_evict));
        print!("{:>15}", beside(&self.expire, &self.twin_expire));
        print!("{:>9.1}{:>11.1}", median(&self.change), median(&self.quiet));
        println!("{:>8.0}", self.bytes.unwrap_or(f64::NAN));
    }
}

fn limits(entries_max: usize) -> Limits {
    Limits { setting: "limits.channels", entries_max, idle_max: IDLE }
}

fn key(at: usize) -> Key {
    (at as u32 % 1_000, at as u32 / 1_000, 1)
}

fn channel() -> Channel {
    Channel { words: [1; 12], unacked: 0 }
}

/// One table from its first entry to its last.
fn round(entries: usize, costs: &mut Costs) -> io::Result<()> {
    let per = |since: u64| (cpu_ns() - since) as f64 / entries as f64;
    let start = Instant::now();
    let (before, mut table) = (resident()?, Aged::new(limits(entries), start));

    let since = cpu_ns();
    let mut ids: Vec<Id> = Vec::with_capacity(entries);
    for at in 0..entries {
        // Two minutes to come in, so that they sit in many places.
        let tick = table.tick(start + IDLE.mul_f64(0.2 * at as f64 / entries as f64));
        ids.push(table.insert(key(at), channel(), tick).expect("there is room").id);
    }
    costs.insert.push(per(since));
    let held = (entries * size_of::<Id>()) as f64;
    let grown = (resident()? - before) as f64 - held;
    // Small ones live on what the heap has kept.
    let told = (entries >= 100_000).then_some(grown / entries as f64);
    costs.bytes = costs.bytes.or(told);
    shuffle(&mut ids);

    let tick = table.tick(start + IDLE / 2);
    let since = cpu_ns();
    for &id in &ids {
        table.touch(black_box(id), tick);
    }
    costs.touch.push(per(since));

    let since = cpu_ns();
    for &id in &ids {
        table.get_mut(black_box(id)).expect("it is there").words[3] += 1;
    }
    costs.change.push(per(since));

    let since = cpu_ns();
    let mut gone = Vec::new();
    for _ in 0..QUIET_CALLS {
        table.age(black_box(start + IDLE / 2), &mut gone);
    }
    costs.quiet.push((cpu_ns() - since) as f64 / f64::from(QUIET_CALLS));

    // The table is full: each newcomer evicts one. All were touched, so each must be moved first.
    let since = cpu_ns();
    for at in 0..entries {
        let newcomer = table.insert(key(entries + at), channel(), tick);
        black_box(newcomer.expect("somebody may go").left);
    }
    costs.evict.push(per(since));

    let since = cpu_ns();
    while table.age(start + IDLE * 2, &mut gone) {
        gone.clear();
    }
    costs.expire.push(per(since));
    assert!(table.is_empty(), "all were idle for long");
    Ok(())
}

/// The same with neither ageing nor a bound.
fn twin(entries: usize, costs: &mut Costs) {
    let per = |since: u64| (cpu_ns() - since) as f64 / entries as f64;
    let since = cpu_ns();
    let mut map = HashMap::new();
    for at in 0..entries {
        map.insert(key(at), channel());
    }
    costs.twin_insert.push(per(since));

    // As large as an entry of the table, and stored to as a touch stores.
    let mut row: Vec<(Channel, Key, [u32; 6])> = Vec::new();
    row.resize_with(entries, || (channel(), key(0), [0; 6]));
    let mut order: Vec<u32> = (0..entries as u32).collect();
    shuffle(&mut order);
    let since = cpu_ns();
    for &at in &order {
        row[black_box(at) as usize].2[0] = 7;
    }
    costs.twin_touch.push(per(since));

    // As many leave as come.
    let since = cpu_ns();
    for at in 0..entries {
        black_box(map.remove(&key(at)));
        map.insert(key(entries + at), channel());
    }
    costs.twin_evict.push(per(since));

    let since = cpu_ns();
    for at in 0..entries {
        black_box(map.remove(&key(entries + at)));
    }
    costs.twin_expire.push(per(since));
}

/// What the names of a large cluster cost, none of which ever ages.
fn names(entries: usize) -> io::Result<()> {
    let (before, now) = (resident()?, Instant::now());
    let limits = Limits { setting: "limits.names", entries_max: entries, idle_max: IDLE };
    let mut routes = Routes::new("a", Policy::default(), limits, 1, now);
    let host = routes.add_host("b", &["tcp://10.0.0.2:7000"]);
    for at in 0..entries {
        routes.know(&format!("node-{at}"), host, Source::Config, now).expect("there is room");
    }
    let bytes = (resident()? - before) as f64 / entries as f64;
    let (later, mut out) = (now + IDLE * 2, Vec::new());
    let since = cpu_ns();
    for _ in 0..QUIET_CALLS {
        routes.tick(black_box(later), &mut out);
    }
    let quiet = (cpu_ns() - since) as f64 / f64::from(QUIET_CALLS);
    let asked: Vec<String> =
        (0..1_000).map(|at| format!("node-{}", at * (entries / 1_000))).collect();
    let since = cpu_ns();
    for name in &asked {
        black_box(routes.resolve(name, later));
    }
    let resolve = (cpu_ns() - since) as f64 / asked.len() as f64;
    println!("{entries} names of nodes from the config: {bytes:.0} resident bytes each,");
    println!(
        "  {resolve:.0} ns to resolve one, {quiet:.0} ns for a tick of the whole routing table"
    );
    Ok(())
}

/// Fisher and Yates, with a generator that is good enough for caches.
fn shuffle<T>(items: &mut [T]) {
    let mut random = 42_u64;
    for at in (1..items.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        items.swap(at, (random >> 33) as usize % (at + 1));
    }
}

/// Processor time of this thread: it leaves out what others do meanwhile.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a thread has a clock");
    Duration::from(time).as_nanos() as u64
}

/// Bytes of this process that are in memory.
fn resident() -> io::Result<i64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok());
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    Ok(pages.ok_or(io::ErrorKind::InvalidData)? * page_bytes)
}
