//! A connection with a buffer on each side, and callbacks: libevent's bufferevent.
//!
//! A [`Bufferevent`] is a handle that owns nothing: callbacks may capture it freely. The
//! connection lives until [`Bufferevent::free`] or [`Bufferevent::abort`], or until its base goes.

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::address::Address;
use crate::base::{EventBase, Inner};
use crate::bev::{Bev, HeldEnd, Timeout, Under, flag};
use crate::buffer::{Buffer, End};
use crate::error::{Error, Result};
use crate::evbuffer::Evbuffer;
use crate::reactor::{Credentials, Side};
use crate::router::Router;
use crate::slab::Key;
use crate::timeout::restart_timeouts;
use crate::transport::LinkInfo;

/// Which directions [`Bufferevent::enable`] and [`Bufferevent::disable`] mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Direction(u8);

/// Receiving.
pub const READ: Direction = Direction(1);
/// Sending; enabled from the start.
pub const WRITE: Direction = Direction(2);

impl Direction {
    fn has(self, other: Direction) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for Direction {
    type Output = Direction;
    fn bitor(self, other: Direction) -> Direction {
        Direction(self.0 | other.0)
    }
}

/// What happened to a connection, besides bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum BevEvent {
    /// It is connected.
    Connected,
    /// The peer has ended its direction; what it sent before is in the input.
    Eof,
    /// A direction broke.
    Error {
        /// Which.
        side: Side,
        /// Why.
        error: Error,
    },
    /// No progress for as long as [`Bufferevent::set_timeouts`] allows; that direction is now
    /// disabled.
    Timeout(Side),
}

impl BevEvent {
    /// Whether nothing more will be received.
    ///
    /// ```
    /// assert!(ringlane_api::BevEvent::Eof.is_end());
    /// assert!(!ringlane_api::BevEvent::Connected.is_end());
    /// ```
    pub fn is_end(&self) -> bool {
        matches!(self, BevEvent::Eof | BevEvent::Error { .. })
    }
}

impl fmt::Display for BevEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BevEvent::Connected => f.write_str("connected"),
            BevEvent::Eof => f.write_str("end of stream"),
            BevEvent::Error { error, .. } => write!(f, "{error}"),
            BevEvent::Timeout(Side::Read) => f.write_str("nothing received in time"),
            BevEvent::Timeout(_) => f.write_str("nothing sent in time"),
        }
    }
}

/// One state object per connection, instead of closures.
pub trait Handler {
    /// The connection is made.
    fn on_connected(&mut self, _conn: &Bufferevent) {}
    /// The input holds at least its low watermark.
    fn on_read(&mut self, conn: &Bufferevent);
    /// The output has fallen to its low watermark.
    fn on_written(&mut self, _conn: &Bufferevent) {}
    /// Something else happened.
    fn on_event(&mut self, conn: &Bufferevent, event: &BevEvent);
}

/// What a filter does to the bytes between two bufferevents: TLS, compression, a cipher.
pub trait Filter {
    /// Turns received bytes into what the user reads. `end` says that no more will come.
    fn input(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, end: bool) -> io::Result<()>;
    /// Turns written bytes into what is sent. `end` says that no more will come.
    fn output(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, end: bool) -> io::Result<()>;
    /// Whether it has something to send although nothing was written, as an answer of a handshake
    /// is. Asked after [`Filter::input`]; [`Filter::output`] is then called.
    fn has_output(&self) -> bool {
        false
    }
}

/// See the module text.
#[derive(Clone)]
pub struct Bufferevent {
    pub(crate) base: Weak<Inner>,
    pub(crate) key: Key,
}

impl Bufferevent {
    fn with<R>(&self, f: impl FnOnce(&mut Router, Key) -> R) -> Option<R> {
        let base = self.base.upgrade()?;
        let mut core = base.core.borrow_mut();
        if core.router.bevs.get(self.key).is_none_or(|bev| bev.has(flag::FREED)) {
            // `f` may hold a callback of the user's: it is dropped when nothing is borrowed.
            drop(core);
            return None;
        }
        Some(f(&mut core.router, self.key))
    }

    fn with_bev<R>(&self, f: impl FnOnce(&mut Bev) -> R) -> Option<R> {
        self.with(|router, key| router.bevs.get_mut(key).map(f)).flatten()
    }

    /// Called when the input holds at least its low watermark of bytes, after more came.
    ///
    /// ```no_run
    /// # fn f(conn: &ringlane_api::Bufferevent) {
    /// conn.on_read(|c| c.output().append(c.input()));
    /// # }
    /// ```
    pub fn on_read(&self, callback: impl FnMut(&Bufferevent) + 'static) {
        let old = self.with_bev(|bev| bev.on_read.replace(Box::new(callback)));
        drop(old);
    }

    /// Called when what was written has been handed over, down to the low watermark.
    pub fn on_write(&self, callback: impl FnMut(&Bufferevent) + 'static) {
        let old = self.with_bev(|bev| bev.on_write.replace(Box::new(callback)));
        drop(old);
    }

    /// Called when the connection is made, ends, breaks or runs out of time.
    pub fn on_event(&self, callback: impl FnMut(&Bufferevent, &BevEvent) + 'static) {
        let old = self.with_bev(|bev| bev.on_event.replace(Box::new(callback)));
        drop(old);
    }

    /// One object for all callbacks, in place of closures.
    pub fn set_handler(&self, handler: impl Handler + 'static) {
        let old = self.with_bev(|bev| bev.more().handler.replace(Box::new(handler)));
        drop(old);
    }

    /// Starts a direction. What came while reading was off is then told.
    pub fn enable(&self, direction: Direction) {
        self.with(|router, key| {
            let now = router.now();
            let Some(bev) = router.bevs.get_mut(key) else { return };
            if direction.has(WRITE) && !bev.has(flag::WRITE_ON) {
                bev.set(flag::WRITE_ON);
                bev.progress(Side::Write, now);
            }
            if direction.has(READ) && !bev.has(flag::READ_ON) {
                bev.set(flag::READ_ON);
                bev.progress(Side::Read, now);
                tell_held(bev);
            }
            router.mark_dirty(key.slot);
            router.queue_bev(key.slot);
            restart_timeouts(router, key);
        });
    }

    /// Stops a direction. Bytes already under way are kept until it is enabled again.
    pub fn disable(&self, direction: Direction) {
        self.with(|router, key| {
            let Some(bev) = router.bevs.get_mut(key) else { return };
            if direction.has(WRITE) {
                bev.clear(flag::WRITE_ON);
            }
            if direction.has(READ) {
                bev.clear(flag::READ_ON);
            }
            router.mark_dirty(key.slot);
        });
    }

    /// Received bytes.
    #[inline]
    pub fn input(&self) -> Buffer {
        Buffer { base: self.base.clone(), key: self.key, end: End::Input }
    }

    /// Bytes to send. [`Buffer::len`] of it counts those that the transport still holds.
    #[inline]
    pub fn output(&self) -> Buffer {
        Buffer { base: self.base.clone(), key: self.key, end: End::Output }
    }

    /// `low`: the read callback waits for so many bytes. `high`: the peer is stopped when so many
    /// are unread; 0 means never.
    pub fn set_read_watermark(&self, low: usize, high: usize) {
        self.with(|router, key| {
            if let Some(bev) = router.bevs.get_mut(key) {
                let more = bev.more();
                (more.read_low, more.read_high) = (low, high);
            }
            router.mark_dirty(key.slot);
        });
    }

    /// `low`: the write callback comes when no more than so many bytes are left. `high`: when what
    /// callbacks write in answer makes the output grow over it, reading from the peer pauses until
    /// half of it is sent; the default is 256 KiB. It is what keeps a client that sends and never
    /// reads from growing a server.
    pub fn set_write_watermark(&self, low: usize, high: usize) {
        self.with(|router, key| {
            if let Some(bev) = router.bevs.get_mut(key) {
                let more = bev.more();
                (more.write_low, more.write_high) = (low, Some(high));
            }
            router.mark_dirty(key.slot);
        });
    }

    /// How long a direction may make no progress while it wants to: reading while it is enabled,
    /// writing while there is something to send.
    pub fn set_timeouts(&self, read: Option<Duration>, write: Option<Duration>) {
        self.with(|router, key| {
            let now = router.now();
            let Some(bev) = router.bevs.get_mut(key) else { return };
            if bev.more.is_none() && read.is_none() && write.is_none() {
                return;
            }
            let more = bev.more();
            let limit = |after| Timeout { after, progress: now, timer: None };
            let old = [
                std::mem::replace(&mut more.read_timeout, read.map(limit)),
                std::mem::replace(&mut more.write_timeout, write.map(limit)),
            ];
            for timer in old.into_iter().flatten().filter_map(|limit| limit.timer) {
                router.wheel.cancel(timer);
            }
            restart_timeouts(router, key);
        });
    }

    /// Which queue its callbacks wait in; 0 is served first.
    pub fn set_priority(&self, priority: usize) {
        self.with_bev(|bev| bev.priority = priority.min(usize::from(u8::MAX)) as u8);
    }

    /// Half close: ends our direction after everything written so far. The peer sees the end of
    /// the stream and may go on sending.
    pub fn finish(&self) {
        self.with(|router, key| {
            if let Some(bev) = router.bevs.get_mut(key) {
                bev.set(flag::FINISH);
                if let Under::Filter { .. } = bev.under {
                    bev.set(flag::PENDING_FILTER);
                }
            }
            router.mark_dirty(key.slot);
            router.queue_bev(key.slot);
        });
    }

    /// Hands the output to the transport now instead of at the end of the turn.
    pub fn flush(&self) {
        if let Some(base) = self.base.upgrade() {
            base.core.borrow_mut().flush_one(self.key);
            base.bury();
        }
    }

    /// Lets go of it: no callback comes any more; what was written is still sent (as long as the
    /// peer takes it), then the connection is closed.
    pub fn free(&self) {
        self.let_go(false);
    }

    /// Ends it now; output that was not sent is dropped.
    pub fn abort(&self) {
        self.let_go(true);
    }

    fn let_go(&self, now: bool) {
        let Some(base) = self.base.upgrade() else { return };
        let dead = base.core.borrow_mut().free_bev(self.key, now);
        drop(dead);
        base.bury();
    }

    /// Sends descriptors along with the next byte that is written (unix(7) SCM_RIGHTS).
    pub fn send_fds(&self, fds: Vec<OwnedFd>) -> Result<()> {
        let Some(base) = self.base.upgrade() else { return Err(gone("send descriptors")) };
        let mut core = base.core.borrow_mut();
        let core = &mut *core;
        let bev = core.router.bevs.get_mut(self.key).filter(|bev| !bev.has(flag::FREED));
        let Some(bev) = bev else { return Err(gone("send descriptors")) };
        let able = match bev.under {
            Under::Link { transport, .. } => core.transports[transport as usize].caps().fd_passing,
            _ => false,
        };
        if !able {
            return Err(Error::refused(
                "send descriptors",
                "connections of this kind carry no descriptors",
            ));
        }
        if bev.more().fds_out.len() + fds.len() > crate::limits::MESSAGE_FDS_MAX {
            return Err(Error::refused(
                "send descriptors",
                format!("at most {} go with one byte", crate::limits::MESSAGE_FDS_MAX),
            ));
        }
        for fd in fds {
            // The descriptor is only passed on, so what it is does not matter.
            bev.more().fds_out.push(crate::fd::Fd::from_os(fd, crate::fd::FdKind::Pollable));
        }
        Ok(())
    }

    /// Descriptors that the peer sent (see `LinkOptions::receive_fds`).
    pub fn take_fds(&self) -> Vec<OwnedFd> {
        let fds = self.with(|router, key| router.take_fds(key)).unwrap_or_default();
        fds.into_iter().filter_map(|fd| fd.into_os().ok()).collect()
    }

    /// Both ends' names and, on local transports, who is there.
    pub fn info(&self) -> LinkInfo {
        let Some(base) = self.base.upgrade() else { return LinkInfo::default() };
        let mut core = base.core.borrow_mut();
        let bev = core.router.bevs.get(self.key).filter(|bev| !bev.has(flag::FREED));
        match bev.map(|bev| bev.under) {
            Some(Under::Link { transport, link }) => {
                core.with_transport(transport, |transport, cx| transport.info(cx, link))
            }
            Some(Under::Filter { below }) => {
                drop(core);
                Bufferevent { base: self.base.clone(), key: below }.info()
            }
            _ => LinkInfo::default(),
        }
    }

    /// The other end's address.
    pub fn peer(&self) -> Option<Address> {
        self.info().peer
    }

    /// This end's address.
    pub fn local(&self) -> Option<Address> {
        self.info().local
    }

    /// Who is at the other end, on local transports.
    pub fn credentials(&self) -> Option<Credentials> {
        self.info().credentials
    }

    /// Gives the descriptor of a connection away on which nothing was read or written yet.
    pub fn release_fd(&self) -> Option<OwnedFd> {
        let base = self.base.upgrade()?;
        let (fd, dead) = {
            let mut core = base.core.borrow_mut();
            let bev = core.router.bevs.get(self.key)?;
            let Under::Link { transport, link } = bev.under else { return None };
            if bev.has(flag::FREED) || bev.output_len() > 0 {
                return None;
            }
            let fd =
                core.with_transport(transport, |transport, cx| transport.release_fd(cx, link))?;
            (fd, core.free_bev(self.key, true))
        };
        drop(dead);
        base.bury();
        fd.into_os().ok()
    }

    /// Another way to read and write an open link than as a stream of bytes, where its transport
    /// has one: `T` is a type of that transport's. `None` where it has none of that type, and
    /// before the connection is made.
    ///
    /// ```
    /// # fn f(conn: &ringlane_api::Bufferevent) {
    /// struct NobodysFace;
    /// assert!(conn.face::<NobodysFace>().is_none());
    /// # }
    /// ```
    pub fn face<T: Any>(&self) -> Option<T> {
        let base = self.base.upgrade()?;
        let mut core = base.core.borrow_mut();
        let bev = core.router.bevs.get(self.key).filter(|bev| !bev.has(flag::FREED))?;
        let Under::Link { transport, link } = bev.under else { return None };
        let face = core.transports[transport as usize].face(link)?;
        face.downcast().ok().map(|face| *face)
    }

    /// The base it lives in.
    pub fn base(&self) -> Option<EventBase> {
        self.base.upgrade().map(EventBase)
    }

    /// Whether it was not freed yet.
    pub fn is_alive(&self) -> bool {
        self.with_bev(|_| ()).is_some()
    }

    /// Whether the connection is made.
    pub fn is_connected(&self) -> bool {
        self.with_bev(|bev| bev.has(flag::CONNECTED)).unwrap_or(false)
    }
}

impl PartialEq for Bufferevent {
    fn eq(&self, other: &Bufferevent) -> bool {
        self.key == other.key && Weak::ptr_eq(&self.base, &other.base)
    }
}

impl Eq for Bufferevent {}

impl fmt::Debug for Bufferevent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bufferevent({:?})", self.key)
    }
}

pub(crate) fn gone(operation: &'static str) -> Error {
    Error::refused(operation, "the bufferevent or its base is gone")
}

/// Hands over what came while reading was off.
pub(crate) fn tell_held(bev: &mut Bev) {
    if !bev.has(flag::HELD) && !bev.has(flag::READ_OVER) {
        return;
    }
    bev.clear(flag::HELD);
    let Some(more) = &mut bev.more else { return };
    let end = more.held_end.take();
    let (mut held, low) = (std::mem::take(&mut more.held), more.read_low);
    if !held.is_empty() {
        bev.input.append(&mut held);
        if bev.input.len() >= low {
            bev.set(flag::PENDING_READ);
        }
    }
    match end {
        Some(HeldEnd::Eof) => bev.say(BevEvent::Eof),
        Some(HeldEnd::Failed(error)) => bev.say(BevEvent::Error { side: Side::Read, error }),
        None => {}
    }
}

/// A handle for a slot of `base`.
pub(crate) fn handle(base: &Rc<Inner>, key: Key) -> Bufferevent {
    Bufferevent { base: Rc::downgrade(base), key }
}
