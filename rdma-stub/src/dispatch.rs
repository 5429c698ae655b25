//! One device, one completion queue, all links: the one place where completions are taken.
//!
//! ```text
//!   wake ─► take_event ─► progress until nothing is left ─► flush ─► arm ─► progress once more
//!                                                                     └─ nothing: sleep
//! ```
//!
//! Nobody else polls, so nobody can take a completion that another waits for. An armed queue makes
//! one event, and only for what completes afterwards; [`Dispatch::arm`] therefore looks once more
//! and says [`Armed::Again`] if there was something.
//!
//! Invariant: the work that all links may have at a time fits into the queue. A link that would
//! break this is refused, because an overrun kills every link of the device.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::limits::{BLOCK_BYTES, RING_BLOCKS};
use ringlane_api::mutant::{self, Mutant};
use ringlane_api::segment::{Home, Segment};
use ringlane_api::slab::{Key, Slab};
use ringlane_api::transport::LinkEvent;

use crate::limits;
use crate::link::{Fault, FileRead, Link, Offer, Scope, Shape};
use crate::verbs::{PairNumber, Port, QueueNumber, Refusal, Retry, Verbs, WorkCompletion};

/// Whether the loop may sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Armed {
    /// An event will come.
    Armed,
    /// There is something to do first.
    Again,
}

/// What a dispatch did so far; all of it only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DispatchCounters {
    /// Completions handled.
    pub completions: u64,
    /// Times that arming found a completion that would have been slept over.
    pub rescued_by_looking_again: u64,
    /// Events that brought no completion.
    pub empty_events: u64,
}

/// Events of links, in order per link.
pub type Events = Vec<(Key, LinkEvent)>;

/// All links of a device.
pub struct Dispatch<V> {
    verbs: V,
    queue: QueueNumber,
    entries_left: u32,
    links: Slab<Link>,
    by_pair: HashMap<PairNumber, Key>,
    home: Rc<Home>,
    done: Vec<WorkCompletion>,
    events: Vec<LinkEvent>,
    /// Links that may have something to say; those that are marked as due, each once.
    unflushed: Vec<Key>,
    gone: bool,
    counters: DispatchCounters,
}

impl<V: Verbs> Dispatch<V> {
    /// A dispatch that owns its device.
    pub fn new(mut verbs: V) -> Result<Dispatch<V>, Refusal> {
        let entries = limits::QUEUE_ENTRIES.min(verbs.limits().queue_entries_max);
        let queue = verbs.create_queue(entries)?;
        Ok(Dispatch {
            verbs,
            queue,
            entries_left: entries,
            links: Slab::new(),
            by_pair: HashMap::new(),
            home: Home::new(BLOCK_BYTES, RING_BLOCKS),
            done: Vec::new(),
            events: Vec::new(),
            unflushed: Vec::new(),
            gone: false,
            counters: DispatchCounters::default(),
        })
    }

    /// The device.
    pub fn verbs(&self) -> &V {
        &self.verbs
    }

    /// The device.
    pub fn verbs_mut(&mut self) -> &mut V {
        &mut self.verbs
    }

    /// What it did so far.
    pub fn counters(&self) -> DispatchCounters {
        self.counters
    }

    /// Where received bytes stand.
    pub fn home(&self) -> &Rc<Home> {
        &self.home
    }

    /// How many links there are.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// A link.
    pub fn link(&self, key: Key) -> Option<&Link> {
        self.links.get(key)
    }

    /// Makes a link with its receives posted, and what to tell the peer.
    pub fn open(&mut self, shape: Shape) -> Result<(Key, Offer), Refusal> {
        if self.gone {
            return Err(Refusal::DeviceGone);
        }
        let left = self.entries_left.checked_sub(shape.entries()).ok_or(Refusal::Limit)?;
        let (link, offer) = Link::open(&mut self.verbs, self.queue, shape)?;
        self.entries_left = left;
        let key = self.links.insert(link);
        self.by_pair.insert(offer.pair, key);
        Ok((key, offer))
    }

    /// Joins a link to its peer.
    pub fn connect(&mut self, key: Key, port: Port, peer: &Offer, retry: Retry) -> io::Result<()> {
        let link = self.links.get_mut(key).ok_or(io::ErrorKind::NotConnected)?;
        link.connect(&mut self.verbs, port, peer, retry)?;
        self.is_due(key);
        Ok(())
    }

    /// See [`Link::send`].
    pub fn send(
        &mut self,
        key: Key,
        out: &mut Evbuffer,
        file: &mut FileRead<'_>,
        dead: &mut Vec<Segment>,
        events: &mut Events,
    ) {
        self.with(key, events, |link, scope| link.send(scope, out, file, dead));
    }

    /// See [`Link::grant`].
    pub fn grant(&mut self, key: Key, bytes: u64, events: &mut Events) {
        self.with(key, events, |link, scope| link.grant(scope, bytes));
        self.is_due(key);
    }

    /// See [`Link::finish`].
    pub fn finish(&mut self, key: Key, events: &mut Events) {
        self.with(key, events, |link, scope| link.finish(scope));
    }

    /// See [`Link::abort`].
    pub fn abort(&mut self, key: Key, events: &mut Events) {
        self.with(key, events, |link, scope| link.abort(scope));
    }

    /// See [`Link::lingered`].
    pub fn lingered(&mut self, key: Key, events: &mut Events) {
        self.with(key, events, |link, scope| link.lingered(scope));
    }

    /// The link to the peer ends for a reason from outside; what had come is handled first.
    pub fn peer_lost(&mut self, key: Key, fault: Fault, events: &mut Events) {
        let turns = limits::QUEUE_ENTRIES as usize / limits::PROGRESS_COMPLETIONS_MAX + 1;
        (0..turns).any(|_| !self.progress(events));
        self.with(key, events, |link, scope| link.peer_lost(scope, fault));
    }

    /// Handles a bounded number of completions; says whether there may be more.
    pub fn progress(&mut self, events: &mut Events) -> bool {
        let most = limits::PROGRESS_COMPLETIONS_MAX;
        if self.gone {
            return false;
        }
        let mut done = std::mem::take(&mut self.done);
        let polled = self.verbs.poll(self.queue, &mut done, most);
        for completion in done.drain(..) {
            self.counters.completions += 1;
            // A pair that was refused while it was made has no link.
            let Some(&key) = self.by_pair.get(&completion.pair) else { continue };
            self.with(key, events, |link, scope| link.completed(scope, &completion));
            self.is_due(key);
        }
        self.done = done;
        if polled.is_err() || self.verbs.take_async_event().is_some() {
            self.device_gone(events);
            return false;
        }
        polled == Ok(most)
    }

    fn is_due(&mut self, key: Key) {
        if let Some(link) = self.links.get_mut(key)
            && !std::mem::replace(&mut link.due, true)
        {
            self.unflushed.push(key);
        }
    }

    /// Lets every link say what is due. Once per turn, when callbacks have run and data had its
    /// chance to carry the credit.
    pub fn flush(&mut self, events: &mut Events) {
        let mut unflushed = std::mem::take(&mut self.unflushed);
        for key in unflushed.drain(..) {
            self.with(key, events, |link, scope| {
                link.due = false;
                link.flush(scope);
            });
        }
        self.unflushed = unflushed;
    }

    /// The channel is readable: takes its event and handles completions as
    /// [`Dispatch::progress`] does.
    pub fn woken(&mut self, events: &mut Events) -> bool {
        let event = self.verbs.take_event();
        let before = self.counters.completions;
        let more = self.progress(events);
        self.counters.empty_events += u64::from(event && before == self.counters.completions);
        more
    }

    /// Says all that is due, asks for an event, and looks once more.
    pub fn arm(&mut self, events: &mut Events) -> Armed {
        self.flush(events);
        if self.gone {
            return Armed::Armed;
        }
        if self.verbs.request_notify(self.queue).is_err() {
            self.device_gone(events);
            return Armed::Again;
        }
        if mutant::on(Mutant::RdmaArmUnchecked) {
            return Armed::Armed;
        }
        let before = self.counters.completions;
        self.progress(events);
        if before == self.counters.completions && !self.gone {
            return Armed::Armed;
        }
        self.counters.rescued_by_looking_again += 1;
        Armed::Again
    }

    fn device_gone(&mut self, events: &mut Events) {
        self.gone = true;
        let keys: Vec<Key> = self.links.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.with(key, events, |link, scope| link.device_gone(scope));
        }
    }

    /// Runs a verb of a link, hands its events on, and forgets it when it is closed.
    fn with(
        &mut self,
        key: Key,
        events: &mut Events,
        verb: impl FnOnce(&mut Link, &mut Scope<'_>),
    ) {
        let Some(link) = self.links.get_mut(key) else { return };
        let mut own = std::mem::take(&mut self.events);
        let mut scope = Scope { verbs: &mut self.verbs, home: &self.home, events: &mut own };
        verb(link, &mut scope);
        events.extend(own.drain(..).map(|event| (key, event)));
        self.events = own;
        if link.is_closed() {
            self.by_pair.remove(&link.pair());
            self.entries_left += link.shape().entries();
            self.links.remove(key);
        }
    }
}
