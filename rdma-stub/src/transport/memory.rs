//! What two processes of one host share: memory that packets travel in, and two bells.
//!
//! ```text
//!   connector                                  acceptor
//!   make, commit, seal, map; a bell
//!   OFFER + memory file, bell  ------------->  sealed? its size? is that a bell?
//!                                              map; a bell
//!          <------------------------ OFFER + bell
//! ```
//!
//! Each side makes the bell (eventfd(2)) that it polls itself: whatever a stranger passes off as
//! one is never polled, only rung, and ringing never waits (`Sys::ring_shared`). A peer that fills,
//! drains or ends our bell wakes us too often, or not at all: that costs its own link. Where the
//! kernel cannot ring such a bell, a byte on the Unix socket does it.

use std::io;
use std::rc::Rc;

use ringlane_api::fd::Fd;
use ringlane_api::reactor::{Completion, Op, Outcome, Ready};
use ringlane_api::transport::{Cx, LinkId};
use ringlane_shm::layout::Header;
use ringlane_shm::map::Map;

use super::{Carrier, Rdma, State};
use crate::limits;
use crate::link::Fault;
use crate::verbs::Port;

/// The kind of a poll of a bell.
const BELL: u8 = 1;

/// Descriptors that are kept of what came: one more than any hello has.
pub(super) const FDS_MAX: usize = 3;

/// What an end of such a link has.
pub(super) struct Shared {
    header: Header,
    map: Rc<Map>,
    /// 0 made the memory.
    side: usize,
    /// Rung by the peer, polled here.
    mine: Option<Fd>,
    /// Rung here.
    theirs: Option<Fd>,
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

impl Rdma {
    /// Whether who is at the other end of the socket may share memory with us.
    pub(super) fn may_share(&mut self, cx: &mut Cx<'_>, id: LinkId) -> bool {
        let Some(slot) = self.slots.get(id) else { return false };
        let (inner, terms) = (slot.inner, Rc::clone(&slot.terms));
        let by_mode = terms.by_mode && slot.listener.is_some();
        let info = self.inside(cx, |below, cx| below.info(cx, inner));
        let Some(who) = info.credentials else { return false };
        by_mode || who.uid == 0 || who.uid == cx.sys().uid() || Some(who.uid) == terms.uid
    }

    /// On the connecting side: memory and a bell, and what to pass of them.
    pub(super) fn make_memory(
        &mut self,
        cx: &mut Cx<'_>,
        id: LinkId,
    ) -> io::Result<(u64, Vec<Fd>)> {
        let bytes = Header::new(limits::RING_BYTES, 0).segment_bytes();
        let file = cx.sys().memory(bytes)?;
        let header = Header::new(limits::RING_BYTES, cx.sys().memory_of(&file)?.id);
        let map = self.map(&file, &header)?;
        let bell = cx.sys().event()?;
        let mine = Some(bell.clone());
        let shared = Shared { header, map, side: 0, mine, theirs: None };
        self.slots.get(id).expect("the caller has it").shared = Some(Box::new(shared));
        Ok((header.nonce, vec![file, bell]))
    }

    fn map(&mut self, file: &Fd, header: &Header) -> io::Result<Rc<Map>> {
        let bytes =
            usize::try_from(header.segment_bytes()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let os = file.as_os().ok_or(io::ErrorKind::Unsupported)?;
        let guard = self.memory().guard()?;
        Map::new(os, bytes, header.nonce, &guard)
    }

    /// On the listening side: what a caller has passed, checked.
    pub(super) fn examine(&mut self, cx: &mut Cx<'_>, id: LinkId, told: u64) -> io::Result<()> {
        let fds = std::mem::take(&mut self.slots.get(id).expect("the caller has it").fds);
        let [file, bell]: [Fd; 2] =
            fds.try_into().map_err(|_| refused("not a memory file and a bell"))?;
        let found = cx.sys().memory_of(&file)?;
        let header = Header::new(limits::RING_BYTES, told);
        let right = found.bytes == header.segment_bytes() && found.id == told;
        if !found.sealed || !found.plain || !right {
            return Err(refused("the memory is not sealed, or not what was told"));
        }
        probe(cx, &bell)?;
        let map = self.map(&file, &header)?;
        let shared = Shared { header, map, side: 1, mine: None, theirs: Some(bell) };
        self.slots.get(id).expect("still there").shared = Some(Box::new(shared));
        Ok(())
    }

    /// On the listening side: our bell, to be passed back.
    pub(super) fn add_bell(&mut self, cx: &mut Cx<'_>, id: LinkId) -> io::Result<Vec<Fd>> {
        let bell = cx.sys().event()?;
        let slot = self.slots.get(id).expect("the caller has it");
        let shared = slot.shared.as_mut().expect("it was examined");
        shared.mine = Some(bell.clone());
        Ok(vec![bell])
    }

    /// On the connecting side: the listener's bell, checked.
    pub(super) fn check_answer(
        &mut self,
        cx: &mut Cx<'_>,
        id: LinkId,
        told: u64,
    ) -> io::Result<()> {
        let slot = self.slots.get(id).expect("the caller has it");
        let fds = std::mem::take(&mut slot.fds);
        let [bell]: [Fd; 1] = fds.try_into().map_err(|_| refused("the peer passes no bell"))?;
        let shared = slot.shared.as_mut().filter(|shared| shared.header.nonce == told);
        let shared = shared.ok_or_else(|| refused("the peer means other memory than ours"))?;
        probe(cx, &bell)?;
        shared.theirs = Some(bell);
        Ok(())
    }

    /// The memory becomes a port of the wire, and our bell is polled.
    pub(super) fn share(&mut self, cx: &mut Cx<'_>, id: LinkId) -> Port {
        let slot = self.slots.get(id).expect("the caller has it");
        let shared = slot.shared.as_ref().expect("the caller has looked");
        let (map, header, side) = (Rc::clone(&shared.map), shared.header, shared.side);
        self.poll_bell(cx, id);
        Carrier::outside(self.memory().add(&map, header, side))
    }

    fn poll_bell(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(slot) = self.slots.get(id) else { return };
        let Some(bell) = slot.shared.as_ref().and_then(|shared| shared.mine.clone()) else {
            return;
        };
        let op = Op::Poll { fd: bell, ready: Ready::READ, multishot: true, edge: true };
        slot.poll = Some(cx.push(id, BELL, op));
    }

    /// Our bell has rung, or its poll is over.
    pub(super) fn bell_rang(&mut self, cx: &mut Cx<'_>, completion: &Completion) {
        let token = completion.token;
        let id = LinkId { slot: token.slot(), generation: token.generation() };
        let Some(slot) = self.slots.get(id) else { return };
        if !completion.more {
            slot.poll = None;
        }
        let (state, key) = (slot.state, slot.key);
        let rang = matches!(completion.result, Ok(Outcome::Ready(ready))
            if !ready.contains(Ready::HANGUP));
        if !matches!(state, State::Open | State::Leaving) || key.is_none() {
            return self.close_if_over(cx, id);
        }
        self.wake(id);
        if !rang {
            // Nobody but the peer can bring it into that state.
            if let Some(key) = key {
                self.dispatch.peer_lost(key, Fault::Frame, &mut self.events);
                self.tell(cx);
            }
        } else if !completion.more {
            self.poll_bell(cx, id);
        }
    }

    /// Its memory is looked at in the next turn of the device.
    pub(super) fn wake(&mut self, id: LinkId) {
        self.stirred = true;
        let port = self.slots.get(id).and_then(|slot| slot.port);
        if let Some(port) = port.and_then(Carrier::inside) {
            self.memory().wake(port);
        }
    }

    /// Makes visible what was put into memory, and rings those that sleep.
    pub(super) fn publish(&mut self, cx: &mut Cx<'_>) {
        for port in self.memory().publish() {
            let id = self.by_port.get(&Carrier::outside(port)).copied();
            if let Some(id) = id {
                self.ring(cx, id);
            }
        }
    }

    fn ring(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(slot) = self.slots.get(id) else { return };
        let Some(bell) = slot.shared.as_ref().and_then(|shared| shared.theirs.as_ref()) else {
            return;
        };
        match cx.sys().ring_shared(bell) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.ring_by_byte(cx, id),
            Err(error) => log::warn!("rdma: a peer's bell cannot be rung: {error}"),
        }
    }

    /// One byte at a time: the one that follows is sent when the one before it is.
    pub(super) fn ring_by_byte(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(slot) = self.slots.get(id) else { return };
        if slot.inner_over || slot.inner_closed {
            return;
        }
        slot.ring_due = slot.handed > 0;
        if slot.ring_due {
            return;
        }
        slot.handed += 1;
        let inner = slot.inner;
        let mut byte = ringlane_api::evbuffer::Evbuffer::from(&[1][..]);
        self.inside(cx, |below, cx| below.send(cx, inner, &mut byte, &mut Vec::new()));
    }

    /// Lets go of the poll; the link is closed when its last completion has come.
    pub(super) fn forget_bell(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        if let Some(poll) = self.slots.get(id).and_then(|slot| slot.poll) {
            cx.cancel(poll);
        }
    }
}

/// Rings it once: what is no counter is refused there. The peer looks once for nothing.
fn probe(cx: &mut Cx<'_>, bell: &Fd) -> io::Result<()> {
    match cx.sys().ring_shared(bell) {
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    }
}
