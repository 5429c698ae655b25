//! Which transports have rows: those of this build.

use ringlane::transport::Transport;
use ringlane_kit::suite;

pub use rows::{ALL, left_behind};

/// A kind of address.
pub struct Kind {
    /// What its rows begin with.
    pub row: &'static str,
    pub scheme: &'static str,
    /// Its addresses are paths and not hosts and ports.
    pub paths: bool,
    /// It runs over waits that fail, too; the engine survives them, whatever stands above it.
    pub failing_waits: bool,
}

const TCP: Kind = Kind { row: "tcp", scheme: "tcp", paths: false, failing_waits: true };
const UNIX: Kind = Kind { row: "unix", scheme: "unix", paths: true, failing_waits: true };
pub const SHM: Kind = Kind { row: "shm", scheme: "shm", paths: true, failing_waits: true };

/// Those of [`ALL`].
pub fn transports() -> Vec<Box<dyn Transport>> {
    let mut all =
        vec![ringlane_tcp::transport(), ringlane_uds::transport(), ringlane_shm::transport()];
    rows::add(&mut all);
    all
}

/// What a case on the simulator has left behind.
pub fn left_behind_simulated() -> Vec<String> {
    let mut left = suite::left_behind();
    left.extend(left_behind());
    left
}

#[cfg(feature = "rdma")]
mod rows {
    use super::{Kind, SHM, TCP, Transport, UNIX};

    const RDMA: Kind = Kind { row: "rdma", scheme: "rdma", paths: false, failing_waits: false };
    const RDMA_UNIX: Kind = Kind { row: "rdma-unix", paths: true, ..RDMA };

    pub const ALL: &[Kind] = &[TCP, UNIX, SHM, RDMA, RDMA_UNIX];

    pub fn add(all: &mut Vec<Box<dyn Transport>>) {
        all.push(ringlane_rdma_stub::transport());
    }

    /// Every case is a healthy run, in which credits promise receives.
    pub fn left_behind() -> Vec<String> {
        match ringlane_rdma_stub::not_ready_naks() {
            0 => Vec::new(),
            n => vec![format!("{n} messages found no receive posted")],
        }
    }
}

#[cfg(not(feature = "rdma"))]
mod rows {
    use super::{Kind, SHM, TCP, Transport, UNIX};

    pub const ALL: &[Kind] = &[TCP, UNIX, SHM];

    pub fn add(_all: &mut Vec<Box<dyn Transport>>) {}

    pub fn left_behind() -> Vec<String> {
        Vec::new()
    }
}
