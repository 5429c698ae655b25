//! The rounds: every system once in each, the order turning, and what is printed at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use ringlane_benches::board::Board;
use ringlane_benches::pin::Cpu;
use ringlane_benches::report::machine;
use ringlane_benches::stats::spread;
use ringlane_benches::talk::{self, Ask, Driver, Kind, Meter, Outcome};

use crate::Args;
use crate::cells::{CELLS, Cell, TARGETS};
use crate::client::Side;
use crate::daemon::Daemon;
use crate::system::{SYSTEMS, Stage, System, named};

/// The first word of this program's arguments where it is a client:
/// `client SYSTEM CELL asks|answers CREDIT AT [SECONDS RELAYS CLIENTS]`.
pub const CLIENT: &str = "client";
/// The same where it is a relay of libzmq.
pub const RELAY: &str = "zmq-relay";

/// What a client may take beyond its window.
const BEYOND: Duration = Duration::from_secs(25);

/// What is run.
struct Plan {
    cells: Vec<&'static Cell>,
    systems: Vec<&'static System>,
    rounds: usize,
    window: Duration,
    credit: Option<u64>,
}

/// What came of it.
#[derive(Default)]
struct Results {
    board: Board,
    failed: BTreeMap<(&'static str, &'static str), Vec<String>>,
    others: Vec<f64>,
}

/// Runs all that was asked for and prints it.
pub fn all(args: &Args) -> io::Result<()> {
    let plan = plan(args)?;
    for line in machine() {
        println!("{line}");
    }
    let mut csv = args.csv.as_ref().map(File::create).transpose()?;
    if let Some(csv) = &mut csv {
        for line in machine() {
            writeln!(csv, "# {line}")?;
        }
        writeln!(csv, "# rounds {}, window {:?}", plan.rounds, plan.window)?;
        writeln!(
            csv,
            "cell,round,system,messages,seconds,messages_per_s,p50_us,p99_us,\
             relay_cpu_ns_per_message,others"
        )?;
    }
    let mut results = Results::default();
    for round in 0..plan.rounds {
        for cell in &plan.cells {
            for system in order(&plan.systems, round) {
                match sample(system, cell, &plan) {
                    Ok(outcome) => {
                        keep(&mut results, round, system, cell, &outcome);
                        if let Some(csv) = &mut csv {
                            line(csv, round, system, cell, &outcome)?;
                        }
                    }
                    Err(error) => {
                        let why = format!("round {round}: {error}");
                        eprintln!("{} {}: {why}", system.name, cell.name);
                        results.failed.entry((cell.name, system.name)).or_default().push(why);
                    }
                }
            }
        }
        eprintln!("round {} of {}", round + 1, plan.rounds);
    }
    print(&plan, &results, args.strict)
}

fn plan(args: &Args) -> io::Result<Plan> {
    let wanted = |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
    let known = |name: &str| CELLS.iter().any(|cell| cell.name == name);
    if let Some(name) = args.cell.iter().find(|name| !known(name)) {
        return Err(io::Error::other(format!("no cell is called {name}")));
    }
    for name in &args.system {
        named(name)?;
    }
    let mut systems = Vec::new();
    for system in SYSTEMS.iter().filter(|system| wanted(&args.system, system.name)) {
        match (system.available)() {
            Ok(()) => systems.push(system),
            Err(how) => println!("{} is left out: {how}", system.name),
        }
    }
    Ok(Plan {
        cells: CELLS.iter().filter(|cell| wanted(&args.cell, cell.name)).collect(),
        systems,
        rounds: args.rounds.unwrap_or(if args.quick { 3 } else { 9 }),
        window: Duration::from_secs_f64(args.seconds.unwrap_or(if args.quick { 0.3 } else { 1.0 })),
        credit: args.credit,
    })
}

/// The order turns from round to round, and every other round goes backwards, so that nobody always
/// follows the same neighbour.
fn order(systems: &[&'static System], round: usize) -> Vec<&'static System> {
    let mut order = systems.to_vec();
    if !order.is_empty() {
        order.rotate_left(round % systems.len());
    }
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// One system, one cell: fresh processes, one figure.
fn sample(system: &System, cell: &Cell, plan: &Plan) -> io::Result<Outcome> {
    let stage = (system.start)()?;
    let credit = system.credit.map_or(0, |own| plan.credit.unwrap_or(own));
    let words = |side: &str, at: &str| -> Vec<String> {
        [CLIENT, system.name, cell.name, side, &credit.to_string(), at].map(String::from).to_vec()
    };
    let mut answers = Daemon::own("the client that answers", &words("answers", &stage.at[1]), "")?;
    let mut asking = words("asks", &stage.at[0]);
    asking.extend([plan.window.as_secs_f64().to_string(), pids(&stage), answers.pid().to_string()]);
    let said = Daemon::own("the client that asks", &asking, "")?.ended(plan.window + BEYOND)?;
    read(&said).ok_or_else(|| {
        // The other side may know more.
        let other = answers.ended(Duration::ZERO).unwrap_or_default();
        io::Error::other(format!("{said} {other}").trim().to_string())
    })
}

fn pids(stage: &Stage) -> String {
    let pids: Vec<String> = stage.relays.iter().map(|relay| relay.pid().to_string()).collect();
    if pids.is_empty() { "-".into() } else { pids.join(",") }
}

/// This process is a client.
pub fn client(words: &[String]) -> io::Result<()> {
    let usage = || io::Error::other("client SYSTEM CELL asks|answers CREDIT AT [SECONDS PIDS PID]");
    let [name, cell, side, credit, at, more @ ..] = words else { return Err(usage()) };
    let system = named(name)?;
    let cell = CELLS.iter().find(|c| c.name == cell).ok_or_else(usage)?;
    let credit = credit.parse().ok().filter(|credit| *credit > 0);
    if side == "answers" {
        let mut client = (system.connect)(Side::Answers, at)?;
        return talk::answer(client.as_mut(), cell.kind, credit);
    }
    let [seconds, relays, other] = more else { return Err(usage()) };
    let cpus =
        |list: &str| list.split(',').filter_map(|pid| pid.parse().ok()).map(Cpu::of).collect();
    let mut clients: Vec<Cpu> = cpus(other);
    clients.push(Cpu::of(std::process::id()));
    let mut client = (system.connect)(Side::Asks, at)?;
    let ask = Ask {
        bytes: cell.bytes,
        credit,
        window: Duration::from_secs_f64(seconds.parse().map_err(io::Error::other)?),
        meter: Meter { relays: cpus(relays), clients },
    };
    let o = Driver::new(client.as_mut(), ask).run(cell.kind)?;
    println!("{DONE} {} {} {} {} {} {}", o.messages, o.seconds, o.p50, o.p99, o.relay_ns, o.others);
    Ok(())
}

/// The first word of what a client prints that measured something.
const DONE: &str = "done";

fn read(said: &str) -> Option<Outcome> {
    let words: Vec<&str> = said.split_whitespace().collect();
    let [DONE, messages, seconds, p50, p99, relay_ns, others] = words[..] else { return None };
    Some(Outcome {
        messages: messages.parse().ok()?,
        seconds: seconds.parse().ok()?,
        p50: p50.parse().ok()?,
        p99: p99.parse().ok()?,
        relay_ns: relay_ns.parse().ok()?,
        others: others.parse().ok()?,
    })
}

fn keep(results: &mut Results, round: usize, system: &System, cell: &Cell, o: &Outcome) {
    let [first, second] = [cell.figures[0].name, cell.figures[1].name];
    let messages = o.messages as f64;
    results.others.push(o.others);
    match cell.kind {
        Kind::RoundTrip => {
            results.board.put(round, system.name, first, o.p50);
            results.board.put(round, system.name, second, o.p99);
        }
        Kind::Stream => {
            results.board.put(round, system.name, first, messages / o.seconds);
            if o.relay_ns > 0 {
                results.board.put(round, system.name, second, o.relay_ns as f64 / messages);
            }
        }
    }
}

fn line(csv: &mut File, round: usize, s: &System, cell: &Cell, o: &Outcome) -> io::Result<()> {
    let messages = o.messages as f64;
    writeln!(
        csv,
        "{},{round},{},{},{:.3},{:.0},{:.1},{:.1},{:.1},{:.2}",
        cell.name,
        s.name,
        o.messages,
        o.seconds,
        messages / o.seconds,
        o.p50,
        o.p99,
        o.relay_ns as f64 / messages,
        o.others
    )
}

fn print(plan: &Plan, results: &Results, strict: bool) -> io::Result<()> {
    let names: Vec<&'static str> = plan.systems.iter().map(|system| system.name).collect();
    println!();
    for system in &plan.systems {
        println!("  {:<10}{}", system.name, system.what);
    }
    for cell in &plan.cells {
        println!("\n{}  ({})", cell.name, cell.what);
        print!("{}", results.board.figures(&names, cell.figures));
        for ((_, system), why) in results.failed.iter().filter(|((name, _), _)| *name == cell.name)
        {
            println!("  {system:<10}{} runs failed; {}", why.len(), why[0]);
        }
        for system in &plan.systems {
            let reference = system.reference();
            print!("{}", results.board.ratios(reference, &[system.name], cell.figures));
        }
    }
    if let Some(others) = spread(&results.others) {
        let most = others.max;
        println!("\ncores used by others: {:.2} in the median, {most:.2} at most", others.median);
    }
    let (text, verdicts) = results.board.targets(TARGETS);
    println!("\npromises\n{text}");
    println!("{} met, {} missed, {} open", verdicts.met, verdicts.missed, verdicts.open);
    let failed: usize = results.failed.values().map(Vec::len).sum();
    if failed > 0 {
        return Err(io::Error::other(format!("{failed} runs failed")));
    }
    if strict && verdicts.missed > 0 {
        return Err(io::Error::other(format!("{} promises missed", verdicts.missed)));
    }
    Ok(())
}
