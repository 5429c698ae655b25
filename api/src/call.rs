//! Callbacks out of their slots: taken out, called, put back if the slot is still the same.

use std::rc::Rc;

use crate::base::Inner;
use crate::bev::{EventCallback, PlainCallback, flag};
use crate::bufferevent::{BevEvent, Bufferevent, Handler};
use crate::event::EventFn;
use crate::listener::AcceptCallback;
use crate::mutant::{self, Mutant};
use crate::router::Router;
use crate::slab::Key;

/// A callback out of its slot, with what it is called with.
pub(crate) enum Call {
    Connected(Taken),
    Read(Taken),
    Written(Taken),
    Event(Taken, BevEvent),
    Filter,
    /// Something came for the filter above; `written`: what it wrote has left.
    Above {
        written: bool,
    },
}

/// A callback out of its slot.
pub(crate) enum Taken {
    Read(PlainCallback),
    Write(PlainCallback),
    BevEvent(EventCallback),
    Handler(Box<dyn Handler>),
    Event(EventFn),
    Accept(AcceptCallback),
    AcceptError(crate::listener::ErrorCallback),
}

impl crate::bev::Bev {
    /// Takes the next pending callback out; `None` also if nobody wants it.
    pub(crate) fn next_call(&mut self) -> Option<Call> {
        let handler =
            |bev: &mut Self| bev.more.as_mut().and_then(|m| m.handler.take()).map(Taken::Handler);
        if self.has(flag::PENDING_CONNECTED) {
            self.clear(flag::PENDING_CONNECTED);
            let taken = handler(self).or_else(|| self.on_event.take().map(Taken::BevEvent))?;
            return Some(Call::Connected(taken));
        }
        if self.has(flag::PENDING_READ) {
            self.clear(flag::PENDING_READ);
            let taken = self.on_read.take().map(Taken::Read).or_else(|| handler(self))?;
            return Some(Call::Read(taken));
        }
        if self.has(flag::PENDING_WRITE) {
            self.clear(flag::PENDING_WRITE);
            let taken = self.on_write.take().map(Taken::Write).or_else(|| handler(self))?;
            return Some(Call::Written(taken));
        }
        let next = self.more.as_mut().and_then(|more| more.events.pop_front());
        let Some(event) = next else {
            self.clear(flag::PENDING_EVENT);
            return None;
        };
        let taken = handler(self).or_else(|| self.on_event.take().map(Taken::BevEvent))?;
        Some(Call::Event(taken, event))
    }
}

impl Call {
    /// Calls it, and puts it back.
    pub(crate) fn run(self, inner: &Rc<Inner>, conn: &Bufferevent) {
        let (taken, event) = match self {
            Call::Filter => return inner.run_filter(conn.key),
            Call::Above { written } => return inner.feed_filter(conn.key, written),
            Call::Connected(taken) => (taken, Some(BevEvent::Connected)),
            Call::Event(taken, event) => (taken, Some(event)),
            Call::Read(taken) => {
                let mut back = PutBack { inner, key: conn.key, call: Some(taken) };
                return match &mut back.call {
                    Some(Taken::Read(callback)) => callback(conn),
                    Some(Taken::Handler(handler)) => handler.on_read(conn),
                    _ => {}
                };
            }
            Call::Written(taken) => {
                let mut back = PutBack { inner, key: conn.key, call: Some(taken) };
                return match &mut back.call {
                    Some(Taken::Write(callback)) => callback(conn),
                    Some(Taken::Handler(handler)) => handler.on_written(conn),
                    _ => {}
                };
            }
        };
        let mut back = PutBack { inner, key: conn.key, call: Some(taken) };
        let event = event.expect("both arms above set it");
        match &mut back.call {
            Some(Taken::BevEvent(callback)) => callback(conn, &event),
            Some(Taken::Handler(handler)) if matches!(event, BevEvent::Connected) => {
                handler.on_connected(conn);
            }
            Some(Taken::Handler(handler)) => handler.on_event(conn, &event),
            _ => {}
        }
    }
}

/// Puts a callback back into its slot when it returns or panics, unless the slot was freed or has
/// got another one meanwhile.
pub(crate) struct PutBack<'a> {
    pub inner: &'a Inner,
    pub key: Key,
    pub call: Option<Taken>,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        let mut core = self.inner.core.borrow_mut();
        let router = &mut core.router;
        let taken = self.call.take();
        let left = match taken {
            Some(taken @ (Taken::Event(_) | Taken::Accept(_) | Taken::AcceptError(_))) => {
                put_back_other(router, self.key, taken)
            }
            Some(taken) if mutant::on(Mutant::CallbackNotPutBack) => Some(taken),
            Some(taken) => put_back_bev(router, self.key, taken),
            None => None,
        };
        // Dropping a callback may run the user's code: not while the core is borrowed.
        drop(core);
        drop(left);
    }
}

fn put_back_bev(router: &mut Router, key: Key, taken: Taken) -> Option<Taken> {
    let Some(bev) = router.bevs.get_mut(key).filter(|bev| !bev.has(flag::FREED)) else {
        return Some(taken);
    };
    match taken {
        Taken::Read(callback) if bev.on_read.is_none() => bev.on_read = Some(callback),
        Taken::Write(callback) if bev.on_write.is_none() => bev.on_write = Some(callback),
        Taken::BevEvent(callback) if bev.on_event.is_none() => bev.on_event = Some(callback),
        Taken::Handler(handler) if bev.more().handler.is_none() => {
            bev.more().handler = Some(handler);
        }
        other => return Some(other),
    }
    None
}

fn put_back_other(router: &mut Router, key: Key, taken: Taken) -> Option<Taken> {
    match taken {
        Taken::Event(callback) => match router.events.get_mut(key) {
            Some(slot) if slot.callback.is_none() => slot.callback = Some(callback),
            _ => return Some(Taken::Event(callback)),
        },
        Taken::Accept(callback) => match router.listeners.get_mut(key) {
            Some(slot) if !slot.freed && slot.on_accept.is_none() => {
                slot.on_accept = Some(callback);
            }
            _ => return Some(Taken::Accept(callback)),
        },
        Taken::AcceptError(callback) => match router.listeners.get_mut(key) {
            Some(slot) if !slot.freed && slot.on_error.is_none() => slot.on_error = Some(callback),
            _ => return Some(Taken::AcceptError(callback)),
        },
        other => return Some(other),
    }
    None
}
