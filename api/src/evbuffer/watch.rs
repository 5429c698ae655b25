//! Frozen ends, and callbacks on change: what few buffers need and none pays for.

use std::any::Any;
use std::mem;

use super::Evbuffer;
use super::view::Reserved;

/// An end of a buffer, to freeze.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edge {
    /// Where bytes are taken.
    Start,
    /// Where bytes are added.
    End,
}

/// What happened to a buffer since its callbacks ran last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EvbufferChange {
    /// Its length before.
    pub before: usize,
    /// Bytes added since.
    pub added: usize,
    /// Bytes removed since.
    pub removed: usize,
}

/// Names a callback, for [`Evbuffer::forget_change`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangeId(u64);

type Watcher = (ChangeId, Box<dyn FnMut(&EvbufferChange)>);

#[derive(Default)]
pub(super) struct Extra {
    frozen_start: bool,
    frozen_end: bool,
    deferred: bool,
    added: usize,
    removed: usize,
    next_id: u64,
    pub(super) reserved: Option<Reserved>,
    watchers: Vec<Watcher>,
}

/// The callbacks of a buffer, taken out so that they can run while nothing is borrowed.
pub struct Pending {
    change: EvbufferChange,
    watchers: Vec<Watcher>,
}

impl Extra {
    #[inline]
    pub(super) fn note(&mut self, added: usize, removed: usize) {
        self.added += added;
        self.removed += removed;
        self.reserved = None;
    }
}

impl Pending {
    /// Runs the callbacks; then [`Evbuffer::put_back`] returns them to their buffer.
    pub fn run(&mut self) {
        for (_, callback) in &mut self.watchers {
            callback(&self.change);
        }
    }
}

impl Evbuffer {
    /// Forbids changes at one end: verbs that would make one do nothing and say so.
    ///
    /// ```
    /// use ringlane_api::evbuffer::{Edge, Evbuffer};
    /// let mut buffer = Evbuffer::new();
    /// buffer.freeze(Edge::End);
    /// assert!(!buffer.add(b"no"));
    /// buffer.unfreeze(Edge::End);
    /// assert!(buffer.add(b"yes"));
    /// ```
    pub fn freeze(&mut self, edge: Edge) {
        let extra = self.extra.get_or_insert_default();
        match edge {
            Edge::Start => extra.frozen_start = true,
            Edge::End => extra.frozen_end = true,
        }
    }

    /// Allows changes at one end again.
    ///
    /// ```
    /// # use ringlane_api::evbuffer::{Edge, Evbuffer};
    /// let mut buffer = Evbuffer::from(&b"abc"[..]);
    /// buffer.freeze(Edge::Start);
    /// assert_eq!(buffer.drain(1), 0);
    /// buffer.unfreeze(Edge::Start);
    /// assert_eq!(buffer.drain(1), 1);
    /// ```
    pub fn unfreeze(&mut self, edge: Edge) {
        if let Some(extra) = &mut self.extra {
            match edge {
                Edge::Start => extra.frozen_start = false,
                Edge::End => extra.frozen_end = false,
            }
        }
    }

    /// Whether an end is frozen.
    ///
    /// ```
    /// # use ringlane_api::evbuffer::{Edge, Evbuffer};
    /// let mut buffer = Evbuffer::new();
    /// buffer.freeze(Edge::Start);
    /// assert!(buffer.is_frozen(Edge::Start) && !buffer.is_frozen(Edge::End));
    /// ```
    #[inline]
    pub fn is_frozen(&self, edge: Edge) -> bool {
        self.extra.as_ref().is_some_and(|extra| match edge {
            Edge::Start => extra.frozen_start,
            Edge::End => extra.frozen_end,
        })
    }

    /// Calls `callback` after each verb that changed the buffer.
    ///
    /// ```
    /// use ringlane_api::Evbuffer;
    /// use std::{cell::Cell, rc::Rc};
    /// let total = Rc::new(Cell::new(0));
    /// let seen = Rc::clone(&total);
    /// let mut buffer = Evbuffer::new();
    /// let id = buffer.on_change(move |change| seen.set(seen.get() + change.added));
    /// buffer.add(b"four");
    /// assert_eq!(total.get(), 4);
    /// assert!(buffer.forget_change(id));
    /// ```
    pub fn on_change(&mut self, callback: impl FnMut(&EvbufferChange) + 'static) -> ChangeId {
        let extra = self.extra.get_or_insert_default();
        if extra.watchers.is_empty() {
            // What went before is not this callback's business.
            (extra.added, extra.removed) = (0, 0);
        }
        let id = ChangeId(extra.next_id);
        extra.next_id += 1;
        extra.watchers.push((id, Box::new(callback)));
        id
    }

    /// Drops a callback; `false` if there is none of that name.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// let id = buffer.on_change(|_| unreachable!("it was forgotten"));
    /// assert!(buffer.forget_change(id) && !buffer.forget_change(id));
    /// buffer.add(b"quietly");
    /// ```
    pub fn forget_change(&mut self, id: ChangeId) -> bool {
        let Some(extra) = &mut self.extra else { return false };
        let before = extra.watchers.len();
        extra.watchers.retain(|(known, _)| *known != id);
        before != extra.watchers.len()
    }

    /// With `true`, callbacks no longer run inside verbs but wait for [`Evbuffer::take_pending`].
    ///
    /// ```
    /// use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.on_change(|change| assert_eq!((change.added, change.removed), (3, 2)));
    /// buffer.defer_changes(true);
    /// buffer.add(b"abc");
    /// buffer.drain(2);
    /// let mut pending = buffer.take_pending().expect("something changed");
    /// pending.run();
    /// buffer.put_back(pending);
    /// assert!(buffer.take_pending().is_none());
    /// ```
    pub fn defer_changes(&mut self, deferred: bool) {
        self.extra.get_or_insert_default().deferred = deferred;
    }

    /// Whether anybody watches it change.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| !extra.watchers.is_empty())
    }

    /// The callbacks, taken out, if something changed that they were not told.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.on_change(|_| ());
    /// assert!(buffer.take_pending().is_none());
    /// buffer.push(ringlane_api::segment::Segment::copied(b"by the machine"));
    /// assert!(buffer.take_pending().is_some());
    /// ```
    pub fn take_pending(&mut self) -> Option<Pending> {
        let extra = self.extra.as_mut()?;
        let (added, removed) = (mem::take(&mut extra.added), mem::take(&mut extra.removed));
        if added + removed == 0 || extra.watchers.is_empty() {
            return None;
        }
        let change = EvbufferChange { before: self.len + removed - added, added, removed };
        Some(Pending { change, watchers: mem::take(&mut extra.watchers) })
    }

    /// Returns callbacks that [`Evbuffer::take_pending`] took out.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.defer_changes(true);
    /// buffer.on_change(|change| println!("{} more", change.added));
    /// buffer.add(b"a");
    /// if let Some(mut pending) = buffer.take_pending() {
    ///     pending.run();
    ///     buffer.put_back(pending);
    /// }
    /// ```
    pub fn put_back(&mut self, mut pending: Pending) {
        let extra = self.extra.get_or_insert_default();
        // Those added meanwhile come behind.
        pending.watchers.append(&mut extra.watchers);
        extra.watchers = pending.watchers;
    }

    /// The callbacks for good, for the caller to drop where that is safe; the ends thaw.
    pub(crate) fn strip(&mut self) -> Option<Box<dyn Any>> {
        self.extra.take().map(|extra| extra as Box<dyn Any>)
    }

    /// Ends a verb of the user: tells the callbacks what changed.
    #[inline]
    pub(super) fn settle(&mut self) {
        if self.extra.as_ref().is_some_and(|extra| !extra.deferred) {
            self.tell();
        }
    }

    #[cold]
    fn tell(&mut self) {
        if let Some(mut pending) = self.take_pending() {
            pending.run();
            self.put_back(pending);
        }
    }
}
