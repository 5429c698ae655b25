//! A handle on one of a bufferevent's two buffers. Each method borrows for its own duration; a
//! change of an output only marks the bufferevent for the end of the turn.

use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use crate::base::Inner;
use crate::bev::flag;
use crate::evbuffer::{ChangeId, Edge, Eol, Evbuffer, EvbufferChange, Pending};
use crate::fd::{Fd, FdKind};
use crate::mutant::{self, Mutant};
use crate::segment::Segment;
use crate::slab::Key;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Input,
    Output,
}

/// [`Bufferevent::input`](crate::Bufferevent::input) or
/// [`Bufferevent::output`](crate::Bufferevent::output). On a freed bufferevent it is empty and
/// takes nothing.
#[derive(Clone)]
pub struct Buffer {
    pub(crate) base: Weak<Inner>,
    pub(crate) key: Key,
    pub(crate) end: End,
}

/// What [`Buffer::append`] takes from: another [`Buffer`], or an [`Evbuffer`] of one's own.
pub trait Source {
    /// Moves everything in it to the end of `to`.
    fn pour(self, to: &Buffer) -> usize;
}

impl Source for &mut Evbuffer {
    fn pour(self, to: &Buffer) -> usize {
        let n = self.len();
        to.change(|buffer| buffer.append(self));
        n
    }
}

impl Source for &Buffer {
    #[inline]
    fn pour(self, to: &Buffer) -> usize {
        let Some(base) = to.base.upgrade() else { return 0 };
        if self.key == to.key && self.end == to.end && Weak::ptr_eq(&self.base, &to.base) {
            return 0;
        }
        if !Weak::ptr_eq(&self.base, &to.base) {
            let mut moved = self.change(std::mem::take).unwrap_or_default();
            return (&mut moved).pour(to);
        }
        let (n, watched) = {
            let mut core = base.core.borrow_mut();
            let router = &mut core.router;
            if router.bevs.get(to.key).is_none_or(|bev| bev.has(flag::FREED)) {
                return 0;
            }
            // What a freed one still sends is no longer anybody's to take.
            let from = router.bevs.get_mut(self.key).filter(|bev| !bev.has(flag::FREED));
            let Some(from) = from else { return 0 };
            let mut moved = std::mem::take(self.end.of(from));
            let n = moved.len();
            if let Some(into) = router.bevs.get_mut(to.key) {
                to.end.of(into).append(&mut moved);
            }
            // What is left is the empty chain with its capacity: it goes back.
            if let Some(from) = router.bevs.get_mut(self.key)
                && self.end.of(from).is_empty()
            {
                *self.end.of(from) = moved;
            }
            let watched = after_change(router, to) | after_change(router, self);
            (n, watched)
        };
        if watched {
            base.changed(self);
            base.changed(to);
        }
        n
    }
}

impl Source for Buffer {
    #[inline]
    fn pour(self, to: &Buffer) -> usize {
        (&self).pour(to)
    }
}

impl End {
    #[inline]
    pub(crate) fn of(self, bev: &mut crate::bev::Bev) -> &mut Evbuffer {
        match self {
            End::Input => &mut bev.input,
            End::Output => &mut bev.output,
        }
    }
}

/// Marks what has to look at the buffer again. Whether its change callbacks wait.
#[inline]
fn after_change(router: &mut crate::router::Router, buffer: &Buffer) -> bool {
    let Some(bev) = router.bevs.get_mut(buffer.key) else { return false };
    let watched = buffer.end.of(bev).is_watched();
    let flying = bev.in_flight > 0;
    match buffer.end {
        End::Output => {
            if let crate::bev::Under::Filter { .. } = bev.under {
                bev.set(flag::PENDING_FILTER);
                router.queue_bev(buffer.key.slot);
            }
            if !flying || !mutant::on(Mutant::DirtyLost) {
                router.mark_dirty(buffer.key.slot);
            }
        }
        // A window may have opened.
        End::Input if bev.has(flag::GRANT_SOME) || bev.more.is_some() => {
            router.mark_dirty(buffer.key.slot);
        }
        End::Input => {}
    }
    watched
}

/// Change callbacks out of their buffer; they go back when they return or panic, unless the buffer
/// is gone.
struct Told<'a> {
    inner: &'a Inner,
    buffer: &'a Buffer,
    pending: Option<Pending>,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        let mut core = self.inner.core.borrow_mut();
        match core.router.bevs.get_mut(self.buffer.key) {
            Some(bev) if !bev.has(flag::FREED) => self.buffer.end.of(bev).put_back(pending),
            _ => {
                // Dropping a callback may run the user's code: not while the core is borrowed.
                drop(core);
                drop(pending);
            }
        }
    }
}

impl Inner {
    /// Runs the change callbacks of a buffer that was just changed, with nothing borrowed.
    #[inline]
    pub(crate) fn changed(&self, buffer: &Buffer) {
        let pending = {
            let mut core = self.core.borrow_mut();
            let bev = core.router.bevs.get_mut(buffer.key);
            bev.and_then(|bev| buffer.end.of(bev).take_pending())
        };
        if pending.is_none() {
            return;
        }
        let mut told = Told { inner: self, buffer, pending };
        if let Some(pending) = &mut told.pending {
            pending.run();
        }
    }
}

/// A buffer out of its slot; it goes back, in front of what came to the slot meanwhile.
struct Away<'a> {
    place: &'a Buffer,
    buffer: Evbuffer,
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        let buffer = &mut self.buffer;
        self.place.change(|place| {
            std::mem::swap(place, buffer);
            place.append(buffer);
        });
    }
}

impl Buffer {
    /// Runs `f` on the buffer, which is out of its place meanwhile: what is written to it by other
    /// ways comes behind.
    pub fn with<R>(&self, f: impl FnOnce(&mut Evbuffer) -> R) -> Option<R> {
        let mut away = Away { place: self, buffer: self.change(std::mem::take)? };
        Some(f(&mut away.buffer))
    }

    /// Runs `f` on the buffer in its place. The base is borrowed meanwhile: `f` drops nothing of
    /// the user's.
    fn change<R>(&self, f: impl FnOnce(&mut Evbuffer) -> R) -> Option<R> {
        let base = self.base.upgrade()?;
        let result = {
            let mut core = base.core.borrow_mut();
            let router = &mut core.router;
            let bev = router.bevs.get_mut(self.key).filter(|bev| !bev.has(flag::FREED))?;
            let result = f(self.end.of(bev));
            (result, after_change(router, self))
        };
        let (result, watched) = result;
        if watched {
            base.changed(self);
        }
        Some(result)
    }

    fn look<R>(&self, f: impl FnOnce(&Evbuffer) -> R) -> Option<R> {
        let base = self.base.upgrade()?;
        let mut core = base.core.borrow_mut();
        let bev = core.router.bevs.get_mut(self.key).filter(|bev| !bev.has(flag::FREED))?;
        Some(f(self.end.of(bev)))
    }

    /// Bytes in it; of an output, with those that the transport still holds.
    #[inline]
    pub fn len(&self) -> usize {
        let Some(base) = self.base.upgrade() else { return 0 };
        let core = base.core.borrow();
        let bev = core.router.bevs.get(self.key).filter(|bev| !bev.has(flag::FREED));
        bev.map_or(0, |bev| match self.end {
            End::Input => bev.input.len(),
            End::Output => bev.output_len(),
        })
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `bytes` to the end.
    #[inline]
    pub fn add(&self, bytes: &[u8]) {
        let Some(base) = self.base.upgrade() else { return };
        {
            let mut core = base.core.borrow_mut();
            let router = &mut core.router;
            let home = Rc::clone(&router.writing);
            let bev = router.bevs.get_mut(self.key).filter(|bev| !bev.has(flag::FREED));
            let Some(bev) = bev else { return };
            self.end.of(bev).add_in(&home, bytes);
            if !after_change(router, self) {
                return;
            }
        }
        base.changed(self);
    }

    /// Copies `bytes` to the front.
    pub fn prepend(&self, bytes: &[u8]) {
        self.change(|buffer| {
            buffer.prepend(bytes);
        });
    }

    /// Moves everything from `source` to the end, without a copy.
    #[inline]
    pub fn append(&self, source: impl Source) {
        source.pour(self);
    }

    /// Moves up to `n` bytes from the front of `source`; returns how many.
    pub fn append_n(&self, source: &Buffer, n: usize) -> usize {
        let mut moved = Evbuffer::new();
        source.change(|from| moved.append_n(from, n));
        (&mut moved).pour(self)
    }

    /// Drops up to `n` bytes from the front; none while the start is frozen.
    pub fn drain(&self, n: usize) {
        let mut dead: Vec<Segment> = Vec::new();
        self.change(|buffer| {
            if !buffer.is_frozen(Edge::Start) {
                buffer.drain_into(n, &mut dead);
            }
        });
    }

    /// Moves bytes from the front into `into`; returns how many. None while the start is frozen.
    pub fn remove(&self, into: &mut [u8]) -> usize {
        if self.look(|buffer| buffer.is_frozen(Edge::Start)).unwrap_or(false) {
            return 0;
        }
        let n = self.copyout(into);
        self.drain(n);
        n
    }

    /// Copies bytes from the front into `into`, leaving them; returns how many.
    pub fn copyout(&self, into: &mut [u8]) -> usize {
        self.look(|buffer| buffer.copyout(into)).unwrap_or(0)
    }

    /// A copy of everything.
    pub fn to_vec(&self) -> Vec<u8> {
        self.look(Evbuffer::to_vec).unwrap_or_default()
    }

    /// Takes everything out.
    pub fn take(&self) -> Vec<u8> {
        let bytes = self.to_vec();
        self.drain(bytes.len());
        bytes
    }

    /// Takes everything out, without a copy.
    pub fn detach(&self) -> Evbuffer {
        let mut all = Evbuffer::new();
        self.change(|buffer| all.append(buffer));
        all
    }

    /// Takes a line out, without its end (see [`Eol`]).
    pub fn readln(&self, eol: Eol) -> Option<Vec<u8>> {
        self.with(|buffer| buffer.readln(eol)).flatten()
    }

    /// Where `pattern` first stands.
    pub fn search(&self, pattern: &[u8]) -> Option<usize> {
        self.look(|buffer| buffer.search(pattern)).flatten()
    }

    /// Calls `callback` after each change through this handle or of the loop's own, with nothing
    /// borrowed.
    pub fn on_change(&self, callback: impl FnMut(&EvbufferChange) + 'static) -> Option<ChangeId> {
        self.change(|buffer| {
            buffer.defer_changes(true);
            buffer.on_change(callback)
        })
    }

    /// Adds memory of yours without a copy; it is dropped when its bytes are sent.
    pub fn add_reference(&self, memory: impl AsRef<[u8]> + 'static) {
        // A second holder, because memory that is empty, or that nobody takes, ends at once.
        let memory: Rc<dyn AsRef<[u8]>> = Rc::new(memory);
        let held = Rc::clone(&memory);
        self.change(|buffer| buffer.add_memory(memory));
        drop(held);
    }

    /// Adds a range of a file, sent without passing through user memory.
    pub fn add_file(&self, file: OwnedFd, offset: u64, len: u64) {
        self.change(|buffer| {
            buffer.add_file(Fd::from_os(file, FdKind::File), offset, len);
        });
    }
}
