//! What carries bytes between two ends, as a contract: links and their events.
//!
//! One [`Transport`] instance per [`EventBase`](crate::EventBase); links are generation-checked
//! slots inside it. The rules:
//!
//! 1. A transport talks to the kernel through [`Cx::push`] and [`Cx::sys`] only, reads no clock,
//!    and calls nobody: what happens is [`Cx::emit`]ted, and callbacks run later.
//! 2. A segment belongs to the transport from the moment [`Transport::send`] took it until
//!    `Sent` (*memory released*, in order per link) or `Closed`.
//! 3. What `send` leaves in the buffer was not accepted; the transport emits one
//!    [`LinkEvent::Writable`] when it is worth asking again.
//! 4. [`Transport::grant`] is absolute: at most so many more bytes may be received. 0 pauses. What
//!    an armed receive still brings is delivered all the same.
//! 5. `Closed` is last, exactly once, for every link that [`Transport::listen`],
//!    [`Transport::connect`], [`Transport::adopt`] or `Accepted` named; only then may the slot be
//!    reused. After [`Transport::abort`] nothing but `Sent` and `Closed` comes.
//! 6. `Eof` comes at most once, `Failed` at most once per side.
//!
//! A new transport is a crate that implements this trait against the simulator; ARCHITECTURE.md
//! lists the steps.

use std::any::Any;
use std::io;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::evbuffer::Evbuffer;
use crate::fd::Fd;
use crate::link_timer::LinkTimer;
use crate::reactor::{Completion, Credentials, Op, OpId, Reactor, Side, SockName, Sys, Token};
use crate::router::Router;
use crate::segment::Segment;

/// A link inside its transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LinkId {
    /// Place in the transport's table.
    pub slot: u32,
    /// How often that place was used.
    pub generation: u16,
}

/// What a transport can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Descriptors may be sent along.
    pub fd_passing: bool,
    /// The peer's credentials are known.
    pub credentials: bool,
    /// Each direction ends on its own.
    pub half_close: bool,
    /// File ranges are sent without a copy.
    pub send_file: bool,
    /// An existing descriptor can become a link, and a link's descriptor can be given away.
    pub adopt: bool,
    /// A host name may stand for several addresses.
    pub host_names: bool,
}

/// Options of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections the kernel holds until they are accepted (listen(2)); it caps them at
    /// `net.core.somaxconn`.
    pub backlog: u32,
    /// Several listeners on one address share its connections (SO_REUSEPORT).
    pub reuse_port: bool,
    /// How accepted links are set up.
    pub link: LinkOptions,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            backlog: crate::limits::BACKLOG,
            reuse_port: false,
            link: LinkOptions::default(),
        }
    }
}

/// Options of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// TCP_NODELAY; on by default.
    pub no_delay: bool,
    /// Probes for a silent peer: idle time, interval, count.
    pub keepalive: Option<(Duration, Duration, u32)>,
    /// TCP_USER_TIMEOUT.
    pub user_timeout: Option<Duration>,
    /// How long one attempt to connect may take before the next address is tried.
    pub connect_timeout: Duration,
    /// Take descriptors that the peer passes. Off by default: they cost a slower receive.
    pub receive_fds: bool,
    /// Kernel send buffer, bytes.
    pub send_buffer: Option<u32>,
    /// Kernel receive buffer, bytes.
    pub receive_buffer: Option<u32>,
}

impl Default for LinkOptions {
    fn default() -> Self {
        LinkOptions {
            no_delay: true,
            keepalive: None,
            user_timeout: None,
            connect_timeout: crate::limits::CONNECT_TIMEOUT,
            receive_fds: false,
            send_buffer: None,
            receive_buffer: None,
        }
    }
}

/// What is known about a link.
#[derive(Clone, Debug, Default)]
pub struct LinkInfo {
    /// This end, as an address one could connect to where that makes sense.
    pub local: Option<Address>,
    /// The other end.
    pub peer: Option<Address>,
    /// Who is there, on local transports.
    pub credentials: Option<Credentials>,
    /// This end as the kernel names it.
    pub local_name: Option<SockName>,
    /// The other end as the kernel names it.
    pub peer_name: Option<SockName>,
}

/// What happens to a link.
#[derive(Debug)]
pub enum LinkEvent {
    /// A `connect` succeeded.
    Connected,
    /// A listener's new link. It is not granted anything yet.
    Accepted(LinkId),
    /// Bytes, at least one.
    Received(Segment),
    /// Something to read that is not bytes of a stream; the user fetches it through the link's
    /// [`Transport::face`]. Emitted again for as long as some is left and reading is granted.
    Readable,
    /// Descriptors that arrived with the bytes that follow.
    Descriptors(Vec<Fd>),
    /// So many bytes' memory is released, in order.
    Sent(usize),
    /// `send` would take more now.
    Writable,
    /// The peer ended its direction.
    Eof,
    /// A direction broke.
    Failed(Side, io::Error),
    /// Nothing more comes; the slot is free.
    Closed,
}

/// One way to carry bytes. See the module text for the rules.
pub trait Transport {
    /// What addresses begin with, e.g. `tcp`.
    fn scheme(&self) -> &'static str;
    /// What it can do.
    fn caps(&self) -> &Caps;
    /// Checks an address and says what is wrong with it, without touching anything.
    fn check(&self, address: &Address) -> crate::Result<()>;
    /// Starts to listen; connections come as `Accepted` once granted (a listener's grant counts
    /// connections).
    fn listen(
        &mut self,
        cx: &mut Cx<'_>,
        at: &Address,
        options: &ListenOptions,
    ) -> crate::Result<LinkId>;
    /// Starts to connect; `Connected` or `Failed(Both, _)` follows.
    fn connect(
        &mut self,
        cx: &mut Cx<'_>,
        to: &Address,
        options: &LinkOptions,
    ) -> crate::Result<LinkId>;
    /// Makes a connected descriptor a link.
    fn adopt(&mut self, cx: &mut Cx<'_>, fd: Fd, options: &LinkOptions) -> crate::Result<LinkId>;
    /// Makes a listening descriptor a listener link.
    fn adopt_listener(
        &mut self,
        cx: &mut Cx<'_>,
        fd: Fd,
        options: &ListenOptions,
    ) -> crate::Result<LinkId>;
    /// Gives the descriptor of a link away on which nothing was ever granted or sent; the link is
    /// then `Closed`. `None` if it has begun to work, or has no descriptor.
    fn release_fd(&mut self, cx: &mut Cx<'_>, link: LinkId) -> Option<Fd>;
    /// What else the user may hold of an open link: another way to read and write it than as a
    /// stream of bytes. The user names the type, see
    /// [`Bufferevent::face`](crate::Bufferevent::face).
    fn face(&mut self, _link: LinkId) -> Option<Box<dyn Any>> {
        None
    }
    /// What is known about it; asks the kernel.
    fn info(&mut self, cx: &mut Cx<'_>, link: LinkId) -> LinkInfo;
    /// The descriptor under an open link, for the transport that owns this one to ask the kernel
    /// about; see [`Cx::inner`].
    fn descriptor(&mut self, _link: LinkId) -> Option<Fd> {
        None
    }
    /// Takes from the front of `out` what it can send now. `fds` go with the first byte.
    fn send(&mut self, cx: &mut Cx<'_>, link: LinkId, out: &mut Evbuffer, fds: &mut Vec<Fd>);
    /// Sets how many more bytes (connections, on a listener) may come.
    fn grant(&mut self, cx: &mut Cx<'_>, link: LinkId, amount: u64);
    /// Half close: ends our direction after everything taken so far is sent.
    fn finish(&mut self, cx: &mut Cx<'_>, link: LinkId);
    /// Ends it now; `Closed` follows when the kernel has let go of everything.
    fn abort(&mut self, cx: &mut Cx<'_>, link: LinkId);
    /// An op that this transport pushed is done.
    fn complete(&mut self, cx: &mut Cx<'_>, completion: Completion);
    /// A timer it asked for is due.
    fn timer(&mut self, _cx: &mut Cx<'_>, _link: LinkId) {}
    /// A timer that the transport inside this one asked for is due (see [`Cx::inner`]); handed on
    /// to that one's [`Transport::timer`].
    fn inner_timer(&mut self, _cx: &mut Cx<'_>, _link: LinkId) {}
    /// The last call before the loop submits and waits, once or a few times per turn: a transport
    /// that is not the reactor's own publishes what `send` took, rings its peers, and looks for
    /// what they have left. `idle`: the loop is going to sleep, so ask to be woken, then look once
    /// more. [`Armed::Busy`] keeps it from sleeping.
    fn arm(&mut self, _cx: &mut Cx<'_>, _idle: bool) -> Armed {
        Armed::Quiet
    }
    /// What it has counted so far, by name; all of them only grow. For tests and for those who
    /// look for a fault.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    /// In a forked child, after the reactor has got a kernel side of its own.
    fn forked(&mut self, _cx: &mut Cx<'_>) {}
}

/// What [`Transport::arm`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Armed {
    /// Nothing to do until a completion or a timer comes.
    Quiet,
    /// There is more to do at once; the loop must not sleep.
    Busy,
}

/// What happened to the links of an inner transport, in order; filled by the [`Cx`] that
/// [`Cx::inner`] makes.
pub type InnerEvents = Vec<(LinkId, LinkEvent)>;

/// What a transport may reach while one of its methods runs.
pub struct Cx<'a> {
    pub(crate) reactor: &'a mut dyn Reactor,
    pub(crate) router: &'a mut Router,
    pub(crate) transport: u8,
    /// Where the events of an inner transport go.
    pub(crate) inner: Option<&'a mut InnerEvents>,
}

impl<'a> Cx<'a> {
    pub(crate) fn new(
        reactor: &'a mut dyn Reactor,
        router: &'a mut Router,
        transport: u8,
    ) -> Cx<'a> {
        Cx { reactor, router, transport, inner: None }
    }

    /// What a transport inside this one may reach. A transport that needs links of another kind
    /// (shared memory is handed over through a Unix socket) owns an instance of that transport and
    /// calls it with this:
    ///
    /// * its events are appended to `events` for the owner to read; they reach no bufferevent;
    /// * its completions come to the owner's [`Transport::complete`] with [`Token::is_inner`], and
    ///   go on as [`Completion::of_inner`];
    /// * its timers come to the owner's [`Transport::inner_timer`].
    ///
    /// The slots of both may be numbered alike. An inner transport owns no other.
    ///
    /// # Panics
    /// Panics where `self` belongs to an inner transport.
    pub fn inner<'b>(&'b mut self, events: &'b mut InnerEvents) -> Cx<'b> {
        assert!(self.inner.is_none(), "an inner transport owns no other");
        Cx {
            reactor: &mut *self.reactor,
            router: &mut *self.router,
            transport: self.transport,
            inner: Some(events),
        }
    }

    fn timer_of(&self, link: LinkId) -> LinkTimer {
        LinkTimer { transport: self.transport, inner: self.inner.is_some(), link }
    }

    /// Pushes an op whose completion comes back to this transport for `link` with `kind`, which
    /// is below [`Token::INNER`].
    #[inline]
    pub fn push(&mut self, link: LinkId, kind: u8, op: Op) -> OpId {
        debug_assert!(kind & Token::INNER == 0, "the bit marks the kinds of inner transports");
        let kind = if self.inner.is_some() { kind | Token::INNER } else { kind };
        self.router.pushed = true;
        self.reactor.push(Token::new(self.transport, kind, link.generation, link.slot), op)
    }

    /// Whether any transport has pushed an op that the reactor has not submitted yet, so that the
    /// loop should turn before anybody takes time in [`Transport::arm`].
    pub fn has_pushed(&self) -> bool {
        self.router.pushed
    }

    /// Asks to end an op.
    pub fn cancel(&mut self, op: OpId) {
        self.reactor.cancel(op);
    }

    /// Says what happened to a link. It goes straight into the bufferevent's slot; no callback
    /// runs now.
    #[inline]
    pub fn emit(&mut self, link: LinkId, event: LinkEvent) {
        if self.inner.is_some() && matches!(event, LinkEvent::Closed) {
            self.no_timer(link);
        }
        match &mut self.inner {
            None => self.router.emit(self.transport, link, event),
            Some(events) => events.push((link, event)),
        }
    }

    /// Drops memory: ours at once, the user's when nothing is borrowed any more.
    #[inline]
    pub fn release(&mut self, segment: Segment) {
        self.router.release(segment);
    }

    /// Whether the reactor can wait on a word of shared memory.
    pub fn waits_on_words(&self) -> bool {
        self.reactor.waits_on_words()
    }

    /// The calls that are answered at once.
    pub fn sys(&mut self) -> &mut dyn Sys {
        self.reactor.sys()
    }

    /// Asks for [`Transport::timer`] after `after`, in place of what was asked before for this
    /// link.
    pub fn timer(&mut self, link: LinkId, after: Duration) {
        let timer = self.timer_of(link);
        self.router.link_timer(timer, after);
    }

    /// Takes the timer of this link back.
    pub fn no_timer(&mut self, link: LinkId) {
        let timer = self.timer_of(link);
        self.router.no_link_timer(timer);
    }

    /// This turn's time.
    pub fn now(&self) -> Instant {
        self.router.now()
    }

    /// Where the blocks of bulk receives come from.
    pub fn bulk_home(&self) -> &std::rc::Rc<crate::segment::Home> {
        self.router.bulk_home()
    }

    /// The pool that received blocks come from, for transports that copy.
    pub fn home(&self) -> &std::rc::Rc<crate::segment::Home> {
        &self.router.home
    }

    /// The time now, not the turn's; for what happens within a turn.
    pub fn clock(&self) -> Instant {
        self.reactor.now()
    }

    /// The number of this turn; it wraps.
    #[inline]
    pub fn turn(&self) -> u32 {
        self.router.turn
    }
}
