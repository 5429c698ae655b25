//! What goes in, and how it ends: push, cancel, close, and who a completion entry is for.

use std::io;

use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::CancelBuilder;
use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::reactor::{Completion, Op, OpId, Outcome, SockName, Token};

use crate::attempt::Pending;

use super::flight::{ARMED, CANCEL, CANCELLED, Kind, NONE, PARKED, WAKE};
use super::recv::own;
use super::ring::Cqe;
use super::{Uring, cancelled};

/// How often a cancel request that found nothing is repeated while its operation lives.
const CANCEL_MISSES_MAX: u8 = 8;

impl Uring {
    /// Takes an op in.
    pub(super) fn begin(&mut self, token: Token, op: Op) -> OpId {
        let foreign = match &op {
            Op::Nop | Op::Resolve { .. } | Op::FutexWait { .. } => false,
            op => fd_of(op).is_none_or(|fd| fd.as_os().is_none()),
        };
        if foreign {
            let error = io::Error::from_raw_os_error(libc::EBADF);
            return self.at_once(Pending::new(op).end(token, Err(error)));
        }
        let slot = match op {
            Op::Nop => return self.at_once(Completion::last(token, Ok(Outcome::Done))),
            Op::Recv { fd, limit } if fd.kind() == FdKind::Socket => {
                self.receives = true;
                let slot = self.flights.insert(token, Kind::Recv, Some(fd), limit.max(1));
                self.arm_recv(slot);
                slot
            }
            Op::Send { fd, parts } if fd.kind() == FdKind::Socket => {
                let slot = self.flights.insert(token, Kind::Send, Some(fd), NONE);
                let id = self.flights.id(slot);
                self.push_send(slot, parts);
                return id;
            }
            Op::Accept { fd, limit } => {
                let slot = self.flights.insert(token, Kind::Accept, Some(fd), limit.max(1));
                self.push_accept(slot);
                slot
            }
            Op::Poll { fd, ready, multishot, edge } => {
                let slot = self.flights.insert(token, Kind::Poll, Some(fd), 0);
                self.push_poll(slot, ready, multishot, edge);
                slot
            }
            Op::Connect { fd, to: to @ SockName::Inet(_) } => {
                let slot = self.flights.insert(token, Kind::Connect, Some(fd), NONE);
                let id = self.flights.id(slot);
                if let Err(error) = self.push_connect(slot, &to) {
                    let completion = self.end(slot, Err(error));
                    self.early.push(completion);
                }
                return id;
            }
            Op::Resolve { host, port } => {
                let slot = self.flights.insert(token, Kind::Resolve, None, NONE);
                self.resolver.ask(self.flights.id(slot), host, port);
                slot
            }
            Op::FutexWait { word, expected } => return self.begin_futex(token, word, expected),
            Op::Close { fd } => return self.push_close(token, fd),
            op => {
                let receives = matches!(
                    op,
                    Op::Recv { .. } | Op::RecvBulk { eager: false, .. } | Op::RecvMsg { .. }
                );
                let pending = Pending::new(op);
                let fd = pending.fd().cloned();
                let slot = self.flights.insert(token, Kind::Attempt, fd, NONE);
                self.push_attempt(slot, pending, receives);
                slot
            }
        };
        self.flights.id(slot)
    }

    /// Mints a name for an op that is answered in the next turn without further ado.
    pub(super) fn at_once(&mut self, completion: Completion) -> OpId {
        let slot = self.flights.insert(completion.token, Kind::Close, None, NONE);
        let id = self.flights.id(slot);
        self.free(slot);
        self.early.push(completion);
        id
    }

    fn push_close(&mut self, token: Token, fd: Fd) -> OpId {
        let number = fd.number();
        let slot = self.flights.insert(token, Kind::Close, Some(fd), NONE);
        let id = self.flights.id(slot);
        let mut at = self.flights.first_on(number);
        let mut twice = false;
        while at != NONE {
            let next = self.flights.next_on(at);
            if at != slot {
                twice |= self.flights.at(at).kind == Kind::Close;
                // By name and not by descriptor: a request by number that waits in the backlog
                // could hit whoever has that number by then.
                self.cancel_slot(at);
            }
            at = next;
        }
        if twice || self.flights.lone_close(number) == Some(slot) {
            self.end_close(slot);
        }
        id
    }

    fn end_close(&mut self, slot: u32) {
        let completion = self.end(slot, Ok(Outcome::Done));
        self.early.push(completion);
    }

    /// Asks for the end of an op.
    pub(super) fn cancel_op(&mut self, op: OpId) {
        if let Some(slot) = self.flights.of(op) {
            self.cancel_slot(slot);
        }
    }

    /// Asks for the end of a flight, of the ring where the ring works on it.
    pub(super) fn cancel_slot(&mut self, slot: u32) {
        let user_data = self.flights.user_data(slot);
        if self.flights.at(slot).has(CANCELLED) {
            return;
        }
        self.cancel_quietly(slot);
        if self.flights.find(user_data).is_none() {
            return;
        }
        let flight = self.flights.at(slot);
        let (armed, kind, place) = (flight.has(ARMED), flight.kind, flight.a);
        // A silent send ends with the enter that takes it.
        if armed && !(kind == Kind::Send && self.sends.get(place).silent()) {
            self.request_cancel(user_data);
        }
    }

    /// Marks a flight so that nothing arms it again, and ends what the ring does not know.
    fn cancel_quietly(&mut self, slot: u32) {
        let id = self.flights.id(slot);
        let flight = self.flights.at(slot);
        if flight.kind == Kind::Close {
            return;
        }
        flight.set(CANCELLED);
        let completion = match flight.kind {
            Kind::Resolve => {
                self.resolver.withdraw(id);
                self.end(slot, Err(cancelled()))
            }
            Kind::Attempt if flight.has(PARKED) => self.end_attempt(slot, Err(cancelled())),
            _ if flight.has(PARKED) => self.end(slot, Err(cancelled())),
            _ => return,
        };
        self.early.push(completion);
    }

    /// Sends a cancel request to the ring. It reports failure only.
    pub(super) fn request_cancel(&mut self, user_data: u64) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(user_data)).build();
        let entry = entry.user_data(user_data | CANCEL).flags(Flags::SKIP_SUCCESS);
        self.ring.push(&entry);
    }

    /// A cancel request found nothing to cancel. Most likely the completion is under way; where
    /// it is not, the operation was between two of its polls.
    fn on_cancel_failed(&mut self, user_data: u64) {
        let target = user_data & !CANCEL;
        let Some(slot) = self.flights.find(target) else { return };
        let flight = self.flights.at(slot);
        if flight.has(ARMED) && flight.misses < CANCEL_MISSES_MAX {
            flight.misses += 1;
            self.request_cancel(target);
        }
    }

    /// Hands a completion entry to the flight it is for.
    #[inline]
    pub(super) fn dispatch(&mut self, cqe: Cqe, done: &mut Vec<Completion>) {
        if cqe.user_data & (WAKE | CANCEL) != 0 {
            if cqe.user_data & WAKE != 0 {
                self.on_wake(cqe);
            } else if cqe.result < 0 {
                self.on_cancel_failed(cqe.user_data);
            }
            return;
        }
        let Some(slot) = self.flights.find(cqe.user_data) else {
            debug_assert!(false, "a flight ends with its last completion entry, not before");
            drop(cqe.block().map(|id| self.blocks.taken(id)));
            return;
        };
        match self.flights.at(slot).kind {
            Kind::Recv => self.on_recv(slot, cqe, done),
            Kind::Send => self.on_send(slot, cqe, done),
            Kind::Accept => self.on_accept(slot, cqe, done),
            Kind::Poll => self.on_poll(slot, cqe, done),
            Kind::Attempt => self.on_attempt(slot, cqe, done),
            Kind::Connect => self.on_connect(slot, cqe, done),
            Kind::Futex => self.on_futex(slot, cqe, done),
            Kind::Free | Kind::Resolve | Kind::Close => {
                unreachable!("the ring knows nothing of a {:?}", self.flights.at(slot).kind)
            }
        }
    }

    /// Takes what the resolver found.
    pub(super) fn take_answers(&mut self, done: &mut Vec<Completion>) {
        if !self.resolver.has_answers() {
            return;
        }
        for (id, result) in self.resolver.answers() {
            if let Some(slot) = self.flights.of(id) {
                done.push(self.end(slot, result.map(Outcome::Addresses)));
            }
        }
    }

    /// The last completion of a flight that keeps nothing beside the table.
    #[inline]
    pub(super) fn end(&mut self, slot: u32, result: io::Result<Outcome>) -> Completion {
        let flight = self.flights.at(slot);
        let token = flight.token;
        if flight.kind == Kind::Accept && flight.b != NONE {
            drop(own(std::mem::replace(&mut flight.b, NONE) as i32));
        }
        self.free(slot);
        Completion::last(token, result)
    }

    /// Frees a slot, lets go of its descriptor, and ends a close that waited for it.
    #[inline]
    pub(super) fn free(&mut self, slot: u32) {
        let (fd, closing) = self.flights.remove(slot);
        drop(fd);
        if let Some(close) = closing {
            self.end_close(close);
        }
    }
}

fn fd_of(op: &Op) -> Option<&Fd> {
    match op {
        Op::Poll { fd, .. }
        | Op::Accept { fd, .. }
        | Op::Connect { fd, .. }
        | Op::Recv { fd, .. }
        | Op::RecvBulk { fd, .. }
        | Op::RecvMsg { fd, .. }
        | Op::Send { fd, .. }
        | Op::SendMsg { fd, .. }
        | Op::SendFile { fd, .. }
        | Op::Close { fd } => Some(fd),
        Op::Nop | Op::FutexWait { .. } | Op::Resolve { .. } => None,
    }
}
