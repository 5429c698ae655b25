//! How two ends come to share a segment, over a Unix socket that then stays as the death notice.
//!
//! ```text
//!   connector                                   acceptor
//!   connect(2) ------------------------------->  who is it? our user, root, or uid=
//!   make, commit, seal, map
//!   HELLO  header, bell + memfd ------------->   sealed? its size? pages of the usual kind?
//!                                                copy the header once: the one that was told?
//!          <------------------------- WELCOME    magic, 0 or why not, bell
//!   open                                         open
//! ```
//!
//! The connector makes the memory and pays for it. Each side says how it is rung: on its announce
//! word, or by a byte on the socket where its engine cannot wait on words. (An eventfd would do as
//! well, but whoever shares one can make its writer block.) Both sides have a deadline, and a
//! listener has so many half-made links at most: a stranger who says nothing costs no more.

use std::io;
use std::rc::Rc;

use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::fd::Fd;
use ringlane_api::limits;
use ringlane_api::reactor::Side;
use ringlane_api::transport::{Cx, LinkEvent, LinkId, Transport};

use crate::layout::{HEADER_BYTES, Header};
use crate::link::{Cold, Link, Open, State, bit};
use crate::map::{Fork, Map};
use crate::table::Shm;
use crate::transport::HANDOVER;

const HELLO_BYTES: usize = HEADER_BYTES + 8;
const WELCOME_BYTES: usize = 16;
const WELCOME_MAGIC: [u8; 8] = *b"rnglane+";

/// Descriptors that are kept of what came before the message is whole.
const FDS_MAX: usize = 2;

/// Connections of one listener that may be amid their hand-over. More than a turn can accept, so
/// that nobody who speaks at once is taken for silent because many came together.
const GUESTS_MAX: usize = 1024;

const _: () = assert!(GUESTS_MAX >= 2 * limits::TURN_COMPLETIONS_MAX, "two turns' worth");

/// Why the acceptor refuses, in one byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    User = 1,
    Header = 2,
    Memory = 3,
    Map = 4,
}

impl Refusal {
    fn words(code: u8) -> &'static str {
        match code {
            1 => "this user may not connect there; the listener's address wants uid= or mode=",
            2 => "it does not understand our segment: another version?",
            3 => "it does not take our memory: not sealed, or of another size",
            4 => "it has no room to map our memory",
            _ => "it refused",
        }
    }
}

impl Shm {
    /// Whether who is at the other end of the socket may share memory with us.
    fn may_share(&mut self, cx: &mut Cx<'_>, id: LinkId, accepts: bool) -> bool {
        let Some(link) = self.get(id) else { return false };
        let (Some(inner), Some(cold)) = (link.inner, &link.cold) else { return false };
        let (uid, by_mode) = (cold.target.uid, cold.target.by_mode && accepts);
        let info = self.inside(cx, |uds, cx| uds.info(cx, inner));
        let Some(who) = info.credentials else { return false };
        by_mode || who.uid == 0 || who.uid == cx.sys().uid() || Some(who.uid) == uid
    }

    /// The socket is connected: makes the segment and offers it.
    pub(crate) fn offer(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        if !self.may_share(cx, id, false) {
            let error = io::Error::new(
                io::ErrorKind::PermissionDenied,
                "another user listens there; say uid= to share memory with it",
            );
            return self.break_off(cx, id, Side::Both, error);
        }
        let Some(link) = self.get(id) else { return };
        let (Some(inner), Some(cold)) = (link.inner, &link.cold) else { return };
        let ring = cold.target.ring;
        let made = self.guard().and_then(|guard| make(cx, ring, &guard));
        let (fd, header, map) = match made {
            Ok(made) => made,
            Err(error) => {
                let what = format!("no shared memory for rings of {ring} bytes: {error}");
                let error = io::Error::new(error.kind(), what);
                return self.break_off(cx, id, Side::Both, error);
            }
        };
        let mut hello = Evbuffer::new();
        hello.add(&header.encode());
        hello.add(&[u8::from(cx.waits_on_words()), 0, 0, 0, 0, 0, 0, 0]);
        let Some(cold) = self.get(id).and_then(|link| link.cold.as_mut()) else { return };
        cold.offered = Some((header, map));
        cx.timer(id, HANDOVER);
        self.inside(cx, |uds, cx| {
            uds.send(cx, inner, &mut hello, &mut vec![fd]);
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

    /// Bytes of a hand-over.
    pub(crate) fn greeted(&mut self, cx: &mut Cx<'_>, id: LinkId, bytes: &[u8], fds: Vec<Fd>) {
        let Some(link) = self.get(id) else { return };
        let state = link.state;
        let Some(cold) = &mut link.cold else { return };
        let wants = if state == State::Greeting { HELLO_BYTES } else { WELCOME_BYTES };
        cold.fds.extend(fds);
        cold.fds.truncate(FDS_MAX);
        cold.got.extend_from_slice(&bytes[..bytes.len().min(wants + 1)]);
        if cold.got.len() < wants {
            return;
        }
        let (got, fds) = (std::mem::take(&mut cold.got), std::mem::take(&mut cold.fds));
        match (state, <[u8; HELLO_BYTES]>::try_from(&got[..])) {
            (State::Greeting, Ok(hello)) => match self.examine(cx, id, &hello, fds) {
                Ok((header, map)) => self.welcome(cx, id, header, &map, hello[HEADER_BYTES] == 1),
                Err(refusal) => self.refuse(cx, id, refusal),
            },
            (State::Greeting, Err(_)) => self.refuse(cx, id, Refusal::Header),
            _ => self.answered(cx, id, &got),
        }
    }

    /// What a connector has offered, checked.
    fn examine(
        &mut self,
        cx: &mut Cx<'_>,
        id: LinkId,
        hello: &[u8; HELLO_BYTES],
        mut fds: Vec<Fd>,
    ) -> Result<(Header, Rc<Map>), Refusal> {
        if !self.may_share(cx, id, true) {
            return Err(Refusal::User);
        }
        let told = hello.first_chunk().expect("a header is its beginning");
        let header = Header::decode(told).map_err(|_| Refusal::Header)?;
        let fd = fds.pop().filter(|_| fds.is_empty()).ok_or(Refusal::Memory)?;
        let memory = cx.sys().memory_of(&fd).map_err(|_| Refusal::Memory)?;
        if !memory.sealed || !memory.plain || memory.bytes != header.segment_bytes() {
            return Err(Refusal::Memory);
        }
        let bytes = usize::try_from(memory.bytes).map_err(|_| Refusal::Memory)?;
        let os = fd.as_os().ok_or(Refusal::Memory)?;
        let guard = self.guard().map_err(|_| Refusal::Map)?;
        let map = Map::new(os, bytes, memory.id, &guard).map_err(|_| Refusal::Map)?;
        let mut copy = [0; HEADER_BYTES];
        map.read(0, &mut copy);
        if &copy != told || header.nonce != memory.id {
            return Err(Refusal::Header);
        }
        Ok((header, map))
    }

    fn welcome(
        &mut self,
        cx: &mut Cx<'_>,
        id: LinkId,
        header: Header,
        map: &Rc<Map>,
        they_wait: bool,
    ) {
        let we_wait = cx.waits_on_words();
        let listener = self.get(id).and_then(|link| link.cold.as_ref()).and_then(|c| c.listener);
        if !self.answer(cx, id, 0) {
            return;
        }
        let Some(link) = self.get(id) else { return };
        link.open = Some(Open::new(header, map, 1, [we_wait, they_wait]));
        self.opened(cx, id);
        if let Some(listener) = listener {
            cx.emit(listener, LinkEvent::Accepted(id));
        }
    }

    fn refuse(&mut self, cx: &mut Cx<'_>, id: LinkId, refusal: Refusal) {
        log::warn!("shm: a connection is refused: {refusal:?}");
        self.answer(cx, id, refusal as u8);
        // It goes when the answer has gone, or at the deadline.
        if let Some(link) = self.get(id) {
            link.state = State::Broken;
        }
    }

    fn answer(&mut self, cx: &mut Cx<'_>, id: LinkId, code: u8) -> bool {
        let Some(inner) = self.get(id).and_then(|link| link.inner) else { return false };
        let mut bytes = Evbuffer::new();
        bytes.add(&WELCOME_MAGIC);
        bytes.add(&[code, u8::from(cx.waits_on_words()), 0, 0, 0, 0, 0, 0]);
        if let Some(link) = self.get(id) {
            link.bits |= bit::SPEAKING;
        }
        self.inside(cx, |uds, cx| uds.send(cx, inner, &mut bytes, &mut Vec::new()));
        true
    }

    /// The acceptor's answer.
    fn answered(&mut self, cx: &mut Cx<'_>, id: LinkId, got: &[u8]) {
        let Some(Link { cold: Some(cold), .. }) = self.get(id) else { return };
        let Some((header, map)) = cold.offered.take() else { return };
        let failed = |kind, what: &str| io::Error::new(kind, what.to_string());
        if got[..8] != WELCOME_MAGIC || got.len() != WELCOME_BYTES {
            let error = failed(io::ErrorKind::InvalidData, "no shm:// listener answers there");
            return self.break_off(cx, id, Side::Both, error);
        }
        if got[8] != 0 {
            let error = failed(io::ErrorKind::PermissionDenied, Refusal::words(got[8]));
            return self.break_off(cx, id, Side::Both, error);
        }
        let waits = [cx.waits_on_words(), got[9] == 1];
        let Some(link) = self.get(id) else { return };
        link.open = Some(Open::new(header, &map, 0, waits));
        self.opened(cx, id);
        cx.emit(id, LinkEvent::Connected);
    }

    fn opened(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        link.state = State::Open;
        link.bits |= bit::COUNTED;
        let listener = link.cold.take().and_then(|cold| cold.listener);
        self.opens += 1;
        if let Some(listener) = listener {
            self.guest_left(cx, listener);
        }
        cx.no_timer(id);
        self.watch_over(cx);
        self.heat(id);
    }
}

/// A segment with its header, mapped.
fn make(cx: &mut Cx<'_>, ring: u32, guard: &Rc<Fork>) -> io::Result<(Fd, Header, Rc<Map>)> {
    let fd = cx.sys().memory(Header::new(ring, 0).segment_bytes())?;
    let memory = cx.sys().memory_of(&fd)?;
    let header = Header::new(ring, memory.id);
    let bytes = usize::try_from(memory.bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let os = fd.as_os().ok_or(io::ErrorKind::Unsupported)?;
    let map = Map::new(os, bytes, memory.id, guard)?;
    map.write(0, &header.encode());
    Ok((fd, header, map))
}
