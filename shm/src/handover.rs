//! How two ends come to share a segment, over a Unix socket that then stays as the death notice.
//!
//! ```text
//!   connector                                   acceptor
//!   connect(2) ------------------------------->  who is it? our user, root, or uid=
//!   make, commit, seal, map
//!   HELLO  header, bell, memfd -------------->   sealed? its size? usual pages? budget?
//!                                                copy the header once: the one that was told?
//!          <------------------------- WELCOME    magic, 0 or why not, bell
//!   open                                         open
//! ```
//!
//! The connector makes the memory and pays for it. Each side says how it is rung: on its announce
//! word, or by a byte on the socket where its engine cannot wait on words. (An eventfd would do as
//! well, but whoever shares one can make its writer block.) Both sides have a deadline, and a
//! listener has so many half-made links at most: a stranger who says nothing costs no more.
//!
//! Where there is no memory, or no room for it, the link may do without (`plain.rs`) if both sides
//! have said so: the connector asks in HELLO, with or without a segment, and WELCOME grants it.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::fd::Fd;
use ringlane_api::reactor::Side;
use ringlane_api::transport::{Cx, LinkEvent, LinkId, Transport};

use crate::address::Target;
use crate::budget::{Over, Share};
use crate::crash::{self, Point};
use crate::layout::{Bad, HEADER_BYTES, Header};
use crate::limits::{FDS_MAX, GUESTS_MAX, HANDOVER};
use crate::link::{Cold, Link, Offer, Open, State, Terms, bit};
use crate::map::{Fork, Map};
use crate::table::Shm;

/// The header; whether the connector waits on words; [`asks`]; nothing.
const HELLO_BYTES: usize = HEADER_BYTES + 8;

/// The magic; 0 or why not; whether the acceptor waits on words; whether it goes on without
/// memory; whether the process that listened is the one that answers; KiB of the budget that is
/// used up.
const WELCOME_BYTES: usize = 16;
const WELCOME_MAGIC: [u8; 8] = *b"rnglane+";

/// What a connector says of links without memory.
mod asks {
    /// It would go on without.
    pub const PLAIN: u8 = 1;
    /// It has none to offer.
    pub const NO_MEMORY: u8 = 2;
    /// The link is to carry records.
    pub const RECORDS: u8 = 4;
}

/// Why the acceptor refuses, in one byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    User = 1,
    Header = 2,
    Memory = 3,
    Map = 4,
    Budget = 5,
    UserBudget = 6,
    NoMemory = 7,
    Features = 8,
    Face = 9,
}

impl From<Bad> for Refused {
    fn from(bad: Bad) -> Refused {
        match bad {
            Bad::Features => Refusal::Features.into(),
            _ => Refusal::Header.into(),
        }
    }
}

/// A refusal, with the KiB of the budget that it is about.
#[derive(Clone, Copy, Debug)]
struct Refused(u8, u32);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused(refusal as u8, 0)
    }
}

impl From<Over> for Refused {
    fn from(over: Over) -> Refused {
        let kib = |bytes: u64| u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        match over {
            Over::All(bytes) => Refused(Refusal::Budget as u8, kib(bytes)),
            Over::User(bytes) => Refused(Refusal::UserBudget as u8, kib(bytes)),
        }
    }
}

impl Refused {
    /// Whether another address, or another hour, would do: then a link may do without memory.
    fn for_want_of_room(self) -> bool {
        let Refused(code, _) = self;
        [Refusal::Map, Refusal::Budget, Refusal::UserBudget, Refusal::NoMemory]
            .iter()
            .any(|refusal| *refusal as u8 == code)
    }

    /// To be told to the connector's user.
    fn error(self) -> io::Error {
        let kind = match self.for_want_of_room() {
            true => io::ErrorKind::OutOfMemory,
            false => io::ErrorKind::PermissionDenied,
        };
        io::Error::new(kind, self.to_string())
    }
}

/// As the connector's user reads it.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused(code, kib) = *self;
        let or = "use a smaller ring= here, or say fallback=unix at both ends";
        match code {
            1 => f.write_str("this user may not connect there; the listener wants uid= or mode="),
            2 => f.write_str("it does not understand our segment: another version?"),
            3 => f.write_str("it does not take our memory: not sealed, or of another size"),
            4 => write!(f, "it could not map our memory; {or}"),
            5 => write!(
                f,
                "the listener's budget of {kib} KiB is used up; raise budget= there, {or}"
            ),
            6 => write!(
                f,
                "the listener's budget of {kib} KiB for this user is used up; raise uid_budget= \
                 there, {or}"
            ),
            7 => f.write_str("we have no memory, and the listener does not say fallback=unix"),
            8 => f.write_str("it does not know a feature of our segment: an older version?"),
            9 => f.write_str(
                "one end carries records, the other bytes; say face=records on both, or on none",
            ),
            _ => f.write_str("it refused"),
        }
    }
}

impl Shm {
    /// The user at the other end of the socket, if it may share memory with us.
    fn may_share(&mut self, cx: &mut Cx<'_>, id: LinkId, accepts: bool) -> Option<u32> {
        let link = self.get(id)?;
        let (inner, cold) = (link.inner?, link.cold.as_ref()?);
        let (uid, by_mode) = (cold.target.uid, cold.target.by_mode && accepts);
        let info = self.inside(cx, |uds, cx| uds.info(cx, inner));
        let who = info.credentials?.uid;
        let may = by_mode || who == 0 || who == cx.sys().uid() || Some(who) == uid;
        may.then_some(who)
    }

    /// The socket is connected: makes the segment and offers it.
    pub(crate) fn offer(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        crash::here(Point::Connected);
        if self.may_share(cx, id, false).is_none() {
            let error = io::Error::new(
                io::ErrorKind::PermissionDenied,
                "another user listens there; say uid= to share memory with it",
            );
            return self.break_off(cx, id, Side::Both, error);
        }
        let Some(link) = self.get(id) else { return };
        let (Some(inner), Some(cold)) = (link.inner, &link.cold) else { return };
        let target = cold.target.clone();
        let made = self.guard().and_then(|guard| make(cx, &target, &guard));
        let mut asks = if target.fallback { asks::PLAIN } else { 0 };
        asks |= if target.records { asks::RECORDS } else { 0 };
        let (mut fds, offer) = match made {
            Ok((fd, offer)) => (vec![fd], Some(offer)),
            Err(error) if target.fallback => {
                log::warn!("shm: no memory to share, asking to go on without: {error}");
                asks |= asks::NO_MEMORY;
                (Vec::new(), None)
            }
            Err(error) => {
                let what = format!("no shared memory for rings of {} bytes: {error}", target.ring);
                let error = io::Error::new(error.kind(), what);
                return self.break_off(cx, id, Side::Both, error);
            }
        };
        crash::here(Point::SegmentMade);
        let none = Header::new(target.ring, 0);
        let mut hello = Evbuffer::new();
        hello.add(&offer.as_ref().map_or(none, |offer| offer.header).encode());
        hello.add(&[u8::from(cx.waits_on_words()), asks, 0, 0, 0, 0, 0, 0]);
        let Some(link) = self.get(id) else { return };
        link.unsaid = HELLO_BYTES;
        let Some(cold) = link.cold.as_mut() else { return };
        cold.offered = offer;
        cx.timer(id, HANDOVER);
        self.inside(cx, |uds, cx| {
            uds.send(cx, inner, &mut hello, &mut fds);
            uds.grant(cx, inner, u64::MAX);
        });
    }

    /// Somebody has connected to a listener's socket.
    pub(crate) fn meet(&mut self, cx: &mut Cx<'_>, listener: LinkId, inner: LinkId) {
        let Some(target) = self
            .get(listener)
            .filter(|link| link.state == State::Listening)
            .and_then(|link| link.cold.as_ref())
            .map(|cold| cold.target.clone())
        else {
            return self.inside(cx, |uds, cx| uds.abort(cx, inner));
        };
        let id = self.insert(State::Greeting, Some(Cold::new(target, Some(listener))));
        crash::here(Point::Accepted);
        self.bind(id, inner);
        cx.timer(id, HANDOVER);
        self.inside(cx, |uds, cx| uds.grant(cx, inner, u64::MAX));
        self.seat(cx, listener, id);
    }

    /// Counts who has come and not said what they want; past the most the oldest one goes.
    fn seat(&mut self, cx: &mut Cx<'_>, listener: LinkId, guest: LinkId) {
        let Some(cold) = self.get(listener).and_then(|link| link.cold.as_mut()) else { return };
        let mut guests = std::mem::take(&mut cold.guests);
        cold.present += 1;
        guests.push_back(guest);
        if guests.len() > GUESTS_MAX {
            guests.retain(|id| self.get(*id).is_some_and(|link| link.is_guest()));
        }
        let oldest = if guests.len() > GUESTS_MAX { guests.pop_front() } else { None };
        if let Some(cold) = self.get(listener).and_then(|link| link.cold.as_mut()) {
            cold.guests = guests;
        }
        if let Some(oldest) = oldest {
            log::warn!("shm: {GUESTS_MAX} connections say nothing; the oldest one goes");
            self.abort(cx, oldest);
        }
    }

    /// Bytes of a hand-over. Returns how many of them belong to it.
    pub(crate) fn greeted(
        &mut self,
        cx: &mut Cx<'_>,
        id: LinkId,
        bytes: &[u8],
        fds: Vec<Fd>,
    ) -> usize {
        let Some(link) = self.get(id) else { return 0 };
        let state = link.state;
        let Some(cold) = &mut link.cold else { return 0 };
        let wants = if state == State::Greeting { HELLO_BYTES } else { WELCOME_BYTES };
        cold.fds.extend(fds);
        cold.fds.truncate(FDS_MAX);
        let taken = bytes.len().min(wants - cold.got.len());
        cold.got.extend_from_slice(&bytes[..taken]);
        if cold.got.len() < wants {
            return taken;
        }
        let (got, fds) = (std::mem::take(&mut cold.got), std::mem::take(&mut cold.fds));
        crash::here(if state == State::Greeting { Point::HelloRead } else { Point::WelcomeRead });
        let Ok(hello) = <[u8; HELLO_BYTES]>::try_from(&got[..]) else {
            self.answered(cx, id, &got);
            return taken;
        };
        cold.asked_plain = hello[HEADER_BYTES + 1] & asks::PLAIN != 0;
        let may_do_without = cold.asked_plain && cold.target.fallback;
        match self.examine(cx, id, &hello, fds) {
            Ok(offer) => {
                let waits = [cx.waits_on_words(), hello[HEADER_BYTES] == 1];
                let records = hello[HEADER_BYTES + 1] & asks::RECORDS != 0;
                self.welcome(cx, id, offer, Terms { side: 1, waits, records });
            }
            Err(refused) if refused.for_want_of_room() && may_do_without => {
                log::warn!("shm: a link goes on without shared memory: {refused}");
                if self.answer(cx, id, Refused(0, 0), true) {
                    self.go_plain(cx, id);
                }
            }
            Err(refused) => self.refuse(cx, id, refused),
        }
        taken
    }

    /// What a connector has offered, checked.
    fn examine(
        &mut self,
        cx: &mut Cx<'_>,
        id: LinkId,
        hello: &[u8; HELLO_BYTES],
        mut fds: Vec<Fd>,
    ) -> Result<Offer, Refused> {
        let Some(uid) = self.may_share(cx, id, true) else { return Err(Refusal::User.into()) };
        let told = hello.first_chunk().expect("a header is its beginning");
        let header = Header::decode(told)?;
        let cold = self.get(id).and_then(|link| link.cold.as_ref());
        let records = cold.is_some_and(|cold| cold.target.records);
        if records != (hello[HEADER_BYTES + 1] & asks::RECORDS != 0) {
            return Err(Refusal::Face.into());
        }
        if hello[HEADER_BYTES + 1] & asks::NO_MEMORY != 0 {
            return Err(Refusal::NoMemory.into());
        }
        let fd = fds.pop().filter(|_| fds.is_empty()).ok_or(Refusal::Memory)?;
        let memory = cx.sys().memory_of(&fd).map_err(|_| Refusal::Memory)?;
        if !memory.sealed || !memory.plain || memory.bytes != header.segment_bytes() {
            return Err(Refusal::Memory.into());
        }
        let share = self.share_of(cx, id, memory.bytes, uid)?;
        let bytes = usize::try_from(memory.bytes).map_err(|_| Refusal::Memory)?;
        let os = fd.as_os().ok_or(Refusal::Memory)?;
        let guard = self.guard().map_err(|_| Refusal::Map)?;
        let map = Map::new(os, bytes, memory.id, &guard).map_err(|_| Refusal::Map)?;
        let mut copy = [0; HEADER_BYTES];
        map.read(0, &mut copy);
        if &copy != told || header.nonce != memory.id {
            return Err(Refusal::Header.into());
        }
        crash::here(Point::Mapped);
        Ok(Offer { header, map, share })
    }

    /// Room in the listener's budget for a user's memory.
    fn share_of(
        &mut self,
        cx: &mut Cx<'_>,
        id: LinkId,
        bytes: u64,
        uid: u32,
    ) -> Result<Share, Refused> {
        let trusted = uid == 0 || uid == cx.sys().uid();
        let cold = self.get(id).and_then(|link| link.cold.as_ref()).ok_or(Refusal::Map)?;
        let target = &cold.target;
        Ok(Share::kept(bytes, uid, target.budget, target.budget_of(trusted))?)
    }

    fn welcome(&mut self, cx: &mut Cx<'_>, id: LinkId, offer: Offer, terms: Terms) {
        let listener = self.get(id).and_then(|link| link.cold.as_ref()).and_then(|c| c.listener);
        if !self.answer(cx, id, Refused(0, 0), false) {
            return;
        }
        self.opened(cx, id, offer, terms);
        self.await_death(cx, id);
        if let Some(listener) = listener {
            cx.emit(listener, LinkEvent::Accepted(id));
        }
    }

    fn refuse(&mut self, cx: &mut Cx<'_>, id: LinkId, refused: Refused) {
        log::warn!("shm: a connection is refused; it is told: {refused}");
        self.answer(cx, id, refused, false);
        // It goes when the answer has gone, or at the deadline.
        if let Some(link) = self.get(id) {
            link.state = State::Broken;
        }
    }

    fn answer(&mut self, cx: &mut Cx<'_>, id: LinkId, refused: Refused, plain: bool) -> bool {
        let Some(inner) = self.get(id).and_then(|link| link.inner) else { return false };
        let listener = self.get(id).and_then(|link| link.cold.as_ref()).and_then(|c| c.listener);
        let listener = listener.and_then(|id| self.get(id)).and_then(|link| link.cold.as_ref());
        let same = listener.is_some_and(|cold| !cold.inherited);
        let Refused(code, kib) = refused;
        let mut bytes = Evbuffer::new();
        bytes.add(&WELCOME_MAGIC);
        bytes.add(&[code, u8::from(cx.waits_on_words()), u8::from(plain), u8::from(same)]);
        bytes.add(&kib.to_le_bytes());
        if let Some(link) = self.get(id) {
            link.bits |= bit::SPEAKING;
            link.unsaid = if plain { WELCOME_BYTES } else { 0 };
        }
        self.inside(cx, |uds, cx| uds.send(cx, inner, &mut bytes, &mut Vec::new()));
        true
    }

    /// The acceptor's answer.
    fn answered(&mut self, cx: &mut Cx<'_>, id: LinkId, got: &[u8]) {
        let Some(Link { cold: Some(cold), .. }) = self.get(id) else { return };
        let offered = cold.offered.take();
        if got[..8] != WELCOME_MAGIC {
            let what = "no shm:// listener answers there";
            let error = io::Error::new(io::ErrorKind::InvalidData, what);
            return self.break_off(cx, id, Side::Both, error);
        }
        let [code, they_wait, plain, same] = [got[8], got[9], got[10], got[11]];
        let kib = u32::from_le_bytes([got[12], got[13], got[14], got[15]]);
        let may_do_without = cold.target.fallback && plain == 1;
        let records = cold.target.records;
        match offered {
            _ if code != 0 => {
                let error = Refused(code, kib).error();
                self.break_off(cx, id, Side::Both, error);
            }
            _ if may_do_without => {
                log::warn!("shm: a link goes on without shared memory");
                self.go_plain(cx, id);
            }
            _ if plain == 1 => {
                let what = "it would go on without memory, and we did not say fallback=unix";
                let error = io::Error::new(io::ErrorKind::InvalidData, what);
                self.break_off(cx, id, Side::Both, error);
            }
            Some(offer) => {
                let waits = [cx.waits_on_words(), they_wait == 1];
                self.opened(cx, id, offer, Terms { side: 0, waits, records });
                if same == 1 {
                    self.await_death(cx, id);
                }
                cx.emit(id, LinkEvent::Connected);
            }
            None => {
                let error = Refused::from(Refusal::NoMemory).error();
                self.break_off(cx, id, Side::Both, error);
            }
        }
    }

    fn opened(&mut self, cx: &mut Cx<'_>, id: LinkId, offer: Offer, terms: Terms) {
        let used = Rc::clone(&self.used);
        let several = cx.sys().cpus() > 1;
        let Some(link) = self.get(id) else { return };
        let target = link.cold.as_ref().map(|cold| &cold.target);
        let spin = target.map_or(Duration::ZERO, |target| target.spin);
        let gives_way = target.is_none_or(|target| target.gives_way);
        link.open = Some(Open::new(offer, terms, (id, used)));
        link.state = State::Open;
        link.unsaid = 0;
        link.bits |= bit::COUNTED;
        let listener = link.cold.take().and_then(|cold| cold.listener);
        self.opens += 1;
        self.gives_way &= gives_way;
        match several {
            true => self.spin = self.spin.max(spin),
            false if !spin.is_zero() => log::info!("shm: one processor only: no spin="),
            false => {}
        }
        if let Some(listener) = listener {
            self.guest_left(cx, listener);
        }
        cx.no_timer(id);
        crash::here(Point::Opened);
        self.watch_over(cx);
        self.heat(id);
    }
}

/// A segment with its header, mapped.
fn make(cx: &mut Cx<'_>, target: &Target, guard: &Rc<Fork>) -> io::Result<(Fd, Offer)> {
    let bytes = Header::new(target.ring, 0).segment_bytes();
    let share = Share::made(bytes, target.budget).map_err(|_| {
        let what = format!(
            "this process has shared its budget of {} KiB; raise budget=, use a smaller ring=, or \
             say fallback=unix at both ends",
            target.budget >> 10
        );
        io::Error::new(io::ErrorKind::OutOfMemory, what)
    })?;
    let fd = cx.sys().memory(bytes)?;
    let memory = cx.sys().memory_of(&fd)?;
    let header = Header::new(target.ring, memory.id);
    let bytes = usize::try_from(memory.bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let os = fd.as_os().ok_or(io::ErrorKind::Unsupported)?;
    let map = Map::new(os, bytes, memory.id, guard)?;
    map.write(0, &header.encode());
    Ok((fd, Offer { header, map, share }))
}
