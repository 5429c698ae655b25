//! Takes connections and hands each to a callback.

use std::collections::VecDeque;
use std::io;
use std::rc::Weak;

use crate::address::Address;
use crate::base::Inner;
use crate::bufferevent::Bufferevent;
use crate::error::Error;
use crate::slab::Key;
use crate::transport::LinkId;

/// Called with each new connection.
pub(crate) type AcceptCallback = Box<dyn FnMut(Bufferevent)>;
/// Called when accepting failed.
pub(crate) type ErrorCallback = Box<dyn FnMut(&Listener, &Error)>;

pub(crate) struct ListenerSlot {
    pub transport: u8,
    pub link: LinkId,
    pub address: Address,
    pub on_accept: Option<AcceptCallback>,
    pub on_error: Option<ErrorCallback>,
    pub accepted: VecDeque<Key>,
    pub errors: VecDeque<io::Error>,
    pub priority: u8,
    pub queued: bool,
    pub enabled: bool,
    pub freed: bool,
    pub counted: bool,
}

/// A handle that owns nothing: the listener lives until [`Listener::free`] or until its base goes.
#[derive(Clone)]
pub struct Listener {
    pub(crate) base: Weak<Inner>,
    pub(crate) key: Key,
    pub(crate) address: Address,
}

impl Listener {
    /// Where it listens, with the real port.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Goes on accepting.
    pub fn enable(&self) {
        self.switch(true);
    }

    /// Stops accepting; connections wait in the kernel's backlog.
    pub fn disable(&self) {
        self.switch(false);
    }

    fn switch(&self, on: bool) {
        if let Some(base) = self.base.upgrade() {
            base.core.borrow_mut().switch_listener(self.key, on);
        }
    }

    /// Called when accepting fails, e.g. because descriptors ran out; it goes on by itself.
    pub fn on_error(&self, callback: impl FnMut(&Listener, &Error) + 'static) {
        let Some(base) = self.base.upgrade() else { return };
        let old = {
            let mut core = base.core.borrow_mut();
            // No closure: a callback that nobody takes is dropped when nothing is borrowed.
            match core.router.listeners.get_mut(self.key) {
                Some(slot) if !slot.freed => slot.on_error.replace(Box::new(callback)),
                _ => None,
            }
        };
        drop(old);
    }

    /// Which queue its callbacks wait in; 0 is served first.
    pub fn set_priority(&self, priority: usize) {
        let Some(base) = self.base.upgrade() else { return };
        if let Some(slot) = base.core.borrow_mut().router.listeners.get_mut(self.key) {
            slot.priority = priority.min(usize::from(u8::MAX)) as u8;
        }
    }

    /// Stops listening for good.
    pub fn free(&self) {
        let Some(base) = self.base.upgrade() else { return };
        let dead = base.core.borrow_mut().free_listener(self.key);
        drop(dead);
        base.bury();
    }
}
