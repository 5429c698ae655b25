//! Processes and operators: lines over a Unix socket.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use crate::bus::local::{FromRelay, LINE_BYTES_MAX, ToRelay, decode, encode};
use crate::{BevEvent, Bufferevent, Eol, LinkOptions, ListenOptions, Listener, READ, Result};

use super::{ByConn, ConnId, Inner};

/// Lines of one connection that are heard in a row, before others have their turn.
const LINES_MAX: usize = 64;

/// How often the socket is tried that a dead relay seems to hold, and how long apart.
const LISTEN_TRIES: u32 = 400;
const LISTEN_PAUSE: Duration = Duration::from_millis(5);

/// Output that a process has not read, at which it is taken for dead: a line is short, and who
/// reads none of thousands reads none.
const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// The socket, and who is connected to it.
#[derive(Default)]
pub struct Sockets {
    listeners: Vec<Listener>,
    conns: ByConn<Conn>,
}

struct Conn {
    bev: Bufferevent,
    /// Descriptors that have come and belong to no line yet.
    fds: VecDeque<OwnedFd>,
    uid: u32,
    /// It is closed as soon as its output is out.
    closing: bool,
}

impl Inner {
    /// Listens where processes look for the relay.
    ///
    /// The lock is free as soon as the last relay is dead, and its socket a little later: what an
    /// io_uring instance holds the kernel lets go behind the back of who waits for the process.
    pub(super) fn listen_for_processes(self: &Rc<Self>) -> Result<()> {
        let mut tries = 0;
        loop {
            match self.try_to_listen() {
                Err(error) if error.kind() == ErrorKind::AddrInUse && tries < LISTEN_TRIES => {
                    tries += 1;
                    thread::sleep(LISTEN_PAUSE);
                }
                tried => return tried,
            }
        }
    }

    fn try_to_listen(self: &Rc<Self>) -> Result<()> {
        let inner = Rc::downgrade(self);
        let link = LinkOptions { receive_fds: true, ..LinkOptions::default() };
        let options = ListenOptions { link, ..ListenOptions::default() };
        let listener =
            self.base.listen_with(&self.options.socket, &options, move |bev| {
                match inner.upgrade() {
                    Some(inner) => inner.greet(bev),
                    None => bev.abort(),
                }
            })?;
        self.sockets.borrow_mut().listeners.push(listener);
        Ok(())
    }

    pub(super) fn stop_listening_for_processes(&self) {
        for listener in std::mem::take(&mut self.sockets.borrow_mut().listeners) {
            listener.free();
        }
    }

    fn greet(self: &Rc<Self>, bev: Bufferevent) {
        let Some(who) = bev.credentials() else { return bev.abort() };
        let pid = u32::try_from(who.pid).unwrap_or(0);
        let conn = self.core.borrow_mut().local_opened(pid, who.uid);
        let one = Conn { bev: bev.clone(), fds: VecDeque::new(), uid: who.uid, closing: false };
        self.sockets.borrow_mut().conns.insert(conn, one);
        let inner = Rc::downgrade(self);
        bev.on_read(move |_| {
            if let Some(inner) = inner.upgrade() {
                inner.hear(conn);
            }
        });
        let inner = Rc::downgrade(self);
        bev.on_write(move |_| {
            if let Some(inner) = inner.upgrade() {
                inner.written(conn);
            }
        });
        let inner = Rc::downgrade(self);
        bev.on_event(move |_, event| {
            if let Some(inner) = inner.upgrade().filter(|_| event.is_end()) {
                inner.lost_local(conn, event);
            }
        });
        bev.enable(READ);
    }

    /// Reads what a connection says.
    fn hear(self: &Rc<Self>, conn: ConnId) {
        if self.said(conn).is_some_and(|said| self.hear_request(conn, &said)) {
            return;
        }
        for _ in 0..LINES_MAX {
            let Some(line) = self.next_line(conn) else { return };
            match line {
                Ok((ToRelay::Ask(question), _)) => self.answer(conn, question),
                Ok((line, fds)) => self.core.borrow_mut().local_said(conn, line, fds),
                Err(why) => {
                    self.send_line(conn, &FromRelay::Refused { why });
                    self.drop_local(conn);
                }
            }
            self.kick();
        }
        // There may be more; others first.
        let inner = Rc::downgrade(self);
        self.base.defer(move |_| {
            if let Some(inner) = inner.upgrade() {
                inner.hear(conn);
            }
        });
    }

    /// What has come on a connection and was not read, if it begins as no line does.
    fn said(&self, conn: ConnId) -> Option<Vec<u8>> {
        let sockets = self.sockets.borrow();
        let input = sockets.conns.get(&conn).filter(|one| !one.closing)?.bev.input();
        let mut first = [0; 1];
        (input.copyout(&mut first) == 1 && first != *b"{").then(|| input.to_vec())
    }

    fn next_line(&self, conn: ConnId) -> Option<Result<(ToRelay, Vec<OwnedFd>), String>> {
        let mut sockets = self.sockets.borrow_mut();
        let one = sockets.conns.get_mut(&conn).filter(|one| !one.closing)?;
        one.fds.extend(one.bev.take_fds());
        let Some(text) = one.bev.input().readln(Eol::Lf) else {
            let long = one.bev.input().len() > LINE_BYTES_MAX;
            return long.then(|| Err(format!("a line of more than {LINE_BYTES_MAX} bytes")));
        };
        let line = match decode::<ToRelay>(&text) {
            Ok(line) => line,
            Err(why) => return Some(Err(why)),
        };
        let n = line.descriptors().min(one.fds.len());
        let fds = one.fds.drain(..n).collect();
        Some(Ok((line, fds)))
    }

    /// Who is at the other end.
    pub(super) fn uid_of(&self, conn: ConnId) -> Option<u32> {
        self.sockets.borrow().conns.get(&conn).map(|one| one.uid)
    }

    pub(super) fn send_line(self: &Rc<Self>, conn: ConnId, line: &FromRelay) {
        self.send_bytes(conn, &encode(line));
    }

    pub(super) fn send_bytes(self: &Rc<Self>, conn: ConnId, bytes: &[u8]) {
        let sockets = self.sockets.borrow();
        let Some(one) = sockets.conns.get(&conn) else { return };
        one.bev.output().add(bytes);
        let deaf = one.bev.output().len() > OUTPUT_BYTES_MAX;
        drop(sockets);
        if deaf {
            log::warn!("a process reads nothing of what its relay says; its connection ends");
            self.forget_local(conn);
        }
    }

    /// Closes a connection when everything that was said is out.
    pub(super) fn drop_local(self: &Rc<Self>, conn: ConnId) {
        let empty = match self.sockets.borrow_mut().conns.get_mut(&conn) {
            Some(one) => {
                one.closing = true;
                one.bev.finish();
                one.bev.output().is_empty()
            }
            None => return,
        };
        if empty {
            self.forget_local(conn);
        }
    }

    fn written(self: &Rc<Self>, conn: ConnId) {
        let done = match self.sockets.borrow().conns.get(&conn) {
            Some(one) => one.closing && one.bev.output().is_empty(),
            None => false,
        };
        if done {
            self.forget_local(conn);
        }
    }

    fn lost_local(self: &Rc<Self>, conn: ConnId, event: &BevEvent) {
        log::debug!("a local connection has ended: {event}");
        // What it had said before.
        self.hear(conn);
        self.forget_local(conn);
    }

    /// A connection is over, whichever end of it was seen first.
    pub(super) fn forget_local(self: &Rc<Self>, conn: ConnId) {
        let gone = self.sockets.borrow_mut().conns.remove(&conn);
        let Some(gone) = gone else { return };
        gone.bev.free();
        self.bells.borrow_mut().forget(conn);
        self.core.borrow_mut().local_closed(conn);
        self.kick();
    }

    /// Processes that are connected.
    pub(super) fn local_count(&self) -> usize {
        self.sockets.borrow().conns.len()
    }
}
