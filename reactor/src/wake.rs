//! Waking a sleeping loop from another thread, for nothing when it is awake.
//!
//! ```text
//!             sleep()                    wake() from anywhere
//!   AWAKE ------------> ASLEEP ------------------------------> NOTIFIED  + eventfd
//!     |  ^                 |  awake()                              |
//!     |  +-----------------+---------------------------------------+
//!     +--- wake() --> NOTIFIED   (no system call; the next sleep() says no)
//! ```
//!
//! Invariant: after `wake` returns, the loop does not enter a wait that began before it without
//! coming out of it again. Every transition is a swap on one word, so a wake is never lost; it
//! may be spurious.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use ringlane_api::reactor::Wake;

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

/// The eventfd of one reactor and the word that says whether it sleeps.
pub(crate) struct Waker {
    state: AtomicU8,
    bell: EventFd,
}

fn bell() -> io::Result<EventFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    Ok(EventFd::from_value_and_flags(0, flags)?)
}

impl Waker {
    /// A waker for a loop that is awake.
    pub(crate) fn new() -> io::Result<Waker> {
        Ok(Waker { state: AtomicU8::new(AWAKE), bell: bell()? })
    }

    /// What becomes readable when the loop is woken while it sleeps.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The loop is about to wait. `false`: it was woken meanwhile and must not.
    pub(crate) fn sleep(&self) -> bool {
        // SYNC: wake. Acquire, because a refused sleep ends in the caller looking at its mail.
        self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The loop does not wait any more. `true`: it was woken.
    pub(crate) fn awake(&self) -> bool {
        // SYNC: wake. Acquire: what was written before the wake is seen after this.
        self.state.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }

    /// Takes the rings off the bell. An edge-triggered watcher need not.
    #[allow(dead_code, reason = "epoll watches the bell edge-triggered, uring need not")]
    pub(crate) fn drain(&self) {
        // It is non-blocking; EAGAIN says that there was nothing to take.
        let _ = self.bell.read();
    }

    /// In a forked child: a bell of its own behind the same number.
    pub(crate) fn after_fork(&self) -> io::Result<()> {
        crate::sys::replace(&self.bell, OwnedFd::from(bell()?))?;
        self.state.store(AWAKE, Ordering::SeqCst);
        Ok(())
    }
}

impl Wake for Waker {
    fn wake(&self) {
        // SYNC: wake. Release: what the caller wrote before is seen by the loop that wakes.
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP {
            // Only EAGAIN is possible, at 2^64 - 2 undrained rings: then it rings already.
            let _ = self.bell.write(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_while_awake_costs_no_ring_and_refuses_the_next_sleep() {
        let waker = Waker::new().expect("an eventfd");
        waker.wake();
        waker.wake();
        assert!(waker.bell.read().is_err(), "nothing rang");
        assert!(!waker.sleep());
        assert!(waker.awake());
        assert!(waker.sleep());
        waker.wake();
        waker.wake();
        assert_eq!(waker.bell.read().expect("it rang"), 1);
        assert!(waker.awake());
    }
}
