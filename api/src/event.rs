//! Readiness of any descriptor, timers, signals and user activation: libevent's event.

use std::fmt;
use std::rc::Weak;
use std::time::Duration;

use crate::base::{EventBase, Inner};
use crate::fd::Fd;
use crate::reactor::{OpId, Ready};
use crate::slab::Key;
use crate::wheel::TimerId;

/// What an [`Event`] waits for, or what came.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct What(u8);

impl What {
    /// Nothing.
    pub const NONE: What = What(0);
    /// Readable, or at its end.
    pub const READ: What = What(1);
    /// Writable.
    pub const WRITE: What = What(2);
    /// The time given to [`Event::add`] has passed.
    pub const TIMEOUT: What = What(4);
    /// A signal came.
    pub const SIGNAL: What = What(8);
    /// Stays added after it came (otherwise it is one-shot).
    pub const PERSIST: What = What(16);
    /// Reported when it arises, not as long as it holds.
    pub const EDGE: What = What(32);

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: What) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in it.
    pub const fn intersects(self, other: What) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn ready(self) -> Ready {
        let mut ready = Ready::NONE;
        if self.contains(What::READ) {
            ready |= Ready::READ;
        }
        if self.contains(What::WRITE) {
            ready |= Ready::WRITE;
        }
        ready
    }

    /// What a poll brought, of what this waits for. A hang-up counts as whatever is waited for.
    pub(crate) fn met_by(self, ready: Ready) -> What {
        let mut met = What::NONE;
        if ready.intersects(Ready::READ | Ready::HANGUP) {
            met = met | What::READ;
        }
        if ready.intersects(Ready::WRITE | Ready::HANGUP) {
            met = met | What::WRITE;
        }
        What(met.0 & self.0)
    }
}

impl std::ops::BitOr for What {
    type Output = What;
    fn bitor(self, other: What) -> What {
        What(self.0 | other.0)
    }
}

impl fmt::Debug for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["READ", "WRITE", "TIMEOUT", "SIGNAL", "PERSIST", "EDGE"];
        let set = names.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0);
        let list: Vec<&str> = set.map(|(_, name)| *name).collect();
        write!(f, "What({})", if list.is_empty() { "NONE".into() } else { list.join("|") })
    }
}

/// A signal number.
///
/// ```
/// assert_eq!(ringlane_api::Signal::SIGTERM.0, 15);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Signal(pub i32);

/// Numbers of signal(7) that are the same on every Linux architecture we build for.
#[allow(missing_docs)]
impl Signal {
    pub const SIGHUP: Signal = Signal(1);
    pub const SIGINT: Signal = Signal(2);
    pub const SIGQUIT: Signal = Signal(3);
    pub const SIGUSR1: Signal = Signal(10);
    pub const SIGUSR2: Signal = Signal(12);
    pub const SIGPIPE: Signal = Signal(13);
    pub const SIGALRM: Signal = Signal(14);
    pub const SIGTERM: Signal = Signal(15);
    pub const SIGCHLD: Signal = Signal(17);
    pub const SIGCONT: Signal = Signal(18);
    pub const SIGWINCH: Signal = Signal(28);
}

/// An event's callback.
pub(crate) type EventFn = Box<dyn FnMut(&Event, What)>;

pub(crate) struct EventSlot {
    pub fd: Option<Fd>,
    pub what: What,
    pub callback: Option<EventFn>,
    pub op: Option<OpId>,
    /// Tells a late completion of an earlier poll from one of this.
    pub epoch: u16,
    pub timer: Option<TimerId>,
    pub timeout: Option<Duration>,
    pub pending: What,
    pub added: bool,
    pub queued: bool,
    pub freed: bool,
    pub counted: bool,
    pub priority: u8,
}

impl EventSlot {
    pub fn new(fd: Option<Fd>, what: What, callback: EventFn) -> EventSlot {
        EventSlot {
            fd,
            what,
            callback: Some(callback),
            op: None,
            epoch: 0,
            timer: None,
            timeout: None,
            pending: What::NONE,
            added: false,
            queued: false,
            freed: false,
            counted: false,
            priority: 0,
        }
    }
}

/// A handle that owns nothing: the event lives until [`Event::free`] or until its base goes.
#[derive(Clone)]
pub struct Event {
    pub(crate) base: Weak<Inner>,
    pub(crate) key: Key,
}

impl Event {
    /// Starts to wait. With a `timeout` the callback also comes, with [`What::TIMEOUT`], when
    /// nothing else came for so long. Adding it again sets the timeout anew.
    pub fn add(&self, timeout: Option<Duration>) {
        if let Some(base) = self.base.upgrade() {
            base.core.borrow_mut().add_event(self.key, timeout);
        }
    }

    /// Stops waiting. What was about to be called is not.
    pub fn del(&self) {
        if let Some(base) = self.base.upgrade() {
            base.core.borrow_mut().del_event(self.key);
        }
    }

    /// Whether it waits or is about to be called.
    pub fn is_pending(&self) -> bool {
        let Some(base) = self.base.upgrade() else { return false };
        let core = base.core.borrow();
        let slot = core.router.events.get(self.key);
        slot.is_some_and(|slot| !slot.freed && (slot.added || slot.pending != What::NONE))
    }

    /// Calls the callback in this or the next turn, as if `what` had come.
    pub fn activate(&self, what: What) {
        if let Some(base) = self.base.upgrade() {
            base.core.borrow_mut().activate_event(self.key, what);
        }
    }

    /// Which queue its callback waits in; 0 is served first.
    pub fn set_priority(&self, priority: usize) {
        let Some(base) = self.base.upgrade() else { return };
        if let Some(slot) = base.core.borrow_mut().router.events.get_mut(self.key) {
            slot.priority = priority.min(usize::from(u8::MAX)) as u8;
        }
    }

    /// Ends it; the descriptor is closed if it was its last holder.
    pub fn free(&self) {
        let Some(base) = self.base.upgrade() else { return };
        let dead = base.core.borrow_mut().free_event(self.key);
        drop(dead);
    }

    /// The base it lives in.
    pub fn base(&self) -> Option<EventBase> {
        self.base.upgrade().map(EventBase)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({:?})", self.key)
    }
}
