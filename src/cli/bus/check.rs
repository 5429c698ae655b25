//! `ringlane check`: what is wrong with a config, as a compiler would say it, or what it says.
//!
//! Exit code 1 if it is wrong, 2 if it could not be read.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ringlane::cluster::{Cluster, ConfigErrors, Host};

use crate::cli::serve::say;

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// The config of the cluster.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Say what the relay of this host would do.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

/// Checks.
pub fn run(asked: &Asked) -> ExitCode {
    let cluster = match Cluster::load(&asked.file) {
        Ok(cluster) => cluster,
        Err(errors) => {
            if matches!(errors, ConfigErrors::Unreadable { .. }) {
                eprintln!("ringlane: {errors}");
                return ExitCode::from(2);
            }
            eprintln!("{errors}");
            return ExitCode::FAILURE;
        }
    };
    for note in cluster.notes() {
        eprintln!("{}:{}: note: {}", asked.file.display(), note.line, note.text);
    }
    match &asked.host {
        None => say(&summary(&asked.file, &cluster)),
        Some(name) => match cluster.plan(name) {
            Some(plan) => say(&plan.to_string()),
            None => {
                let names: Vec<&str> = cluster.hosts().iter().map(|host| &*host.name).collect();
                let names = short(&names);
                eprintln!("ringlane: there is no host `{name}`; the file has {names}");
                return ExitCode::FAILURE;
            }
        },
    }
    ExitCode::SUCCESS
}

/// Names, as many as one reads.
fn short(names: &[&str]) -> String {
    const SHOWN: usize = 12;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

fn counted(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// What the config says, on a screen.
fn summary(file: &Path, cluster: &Cluster) -> String {
    let mut lines = Vec::new();
    let mut row = |name: &str, text: String| lines.push(format!("  {name:<10} {text}"));
    let hosts: Vec<String> = cluster.hosts().iter().map(|host| of_host(cluster, host)).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    row("hosts", format!("{}: {}", hosts.len(), short(&hosts)));
    row("nodes", cluster.node_count().to_string());
    let groups: Vec<String> = cluster
        .groups()
        .map(|group| format!("@{} ({} of {})", group.name, group.pick, group.count()))
        .collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    if !groups.is_empty() {
        row("groups", format!("{}: {}", groups.len(), short(&groups)));
    }
    let (channels, access) = cluster.rule_counts();
    row("rules", format!("{} for channels, {access} for access", channels));
    row("otherwise", cluster.defaults().to_string());
    if let (Some(file), Some(secret)) = (&cluster.secret_file, &cluster.secret) {
        row("secret", format!("{} bytes in {}", secret.bytes().len(), file.display()));
    }
    let unusual = cluster.unusual();
    let defaults = cluster.settings().len() - unusual.len();
    let set: Vec<String> =
        unusual.iter().map(|(table, key, value)| format!("[{table}] {key} = {value}")).collect();
    let settings = counted(defaults, "setting");
    if set.is_empty() {
        row("default", format!("all {settings} (docs/config.md has them)"));
    } else {
        row("set", set.join(", "));
        row("default", format!("{settings} more (docs/config.md has them)"));
    }
    let (name, generation) = (&cluster.name, cluster.generation);
    let head = format!("{} is right: cluster {name}, generation {generation}", file.display());
    format!("{head}\n{}", lines.join("\n"))
}

fn of_host(cluster: &Cluster, host: &Host) -> String {
    format!("{} ({})", host.name, counted(cluster.nodes_of(host).count(), "node"))
}
