//! The bus is not in this build: it has no verbs.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;
use ringlane::reactor::Config;

/// None.
#[derive(Subcommand, Debug)]
pub enum Verb {}

/// Nobody can ask.
pub fn run(_config: &Config, verb: Verb, _dumb: bool) -> Result<ExitCode> {
    match verb {}
}

/// What `perf` is asked for.
#[allow(dead_code, reason = "nobody measures here")]
pub struct Load<'a> {
    pub src: &'a str,
    pub dst: &'a str,
    pub sizes: Vec<usize>,
    pub depth: u32,
    pub seconds: Duration,
    pub rounds: u32,
    pub connect: bool,
}

/// There is nothing to measure.
pub fn load(_config: &Config, _plan: &Load<'_>) -> Result<()> {
    bail!("this build has no bus to measure; build it with --features relay")
}
