//! Signals that wait until nothing would be left behind.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

/// As long as it lives, this thread is not interrupted; a signal that comes meanwhile works at its
/// end. Threads and processes that are started meanwhile leave those signals to this thread for
/// good.
pub struct Held(SigSet);

impl Held {
    /// From now on.
    pub fn new() -> Result<Held> {
        let all = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        all.thread_block().context("signals")?;
        Ok(Held(all))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It cannot fail for a set that could be blocked.
        let _ = self.0.thread_unblock();
    }
}
