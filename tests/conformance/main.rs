//! The conformance table: every transport of this build on every engine and tier of it, and on the
//! simulator.
//!
//! ```text
//! cargo test --test conformance -- --nocapture            the whole table
//! cargo test --test conformance -- 'half close'           cases with these words
//! RINGLANE_ROWS=tcp/epoll,sim cargo test --test conformance
//! ```

use std::sync::Arc;

use ringlane::EventBase;
use ringlane::prelude::New;
use ringlane::reactor::{Config, Engine, Fault};
use ringlane_kit::sim::{Fault as Lack, Faults, Setup};
use ringlane_kit::suite::{Rig, Row, Tools, simulated};
use schemes::Kind;

#[allow(unsafe_code)]
mod fork;
mod machine;
mod schemes;

/// EINTR, EAGAIN, EBUSY, ENOMEM: what a wait may fail with.
const WAIT_ERRNOS: [(i32, &str); 4] = [(4, "eintr"), (11, "eagain"), (16, "ebusy"), (12, "enomem")];

/// Whether this build has that engine.
fn built(engine: &Config) -> bool {
    match engine.engine {
        Engine::Epoll => cfg!(feature = "epoll"),
        _ => cfg!(feature = "uring"),
    }
}

fn engines() -> Vec<(String, Config)> {
    let with = |engine| Config { engine, ..Config::default() };
    let tiny = Config {
        sq_entries: 4,
        cq_entries: 8,
        ring_blocks: 4,
        ring_blocks_max: 4,
        block_bytes: 1024,
        ..with(Engine::Uring)
    };
    let mut engines = vec![
        ("u1".to_string(), with(Engine::Tier(1))),
        ("u5".into(), with(Engine::Tier(5))),
        ("tiny".into(), tiny.clone()),
        ("no-limit".into(), Config { no_byte_limit: true, ..with(Engine::Uring) }),
        ("epoll".into(), with(Engine::Epoll)),
        ("epoll-tiny".into(), Config { engine: Engine::Epoll, ..tiny }),
    ];
    for (errno, name) in WAIT_ERRNOS {
        let fault = Fault { wait_every: 10, wait_errno: errno, short_send_every: 3, ..Fault::NONE };
        for (engine, of) in [(Engine::Uring, "uring"), (Engine::Epoll, "epoll")] {
            let config = Config { fault: Some(fault), ..with(engine) };
            engines.push((format!("{of}-{name}"), config));
        }
    }
    // The fault layer between the ring and us: everything at once, at every tier that differs.
    let moody = Fault {
        seed: 7,
        enter_per_mille: 50,
        short_per_mille: 100,
        no_blocks_per_mille: 50,
        ended_per_mille: 100,
        late_per_mille: 100,
        ..Fault::NONE
    };
    for tier in [1, 5] {
        let config = Config { fault: Some(moody), ..with(Engine::Tier(tier)) };
        engines.push((format!("u{tier}-moody"), config));
    }
    engines.retain(|(_, config)| built(config));
    engines
}

fn real(row: String, kind: &Kind, config: &Config) -> Row {
    if let Err(error) = EventBase::with_config(config) {
        return Row::Absent { row, reason: error.to_string() };
    }
    let config = config.clone();
    Row::Ready(Rig {
        row,
        scheme: kind.scheme,
        paths: kind.paths,
        without_memory: false,
        real: true,
        maker: Arc::new(move || EventBase::with_config(&config)),
        tools: Tools {
            raise: Some(machine::raise),
            in_child: Some(fork::in_child),
            limit_fds: Some(machine::limit_fds),
            left_behind: Some(schemes::left_behind),
            patient: None,
        },
    })
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for kind in schemes::all() {
        let failing = |name: &str| WAIT_ERRNOS.iter().any(|(_, errno)| name.ends_with(errno));
        let wanted = |name: &str| kind.failing_waits || !failing(name);
        for (engine, config) in engines().into_iter().filter(|(name, _)| wanted(name)) {
            rows.push(real(format!("{}/{engine}", kind.row), &kind, &config));
        }
        let calm = Setup::default();
        let moody = Setup { faults: Faults::mild(), seed: 7, ..Setup::default() };
        let tiny = Setup { socket_bytes: 2_000, blocks_max: 4, ..moody.clone() };
        for (name, setup) in [("sim", calm), ("sim-moody", moody), ("sim-tiny", tiny)] {
            let row = format!("{}/{name}", kind.row);
            let mut rig = simulated(&row, kind.scheme, setup, schemes::transports);
            rig.paths = kind.paths;
            rig.tools.left_behind = Some(schemes::left_behind_simulated);
            rows.push(Row::Ready(rig));
        }
    }
    if schemes::all().any(|kind| kind.row == schemes::SHM.row) {
        rows.extend(without_memory());
    }
    rows
}

/// `shm://` where the acceptor takes no memory, or the connector has none.
fn without_memory() -> Vec<Row> {
    let mut rows = Vec::new();
    for (row, engine) in [("plain/uring", Engine::Uring), ("plain/epoll", Engine::Epoll)] {
        rows.push(real(row.into(), &schemes::SHM, &Config { engine, ..Config::default() }));
    }
    let calm = Faults::none().with(Lack::MemoryRefused, 1000);
    let moody = Faults::mild().with(Lack::MemoryRefused, 1000);
    for (row, faults) in [("plain/sim", calm), ("plain/sim-moody", moody)] {
        let setup = Setup { seed: 7, faults, ..Setup::default() };
        rows.push(Row::Ready(simulated(row, "shm", setup, schemes::transports)));
    }
    for row in &mut rows {
        if let Row::Ready(rig) = row {
            rig.without_memory = true;
        }
    }
    rows
}

ringlane_kit::conformance!(rows(), include_str!("must_run.txt"));
