//! Messages of the peer.

use std::io;

use ringlane_api::mutant::{self, Mutant};
use ringlane_api::reactor::Side;
use ringlane_api::segment::Segment;
use ringlane_api::transport::LinkEvent;

use super::{Fault, Held, Link, Phase, Scope};
use crate::message::{HEADER_BYTES, Header, Kind, Violation};
use crate::verbs::{Status, WorkCompletion};

impl Link {
    pub(super) fn received(&mut self, scope: &mut Scope<'_>, completion: &WorkCompletion) {
        self.posted -= 1;
        if completion.status != Status::Success {
            return self.broke(scope, Fault::of(completion.status));
        }
        if !matches!(self.phase, Phase::Open | Phase::Leaving) {
            return;
        }
        let slot = completion.id as u32;
        if let Err(fault) = self.message(scope, slot, completion.bytes) {
            return self.broke(scope, fault);
        }
        if self.phase == Phase::Leaving && self.peer_gone {
            // Both said goodbye; the peer may be gone before it takes ours.
            return self.drain(scope);
        }
        self.deliver(scope);
        self.writable(scope);
    }

    /// Checks a message, all of it, before anything in it is used.
    fn message(&mut self, scope: &mut Scope<'_>, slot: u32, bytes: u32) -> Result<(), Fault> {
        let piece = self.piece(slot, 0, bytes);
        let header = {
            let message = scope.verbs.memory(piece).map_err(Fault::Refused)?;
            Header::decode(message).map_err(Fault::Peer)?
        };
        if header.sequence != self.expected {
            return Err(Fault::Peer(Violation::Sequence));
        }
        self.expected = self.expected.wrapping_add(1);
        let past_end = match header.kind {
            Kind::Data | Kind::Finish => self.peer_finished,
            Kind::Credit | Kind::Goodbye => self.peer_gone,
        };
        if past_end {
            return Err(Fault::Peer(Violation::AfterEnd));
        }
        let step = self.outward.raise(header.credit).map_err(Fault::Peer)?;
        match header.kind {
            Kind::Data => {
                self.inward.arrived().map_err(Fault::Peer)?;
                if mutant::on(Mutant::RdmaCreditEarly) {
                    self.inward.consumed();
                }
                if self.phase == Phase::Open || mutant::on(Mutant::RdmaDeadDelivered) {
                    let (offset, length) = (HEADER_BYTES as u32, header.length);
                    self.held.push_back(Held { slot, offset, length });
                }
                return Ok(());
            }
            // With this a peer can say no more words than we send it messages.
            Kind::Credit if step == 0 => return Err(Fault::Peer(Violation::Credit)),
            Kind::Credit => {}
            Kind::Finish => self.peer_finished = true,
            Kind::Goodbye => {
                (self.peer_finished, self.peer_gone) = (true, true);
                if self.wants_writable {
                    self.fail_write(scope, io::ErrorKind::ConnectionReset.into());
                }
            }
        }
        self.post_receive(scope.verbs, slot).map_err(Fault::Refused)
    }

    /// Sets how many more bytes the reader takes; see `Transport::grant`.
    pub fn grant(&mut self, scope: &mut Scope<'_>, bytes: u64) {
        self.allowance = bytes;
        self.deliver(scope);
        self.settle(scope);
    }

    /// Gives the reader what it allows, and behind the last byte the end.
    pub(super) fn deliver(&mut self, scope: &mut Scope<'_>) {
        let left = mutant::on(Mutant::RdmaDeadDelivered) && self.phase == Phase::Leaving;
        if !matches!(self.phase, Phase::Open | Phase::Broken) && !left {
            return;
        }
        while self.allowance > 0 && !self.held.is_empty() {
            if let Err(fault) = self.deliver_one(scope) {
                self.held.clear();
                return self.broke(scope, fault);
            }
        }
        let overtakes = mutant::on(Mutant::RdmaEndOvertakes) && self.peer_finished;
        if (!self.held.is_empty() && !overtakes) || self.read_over {
            return;
        }
        if self.peer_finished {
            if self.allowance > 0 || overtakes {
                self.read_over = true;
                scope.events.push(LinkEvent::Eof);
            }
        } else if let (Phase::Broken, Some(fault)) = (self.phase, self.fault) {
            self.read_over = true;
            scope.events.push(LinkEvent::Failed(Side::Read, fault.error()));
        }
    }

    /// One block of the oldest message; when it is all taken, its receive is posted again and its
    /// credit goes back.
    fn deliver_one(&mut self, scope: &mut Scope<'_>) -> Result<(), Fault> {
        let Some(Held { slot, offset, length }) = self.held.front().map(|held| Held { ..*held })
        else {
            return Ok(());
        };
        let most = u64::from(length).min(scope.home.block_bytes() as u64);
        let n = most.min(self.allowance) as u32;
        let mut block = scope.home.take();
        let piece = self.piece(slot, offset, n);
        let bytes = scope.verbs.memory(piece).map_err(Fault::Refused)?;
        block.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        let mut segment = Segment::from_block(block, n as usize);
        segment.charge(&self.lease);
        if self.allowance != u64::MAX {
            self.allowance -= u64::from(n);
        }
        scope.events.push(LinkEvent::Received(segment));
        if n < length {
            let front = self.held.front_mut().expect("it is still there");
            (front.offset, front.length) = (offset + n, length - n);
            return Ok(());
        }
        self.held.pop_front();
        if self.phase == Phase::Open {
            // Posted first: a credit is a promise that a receive is there.
            if !mutant::on(Mutant::RdmaPromisedUnposted) {
                self.post_receive(scope.verbs, slot).map_err(Fault::Refused)?;
            }
            if !mutant::on(Mutant::RdmaCreditEarly) {
                self.inward.consumed();
            }
        }
        Ok(())
    }
}
