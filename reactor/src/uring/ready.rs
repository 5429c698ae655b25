//! Readiness: polls for their own sake, connects, and ops that are tried without waiting when
//! their descriptor is ready.
//!
//! Invariant: a flight has at most one entry with the ring. A level poll is a one-shot that is
//! queued again when it reported, so that it looks again at the next enter, after the callbacks.

use std::io;
use std::rc::Rc;

use io_uring::{opcode, types};
use ringlane_api::reactor::{Completion, Op, OpId, Outcome, Ready, SharedWord, SockName, Token};
use socket2::SockAddr;

use crate::attempt::{Kit, Pending, Step};
use crate::sys;

use super::flight::{ARMED, CANCELLED, EDGE, Kind, MULTISHOT, PARKED};
use super::ring::Cqe;
use super::{Uring, cancelled};

/// `FUTEX2_SIZE_U32` of linux/futex.h.
const FUTEX_SIZE_U32: u32 = 2;

/// `FUTEX_BITSET_MATCH_ANY` of linux/futex.h.
const FUTEX_MATCH_ANY: u64 = 0xffff_ffff;

/// What poll(2) calls the readiness asked for. Hang-ups and errors are reported unasked.
fn mask(ready: Ready) -> u32 {
    let mut mask = 0;
    if ready.contains(Ready::READ) {
        mask |= libc::POLLIN | libc::POLLRDHUP;
    }
    if ready.contains(Ready::WRITE) {
        mask |= libc::POLLOUT;
    }
    mask as u32
}

/// What was found, in our words.
fn found(mask: i32) -> Ready {
    let mut ready = Ready::NONE;
    let has = |flag: i16| mask & i32::from(flag) != 0;
    if has(libc::POLLIN | libc::POLLRDHUP) {
        ready |= Ready::READ;
    }
    if has(libc::POLLOUT) {
        ready |= Ready::WRITE;
    }
    if has(libc::POLLHUP | libc::POLLERR) {
        ready |= Ready::HANGUP;
    }
    ready
}

impl Uring {
    /// Starts a poll.
    pub(super) fn push_poll(&mut self, slot: u32, ready: Ready, multishot: bool, edge: bool) {
        let flight = self.flights.at(slot);
        flight.a = mask(ready);
        if multishot {
            flight.set(if edge { MULTISHOT | EDGE } else { MULTISHOT });
        }
        self.arm_poll(slot);
    }

    pub(super) fn arm_poll(&mut self, slot: u32) {
        let flight = self.flights.at(slot);
        let (mask, edge) = (flight.a, flight.has(EDGE));
        self.queue_poll(slot, mask, edge);
    }

    fn queue_poll(&mut self, slot: u32, mask: u32, multishot: bool) {
        let user_data = self.flights.user_data(slot);
        let flight = self.flights.at(slot);
        flight.clear(PARKED);
        flight.set(ARMED);
        let fd = types::Fd(flight.number());
        // KERNEL 5.13: multishot polls; they are edge-triggered.
        let entry = opcode::PollAdd::new(fd, mask).multi(multishot).build();
        self.ring.push(&entry.user_data(user_data));
    }

    /// A poll reported.
    pub(super) fn on_poll(&mut self, slot: u32, cqe: Cqe, done: &mut Vec<Completion>) {
        let token = self.flights.at(slot).token;
        if cqe.more() {
            if cqe.result > 0 {
                let result = Ok(Outcome::Ready(found(cqe.result)));
                done.push(Completion { token, result, more: true, parts: None });
            }
            return;
        }
        let was_cancelled = self.ended(slot);
        let multishot = self.flights.at(slot).has(MULTISHOT);
        if multishot && was_cancelled {
            done.push(self.end(slot, Err(cancelled())));
            return;
        }
        if cqe.result < 0 {
            done.push(self.end(slot, Err(io::Error::from_raw_os_error(-cqe.result))));
            return;
        }
        let result = Ok(Outcome::Ready(found(cqe.result)));
        if multishot {
            done.push(Completion { token, result, more: true, parts: None });
            self.arm_poll(slot);
        } else {
            done.push(self.end(slot, result));
        }
    }

    /// Starts a connect in the ring. Unix sockets connect at once or not at all, so they are tried
    /// instead.
    pub(super) fn push_connect(&mut self, slot: u32, to: &SockName) -> io::Result<()> {
        let address: SockAddr = sys::to_kernel(to)?;
        let place = self.names.insert(Box::new(address));
        let user_data = self.flights.user_data(slot);
        let flight = self.flights.at(slot);
        flight.a = place;
        flight.set(ARMED);
        let fd = types::Fd(flight.number());
        let name = self.names.get(place);
        let entry = opcode::Connect::new(fd, name.as_ptr().cast(), name.len()).build();
        self.ring.push(&entry.user_data(user_data));
        Ok(())
    }

    /// A connect reported.
    pub(super) fn on_connect(&mut self, slot: u32, cqe: Cqe, done: &mut Vec<Completion>) {
        let place = self.flights.at(slot).a;
        self.names.remove(place);
        done.push(match cqe.result {
            error if error < 0 => self.end(slot, Err(io::Error::from_raw_os_error(-error))),
            _ => self.end(slot, Ok(Outcome::Done)),
        });
    }

    /// Starts to wait on a word of shared memory, where the kernel can.
    pub(super) fn begin_futex(
        &mut self,
        token: Token,
        word: Rc<dyn SharedWord>,
        expected: u32,
    ) -> OpId {
        if !self.features.futex {
            let error = io::ErrorKind::Unsupported.into();
            return self.at_once(Completion::last(token, Err(error)));
        }
        let place = self.words.insert(word);
        let slot = self.flights.insert(token, Kind::Futex, None, place);
        self.push_futex(slot, expected);
        self.flights.id(slot)
    }

    fn push_futex(&mut self, slot: u32, expected: u32) {
        let user_data = self.flights.user_data(slot);
        let flight = self.flights.at(slot);
        flight.b = expected;
        flight.set(ARMED);
        let at = self.words.get(flight.a).word().as_ptr();
        // KERNEL 6.7: futex operations. Not FUTEX2_PRIVATE: the waker is another process, and
        // private waits that were armed before the first thread was made are lost.
        let entry = opcode::FutexWait::new(
            at.cast_const(),
            u64::from(expected),
            FUTEX_MATCH_ANY,
            FUTEX_SIZE_U32,
        );
        self.ring.push(&entry.build().user_data(user_data));
    }

    /// A word was rung, or was not what lets one sleep, or the wait was cancelled.
    pub(super) fn on_futex(&mut self, slot: u32, cqe: Cqe, done: &mut Vec<Completion>) {
        let was_cancelled = self.ended(slot);
        let result = match -cqe.result {
            libc::ECANCELED if was_cancelled => Err(cancelled()),
            // A cancel that nobody asked for comes from a fault that is played: a wake for no
            // reason, as EINTR is.
            error if error <= 0 => Ok(Outcome::Done),
            libc::EAGAIN | libc::EINTR | libc::ECANCELED => Ok(Outcome::Done),
            error => Err(io::Error::from_raw_os_error(error)),
        };
        done.push(self.end_futex(slot, result));
    }

    pub(super) fn end_futex(&mut self, slot: u32, result: io::Result<Outcome>) -> Completion {
        let place = self.flights.at(slot).a;
        drop(self.words.remove(place));
        self.end(slot, result)
    }

    /// Starts an op that is tried without waiting. What receives waits for bytes first; what sends
    /// or connects is tried at the start of the next turn.
    pub(super) fn push_attempt(&mut self, slot: u32, pending: Pending, receives: bool) {
        let place = self.attempts.insert(pending);
        self.flights.at(slot).a = place;
        if receives {
            self.queue_poll(slot, mask(Ready::READ), false);
        } else {
            self.try_next_turn(slot);
        }
    }

    /// Waits for readiness before the next try.
    pub(super) fn wait_for(&mut self, slot: u32, ready: Ready) {
        self.queue_poll(slot, mask(ready), false);
    }

    fn try_next_turn(&mut self, slot: u32) {
        self.flights.at(slot).set(PARKED);
        self.tries.push(self.flights.user_data(slot));
    }

    fn queue_bulk(&mut self, slot: u32) {
        self.flights.at(slot).set(PARKED);
        self.bulk.push_back(self.flights.user_data(slot));
    }

    /// Gives bulk receives their blocks, first come first served, until one must wait.
    fn serve_bulk(&mut self, done: &mut Vec<Completion>) {
        while let Some(user_data) = self.bulk.pop_front() {
            let Some(slot) = self.flights.find(user_data) else { continue };
            if !self.flights.at(slot).has(PARKED) {
                continue;
            }
            self.flights.at(slot).clear(PARKED);
            self.try_once(slot, done);
            if self.bulk.back() == Some(&user_data) {
                self.bulk.rotate_right(1);
                return;
            }
        }
    }

    /// Tries what waits for its turn.
    pub(super) fn try_all(&mut self, done: &mut Vec<Completion>) {
        self.serve_bulk(done);
        if self.tries.is_empty() && self.later.is_empty() {
            return;
        }
        let mut trying = std::mem::take(&mut self.trying);
        trying.append(&mut self.tries);
        trying.append(&mut self.later);
        for user_data in trying.drain(..) {
            if let Some(slot) = self.flights.find(user_data)
                && self.flights.at(slot).has(PARKED)
            {
                self.flights.at(slot).clear(PARKED);
                self.try_in_turn(slot, done);
            }
        }
        self.trying = trying;
    }

    /// A descriptor that an op waits for is ready, or its poll was cancelled.
    pub(super) fn on_attempt(&mut self, slot: u32, cqe: Cqe, done: &mut Vec<Completion>) {
        self.ended(slot);
        if cqe.result < 0 {
            let error = io::Error::from_raw_os_error(-cqe.result);
            done.push(self.end_attempt(slot, Err(error)));
        } else {
            self.try_in_turn(slot, done);
        }
    }

    /// A bulk receive goes behind those that wait already.
    fn try_in_turn(&mut self, slot: u32, done: &mut Vec<Completion>) {
        let place = self.flights.at(slot).a;
        let bulk = matches!(self.attempts.get(place).op, Op::RecvBulk { .. });
        if bulk && !self.bulk.is_empty() && !self.flights.at(slot).has(CANCELLED) {
            self.queue_bulk(slot);
        } else {
            self.try_once(slot, done);
        }
    }

    fn try_once(&mut self, slot: u32, done: &mut Vec<Completion>) {
        let flight = self.flights.at(slot);
        let (token, place, was_cancelled) = (flight.token, flight.a, flight.has(CANCELLED));
        let pending = self.attempts.get(place);
        let short = match &mut self.fault {
            Some(liar) => liar.cut_send(u32::MAX).is_some(),
            None => false,
        };
        let mut kit =
            Kit { home: &self.home, counters: &mut self.counters, short, busy: self.busy };
        let step = pending.attempt(&mut kit);
        let drained = pending.drained;
        match step {
            Step::Last(result) => done.push(self.end_attempt(slot, result)),
            Step::More(outcome) => {
                done.push(Completion { token, result: Ok(outcome), more: true, parts: None });
                if was_cancelled {
                    done.push(self.end_attempt(slot, Err(cancelled())));
                } else if drained {
                    self.queue_poll(slot, mask(Ready::READ), false);
                } else {
                    self.try_next_turn(slot);
                }
            }
            _ if was_cancelled => done.push(self.end_attempt(slot, Err(cancelled()))),
            Step::Again => self.try_next_turn(slot),
            Step::Queued => self.queue_bulk(slot),
            Step::Blocked(ready) => self.queue_poll(slot, mask(ready), false),
            Step::Later => {
                self.flights.at(slot).set(PARKED);
                self.later.push(self.flights.user_data(slot));
            }
        }
    }

    pub(super) fn end_attempt(&mut self, slot: u32, result: io::Result<Outcome>) -> Completion {
        let flight = self.flights.at(slot);
        let (token, place) = (flight.token, flight.a);
        let pending = self.attempts.remove(place);
        self.free(slot);
        pending.end(token, result)
    }
}
