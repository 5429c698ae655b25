//! Processes and operators: lines over a Unix socket.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::bus::local::{FromRelay, LINE_BYTES_MAX, ToRelay, decode, encode};
use crate::cluster::Cluster;
use crate::relay::lobby::{Guest, House, Lobby};
use crate::{BevEvent, Bufferevent, Eol, LinkOptions, ListenOptions, Listener, READ, Result};

use super::{ByConn, ConnId, Inner};

/// Lines of one connection that are heard in a row, before others have their turn.
const LINES_MAX: usize = 64;

/// Input of one connection that is held: a few lines.
const INPUT_BYTES_MAX: usize = 4 * LINE_BYTES_MAX;

/// Who has not read so many bytes of answers is not heard until he has.
const UNHEARD_BYTES: usize = 256 << 10;

/// Output that a process has not read, at which it is taken for dead: a line is short, and who
/// reads none of thousands reads none.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// Descriptors that a line may have before its end has come.
const EARLY_FDS_MAX: usize = 2;

/// How long a last word may take to leave.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How often, and after which pause, an address is tried that somebody has.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Listens as soon as it can. We hold the lock of our host, so whoever has our address is going:
/// the ring of a killed relay holds its sockets until the kernel has taken it apart.
pub fn patiently(mut listen: impl FnMut() -> Result<Listener>) -> Result<Listener> {
    for _ in 0..TRIES {
        match listen() {
            Err(error) if error.io().is_some_and(|io| io.kind() == ErrorKind::AddrInUse) => {
                std::thread::sleep(PAUSE);
            }
            listening => return listening,
        }
    }
    listen()
}

/// The socket, and who is connected to it.
pub struct Sockets {
    listeners: Vec<Listener>,
    conns: ByConn<Conn>,
    /// Those who have not said who they are, by user.
    lobby: Lobby<u32>,
    guests: HashMap<Guest, Stranger>,
    /// Who has not read what was said.
    behind: HashSet<ConnId>,
    /// Operators whose question is under way.
    asking: usize,
}

/// One who has connected and not said who it is.
enum Stranger {
    /// To the relay's socket.
    Local(ConnId),
    /// To a bell.
    Bell(Bufferevent),
}

struct Conn {
    bev: Bufferevent,
    /// Descriptors that have come and belong to no line yet.
    fds: VecDeque<OwnedFd>,
    uid: u32,
    guest: Guest,
    /// It has put its question.
    asks: bool,
    /// It has said nonsense: nothing more is heard of it.
    over: bool,
    /// It is closed as soon as its output is out.
    closing: bool,
}

fn house(cluster: &Cluster) -> House {
    let limits = &cluster.limits;
    House {
        // As many as may register at once, when a relay has begun anew.
        guests_max: (limits.processes + limits.admins) as usize,
        per_source_max: (limits.processes_per_uid + limits.admins) as usize,
        time: cluster.links.handshake,
    }
}

impl Sockets {
    pub fn new(cluster: &Cluster) -> Sockets {
        Sockets {
            listeners: Vec::new(),
            conns: HashMap::new(),
            lobby: Lobby::new(house(cluster)),
            guests: HashMap::new(),
            behind: HashSet::new(),
            asking: 0,
        }
    }

    /// Other limits, after a reload.
    pub fn refit(&mut self, cluster: &Cluster) {
        self.lobby.refit(house(cluster));
    }

    fn leave(&mut self, guest: Guest) -> Option<Stranger> {
        self.lobby.leave(guest);
        self.guests.remove(&guest)
    }
}

impl Inner {
    pub(super) fn listen_for_processes(self: &Rc<Self>) -> Result<()> {
        let link = LinkOptions { receive_fds: true, ..LinkOptions::default() };
        let options = ListenOptions { link, ..ListenOptions::default() };
        let listener = patiently(|| {
            let inner = Rc::downgrade(self);
            self.base.listen_with(&self.options.socket, &options, move |bev| {
                match inner.upgrade() {
                    Some(inner) => inner.greet(bev),
                    None => bev.abort(),
                }
            })
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
        let mut sockets = self.sockets.borrow_mut();
        let (guest, evicted) = sockets.lobby.enter(who.uid, self.base.now());
        sockets.guests.insert(guest, Stranger::Local(conn));
        let (uid, fds) = (who.uid, VecDeque::new());
        let one =
            Conn { bev: bev.clone(), fds, uid, guest, asks: false, over: false, closing: false };
        sockets.conns.insert(conn, one);
        drop(sockets);
        if let Some(evicted) = evicted {
            self.send_away(evicted, "too many connections that have not registered");
        }
        bev.set_read_watermark(0, INPUT_BYTES_MAX);
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

    /// Somebody has connected to a bell.
    pub(super) fn expect_token(self: &Rc<Self>, bev: &Bufferevent) -> Guest {
        let uid = bev.credentials().map_or(u32::MAX, |who| who.uid);
        let mut sockets = self.sockets.borrow_mut();
        let (guest, evicted) = sockets.lobby.enter(uid, self.base.now());
        sockets.guests.insert(guest, Stranger::Bell(bev.clone()));
        drop(sockets);
        if let Some(evicted) = evicted {
            self.send_away(evicted, "too many connections that have not registered");
        }
        guest
    }

    /// It has said who it is, or is gone.
    pub(super) fn is_known(&self, guest: Guest) {
        self.sockets.borrow_mut().leave(guest);
    }

    fn send_away(self: &Rc<Self>, guest: Guest, why: &str) {
        let stranger = self.sockets.borrow_mut().leave(guest);
        match stranger {
            None => {}
            Some(Stranger::Bell(bev)) => bev.abort(),
            Some(Stranger::Local(conn)) => {
                self.send_line(conn, &FromRelay::Refused { why: why.to_string() });
                self.drop_local(conn);
            }
        }
    }

    /// Sends those away who have been silent for too long, and those who read nothing.
    pub(super) fn tick_sockets(self: &Rc<Self>) {
        let now = self.base.now();
        loop {
            let late = self.sockets.borrow_mut().lobby.expired(now);
            let Some(guest) = late else { break };
            let why = "say Register, or ask something, within the time that link.handshake names";
            self.send_away(guest, why);
        }
        self.end_the_deafest();
    }

    /// All that processes have not read stays within a share of the relay's memory.
    fn end_the_deafest(self: &Rc<Self>) {
        let share = self.cluster.borrow().limits.relay_memory / 4;
        loop {
            let mut sockets = self.sockets.borrow_mut();
            let Sockets { behind, conns, .. } = &mut *sockets;
            let unread = |conn: &ConnId| conns.get(conn).map_or(0, |one| one.bev.output().len());
            behind.retain(|conn| unread(conn) > UNHEARD_BYTES / 4);
            let all: usize = behind.iter().map(unread).sum();
            let deafest = behind.iter().max_by_key(|conn| unread(conn)).copied();
            drop(sockets);
            match deafest.filter(|_| all as u64 > share) {
                Some(conn) => self.give_up_on(conn),
                None => return,
            }
        }
    }

    fn give_up_on(self: &Rc<Self>, conn: ConnId) {
        log::warn!("a process reads nothing of what its relay says; its connection ends");
        self.end_local(conn, true);
    }

    /// Reads what a connection says.
    fn hear(self: &Rc<Self>, conn: ConnId) {
        self.core.borrow_mut().set_now(self.clock.now(&self.base));
        if self.said(conn).is_some_and(|said| self.hear_request(conn, &said)) {
            return;
        }
        for _ in 0..LINES_MAX {
            if self.is_behind(conn) {
                // It goes on when it has read.
                return;
            }
            let Some(line) = self.next_line(conn) else { return };
            match line {
                Ok((ToRelay::Ask(question), _)) => self.answer(conn, question),
                Ok((line, fds)) => self.core.borrow_mut().local_said(conn, line, fds),
                Err(why) => self.core.borrow_mut().local_babbled(conn, why),
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

    fn is_behind(&self, conn: ConnId) -> bool {
        let sockets = self.sockets.borrow();
        sockets.conns.get(&conn).is_some_and(|one| one.bev.output().len() > UNHEARD_BYTES)
    }

    /// A connection puts its question; whether it may.
    pub(super) fn begins_to_ask(&self, conn: ConnId) -> std::result::Result<(), String> {
        let most = self.cluster.borrow().limits.admins as usize;
        let mut sockets = self.sockets.borrow_mut();
        let sockets = &mut *sockets;
        let Some(one) = sockets.conns.get_mut(&conn) else { return Ok(()) };
        if one.asks {
            return Err("a question is a connection's only line".to_string());
        }
        if sockets.asking >= most {
            return Err(format!("limits.admins = {most} is reached"));
        }
        one.asks = true;
        sockets.asking += 1;
        let guest = one.guest;
        sockets.leave(guest);
        Ok(())
    }

    /// A process is registered.
    pub(super) fn seated(&self, conn: ConnId) {
        let mut sockets = self.sockets.borrow_mut();
        if let Some(guest) = sockets.conns.get(&conn).map(|one| one.guest) {
            sockets.leave(guest);
        }
    }

    /// What has come on a connection and was not read, if it begins as no line does.
    fn said(&self, conn: ConnId) -> Option<Vec<u8>> {
        let sockets = self.sockets.borrow();
        let one = sockets.conns.get(&conn).filter(|one| !one.closing && !one.over)?;
        let input = one.bev.input();
        let mut first = [0; 1];
        (input.copyout(&mut first) == 1 && first != *b"{").then(|| input.to_vec())
    }

    fn next_line(&self, conn: ConnId) -> Option<Result<(ToRelay, Vec<OwnedFd>), String>> {
        let mut sockets = self.sockets.borrow_mut();
        let one = sockets.conns.get_mut(&conn).filter(|one| !one.closing && !one.over)?;
        one.fds.extend(one.bev.take_fds());
        let Some(text) = one.bev.input().readln(Eol::Lf) else {
            let begun = one.bev.input().len();
            let early = if begun == 0 { 0 } else { EARLY_FDS_MAX };
            one.over |= one.fds.len() > early || begun > LINE_BYTES_MAX;
            if one.fds.len() > early {
                return Some(Err(format!("{} descriptors that no line names", one.fds.len())));
            }
            return (begun > LINE_BYTES_MAX).then(too_long);
        };
        if text.len() > LINE_BYTES_MAX {
            one.over = true;
            return Some(too_long());
        }
        let line = match decode::<ToRelay>(&text) {
            Ok(line) => line,
            Err(why) => {
                one.over = true;
                return Some(Err(why));
            }
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
        let unread = one.bev.output().len();
        // An answer may be long, and is the last thing that is said.
        let deaf = unread > OUTPUT_BYTES_MAX && !one.asks;
        drop(sockets);
        if unread > UNHEARD_BYTES {
            self.sockets.borrow_mut().behind.insert(conn);
        }
        if deaf {
            self.give_up_on(conn);
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
            return self.forget_local(conn);
        }
        let inner = Rc::downgrade(self);
        self.base.once(LAST_WORD, move |_| {
            if let Some(inner) = inner.upgrade() {
                inner.end_local(conn, true);
            }
        });
    }

    fn written(self: &Rc<Self>, conn: ConnId) {
        let done = match self.sockets.borrow().conns.get(&conn) {
            Some(one) => one.closing && one.bev.output().is_empty(),
            None => false,
        };
        match done {
            true => self.forget_local(conn),
            // It may have been too far behind to be heard.
            false => self.hear(conn),
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
        self.end_local(conn, false);
    }

    /// The same; what was said and has not left may leave, or not.
    fn end_local(self: &Rc<Self>, conn: ConnId, now: bool) {
        let mut sockets = self.sockets.borrow_mut();
        let Some(gone) = sockets.conns.remove(&conn) else { return };
        sockets.leave(gone.guest);
        sockets.behind.remove(&conn);
        sockets.asking -= usize::from(gone.asks);
        drop(sockets);
        match now {
            true => gone.bev.abort(),
            false => gone.bev.free(),
        }
        self.bells.borrow_mut().forget(conn);
        self.core.borrow_mut().local_closed(conn);
        self.kick();
    }

    /// Processes that are connected.
    pub(super) fn local_count(&self) -> usize {
        self.sockets.borrow().conns.len()
    }
}

fn too_long<T>() -> std::result::Result<T, String> {
    Err(format!("a line of more than {LINE_BYTES_MAX} bytes"))
}
