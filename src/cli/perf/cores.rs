//! Which CPU each side runs on. Left to the scheduler, both sides meet on one core in one run and
//! not in the next, and a round trip differs by ten times between the two.

use anyhow::{Context, Result};
use clap::ValueEnum;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Where client and server run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Cores {
    /// Both on one CPU: what a message costs, without waking another one.
    Same,
    /// Each on one of its own.
    Two,
    /// Wherever the scheduler puts them.
    Any,
}

/// The CPUs of both sides.
#[derive(Debug)]
pub struct Places {
    /// What this process may use.
    all: CpuSet,
    client: CpuSet,
    server: CpuSet,
}

impl Places {
    /// Picks them among the CPUs that this process may use. Two cores fall back to any where
    /// there is only one.
    pub fn pick(cores: Cores) -> Result<(Places, Cores)> {
        let all = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
        let mut ours = (0..CpuSet::count()).filter(|&cpu| all.is_set(cpu).unwrap_or(false));
        let (first, other) = (ours.next(), ours.next());
        let only = |cpu: Option<usize>| -> Result<CpuSet> {
            let mut set = CpuSet::new();
            set.set(cpu.context("no CPU is allowed")?)?;
            Ok(set)
        };
        let cores = if cores == Cores::Two && other.is_none() { Cores::Any } else { cores };
        let (client, server) = match cores {
            Cores::Same => (only(first)?, only(first)?),
            Cores::Two => (only(first)?, only(other)?),
            Cores::Any => (all, all),
        };
        Ok((Places { all, client, server }, cores))
    }

    /// Runs `start` so that the processes it starts are on the server's CPU.
    pub fn start<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        self.go(&self.server)?;
        let started = start();
        self.go(&self.client)?;
        started
    }

    fn go(&self, to: &CpuSet) -> Result<()> {
        sched_setaffinity(Pid::from_raw(0), to).context("sched_setaffinity")
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        // Nobody runs behind it; a failure only keeps this process where it is.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.all);
    }
}
