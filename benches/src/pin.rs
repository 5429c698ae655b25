//! Cores, real-time priority, and on-CPU time as the scheduler counts it.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, gettid};

/// Priority of server and generator alike.
const PRIORITY: &str = "10";

/// Binds the calling thread, and what it starts from now on, to one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Gives the calling thread, and what it starts from now on, SCHED_FIFO; whether that was allowed.
/// By `chrt`, because setting a policy from here would take unsafe code.
pub fn real_time(on: bool) -> bool {
    let tid = gettid().to_string();
    let args: &[&str] = if on { &["-f", "-p", PRIORITY, &tid] } else { &["-o", "-p", "0", &tid] };
    let mut chrt = Command::new("chrt");
    let status = chrt.args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// On-CPU time of the calling thread.
pub fn own_cpu_ns() -> io::Result<u64> {
    first_number("/proc/thread-self/schedstat")
}

/// Time that all cores together were not idle, in ns; by ticks, so only good to some per cent.
pub fn machine_busy_ns() -> io::Result<u64> {
    const NS_PER_TICK: u64 = 10_000_000;
    let text = fs::read_to_string("/proc/stat")?;
    let first = text.lines().next().unwrap_or("");
    let mut ticks = first.split_whitespace().skip(1).filter_map(|field| field.parse::<u64>().ok());
    // user nice system, then idle and iowait, then irq softirq steal.
    let worked: u64 = ticks.by_ref().take(3).sum();
    let rest: u64 = ticks.skip(2).take(3).sum();
    Ok((worked + rest) * NS_PER_TICK)
}

/// Reads the on-CPU time of a process: all its threads, kernel threads of its rings included.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    pid: u32,
}

impl Cpu {
    /// Of process `pid`.
    pub fn of(pid: u32) -> Cpu {
        Cpu { pid }
    }

    /// ns on a core since its threads began.
    pub fn ns(&self) -> io::Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let path = task?.path().join("schedstat");
            // A worker thread may end between the listing and the reading.
            sum += path.to_str().and_then(|path| first_number(path).ok()).unwrap_or(0);
        }
        Ok(sum)
    }
}

fn first_number(path: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let first = text.split_whitespace().next().unwrap_or("");
    first.parse().map_err(|_| io::Error::other(format!("{path}: no number")))
}
