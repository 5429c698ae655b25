//! Which transports this build has, whether they work here, and what matters to each.

use std::fs;
use std::time::Duration;

use ringlane::about::{Machine, about};
use ringlane::prelude::*;
use ringlane::reactor::{Config, best};
use serde::Serialize;

use super::number;
use crate::cli::proc;

/// How long a byte may take to come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of the memory file that is tried.
const TRIED_BYTES: u64 = 4096;

/// One transport.
#[derive(Serialize)]
pub struct Carrier {
    pub scheme: &'static str,
    /// The Cargo feature that adds it.
    pub feature: &'static str,
    pub built_in: bool,
    /// Why no byte came back from a listener of ours; nothing if one did, or none was sent.
    pub failure: Option<String>,
    pub notes: Vec<String>,
    #[serde(skip)]
    pub advice: Vec<String>,
}

/// All there are, each that is built in tried by sending a byte there and back.
pub fn look(config: &Config) -> Vec<Carrier> {
    let machine = machine(config);
    let unique = format!("ringlane-doctor-{}", std::process::id());
    let local = ringlane::local_addresses(&unique);
    let carrier = |known: &ringlane::Known| {
        let begins = format!("{}://", known.scheme);
        let address = local.iter().find(|address| address.starts_with(&begins));
        let failure = address.and_then(|address| attempt(config, address).err());
        let about = about(known.scheme, &machine);
        Carrier {
            scheme: known.scheme,
            feature: known.feature,
            built_in: address.is_some(),
            failure,
            notes: about.notes,
            advice: about.advice,
        }
    };
    ringlane::KNOWN.iter().map(carrier).collect()
}

/// Sends a byte to a listener at that address and waits until it is back.
fn attempt(config: &Config, address: &str) -> Result<(), String> {
    let said = |error: ringlane::Error| error.to_string();
    let base = EventBase::with_config(config).map_err(said)?;
    let accept = |conn: Bufferevent| {
        conn.on_read(|conn| conn.output().append(conn.input()));
        conn.enable(READ);
    };
    let listener = base.listen(address, accept).map_err(said)?;
    let conn = base.connect(listener.address().to_string()).map_err(said)?;
    let outcome = std::rc::Rc::new(std::cell::RefCell::new(Err("nothing came back".to_string())));
    let (good, bad) = (outcome.clone(), outcome.clone());
    let end = |conn: &Bufferevent| {
        if let Some(base) = conn.base() {
            base.stop();
        }
    };
    conn.on_read(move |conn| {
        *good.borrow_mut() = Ok(());
        end(conn);
    });
    conn.on_event(move |conn, event| {
        if event.is_end() {
            *bad.borrow_mut() = Err(event.to_string());
            end(conn);
        }
    });
    conn.enable(READ);
    conn.output().add(b"?");
    base.stop_after(PATIENCE);
    base.dispatch().map_err(said)?;
    outcome.replace(Ok(()))
}

fn machine(config: &Config) -> Machine {
    let devices = fs::read_dir("/sys/class/infiniband").into_iter().flatten().flatten();
    let last = |line: String| line.split_whitespace().last()?.parse().ok();
    let mut machine = Machine {
        memfd_noexec: number("/proc/sys/vm/memfd_noexec"),
        max_map_count: number("/proc/sys/vm/max_map_count"),
        unix_bytes: number("/proc/sys/net/core/wmem_default"),
        tcp_bytes: proc::line("/proc/sys/net/ipv4/tcp_wmem").and_then(last),
        ipv6: proc::line("/proc/net/if_inet6").is_some_and(|line| !line.is_empty()),
        rdma_devices: devices.map(|d| d.file_name().to_string_lossy().into_owned()).collect(),
        ..Machine::default()
    };
    if let Ok(mut engine) = best(config) {
        machine.waits_on_words = engine.waits_on_words();
        let sys = engine.sys();
        machine.memory_refused = sys.memory(TRIED_BYTES).err().map(|error| error.to_string());
        let pidfd = sys.pair().and_then(|(one, _other)| sys.pidfd(&one));
        machine.pidfd_refused = pidfd.err().map(|error| error.to_string());
    }
    machine
}

/// A line for each, then its notes.
pub fn tell(carriers: &[Carrier]) -> Vec<String> {
    let mut lines = vec!["transports".to_string()];
    for carrier in carriers {
        let name = format!("{}://", carrier.scheme);
        let state = match (carrier.built_in, &carrier.failure) {
            (false, _) => format!("not in this build: --features {}", carrier.feature),
            (true, None) => "works: a byte went there and back".into(),
            (true, Some(why)) => format!("DOES NOT WORK: {why}"),
        };
        lines.push(format!("  {name:<8} {state}"));
        lines.extend(carrier.notes.iter().map(|note| format!("           {note}")));
    }
    lines
}
