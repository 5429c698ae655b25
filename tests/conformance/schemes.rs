//! Which transports have rows: those of this build.

use ringlane::transport::Transport;

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
}

/// What stands in for a transport that is not built in.
#[cfg(not(all(feature = "tcp", feature = "uds", feature = "shm", feature = "rdma")))]
mod absent {
    pub(super) fn make() -> super::Made {
        None
    }
}

#[cfg(not(feature = "rdma"))]
use absent as rdma;
#[cfg(not(feature = "shm"))]
use absent as shm;
#[cfg(not(feature = "tcp"))]
use absent as tcp;
#[cfg(not(feature = "uds"))]
use absent as unix;
