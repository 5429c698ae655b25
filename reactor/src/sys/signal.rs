//! Signals as descriptors: a pipe per registration, one byte per signal.
//!
//! The registration lives as long as the descriptor ([`Fd::guarded`]). When the last one for a
//! signal goes, the signal does again what it does by default.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::OFlag;
use ringlane_api::fd::{Fd, FdKind, WeakFd};
use signal_hook::SigId;
use signal_hook::consts::FORBIDDEN;
use signal_hook::low_level;

use super::{os, replace};

/// The registrations of one kernel door.
#[derive(Default)]
pub(super) struct Signals {
    open: Vec<(WeakFd, Weak<Registration>)>,
}

struct Registration {
    number: i32,
    id: Cell<SigId>,
}

/// How many want a signal in this process, and what the handler looks at when nobody does.
struct Wanted {
    users: usize,
    by_nobody: Arc<AtomicBool>,
}

static WANTED: Mutex<Option<HashMap<i32, Wanted>>> = Mutex::new(None);

fn wanted() -> MutexGuard<'static, Option<HashMap<i32, Wanted>>> {
    // Nothing panics while it is held; a poisoned map is still a right one.
    WANTED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signals {
    pub(super) fn open(&mut self, number: i32) -> io::Result<Fd> {
        if FORBIDDEN.contains(&number) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("signal {number} cannot be waited for"),
            ));
        }
        let (read, id) = pipe(number)?;
        if let Err(error) = want(number) {
            low_level::unregister(id);
            return Err(error);
        }
        let registration = Rc::new(Registration { number, id: Cell::new(id) });
        let weak = Rc::downgrade(&registration);
        let fd = Fd::guarded(read, FdKind::Pollable, Box::new(registration));
        self.open.retain(|(_, registration)| registration.strong_count() > 0);
        self.open.push((fd.downgrade(), weak));
        Ok(fd)
    }

    pub(super) fn after_fork(&mut self) -> io::Result<()> {
        for (fd, registration) in &self.open {
            if let (Some(fd), Some(registration)) = (fd.upgrade(), registration.upgrade()) {
                let (read, id) = pipe(registration.number)?;
                low_level::unregister(registration.id.replace(id));
                replace(os(&fd)?, read)?;
            }
        }
        Ok(())
    }
}

/// A pipe that `number` rings.
fn pipe(number: i32) -> io::Result<(OwnedFd, SigId)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let id = low_level::pipe::register(number, write)?;
    Ok((read, id))
}

fn want(number: i32) -> io::Result<()> {
    let mut all = wanted();
    let all = all.get_or_insert_default();
    if let Some(wanted) = all.get_mut(&number) {
        wanted.users += 1;
        wanted.by_nobody.store(false, Ordering::SeqCst);
        return Ok(());
    }
    let by_nobody = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register_conditional_default(number, Arc::clone(&by_nobody))?;
    all.insert(number, Wanted { users: 1, by_nobody });
    Ok(())
}

impl Drop for Registration {
    fn drop(&mut self) {
        low_level::unregister(self.id.get());
        let mut all = wanted();
        if let Some(wanted) = all.as_mut().and_then(|all| all.get_mut(&self.number)) {
            wanted.users -= 1;
            wanted.by_nobody.store(wanted.users == 0, Ordering::SeqCst);
        }
    }
}
