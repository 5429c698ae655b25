//! Rings on their way to a relay: for the first time, and to each relay that comes after it.

use std::os::fd::OwnedFd;

use ringlane_api::slab::Key;

use super::Core;
use super::ins::{STREAMS_MAX, Source};
use super::out::{Out, Way};
use crate::bus::local::{Place, Said, ToRelay};
use crate::bus::memory::Memory;
use crate::shm::through::{Outlet, Published, Scribbled};

impl Core {
    /// A ring to send from through the relay, with what waits for it.
    pub(super) fn make_ring(&mut self, key: Key) {
        let memory = self.setup.memory.clone();
        let Some(out) = self.outs.get_mut(key) else { return };
        let Some(terms) = out.terms else { return };
        match memory.make_outlet(terms.ring) {
            Ok(made) => {
                let outlet = Box::new(Outlet::new(made.map, terms.ring));
                out.way = Way::Ring { outlet, fd: made.fd };
                self.attach(key);
                self.work_on(key);
            }
            Err(error) => {
                log::error!("bus: no ring to send to {}: {error}", out.to);
                self.retry_soon();
            }
        }
    }

    /// Hands a ring to the relay that is here, with a fresh control page.
    fn attach(&mut self, key: Key) {
        if !self.is_here() {
            return;
        }
        let (memory, epoch) = (self.setup.memory.clone(), self.setup.epoch);
        let att = self.handed.0 + 1;
        let Some(out) = self.outs.get_mut(key) else { return };
        match attached(out, &memory, (epoch, att)) {
            Ok(Some(said)) => {
                self.handed.0 = att;
                self.say(said);
            }
            Ok(None) => {}
            Err(error) => {
                log::error!("bus: no control page for the ring to {}: {error}", out.to);
                // Everything once more, with a relay that knows nothing.
                self.retry_soon();
            }
        }
    }

    /// The relay is here, perhaps a new one: it is told all.
    pub(super) fn hand_everything_over(&mut self) {
        let keys: Vec<Key> = self.outs.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(out) = self.outs.get_mut(key) else { continue };
            out.close_said = false;
            let (id, to, chan) = (out.id, out.to.clone(), out.chan);
            match &out.way {
                Way::Ring { .. } => self.attach(key),
                Way::Asked | Way::Meeting(_) => {
                    out.way = Way::Asked;
                    self.say_line(ToRelay::Open { id, to, chan });
                }
                Way::Direct { .. } | Way::None { .. } => {}
            }
            self.work_on(key);
        }
        self.ask_for_members();
        self.hand_inlets_over();
    }

    /// What failed is tried again.
    pub(super) fn retry(&mut self) {
        let keys: Vec<Key> = self.outs.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(out) = self.outs.get(key) else { continue };
            if matches!(out.way, Way::Asked) {
                let (id, to, chan) = (out.id, out.to.clone(), out.chan);
                self.say_line(ToRelay::Open { id, to, chan });
            }
        }
        self.retry_inlets();
    }

    /// The epoch changes: what was not acknowledged begins new streams.
    pub(super) fn begin_streams_anew(&mut self) {
        let limits = self.setup.limits;
        for (_, out) in self.outs.iter_mut() {
            out.begin_anew();
            debug_assert!(out.has_room(0, &limits) || !out.is_open());
        }
    }

    /// The current ring of a channel, with what is unread, goes to the relay in fresh memory.
    pub(super) fn hand_inlet_over(&mut self, key: Key) {
        let Some(into) = self.ins.get_mut(key) else { return };
        let (from, chan) = (into.from.to_string(), into.chan);
        let Some(stream) = into.streams.back_mut() else { return };
        let Source::Inlet(inlet) = &mut stream.source else { return };
        if stream.end.is_some() {
            return;
        }
        stream.left = true;
        stream.handed = false;
        let (ring, epoch, nonce) = (stream.ring, stream.epoch, stream.nonce);
        if let Some(fd) = kept::again(inlet) {
            stream.handed = true;
            self.handed.1 += 1;
            let line = ToRelay::Segment { from, chan, epoch, nonce, att: self.handed.1, ring };
            return self.say(Said { line, fds: vec![fd] });
        }
        let made = match self.setup.memory.make_inlet(ring) {
            Ok(made) => made,
            Err(error) => {
                log::error!("bus: no ring to receive from {from} with the new relay: {error}");
                return self.retry_soon();
            }
        };
        match inlet.hand_over(made.map, ring) {
            Ok(fresh) => *inlet = fresh,
            Err(Scribbled) => {
                log::error!("bus: the relay wrote nonsense into the ring of {from}");
                stream.end = Some((inlet.consumed(), false));
                return;
            }
        }
        stream.handed = true;
        self.handed.1 += 1;
        let line = ToRelay::Segment { from, chan, epoch, nonce, att: self.handed.1, ring };
        self.say(Said { line, fds: vec![made.fd] });
    }

    pub(super) fn hand_inlets_over(&mut self) {
        let keys: Vec<Key> = self.ins.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.hand_inlet_over(key));
    }

    /// Nothing is stored any more by the relay that has the rings, and nothing ended that is sent.
    pub(super) fn freeze_all(&mut self) {
        self.outs.iter().for_each(|(_, out)| out.let_go());
        for (_, into) in self.ins.iter_mut() {
            into.waiting = None;
            for stream in &mut into.streams {
                stream.left = true;
                stream.handed = false;
                if let Source::Inlet(inlet) = &mut stream.source {
                    inlet.freeze();
                }
            }
        }
    }

    pub(super) fn retry_inlets(&mut self) {
        let keys: Vec<Key> = self.ins.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(into) = self.ins.get_mut(key) else { continue };
            if into.streams.len() < STREAMS_MAX
                && let Some(arrival) = into.waiting.take()
            {
                self.install(key, arrival);
            } else if into.streams.back().is_some_and(|stream| !stream.handed) && self.is_here() {
                self.hand_inlet_over(key);
            }
        }
    }
}

/// What is said to a relay that gets a ring, if the channel has one.
fn attached(
    out: &mut Out,
    memory: &Memory,
    (epoch, att): (u64, u32),
) -> std::io::Result<Option<Said<ToRelay>>> {
    let Way::Ring { outlet, fd } = &mut out.way else { return Ok(None) };
    let (data, control): (OwnedFd, _) = (fd.try_clone()?, memory.make_control()?);
    let Published { seq, pos, .. } = outlet.attach(control.map);
    let line = ToRelay::Attach {
        id: out.id,
        to: out.to.clone(),
        chan: out.chan,
        epoch,
        att,
        from: Place { seq, pos },
        expected: out.epoch,
        ring: outlet.capacity(),
    };
    Ok(Some(Said { line, fds: vec![data, control.fd] }))
}

/// For a planted bug: segments as they were made, to be handed over once more.
#[cfg(feature = "mutants")]
pub(crate) mod kept {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::os::fd::OwnedFd;

    use ringlane_api::mutant::{Mutant, on};

    use crate::bus::memory::Made;
    use crate::shm::through::{Inlet, mutant};

    thread_local! {
        static KEPT: RefCell<HashMap<u64, OwnedFd>> = RefCell::default();
    }

    pub fn keep(made: &Made) {
        if on(Mutant::BusSegmentKept)
            && let Ok(fd) = made.fd.try_clone()
        {
            KEPT.with_borrow_mut(|kept| kept.insert(made.map.file(), fd));
        }
    }

    pub fn again(inlet: &mut Inlet) -> Option<OwnedFd> {
        if !on(Mutant::BusSegmentKept) {
            return None;
        }
        let file = mutant::thaw(inlet);
        KEPT.with_borrow(|kept| kept.get(&file)?.try_clone().ok())
    }
}

/// No bug is planted.
#[cfg(not(feature = "mutants"))]
pub(crate) mod kept {
    use std::os::fd::OwnedFd;

    use crate::bus::memory::Made;
    use crate::shm::through::Inlet;

    pub fn keep(_: &Made) {}

    pub fn again(_: &mut Inlet) -> Option<OwnedFd> {
        None
    }
}
