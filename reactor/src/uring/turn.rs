//! One turn: feed, try, flush, enter, reap, claim. Calls nobody.
//!
//! Invariants: a turn waits only if nothing that it could report is known already, a silent send
//! included; it looks at a bounded number of completion entries; an enter that failed for the
//! moment is a short turn, and what it did not submit is submitted by the next.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{opcode, types};
use ringlane_api::limits::TURN_COMPLETIONS_MAX;
use ringlane_api::reactor::Completion;

use super::Uring;
use super::fault::Class;
use super::flight::{CANCEL, Flights, Kind, Store, WAKE};
use super::ring::Cqe;
use super::send::Sending;

/// How long a turn waits at most while something is to be tried that no readiness announces.
const LATER: Duration = Duration::from_millis(5);

/// Enters per turn that only empty the kernel's overflow list.
const RELIEFS_MAX: usize = 64;

impl Uring {
    pub(super) fn take_turn(
        &mut self,
        wait: Option<Duration>,
        done: &mut Vec<Completion>,
    ) -> io::Result<()> {
        if self.ring.forked() {
            let what = "the process forked; call reinit first";
            return Err(io::Error::other(what));
        }
        self.counters.turns += 1;
        let before = done.len();
        self.feed();
        done.append(&mut self.early);
        self.take_answers(done);
        self.try_all(done);
        let flushed = self.ring.flush();
        let sleeps = flushed && done.len() == before && self.may_sleep(wait);
        self.wait(sleeps, wait)?;
        self.reap(done);
        done.append(&mut self.early);
        self.busy = done.len() > before;
        Ok(())
    }

    /// Whether nothing that could be reported is known already.
    fn may_sleep(&mut self, wait: Option<Duration>) -> bool {
        wait != Some(Duration::ZERO)
            && self.early.is_empty()
            && self.tries.is_empty()
            && self.bulk.is_empty()
            && !self.unclaimed.any()
            && !self.resolver.has_answers()
            && self.ring.visible() == 0
            && !self.fault.as_ref().is_some_and(|liar| liar.owes())
    }

    /// The one `io_uring_enter` of a turn; none where it would do nothing.
    fn wait(&mut self, sleeps: bool, wait: Option<Duration>) -> io::Result<()> {
        if let Some(error) = self.fault.as_mut().and_then(|liar| liar.enter_error()) {
            return self.survive(error);
        }
        if !sleeps && !self.ring.has_work() {
            return Ok(());
        }
        self.counters.syscalls += 1;
        let result = if sleeps && self.waker.sleep() {
            let later = (!self.later.is_empty()).then_some(LATER);
            let limit = wait.into_iter().chain(later).min();
            let result = self.ring.enter(1, limit);
            self.waker.awake();
            result
        } else {
            if sleeps {
                self.waker.awake();
            }
            self.ring.enter(0, None)
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => self.survive(error),
        }
    }

    /// Sorts the errors of `io_uring_enter`.
    fn survive(&mut self, error: io::Error) -> io::Result<()> {
        match error.raw_os_error() {
            // The time is up.
            Some(libc::ETIME) => Ok(()),
            // A signal came; the queue is too full to submit; memory is short; completions were
            // dropped for want of memory. The next turn goes on where this one stopped.
            Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM | libc::EBADR) => {
                self.counters.enter_errors += 1;
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Looks at what has completed.
    #[inline]
    pub(super) fn reap(&mut self, done: &mut Vec<Completion>) {
        let mut batch = std::mem::take(&mut self.batch);
        self.mark();
        self.ring.pop_into(&mut batch, TURN_COMPLETIONS_MAX);
        if self.ring.overflowed() {
            self.relieve(&mut batch);
        }
        if self.fault.is_some() {
            self.bend(&mut batch);
        }
        for cqe in batch.drain(..) {
            self.dispatch(cqe, done);
        }
        self.batch = batch;
        self.claim(done);
    }

    /// Notes how far silence reaches, unless the kernel still holds completions back.
    #[inline]
    fn mark(&mut self) {
        if self.unclaimed.any() && !self.ring.overflowed() {
            let posted = self.ring.popped() + self.ring.visible() as u64;
            let consumed = self.ring.consumed();
            self.unclaimed.mark(consumed, posted);
        }
    }

    /// Lets the kernel move completions that found no room in the queue.
    #[cold]
    fn relieve(&mut self, batch: &mut Vec<Cqe>) {
        self.counters.overflows += 1;
        for _ in 0..RELIEFS_MAX {
            if batch.len() >= TURN_COMPLETIONS_MAX || !self.ring.overflowed() {
                break;
            }
            self.counters.syscalls += 1;
            // Whatever it says, the flag says whether more is waiting.
            let _ = self.ring.relieve();
            self.mark();
            self.ring.pop_into(batch, TURN_COMPLETIONS_MAX - batch.len());
        }
    }

    /// Lets the liar have its way.
    #[cold]
    fn bend(&mut self, batch: &mut Vec<Cqe>) {
        let Some(liar) = &mut self.fault else { return };
        let (flights, sends) = (&mut self.flights, &mut self.sends);
        let mut cancel = Vec::new();
        liar.bend(batch, |user_data| class(flights, sends, user_data), &mut cancel);
        for user_data in cancel {
            self.request_cancel(user_data);
        }
    }

    /// Polls the waker from now on.
    pub(super) fn listen_to_waker(&mut self) {
        let bell = types::Fd(self.waker.bell().as_raw_fd());
        let mask = libc::POLLIN as u32;
        let entry = opcode::PollAdd::new(bell, mask).multi(true).build().user_data(WAKE);
        self.ring.push(&entry);
        self.listening = true;
    }

    /// The waker rang, which is news enough. Multishot polls see each ring, so the bell is only
    /// emptied when the poll has ended.
    pub(super) fn on_wake(&mut self, cqe: Cqe) {
        if cqe.more() {
            return;
        }
        self.listening = false;
        if !self.ending {
            self.waker.drain();
            self.listen_to_waker();
        }
    }
}

fn class(flights: &mut Flights, sends: &mut Store<Sending>, user_data: u64) -> Class {
    if user_data & (WAKE | CANCEL) != 0 {
        return Class::Plain;
    }
    let Some(slot) = flights.find(user_data) else { return Class::Plain };
    let flight = flights.at(slot);
    match flight.kind {
        Kind::Recv => Class::Recv,
        Kind::Accept => Class::Accept,
        Kind::Send if sends.get(flight.a).silent() => Class::Plain,
        _ => Class::Patient,
    }
}
