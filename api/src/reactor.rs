//! The only door to the kernel, as a contract.
//!
//! A backend provides four things: [`Reactor::push`] and [`Reactor::cancel`] (ask), and
//! [`Reactor::turn`] (submit all, wait, reap, call nobody), and [`Sys`] for what the kernel
//! answers at once. The rules every backend keeps, and every test checks:
//!
//! 1. **An [`Op`] owns everything the kernel may touch** (descriptor, buffers) until its last
//!    completion. Nothing leaves the flight table before that.
//! 2. `push` cannot fail and never blocks: what does not fit waits in a backlog.
//! 3. Each op completes exactly once with `more == false`; multishot ops ([`Op::Accept`],
//!    [`Op::Recv`], a multishot [`Op::Poll`]) may complete any number of times with
//!    `more == true` before.
//! 4. `cancel` is a request. The op still completes: with its result if it was quicker, with
//!    `ECANCELED` if not. A result that arrives after a cancel is still delivered.
//! 5. Completions of one op arrive in order. Between ops there is no order.
//! 6. [`Op::Send`] is all of it or an error; short transfers, `EAGAIN`, `ENOBUFS` and re-posting
//!    stay inside the reactor. [`Outcome::Sent`] gives the memory back, so that the user's memory
//!    is never dropped inside the reactor. On an error the memory is handed over through
//!    [`Completion::parts`].
//! 7. `turn` does bounded work: it returns after a bounded number of completions even if more
//!    are ready.
//! 8. `EINTR`, `EAGAIN`, `EBUSY` and `ENOMEM` from the wait are not errors: the turn is then
//!    empty or short, and nothing is lost.
//! 9. Dropping a reactor cancels everything, reaps to zero, then frees.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fd::Fd;
use crate::segment::{Home, Parts, Segment};
pub use crate::shared::{Memory, Place, SharedWord};
pub use crate::sys::{Family, Occupant, Side, SockOption, Sys};

/// 64 opaque bits that come back with each completion. Minted by
/// [`Cx`](crate::transport::Cx) alone: transport, kind, generation and slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(u64);

impl Token {
    /// Packs the four parts.
    #[inline]
    pub const fn new(transport: u8, kind: u8, generation: u16, slot: u32) -> Token {
        Token(
            (transport as u64) << 56
                | (kind as u64) << 48
                | (generation as u64) << 32
                | slot as u64,
        )
    }
    /// The transport that asked.
    #[inline]
    pub const fn transport(self) -> u8 {
        (self.0 >> 56) as u8
    }
    /// What the transport asked for.
    #[inline]
    pub const fn kind(self) -> u8 {
        (self.0 >> 48) as u8
    }
    /// The generation of the slot it was asked for.
    #[inline]
    pub const fn generation(self) -> u16 {
        (self.0 >> 32) as u16
    }
    /// The slot it was asked for.
    #[inline]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// Set in the kind where a transport that another transport owns has asked; see
    /// [`Cx::inner`](crate::transport::Cx::inner). A transport's own kinds are below it.
    pub const INNER: u8 = 0x80;

    /// Whether an inner transport asked.
    #[inline]
    pub const fn is_inner(self) -> bool {
        self.kind() & Token::INNER != 0
    }

    /// The token as the inner transport knows it.
    #[inline]
    #[must_use]
    pub const fn of_inner(self) -> Token {
        Token(self.0 & !((Token::INNER as u64) << 48))
    }
}

/// The reactor's own name for an op in flight; stale ones are harmless.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OpId {
    /// Place in the flight table.
    pub slot: u32,
    /// How often that place was used.
    pub generation: u32,
}

/// What readiness a poll waits for, or found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ready(u8);

impl Ready {
    /// Bytes to read, or the end of them.
    pub const READ: Ready = Ready(1);
    /// Room to write.
    pub const WRITE: Ready = Ready(2);
    /// The other side is gone, or an error waits. Always reported, never asked for.
    pub const HANGUP: Ready = Ready(4);
    /// Nothing.
    pub const NONE: Ready = Ready(0);

    /// Whether every flag of `other` is in `self`.
    #[inline]
    pub const fn contains(self, other: Ready) -> bool {
        self.0 & other.0 == other.0
    }
    /// Whether any flag of `other` is in `self`.
    #[inline]
    pub const fn intersects(self, other: Ready) -> bool {
        self.0 & other.0 != 0
    }
    /// Whether it is empty.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
    /// `self` without the flags of `other`.
    #[inline]
    pub const fn without(self, other: Ready) -> Ready {
        Ready(self.0 & !other.0)
    }
}

impl std::ops::BitOr for Ready {
    type Output = Ready;
    fn bitor(self, other: Ready) -> Ready {
        Ready(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Ready {
    fn bitor_assign(&mut self, other: Ready) {
        self.0 |= other.0;
    }
}

impl std::ops::BitAnd for Ready {
    type Output = Ready;
    fn bitand(self, other: Ready) -> Ready {
        Ready(self.0 & other.0)
    }
}

/// The name of a socket, as the kernel knows names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SockName {
    /// IPv4 or IPv6 address and port.
    Inet(SocketAddr),
    /// A Unix socket in the file system.
    Path(PathBuf),
    /// A Unix socket in the abstract name space, without the leading zero byte.
    Abstract(Vec<u8>),
    /// A Unix socket without a name (the far end of an accepted one, a pair).
    Unnamed,
}

impl fmt::Display for SockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SockName::Inet(addr) => write!(f, "{addr}"),
            SockName::Path(path) => write!(f, "{}", path.display()),
            SockName::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
            SockName::Unnamed => f.write_str("(unnamed)"),
        }
    }
}

/// Who is at the other end of a local socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// Process, as seen from here; 0 if it is outside this pid namespace.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// Something asked of the kernel that is answered by a [`Completion`].
#[derive(Debug)]
pub enum Op {
    /// Completes in the next turn.
    Nop,
    /// Waits for readiness. `multishot`: each report has `more`, until cancelled; then `edge`
    /// says whether a condition that still holds is reported again at the next turn (level,
    /// `false`) or only when it arises anew (edge, `true`). One-shot polls are level.
    /// Completes with [`Outcome::Ready`].
    Poll {
        /// What to watch.
        fd: Fd,
        /// What for; [`Ready::HANGUP`] is always included.
        ready: Ready,
        /// Keep reporting.
        multishot: bool,
        /// Report only news.
        edge: bool,
    },
    /// Multishot: one [`Outcome::Accepted`] per connection. `EMFILE`, `ENFILE`, `ENOBUFS` and
    /// `ENOMEM` end it (`more == false`); errors of a single connection (`ECONNABORTED`) do not.
    Accept {
        /// A listening socket.
        fd: Fd,
        /// End after this many connections.
        limit: u32,
    },
    /// Connects a socket. Completes with [`Outcome::Done`].
    Connect {
        /// An unconnected socket.
        fd: Fd,
        /// Where to.
        to: SockName,
    },
    /// Multishot receive into the reactor's pooled blocks: [`Outcome::Received`] any number of
    /// times, then [`Outcome::Eof`] or an error. It ends (`more == false`) after about `limit`
    /// bytes at the latest (never more than one block above).
    Recv {
        /// A connected stream.
        fd: Fd,
        /// Bytes after which it must be armed again. At least 1.
        limit: u32,
    },
    /// One receive of what is there (bulk mode): [`Outcome::Received`], or [`Outcome::Eof`]. The
    /// block is taken from `home` when there is something to put into it, the one that came home
    /// last and is hottest; an idle link holds none. While `home` may give no more, the op waits
    /// its turn for a few turns and then takes one of the reactor's own blocks.
    RecvBulk {
        /// A connected stream.
        fd: Fd,
        /// Where blocks come from.
        home: Rc<Home>,
        /// At most so many bytes.
        limit: u32,
        /// Bytes are likely to be there already: look before waiting.
        eager: bool,
    },
    /// One receive with ancillary data, of at most `limit` bytes: [`Outcome::Message`], or
    /// [`Outcome::Eof`].
    RecvMsg {
        /// A Unix stream.
        fd: Fd,
        /// At most so many bytes.
        limit: u32,
    },
    /// Sends all of `parts`, or fails. One at a time per descriptor. Completes with
    /// [`Outcome::Sent`]. File ranges are not allowed in it (see [`Op::SendFile`]).
    Send {
        /// A connected stream.
        fd: Fd,
        /// What.
        parts: Parts,
    },
    /// Sends all of `parts` with descriptors attached to the first byte. Completes with
    /// [`Outcome::Sent`]; the descriptors are then the peer's too, ours are dropped.
    SendMsg {
        /// A Unix stream.
        fd: Fd,
        /// What; at least one byte.
        parts: Parts,
        /// Descriptors to pass.
        fds: Vec<Fd>,
    },
    /// Sends all of a file range (a segment made by [`Segment::from_file`]) without passing
    /// through user memory. Completes with [`Outcome::Sent`]. A file that ends early fails with
    /// `UnexpectedEof`.
    SendFile {
        /// A connected stream.
        fd: Fd,
        /// The file range.
        range: Segment,
    },
    /// Waits until the word is rung ([`Sys::futex_wake`]): [`Outcome::Done`], at once if it is
    /// not `expected`. It may also be done for no reason, so look again. Where
    /// [`Reactor::waits_on_words`] says no, it fails with `Unsupported`.
    FutexWait {
        /// What to wait on.
        word: Rc<dyn SharedWord>,
        /// The value that lets it sleep.
        expected: u32,
    },
    /// Looks up a host name off the loop: [`Outcome::Addresses`], never empty.
    Resolve {
        /// Host name or literal.
        host: String,
        /// Port for each address found.
        port: u16,
    },
    /// Closes the descriptor after everything else that was asked of it is done or cancelled.
    Close {
        /// What to close; other holders are cancelled.
        fd: Fd,
    },
}

impl Op {
    /// The operation's name in errors and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Nop => "nop",
            Op::Poll { .. } => "poll",
            Op::Accept { .. } => "accept",
            Op::Connect { .. } => "connect",
            Op::Recv { .. } | Op::RecvBulk { .. } | Op::RecvMsg { .. } => "recv",
            Op::Send { .. } | Op::SendMsg { .. } => "send",
            Op::SendFile { .. } => "sendfile",
            Op::FutexWait { .. } => "futex wait",
            Op::Resolve { .. } => "resolve",
            Op::Close { .. } => "close",
        }
    }
}

/// Bytes that came with ancillary data.
#[derive(Debug)]
pub struct Message {
    /// The bytes.
    pub segment: Segment,
    /// Descriptors the peer passed, close-on-exec, already wrapped.
    pub fds: Vec<Fd>,
    /// Set when the kernel dropped descriptors for lack of room or of descriptor slots.
    pub truncated: bool,
}

/// What an op brought.
#[derive(Debug)]
pub enum Outcome {
    /// It is done.
    Done,
    /// A poll's readiness.
    Ready(Ready),
    /// A connection.
    Accepted(Fd),
    /// Bytes, at least one.
    Received(Segment),
    /// The peer's end of stream.
    Eof,
    /// Bytes with ancillary data.
    Message(Box<Message>),
    /// The memory of a send whose bytes the kernel has taken.
    Sent(Parts),
    /// What a host name stands for.
    Addresses(Vec<SocketAddr>),
}

/// An op's answer.
#[derive(Debug)]
pub struct Completion {
    /// As given to [`Reactor::push`].
    pub token: Token,
    /// What came of it.
    pub result: io::Result<Outcome>,
    /// Whether the op is still armed.
    pub more: bool,
    /// The memory of a send that failed.
    pub parts: Option<Box<Parts>>,
}

impl Completion {
    /// A last completion.
    pub fn last(token: Token, result: io::Result<Outcome>) -> Completion {
        Completion { token, result, more: false, parts: None }
    }

    /// The completion as the inner transport knows it.
    #[must_use]
    pub fn of_inner(self) -> Completion {
        Completion { token: self.token.of_inner(), ..self }
    }
}

/// Makes a sleeping reactor return from its turn; may be called from any thread.
pub trait Wake: Send + Sync {
    /// Wakes it. Cheap when it is not asleep.
    fn wake(&self);
}

/// One line of [`EngineReport::features`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Name, e.g. `multishot byte limit`.
    pub name: &'static str,
    /// Whether this kernel has it and this reactor uses it.
    pub present: bool,
    /// Since which kernel, and what it is good for.
    pub note: &'static str,
}

/// What engine runs and why.
#[derive(Clone, Debug, Default)]
pub struct EngineReport {
    /// `uring`, `epoll` or `sim`.
    pub engine: &'static str,
    /// `u1` … `u5`, or `e`.
    pub tier: &'static str,
    /// What the kernel offered.
    pub features: Vec<Feature>,
    /// Why a better engine was not taken, in one sentence that names the likely cause.
    pub fell_back: Option<String>,
    /// Sizes and the like, one per line.
    pub details: Vec<String>,
}

/// Counters since the start; all of them only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Turns.
    pub turns: u64,
    /// System calls made by the hot path (enter, or epoll_wait, recv, send, epoll_ctl).
    pub syscalls: u64,
    /// epoll_ctl calls, or 0.
    pub epoll_ctls: u64,
    /// Submission entries.
    pub sqes: u64,
    /// Completion entries.
    pub cqes: u64,
    /// Times that no block was posted when bytes came.
    pub enobufs: u64,
    /// Completion-queue overflows survived.
    pub overflows: u64,
    /// Failed waits survived (EINTR, EAGAIN, EBUSY, ENOMEM).
    pub enter_errors: u64,
    /// Sends that went out short and were continued.
    pub short_sends: u64,
}

/// The asynchronous verbs. See the module text for the rules.
pub trait Reactor {
    /// `uring`, `epoll` or `sim`.
    fn name(&self) -> &'static str;
    /// The clock. The only place that reads it.
    fn now(&self) -> Instant;
    /// Asks for `op`. Cannot fail: errors come as completions.
    fn push(&mut self, token: Token, op: Op) -> OpId;
    /// Asks to end `op` early. A stale id does nothing.
    fn cancel(&mut self, op: OpId);
    /// Submits what was pushed, waits (not at all for `Some(ZERO)`, for ever for `None`) until
    /// something completes or the waker is used, and appends completions to `done`.
    fn turn(&mut self, wait: Option<Duration>, done: &mut Vec<Completion>) -> io::Result<()>;
    /// The calls that are answered at once.
    fn sys(&mut self) -> &mut dyn Sys;
    /// Whether [`Op::FutexWait`] works here.
    fn waits_on_words(&self) -> bool {
        false
    }
    /// The pool that received blocks come from.
    fn home(&self) -> &Rc<Home>;
    /// Wakes [`Reactor::turn`] from elsewhere.
    fn waker(&self) -> Arc<dyn Wake>;
    /// In a forked child: a kernel side of its own. Polls, accepts and receives are armed again;
    /// sends, connects and look-ups in flight belong to the parent and complete with
    /// [`forked`].
    fn reinit(&mut self) -> io::Result<()>;
    /// What it is and what it found.
    fn report(&self) -> EngineReport;
    /// What it did so far.
    fn counters(&self) -> Counters;
}

/// The error of an op that was in flight when the process forked.
pub fn forked() -> io::Error {
    io::Error::other("in flight when the process forked; it belongs to the parent")
}
