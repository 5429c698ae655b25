//! `ringlane perf`: how fast an address is here, client and server in one command.
//!
//! ```text
//!   round trip   client --size bytes--> echo server --size bytes--> client, `depth` under way
//!   stream       client ==== as fast as it goes ====> a server that discards
//! ```
//!
//! The server is a process of its own, so that its CPU is not ours. Each figure is the median of
//! rounds; with `--compare` the transports take turns within each round, so that a machine that
//! slows down slows them all.

mod cores;
mod load;
mod reference;
mod table;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use ringlane::prelude::*;
use ringlane::reactor::{Config, Reactor};
use std::time::Duration;

use self::cores::{Cores, Places};
use self::load::{Kind, Load, Sample};
use self::reference::Reference;
use self::table::{Cell, Row};
use super::child::Server;
use super::serve::say;
use super::{descriptors, parse_bytes, parse_seconds, proc};

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// Where the server listens, like tcp://127.0.0.1:0 or unix://@perf; or, with DST, the node
    /// that sends over the bus.
    #[arg(value_name = "ADDR|SRC", required_unless_present_any = ["compare", "stand_in"])]
    address: Option<String>,
    /// The node that answers: measures from SRC to it through the relays that run. Both names must
    /// be free; NAME@HOST says which relay.
    #[arg(value_name = "DST", conflicts_with = "compare")]
    to: Option<String>,
    /// Every transport of this build in turn, and what else Linux has for talking to a process:
    /// pipe, FIFO, POSIX message queue, and semaphores (a count and a futex, of which sem_wait is
    /// made) with memory of shm_open or a mapped file.
    #[arg(long, conflicts_with_all = ["address", "connect"])]
    compare: bool,
    /// The server runs already, as `ringlane echo ADDR` (its CPU is not measured, nor the stream),
    /// or DST as `ringlane recv DST --echo --quiet`.
    #[arg(long)]
    connect: bool,
    /// Bytes of a message; several sizes are measured one after the other.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', value_parser = parse_size,
          default_values = ["64", "64K"])]
    size: Vec<usize>,
    /// Connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Messages under way on each connection in the round trip.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    depth: u32,
    /// How long one measurement takes.
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = parse_seconds)]
    seconds: Duration,
    /// Rounds whose median is printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Which CPUs client and server get.
    #[arg(long, value_enum, default_value_t = Cores::Two)]
    cores: Cores,
    /// Echoes for a reference row of `--compare`: how it runs its other process.
    #[arg(long, hide = true, value_name = "KIND", num_args = 1..)]
    stand_in: Option<Vec<String>>,
}

/// A size that one message can have.
fn parse_size(text: &str) -> Result<usize, String> {
    match parse_bytes(text)? {
        0 => Err("a message has at least one byte".into()),
        n if n <= load::MESSAGE_BYTES_MAX => Ok(n as usize),
        _ => Err(format!("a message has at most {} MiB", load::MESSAGE_BYTES_MAX >> 20)),
    }
}

/// Measures and prints.
pub fn run(config: &Config, asked: &Asked) -> Result<()> {
    if let Some(words) = &asked.stand_in {
        return reference::stand_in(words);
    }
    if let (Some(src), Some(dst)) = (&asked.address, &asked.to) {
        let (sizes, depth) = (asked.size.clone(), asked.depth);
        let (seconds, rounds, connect) = (asked.seconds, asked.rounds, asked.connect);
        let plan = super::bus::Load { src, dst, sizes, depth, seconds, rounds, connect };
        return super::bus::load(config, &plan);
    }
    descriptors::raise(1)?;
    let (places, cores) = Places::pick(asked.cores)?;
    let mut subjects: Vec<Subject> = Vec::new();
    for address in addresses(asked) {
        let start = || Transport::start(config, &address, asked);
        subjects.push(Subject::Transport(places.start(start)?));
    }
    if asked.compare {
        subjects.extend(Reference::all().map(Subject::Reference));
    }
    let plan = Plan::new(asked, cores);
    if asked.compare {
        Reference::missing().into_iter().for_each(say);
    }
    say(&format!("{plan}\n"));
    let mut rows: Vec<Row> = subjects.iter().map(Subject::row).collect();
    let clock = ringlane::reactor::best(config)?;
    for _ in 0..asked.rounds {
        for (subject, row) in subjects.iter_mut().zip(&mut rows) {
            for (at, &(kind, size)) in plan.cells.iter().enumerate() {
                let sample = subject.measure(&places, &plan.load(kind, size), &*clock);
                let sample = sample.with_context(|| format!("{} at {size} B", subject.name()))?;
                row.add(at, sample);
            }
        }
    }
    say(&table::print(&plan.cells, &rows));
    if asked.compare {
        say(&table::advice(&plan.cells, &rows));
    }
    Ok(())
}

fn addresses(asked: &Asked) -> Vec<String> {
    match &asked.address {
        Some(address) => vec![address.clone()],
        None if asked.compare => {
            ringlane::local_addresses(&format!("ringlane-perf-{}", std::process::id()))
        }
        None => Vec::new(),
    }
}

/// What is measured, in which order.
struct Plan {
    cells: Vec<Cell>,
    connections: usize,
    depth: usize,
    seconds: Duration,
    rounds: u32,
    cores: Cores,
}

impl Plan {
    fn new(asked: &Asked, cores: Cores) -> Plan {
        let kinds = if asked.connect { &[Kind::RoundTrip][..] } else { &Kind::ALL };
        let cells = kinds.iter().flat_map(|&kind| asked.size.iter().map(move |&size| (kind, size)));
        Plan {
            cells: cells.collect(),
            connections: asked.connections as usize,
            depth: asked.depth as usize,
            seconds: asked.seconds,
            rounds: asked.rounds,
            cores,
        }
    }

    fn load(&self, kind: Kind, size: usize) -> Load {
        let (connections, depth) = (self.connections, self.depth);
        Load { kind, size, connections, depth, window: self.seconds }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = |n: usize| if n == 1 { "" } else { "s" };
        let cores = match self.cores {
            Cores::Same => "both sides on one CPU",
            Cores::Two => "each side on a CPU of its own",
            Cores::Any => "on any CPU",
        };
        write!(
            f,
            "{} connection{}, {} message{} under way on each in the round trip; {cores}; medians \
             of {} rounds of {} s",
            self.connections,
            s(self.connections),
            self.depth,
            s(self.depth),
            self.rounds,
            self.seconds.as_secs_f64()
        )
    }
}

/// One thing that is measured.
enum Subject {
    Transport(Transport),
    Reference(Reference),
}

impl Subject {
    fn name(&self) -> String {
        match self {
            Subject::Transport(transport) => transport.name.clone(),
            Subject::Reference(reference) => reference.name().into(),
        }
    }

    fn row(&self) -> Row {
        match self {
            Subject::Transport(transport) => Row::new(self.name(), transport.runs.clone()),
            Subject::Reference(_) => Row::new(self.name(), "blocking calls".into()),
        }
    }

    /// `None` where this one cannot do that.
    fn measure(
        &mut self,
        places: &Places,
        load: &Load,
        clock: &dyn Reactor,
    ) -> Result<Option<Sample>> {
        match self {
            Subject::Transport(transport) => transport.measure(load).map(Some),
            Subject::Reference(reference) => reference.measure(places, load, clock),
        }
    }
}

/// A transport with its servers.
struct Transport {
    config: Config,
    name: String,
    runs: String,
    /// One echoes, one discards; none where the server was there before.
    servers: Vec<Server>,
    address: String,
}

impl Transport {
    fn start(config: &Config, address: &str, asked: &Asked) -> Result<Transport> {
        let base = EventBase::with_config(config)?;
        let scheme = base.check(address)?.scheme().to_string();
        let report = base.report();
        let mut transport = Transport {
            config: config.clone(),
            name: format!("{scheme}://"),
            runs: format!("{} {}", report.engine, report.tier),
            servers: Vec::new(),
            address: address.into(),
        };
        if !asked.connect {
            let engine = config.engine.to_string();
            let echo = Server::start("server", &engine, &["echo", address])?;
            // Two servers cannot share a name; the stream's is made from the first one's.
            let other = second(address);
            let sink = Server::start("server", &engine, &["echo", "--discard", &other])?;
            let theirs = format!("{} {}", echo.runs().engine, echo.runs().tier);
            if theirs != transport.runs {
                transport.runs = format!("{} / {theirs}", transport.runs);
            }
            transport.servers = vec![echo, sink];
        }
        Ok(transport)
    }

    fn measure(&self, load: &Load) -> Result<Sample> {
        let server = match (load.kind, &self.servers[..]) {
            (Kind::RoundTrip, [echo, _]) => Some(echo),
            (Kind::Stream, [_, sink]) => Some(sink),
            _ => None,
        };
        let to = server.map_or(self.address.as_str(), Server::address);
        let pid = server.map(Server::pid);
        let base = EventBase::with_config(&self.config)?;
        load::run(base, to, load, move || pid.map_or(0, proc::cpu_ns)).map_err(|error| {
            let said = server.map(Server::complaints).unwrap_or_default();
            let said: String = said.iter().map(|line| format!(" [{line}]")).collect();
            anyhow!("{error}{said}")
        })
    }
}

/// An address of the same kind for a second server: the same one where that takes a free port,
/// else one with another name.
fn second(address: &str) -> String {
    let (name, parameters) = match address.split_once('?') {
        Some((name, parameters)) => (name, format!("?{parameters}")),
        None => (address, String::new()),
    };
    match name.rsplit_once(':') {
        Some((_, "0")) => address.into(),
        Some((host, port)) if port.parse::<u16>().is_ok() => format!("{host}:0{parameters}"),
        _ => format!("{name}-stream{parameters}"),
    }
}

#[cfg(test)]
mod tests {
    use super::second;

    #[test]
    fn the_second_server_has_an_address_of_its_own() {
        for (first, other) in [
            ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0"),
            ("tcp://[::1]:7000?nodelay=0", "tcp://[::1]:0?nodelay=0"),
            ("unix://@x", "unix://@x-stream"),
            ("unix:///run/x.sock?mode=600", "unix:///run/x.sock-stream?mode=600"),
        ] {
            assert_eq!(second(first), other);
        }
    }
}
