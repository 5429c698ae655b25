//! Bytes and words to the peer.

use std::io;

use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::fd::Fd;
use ringlane_api::reactor::Side;
use ringlane_api::segment::Segment;
use ringlane_api::transport::LinkEvent;

use super::{Fault, Flight, Link, Phase, SEND, Scope, Word};
use crate::message::{HEADER_BYTES, Header, Kind};
use crate::verbs::{Refusal, SendRequest, Status, WorkCompletion};

/// Reads a range of a file into memory; fewer bytes at its end.
pub type FileRead<'a> = dyn FnMut(&Fd, u64, &mut [u8]) -> io::Result<usize> + 'a;

impl Link {
    /// Takes from the front of `out` what credit and free slots allow. Memory of the user that is
    /// not needed any more goes to `dead`.
    pub fn send(
        &mut self,
        scope: &mut Scope<'_>,
        out: &mut Evbuffer,
        file: &mut FileRead<'_>,
        dead: &mut Vec<Segment>,
    ) {
        if self.phase != Phase::Open || self.write_over || out.is_empty() {
            return;
        }
        if self.peer_gone {
            return self.fail_write(scope, io::ErrorKind::BrokenPipe.into());
        }
        while !out.is_empty() {
            if !self.can_send() {
                self.wants_writable = true;
                return;
            }
            let n = match self.fill(scope, out, file) {
                Ok(n) => n,
                Err(error) => return self.fail_write(scope, error),
            };
            match self.post_data(scope, n, n == out.len()) {
                Ok(()) => {
                    out.drain_into(n, dead);
                }
                // The device is the judge of its queue; a completion makes room.
                Err(Refusal::Full) if !self.in_flight.is_empty() => {
                    self.wants_writable = true;
                    return;
                }
                Err(refusal) => return self.broke(scope, Fault::Refused(refusal)),
            }
        }
    }

    fn can_send(&self) -> bool {
        self.outward.left() > 0 && !self.data_slots.is_empty()
    }

    /// Copies the front of `out` into the next free slot.
    fn fill(
        &mut self,
        scope: &mut Scope<'_>,
        out: &Evbuffer,
        file: &mut FileRead<'_>,
    ) -> io::Result<usize> {
        let slot = *self.data_slots.last().expect("the caller has looked");
        let piece = self.piece(slot, HEADER_BYTES as u32, self.payload_max);
        let memory = scope.verbs.memory_mut(piece)?;
        let Some((fd, offset, length)) = out.front().and_then(Segment::file) else {
            return Ok(out.copyout(memory));
        };
        let most = memory.len().min(length as usize);
        match file(fd, offset, &mut memory[..most])? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ended early")),
            n => Ok(n),
        }
    }

    fn post_data(&mut self, scope: &mut Scope<'_>, n: usize, empties: bool) -> Result<(), Refusal> {
        // The last message before we stop is signalled, else nothing would ever retire it; and
        // every so many, so that slots come back before they run out.
        let stops = empties || self.outward.left() == 1 || self.data_slots.len() == 1;
        let signalled = stops || (self.unsignalled + 1) * 4 >= self.shape.sends;
        let slot = *self.data_slots.last().expect("the caller has looked");
        self.post(scope, Kind::Data, slot, n, signalled)?;
        self.data_slots.pop();
        self.outward.spend();
        self.unsignalled = if signalled { 0 } else { self.unsignalled + 1 };
        Ok(())
    }

    fn post(
        &mut self,
        scope: &mut Scope<'_>,
        kind: Kind,
        slot: u32,
        payload: usize,
        signalled: bool,
    ) -> Result<(), Refusal> {
        let (length, sequence) = (payload as u32, self.sequence);
        let header = Header { kind, length, sequence, credit: self.inward.total() };
        let front = self.piece(slot, 0, HEADER_BYTES as u32);
        scope.verbs.memory_mut(front)?.copy_from_slice(&header.encode());
        let id = SEND | u64::from(slot);
        let pieces = [self.piece(slot, 0, HEADER_BYTES as u32 + length)];
        scope.verbs.post_send(self.pair, &SendRequest { id, pieces: &pieces, signalled })?;
        self.sequence = self.sequence.wrapping_add(1);
        self.inward.announced();
        self.in_flight.push_back(Flight { id, kind, bytes: payload });
        Ok(())
    }

    /// Says what is due: credit, the end, goodbye. Once per turn, after data had its chance to
    /// carry the credit.
    pub fn flush(&mut self, scope: &mut Scope<'_>) {
        if !matches!(self.phase, Phase::Open | Phase::Leaving) || self.peer_gone {
            return;
        }
        let said = match (self.goodbye, self.finish) {
            (Word::Wanted, _) => self.say(scope, Kind::Goodbye),
            (Word::Posted, _) => Ok(()),
            (Word::Unsaid, Word::Wanted) => self.say(scope, Kind::Finish),
            (Word::Unsaid, _) if self.inward.owes() => self.say(scope, Kind::Credit),
            (Word::Unsaid, _) => Ok(()),
        };
        if let Err(refusal) = said {
            self.broke(scope, Fault::Refused(refusal));
        }
    }

    /// Says a word if a slot for it is free; else a completion asks again.
    fn say(&mut self, scope: &mut Scope<'_>, kind: Kind) -> Result<(), Refusal> {
        let Some(slot) = self.control_slots.last().copied() else { return Ok(()) };
        self.post(scope, kind, slot, 0, true)?;
        self.control_slots.pop();
        match kind {
            Kind::Goodbye => self.goodbye = Word::Posted,
            Kind::Finish => self.finish = Word::Posted,
            Kind::Credit | Kind::Data => {}
        }
        Ok(())
    }

    /// A send is over, and the unsignalled ones before it.
    pub(super) fn sent(&mut self, scope: &mut Scope<'_>, completion: &WorkCompletion) {
        let success = completion.status == Status::Success;
        let (mut bytes, mut said_goodbye) = (0, false);
        while let Some(flight) = self.in_flight.pop_front() {
            self.give_slot_back(&flight);
            let last = flight.id == completion.id;
            if !last || success {
                bytes += flight.bytes;
                said_goodbye |= flight.kind == Kind::Goodbye;
            }
            if last {
                break;
            }
        }
        if bytes > 0 {
            scope.events.push(LinkEvent::Sent(bytes));
        }
        if !success {
            return self.broke(scope, Fault::of(completion.status));
        }
        if said_goodbye {
            return self.drain(scope);
        }
        self.writable(scope);
    }

    fn give_slot_back(&mut self, flight: &Flight) {
        let slot = (flight.id & !SEND) as u32;
        match flight.kind {
            Kind::Data => self.data_slots.push(slot),
            Kind::Credit | Kind::Finish | Kind::Goodbye => self.control_slots.push(slot),
        }
    }

    pub(super) fn writable(&mut self, scope: &mut Scope<'_>) {
        let open = self.phase == Phase::Open && !self.write_over;
        if open && self.wants_writable && self.can_send() {
            self.wants_writable = false;
            scope.events.push(LinkEvent::Writable);
        }
    }

    pub(super) fn fail_write(&mut self, scope: &mut Scope<'_>, error: io::Error) {
        if !self.write_over {
            self.write_over = true;
            scope.events.push(LinkEvent::Failed(Side::Write, error));
        }
    }
}
