//! Rows over the simulator: one world per thread, shared by the bases of that thread.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use ringlane_api::EventBase;
use ringlane_api::transport::Transport;

use super::rig::{Rig, Tools, has_paths};
use crate::sim::{Setup, World};

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    static PATIENT: Cell<bool> = const { Cell::new(false) };
}

/// A row over the simulator.
///
/// ```
/// use ringlane_kit::sim::Setup;
/// use ringlane_kit::suite::simulated;
/// let rig = simulated("tcp/sim", "tcp", Setup::default(), Vec::new);
/// assert!(!rig.real);
/// ```
pub fn simulated(
    row: &str,
    scheme: &'static str,
    setup: Setup,
    transports: fn() -> Vec<Box<dyn Transport>>,
) -> Rig {
    let maker = move || {
        let world = WORLD.with_borrow_mut(|world| {
            let fail_when_stalled = !PATIENT.get();
            let setup = || Setup { fail_when_stalled, ..setup.clone() };
            world.get_or_insert_with(|| World::new(setup())).clone()
        });
        Ok(EventBase::with(Box::new(world.reactor()), transports()))
    };
    let tools = Tools {
        raise: Some(|signal| with_world(|world| world.raise(signal))),
        in_child: None,
        limit_fds: Some(|limit| {
            with_world(|world| {
                // The first three numbers are never given out.
                let max = limit.map_or(1 << 16, |more| world.open_fds() + 3 + more);
                world.set_fd_max(max);
            });
        }),
        left_behind: Some(left_behind),
        patient: Some(|| PATIENT.set(true)),
    };
    let (paths, without_memory) = (has_paths(scheme), false);
    let row = row.into();
    Rig { row, scheme, without_memory, paths, real: false, maker: Arc::new(maker), tools }
}

fn with_world(act: impl FnOnce(&World)) {
    WORLD.with_borrow(|world| {
        if let Some(world) = world {
            act(world);
        }
    });
}

/// What is left in this thread's world, which then ends: the look of every simulated row.
pub fn left_behind() -> Vec<String> {
    let Some(world) = WORLD.with_borrow_mut(Option::take) else { return Vec::new() };
    let mut left = world.violations();
    if world.open_fds() > 0 {
        left.push(format!("{} virtual descriptors were never closed", world.open_fds()));
    }
    left
}
