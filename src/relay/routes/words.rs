//! The words that a relay and its [`Routes`](super::Routes) speak to each other.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Names a host of one [`Routes`](super::Routes): its place in the order in which
/// [`Routes::add_host`](super::Routes::add_host) was told of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostId(pub u32);

/// Names a link for as long as this relay lives, from the dial or the accept on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    pub(super) host: HostId,
    pub(super) serial: u32,
}

impl LinkId {
    /// The host at its other end.
    pub fn host(self) -> HostId {
        self.host
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}.{}", self.host.0, self.serial)
    }
}

/// Times of links.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Policy {
    /// From ping to ping.
    pub ping_every: Duration,
    /// A link on which nothing was heard for so long is dead.
    pub dead_after: Duration,
    /// From dial to dial after a loss,
    pub again_every: Duration,
    /// for so long;
    pub again_for: Duration,
    /// then up to so long apart.
    pub backoff_max: Duration,
    /// A link that nobody uses and on which nothing is unacknowledged is closed after this.
    pub idle_max: Duration,
    /// A dial must be answered within this ...
    pub dial_max: Duration,
    /// ... or within this, if the host's round trip is known to be short: what a broken network
    /// swallowed is then tried again soon after it is healed.
    pub dial_min: Duration,
    /// Who answered must be through the handshake within this.
    pub handshake_max: Duration,
    /// A link that another would replace has so long to show that it lives.
    pub trial: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        let millis = Duration::from_millis;
        Policy {
            ping_every: millis(1_000),
            dead_after: millis(3_000),
            again_every: millis(100),
            again_for: millis(30_000),
            backoff_max: millis(2_000),
            idle_max: millis(300_000),
            dial_max: millis(600),
            dial_min: millis(300),
            handshake_max: millis(3_000),
            trial: millis(200),
        }
    }
}

/// What the handshake told about the other side.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Peer {
    /// The version that both speak.
    pub version: u16,
    /// Grows with every start of the peer's relay: microseconds since 1970. 0 if it says nothing.
    pub instance: u64,
}

/// Why the daemon's link is gone, or a dial came to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Loss {
    /// Reset, end of stream, nobody listens, a frame that is none.
    Broken,
    /// The handshake failed: secret, version, cluster. It will fail again, so there is no hurry.
    Refused,
    /// The peer said that the link is idle.
    Idle,
    /// The peer said that there is another link.
    Duplicate,
}

/// Why a link is to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Closing {
    /// Nothing was heard for [`Policy::dead_after`], or on trial.
    Dead,
    /// The dial or its handshake took too long.
    Late,
    /// There is another link that both sides prefer.
    Duplicate,
    /// A newer instance of the peer is linked.
    Superseded,
    /// Nobody used it.
    Idle,
    /// The host was taken out of the config.
    Retired,
}

/// What the daemon is to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RouteOut {
    /// Dial this address, and shake hands.
    Dial {
        /// What to call the link.
        link: LinkId,
        /// Where to.
        address: Rc<str>,
    },
    /// From now on this is the host's link: move its channels here. Read frames of no link before.
    Use {
        /// The link.
        link: LinkId,
        /// Larger than that of every link that was used before, for the generation of bindings.
        linkno: u32,
    },
    /// Send a ping.
    Ping {
        /// On this link.
        link: LinkId,
        /// To be told to [`Routes::pong`](super::Routes::pong).
        id: u64,
    },
    /// Close this link, or give up this dial. Nothing is to be reported of it any more.
    Close {
        /// The link.
        link: LinkId,
        /// Why, for the peer and the log.
        why: Closing,
    },
}

/// How things stand with a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum State {
    /// No link, and nobody wants one.
    Idle,
    /// A dial is on the way.
    Dialling,
    /// There is a link.
    Up,
    /// No link; dialled again every [`Policy::again_every`].
    Down,
    /// No link for long; dialled again after growing pauses.
    Backoff,
}

/// Who said on which host a node lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Source {
    /// The config: never forgotten.
    Config,
    /// Another relay: forgotten when nobody asks for it.
    Learned,
}

/// What there is to be known of a host, for `status` and `explain`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Route<'a> {
    /// Which host.
    pub host: HostId,
    /// Its name.
    pub name: &'a str,
    /// Where its relay listens, in order of preference.
    pub addresses: &'a [Rc<str>],
    /// The address of the link, or the next to be dialled.
    pub address: Option<&'a str>,
    /// How things stand.
    pub state: State,
    /// The link in use.
    pub link: Option<LinkId>,
    /// Whether this side dialled it.
    pub dialled: bool,
    /// What the peer's handshake told.
    pub peer: Option<Peer>,
    /// Round trip, smoothed.
    pub rtt: Option<Duration>,
    /// Bytes sent and not acknowledged, as last told to
    /// [`Routes::set_unacked`](super::Routes::set_unacked).
    pub unacked: u64,
    /// When it was last used.
    pub last_use: Option<Instant>,
    /// Number of the last link that was used.
    pub linkno: u32,
    /// Dials that failed since there was a link.
    pub tries: u32,
    /// Why there is no link, or why there was none.
    pub last_loss: Option<Loss>,
}
