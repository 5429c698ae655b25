//! From a link that introduces to an open one: who says hello, and what if not.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::fd::Fd;
use ringlane_api::reactor::Side;
use ringlane_api::slab::Key;
use ringlane_api::transport::{Cx, LinkEvent, LinkId};

use super::{Rdma, State};
use crate::hello::{HELLO_BYTES, Hello, Reason, What};
use crate::link::Offer;
use crate::verbs::Retry;

/// The wires lose nothing and the link that introduces tells of death, so the device need not: a
/// peer that computes for a minute is not gone.
const RETRY: Retry = Retry {
    not_ready: 6,
    not_ready_pause: Duration::from_millis(1),
    silence: 7,
    silence_after: Duration::from_secs(24 * 60 * 60),
};

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

impl Rdma {
    /// A link that introduces is there; on the connecting side.
    pub(super) fn dialed(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let terms = Rc::clone(&self.slots.get(id).expect("the caller has it").terms);
        if terms.local && !self.may_share(cx, id) {
            let what = "another user listens there; say uid= to share memory with it";
            let error = io::Error::new(io::ErrorKind::PermissionDenied, what);
            return self.unmet(cx, id, error);
        }
        let (what, fds) = match self.prepare(cx, id, None) {
            Ok((_, what, fds)) => (what, fds),
            Err(error) if terms.falls_back => {
                log::warn!("rdma: the device refuses ({error}); a link wants to do without");
                self.slots.get(id).expect("still there").plain = true;
                (What::Plain, Vec::new())
            }
            Err(error) => {
                let hint = format!("{error}; fallback={} goes on without the device", terms.kind);
                return self.unmet(cx, id, io::Error::new(error.kind(), hint));
            }
        };
        self.await_hello(cx, id);
        self.say_hello(cx, id, what, fds);
    }

    /// A listener has got a link; its base hears of it when the hello has come.
    pub(super) fn called(&mut self, cx: &mut Cx<'_>, listener: LinkId, inner: LinkId) {
        let terms = Rc::clone(&self.slots.get(listener).expect("the caller has it").terms);
        let id = self.slots.insert(State::Greeting, inner, terms);
        self.by_inner.insert(inner, id);
        self.slots.get(id).expect("just made").listener = Some(listener);
        self.await_hello(cx, id);
    }

    fn await_hello(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let slot = self.slots.get(id).expect("the caller has it");
        slot.state = State::Greeting;
        let (inner, patience) = (slot.inner, slot.patience);
        cx.timer(id, patience);
        self.inside(cx, |below, cx| below.grant(cx, inner, u64::MAX));
    }

    fn say_hello(&mut self, cx: &mut Cx<'_>, id: LinkId, what: What, mut fds: Vec<Fd>) {
        let slot = self.slots.get(id).expect("the caller has it");
        slot.handed += HELLO_BYTES;
        let hello = Hello { what, may_fall_back: slot.terms.falls_back };
        let inner = slot.inner;
        let mut out = Evbuffer::from(&hello.encode()[..]);
        self.inside(cx, |below, cx| below.send(cx, inner, &mut out, &mut fds));
        debug_assert!(out.is_empty(), "the first bytes of a link are taken");
    }

    /// Makes our end: a queue pair with its receives posted, and what is shared with a peer on this
    /// host. `theirs` is the memory that such a peer has made.
    fn prepare(
        &mut self,
        cx: &mut Cx<'_>,
        id: LinkId,
        theirs: Option<u64>,
    ) -> io::Result<(Key, What, Vec<Fd>)> {
        let (key, offer) = self.dispatch.open(self.shape)?;
        self.by_key.insert(key, id);
        let slot = self.slots.get(id).expect("the caller has it");
        slot.key = Some(key);
        if !slot.terms.local {
            return Ok((key, What::Offer { offer, memory: 0 }, Vec::new()));
        }
        let shared = match theirs {
            None => self.make_memory(cx, id),
            Some(memory) => self.add_bell(cx, id).map(|fds| (memory, fds)),
        };
        match shared {
            Ok((memory, fds)) => Ok((key, What::Offer { offer, memory }, fds)),
            Err(error) => {
                self.dispatch.abort(key, &mut self.events);
                self.stirred = true;
                Err(error)
            }
        }
    }

    /// Bytes came while a hello is awaited. The peer may have sent more behind it.
    pub(super) fn greeted(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let slot = self.slots.get(id).expect("the caller has it");
        let mut bytes = [0; HELLO_BYTES];
        if slot.greeting.copyout(&mut bytes) < HELLO_BYTES {
            return;
        }
        slot.greeting.drain(HELLO_BYTES);
        let listener = slot.listener;
        let met = Hello::decode(&bytes).and_then(|hello| match listener {
            Some(listener) => self.meet_caller(cx, id, listener, hello),
            None => self.meet_answer(cx, id, hello),
        });
        if let Err(error) = met {
            self.unmet(cx, id, error);
        }
    }

    fn meet_caller(
        &mut self,
        cx: &mut Cx<'_>,
        id: LinkId,
        listener: LinkId,
        hello: Hello,
    ) -> io::Result<()> {
        if !self.slots.get(listener).is_some_and(|slot| slot.state == State::Listening) {
            return Err(io::Error::other("nobody listens any more"));
        }
        let terms = Rc::clone(&self.slots.get(id).expect("the caller has it").terms);
        if terms.local && !self.may_share(cx, id) {
            return self.refuse(cx, id, Reason::User);
        }
        let (theirs, memory) = match hello.what {
            What::Refused(_) => return Err(nonsense("whoever connects refuses itself")),
            What::Plain if terms.falls_back => {
                self.say_hello(cx, id, What::Plain, Vec::new());
                return self.go_plain(cx, id);
            }
            What::Plain => return self.refuse(cx, id, Reason::NoFallback),
            What::Offer { offer, memory } => (offer, memory),
        };
        if (memory != 0) != terms.local {
            return Err(nonsense("the peer means the other kind of rdma:// address"));
        }
        if terms.local && self.examine(cx, id, memory).is_err() {
            return self.refuse(cx, id, Reason::Memory);
        }
        match self.prepare(cx, id, Some(memory)) {
            Ok((key, what, fds)) => {
                self.join(cx, id, key, &theirs)?;
                self.say_hello(cx, id, what, fds);
                self.opened(cx, id, key);
                Ok(())
            }
            Err(error) if terms.falls_back && hello.may_fall_back => {
                log::warn!("rdma: the device refuses ({error}); a link does without");
                self.say_hello(cx, id, What::Plain, Vec::new());
                self.go_plain(cx, id)
            }
            Err(error) => {
                log::warn!("rdma: the device refuses a link: {error}");
                self.refuse(cx, id, Reason::Device)
            }
        }
    }

    fn meet_answer(&mut self, cx: &mut Cx<'_>, id: LinkId, hello: Hello) -> io::Result<()> {
        let slot = self.slots.get(id).expect("the caller has it");
        let (terms, plain, key) = (Rc::clone(&slot.terms), slot.plain, slot.key);
        match (hello.what, key) {
            (What::Refused(reason), _) => Err(reason.error(terms.kind)),
            (What::Plain, key) if terms.falls_back => {
                if let Some(key) = key {
                    self.dispatch.abort(key, &mut self.events);
                    self.stirred = true;
                }
                self.go_plain(cx, id)
            }
            (What::Offer { offer, memory }, Some(key)) if !plain => {
                if terms.local {
                    self.check_answer(cx, id, memory)?;
                } else if memory != 0 {
                    return Err(nonsense("the peer means the other kind of rdma:// address"));
                }
                self.join(cx, id, key, &offer)?;
                self.opened(cx, id, key);
                Ok(())
            }
            _ => Err(nonsense("the peer answers something else than it was asked")),
        }
    }

    /// The device's link gets its wire and its peer.
    fn join(&mut self, cx: &mut Cx<'_>, id: LinkId, key: Key, theirs: &Offer) -> io::Result<()> {
        let port = match self.slots.get(id).expect("the caller has it").shared.is_some() {
            true => self.share(cx, id),
            false => self.stream().add(),
        };
        self.by_port.insert(port, id);
        self.slots.get(id).expect("still there").port = Some(port);
        self.dispatch.connect(key, port, theirs, RETRY)
    }

    fn opened(&mut self, cx: &mut Cx<'_>, id: LinkId, key: Key) {
        cx.no_timer(id);
        let slot = self.slots.get(id).expect("the caller has it");
        slot.state = State::Open;
        slot.told = true;
        let (window, listener, port) = (slot.window, slot.listener, slot.port);
        let mut early = std::mem::take(&mut slot.greeting);
        while let (Some(segment), Some(port)) = (early.pop_front(), port) {
            self.arrived(cx, port, segment);
        }
        self.stirred = true;
        match listener {
            Some(listener) => cx.emit(listener, LinkEvent::Accepted(id)),
            None => cx.emit(id, LinkEvent::Connected),
        }
        self.dispatch.grant(key, window, &mut self.events);
    }

    /// No hello came in time.
    pub(super) fn too_late(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let what = "who is there does not answer in rdma://";
        self.unmet(cx, id, io::Error::new(io::ErrorKind::TimedOut, what));
    }

    /// Tells a caller why not, and hangs up when that is said.
    fn refuse(&mut self, cx: &mut Cx<'_>, id: LinkId, reason: Reason) -> io::Result<()> {
        log::warn!("rdma: a connection is refused: {reason:?}");
        self.say_hello(cx, id, What::Refused(reason), Vec::new());
        self.slots.get(id).expect("the caller has it").state = State::Leaving;
        Ok(())
    }

    /// It comes to nothing: the owner is told, or, if nobody knows of it yet, it goes in silence.
    pub(super) fn unmet(&mut self, cx: &mut Cx<'_>, id: LinkId, error: io::Error) {
        let Some(slot) = self.slots.get(id) else { return };
        if slot.told {
            cx.no_timer(id);
            // It is told once; the owner ends it.
            (slot.state, slot.inner_over) = (State::Dialing, true);
            return cx.emit(id, LinkEvent::Failed(Side::Both, error));
        }
        slot.state = State::Leaving;
        let (key, inner) = (slot.key, slot.inner);
        if let Some(key) = key {
            self.dispatch.abort(key, &mut self.events);
            self.stirred = true;
        }
        self.inside(cx, |below, cx| below.abort(cx, inner));
    }
}
