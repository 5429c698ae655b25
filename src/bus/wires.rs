//! What a bus has open on its base: connections to relays, the bell, links to neighbours.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::core::{ConnNo, Do, Neighbour, Put, TOKEN_CHAN, TOKEN_KIND, token_of};
use super::inner::Inner;
use super::local::{self, FromRelay, LINE_BYTES_MAX, Nonce, Said, ToRelay};
use crate::limits::MESSAGE_FDS_MAX;
use crate::shm::through::{Flow, Scribbled};
use crate::shm::{Attached, Port, RecordHeader, Refused};
use crate::{BevEvent, Bufferevent, Eol, EventBase, Listener, READ};

/// How long somebody who connects may take to say who has sent it.
const SAY_TOKEN: Duration = Duration::from_secs(5);

/// A connection to a relay.
#[derive(Debug)]
pub(super) struct Conn {
    bev: Bufferevent,
    /// Descriptors that ride with bytes which were not sent yet.
    riding: usize,
    /// Lines that wait for those to leave.
    unsaid: VecDeque<Said<ToRelay>>,
}

/// See the module text.
#[derive(Default)]
pub(super) struct Wires {
    conns: RefCell<HashMap<ConnNo, Conn>>,
    bell: RefCell<Option<(Bufferevent, Option<Port>)>>,
    /// Links that this side has made, by channel.
    met: RefCell<HashMap<u32, Bufferevent>>,
    listeners: RefCell<HashMap<u32, (Listener, String)>>,
}

impl Wires {
    /// Has the bell's link looked at before the loop sleeps.
    pub fn touch_bell(&self) {
        if let Some((_, Some(port))) = &*self.bell.borrow() {
            port.touch();
        }
    }

    /// Closes everything.
    pub fn close(&self) {
        let listeners = std::mem::take(&mut *self.listeners.borrow_mut());
        listeners.into_values().for_each(|(listener, _)| listener.free());
        let bell = self.bell.borrow_mut().take();
        bell.into_iter().for_each(|(bev, _)| bev.free());
        let conns = std::mem::take(&mut *self.conns.borrow_mut());
        conns.into_values().for_each(|conn| conn.bev.free());
        let met = std::mem::take(&mut *self.met.borrow_mut());
        met.into_values().for_each(|bev| bev.free());
    }
}

impl Inner {
    /// Does one thing that the core wants.
    pub(super) fn act(self: &Rc<Inner>, base: &EventBase, todo: Do) {
        match todo {
            Do::Dial { conn, successor } => self.dial(base, conn, successor),
            Do::Say(conn, said) => self.say(conn, said),
            Do::Hang(conn) => {
                let gone = self.wires.conns.borrow_mut().remove(&conn);
                gone.into_iter().for_each(|conn| conn.bev.free());
            }
            Do::OpenBell { address, token } => self.open_bell(base, &address, token),
            Do::CloseBell => {
                let bell = self.wires.bell.borrow_mut().take();
                bell.into_iter().for_each(|(bev, _)| bev.free());
            }
            Do::Listen { token, uid, ring } => self.listen(base, token, uid, ring),
            Do::Meet { id, address } => self.meet(base, id, &address),
            Do::Part { id } => {
                let gone = self.wires.met.borrow_mut().remove(&id);
                gone.into_iter().for_each(|bev| bev.free());
            }
        }
    }

    fn dial(self: &Rc<Inner>, base: &EventBase, conn: ConnNo, successor: u8) {
        let address = match successor {
            0 => self.socket.clone(),
            n => format!("{}.{}", self.socket, n + 1),
        };
        let bev = match base.connect(&address) {
            Ok(bev) => bev,
            Err(error) => {
                log::debug!("bus: {error}");
                return self.core.borrow_mut().failed(conn);
            }
        };
        let inner = Rc::downgrade(self);
        bev.on_read(move |bev| with(&inner, |inner| inner.hear(conn, bev)));
        let inner = Rc::downgrade(self);
        bev.on_write(move |_| with(&inner, |inner| inner.say_rest(conn)));
        let inner = Rc::downgrade(self);
        bev.on_event(move |_, event| {
            with(&inner, |inner| match event {
                BevEvent::Connected => inner.core.borrow_mut().connected(conn),
                _ => {
                    let gone = inner.wires.conns.borrow_mut().remove(&conn);
                    gone.into_iter().for_each(|conn| conn.bev.free());
                    inner.core.borrow_mut().hung_up(conn);
                }
            });
        });
        bev.enable(READ);
        let open = Conn { bev, riding: 0, unsaid: VecDeque::new() };
        self.wires.conns.borrow_mut().insert(conn, open);
    }

    /// Lines of a relay's.
    fn hear(self: &Rc<Inner>, conn: ConnNo, bev: &Bufferevent) {
        while let Some(line) = bev.input().readln(Eol::Lf) {
            match local::decode::<FromRelay>(&line) {
                Ok(line) => self.core.borrow_mut().said(conn, line),
                Err(error) => log::error!("bus: the relay says {error}"),
            }
        }
        if bev.input().len() > LINE_BYTES_MAX {
            log::error!("bus: a line of the relay has no end; the connection is closed");
            let gone = self.wires.conns.borrow_mut().remove(&conn);
            gone.into_iter().for_each(|conn| conn.bev.free());
            self.core.borrow_mut().hung_up(conn);
        }
    }

    fn say(self: &Rc<Inner>, conn: ConnNo, said: Said<ToRelay>) {
        let mut conns = self.wires.conns.borrow_mut();
        let Some(open) = conns.get_mut(&conn) else { return };
        open.unsaid.push_back(said);
        drop(conns);
        self.say_more(conn);
    }

    /// What was written has left.
    fn say_rest(self: &Rc<Inner>, conn: ConnNo) {
        if let Some(open) = self.wires.conns.borrow_mut().get_mut(&conn) {
            open.riding = 0;
        }
        self.say_more(conn);
    }

    fn say_more(&self, conn: ConnNo) {
        let mut conns = self.wires.conns.borrow_mut();
        let Some(open) = conns.get_mut(&conn) else { return };
        while let Some(said) = open.unsaid.front() {
            if open.riding + said.fds.len() > MESSAGE_FDS_MAX {
                return;
            }
            let Some(Said { line, fds }) = open.unsaid.pop_front() else { return };
            open.riding += fds.len();
            if !fds.is_empty()
                && let Err(error) = open.bev.send_fds(fds)
            {
                log::error!("bus: descriptors for the relay: {error}");
                return;
            }
            open.bev.output().add(&local::encode(&line));
        }
    }

    fn open_bell(self: &Rc<Inner>, base: &EventBase, address: &str, token: Nonce) {
        let bev = match base.connect(address) {
            Ok(bev) => bev,
            Err(error) => {
                log::error!("bus: the relay's bell: {error}");
                return self.core.borrow_mut().bell_lost();
            }
        };
        let inner = Rc::downgrade(self);
        bev.on_read(move |bev| {
            with(&inner, |inner| {
                // The link's own ring only rings.
                if let Some(port) = bev.face::<Port>() {
                    let _ = port.drain(&mut Vec::new(), |_, _| {});
                }
                inner.core.borrow_mut().rang();
            });
        });
        let inner = Rc::downgrade(self);
        bev.on_event(move |bev, event| {
            with(&inner, |inner| match event {
                BevEvent::Connected => inner.bell_is_open(bev, token),
                _ => inner.bell_has_ended(bev),
            });
        });
        bev.enable(READ);
        let before = self.wires.bell.borrow_mut().replace((bev, None));
        before.into_iter().for_each(|(bev, _)| bev.free());
    }

    fn bell_is_open(self: &Rc<Inner>, bev: &Bufferevent, token: Nonce) {
        let Some(port) = bev.face::<Port>() else {
            log::error!("bus: the relay's bell carries no records");
            return self.bell_has_ended(bev);
        };
        if port.push(TOKEN_KIND, TOKEN_CHAN, &token.0).is_err() {
            return self.bell_has_ended(bev);
        }
        port.attach(Rc::new(Rings(Rc::downgrade(self))));
        *self.wires.bell.borrow_mut() = Some((bev.clone(), Some(port)));
        self.core.borrow_mut().bell_open();
    }

    fn bell_has_ended(&self, bev: &Bufferevent) {
        let mut bell = self.wires.bell.borrow_mut();
        if bell.as_ref().is_some_and(|(current, _)| current == bev) {
            bell.take();
            drop(bell);
            self.core.borrow_mut().bell_lost();
        }
        bev.free();
    }

    fn listen(self: &Rc<Inner>, base: &EventBase, token: Nonce, uid: u32, ring: u32) {
        let own = self.uid;
        let there = self.wires.listeners.borrow().get(&uid).map(|(_, name)| name.clone());
        let name = there.map_or_else(|| self.listen_for(base, uid), Ok);
        match name {
            Ok(name) => {
                let address = format!("shm://{name}?face=records&ring={ring}&uid={own}");
                self.core.borrow_mut().listening(token, address);
            }
            Err(error) => log::error!("bus: no neighbour can come: {error}"),
        }
    }

    fn listen_for(self: &Rc<Inner>, base: &EventBase, uid: u32) -> crate::Result<String> {
        let name = format!("@ringlane-bus-{}-{uid}", String::from(self.listen_name));
        let address = format!("shm://{name}?face=records&uid={uid}");
        let inner = Rc::downgrade(self);
        let listener =
            base.listen(&address, move |conn| with(&inner, |inner| inner.guest(conn)))?;
        self.wires.listeners.borrow_mut().insert(uid, (listener, name.clone()));
        Ok(name)
    }

    /// Somebody has connected, who must say a token that the relay has told.
    fn guest(self: &Rc<Inner>, conn: Bufferevent) {
        let link: Rc<Cell<Option<u32>>> = Rc::default();
        let (inner, of) = (Rc::downgrade(self), Rc::clone(&link));
        conn.on_read(move |conn| {
            with(&inner, |inner| {
                if of.get().is_none() {
                    of.set(inner.let_in(conn));
                }
                match of.get() {
                    Some(link) => inner.core.borrow_mut().readable(link),
                    None => conn.abort(),
                }
            });
        });
        let (inner, of) = (Rc::downgrade(self), Rc::clone(&link));
        conn.on_event(move |conn, event| {
            with(&inner, |inner| match of.get() {
                Some(link) => {
                    let clean = matches!(event, BevEvent::Eof);
                    inner.core.borrow_mut().ended(link, clean);
                }
                None => conn.abort(),
            });
        });
        conn.enable(READ);
        if let Some(base) = conn.base() {
            base.once(SAY_TOKEN, move |_| {
                if link.get().is_none() {
                    conn.abort();
                }
            });
        }
    }

    /// Reads the first record of a guest.
    fn let_in(&self, conn: &Bufferevent) -> Option<u32> {
        let port = conn.face::<Port>()?;
        let record = port.borrow().ok()??;
        let token = token_of(record.header, &record.payload.to_vec());
        port.give_back(record);
        port.settle();
        let neighbour = Rc::new(Link { conn: conn.clone(), port });
        let came = self.core.borrow_mut().came(token?, neighbour);
        if came.is_none() {
            log::warn!("bus: somebody connects whom the relay has not announced");
        }
        came
    }

    fn meet(self: &Rc<Inner>, base: &EventBase, id: u32, address: &str) {
        let bev = match base.connect(address) {
            Ok(bev) => bev,
            Err(error) => {
                log::warn!("bus: a neighbour: {error}");
                return self.core.borrow_mut().parted(id);
            }
        };
        let inner = Rc::downgrade(self);
        bev.on_write(move |_| with(&inner, |inner| inner.core.borrow_mut().room(id)));
        let inner = Rc::downgrade(self);
        bev.on_event(move |bev, event| {
            with(&inner, |inner| match (event, bev.face::<Port>()) {
                (BevEvent::Connected, Some(port)) => {
                    let link = Rc::new(Link { conn: bev.clone(), port });
                    if !inner.core.borrow_mut().met(id, link) {
                        bev.free();
                    }
                }
                _ => {
                    inner.wires.met.borrow_mut().remove(&id);
                    inner.core.borrow_mut().parted(id);
                    bev.free();
                }
            });
        });
        bev.enable(READ);
        self.wires.met.borrow_mut().insert(id, bev);
    }
}

/// Calls with what is still there, and then does what came of it.
fn with(inner: &Weak<Inner>, f: impl FnOnce(&Rc<Inner>)) {
    if let Some(inner) = inner.upgrade() {
        f(&inner);
        inner.pump();
    }
}

/// The rings that the relay has, as the bell's link sees them.
struct Rings(Weak<Inner>);

impl Rings {
    fn ask<T>(&self, otherwise: T, f: impl FnOnce(&Inner) -> T) -> T {
        self.0.upgrade().map_or(otherwise, |inner| f(&inner))
    }
}

impl Attached for Rings {
    fn publish(&self) -> bool {
        self.ask(false, |inner| inner.core.try_borrow_mut().is_ok_and(|mut core| core.publish()))
    }

    fn gave(&self) -> bool {
        self.ask(false, |inner| inner.gave.take())
    }

    fn news(&self) -> bool {
        self.ask(false, |inner| {
            let reads = inner.reads();
            let news = inner
                .core
                .try_borrow_mut()
                .map(|mut core| reads && core.has_arrivals() || core.has_room_news());
            news.unwrap_or(true)
        })
    }

    fn wants_room(&self) -> bool {
        self.ask(false, |inner| inner.core.try_borrow().is_ok_and(|core| core.wants_room()))
    }
}

/// A link to a neighbour.
struct Link {
    conn: Bufferevent,
    port: Port,
}

impl Neighbour for Link {
    fn push(&self, kind: u16, chan: u16, parts: [&[u8]; 2]) -> Result<(), Refused> {
        if parts[0].is_empty() {
            return self.port.push(kind, chan, parts[1]);
        }
        let len = u32::try_from(parts[0].len() + parts[1].len());
        let mut slot = self.port.reserve(len.map_err(|_| Refused::TooLong)?)?;
        slot.write(0, parts[0]);
        slot.write(parts[0].len(), parts[1]);
        slot.commit(kind, chan);
        Ok(())
    }

    fn push_in_place(
        &self,
        (kind, chan): (u16, u16),
        bytes: u32,
        fill: &mut dyn FnMut(&mut Put<'_>),
    ) -> Result<(), Refused> {
        let mut slot = self.port.reserve(bytes)?;
        fill(&mut |at, bytes| slot.write(at, bytes));
        slot.commit(kind, chan);
        Ok(())
    }

    fn has_room(&self, bytes: u32) -> bool {
        self.port.reserve(bytes).is_ok()
    }

    fn record_bytes_max(&self) -> u32 {
        self.port.record_bytes_max()
    }

    fn consumed(&self) -> u32 {
        self.port.consumed().unwrap_or(0)
    }

    fn unread(&self) -> Vec<(u32, RecordHeader, Vec<u8>)> {
        self.port.unread()
    }

    fn walk(
        &self,
        private: &mut Vec<u8>,
        most: u32,
        each: &mut dyn FnMut(u32, RecordHeader, &[u8]) -> Flow,
    ) -> Result<u32, Scribbled> {
        self.port.walk(private, most, each)
    }
}

impl Drop for Link {
    /// What was written is still sent.
    fn drop(&mut self) {
        self.conn.free();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({:?})", self.conn)
    }
}
