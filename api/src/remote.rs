//! The one handle of a base that other threads may hold.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::base::EventBase;
use crate::error::{Error, Result};
use crate::reactor::Wake;

type Errand = Box<dyn FnOnce(&EventBase) + Send>;

/// What other threads want done on the loop.
pub(crate) struct Mailbox {
    errands: Mutex<VecDeque<Errand>>,
    wake: Arc<dyn Wake>,
}

impl Mailbox {
    pub fn new(wake: Arc<dyn Wake>) -> Arc<Mailbox> {
        Arc::new(Mailbox { errands: Mutex::new(VecDeque::new()), wake })
    }

    /// What waits now. A panicking sender cannot leave the queue half changed.
    pub fn take(&self) -> VecDeque<Errand> {
        std::mem::take(&mut *self.errands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs things on the base's thread from any other; see [`EventBase::remote`].
#[derive(Clone)]
pub struct Remote(Weak<Mailbox>);

impl Remote {
    pub(crate) fn new(mailbox: &Arc<Mailbox>) -> Remote {
        Remote(Arc::downgrade(mailbox))
    }

    /// Runs `errand` on the loop's thread, in the order of the calls from one thread. Fails only
    /// if the base is gone.
    pub fn run(&self, errand: impl FnOnce(&EventBase) + Send + 'static) -> Result<()> {
        let Some(mailbox) = self.0.upgrade() else {
            return Err(Error::refused("run", "the base is gone"));
        };
        let mut errands = mailbox.errands.lock().unwrap_or_else(PoisonError::into_inner);
        errands.push_back(Box::new(errand));
        drop(errands);
        mailbox.wake.wake();
        Ok(())
    }

    /// Stops the base's dispatch as [`EventBase::stop`] does.
    pub fn stop(&self) -> Result<()> {
        self.run(EventBase::stop)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}
