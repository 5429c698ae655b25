//! Receives: multishot into posted blocks, bulk into one block, and connections.
//!
//! Invariants: every armed multishot receive carries a byte limit where the kernel knows one, so
//! that no connection drains the blocks of all others; `ENOBUFS` stays in here: such a receive is
//! parked, first come first served, and no more are armed again than blocks are posted.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::reactor::{Completion, Outcome};
use ringlane_api::segment::Segment;

use super::blocks::GROUP;
use super::fault::Arm;
use super::flight::{ARMED, CANCELLED, NONE, ONE_BY_ONE, PARKED};
use super::ring::Cqe;
use super::{Uring, cancelled};

/// Where `optlen`, the byte limit of a multishot receive, lies in an entry.
const OPTLEN_AT: usize = 44;

/// The largest byte limit the kernel understands.
const LIMIT_MAX: u32 = i32::MAX as u32;

/// Full blocks under one limit. After 32 in a row the kernel puts a receive aside and may forget
/// an end of the stream that has come by then (io_uring/net.c, `MULTISHOT_MAX_RETRY`).
const SHOTS_MAX: u32 = 24;

/// The largest limit of an accept that is kept exactly.
const EXACT_ACCEPTS_MAX: u32 = 8;

/// Sets the byte limit of a multishot receive, which the binding has no name for.
pub(super) fn limit_bytes(entry: &mut Entry, limit: u32) {
    const { assert!(size_of::<Entry>() == 64, "an entry is 64 bytes") };
    let start: *mut u8 = std::ptr::from_mut(entry).cast();
    // SAFETY: the offset lies inside the 64 bytes of the entry.
    let field = unsafe { start.add(OPTLEN_AT) };
    // SAFETY: as above, and the entry is exclusively borrowed; u32 has no invalid values.
    unsafe { field.cast::<u32>().write_unaligned(limit) };
}

impl Uring {
    /// Hands a receive to the ring.
    pub(super) fn arm_recv(&mut self, slot: u32) {
        let user_data = self.flights.user_data(slot);
        let flight = self.flights.at(slot);
        flight.clear(PARKED);
        flight.set(ARMED);
        let (fd, limit) = (types::Fd(flight.number()), flight.a.max(1));
        let arm = match &mut self.fault {
            Some(liar) => liar.arm_recv(user_data, limit),
            None => Arm::Straight,
        };
        let cut = match arm {
            Arm::Straight => None,
            Arm::Cut(bytes) => Some(bytes),
            Arm::NoBlocks => return,
        };
        let most = limit.min(self.home.block_bytes() as u32);
        let entry = if self.features.byte_limit {
            // KERNEL 6.0: multishot receive. KERNEL 6.17: its byte limit.
            // The limit is looked at between blocks, and as an `int`; `len` bounds each block.
            let len = cut.map_or(most, |cut| cut.min(most));
            let entry = opcode::RecvMulti::new(fd, GROUP).len(len).build();
            let mut entry = entry.user_data(user_data);
            limit_bytes(&mut entry, limit.min(len.saturating_mul(SHOTS_MAX)).min(LIMIT_MAX));
            entry
        } else {
            let len = cut.map_or(most, |cut| cut.min(most));
            opcode::Recv::new(fd, std::ptr::null_mut(), len)
                .buf_group(GROUP)
                .build()
                .flags(Flags::BUFFER_SELECT)
                .user_data(user_data)
        };
        self.ring.push(&entry);
    }

    /// A receive reported.
    #[inline]
    pub(super) fn on_recv(&mut self, slot: u32, cqe: Cqe, done: &mut Vec<Completion>) {
        let taken = cqe.block().map(|id| self.blocks.taken(id));
        if let Some(block) = taken
            && cqe.result > 0
        {
            let bytes = cqe.result as usize;
            let flight = self.flights.at(slot);
            flight.a = flight.a.saturating_sub(bytes as u32);
            let (token, mut more) = (flight.token, cqe.more());
            if !more {
                // A one-shot receive, or the kernel had its reasons: it goes on up to its limit.
                more = flight.a > 0 && !flight.has(CANCELLED);
                match more {
                    true => self.arm_recv(slot),
                    false => self.free(slot),
                }
            }
            let outcome = Outcome::Received(Segment::from_block(block, bytes));
            done.push(Completion { token, result: Ok(outcome), more, parts: None });
            return;
        }
        if cqe.more() {
            return;
        }
        let was_cancelled = self.ended(slot);
        match -cqe.result {
            0 => done.push(self.end(slot, Ok(Outcome::Eof))),
            libc::ENOBUFS if !was_cancelled => self.park_recv(slot),
            // ECANCELED that nobody asked for comes from a fault that is played.
            libc::EAGAIN | libc::EINTR | libc::ECANCELED if !was_cancelled => self.arm_recv(slot),
            libc::ENOBUFS | libc::EAGAIN | libc::EINTR => {
                done.push(self.end(slot, Err(cancelled())));
            }
            error => done.push(self.end(slot, Err(io::Error::from_raw_os_error(error)))),
        }
    }

    /// The ring is done with this flight's entry. Whether its end was asked for.
    pub(super) fn ended(&mut self, slot: u32) -> bool {
        let flight = self.flights.at(slot);
        flight.clear(ARMED);
        flight.has(CANCELLED)
    }

    fn park_recv(&mut self, slot: u32) {
        self.counters.enobufs += 1;
        self.flights.at(slot).set(PARKED);
        self.starved.push_back(self.flights.user_data(slot));
    }

    /// Posts blocks, and arms receives that had none, at most as many as are posted.
    #[inline]
    pub(super) fn feed(&mut self) {
        if !self.receives {
            return;
        }
        self.blocks.refill();
        for _ in 0..self.starved.len().min(self.blocks.posted()) {
            let Some(user_data) = self.starved.pop_front() else { break };
            // A parked receive that was cancelled is gone already.
            if let Some(slot) = self.flights.find(user_data)
                && self.flights.at(slot).has(PARKED)
            {
                self.arm_recv(slot);
            }
        }
    }

    /// Starts an accept. Under a small limit connections are taken one by one, so that none is
    /// taken too many; a larger one may be overshot by what came before the ring let go.
    pub(super) fn push_accept(&mut self, slot: u32) {
        let flight = self.flights.at(slot);
        if flight.a <= EXACT_ACCEPTS_MAX {
            flight.set(ONE_BY_ONE);
        }
        self.arm_accept(slot);
    }

    /// Hands an accept to the ring.
    pub(super) fn arm_accept(&mut self, slot: u32) {
        let user_data = self.flights.user_data(slot);
        let flight = self.flights.at(slot);
        flight.set(ARMED);
        let fd = types::Fd(flight.number());
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let entry = if flight.has(ONE_BY_ONE) {
            let null = std::ptr::null_mut();
            opcode::Accept::new(fd, null, null.cast()).flags(flags).build()
        } else {
            // KERNEL 5.19: multishot accept.
            opcode::AcceptMulti::new(fd).flags(flags).build()
        };
        self.ring.push(&entry.user_data(user_data));
    }

    /// An accept reported.
    pub(super) fn on_accept(&mut self, slot: u32, cqe: Cqe, done: &mut Vec<Completion>) {
        if cqe.result >= 0 {
            self.on_connection(slot, own(cqe.result), cqe.more(), done);
            return;
        }
        if cqe.more() {
            return;
        }
        let was_cancelled = self.ended(slot);
        let flight = self.flights.at(slot);
        if flight.b != NONE {
            // The last one of the limit was held back until the ring had let go.
            let fd = own(std::mem::replace(&mut flight.b, NONE) as i32);
            done.push(self.end(slot, Ok(Outcome::Accepted(fd))));
        } else if passing(-cqe.result) && !was_cancelled {
            // ECANCELED that nobody asked for comes from a fault that is played.
            self.arm_accept(slot);
        } else if passing(-cqe.result) {
            done.push(self.end(slot, Err(cancelled())));
        } else {
            done.push(self.end(slot, Err(io::Error::from_raw_os_error(-cqe.result))));
        }
    }

    fn on_connection(&mut self, slot: u32, fd: Fd, more: bool, done: &mut Vec<Completion>) {
        let flight = self.flights.at(slot);
        let token = flight.token;
        let held = std::mem::replace(&mut flight.b, NONE);
        if held != NONE {
            // Late ones, after the limit: delivered all the same, in order.
            done.push(accepted(token, own(held as i32), true));
        }
        flight.a = flight.a.saturating_sub(1);
        let at_limit = flight.a == 0;
        if !more {
            let was_cancelled = self.ended(slot);
            if at_limit || was_cancelled {
                done.push(self.end(slot, Ok(Outcome::Accepted(fd))));
            } else {
                done.push(accepted(token, fd, true));
                self.arm_accept(slot);
            }
        } else if at_limit {
            flight.b = give_up(fd);
            self.cancel_slot(slot);
        } else {
            done.push(accepted(token, fd, true));
        }
    }
}

fn accepted(token: ringlane_api::reactor::Token, fd: Fd, more: bool) -> Completion {
    Completion { token, result: Ok(Outcome::Accepted(fd)), more, parts: None }
}

/// Owns a connection that the ring made.
pub(super) fn own(number: i32) -> Fd {
    // SAFETY: the kernel made this descriptor for us and named it in one completion, which is
    // looked at once; a number held back was given up by `give_up` just for this.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    Fd::from_os(fd, FdKind::Socket)
}

/// Turns a connection into its number, to be owned again by [`own`].
fn give_up(fd: Fd) -> u32 {
    use std::os::fd::IntoRawFd;
    let fd = fd.into_os().expect("a connection that nobody has seen has one holder");
    fd.into_raw_fd() as u32
}

/// Errors of a single connection that died before we took it (accept(2)), and of none at all.
fn passing(error: i32) -> bool {
    matches!(
        error,
        libc::EAGAIN
            | libc::EINTR
            | libc::ECANCELED
            | libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EPERM
    )
}
