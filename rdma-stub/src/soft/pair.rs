//! A queue pair of the software device: reliable, connected, in order.
//!
//! ```text
//!   sends:    | flown, waiting for an answer | not yet on the wire |     -> spent -> polled
//!   receives: | posted, the oldest takes the next message          |     -> filled -> polled
//! ```
//!
//! Lost packets and peers that are not ready are met by going back to the oldest unanswered
//! message. Work is *over* when its completion lies in the queue, and its memory is the user's
//! again when that completion was polled.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::verbs::{
    PairNumber, PairShape, Piece, Port, Refusal, Retry, SendRequest, Status, Work, WorkCompletion,
};
use super::queue::Entry;
use super::region::Access;
use super::wire::{Packet, Says, Wire};
use super::{Core, PairState};

struct Send {
    id: u64,
    pieces: Vec<Piece>,
    number: u32,
    signalled: bool,
}

struct Receive {
    id: u64,
    piece: Piece,
}

pub(super) struct Pair {
    number: PairNumber,
    shape: PairShape,
    state: PairState,
    peer: Option<(Port, PairNumber)>,
    retry: Retry,

    sends: VecDeque<Send>,
    flown: usize,
    spent: VecDeque<Vec<Piece>>,
    /// Sends in `spent` that no completion names yet.
    unretired: u32,
    next: u32,
    not_ready_left: u8,
    silence_left: u8,
    paused_until: Option<Duration>,
    silent_at: Option<Duration>,

    receives: VecDeque<Receive>,
    filled: VecDeque<Piece>,
    expected: u32,
    /// The latest answer; it says all that earlier ones did.
    answer: Option<Packet>,
}

impl Pair {
    pub(super) fn new(number: PairNumber, shape: PairShape) -> Pair {
        Pair {
            number,
            shape,
            state: PairState::Receiving,
            peer: None,
            retry: Retry::default(),
            sends: VecDeque::new(),
            flown: 0,
            spent: VecDeque::new(),
            unretired: 0,
            next: 0,
            not_ready_left: 0,
            silence_left: 0,
            paused_until: None,
            silent_at: None,
            receives: VecDeque::new(),
            filled: VecDeque::new(),
            expected: 0,
            answer: None,
        }
    }

    pub(super) fn state(&self) -> PairState {
        self.state
    }

    pub(super) fn queue(&self) -> usize {
        self.shape.queue.0 as usize
    }

    pub(super) fn connect(
        &mut self,
        port: Port,
        peer: PairNumber,
        retry: Retry,
    ) -> Result<(), Refusal> {
        if self.state != PairState::Receiving {
            return Err(Refusal::State);
        }
        self.state = PairState::Ready;
        self.peer = Some((port, peer));
        self.retry = retry;
        self.be_patient();
        Ok(())
    }

    /// The peer got ahead: all tries are there again.
    fn be_patient(&mut self) {
        self.not_ready_left = self.retry.not_ready;
        self.silence_left = self.retry.silence;
    }

    // ---- posting ----

    pub(super) fn post_receive(
        &mut self,
        core: &mut Core,
        id: u64,
        piece: Piece,
    ) -> Result<(), Refusal> {
        if self.receives.len() + self.filled.len() >= self.shape.receives as usize {
            return Err(Refusal::Full);
        }
        core.regions.lock(piece, Access::Writes)?;
        self.receives.push_back(Receive { id, piece });
        if self.state == PairState::Failed {
            self.flush(core, None);
        }
        Ok(())
    }

    pub(super) fn post_send(
        &mut self,
        core: &mut Core,
        request: &SendRequest<'_>,
    ) -> Result<(), Refusal> {
        if self.state == PairState::Receiving {
            return Err(Refusal::State);
        }
        if self.sends.len() + self.spent.len() >= self.shape.sends as usize {
            return Err(Refusal::Full);
        }
        for (i, piece) in request.pieces.iter().enumerate() {
            if let Err(refusal) = core.regions.lock(*piece, Access::Reads) {
                request.pieces[..i].iter().for_each(|p| core.regions.unlock(*p, Access::Reads));
                return Err(refusal);
            }
        }
        let pieces = request.pieces.to_vec();
        let SendRequest { id, signalled, .. } = *request;
        self.sends.push_back(Send { id, pieces, number: self.next, signalled });
        self.next = self.next.wrapping_add(1);
        if self.state == PairState::Failed {
            self.flush(core, None);
        }
        Ok(())
    }

    // ---- the sending half of the hardware ----

    /// Puts on the wire what may go there, and looks at the clock.
    pub(super) fn drive(&mut self, core: &mut Core, wire: &mut dyn Wire) {
        self.send_answer(wire);
        if self.state != PairState::Ready {
            return;
        }
        let now = wire.now();
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.paused_until = None;
        if self.silent_at.is_some_and(|at| now >= at) {
            if self.silence_left == 0 {
                return self.fail(core, Some(Status::SilenceExceeded));
            }
            self.silence_left -= 1;
            core.counters.silence_retries += 1;
            self.flown = 0;
            self.silent_at = None;
        }
        self.transmit(core, wire, now);
    }

    fn transmit(&mut self, core: &mut Core, wire: &mut dyn Wire, now: Duration) {
        let Some((port, to)) = self.peer else { return };
        while let Some(send) = self.sends.get(self.flown) {
            let mut bytes = Vec::new();
            if send.pieces.iter().any(|piece| core.regions.gather(*piece, &mut bytes).is_err()) {
                // Work completes in order: what is before it first.
                if self.flown == 0 {
                    self.fail(core, Some(Status::LocalProtection));
                }
                return;
            }
            let says = Says::Message(bytes);
            let packet = Packet { to, from: self.number, number: send.number, says };
            if wire.put(port, packet).is_err() {
                return;
            }
            self.flown += 1;
            core.counters.messages_sent += 1;
            self.silent_at.get_or_insert(now + self.retry.silence_after);
        }
    }

    /// When the clock matters next.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.state {
            PairState::Ready => self.paused_until.or(self.silent_at),
            _ => None,
        }
    }

    /// Whether it has something for the wire that did not fit.
    pub(super) fn is_held_up(&self) -> bool {
        let unsent = self.state == PairState::Ready && self.flown < self.sends.len();
        self.answer.is_some() || (unsent && self.paused_until.is_none())
    }

    /// An answer of the peer.
    pub(super) fn answered(&mut self, core: &mut Core, number: u32, says: &Says, now: Duration) {
        if self.state != PairState::Ready {
            return;
        }
        let Some(first) = self.sends.front() else { return };
        // One that is about nothing on the wire is old, or made up.
        let at = number.wrapping_sub(first.number) as usize;
        if at >= self.flown {
            return;
        }
        let placed = at + usize::from(*says == Says::Placed);
        for _ in 0..placed {
            self.complete_send(core, Status::Success);
        }
        self.flown -= placed;
        if placed > 0 {
            self.be_patient();
        }
        self.silent_at = (self.flown > 0).then_some(now + self.retry.silence_after);
        match says {
            Says::NotReady if self.not_ready_left == 0 => {
                self.fail(core, Some(Status::NotReadyExceeded));
            }
            Says::NotReady => {
                if self.retry.not_ready != Retry::FOR_EVER {
                    self.not_ready_left -= 1;
                }
                core.counters.not_ready_retries += 1;
                self.flown = 0;
                self.silent_at = None;
                self.paused_until = Some(now + self.retry.not_ready_pause);
            }
            Says::Refused => self.fail(core, Some(Status::RemoteOperation)),
            Says::Placed | Says::Message(_) => {}
        }
    }

    // ---- the receiving half ----

    /// A message of the peer.
    pub(super) fn arrived(&mut self, core: &mut Core, number: u32, bytes: &[u8]) {
        if self.state != PairState::Ready {
            core.counters.dropped += 1;
            return;
        }
        if number != self.expected {
            // An old one came again: its answer was late. A later one: the peer will go back.
            core.counters.dropped += 1;
            if self.expected.wrapping_sub(number) < u32::MAX / 2 {
                self.say(self.expected.wrapping_sub(1), Says::Placed);
            }
            return;
        }
        let Some(receive) = self.receives.pop_front() else {
            core.counters.not_ready_naks += 1;
            return self.say(number, Says::NotReady);
        };
        let Receive { id, piece } = receive;
        let status = match core.regions.check(piece) {
            Err(_) => Status::LocalProtection,
            Ok(()) if bytes.len() > piece.length as usize => Status::LocalLength,
            Ok(()) => Status::Success,
        };
        self.filled.push_back(piece);
        let length = if status == Status::Success { bytes.len() as u32 } else { 0 };
        let completion = self.completion(id, Work::Receive, status, length);
        if status == Status::Success {
            core.regions.place(piece, bytes).expect("it was checked");
            core.counters.messages_received += 1;
            self.expected = self.expected.wrapping_add(1);
            self.say(number, Says::Placed);
        } else {
            self.say(number, Says::Refused);
        }
        core.queues[self.queue()].push(Entry { completion, retires: 0 });
        if status != Status::Success {
            self.fail(core, None);
        }
    }

    fn say(&mut self, number: u32, says: Says) {
        let Some((_, to)) = self.peer else { return };
        self.answer = Some(Packet { to, from: self.number, number, says });
    }

    pub(super) fn send_answer(&mut self, wire: &mut dyn Wire) {
        if let (Some((port, _)), Some(answer)) = (self.peer, self.answer.take()) {
            self.answer = wire.put(port, answer).err();
        }
    }

    pub(super) fn is_peer(&self, port: Port, from: PairNumber) -> bool {
        self.peer == Some((port, from))
    }

    // ---- ends ----

    /// Fails the pair; the oldest send, if it is the reason, completes with `status`.
    pub(super) fn fail(&mut self, core: &mut Core, status: Option<Status>) {
        if self.state != PairState::Failed {
            self.state = PairState::Failed;
            self.flush(core, status);
        }
    }

    fn flush(&mut self, core: &mut Core, mut first: Option<Status>) {
        while !self.sends.is_empty() {
            self.complete_send(core, first.take().unwrap_or(Status::Flushed));
        }
        self.flown = 0;
        while let Some(Receive { id, piece }) = self.receives.pop_front() {
            self.filled.push_back(piece);
            let completion = self.completion(id, Work::Receive, Status::Flushed, 0);
            core.queues[self.queue()].push(Entry { completion, retires: 0 });
        }
    }

    fn complete_send(&mut self, core: &mut Core, status: Status) {
        let send = self.sends.pop_front().expect("the caller has seen it");
        self.spent.push_back(send.pieces);
        self.unretired += 1;
        if send.signalled || status != Status::Success {
            let completion = self.completion(send.id, Work::Send, status, 0);
            let retires = std::mem::take(&mut self.unretired);
            core.queues[self.queue()].push(Entry { completion, retires });
        }
    }

    fn completion(&self, id: u64, work: Work, status: Status, bytes: u32) -> WorkCompletion {
        WorkCompletion { id, pair: self.number, work, status, bytes }
    }

    /// A completion was polled: what it names is the user's again.
    pub(super) fn polled(&mut self, core: &mut Core, entry: &Entry) {
        match entry.completion.work {
            Work::Send => (0..entry.retires).for_each(|_| self.retire(core)),
            Work::Receive => {
                let piece = self.filled.pop_front().expect("a completion has its receive");
                core.regions.unlock(piece, Access::Writes);
            }
        }
    }

    fn retire(&mut self, core: &mut Core) {
        let pieces = self.spent.pop_front().expect("a completion has its sends");
        pieces.into_iter().for_each(|piece| core.regions.unlock(piece, Access::Reads));
    }

    /// Whether everything that was posted was polled, but for unsignalled sends that went well.
    pub(super) fn is_idle(&self) -> bool {
        let sends = self.sends.is_empty() && self.spent.len() == self.unretired as usize;
        sends && self.receives.is_empty() && self.filled.is_empty()
    }

    /// Takes everything back without completions: the pair or its device is gone.
    pub(super) fn abandon(&mut self, core: &mut Core) {
        self.state = PairState::Failed;
        while !self.spent.is_empty() {
            self.retire(core);
        }
        let sends = self.sends.drain(..).flat_map(|send| send.pieces);
        sends.for_each(|piece| core.regions.unlock(piece, Access::Reads));
        let receives = self.receives.drain(..).map(|receive| receive.piece);
        let receives = receives.chain(self.filled.drain(..));
        receives.for_each(|piece| core.regions.unlock(piece, Access::Writes));
        (self.flown, self.unretired) = (0, 0);
    }
}
