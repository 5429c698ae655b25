//! Channels that are received on. What is read is the oldest stream of one; a later one, of a
//! sender that has begun anew, waits until that is at its end.

use std::collections::VecDeque;
use std::rc::Rc;

use ringlane_api::slab::Key;

use super::assembly::{Assembly, Budget, Piece};
use super::kept;
use super::neighbour::Neighbour;
use super::{Core, Event, kind};
use crate::bus::event::{InCounts, InStatus, PeerEvent};
use crate::bus::local::{Nonce, Said, Terms, ToRelay};
use crate::shm::RecordHeader;
use crate::shm::through::{Flow, Inlet, Scribbled};

/// How many streams of one channel are kept: a sender that begins anew again and again waits.
pub(super) const STREAMS_MAX: usize = 4;

/// Sizes that a ring may have.
const RING_BYTES: std::ops::RangeInclusive<u32> = 4 << 10..=64 << 20;

/// Somebody writes to us through the relay.
#[derive(Debug)]
pub(super) struct Arrival {
    pub from: Rc<str>,
    pub chan: u16,
    pub epoch: u64,
    pub nonce: Nonce,
    pub terms: Terms,
}

/// Where the records of a stream come from.
#[derive(Debug)]
pub(super) enum Source {
    Inlet(Inlet),
    Direct {
        neighbour: Rc<dyn Neighbour>,
        link: u32,
        /// The link has ended, in peace or not.
        over: Option<bool>,
    },
}

/// What one instance of a sender writes.
#[derive(Debug)]
pub(super) struct Stream {
    pub epoch: u64,
    pub nonce: Nonce,
    pub ring: u32,
    pub source: Source,
    /// Nothing comes behind that record; and whether the sender said so itself.
    pub end: Option<(u32, bool)>,
    assembly: Assembly,
    /// There may be something to read, whatever the ring says.
    pub left: bool,
    /// The relay has the ring.
    pub handed: bool,
    consumed: u32,
}

impl Stream {
    pub fn is_link(&self, number: u32) -> bool {
        matches!(self.source, Source::Direct { link, .. } if link == number)
    }

    fn is_readable(&self) -> bool {
        self.left || matches!(&self.source, Source::Inlet(inlet) if inlet.news())
    }

    /// Whether everything was shown that will ever come, and how it ended.
    fn at_end(&self) -> Option<(u32, bool)> {
        match &self.source {
            Source::Inlet(inlet) => self.end.filter(|_| inlet.stored() == inlet.consumed()),
            Source::Direct { over, .. } => {
                over.filter(|_| !self.left).map(|clean| (self.consumed, clean))
            }
        }
    }

    /// Nothing more is stored in it.
    fn retire(&mut self) {
        if let Source::Inlet(inlet) = &mut self.source {
            let last = inlet.freeze();
            self.end.get_or_insert((last, false));
            self.left = true;
        }
    }
}

/// A channel that is received on.
#[derive(Debug)]
pub(super) struct In {
    pub from: Rc<str>,
    pub chan: u16,
    pub streams: VecDeque<Box<Stream>>,
    pub waiting: Option<Arrival>,
    budget: Budget,
    counts: InCounts,
    /// The first stream is in somebody's hands.
    taken: bool,
}

impl In {
    fn is_ready(&self) -> bool {
        !self.taken && self.streams.front().is_some_and(|stream| stream.is_readable())
    }
}

/// A record, or several, as a message.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The sender's name.
    pub from: &'a Rc<str>,
    /// The channel.
    pub chan: u16,
    /// The sender's epoch.
    pub epoch: u64,
    /// Number of its last record in the stream.
    pub seq: u32,
    /// One of [`kind`], without flags.
    pub kind: u16,
    /// Of the request, for requests and replies.
    pub number: u64,
    /// The message.
    pub body: &'a [u8],
}

/// The first stream of a channel, out of the core, so that nothing is borrowed while messages are
/// shown.
#[derive(Debug)]
#[must_use = "put it back"]
pub struct Taken {
    key: Key,
    from: Rc<str>,
    chan: u16,
    stream: Box<Stream>,
    counts: InCounts,
    too_large: u64,
    scribbled: bool,
}

/// What came of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Walked {
    /// Messages shown.
    pub shown: u32,
    /// Nothing was left.
    pub dry: bool,
}

impl Taken {
    /// Shows messages, until about `most` records were looked at or `each` stops it. A message
    /// counts as consumed when `each` has returned.
    pub fn walk(
        &mut self,
        private: &mut Vec<u8>,
        most: u32,
        each: &mut dyn FnMut(Seen<'_>) -> Flow,
    ) -> Walked {
        let Taken { from, chan, stream, counts, too_large, .. } = self;
        let Stream { source, assembly, epoch, consumed, .. } = &mut **stream;
        let (mut shown, mut stopped) = (0, false);
        let mut one = |seq: u32, header: RecordHeader, payload: &[u8]| {
            *consumed = seq;
            let flow = match assembly.take(header, payload) {
                Piece::Part => Flow::Go,
                Piece::Aborted => {
                    counts.aborted += 1;
                    Flow::Go
                }
                Piece::TooLarge => {
                    counts.too_large += 1;
                    *too_large += 1;
                    Flow::Go
                }
                Piece::Whole(of, payload) => match parse(of, payload) {
                    Some((kind, number, body)) => {
                        shown += 1;
                        let (chan, epoch) = (*chan, *epoch);
                        each(Seen { from, chan, epoch, seq, kind, number, body })
                    }
                    None => {
                        counts.unknown += 1;
                        Flow::Go
                    }
                },
            };
            assembly.shown();
            stopped |= flow == Flow::Stop;
            flow
        };
        let walked: Result<u32, Scribbled> = match source {
            Source::Inlet(inlet) => inlet.walk(private, most, one),
            Source::Direct { neighbour, .. } => {
                // The first record was the token.
                neighbour.walk(private, most, &mut |seq, header, payload| {
                    one(seq.wrapping_sub(1), header, payload)
                })
            }
        };
        counts.shown += u64::from(shown);
        self.scribbled |= walked.is_err();
        let dry = !stopped && walked.is_ok_and(|records| records < most);
        self.stream.left = !dry && !self.scribbled;
        Walked { shown, dry: !self.stream.left }
    }
}

/// Takes what is not the user's from the front of a payload.
fn parse(of: u16, mut payload: &[u8]) -> Option<(u16, u64, &[u8])> {
    if of & kind::DEADLINE != 0 {
        payload = payload.split_first_chunk::<8>()?.1;
    }
    let of = of & !kind::DEADLINE;
    match of {
        kind::MESSAGE => Some((of, 0, payload)),
        kind::REQUEST | kind::REPLY => {
            let (number, body) = payload.split_first_chunk()?;
            Some((of, u64::from_le_bytes(*number), body))
        }
        _ => None,
    }
}

impl Core {
    fn in_of(&mut self, from: &Rc<str>, chan: u16) -> Key {
        let at = (Rc::clone(from), chan);
        if let Some(key) = self.in_names.get(&at) {
            return *key;
        }
        let of_sender = self.ins.iter().find(|(_, into)| into.from == *from);
        let budget = of_sender.map_or_else(Budget::default, |(_, into)| Rc::clone(&into.budget));
        let key = self.ins.insert(In {
            from: Rc::clone(from),
            chan,
            streams: VecDeque::new(),
            waiting: None,
            budget,
            counts: InCounts::default(),
            taken: false,
        });
        self.in_names.insert(at, key);
        key
    }

    pub(super) fn stream_of(
        &mut self,
        from: &Rc<str>,
        (epoch, nonce): (u64, Nonce),
        ring: u32,
        source: Source,
    ) -> Box<Stream> {
        let of_sender = self.ins.iter().find(|(_, into)| into.from == *from);
        let budget = of_sender.map_or_else(Budget::default, |(_, into)| Rc::clone(&into.budget));
        Box::new(Stream {
            epoch,
            nonce,
            ring,
            source,
            end: None,
            assembly: Assembly::new(budget, self.setup.limits),
            left: true,
            handed: false,
            consumed: 0,
        })
    }

    /// A stream begins, behind those that are there. Whether there is room for it.
    pub(super) fn begin(&mut self, from: &Rc<str>, chan: u16, stream: Box<Stream>) -> bool {
        let key = self.in_of(from, chan);
        let Some(into) = self.ins.get_mut(key) else { return false };
        if into.streams.len() >= STREAMS_MAX {
            return false;
        }
        if let Some(before) = into.streams.back_mut() {
            before.retire();
        }
        into.streams.push_back(stream);
        true
    }

    pub(super) fn incoming(&mut self, arrival: Arrival) {
        let (key, limit) = (self.in_of(&arrival.from, arrival.chan), self.setup.limits.channels);
        if self.ins.len() > limit {
            log::warn!("bus: {} is not received from: {limit} channels are open", arrival.from);
            self.settle(key);
            return;
        }
        let Some(into) = self.ins.get_mut(key) else { return };
        if let Some(stream) = into.streams.back_mut().filter(|stream| stream.end.is_none()) {
            let same = (stream.epoch, stream.nonce) == (arrival.epoch, arrival.nonce);
            let inlet = matches!(stream.source, Source::Inlet(_));
            if same && inlet && stream.handed || stream.epoch > arrival.epoch {
                return;
            }
            if same && inlet {
                return self.hand_inlet_over(key);
            }
        }
        if into.streams.len() >= STREAMS_MAX {
            into.waiting = Some(arrival);
            return;
        }
        self.install(key, arrival);
    }

    /// A fresh ring for a stream that begins.
    pub(super) fn install(&mut self, key: Key, arrival: Arrival) {
        let ring = arrival.terms.ring.clamp(*RING_BYTES.start(), *RING_BYTES.end());
        let ring = if ring.is_power_of_two() { ring } else { ring.next_power_of_two() };
        let made = match self.setup.memory.make_inlet(ring) {
            Ok(made) => made,
            Err(error) => {
                log::error!("bus: no ring to receive from {}: {error}", arrival.from);
                if let Some(into) = self.ins.get_mut(key) {
                    into.waiting = Some(arrival);
                }
                return self.retry_soon();
            }
        };
        kept::keep(&made);
        let Arrival { from, chan, epoch, nonce, .. } = arrival;
        let source = Source::Inlet(Inlet::new(made.map, ring));
        let mut stream = self.stream_of(&from, (epoch, nonce), ring, source);
        stream.handed = self.is_here();
        if self.begin(&from, chan, stream) {
            self.handed.1 += u32::from(self.is_here());
            let line = ToRelay::Segment {
                from: from.to_string(),
                chan,
                epoch,
                nonce,
                att: self.handed.1,
                ring,
            };
            self.say(Said { line, fds: vec![made.fd] });
        }
    }

    /// Nothing comes behind `end` in the stream of that epoch.
    pub(super) fn end_of(&mut self, from: &Rc<str>, chan: u16, epoch: u64, end: (u32, bool)) {
        let Some(key) = self.in_names.get(&(Rc::clone(from), chan)).copied() else { return };
        let Some(into) = self.ins.get_mut(key) else { return };
        if into.waiting.as_ref().is_some_and(|arrival| arrival.epoch == epoch) {
            into.waiting = None;
        }
        let of_epoch = |stream: &&mut Box<Stream>| {
            stream.epoch == epoch && matches!(stream.source, Source::Inlet(_))
        };
        if let Some(stream) = into.streams.iter_mut().rev().find(of_epoch) {
            stream.end.get_or_insert(end);
            stream.left = true;
        }
        self.settle(key);
    }

    /// Whether a relay has stored something that was not looked at.
    pub fn has_arrivals(&self) -> bool {
        self.ins.iter().any(|(_, into)| into.is_ready())
    }

    /// The next stream that may have messages. [`Core::put`] it back.
    pub fn take(&mut self) -> Option<Taken> {
        let ready = |into: &In| into.is_ready();
        let all = self.ins.iter().enumerate();
        let mut ready = all.filter(|(_, (_, into))| ready(into)).map(|(at, (key, _))| (at, key));
        let first = ready.next()?;
        let from = self.next_in;
        let after = std::iter::once(first).chain(ready).find(|(at, _)| *at >= from);
        let (at, key) = after.unwrap_or(first);
        self.next_in = at + 1;
        let into = self.ins.get_mut(key)?;
        let stream = into.streams.pop_front()?;
        into.taken = true;
        let (from, chan, counts) = (Rc::clone(&into.from), into.chan, into.counts);
        Some(Taken { key, from, chan, stream, counts, too_large: 0, scribbled: false })
    }

    /// Takes a stream back.
    pub fn put(&mut self, taken: Taken) {
        let Taken { key, from, chan, mut stream, counts, too_large, scribbled } = taken;
        for _ in 0..too_large {
            let node = Rc::clone(&from);
            self.events.push_back(Event::Peer(PeerEvent::TooLarge { node, chan }));
        }
        if scribbled {
            log::error!("bus: nonsense stands in the ring of {from}, channel {chan}");
        }
        let Some(into) = self.ins.get_mut(key) else { return };
        into.taken = false;
        into.counts = counts;
        if scribbled {
            // What cannot be read has ended.
            let (epoch, last) = (stream.epoch, stream.consumed);
            stream.retire();
            drop(stream);
            self.tell_end((from, chan), epoch, (last, false));
        } else {
            into.streams.push_front(stream);
        }
        self.settle(key);
    }

    fn tell_end(&mut self, (node, chan): (Rc<str>, u16), epoch: u64, (last, clean): (u32, bool)) {
        let ended = PeerEvent::Ended { node, chan, epoch, last, clean };
        self.events.push_back(Event::Peer(ended));
    }

    /// Streams that are at their end go.
    fn settle(&mut self, key: Key) {
        while let Some(into) = self.ins.get_mut(key)
            && !into.taken
            && let Some((stream, end)) =
                into.streams.front().and_then(|stream| Some((stream.epoch, stream.at_end()?)))
        {
            let who = (Rc::clone(&into.from), into.chan);
            into.streams.pop_front();
            self.tell_end(who, stream, end);
        }
        let Some(into) = self.ins.get_mut(key) else { return };
        if into.streams.len() < STREAMS_MAX
            && let Some(arrival) = into.waiting.take()
        {
            return self.install(key, arrival);
        }
        if into.streams.is_empty() && !into.taken {
            let at = (Rc::clone(&into.from), into.chan);
            self.in_names.remove(&at);
            self.ins.remove(key);
        }
    }

    /// The channels that are received on.
    pub fn in_status(&self) -> Vec<InStatus> {
        let with_stream = |into: &In| {
            let stream = into.streams.front()?;
            let (way, consumed) = match &stream.source {
                Source::Inlet(inlet) => ("relay", inlet.consumed()),
                Source::Direct { .. } => ("direct", stream.consumed),
            };
            let (node, chan, counts) = (Rc::clone(&into.from), into.chan, into.counts);
            Some(InStatus { node, chan, way, consumed, epoch: stream.epoch, counts })
        };
        self.ins.iter().filter_map(|(_, into)| with_stream(into)).collect()
    }
}
