//! The relay as a machine: no socket and no clock, only rings that others own.
//!
//! ```text
//!   process --Attach--> Near --OPEN, DATA--> link ~~~~ link --> Far --publish--> process
//!             ring       |  <--RESUME, ACK--                     |       ring
//!                        '- one per channel that is sent          '- one per channel received
//! ```
//!
//! Method families, in the order of a turn:
//!
//! 1. what happened: [`Core::local_opened`], [`Core::local_said`], [`Core::local_closed`],
//!    [`Core::rang`]; [`Core::link_up`], [`Core::link_input`], [`Core::link_room`],
//!    [`Core::link_closed`]; [`Core::tick`];
//! 2. [`Core::turn`]: publishes what was stored, acknowledges it, and fills the links;
//! 3. what to do: [`Core::take`] until it is `None`; [`Core::take_output`] for links named there.
//!
//! A relay remembers nothing that matters. What was sent and what was stored stands in words of
//! rings that processes own, and after a relay has died its successor is told by them where to go
//! on (`docs/guarantees.md`). Whatever is stored in such a word is stored in this order: `sent`
//! before bytes leave, the publish word before the acknowledgement, `acked` after it.

mod channels;
mod direct;
mod ends;
mod far;
mod input;
mod leave;
mod link;
mod local;
mod near;
mod probe;
mod settle;
mod status;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use ringlane_api::slab::{Key, Slab};
use serde::Serialize;

use crate::bus::local::{FromRelay, Nonce};
use crate::bus::memory::Memory;
use crate::cluster::Cluster;
use crate::frame::Leave;

use self::channels::Channels;
use self::direct::Introductions;
use self::far::Far;
use self::link::Link;
use self::local::Local;
use self::near::Near;

pub use self::status::{ChannelStatus, LinkStatus, LocalStatus, Status, TableStatus};

/// A local connection: a process, or somebody with a question.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnId(pub(crate) Key);

/// A connection to another relay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LinkId(pub(crate) Key);

/// A channel in one direction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Channel {
    /// The sending node.
    pub src: Rc<str>,
    /// The receiving node.
    pub dst: Rc<str>,
    /// Which of the channels between the two.
    pub chan: u16,
}

/// What is to be done for the core.
#[derive(Debug)]
pub enum Out {
    /// A line to a local connection.
    Say(ConnId, FromRelay),
    /// Close a local connection, when what was said is out.
    Drop(ConnId),
    /// Something was stored for the process, or only room made in its rings: ring its bell.
    Ring(ConnId, Bell),
    /// A ping of the driver's was answered.
    Pong(LinkId, u64),
    /// The other relay closes the link, and says why.
    Bye(LinkId, Leave),
    /// There is something for the host, and no link: dial.
    Want(Rc<str>),
    /// The link has output: [`Core::take_output`].
    Flush(LinkId),
    /// For the log: what an operator should know.
    Note(Note),
}

/// What a process is rung for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bell {
    /// Room to send, which is news to those who wait for it.
    Room,
    /// Messages.
    Messages,
}

/// What an operator should know.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the fields are what they are called")]
pub enum Note {
    /// A process has registered.
    Here { node: Rc<str>, pid: u32, epoch: u64 },
    /// Its connection has ended.
    Left { node: Rc<str>, pid: u32, died: bool },
    /// Somebody was refused.
    Refused { what: String },
    /// A channel makes no progress.
    Stuck { channel: Channel, for_ms: u64, why: String },
    /// A receiver has died with messages unread.
    Gone { channel: Channel, first: u32, exact: bool },
    /// A peer broke the protocol, and its channel or link was ended.
    Broken { what: String },
}

/// The time of a turn.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines.
    pub instant: Instant,
    /// Milliseconds of this host's monotonic clock, which messages with a deadline name.
    pub mono_ms: u64,
    /// Microseconds since 1970.
    pub unix_us: u64,
}

/// What was counted since the start.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize)]
pub struct Counts {
    /// Records sent to links, and their bytes.
    pub sent: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Records stored in rings of receivers.
    pub stored: u64,
    /// Bytes of them.
    pub stored_bytes: u64,
    /// Records that expired before they left.
    pub expired: u64,
    /// Records passed over because a newer one came.
    pub conflated: u64,
    /// Channels opened again where they had been: after a link or a relay was lost.
    pub resumed: u64,
    /// Receivers that died.
    pub gone: u64,
    /// Channels and links ended because a peer broke the protocol.
    pub broken: u64,
    /// Processes and operators refused.
    pub refused: u64,
    /// Bells rung.
    pub rings: u64,
    /// Frames dropped unread: of bindings that are not any more.
    pub stray: u64,
}

/// See the module text.
pub struct Core {
    host: Rc<str>,
    cluster: Rc<Cluster>,
    incarnation: u64,
    uid: u32,
    pid: u32,
    memory: Memory,
    now: Now,
    charged: local::Charged,
    locals: Slab<Local>,
    /// Who is registered under a node's name.
    names: HashMap<Rc<str>, Key>,
    /// The largest epoch under which somebody was registered here.
    epochs: HashMap<Rc<str>, (u64, Nonce)>,
    /// Instances whose senders were told that they are gone, though nobody has seen it.
    given_up: HashMap<Rc<str>, u64>,
    channels: Channels,
    nears: Slab<Near>,
    near_at: HashMap<Channel, Vec<Key>>,
    fars: Slab<Far>,
    far_at: HashMap<Channel, Key>,
    links: Slab<Link>,
    link_to: HashMap<Rc<str>, Key>,
    /// The link to ourselves: channels of one host that are to go through its relay.
    itself: Option<Key>,
    linkno: u32,
    introductions: Introductions,
    probes: probe::Probes,
    /// Far ends with records that are written and not published.
    dirty: Vec<Key>,
    /// Far ends whose reader may have given room back.
    consumed: Vec<Key>,
    /// When acknowledgements that wait for company go alone.
    ack_at: Option<Instant>,
    /// Links that something was written to.
    touched: Vec<Key>,
    /// Who is to be rung at the end of the turn.
    bells: Vec<Key>,
    out: VecDeque<Out>,
    scratch: Vec<u8>,
    counts: Counts,
    tokens: Tokens,
}

/// Random numbers for introductions; seeded in a simulator.
pub type Tokens = Box<dyn FnMut() -> Nonce>;

/// What a core is made from.
pub struct Setup {
    /// The name of this host in the cluster.
    pub host: String,
    /// The configuration.
    pub cluster: Rc<Cluster>,
    /// Which run of the relay this is: a later one has a larger number.
    pub incarnation: u64,
    /// The user that the relay runs as.
    pub uid: u32,
    /// Its process.
    pub pid: u32,
    /// Maps rings.
    pub memory: Memory,
    /// Random numbers.
    pub tokens: Tokens,
    /// The time.
    pub now: Now,
}

impl Core {
    /// A relay that knows nobody yet.
    pub fn new(setup: Setup) -> Core {
        let channels = Channels::new(&setup.cluster, setup.now.instant);
        let mut core = Core {
            channels,
            host: setup.host.into(),
            cluster: setup.cluster,
            incarnation: setup.incarnation,
            uid: setup.uid,
            pid: setup.pid,
            charged: local::Charged::new(),
            memory: setup.memory,
            now: setup.now,
            locals: Slab::with_capacity(0),
            names: HashMap::new(),
            epochs: HashMap::new(),
            given_up: HashMap::new(),
            nears: Slab::with_capacity(0),
            near_at: HashMap::new(),
            fars: Slab::with_capacity(0),
            far_at: HashMap::new(),
            links: Slab::with_capacity(0),
            link_to: HashMap::new(),
            itself: None,
            linkno: 0,
            introductions: Introductions::default(),
            probes: probe::Probes::default(),
            dirty: Vec::new(),
            consumed: Vec::new(),
            ack_at: None,
            touched: Vec::new(),
            bells: Vec::new(),
            out: VecDeque::new(),
            scratch: Vec::new(),
            counts: Counts::default(),
            tokens: setup.tokens,
        };
        let host = Rc::clone(&core.host);
        core.itself = Some(core.links.insert(Link::new(host, true)));
        core
    }

    /// The host whose relay this is.
    pub fn host(&self) -> &Rc<str> {
        &self.host
    }

    /// What was counted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The configuration.
    pub fn cluster(&self) -> &Rc<Cluster> {
        &self.cluster
    }

    /// Takes another configuration. What is open goes on under the terms it was opened with.
    pub fn reconfigure(&mut self, cluster: Rc<Cluster>) {
        self.channels.reconfigure(&cluster);
        self.cluster = cluster;
    }

    /// The time of what happens now, where it is measured: [`Core::turn`] is told it, too.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// The next thing to do.
    pub fn take(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    fn say(&mut self, conn: Key, line: FromRelay) {
        self.out.push_back(Out::Say(ConnId(conn), line));
    }

    fn note(&mut self, note: Note) {
        self.out.push_back(Out::Note(note));
    }

    /// Rings a process at the end of the turn.
    fn ring(&mut self, conn: Key, bell: Bell) {
        let Some(local) = self.locals.get_mut(conn) else { return };
        if local.to_ring.is_none() {
            self.bells.push(conn);
        }
        local.to_ring = local.to_ring.max(Some(bell));
    }
}
