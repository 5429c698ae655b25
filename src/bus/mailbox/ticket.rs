//! What a thread waits with until the loop has done what it wants.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::{Event, Listener};

use crate::bus::error::BusError;
use crate::bus::message::OwnedMessage;

/// What was answered; none where there is nothing to say.
pub(super) type Answer = Option<OwnedMessage>;

#[derive(Debug, Default)]
pub(super) enum Phase {
    #[default]
    Waiting,
    Done(Result<Answer, BusError>),
    /// Nobody waits any more.
    GivenUp,
}

/// See the module text.
#[derive(Default)]
pub(super) struct Ticket {
    phase: Mutex<Phase>,
    done: Event,
}

impl Ticket {
    /// Held while the loop does it, so that it is done or given up, and never both.
    pub fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what came of it.
    pub fn done(&self, answer: Result<Answer, BusError>) {
        let mut phase = self.phase();
        if let Phase::Waiting = *phase {
            *phase = Phase::Done(answer);
        }
        drop(phase);
        self.tell();
    }

    /// Wakes who waits, after its phase was set.
    pub fn tell(&self) {
        self.done.notify(usize::MAX);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({:?})", self.phase())
    }
}

/// The thread's end. Its drop gives the job up, unless it is done.
#[derive(Debug)]
pub(super) struct Holder(Arc<Ticket>);

impl Holder {
    pub fn new(ticket: Arc<Ticket>) -> Holder {
        Holder(ticket)
    }

    /// Waits at most so long.
    pub fn wait(self, within: Duration) -> Result<Answer, BusError> {
        // One that is told is told once.
        let listener = self.0.done.listen();
        if let Phase::Waiting = *self.0.phase() {
        } else {
            return self.take();
        }
        listener.wait_timeout(within);
        self.take()
    }

    pub async fn await_it(self) -> Result<Answer, BusError> {
        let listener = self.0.done.listen();
        let waits = matches!(*self.0.phase(), Phase::Waiting);
        if waits {
            listener.await;
        }
        self.take()
    }

    fn take(&self) -> Result<Answer, BusError> {
        match std::mem::replace(&mut *self.0.phase(), Phase::GivenUp) {
            Phase::Done(answer) => answer,
            Phase::Waiting | Phase::GivenUp => Err(BusError::TimedOut),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        *self.0.phase() = Phase::GivenUp;
    }
}
