//! From a TCP link to an open one: who says hello, and what if not.

use std::io;
use std::time::Duration;

use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::reactor::Side;
use ringlane_api::transport::{Cx, LinkEvent, LinkId};

use super::slots::Slot;
use super::{Rdma, State};
use crate::hello::{self, HELLO_BYTES};
use crate::verbs::Retry;

/// TCP loses nothing and tells of death, so the device need not: a peer that computes for a minute
/// is not gone.
const RETRY: Retry = Retry {
    not_ready: 6,
    not_ready_pause: Duration::from_millis(1),
    silence: 7,
    silence_after: Duration::from_secs(24 * 60 * 60),
};

impl Rdma {
    /// A link that introduces is there; on the connecting side.
    pub(super) fn dialed(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let offer = match self.dispatch.open(self.shape) {
            Ok((key, offer)) => {
                self.by_key.insert(key, id);
                self.slots.get(id).expect("the caller has it").key = Some(key);
                offer
            }
            Err(refusal) => return self.unmet(cx, id, refusal.into()),
        };
        self.await_hello(cx, id);
        self.say_hello(cx, id, &hello::encode(&offer));
    }

    /// A listener has got a link; its base hears of it when the hello has come.
    pub(super) fn called(&mut self, cx: &mut Cx<'_>, listener: LinkId, inner: LinkId) {
        let id = self.slots.insert(State::Greeting, inner);
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

    fn say_hello(&mut self, cx: &mut Cx<'_>, id: LinkId, hello: &[u8]) {
        let slot = self.slots.get(id).expect("the caller has it");
        slot.handed += hello.len();
        let inner = slot.inner;
        let mut out = Evbuffer::from(hello);
        self.inside(cx, |below, cx| below.send(cx, inner, &mut out, &mut Vec::new()));
        debug_assert!(out.is_empty(), "the first bytes of a link are taken");
    }

    /// Bytes came while a hello is awaited. The peer may have sent more behind it.
    pub(super) fn greeted(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let slot = self.slots.get(id).expect("the caller has it");
        let mut bytes = [0; HELLO_BYTES];
        if slot.greeting.copyout(&mut bytes) < HELLO_BYTES {
            return;
        }
        slot.greeting.drain(HELLO_BYTES);
        if let Err(error) = self.meet(cx, id, &bytes) {
            self.unmet(cx, id, error);
        }
    }

    fn meet(&mut self, cx: &mut Cx<'_>, id: LinkId, bytes: &[u8; HELLO_BYTES]) -> io::Result<()> {
        let theirs = hello::decode(bytes)?;
        let slot = self.slots.get(id).expect("the caller has it");
        let (known, listener) = (slot.key, slot.listener);
        let listens = |slot: &mut Slot| slot.state == State::Listening;
        if listener.is_some_and(|listener| !self.slots.get(listener).is_some_and(listens)) {
            return Err(io::Error::other("nobody listens any more"));
        }
        let (key, ours) = match known {
            Some(key) => (key, None),
            None => {
                let (key, ours) = self.dispatch.open(self.shape)?;
                self.by_key.insert(key, id);
                self.slots.get(id).expect("still there").key = Some(key);
                (key, Some(ours))
            }
        };
        let port = self.dispatch.verbs_mut().wire_mut().add();
        self.by_port.insert(port, id);
        let slot = self.slots.get(id).expect("still there");
        slot.port = Some(port);
        self.dispatch.connect(key, port, &theirs, RETRY)?;
        if let Some(ours) = ours {
            self.say_hello(cx, id, &hello::encode(&ours));
        }
        cx.no_timer(id);
        let slot = self.slots.get(id).expect("still there");
        slot.state = State::Open;
        slot.told = true;
        let (window, mut early) = (slot.window, std::mem::take(&mut slot.greeting));
        while let Some(segment) = early.pop_front() {
            self.dispatch.verbs_mut().wire_mut().feed(port, segment);
        }
        self.fed.push(port);
        self.stirred = true;
        match listener {
            Some(listener) => cx.emit(listener, LinkEvent::Accepted(id)),
            None => cx.emit(id, LinkEvent::Connected),
        }
        self.dispatch.grant(key, window, &mut self.events);
        Ok(())
    }

    /// No hello came in time.
    pub(super) fn too_late(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let what = "who is there does not answer in rdma://";
        self.unmet(cx, id, io::Error::new(io::ErrorKind::TimedOut, what));
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
