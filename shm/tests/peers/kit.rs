//! What the tests with two processes have in common: bases, children, and what `/proc` says.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringlane_api::EventBase;
use ringlane_reactor::{Config, Engine, best};
use ringlane_shm::layout::{Header, PAGE, RING_BYTES_MIN};
use ringlane_shm::ring::Published;

/// The smallest rings: they are full and wrap all the time.
pub const SMALL: Header = Header { cap: RING_BYTES_MIN, nonce: 1, features: 0 };

/// Seconds after which a child ends itself, whatever happens to its parent.
const CHILD_SECONDS: u32 = 3600;

/// xorshift64*: seeds that replay.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }
}

/// A bound that an environment variable may raise.
pub fn bound(variable: &str, ordinary: u64) -> u64 {
    match std::env::var(variable) {
        Err(_) => ordinary,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    }
}

pub fn name(engine: Engine) -> &'static str {
    if engine == Engine::Epoll { "epoll" } else { "uring" }
}

pub fn engine(name: &str) -> Engine {
    if name == "epoll" { Engine::Epoll } else { Engine::Uring }
}

pub fn base(engine: Engine) -> EventBase {
    let config = Config { engine, ..Config::default() };
    EventBase::with(best(&config).expect("it was tried"), vec![ringlane_shm::transport()])
}

/// The engines that this machine has.
pub fn engines() -> Vec<Engine> {
    let there = |engine: &Engine| {
        let config = Config { engine: *engine, ..Config::default() };
        best(&config).map_err(|error| println!("  skipped {}: {error}", name(*engine))).is_ok()
    };
    [Engine::Uring, Engine::Epoll].into_iter().filter(there).collect()
}

/// An address that nobody else has.
pub fn address(what: &str, n: usize) -> String {
    format!("shm://@ringlane-peers-{}-{what}-{n}?ring=4KiB", std::process::id())
}

/// This program again, as a child.
pub fn child(arguments: &[&str], stdin: impl Into<Stdio>) -> (Child, BufReader<ChildStdout>) {
    let program = std::env::current_exe().expect("it has a name");
    let mut child = Command::new(program)
        .arg("child")
        .args(arguments)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let told = child.stdout.take().expect("it is piped");
    (child, BufReader::new(told))
}

/// Waits for a line of a child.
pub fn line(told: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    told.read_line(&mut line).expect("it is text");
    line.trim_end().to_string()
}

/// What a child does first: it goes with its parent.
pub fn be_a_child() {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL).expect("it is a signal");
    nix::unistd::alarm::set(CHILD_SECONDS);
}

static DEADLINE: Mutex<Option<(Instant, String)>> = Mutex::new(None);

/// Ends the test program if nothing is heard for so long.
pub fn watch(what: impl Into<String>, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let before = DEADLINE.lock().expect("nobody panics here").replace((end, what.into()));
    if before.is_some() {
        return;
    }
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let deadline = DEADLINE.lock().expect("nobody panics here");
            if let Some((end, what)) = &*deadline
                && Instant::now() > *end
            {
                println!("FAIL: {what}: it hangs");
                std::process::exit(1);
            }
        }
    });
}

/// The byte at a position of the stream that a side sends.
pub fn pattern(side: usize, at: u64) -> u8 {
    let mixed = (at ^ (side as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

pub fn open_fds() -> usize {
    // One of them reads the folder.
    fs::read_dir("/proc/self/fd").expect("it is there").count() - 1
}

/// Where the segments of open links are mapped.
pub fn segments() -> Vec<u64> {
    let maps = fs::read_to_string("/proc/self/maps").expect("it is text");
    let ours = maps.lines().filter(|line| line.contains("/memfd:ringlane "));
    let start = |line: &str| u64::from_str_radix(line.split('-').next()?, 16).ok();
    ours.filter_map(start).collect()
}

/// Lines of `/proc/self/maps`.
pub fn maps() -> usize {
    fs::read_to_string("/proc/self/maps").expect("it is text").lines().count()
}

/// Resident memory, KiB.
pub fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("it is text");
    let pages = statm.split(' ').nth(1).and_then(|text| text.parse::<u64>().ok());
    pages.expect("it is a number") * PAGE as u64 / 1024
}

/// What a side has published in a segment of ours, and whether it has said its end.
pub fn said(segment: u64, side: usize) -> (Published, bool) {
    let memory = File::open("/proc/self/mem").expect("it is ours");
    let lane = SMALL.lane(side);
    let (mut word, mut state) = ([0; 8], [0; 4]);
    memory.read_exact_at(&mut word, segment + lane.word as u64).expect("it is mapped");
    memory.read_exact_at(&mut state, segment + lane.state as u64).expect("it is mapped");
    (Published::of(u64::from_le_bytes(word)), u32::from_le_bytes(state) != 0)
}

/// Names in `/dev/shm` and in the folder for temporary files that could be ours.
pub fn litter() -> Vec<String> {
    let folders = ["/dev/shm".into(), std::env::temp_dir()];
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let names = entries.flatten().map(|entry| entry.path().display().to_string());
    let ours = |name: &String| name.contains("ringlane-peers") || name.contains("memfd");
    let mut found: Vec<String> = names.filter(ours).collect();
    found.sort();
    found
}

/// Median and worst, for a line of output.
pub fn median_and_worst(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |n: usize| times.get(n).copied().unwrap_or_default().as_secs_f64() * 1e3;
    let last = times.len().saturating_sub(1);
    format!(
        "median {:.3} ms, p99 {:.3} ms, worst {:.3} ms of {}",
        at(last / 2),
        at(last * 99 / 100),
        at(last),
        times.len()
    )
}
