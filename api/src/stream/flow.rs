//! Bytes in and out of an open link.

use std::rc::Rc;

use super::{ECANCELED, Family, State, Stream, bit, kind};
use crate::evbuffer::Evbuffer;
use crate::fd::{Fd, FdKind};
use crate::limits;
use crate::mutant::{self, Mutant};
use crate::reactor::{Completion, Op, Outcome, Side};
use crate::segment::{Lease, Parts, Segment};
use crate::transport::{Cx, LinkEvent, LinkId};

impl<F: Family> Stream<F> {
    /// Arms a receive if the window allows one and none is armed.
    #[inline]
    pub(super) fn arm(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        let open = link.state == State::Open && link.bits & bit::READ_OVER == 0;
        let closed = link.window == 0 && !mutant::on(Mutant::WindowIgnored);
        if !open || link.recv.is_some() || closed {
            return;
        }
        let Some(fd) = link.fd.clone() else { return };
        let limit = u64::from(link.arm).min(link.window) as u32;
        let eager = link.got >= limits::BULK_BLOCK_BYTES as u32;
        link.got = 0;
        link.bits &= !bit::PART_FILLED;
        let bulk = link.bits & bit::BULK != 0 && fd.kind() == FdKind::Socket;
        let fds = link.bits & bit::RECEIVES_FDS != 0;
        let window = link.window;
        let op = if fds {
            let limit = limits::BLOCK_BYTES as u32;
            let limit = u64::from(limit).min(window) as u32;
            cx.push(id, kind::MESSAGE, Op::RecvMsg { fd, limit })
        } else if bulk {
            let limit = u64::from(limits::BULK_BLOCK_BYTES as u32).min(window) as u32;
            let home = Rc::clone(cx.bulk_home());
            cx.push(id, kind::BULK, Op::RecvBulk { fd, home, limit, eager })
        } else {
            cx.push(id, kind::RECV, Op::Recv { fd, limit })
        };
        self.get(id).expect("still here").recv = Some(op);
    }

    #[inline]
    pub(super) fn received(&mut self, cx: &mut Cx<'_>, id: LinkId, completion: Completion) {
        let Some(link) = self.get(id) else { return };
        if !completion.more && !mutant::on(Mutant::MoreIgnored) {
            link.recv = None;
        }
        if link.state == State::Closing {
            if let Ok(Outcome::Received(segment)) = completion.result {
                cx.release(segment);
            }
            return self.try_close(cx, id);
        }
        match completion.result {
            Ok(Outcome::Received(segment)) => {
                self.deliver(cx, id, segment, completion.token.kind())
            }
            Ok(Outcome::Message(message)) => {
                if message.truncated {
                    log::warn!("descriptors from a peer were dropped: too many, or none free here");
                }
                if !message.fds.is_empty() {
                    cx.emit(id, LinkEvent::Descriptors(message.fds));
                }
                self.deliver(cx, id, message.segment, kind::MESSAGE);
            }
            Ok(Outcome::Eof) => {
                link.bits |= bit::READ_OVER;
                cx.emit(id, LinkEvent::Eof);
                if mutant::on(Mutant::EofTwice) {
                    cx.emit(id, LinkEvent::Eof);
                }
            }
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(ECANCELED) => {}
            Err(error) => {
                link.bits |= bit::READ_OVER;
                cx.emit(id, LinkEvent::Failed(Side::Read, error));
            }
        }
        if !completion.more {
            self.adapt(id);
            self.arm(cx, id);
        }
    }

    #[inline]
    fn deliver(&mut self, cx: &mut Cx<'_>, id: LinkId, mut segment: Segment, kind: u8) {
        let Some(link) = self.get(id) else { return };
        let n = segment.len();
        if link.window != u64::MAX {
            link.window = link.window.saturating_sub(n as u64);
        }
        link.got = link.got.saturating_add(n as u32);
        let turn = cx.turn();
        if link.turn != turn {
            (link.turn, link.burst) = (turn, 0);
        }
        link.burst = link.burst.saturating_add(n as u32);
        let full =
            if kind == kind::BULK { limits::BULK_BLOCK_BYTES / 4 } else { limits::BLOCK_BYTES };
        if n < full {
            link.bits |= bit::PART_FILLED;
        }
        let lease = link.lease.get_or_insert_with(|| Lease::new(limits::LEASE_BLOCKS_MAX));
        segment.charge(&Rc::clone(lease));
        cx.emit(id, LinkEvent::Received(segment));
    }

    /// Sets the next arm's limit by how this one was used.
    fn adapt(&mut self, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        if link.bits & bit::BULK != 0 {
            if link.bits & bit::PART_FILLED == 0 {
                link.streak = limits::BULK_AFTER_ARMS;
            } else if link.streak > 0 {
                link.streak -= 1;
            } else {
                link.bits &= !bit::BULK;
                link.arm = limits::ARM_BYTES;
            }
            return;
        }
        if link.got < link.arm {
            (link.arm, link.streak) = (limits::ARM_BYTES, 0);
        } else if link.arm < limits::ARM_BYTES_MAX {
            link.arm *= 2;
        } else if link.burst >= limits::BULK_BURST_BYTES {
            link.streak = link.streak.saturating_add(1);
            if link.streak >= limits::BULK_AFTER_ARMS {
                link.bits |= bit::BULK;
            }
        }
    }

    /// Takes one gathered send's worth from the front of `out`, if none is in flight.
    #[inline]
    pub(super) fn send_front(
        &mut self,
        cx: &mut Cx<'_>,
        id: LinkId,
        out: &mut Evbuffer,
        fds: &mut Vec<Fd>,
    ) {
        let spare = &mut self.spare;
        let Some(link) = self.links.get_mut(id.slot as usize) else { return };
        if link.generation != id.generation || link.state != State::Open {
            return;
        }
        if link.send.is_some() && !mutant::on(Mutant::TwoSends) {
            link.bits |= bit::WANT_WRITABLE;
            return;
        }
        if link.bits & bit::WRITE_OVER != 0 {
            return;
        }
        let Some(fd) = link.fd.clone() else { return };
        let Some(first) = out.pop_front() else { return };
        link.bits |= bit::TOUCHED;
        let op = if first.file().is_some() {
            Op::SendFile { fd, range: first }
        } else {
            let mut rest = spare.pop().unwrap_or_default();
            let mut bytes = first.len();
            while rest.len() + 1 < limits::SEND_PARTS_MAX && bytes < limits::SEND_BYTES_MAX {
                if out.front().is_none_or(|next| next.file().is_some()) {
                    break;
                }
                let Some(next) = out.pop_front() else { break };
                bytes += next.len();
                rest.push(next);
            }
            let parts = Parts { first, rest };
            match fds.is_empty() {
                true => Op::Send { fd, parts },
                false => Op::SendMsg { fd, parts, fds: std::mem::take(fds) },
            }
        };
        if !out.is_empty() {
            link.bits |= bit::WANT_WRITABLE;
        }
        link.send = Some(cx.push(id, kind::SEND, op));
    }

    /// Gives memory back and keeps the emptied list.
    fn release_parts(&mut self, cx: &mut Cx<'_>, parts: Parts) -> usize {
        let Parts { first, mut rest } = parts;
        let mut n = first.len();
        cx.release(first);
        for part in rest.drain(..) {
            n += part.len();
            cx.release(part);
        }
        if rest.capacity() > 0 && self.spare.len() < limits::SPARE_LISTS_MAX {
            self.spare.push(rest);
        }
        n
    }

    #[inline]
    pub(super) fn sent(&mut self, cx: &mut Cx<'_>, id: LinkId, completion: Completion) {
        let (result, parts) = match completion.result {
            Ok(Outcome::Sent(parts)) => (Ok(()), Some(parts)),
            Ok(_) => (Ok(()), None),
            Err(error) => (Err(error), completion.parts.map(|parts| *parts)),
        };
        let bytes = parts.map_or(0, |parts| self.release_parts(cx, parts));
        let Some(link) = self.get(id) else { return };
        link.send = None;
        if link.state == State::Closing {
            if result.is_ok() {
                cx.emit(id, LinkEvent::Sent(bytes));
            }
            return self.try_close(cx, id);
        }
        let wanted = link.bits & bit::WANT_WRITABLE != 0;
        link.bits &= !bit::WANT_WRITABLE;
        match result {
            Ok(()) => cx.emit(id, LinkEvent::Sent(bytes)),
            Err(error) => {
                link.bits |= bit::WRITE_OVER;
                cx.emit(id, LinkEvent::Failed(Side::Write, error));
                return;
            }
        }
        if wanted && !mutant::on(Mutant::WritableForgotten) {
            cx.emit(id, LinkEvent::Writable);
        }
        self.finish_if_sent(cx, id);
    }

    /// The half close that was asked for, once nothing is in flight.
    pub(super) fn finish_if_sent(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        let sent = link.send.is_none() || mutant::on(Mutant::FinishOvertakes);
        let due = link.bits & bit::FINISH != 0 && sent;
        if !due || link.state != State::Open || link.bits & bit::WRITE_OVER != 0 {
            return;
        }
        link.bits |= bit::WRITE_OVER;
        let Some(fd) = link.fd.clone() else { return };
        if fd.kind() != FdKind::Socket {
            // A pipe has one direction: its end is its close.
            link.fd = None;
            return;
        }
        // ENOTCONN: the peer has reset meanwhile; the receive says so.
        let _ = cx.sys().shutdown(&fd, Side::Write);
    }
}
