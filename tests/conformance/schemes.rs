//! Which transports have rows: those of this build.

use ringlane::transport::Transport;

pub use rows::ALL;

/// Those of [`ALL`].
pub fn transports() -> Vec<Box<dyn Transport>> {
    let mut all =
        vec![ringlane_tcp::transport(), ringlane_uds::transport(), ringlane_shm::transport()];
    rows::add(&mut all);
    all
}

#[cfg(feature = "rdma")]
mod rows {
    use super::Transport;

    pub const ALL: &[&str] = &["tcp", "unix", "shm", "rdma"];

    pub fn add(all: &mut Vec<Box<dyn Transport>>) {
        all.push(ringlane_rdma_stub::transport());
    }
}

#[cfg(not(feature = "rdma"))]
mod rows {
    use super::Transport;

    pub const ALL: &[&str] = &["tcp", "unix", "shm"];

    pub fn add(_all: &mut Vec<Box<dyn Transport>>) {}
}
