//! No bug is planted.

use std::os::fd::OwnedFd;

use crate::bus::memory::Made;
use crate::shm::through::Inlet;

pub fn keep(_: &Made) {}

pub fn again(_: &mut Inlet) -> Option<OwnedFd> {
    None
}
