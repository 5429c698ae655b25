//! Sends: optimistic and silent first, patient where that failed.
//!
//! ```text
//!   push -> one SQE, MSG_DONTWAIT|MSG_WAITALL, no CQE on success
//!             |                          |
//!             | consumed, nothing said   | short or EAGAIN: a CQE
//!             v                          v
//!         Sent(parts)               the rest, MSG_WAITALL, armed on POLLOUT, until all is gone
//! ```
//!
//! Invariant: silence means success only for an entry that the kernel has consumed, after every
//! completion that was visible behind that enter has been looked at, with no overflow pending
//! ([`Unclaimed`]). A send that does not wait ends inside the enter that took it, so that is when
//! its failure would be there.

use std::collections::VecDeque;
use std::io;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use ringlane_api::limits::SEND_PARTS_MAX;
use ringlane_api::reactor::{Completion, Outcome};
use ringlane_api::segment::Parts;

use super::flight::{ARMED, CANCELLED};
use super::ring::Cqe;
use super::{Uring, cancelled};

/// `IORING_RECVSEND_POLL_FIRST` of linux/io_uring.h: wait for room before the first try.
const POLL_FIRST: u16 = 1;

/// Bytes in one entry; its result is an `i32`.
const ENTRY_BYTES_MAX: usize = 0x7fff_f000;

/// Gather lists kept for reuse.
const GATHERS_MAX: usize = 64;

/// A message header and what it points to. Never moves while the kernel may read it.
pub(super) struct Gather {
    header: libc::msghdr,
    slices: [libc::iovec; SEND_PARTS_MAX],
}

/// A send on its way.
pub(super) struct Sending {
    parts: Parts,
    total: usize,
    done: usize,
    /// Bytes in the entry that is out.
    offered: usize,
    gather: Option<Box<Gather>>,
    /// No completion means success.
    silent: bool,
}

impl Sending {
    /// Whether silence means success for it.
    pub fn silent(&self) -> bool {
        self.silent
    }
}

/// Silent sends in the order of their entries, and how far the kernel's silence reaches.
#[derive(Default)]
pub(super) struct Unclaimed {
    /// Entry number and `user_data`.
    sends: VecDeque<(u64, u64)>,
    /// Entries below the first number were consumed when so many completions had been posted.
    marks: VecDeque<(u64, u64)>,
}

impl Unclaimed {
    /// Whether a send may be done without a completion to wait for.
    #[inline]
    pub fn any(&self) -> bool {
        !self.sends.is_empty()
    }

    /// After an enter without an overflow: entries below `consumed` have said what they had to
    /// say among the first `posted` completions.
    #[inline]
    pub fn mark(&mut self, consumed: u64, posted: u64) {
        if self.sends.is_empty() {
            self.marks.clear();
        } else if self.marks.back().is_none_or(|&(below, _)| below < consumed) {
            self.marks.push_back((consumed, posted));
        }
    }

    /// Entries below this number are known, now that `popped` completions were looked at.
    #[inline]
    fn known(&mut self, popped: u64) -> u64 {
        let mut below = 0;
        while let Some(&(consumed, posted)) = self.marks.front() {
            if posted > popped {
                break;
            }
            below = consumed;
            self.marks.pop_front();
        }
        below
    }

    /// Forgets everything (the ring is gone).
    pub fn clear(&mut self) {
        self.sends.clear();
        self.marks.clear();
    }
}

impl Uring {
    /// Starts a send on a socket.
    pub(super) fn push_send(&mut self, slot: u32, parts: Parts) {
        let total: usize = parts.iter().map(|segment| segment.bytes().len()).sum();
        let whole = total == parts.len();
        let sending = Sending { parts, total, done: 0, offered: 0, gather: None, silent: true };
        let place = self.sends.insert(sending);
        self.flights.at(slot).a = place;
        if !whole {
            let what = "a file range is sent by Op::SendFile";
            let error = io::Error::new(io::ErrorKind::InvalidInput, what);
            self.end_send_early(slot, Err(error));
        } else if total == 0 {
            self.end_send_early(slot, Ok(()));
        } else {
            self.offer(slot, true, false);
        }
    }

    fn end_send_early(&mut self, slot: u32, result: io::Result<()>) {
        let completion = self.end_send(slot, result);
        self.early.push(completion);
    }

    /// Hands the rest of a send to the ring.
    fn offer(&mut self, slot: u32, silent: bool, poll_first: bool) {
        let user_data = self.flights.user_data(slot);
        let flight = self.flights.at(slot);
        flight.set(ARMED);
        let (fd, place) = (types::Fd(flight.number()), flight.a);
        let sending = self.sends.get(place);
        let mut flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        if silent {
            flags |= libc::MSG_DONTWAIT;
        }
        let ioprio = if poll_first { POLL_FIRST } else { 0 };
        sending.silent = silent;
        let cut = match &mut self.fault {
            Some(liar) => liar.cut_send(u32::try_from(sending.total - sending.done).unwrap_or(0)),
            None => None,
        };
        let entry = match sending.next_run(cut) {
            Run::One(at, len) => opcode::Send::new(fd, at, len).flags(flags).ioprio(ioprio).build(),
            Run::Many => {
                let gather = sending.gather.take().or_else(|| self.gathers.pop());
                let gather = sending.gather.insert(gather.unwrap_or_else(Gather::empty));
                sending.offered = gather.fill(&sending.parts, sending.done);
                let header = gather.point();
                opcode::SendMsg::new(fd, header).flags(flags as u32).ioprio(ioprio).build()
            }
        };
        let entry: Entry = entry.user_data(user_data);
        if silent {
            // KERNEL 5.17: no completion on success.
            let number = self.ring.push(&entry.flags(Flags::SKIP_SUCCESS));
            self.unclaimed.sends.push_back((number, user_data));
        } else {
            self.ring.push(&entry);
        }
    }

    /// A send reported.
    pub(super) fn on_send(&mut self, slot: u32, cqe: Cqe, done: &mut Vec<Completion>) {
        let flight = self.flights.at(slot);
        flight.clear(ARMED);
        let (place, was_cancelled) = (flight.a, flight.has(CANCELLED));
        let sending = self.sends.get(place);
        let offered = std::mem::take(&mut sending.offered);
        let was_silent = std::mem::replace(&mut sending.silent, false);
        let mut full = false;
        match cqe.result {
            0 => {
                let error = io::Error::from(io::ErrorKind::WriteZero);
                done.push(self.end_send(slot, Err(error)));
                return;
            }
            n if n > 0 => {
                sending.done += n as usize;
                full = (n as usize) < offered;
            }
            error => match -error {
                libc::EAGAIN => full = true,
                // For want of memory: it is tried again in the next turn.
                libc::EINTR | libc::ENOBUFS | libc::ENOMEM => {}
                _ => {
                    let error = io::Error::from_raw_os_error(-error);
                    done.push(self.end_send(slot, Err(error)));
                    return;
                }
            },
        }
        let finished = sending.done >= sending.total;
        if finished {
            done.push(self.end_send(slot, Ok(())));
        } else if was_cancelled {
            done.push(self.end_send(slot, Err(cancelled())));
        } else {
            self.counters.short_sends += u64::from(was_silent || full);
            self.offer(slot, false, full);
        }
    }

    /// Completes the silent sends whose silence is known to mean success.
    #[inline]
    pub(super) fn claim(&mut self, done: &mut Vec<Completion>) {
        let below = self.unclaimed.known(self.ring.popped());
        while let Some(&(number, user_data)) = self.unclaimed.sends.front() {
            if number >= below {
                break;
            }
            self.unclaimed.sends.pop_front();
            // One that failed is patient by now, or its slot is somebody else's.
            if let Some(slot) = self.flights.find(user_data) {
                self.claim_one(slot, done);
            }
        }
    }

    #[inline]
    fn claim_one(&mut self, slot: u32, done: &mut Vec<Completion>) {
        let flight = self.flights.at(slot);
        let was_cancelled = flight.has(CANCELLED);
        let place = flight.a;
        let sending = self.sends.get(place);
        if !sending.silent {
            return;
        }
        sending.silent = false;
        sending.done += std::mem::take(&mut sending.offered);
        let finished = sending.done >= sending.total;
        self.flights.at(slot).clear(ARMED);
        if finished {
            done.push(self.end_send(slot, Ok(())));
        } else if was_cancelled {
            done.push(self.end_send(slot, Err(cancelled())));
        } else {
            // Cut on purpose, or more parts than fit one entry.
            self.offer(slot, false, false);
        }
    }

    /// The last completion of a send; its memory goes with it.
    #[inline]
    pub(super) fn end_send(&mut self, slot: u32, result: io::Result<()>) -> Completion {
        let flight = self.flights.at(slot);
        let (token, place) = (flight.token, flight.a);
        let Sending { parts, gather, .. } = self.sends.remove(place);
        if let Some(gather) = gather
            && self.gathers.len() < GATHERS_MAX
        {
            self.gathers.push(gather);
        }
        self.free(slot);
        match result {
            Ok(()) => Completion::last(token, Ok(Outcome::Sent(parts))),
            Err(error) => {
                Completion { token, result: Err(error), more: false, parts: Some(Box::new(parts)) }
            }
        }
    }
}

/// What the next entry of a send carries.
enum Run {
    One(*const u8, u32),
    Many,
}

impl Sending {
    /// One part, or several; `cut` bytes of one part where a fault is played.
    #[inline]
    fn next_run(&mut self, cut: Option<u32>) -> Run {
        let mut skip = self.done;
        let last = self.parts.rest.len();
        for (at, segment) in self.parts.iter().enumerate() {
            let bytes = segment.bytes();
            if skip >= bytes.len() {
                skip -= bytes.len();
                continue;
            }
            if at < last && cut.is_none() {
                return Run::Many;
            }
            let rest = &bytes[skip..];
            let most = cut.map_or(ENTRY_BYTES_MAX, |cut| cut as usize);
            self.offered = rest.len().min(most);
            return Run::One(rest.as_ptr(), self.offered as u32);
        }
        unreachable!("a send with nothing left has ended")
    }
}

impl Gather {
    fn empty() -> Box<Gather> {
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: all-zero bytes are a valid msghdr (null pointers, zero lengths).
        let header = unsafe { std::mem::zeroed() };
        Box::new(Gather { header, slices: [none; SEND_PARTS_MAX] })
    }

    /// Lists the parts behind `skip` bytes; returns how many bytes are listed.
    fn fill(&mut self, parts: &Parts, mut skip: usize) -> usize {
        let (mut used, mut listed) = (0, 0);
        for segment in parts.iter() {
            let bytes = segment.bytes();
            if skip >= bytes.len() {
                skip -= bytes.len();
                continue;
            }
            let rest = &bytes[skip..];
            if used == SEND_PARTS_MAX || listed == ENTRY_BYTES_MAX {
                break;
            }
            let rest = &rest[..rest.len().min(ENTRY_BYTES_MAX - listed)];
            skip = 0;
            self.slices[used] =
                libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
            used += 1;
            listed += rest.len();
        }
        self.header.msg_iovlen = used;
        listed
    }

    /// The header, pointing at the list. The box does not move while the entry is out.
    fn point(&mut self) -> *const libc::msghdr {
        self.header.msg_iov = self.slices.as_mut_ptr();
        &raw const self.header
    }
}
