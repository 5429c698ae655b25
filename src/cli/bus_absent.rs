//! The bus is not in this build: it has no verbs.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use ringlane::reactor::Config;

/// None.
#[derive(Subcommand, Debug)]
pub enum Verb {}

/// Nobody can ask.
pub fn run(_config: &Config, verb: Verb, _dumb: bool) -> Result<ExitCode> {
    match verb {}
}
