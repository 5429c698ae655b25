//! A device in software that enforces what hardware enforces, and some things that hardware lets
//! pass until they hurt.
//!
//! ```text
//!   post ─► Pair ──packets──► Wire ──packets──► Pair ─► Queue ─► poll
//!            │  memory: Regions (keys, bounds, who owns which bytes)
//! ```
//!
//! The hardware runs in [`Device::run`], and, where the wire says so, in the middle of a call: a
//! completion may come between any two looks at the queue. What it refuses and when is the
//! contract of [`verbs`](crate::verbs); the names of its errors are the ones that hardware gives.

mod fabric;
mod frame;
mod joined;
mod memory;
mod moody;
mod pair;
mod queue;
mod region;
mod stream;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::verbs::{
    AsyncEvent, Channel, DeviceLimits, PairNumber, PairShape, Piece, Port, QueueNumber, Refusal,
    Region, Retry, SendRequest, Verbs, WorkCompletion,
};
use pair::Pair;
use queue::Queue;
use region::Regions;

pub use fabric::{Cable, Fabric, Fate};
pub use joined::Joined;
pub use memory::{MemoryCounters, MemoryWire};
pub use moody::{MoodTally, Moods, Moody};
pub use region::POISON;
pub use stream::StreamWire;
pub use wire::{Packet, Says, Wire};

/// What the software device can do, if nobody says otherwise.
pub const LIMITS: DeviceLimits = DeviceLimits {
    queue_entries_max: 1 << 20,
    sends_max: 4096,
    receives_max: 8192,
    pieces_max: 16,
    message_bytes_max: 1 << 24,
    region_bytes_max: 1 << 30,
    registered_bytes_max: 1 << 32,
};

/// The states of a pair; hardware's INIT, RTS and ERR. RTR is passed on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PairState {
    /// Receives may be posted.
    Receiving,
    /// It is connected.
    Ready,
    /// It has failed; work flushes.
    Failed,
}

/// What a device did so far; all of it only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Messages put on the wire, those that went there again included.
    pub messages_sent: u64,
    /// Messages placed.
    pub messages_received: u64,
    /// Messages that found no receive posted here. 0 wherever credits work.
    pub not_ready_naks: u64,
    /// Messages sent again because the peer had no receive posted.
    pub not_ready_retries: u64,
    /// Messages sent again because the peer was silent.
    pub silence_retries: u64,
    /// Packets for no pair, for a failed one, out of order, or from somebody else than the peer.
    pub dropped: u64,
    /// Events of the completion channel.
    pub events: u64,
}

/// What the pairs of a device share.
struct Core {
    regions: Regions,
    queues: Vec<Queue>,
    counters: DeviceCounters,
}

/// The software device, on some wire.
pub struct Device<W> {
    wire: W,
    limits: DeviceLimits,
    core: Core,
    pairs: BTreeMap<PairNumber, Pair>,
    /// Pairs that have something for the wire, or wait for the clock.
    active: BTreeSet<PairNumber>,
    next_pair: u32,
    async_events: VecDeque<AsyncEvent>,
    overrun_told: Vec<bool>,
    gone: bool,
}

impl<W: Wire> Device<W> {
    /// A device at the end of a wire.
    pub fn new(wire: W, limits: DeviceLimits) -> Device<W> {
        let core = Core {
            regions: Regions::default(),
            queues: Vec::new(),
            counters: DeviceCounters::default(),
        };
        let message_bytes_max = limits.message_bytes_max.min(wire.message_bytes_max());
        Device {
            wire,
            limits: DeviceLimits { message_bytes_max, ..limits },
            core,
            pairs: BTreeMap::new(),
            active: BTreeSet::new(),
            // Like hardware's, numbers below are taken.
            next_pair: 2,
            async_events: VecDeque::new(),
            overrun_told: Vec::new(),
            gone: false,
        }
    }

    /// What carries its packets.
    pub fn wire_mut(&mut self) -> &mut W {
        &mut self.wire
    }

    /// What it did so far.
    pub fn counters(&self) -> DeviceCounters {
        self.core.counters
    }

    /// The state of a pair.
    pub fn pair_state(&self, pair: PairNumber) -> Option<PairState> {
        self.pairs.get(&pair).map(Pair::state)
    }

    /// Bytes registered now.
    pub fn registered_bytes(&self) -> usize {
        self.core.regions.registered()
    }

    /// Queue pairs that exist.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// Whether a sleeper waits for an event of this queue.
    pub fn is_armed(&self) -> bool {
        self.core.queues.iter().any(Queue::is_armed)
    }

    /// When it wants to run though nothing arrived, on its wire's clock.
    pub fn deadline(&self) -> Option<Duration> {
        self.active().filter_map(Pair::deadline).chain(self.wire.deadline()).min()
    }

    /// Whether something waits for room on the wire.
    pub fn is_held_up(&self) -> bool {
        self.active().any(Pair::is_held_up)
    }

    fn active(&self) -> impl Iterator<Item = &Pair> {
        self.active.iter().filter_map(|number| self.pairs.get(number))
    }

    /// Breaks the device: nothing completes any more.
    pub fn break_down(&mut self) {
        if !std::mem::replace(&mut self.gone, true) {
            self.async_events.push_back(AsyncEvent::DeviceFatal);
            self.pairs.values_mut().for_each(|pair| pair.abandon(&mut self.core));
        }
    }

    /// The hardware runs: takes what arrived, sends what may go.
    pub fn run(&mut self) {
        if self.gone {
            return;
        }
        // No more than has arrived: what this sends arrives elsewhere, or later.
        while let Some((port, packet)) = self.wire.take() {
            self.packet(port, &packet);
        }
        self.active.retain(|number| {
            let Some(pair) = self.pairs.get_mut(number) else { return false };
            pair.drive(&mut self.core, &mut self.wire);
            pair.is_held_up() || pair.deadline().is_some()
        });
        self.overruns();
    }

    fn packet(&mut self, port: Port, packet: &Packet) {
        let pair = self.pairs.get_mut(&packet.to).filter(|pair| pair.is_peer(port, packet.from));
        let Some(pair) = pair else {
            self.core.counters.dropped += 1;
            return;
        };
        match &packet.says {
            Says::Message(bytes) => pair.arrived(&mut self.core, packet.number, bytes),
            says => pair.answered(&mut self.core, packet.number, says, self.wire.now()),
        }
        pair.send_answer(&mut self.wire);
        self.active.insert(packet.to);
    }

    /// Pairs of a queue that has overrun are gone.
    fn overruns(&mut self) {
        let told = self.async_events.len();
        for (i, queue) in self.core.queues.iter().enumerate() {
            if queue.overran() && !self.overrun_told[i] {
                self.overrun_told[i] = true;
                self.async_events.push_back(AsyncEvent::QueueOverrun(QueueNumber(i as u32)));
            }
        }
        if self.async_events.len() == told {
            return;
        }
        for pair in self.pairs.values_mut() {
            if self.overrun_told[pair.queue()] {
                pair.abandon(&mut self.core);
            }
        }
    }

    /// Between any two calls, and in the middle of one, hardware may get ahead.
    fn interrupt(&mut self) {
        if self.wire.interrupts() {
            self.run();
        }
    }

    fn alive(&self) -> Result<(), Refusal> {
        if self.gone { Err(Refusal::DeviceGone) } else { Ok(()) }
    }

    fn known(&self, queue: QueueNumber) -> Result<usize, Refusal> {
        self.alive()?;
        let index = queue.0 as usize;
        match self.core.queues.get(index) {
            None => Err(Refusal::Unknown),
            Some(queue) if queue.overran() => Err(Refusal::Overrun),
            Some(_) => Ok(index),
        }
    }

    fn pair(&mut self, pair: PairNumber) -> Result<(&mut Pair, &mut Core), Refusal> {
        self.alive()?;
        let pair = self.pairs.get_mut(&pair).ok_or(Refusal::Unknown)?;
        Ok((pair, &mut self.core))
    }
}

impl<W: Wire> Verbs for Device<W> {
    fn limits(&self) -> DeviceLimits {
        self.limits
    }

    fn register(&mut self, bytes: usize) -> Result<Region, Refusal> {
        self.alive()?;
        self.core.regions.register(bytes, &self.limits)
    }

    fn deregister(&mut self, region: Region) -> Result<(), Refusal> {
        self.core.regions.deregister(region)
    }

    fn memory(&self, piece: Piece) -> Result<&[u8], Refusal> {
        self.core.regions.read(piece)
    }

    fn memory_mut(&mut self, piece: Piece) -> Result<&mut [u8], Refusal> {
        self.core.regions.write(piece)
    }

    fn create_queue(&mut self, entries: u32) -> Result<QueueNumber, Refusal> {
        self.alive()?;
        if entries == 0 || entries > self.limits.queue_entries_max {
            return Err(Refusal::Limit);
        }
        self.core.queues.push(Queue::new(entries));
        self.overrun_told.push(false);
        Ok(QueueNumber(self.core.queues.len() as u32 - 1))
    }

    fn create_pair(&mut self, shape: PairShape) -> Result<PairNumber, Refusal> {
        self.known(shape.queue)?;
        if shape.sends > self.limits.sends_max || shape.receives > self.limits.receives_max {
            return Err(Refusal::Limit);
        }
        let number = PairNumber(self.next_pair);
        self.next_pair = self.next_pair.checked_add(1).ok_or(Refusal::Limit)?;
        self.pairs.insert(number, Pair::new(number, shape));
        Ok(number)
    }

    fn connect_pair(
        &mut self,
        pair: PairNumber,
        port: Port,
        peer: PairNumber,
        retry: Retry,
    ) -> Result<(), Refusal> {
        self.pair(pair)?.0.connect(port, peer, retry)
    }

    fn fail_pair(&mut self, pair: PairNumber) -> Result<(), Refusal> {
        let (pair, core) = self.pair(pair)?;
        pair.fail(core, None);
        self.overruns();
        Ok(())
    }

    fn destroy_pair(&mut self, pair: PairNumber) -> Result<(), Refusal> {
        let gone = self.gone;
        let found = self.pairs.get_mut(&pair).ok_or(Refusal::Unknown)?;
        if !gone {
            if found.state() == PairState::Ready {
                return Err(Refusal::State);
            }
            let queue = &self.core.queues[found.queue()];
            if !queue.overran() && (!found.is_idle() || queue.holds(pair)) {
                return Err(Refusal::Busy);
            }
        }
        found.send_answer(&mut self.wire);
        found.abandon(&mut self.core);
        self.pairs.remove(&pair);
        Ok(())
    }

    fn post_receive(&mut self, pair: PairNumber, id: u64, piece: Piece) -> Result<(), Refusal> {
        self.interrupt();
        let (pair, core) = self.pair(pair)?;
        pair.post_receive(core, id, piece)?;
        self.overruns();
        Ok(())
    }

    fn post_send(&mut self, number: PairNumber, request: &SendRequest<'_>) -> Result<(), Refusal> {
        self.interrupt();
        let bytes: u64 = request.pieces.iter().map(|piece| u64::from(piece.length)).sum();
        let pieces = request.pieces.len();
        let (pieces_max, bytes_max) = (self.limits.pieces_max, self.limits.message_bytes_max);
        if pieces > pieces_max as usize || bytes > u64::from(bytes_max) {
            return Err(Refusal::Limit);
        }
        let (pair, core) = self.pair(number)?;
        pair.post_send(core, request)?;
        self.active.insert(number);
        self.overruns();
        self.interrupt();
        Ok(())
    }

    fn poll(
        &mut self,
        queue: QueueNumber,
        done: &mut Vec<WorkCompletion>,
        most: usize,
    ) -> Result<usize, Refusal> {
        self.interrupt();
        let index = self.known(queue)?;
        let mut taken = 0;
        while taken < most {
            let Some(entry) = self.core.queues[index].pop() else { break };
            if let Some(pair) = self.pairs.get_mut(&entry.completion.pair) {
                pair.polled(&mut self.core, &entry);
            }
            done.push(entry.completion);
            taken += 1;
        }
        Ok(taken)
    }

    fn request_notify(&mut self, queue: QueueNumber) -> Result<(), Refusal> {
        self.interrupt();
        let index = self.known(queue)?;
        self.core.queues[index].arm();
        self.interrupt();
        Ok(())
    }

    fn take_event(&mut self) -> bool {
        let events = self.core.queues.iter_mut().filter(|queue| !queue.overran());
        let mut any = false;
        events.for_each(|queue| any |= queue.take_event());
        self.core.counters.events += u64::from(any);
        any
    }

    fn take_async_event(&mut self) -> Option<AsyncEvent> {
        self.async_events.pop_front()
    }

    fn channel(&self) -> Channel {
        Channel::Polled
    }
}
