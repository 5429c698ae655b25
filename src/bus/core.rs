//! The process's side of the bus as a machine: no socket and no clock, only the rings that it owns.
//!
//! ```text
//!   send ---> Out: queue -> ring ====> relay, or a neighbour      one per channel that is sent on
//!   walk <--- In:           ring <==== relay, or a neighbour      one per channel received on
//!             Link: lines <----------> relay                      one, made again when it is lost
//! ```
//!
//! Method families, in the order of a turn:
//!
//! 1. what happened: [`Core::connected`], [`Core::failed`], [`Core::said`], [`Core::hung_up`] of
//!    connections to relays; [`Core::bell_open`], [`Core::bell_lost`], [`Core::rang`];
//!    [`Core::listening`], [`Core::met`], [`Core::parted`], [`Core::room`], [`Core::came`],
//!    [`Core::readable`], [`Core::ended`] of neighbours; [`Core::tick`];
//! 2. what the user wants: [`Core::send`], [`Core::call`], [`Core::close`], …;
//! 3. messages: [`Core::take`], [`Taken::walk`], [`Core::put`] until there is nothing to take;
//! 4. what to do: [`Core::next_do`] and [`Core::next_event`] until there is none, then
//!    [`Core::publish`], and sleep no longer than [`Core::deadline`].
//!
//! Nothing here is lost with a relay: every ring belongs to this process, and is handed to the next
//! relay with where it stands.

mod assembly;
mod calls;
mod groups;
mod handover;
mod ins;
#[cfg(feature = "mutants")]
mod kept;
#[cfg(not(feature = "mutants"))]
#[path = "core/unkept.rs"]
mod kept;
mod link;
mod neighbour;
mod out;
mod outs;
mod remains;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

use ringlane_api::slab::{Key, Slab};

use super::error::BusError;
use super::event::{PeerEvent, RelayEvent};
use super::local::{FromRelay, Nonce, Said, ToRelay};
use super::memory::Memory;

use self::calls::Calls;
use self::groups::Group;
use self::ins::In;
use self::link::Link;
use self::neighbour::Expected;
use self::out::Out;

pub use self::ins::{Seen, Taken, Walked};
pub use self::neighbour::{Neighbour, Put, TOKEN_CHAN, TOKEN_KIND, token_of};
pub use self::outs::Post;
pub use self::slot::Slot;

/// Milliseconds of this host's monotonic clock.
pub type Millis = u64;

/// Kinds of records, as relays see them.
pub mod kind {
    /// A message.
    pub const MESSAGE: u16 = 1;
    /// A message that wants an answer: its number comes first.
    pub const REQUEST: u16 = 2;
    /// An answer, behind the number of its request.
    pub const REPLY: u16 = 3;
    /// Drops what has come of a message in pieces.
    pub const ABORT: u16 = 5;
    /// The payload begins with a time after which it is worth nothing.
    pub const DEADLINE: u16 = 0x100;
}

/// A connection to a relay, numbered by the core.
pub type ConnNo = u32;

/// What a process may hold, each with its reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Channels in one direction: each is a ring, and a descriptor.
    pub channels: usize,
    /// Bytes of messages that wait beside the ring of one channel: before there is a way, and for
    /// `drop-old`.
    pub queue_bytes: usize,
    /// Bytes of one message in pieces.
    pub message_bytes: usize,
    /// Bytes of unfinished messages of one sender, on all channels.
    pub sender_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            channels: 4096,
            queue_bytes: 256 << 10,
            message_bytes: 64 << 20,
            sender_bytes: 256 << 20,
        }
    }
}

/// What a core is made with.
#[derive(Debug)]
pub struct Setup {
    /// The node's name, as it registers: `login` or `login@a`.
    pub node: String,
    /// Microseconds since 1970.
    pub epoch: u64,
    /// This instance.
    pub nonce: Nonce,
    /// Ends the process that has the name.
    pub replace: bool,
    /// The user.
    pub uid: u32,
    /// Makes rings.
    pub memory: Memory,
    /// What it may hold.
    pub limits: Limits,
}

/// What is to be done for the core.
#[derive(Debug)]
pub enum Do {
    /// Connect to the relay's socket, or (from 1 on) to that of its `successor`.
    Dial {
        /// The connection's number.
        conn: ConnNo,
        /// Which socket.
        successor: u8,
    },
    /// Say a line.
    Say(ConnNo, Said<ToRelay>),
    /// Close a connection.
    Hang(ConnNo),
    /// Connect to the relay's bell, and say the token.
    OpenBell {
        /// Where.
        address: String,
        /// What to say.
        token: Nonce,
    },
    /// Close the bell.
    CloseBell,
    /// Listen for neighbours of that user, then [`Core::listening`].
    Listen {
        /// Of the introduction.
        token: Nonce,
        /// Who may come.
        uid: u32,
        /// Bytes of the ring that it should bring.
        ring: u32,
    },
    /// Connect to a neighbour, then [`Core::met`].
    Meet {
        /// The channel.
        id: u32,
        /// Where.
        address: String,
    },
    /// Close the link to a neighbour, after all that was written.
    Part {
        /// The channel.
        id: u32,
    },
}

/// What the user is told, beside messages.
#[derive(Debug)]
pub enum Event {
    /// About the relay.
    Relay(RelayEvent),
    /// About a peer.
    Peer(PeerEvent),
    /// There is room again where there was none.
    Writable {
        /// The node, or the group.
        to: Rc<str>,
        /// The channel.
        chan: u16,
    },
    /// A call ends without an answer.
    CallFailed {
        /// Its number.
        call: u64,
        /// Why.
        why: BusError,
    },
    /// After [`Core::close`].
    Closed {
        /// Records that are not acknowledged; 0 if everything was.
        left: u64,
    },
}

/// See the module text.
#[derive(Debug)]
pub struct Core {
    /// The name without its host.
    node: Rc<str>,
    setup: Setup,
    now: Millis,
    link: Link,
    outs: Slab<Out>,
    /// By the number that the relay knows.
    out_ids: HashMap<u32, Key>,
    /// By name, then by channel.
    out_names: HashMap<Rc<str>, Vec<(u16, Key)>>,
    /// The channel that was sent on last.
    last_out: Option<Key>,
    next_id: u32,
    groups: Vec<Group>,
    ins: Slab<In>,
    in_names: HashMap<(Rc<str>, u16), Key>,
    /// Where the next look for something to read begins.
    next_in: usize,
    expected: HashMap<Nonce, Expected>,
    calls: Calls,
    /// How often rings to send from, and to receive into, were handed to a relay.
    handed: (u32, u32),
    /// When what failed for want of memory or of a neighbour is tried again.
    retry_at: Option<Millis>,
    /// When it is looked how far neighbours are.
    look_at: Option<Millis>,
    closing: Option<Millis>,
    /// Some channel's messages have a deadline.
    timed: bool,
    draining: bool,
    closed: bool,
    todo: VecDeque<Do>,
    events: VecDeque<Event>,
    /// Channels with records that are written and perhaps not published.
    dirty: Vec<Key>,
    /// Something was published when there was no bell to be rung.
    unrung: bool,
    /// Channels for which acknowledgements are waited for.
    waiting_room: BTreeSet<Key>,
}

impl Core {
    /// A process that is about to look for its relay: the first [`Core::tick`] dials.
    pub fn new(setup: Setup) -> Core {
        let bare = setup.node.split('@').next().unwrap_or_default();
        Core {
            node: Rc::from(bare),
            link: Link::new(),
            calls: Calls::new(setup.epoch),
            setup,
            now: 0,
            outs: Slab::with_capacity(0),
            out_ids: HashMap::new(),
            out_names: HashMap::new(),
            last_out: None,
            next_id: 1,
            groups: Vec::new(),
            ins: Slab::with_capacity(0),
            in_names: HashMap::new(),
            next_in: 0,
            expected: HashMap::new(),
            handed: (0, 0),
            retry_at: None,
            look_at: None,
            closing: None,
            timed: false,
            draining: false,
            closed: false,
            todo: VecDeque::new(),
            events: VecDeque::new(),
            dirty: Vec::new(),
            unrung: false,
            waiting_room: BTreeSet::new(),
        }
    }

    /// The node's name, without its host.
    pub fn node(&self) -> &Rc<str> {
        &self.node
    }

    /// This process's epoch.
    pub fn epoch(&self) -> u64 {
        self.setup.epoch
    }

    /// The time of what comes now. It never goes back.
    pub fn set_now(&mut self, now: Millis) {
        self.now = self.now.max(now);
    }

    /// The next thing to do.
    pub fn next_do(&mut self) -> Option<Do> {
        self.todo.pop_front()
    }

    /// The next thing to tell the user.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether [`Core::next_do`] or [`Core::next_event`] has something.
    pub fn has_output(&self) -> bool {
        !self.todo.is_empty() || !self.events.is_empty()
    }

    /// Whether it was closed, and is through with that.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// When [`Core::tick`] is to be called at the latest.
    pub fn deadline(&self) -> Option<Millis> {
        let expected = self.expected.values().map(|expected| expected.until).min();
        [
            self.link.deadline(),
            self.calls.deadline(),
            self.closing,
            self.retry_at,
            self.look_at,
            expected,
        ]
        .into_iter()
        .flatten()
        .min()
        .filter(|_| !self.closed)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Millis) {
        self.set_now(now);
        if self.closed {
            return;
        }
        self.link_tick();
        if self.retry_at.is_some_and(|at| at <= self.now) {
            self.retry_at = None;
            self.retry();
        }
        if self.look_at.is_some_and(|at| at <= self.now) {
            self.look_at = None;
            self.rang();
        }
        let now = self.now;
        self.expected.retain(|_, expected| expected.until > now);
        for call in self.calls.due(now) {
            self.events.push_back(Event::CallFailed { call, why: BusError::TimedOut });
        }
        if self.closing.is_some_and(|until| until <= self.now) {
            self.close_now();
        }
    }

    fn retry_soon(&mut self) {
        let at = self.now + RETRY;
        self.retry_at = Some(self.retry_at.map_or(at, |before| before.min(at)));
    }

    /// A neighbour's progress is looked at again.
    fn look_again(&mut self) {
        self.look_at.get_or_insert(self.now + LOOK);
    }

    /// Ends it in peace: everything that was accepted is sent, and [`Event::Closed`] comes when it
    /// is acknowledged, or after `linger`.
    pub fn close(&mut self, linger: Millis) {
        if self.closing.is_some() || self.closed {
            return;
        }
        self.closing = Some(self.now + linger);
        let keys: Vec<Key> = self.outs.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.close_out(key));
        self.closed_if_through();
    }

    fn closed_if_through(&mut self) {
        if self.closing.is_some() && !self.closed && self.outs.is_empty() {
            self.close_now();
        }
    }

    fn close_now(&mut self) {
        self.publish();
        let left = self.unacknowledged();
        self.link_leave();
        for (_, out) in self.outs.iter().filter(|(_, out)| out.is_direct()) {
            self.todo.push_back(Do::Part { id: out.id });
        }
        self.closed = true;
        for call in self.calls.all() {
            self.events.push_back(Event::CallFailed { call, why: BusError::Closed });
        }
        self.events.push_back(Event::Closed { left });
    }

    /// A line of the relay's on the connection in use.
    fn dispatch(&mut self, line: FromRelay) {
        match line {
            FromRelay::Path { id, node, host: _, terms, direct } => {
                self.path(id, &node, terms, direct);
            }
            FromRelay::Members { id, nodes, pick } => self.members(id, nodes, pick),
            FromRelay::NoPath { id, why } => self.no_path(id, why),
            FromRelay::Connect { id, address, token, epoch } => {
                self.connect_to(id, address, token, epoch);
            }
            FromRelay::Expect { token, from, chan, epoch, uid, terms } => {
                self.expect(token, Expected::new(&from, chan, epoch, terms, self.now), uid);
            }
            FromRelay::Bound { id, epoch } => self.bound(id, epoch),
            FromRelay::Waiting { id, why } => self.out_waits(id, why),
            FromRelay::Gone { id, epoch, first, exact } => self.gone(id, epoch, first, exact),
            FromRelay::Stuck { id, for_ms, why } => self.stuck(id, for_ms, why),
            FromRelay::Closed { id } => self.out_closed(id),
            FromRelay::Incoming { from, chan, epoch, nonce, terms } => {
                self.incoming(ins::Arrival { from: from.into(), chan, epoch, nonce, terms });
            }
            FromRelay::End { from, chan, epoch, last, clean } => {
                self.end_of(&from.into(), chan, epoch, (last, clean));
            }
            FromRelay::Probe { id } => self.say_line(ToRelay::Probed { id }),
            FromRelay::Idle { id } => self.out_idle(id),
            // Its coming is what counts; the rest is of the link's own.
            FromRelay::Pong { .. }
            | FromRelay::Registered { .. }
            | FromRelay::NameInUse { .. }
            | FromRelay::Refused { .. }
            | FromRelay::StaleEpoch { .. }
            | FromRelay::Answer { .. } => {}
        }
    }
}

impl Drop for Core {
    /// What was accepted is published: the relay drains it when this process has gone.
    fn drop(&mut self) {
        self.publish();
    }
}

/// How far a neighbour is, where that is waited for, is looked at so often.
const LOOK: Millis = 10;

/// What failed is tried again after so long.
const RETRY: Millis = 100;
