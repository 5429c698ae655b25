//! The command line: what can be asked, and who answers it.

#[cfg(feature = "relay")]
mod bus;
#[cfg(not(feature = "relay"))]
#[path = "bus_absent.rs"]
mod bus;
mod child;
mod demo;
mod descriptors;
mod doctor;
mod echo;
mod forward;
mod held;
mod logger;
mod perf;
mod proc;
mod serve;
mod text;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use ringlane::prelude::*;
use ringlane::reactor::{Config, Engine};

/// Carries bytes over tcp://, unix:// and shm:// (rdma:// with --features rdma) through io_uring,
/// or epoll where that is refused.
#[derive(Parser, Debug)]
#[command(name = "ringlane", version, max_term_width = 100)]
pub struct Cli {
    /// How to reach the kernel: auto, uring, epoll, or a tier u1..u5; naming one insists on it.
    /// Without it RINGLANE_ENGINE decides, and without that the best the kernel offers.
    #[arg(long, global = true, value_name = "ENGINE", value_parser = parse_engine,
          display_order = 900)]
    engine: Option<Engine>,
    /// Say more on stderr; twice says everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, display_order = 901)]
    verbose: u8,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Joins each connection to FROM with a new one to TO, and moves bytes both ways.
    Forward(forward::Asked),
    /// Sends back what it receives.
    Echo(echo::Asked),
    /// Says what this kernel offers, what is used of it, and what to do about the rest.
    Doctor(doctor::Asked),
    /// Pushes data through an echo server and proxies, over every transport of this build and on
    /// each engine, and checks every byte.
    Demo(demo::Asked),
    /// Measures round trips and streams over an address, over every transport there is, or between
    /// two names of the bus.
    Perf(perf::Asked),
    #[command(flatten)]
    Bus(bus::Verb),
}

/// What every verb that serves takes.
#[derive(Args, Debug, Clone)]
pub struct Serving {
    /// Connections at once; more are closed when they come. Default: what the descriptor limit
    /// allows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// After SIGTERM or SIGINT, how long open connections may go on; a second signal ends them
    /// at once.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    drain: Duration,
    /// The end of stdin ends the process, and the first line on stdout names the engine: how
    /// `ringlane demo` runs its servers.
    #[arg(long, hide = true)]
    child: bool,
}

impl Serving {
    /// Raises the descriptor limit; how many connections of `per_connection` descriptors fit.
    fn room(&self, per_connection: u64) -> Result<usize> {
        match self.child {
            true => Ok(descriptors::raise_quietly(per_connection)?.0),
            false => descriptors::raise(per_connection),
        }
    }
}

/// Reads the command line and does what it says. A `dumb` terminal can do nothing but lines.
pub fn run(dumb: bool) -> Result<ExitCode> {
    let cli = Cli::parse();
    logger::install(cli.verbose);
    let mut config = Config::from_env()?;
    if let Some(engine) = cli.engine {
        config.engine = engine;
    }
    match cli.verb {
        Verb::Forward(asked) => forward::run(&EventBase::with_config(&config)?, &asked),
        Verb::Echo(asked) => echo::run(&EventBase::with_config(&config)?, &asked),
        Verb::Doctor(asked) => doctor::run(&config, &asked),
        Verb::Demo(asked) => demo::run(&config, &asked),
        Verb::Perf(asked) => perf::run(&config, &asked),
        Verb::Bus(verb) => return bus::run(&config, verb, dumb),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn parse_engine(text: &str) -> Result<Engine, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// Whole or broken seconds, `30` or `0.5`.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 =
        text.parse().map_err(|_| "not a number of seconds; write it like 30 or 0.5".to_string())?;
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| "not a possible number of seconds; write it like 30 or 0.5".to_string())
}

/// A number of bytes: `4096`, `64K`, `16M`, `1G`; `64KiB` is the same as `64K`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = ['K', 'k', 'M', 'm', 'G', 'g'];
    let text = text.strip_suffix("iB").filter(|text| text.ends_with(units)).unwrap_or(text);
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: u64 =
        digits.parse().map_err(|_| "not a number of bytes; write it like 64K or 1G".to_string())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too many bytes".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn bytes_are_read_with_their_unit() {
        assert_eq!(parse_bytes("7"), Ok(7));
        assert_eq!(parse_bytes("64K"), Ok(65536));
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("1G"), Ok(1 << 30));
        assert!(
            parse_bytes("1T").is_err() && parse_bytes("64iB").is_err() && parse_bytes("").is_err()
        );
        assert!(parse_bytes("99999999999999G").is_err());
    }

    #[test]
    fn seconds_may_be_broken_but_not_negative() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(parse_seconds("-1").is_err() && parse_seconds("soon").is_err());
    }
}
