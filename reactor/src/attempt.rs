//! The readiness executor: one pending op, tried with calls that do not wait.
//!
//! Both engines use it: epoll for everything, uring for what it does not do in the ring. An
//! attempt makes one system call (`EINTR` apart), so that whoever drives it decides how much one
//! descriptor gets before the next has its turn.
//!
//! Invariant: the op stays whole in [`Pending`] until its last step; how far it came is in
//! `progress` and never in the segments, so that the memory comes back as it was given.

use std::io;
use std::rc::Rc;

use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::limits;
use ringlane_api::reactor::{Completion, Counters, Message, Op, Outcome, Ready, Token};
use ringlane_api::segment::{Home, Parts, Segment};
use socket2::SockAddr;

use crate::sys;

/// Bytes of a file handed to the kernel in one call; more would let one descriptor hold the loop.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Connections lost between the handshake and us that one attempt skips.
const ABORTED_MAX: u32 = 16;

/// An op on its way.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The op.
    pub(crate) op: Op,
    /// Bytes sent or received, or connections accepted, so far.
    pub(crate) progress: u64,
    /// The descriptor is a Unix socket: a read there may end early without being at the end.
    pub(crate) unix: bool,
    /// After a step that read: the call returned less than there was room for, so that nothing
    /// more is waiting.
    pub(crate) drained: bool,
}

/// What one attempt came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// A result; the op stays armed.
    More(Outcome),
    /// The last result.
    Last(io::Result<Outcome>),
    /// Progress, but not done: ask again soon.
    Again,
    /// All bulk blocks are with others: ask again when those ahead have had their turn.
    Queued,
    /// Nothing moves until this readiness comes.
    Blocked(Ready),
    /// Nothing moves, and no readiness will tell (the backlog of a Unix listener is full): ask
    /// again later.
    Later,
}

/// What an attempt takes from its engine.
pub(crate) struct Kit<'a> {
    /// Where received bytes go.
    pub(crate) home: &'a Rc<Home>,
    /// Where calls are counted.
    pub(crate) counters: &'a mut Counters,
    /// This send takes one byte only (a played fault).
    pub(crate) short: bool,
    /// The turn before this one had something to report: memory that is out may come home soon.
    pub(crate) busy: bool,
}

fn blocked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Pending {
    /// An op that nothing was done for yet.
    pub(crate) fn new(op: Op) -> Pending {
        Pending { op, progress: 0, unix: false, drained: false }
    }

    /// The descriptor it works on.
    pub(crate) fn fd(&self) -> Option<&Fd> {
        match &self.op {
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

    /// Tries it once.
    pub(crate) fn attempt(&mut self, kit: &mut Kit<'_>) -> Step {
        self.drained = false;
        kit.counters.syscalls += 1;
        match &self.op {
            Op::Accept { .. } => self.accept(kit),
            Op::Connect { .. } => self.connect(),
            Op::Recv { .. } => self.recv(kit),
            Op::RecvBulk { .. } => self.recv_bulk(kit),
            Op::RecvMsg { .. } => self.recv_message(kit),
            Op::Send { .. } | Op::SendMsg { .. } => self.send(kit),
            Op::SendFile { .. } => self.send_file(kit),
            Op::Nop
            | Op::Poll { .. }
            | Op::FutexWait { .. }
            | Op::Resolve { .. }
            | Op::Close { .. } => {
                unreachable!("`{}` is not tried but answered by its engine", self.op.name())
            }
        }
    }

    /// Its last completion. The memory of a send that failed goes with it.
    pub(crate) fn end(self, token: Token, result: io::Result<Outcome>) -> Completion {
        let parts = match (&result, self.op) {
            (Err(_), Op::Send { parts, .. } | Op::SendMsg { parts, .. }) => Some(Box::new(parts)),
            (Err(_), Op::SendFile { range, .. }) => {
                Some(Box::new(Parts { first: range, rest: Vec::new() }))
            }
            _ => None,
        };
        Completion { token, result, more: false, parts }
    }

    fn accept(&mut self, kit: &mut Kit<'_>) -> Step {
        let Op::Accept { fd, limit } = &self.op else { unreachable!("called for an accept") };
        for _ in 0..ABORTED_MAX {
            match sys::accept(fd) {
                Ok(made) => {
                    self.progress += 1;
                    let outcome = Outcome::Accepted(made);
                    if self.progress >= u64::from(*limit) {
                        return Step::Last(Ok(outcome));
                    }
                    return Step::More(outcome);
                }
                Err(error) if blocked(&error) => {
                    self.drained = true;
                    return Step::Blocked(Ready::READ);
                }
                Err(error) => match error.raw_os_error() {
                    // The connection died before we took it (accept(2)); the next may live.
                    Some(
                        libc::ECONNABORTED
                        | libc::EPROTO
                        | libc::ENETDOWN
                        | libc::ENOPROTOOPT
                        | libc::EHOSTDOWN
                        | libc::ENONET
                        | libc::EHOSTUNREACH
                        | libc::ENETUNREACH
                        | libc::EPERM,
                    ) => kit.counters.syscalls += 1,
                    _ => return Step::Last(Err(error)),
                },
            }
        }
        Step::Again
    }

    fn connect(&mut self) -> Step {
        let Op::Connect { fd, to } = &self.op else { unreachable!("called for a connect") };
        let address: SockAddr = match sys::to_kernel(to) {
            Ok(address) => address,
            Err(error) => return Step::Last(Err(error)),
        };
        let first = self.progress == 0;
        self.progress = 1;
        match sys::connect(fd, &address) {
            Ok(()) => Step::Last(Ok(Outcome::Done)),
            Err(error) => match error.raw_os_error() {
                Some(libc::EISCONN) if !first => Step::Last(Ok(Outcome::Done)),
                Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => {
                    Step::Blocked(Ready::WRITE)
                }
                // A Unix listener whose backlog is full says so once and wakes nobody later.
                Some(libc::EAGAIN) if sys::is_unix(fd) => {
                    self.progress = 0;
                    Step::Later
                }
                _ => Step::Last(Err(error)),
            },
        }
    }

    fn recv(&mut self, kit: &mut Kit<'_>) -> Step {
        let Op::Recv { fd, limit } = &self.op else { unreachable!("called for a receive") };
        let left = u64::from(*limit).saturating_sub(self.progress).max(1);
        let mut block = kit.home.take();
        let room = block.bytes().len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match read(fd, &mut block.bytes_mut()[..room], self.unix) {
            Ok((0, _)) => Step::Last(Ok(Outcome::Eof)),
            Ok((n, more)) => {
                self.drained = n < room && !more;
                self.progress += n as u64;
                let outcome = Outcome::Received(Segment::from_block(block, n));
                if self.progress >= u64::from(*limit) {
                    return Step::Last(Ok(outcome));
                }
                Step::More(outcome)
            }
            Err(error) if blocked(&error) => {
                self.drained = true;
                Step::Blocked(Ready::READ)
            }
            Err(error) => Step::Last(Err(error)),
        }
    }

    fn recv_bulk(&mut self, kit: &mut Kit<'_>) -> Step {
        let Op::RecvBulk { fd, home, limit, .. } = &self.op else {
            unreachable!("called for a bulk receive")
        };
        let hot = home.moving() < limits::BULK_HOT_BLOCKS;
        if !hot && kit.busy {
            // Others have them all: its turn comes when theirs are sent. As long as any come home
            // the queue moves.
            let (seen, waited) = (self.progress >> 8, self.progress & 0xff);
            let returns = home.returns();
            let waited = if seen == returns { waited + 1 } else { 0 };
            if waited < limits::BULK_PATIENCE_TURNS {
                self.progress = returns << 8 | waited;
                kit.counters.syscalls -= 1;
                return Step::Queued;
            }
        }
        let few = home.out() < limits::BULK_BLOCKS_MAX;
        if !hot && few {
            // Those that are out stay out; the next receives need not find out again.
            home.give_up();
        }
        let mut block = if few { home.take() } else { kit.home.take() };
        let room = block.bytes().len().min(*limit as usize);
        match read(fd, &mut block.bytes_mut()[..room], self.unix) {
            Ok((0, _)) => Step::Last(Ok(Outcome::Eof)),
            Ok((n, more)) => {
                self.drained = n < room && !more;
                Step::Last(Ok(Outcome::Received(Segment::from_block(block, n))))
            }
            Err(error) if blocked(&error) => {
                self.drained = true;
                Step::Blocked(Ready::READ)
            }
            Err(error) => Step::Last(Err(error)),
        }
    }

    fn recv_message(&mut self, kit: &mut Kit<'_>) -> Step {
        let Op::RecvMsg { fd, limit } = &self.op else {
            unreachable!("called for a receive with ancillary data")
        };
        let mut block = kit.home.take();
        let room = block.bytes().len().min((*limit).max(1) as usize);
        match sys::recv_message(fd, &mut block.bytes_mut()[..room]) {
            Ok(got) if got.len == 0 => Step::Last(Ok(Outcome::Eof)),
            Ok(got) => {
                // The kernel stops behind bytes that carry descriptors, so only a short read
                // without any says that nothing is left.
                self.drained = got.len < room && got.fds.is_empty() && !got.truncated;
                let segment = Segment::from_block(block, got.len);
                let message = Message { segment, fds: got.fds, truncated: got.truncated };
                Step::Last(Ok(Outcome::Message(Box::new(message))))
            }
            Err(error) if blocked(&error) => {
                self.drained = true;
                Step::Blocked(Ready::READ)
            }
            Err(error) => Step::Last(Err(error)),
        }
    }

    fn send(&mut self, kit: &mut Kit<'_>) -> Step {
        let sent = self.progress as usize;
        let result = match &self.op {
            Op::Send { fd, parts } if kit.short => short_send(fd, parts, sent),
            Op::SendMsg { fd, parts, fds } if sent == 0 => sys::send_message(fd, parts, fds),
            Op::Send { fd, parts } | Op::SendMsg { fd, parts, .. } => sys::send(fd, parts, sent),
            _ => unreachable!("called for a send"),
        };
        let went = match result {
            Ok(went) => went,
            Err(error) if blocked(&error) => return Step::Blocked(Ready::WRITE),
            Err(error) => return Step::Last(Err(error)),
        };
        self.progress += went.bytes as u64;
        let (Op::Send { fd, parts } | Op::SendMsg { fd, parts, .. }) = &self.op else {
            unreachable!("called for a send")
        };
        if self.progress >= parts.len() as u64 {
            return Step::Last(Ok(Outcome::Sent(self.take_parts())));
        }
        kit.counters.short_sends += u64::from(!went.whole);
        if went.whole || fd.kind() != FdKind::Socket {
            return Step::Again;
        }
        // A socket that took less than it was offered is full.
        Step::Blocked(Ready::WRITE)
    }

    fn send_file(&mut self, kit: &mut Kit<'_>) -> Step {
        let Op::SendFile { fd, range } = &self.op else { unreachable!("called for a file range") };
        let Some((file, offset, len)) = range.file() else {
            let what = "a file range is made by Segment::from_file";
            return Step::Last(Err(io::Error::new(io::ErrorKind::InvalidInput, what)));
        };
        let left = u64::from(len) - self.progress;
        let count = if kit.short { 1 } else { left.min(FILE_BYTES_MAX as u64) as usize };
        if left > 0 {
            match sys::sendfile(fd, file, offset + self.progress, count) {
                Ok(0) => {
                    let what = "the file ended before the range did";
                    return Step::Last(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
                }
                Ok(n) => self.progress += n as u64,
                Err(error) if blocked(&error) => return Step::Blocked(Ready::WRITE),
                Err(error) => return Step::Last(Err(error)),
            }
        }
        if self.progress >= u64::from(len) {
            return Step::Last(Ok(Outcome::Sent(self.take_parts())));
        }
        Step::Again
    }

    /// The memory of a send that is done; the descriptor is let go.
    fn take_parts(&mut self) -> Parts {
        match std::mem::replace(&mut self.op, Op::Nop) {
            Op::Send { parts, .. } | Op::SendMsg { parts, .. } => parts,
            Op::SendFile { range, .. } => Parts { first: range, rest: Vec::new() },
            _ => unreachable!("called for a send"),
        }
    }
}

/// Reads once; `true` says that more may wait although the room was not filled.
fn read(fd: &Fd, into: &mut [u8], unix: bool) -> io::Result<(usize, bool)> {
    if unix {
        return sys::recv_noting(fd, into);
    }
    // Only a socket's short read is a sign; a tty gives a line at a time.
    Ok((sys::recv(fd, into)?, fd.kind() != FdKind::Socket))
}

/// A played fault: the kernel takes one byte, as if it were nearly full, and has room again.
fn short_send(fd: &Fd, parts: &Parts, sent: usize) -> io::Result<sys::Sent> {
    let byte = parts.iter().flat_map(|segment| segment.bytes()).nth(sent).copied();
    let one = Parts { first: Segment::copied(byte.as_slice()), rest: Vec::new() };
    sys::send(fd, &one, 0)
}
