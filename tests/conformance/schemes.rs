//! Which transports have rows: those of this build.

use ringlane::transport::Transport;
use ringlane_kit::suite;

/// A kind of address.
#[derive(Clone, Copy)]
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
const RDMA: Kind = Kind { row: "rdma", scheme: "rdma", paths: false, failing_waits: false };
const RDMA_UNIX: Kind = Kind { row: "rdma-unix", paths: true, ..RDMA };

/// Those of this build.
pub fn all() -> impl Iterator<Item = Kind> {
    let here: Vec<&str> = transports().iter().map(|transport| transport.scheme()).collect();
    [TCP, UNIX, SHM, RDMA, RDMA_UNIX].into_iter().filter(move |kind| here.contains(&kind.scheme))
}

/// What a case has left behind that no system call shows.
pub fn left_behind() -> Vec<String> {
    rdma::left_behind()
}

/// What a case on the simulator has left behind.
pub fn left_behind_simulated() -> Vec<String> {
    let mut left = suite::left_behind();
    left.extend(left_behind());
    left
}

/// A transport, or none in this build.
type Made = Option<Box<dyn Transport>>;

/// All of this build.
pub fn transports() -> Vec<Box<dyn Transport>> {
    [tcp::make(), unix::make(), shm::make(), rdma::make()].into_iter().flatten().collect()
}

#[cfg(feature = "tcp")]
mod tcp {
    pub(super) fn make() -> super::Made {
        Some(ringlane_tcp::transport())
    }
}

#[cfg(feature = "uds")]
mod unix {
    pub(super) fn make() -> super::Made {
        Some(ringlane_uds::transport())
    }
}

#[cfg(feature = "shm")]
mod shm {
    pub(super) fn make() -> super::Made {
        Some(ringlane_shm::transport())
    }
}

#[cfg(feature = "rdma")]
mod rdma {
    pub(super) fn make() -> super::Made {
        Some(ringlane_rdma_stub::transport())
    }

    /// Every case is a healthy run, in which credits promise receives.
    pub(super) fn left_behind() -> Vec<String> {
        match ringlane_rdma_stub::not_ready_naks() {
            0 => Vec::new(),
            n => vec![format!("{n} messages found no receive posted")],
        }
    }
}

/// What stands in for a transport that is not built in.
#[cfg(not(all(feature = "tcp", feature = "uds", feature = "shm")))]
mod absent {
    pub(super) fn make() -> super::Made {
        None
    }
}

#[cfg(not(feature = "rdma"))]
mod rdma {
    pub(super) fn make() -> super::Made {
        None
    }

    pub(super) fn left_behind() -> Vec<String> {
        Vec::new()
    }
}

#[cfg(not(feature = "shm"))]
use absent as shm;
#[cfg(not(feature = "tcp"))]
use absent as tcp;
#[cfg(not(feature = "uds"))]
use absent as unix;
