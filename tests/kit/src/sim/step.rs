//! One step of one op: what the kernel would do for it now.

use std::io;
use std::sync::atomic::Ordering;

use ringlane_api::fd::Fd;
use ringlane_api::reactor::{Message, Op, OpId, Outcome, Ready, SockName};
use ringlane_api::segment::{Parts, Segment};

use super::desc::{DescId, Passed, What};
use super::fault::Fault;
use super::files;
use super::names::{errno, os};
use super::reactor::SimReactor;
use super::socket::Read;
use super::world::State;

/// Bytes the kernel takes in one step.
const TAKE_MAX: usize = 256 * 1024;

/// Longest silence before an unanswered connect is given up.
const UNANSWERED_NANOS: u64 = 60_000_000_000;

/// Latest news of a ring.
const WAKE_LATE_NANOS: u64 = 3_000_000;

/// What a step came to.
pub(super) enum Step {
    /// Nothing yet.
    Idle,
    /// A result, and the op stays armed.
    More(Outcome),
    /// The last result, with the memory of a send that failed.
    Last(io::Result<Outcome>, Option<Box<Parts>>),
}

impl Step {
    pub fn done() -> Step {
        Step::Last(Ok(Outcome::Done), None)
    }

    fn ok(outcome: Outcome) -> Step {
        Step::Last(Ok(outcome), None)
    }

    fn errno(errno: i32) -> Step {
        Step::Last(Err(os(errno)), None)
    }

    fn multishot(outcome: Outcome, over: bool) -> Step {
        if over { Step::ok(outcome) } else { Step::More(outcome) }
    }
}

impl SimReactor {
    /// One step of an op that is not held back.
    pub(super) fn advance(&mut self, id: OpId) -> Step {
        let Some(flight) = self.flights.get(id) else { return Step::Idle };
        let number = flight.fd().map(Fd::number);
        let desc = number.and_then(|number| self.world.state().table.id(number));
        let Some(flight) = self.flights.get(id) else { return Step::Idle };
        match (&flight.op, desc) {
            (Op::Nop, _) => Step::done(),
            (Op::Resolve { .. }, _) => self.resolve(id),
            (Op::FutexWait { .. }, _) => self.futex(id),
            (_, None) => {
                let parts = self.take_parts(id);
                Step::Last(Err(os(errno::EBADF)), parts)
            }
            (Op::Poll { .. }, Some(desc)) => self.poll(id, desc),
            (Op::Accept { .. }, Some(desc)) => self.accept(id, desc),
            (Op::Connect { .. }, Some(desc)) => self.connect(id, desc),
            (Op::Recv { .. } | Op::RecvBulk { .. } | Op::RecvMsg { .. }, Some(desc)) => {
                self.receive(id, desc)
            }
            (Op::Send { .. } | Op::SendMsg { .. } | Op::SendFile { .. }, Some(desc)) => {
                self.send(id, desc)
            }
            (Op::Close { .. }, _) => Step::Idle,
        }
    }

    fn resolve(&mut self, id: OpId) -> Step {
        let mut state = self.world.state();
        let Some(flight) = self.flights.get(id) else { return Step::Idle };
        let Op::Resolve { host, port } = &flight.op else { return Step::Idle };
        if !std::mem::replace(&mut flight.started, true) {
            flight.not_before = state.clock + state.latency();
            return Step::Idle;
        }
        Step::Last(state.resolve(host, *port).map(Outcome::Addresses), None)
    }

    /// Asleep from the first step on, if the word lets it; awake when the word was rung since.
    fn futex(&mut self, id: OpId) -> Step {
        let mut state = self.world.state();
        let Some(flight) = self.flights.get(id) else { return Step::Idle };
        let Op::FutexWait { word, expected } = &flight.op else { return Step::Idle };
        let rung = state.rings.get(&word.place()).copied().unwrap_or_default();
        if !std::mem::replace(&mut flight.started, true) {
            flight.seen.0 = rung;
            let sleeps = word.word().load(Ordering::SeqCst) == *expected;
            return if sleeps { Step::Idle } else { Step::done() };
        }
        if flight.seen.0 != rung {
            if flight.reported == 0 && state.strikes(Fault::WakeLate) {
                // Once, or it would never hear of it.
                flight.reported = 1;
                flight.not_before = state.clock + state.rng.between(1_000, WAKE_LATE_NANOS);
                return Step::Idle;
            }
            return Step::done();
        }
        if state.strikes(Fault::WakeSpurious) { Step::done() } else { Step::Idle }
    }

    fn poll(&mut self, id: OpId, desc: DescId) -> Step {
        let turn = self.counters.turns;
        let mut state = self.world.state();
        let Some(flight) = self.flights.get(id) else { return Step::Idle };
        let Op::Poll { ready, multishot, edge, .. } = flight.op else { return Step::Idle };
        let (found, news) = state.readiness(desc);
        let mut report = found & (ready | Ready::HANGUP);
        if multishot && edge {
            if news.0 == flight.seen.0 {
                report = report.without(Ready::READ);
            }
            if news.1 == flight.seen.1 {
                report = report.without(Ready::WRITE);
            }
            if news == flight.seen {
                report = Ready::NONE;
            }
        } else if flight.undelivered > 0 || flight.reported == turn {
            return Step::Idle;
        }
        if report.is_none() {
            return Step::Idle;
        }
        flight.seen = news;
        flight.reported = turn;
        let early = multishot && state.strikes(Fault::EndedEarly);
        Step::multishot(Outcome::Ready(report), !multishot || early)
    }

    fn accept(&mut self, id: OpId, desc: DescId) -> Step {
        let mut state = self.world.state();
        let Some(listener) = state.table.listener(desc) else { return Step::errno(errno::EINVAL) };
        if listener.queue.is_empty() {
            return Step::Idle;
        }
        if !state.table.has_room(1) || state.strikes(Fault::NoDescriptor) {
            return Step::errno(errno::EMFILE);
        }
        let listener = state.table.listener(desc).expect("it was listening above");
        let accepted = listener.queue.pop_front().expect("its queue was not empty above");
        let fd = self.world.open(&mut state, accepted);
        state.release(accepted);
        let Some(fd) = fd else { return Step::errno(errno::EMFILE) };
        let Some(flight) = self.flights.get(id) else { return Step::Idle };
        let Op::Accept { limit, .. } = flight.op else { return Step::Idle };
        flight.progress += 1;
        let over = flight.progress >= u64::from(limit) || state.strikes(Fault::EndedEarly);
        Step::multishot(Outcome::Accepted(fd), over)
    }

    fn connect(&mut self, id: OpId, desc: DescId) -> Step {
        let mut state = self.world.state();
        let Some(flight) = self.flights.get(id) else { return Step::Idle };
        let Op::Connect { to, .. } = &flight.op else { return Step::Idle };
        if !std::mem::replace(&mut flight.started, true)
            && let Err(errno) = state.knock_with_faults(desc, to)
        {
            return Step::errno(errno);
        }
        match state.connected(desc) {
            Some(Ok(())) => Step::done(),
            Some(Err(errno)) => Step::errno(errno),
            None => {
                flight.not_before = state.opens_at(desc).unwrap_or(0);
                Step::Idle
            }
        }
    }

    fn receive(&mut self, id: OpId, desc: DescId) -> Step {
        let mut state = self.world.state();
        let Some(flight) = self.flights.get(id) else { return Step::Idle };
        let Some(end) = state.table.end(desc) else { return Step::errno(errno::ENOTCONN) };
        if !end.readable() {
            return Step::Idle;
        }
        let arrived = end.rx_bytes;
        let pooled = !matches!(flight.op, Op::RecvBulk { .. });
        if arrived > 0 && pooled {
            // Parked without a timer: blocks come home between turns, or with what is due.
            if self.home.out() >= state.setup.blocks_max {
                self.counters.enobufs += u64::from(!std::mem::replace(&mut flight.started, true));
                return Step::Idle;
            }
            flight.started = false;
            if state.strikes(Fault::NoBlock) {
                self.counters.enobufs += 1;
                flight.not_before = state.clock + state.rng.between(1_000, 200_000);
                return Step::Idle;
            }
        }
        let left = match &flight.op {
            Op::Recv { limit, .. } => u64::from(*limit).saturating_sub(flight.progress),
            Op::RecvBulk { limit, .. } | Op::RecvMsg { limit, .. } => u64::from(*limit),
            _ => return Step::Idle,
        };
        let mut block = match std::mem::replace(&mut flight.op, Op::Nop) {
            Op::RecvBulk { fd, home, limit, .. } => {
                flight.op = Op::Recv { fd, limit };
                if home.may_take() { home.take() } else { self.home.take() }
            }
            other => {
                flight.op = other;
                self.home.take()
            }
        };
        // A pooled receive may go over its limit by less than one block.
        let whole = pooled && matches!(flight.op, Op::Recv { .. }) && state.rng.chance(300);
        let cap = block.bytes().len().min(if whole { usize::MAX } else { left as usize });
        let mut wanted = cap;
        if arrived > 1 && state.strikes(Fault::ShortReceive) {
            wanted = state.rng.between(1, arrived.min(cap) as u64) as usize;
        }
        let with_fds = matches!(flight.op, Op::RecvMsg { .. });
        let (n, passed) = match state.read(desc, &mut block.bytes_mut()[..wanted], with_fds) {
            Ok(Read::Bytes(n, passed)) => (n, passed),
            Ok(Read::Eof) => return Step::ok(Outcome::Eof),
            Ok(Read::Nothing) => return Step::Idle,
            Err(errno) => return Step::errno(errno),
        };
        let segment = Segment::from_block(block, n);
        if with_fds {
            let (fds, truncated) = self.world.install(&mut state, passed);
            return Step::ok(Outcome::Message(Box::new(Message { segment, fds, truncated })));
        }
        flight.progress += n as u64;
        let over = !pooled || n as u64 >= left || state.strikes(Fault::EndedEarly);
        Step::multishot(Outcome::Received(segment), over)
    }

    fn send(&mut self, id: OpId, desc: DescId) -> Step {
        let room = self.world.state().room(desc);
        match room {
            Err(errno) => {
                let parts = self.take_parts(id);
                return Step::Last(Err(os(errno)), parts);
            }
            Ok(0) => {
                self.world.state().starve(desc);
                return Step::Idle;
            }
            Ok(room) => {
                if let Err(error) = self.send_some(id, desc, room) {
                    let parts = self.take_parts(id);
                    return Step::Last(Err(error), parts);
                }
            }
        }
        let Some(flight) = self.flights.get(id) else { return Step::Idle };
        if flight.progress < send_len(&flight.op) {
            return Step::Idle;
        }
        let parts = self.take_parts(id).expect("a send has its memory until it is over");
        Step::ok(Outcome::Sent(*parts))
    }

    /// Moves what fits from an op onto the wire.
    fn send_some(&mut self, id: OpId, desc: DescId, room: usize) -> io::Result<()> {
        let mut state = self.world.state();
        let Some(flight) = self.flights.get(id) else { return Ok(()) };
        if state.strikes(Fault::Reset) {
            state.break_connection(desc);
        }
        let left = send_len(&flight.op) - flight.progress;
        if left == 0 {
            return Ok(());
        }
        let mut n = left.min(room.min(TAKE_MAX) as u64) as usize;
        if n > 1 && state.strikes(Fault::ShortSend) {
            n = state.rng.between(1, n as u64 - 1) as usize;
            flight.not_before = state.clock + state.rng.between(1_000, 100_000);
        }
        let first = flight.progress == 0;
        let bytes = copy_range(&flight.op, flight.progress, n)?;
        let passed = match &mut flight.op {
            Op::SendMsg { fds, .. } if first => state.pass(fds),
            _ => Vec::new(),
        };
        flight.progress += bytes.len() as u64;
        if flight.progress < send_len(&flight.op) {
            self.counters.short_sends += 1;
        }
        state.write(desc, bytes, passed);
        Ok(())
    }
}

/// Bytes a send is to move.
fn send_len(op: &Op) -> u64 {
    match op {
        Op::Send { parts, .. } | Op::SendMsg { parts, .. } => parts.len() as u64,
        Op::SendFile { range, .. } => range.len() as u64,
        _ => 0,
    }
}

/// `n` bytes of a send from `skip` on.
fn copy_range(op: &Op, skip: u64, n: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(n);
    match op {
        Op::Send { parts, .. } | Op::SendMsg { parts, .. } => {
            let mut skip = skip as usize;
            for part in parts.iter() {
                let part = part.bytes();
                let from = skip.min(part.len());
                skip -= from;
                let take = (part.len() - from).min(n - bytes.len());
                bytes.extend_from_slice(&part[from..from + take]);
            }
        }
        Op::SendFile { range, .. } => {
            let (file, offset, _) = range.file().ok_or_else(|| os(errno::EINVAL))?;
            bytes.resize(n, 0);
            let got = files::read_at(file, offset + skip, &mut bytes)?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.truncate(got);
        }
        _ => {}
    }
    Ok(bytes)
}

impl State {
    /// What a poll finds, and the news counters behind it.
    fn readiness(&mut self, desc: DescId) -> (Ready, (u64, u64)) {
        let writable = self.table.end(desc).is_some() && !matches!(self.room(desc), Ok(0));
        let mut ready = Ready::NONE;
        let mut news = (0, 0);
        match self.table.descs.get(&desc).map(|desc| &desc.what) {
            Some(What::End(end)) => {
                if end.readable() {
                    ready |= Ready::READ;
                }
                if writable {
                    ready |= Ready::WRITE;
                }
                if end.reset || (end.eof && end.shut_write) {
                    ready |= Ready::HANGUP;
                }
                news = (end.read_news, end.write_news);
            }
            Some(What::Listener(listener)) => {
                if !listener.queue.is_empty() {
                    ready |= Ready::READ;
                }
                news.0 = listener.arrivals;
            }
            Some(What::Signal { pending, .. }) => {
                if *pending > 0 {
                    ready |= Ready::READ;
                }
                news.0 = *pending;
            }
            Some(What::Event { rung }) => {
                if *rung > 0 {
                    ready |= Ready::READ;
                }
                news.0 = *rung;
            }
            Some(What::Process { ended }) => {
                if *ended {
                    ready |= Ready::READ;
                }
                news.0 = u64::from(*ended);
            }
            Some(What::Fresh(_)) | None => {}
        }
        (ready, news)
    }

    /// A connect's first step, if nothing goes wrong with it.
    fn knock_with_faults(&mut self, desc: DescId, to: &SockName) -> Result<(), i32> {
        use super::wire::Parcel;
        let clock = self.clock;
        if self.strikes(Fault::Refused) {
            let at = clock + self.latency();
            self.wire.post(at, Parcel::Refusal(desc, errno::ECONNREFUSED));
            return Ok(());
        }
        if matches!(to, SockName::Inet(_)) && self.strikes(Fault::Unanswered) {
            let at = clock + self.rng.between(1_000_000, UNANSWERED_NANOS);
            self.wire.post(at, Parcel::Refusal(desc, errno::ETIMEDOUT));
            return Ok(());
        }
        self.start_connecting(desc, to)
    }

    /// Descriptors become part of a message.
    fn pass(&mut self, fds: &mut Vec<Fd>) -> Vec<Passed> {
        let mut passed = Vec::with_capacity(fds.len());
        for fd in fds.drain(..) {
            if fd.as_os().is_some() {
                passed.push(Passed::Real(fd));
            } else if let Some(id) = self.table.id(fd.number()) {
                self.table.hold(id);
                passed.push(Passed::Virtual(id));
            }
        }
        passed
    }
}
