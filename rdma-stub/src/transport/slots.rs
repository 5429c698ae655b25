//! The links of the transport, as its base knows them.

use std::rc::Rc;
use std::time::Duration;

use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::fd::Fd;
use ringlane_api::reactor::OpId;
use ringlane_api::slab::Key;
use ringlane_api::transport::{LinkEvent, LinkId};

use super::address::Terms;
use super::memory::Shared;
use crate::verbs::Port;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Listening,
    /// The link that introduces is being connected.
    Dialing,
    /// A hello is awaited.
    Greeting,
    Open,
    /// Open without the device: bytes go over the link that introduced it, as they are.
    Plain,
    /// Its owner has left.
    Leaving,
}

pub(super) struct Slot {
    pub(super) state: State,
    /// Of its own address, or of its listener's.
    pub(super) terms: Rc<Terms>,
    /// The link that introduced it.
    pub(super) inner: LinkId,
    /// `Closed` of that link came.
    pub(super) inner_closed: bool,
    /// It will carry nothing more.
    pub(super) inner_over: bool,
    /// Bytes it has taken and not released.
    pub(super) handed: usize,
    /// The listener that accepted it.
    pub(super) listener: Option<LinkId>,
    /// Its owner knows of it.
    pub(super) told: bool,
    pub(super) key: Option<Key>,
    pub(super) port: Option<Port>,
    pub(super) greeting: Evbuffer,
    pub(super) window: u64,
    /// How long a hello is waited for.
    pub(super) patience: Duration,
    /// It has offered to go on without the device, or does.
    pub(super) plain: bool,
    /// The end of a plain link, while what came before it is still here.
    pub(super) ended: Option<LinkEvent>,
    /// Descriptors that came and were not looked at.
    pub(super) fds: Vec<Fd>,
    /// What it shares with a peer on this host.
    pub(super) shared: Option<Box<Shared>>,
    /// The poll of our bell.
    pub(super) poll: Option<OpId>,
    /// A byte that rings the peer waits for the one before it.
    pub(super) ring_due: bool,
}

impl Slot {
    /// So many bytes of the window are used up.
    pub(super) fn pay(&mut self, bytes: usize) {
        if self.window != u64::MAX {
            self.window = self.window.saturating_sub(bytes as u64);
        }
    }
}

/// Generation-checked places.
#[derive(Default)]
pub(super) struct Slots {
    places: Vec<(u16, Option<Box<Slot>>)>,
    free: Vec<u32>,
}

impl Slots {
    pub(super) fn insert(&mut self, state: State, inner: LinkId, terms: Rc<Terms>) -> LinkId {
        let slot = Box::new(Slot {
            state,
            terms,
            inner,
            inner_closed: false,
            inner_over: false,
            handed: 0,
            listener: None,
            told: state == State::Listening,
            key: None,
            port: None,
            greeting: Evbuffer::new(),
            window: 0,
            patience: ringlane_api::limits::CONNECT_TIMEOUT,
            plain: false,
            ended: None,
            fds: Vec::new(),
            shared: None,
            poll: None,
            ring_due: false,
        });
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[at as usize];
        *place = (place.0.wrapping_add(1), Some(slot));
        LinkId { slot: at, generation: place.0 }
    }

    pub(super) fn get(&mut self, id: LinkId) -> Option<&mut Slot> {
        let (generation, slot) = self.places.get_mut(id.slot as usize)?;
        slot.as_deref_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn remove(&mut self, id: LinkId) {
        if self.get(id).is_some() {
            self.places[id.slot as usize].1 = None;
            self.free.push(id.slot);
        }
    }

    /// The link that carries a plain one.
    pub(super) fn plain(&mut self, id: LinkId) -> Option<LinkId> {
        self.get(id).filter(|slot| slot.state == State::Plain).map(|slot| slot.inner)
    }

    /// The device's link of an open one.
    pub(super) fn open_key(&mut self, id: LinkId) -> Option<Key> {
        self.get(id).filter(|slot| slot.state == State::Open).and_then(|slot| slot.key)
    }
}
