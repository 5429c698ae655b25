//! For a planted bug: segments as they were made, to be handed over once more.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;

use ringlane_api::mutant::{Mutant, on};

use crate::bus::memory::Made;
use crate::shm::through::{Inlet, mutant};

thread_local! {
    static KEPT: RefCell<HashMap<u64, OwnedFd>> = RefCell::default();
}

pub fn keep(made: &Made) {
    if on(Mutant::BusSegmentKept)
        && let Ok(fd) = made.fd.try_clone()
    {
        KEPT.with_borrow_mut(|kept| kept.insert(made.map.file(), fd));
    }
}

pub fn again(inlet: &mut Inlet) -> Option<OwnedFd> {
    if !on(Mutant::BusSegmentKept) {
        return None;
    }
    let file = mutant::thaw(inlet);
    KEPT.with_borrow(|kept| kept.get(&file)?.try_clone().ok())
}
