//! The bus is not in this build: it has no verbs.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// None.
#[derive(Subcommand, Debug)]
pub enum Verb {}

/// Nobody can ask.
pub fn run(verb: Verb) -> Result<ExitCode> {
    match verb {}
}
