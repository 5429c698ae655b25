//! A `shm://` link with each process. Nothing but a token goes over it: its bells, and the news of
//! the process's death, serve all the rings that the relay and the process share.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::bus::local::Nonce;
use crate::relay::core::Bell;
use crate::shm::{Attached, Port};
use crate::{Bufferevent, Listener, READ, Result};

use super::{ByConn, ConnId, Inner, token};

/// After a bell has ended, so long its process's last words are waited for.
const LAST_WORDS: Duration = Duration::from_millis(5);

/// Listeners, one for each user, and the bells.
#[derive(Default)]
pub struct Bells {
    listeners: HashMap<u32, (Listener, String)>,
    bells: ByConn<Hung>,
}

struct Hung {
    bev: Bufferevent,
    port: Port,
    rings: Rc<Rings>,
}

/// What the transport asks of the rings between the relay and a process.
struct Rings {
    inner: Weak<Inner>,
    conn: ConnId,
    messages: Cell<bool>,
    room: Cell<bool>,
}

impl Attached for Rings {
    fn publish(&self) -> bool {
        self.messages.take()
    }

    fn gave(&self) -> bool {
        self.room.take()
    }

    fn news(&self) -> bool {
        self.inner.upgrade().is_some_and(|inner| inner.core.borrow_mut().has_news(self.conn))
    }

    fn wants_room(&self) -> bool {
        self.inner.upgrade().is_some_and(|inner| inner.core.borrow().wants_consumed(self.conn))
    }
}

impl Bells {
    /// Rings a process at the end of this turn.
    pub fn ring(&self, conn: ConnId, bell: Bell) {
        let Some(hung) = self.bells.get(&conn) else { return };
        match bell {
            Bell::Messages => hung.rings.messages.set(true),
            Bell::Room => hung.rings.room.set(true),
        }
        hung.port.touch();
    }

    pub fn forget(&mut self, conn: ConnId) {
        if let Some(hung) = self.bells.remove(&conn) {
            hung.bev.free();
        }
    }
}

impl Inner {
    /// Where the process of a local connection finds its bell.
    pub(super) fn bell_for(self: &Rc<Self>, conn: ConnId) -> Result<String> {
        let uid = self.uid_of(conn).unwrap_or(self.options.uid);
        if let Some((_, address)) = self.bells.borrow().listeners.get(&uid) {
            return Ok(address.clone());
        }
        let name = String::from(token());
        let address = format!("shm://@ringlane-bell-{name}?face=records&ring=4KiB");
        // Abstract names are for one user; another one is named.
        let at = match uid == self.options.uid {
            true => address.clone(),
            false => format!("{address}&uid={uid}"),
        };
        let inner = Rc::downgrade(self);
        let listener = self.base.listen(&at, move |bev| match inner.upgrade() {
            Some(inner) => inner.meet_bell(bev),
            None => bev.abort(),
        })?;
        let told = match uid == self.options.uid {
            true => address,
            false => format!("{address}&uid={}", self.options.uid),
        };
        self.bells.borrow_mut().listeners.insert(uid, (listener, told.clone()));
        Ok(told)
    }

    fn meet_bell(self: &Rc<Self>, bev: Bufferevent) {
        let guest = self.expect_token(&bev);
        let inner = Rc::downgrade(self);
        bev.on_read(move |bev| {
            if let Some(inner) = inner.upgrade() {
                inner.is_known(guest);
                inner.hang_bell(bev);
            }
        });
        let inner = Rc::downgrade(self);
        bev.on_event(move |bev, event| {
            if event.is_end() {
                bev.free();
                if let Some(inner) = inner.upgrade() {
                    inner.is_known(guest);
                }
            }
        });
        bev.enable(READ);
    }

    /// The first record of a bell says whose it is.
    fn hang_bell(self: &Rc<Self>, bev: &Bufferevent) {
        let Some(port) = bev.face::<Port>() else { return bev.abort() };
        let mut said = None;
        let drained = port.drain(&mut Vec::new(), |_, bytes| said = bytes.try_into().ok());
        let conn = said.and_then(|token| self.core.borrow().bell(Nonce(token)));
        let (Some(conn), Ok(_)) = (conn, drained) else {
            log::warn!("somebody connected to the relay's bell with a token that is nobody's");
            return bev.abort();
        };
        if self.bells.borrow().bells.contains_key(&conn) {
            log::warn!("a process connected to its bell twice");
            return bev.abort();
        }
        let inner = Rc::downgrade(self);
        let rings = Rings { inner, conn, messages: Cell::new(true), room: Cell::new(true) };
        let rings = Rc::new(rings);
        port.attach(Rc::clone(&rings) as Rc<dyn Attached>);
        let inner = Rc::downgrade(self);
        bev.on_read(move |bev| {
            if let Some(inner) = inner.upgrade() {
                inner.rang(conn, bev);
            }
        });
        let inner = Rc::downgrade(self);
        bev.on_event(move |_, event| {
            let Some(inner) = inner.upgrade().filter(|_| event.is_end()) else { return };
            // The process has gone. What it has said before is on its way, and ends with the end of
            // its socket, unless somebody holds that: a child of it.
            let later = Rc::downgrade(&inner);
            inner.base.once(LAST_WORDS, move |_| {
                if let Some(inner) = later.upgrade() {
                    inner.forget_local(conn);
                }
            });
        });
        let hung = Hung { bev: bev.clone(), port, rings };
        self.bells.borrow_mut().bells.insert(conn, hung);
        // What it has written meanwhile.
        self.core.borrow_mut().rang(conn);
        self.kick();
    }

    fn rang(self: &Rc<Self>, conn: ConnId, bev: &Bufferevent) {
        // Nothing more is said here.
        if let Some(port) = bev.face::<Port>() {
            let _ = port.drain(&mut Vec::new(), |_, _| {});
        }
        self.core.borrow_mut().rang(conn);
        self.kick();
    }
}
