//! `ringlane explain`: which way messages go, and why, from the config.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use ringlane::cluster::{Cluster, explain};

use crate::cli::serve::say;

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// Who sends: a node, or a node with its host, like `login@a`.
    #[arg(value_name = "SRC")]
    src: String,
    /// Who receives.
    #[arg(value_name = "DST")]
    dst: String,
    /// The number of the channel.
    #[arg(long, value_name = "N", default_value = "0")]
    chan: u16,
    /// The config of the cluster.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print it for machines.
    #[arg(long)]
    json: bool,
}

/// Explains.
pub fn run(asked: &Asked) -> Result<()> {
    // The secret is nobody's business here.
    let cluster = Cluster::load_public(&asked.config).map_err(|errors| {
        let file = asked.config.display();
        match errors.problems() {
            [] => anyhow::anyhow!("{errors}"),
            [first, ..] => anyhow::anyhow!(
                "{file}:{}:{}: {}; `ringlane check {file}` says more",
                first.line,
                first.column,
                first.what
            ),
        }
    })?;
    let explanation = explain(&cluster, &asked.src, &asked.dst, asked.chan)?;
    if asked.json {
        say(&serde_json::to_string_pretty(&explanation).context("an explanation as JSON")?);
    } else {
        say(&explanation.to_string());
    }
    Ok(())
}
