//! Without shm in this build there is no safe way to map memory, and no rows that need it.

use anyhow::{Result, bail};

use super::{Reference, Way};

/// Whether this build can do it.
pub const HERE: bool = false;

pub fn make(_: Reference, name: &str, _size: usize) -> Result<()> {
    bail!("{name}: this build maps no memory; build with --features shm")
}

pub fn unlink(_name: &str) {}

pub(super) fn open(_: Reference, name: &str, size: usize) -> Result<Box<dyn Way>> {
    make(Reference::Memory, name, size)?;
    bail!("nothing was made")
}
