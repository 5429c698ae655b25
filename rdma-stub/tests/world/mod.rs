//! Two nodes on a seeded wire, and users on them that write, read, pause and end.
//!
//! A node's loop is honest: it sleeps when `arm` says so, and then only an event of its device
//! wakes it, or its user. A lost wake-up is therefore a stall, which `run` reports with the seed.

#[allow(dead_code, reason = "not every test shares memory")]
pub mod memory;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::reactor::Side;
use ringlane_api::slab::Key;
use ringlane_api::transport::LinkEvent;
use ringlane_rdma_stub::dispatch::{Armed, Dispatch, Events};
use ringlane_rdma_stub::link::Shape;
use ringlane_rdma_stub::soft::{Cable, Device, Fabric, LIMITS};
use ringlane_rdma_stub::verbs::{DeviceLimits, Port, Retry, Verbs};

pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let high = self.0 >> 33;
        if bound == 0 { 0 } else { high % bound }
    }
}

/// What a user does with a link.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Bytes it writes before it ends its direction.
    pub writes: u64,
    /// Bytes per write, at most.
    pub chunk: u64,
    /// Bytes it lets come at a time; 0 is no limit.
    pub window: u64,
    /// Whether it ends its direction by itself, or leaves that to its closing.
    pub finishes: bool,
}

/// One side of a link and what its user saw.
pub struct End {
    pub key: Key,
    pub plan: Plan,
    pub written: u64,
    pub sent: u64,
    pub received: u64,
    pub out: Evbuffer,
    pub finished: bool,
    pub eof: bool,
    pub aborted: bool,
    pub closed: bool,
    pub failures: Vec<(Side, io::ErrorKind)>,
    pub stream: u64,
    pub peer_stream: u64,
    pub paused: bool,
    /// Bytes taken by the transport.
    pub taken: u64,
}

pub struct Node {
    pub dispatch: Dispatch<Device<Cable>>,
    pub ends: Vec<End>,
    by_key: HashMap<Key, usize>,
    pub asleep: bool,
    pub events: Events,
    pub port: Port,
}

pub struct World {
    pub fabric: Fabric,
    pub nodes: Vec<Node>,
    pub rng: Rng,
    pub seed: u64,
    /// Closes a link by itself when both directions are over.
    pub closes: bool,
}

/// Byte `at` of a stream.
pub fn byte(stream: u64, at: u64) -> u8 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(stream * 77) >> 32) as u8
}

impl World {
    pub fn new(seed: u64) -> World {
        World::with_limits(seed, LIMITS)
    }

    pub fn with_limits(seed: u64, limits: DeviceLimits) -> World {
        let fabric = Fabric::new(seed, Duration::from_micros(20));
        fabric.set_interrupts(200);
        let node = || {
            let cable = fabric.cable();
            let port = cable.port();
            let dispatch = Dispatch::new(Device::new(cable, limits)).expect("a device");
            let (ends, by_key, events) = (Vec::new(), HashMap::new(), Vec::new());
            Node { dispatch, ends, by_key, asleep: false, events, port }
        };
        let nodes = vec![node(), node()];
        World { fabric, nodes, rng: Rng::new(seed), seed, closes: true }
    }

    /// A link between the two nodes; its index.
    pub fn link(&mut self, shapes: [Shape; 2], plans: [Plan; 2]) -> usize {
        self.link_with(shapes, plans, Retry::default())
    }

    pub fn link_with(&mut self, shapes: [Shape; 2], plans: [Plan; 2], retry: Retry) -> usize {
        let index = self.nodes[0].ends.len();
        let opened: Vec<_> = (0..2)
            .map(|n| self.nodes[n].dispatch.open(shapes[n]).expect("room for a link"))
            .collect();
        for (n, plan) in plans.into_iter().enumerate() {
            let (key, _) = opened[n];
            let (_, offer) = opened[1 - n];
            let port = self.nodes[1 - n].port;
            let node = &mut self.nodes[n];
            node.dispatch.connect(key, port, &offer, retry).expect("it connects");
            node.by_key.insert(key, index);
            let stream = (index * 2 + n) as u64;
            let peer_stream = (index * 2 + 1 - n) as u64;
            let first = if plan.window == 0 { u64::MAX } else { plan.window };
            node.ends.push(End {
                key,
                plan,
                written: 0,
                sent: 0,
                received: 0,
                out: Evbuffer::new(),
                finished: false,
                eof: false,
                aborted: false,
                closed: false,
                failures: Vec::new(),
                stream,
                peer_stream,
                paused: false,
                taken: 0,
            });
            node.dispatch.grant(key, first, &mut node.events);
        }
        index
    }

    /// Runs until every link is closed, or nothing moves any more.
    pub fn run(&mut self) {
        for _ in 0..5_000_000_u64 {
            let moved = self.step();
            if self.nodes.iter().all(|node| node.ends.iter().all(|end| end.closed)) {
                return self.nobody_was_not_ready();
            }
            if moved {
                continue;
            }
            panic!("seed {}: stalled: {}", self.seed, self.picture());
        }
        panic!("seed {}: no end: {}", self.seed, self.picture());
    }

    /// Credits promise receives, whatever becomes of packets, links and devices.
    fn nobody_was_not_ready(&self) {
        for node in &self.nodes {
            let naks = node.dispatch.verbs().counters().not_ready_naks;
            assert_eq!(naks, 0, "seed {}: messages without a receive", self.seed);
        }
    }

    /// Runs until nothing moves any more.
    #[allow(dead_code, reason = "not every test stalls")]
    pub fn run_to_stall(&mut self) {
        while self.step() {}
    }

    pub fn picture(&self) -> String {
        let of = |end: &End| {
            format!(
                "[wrote {} of {}, sent {}, received {}, eof {}, aborted {}, closed {}, {:?}]",
                end.written,
                end.plan.writes,
                end.sent,
                end.received,
                end.eof,
                end.aborted,
                end.closed,
                end.failures
            )
        };
        let ends = self.nodes.iter().flat_map(|node| node.ends.iter().map(of));
        ends.collect::<Vec<_>>().join(" ")
    }

    /// One thing happens; false if nothing can.
    pub fn step(&mut self) -> bool {
        let n = self.rng.below(2) as usize;
        match self.rng.below(4) {
            0 => self.nodes[n].dispatch.verbs_mut().run(),
            1 => self.fabric.advance(Duration::from_micros(self.rng.below(10))),
            _ => self.turn(n),
        }
        if self.nodes.iter().any(|node| !node.asleep) {
            return true;
        }
        self.advance_in_sleep()
    }

    /// Both sleep: time passes until something arrives, a timer fires or a user resumes.
    fn advance_in_sleep(&mut self) -> bool {
        if self.fabric.flying() > 0 || self.held_up() {
            self.fabric.advance(Duration::from_micros(5));
            self.nodes.iter_mut().for_each(|node| node.dispatch.verbs_mut().run());
            return true;
        }
        if self.events_pending() {
            return true;
        }
        if self.resume_one() {
            return true;
        }
        let deadlines = self.nodes.iter().filter_map(|node| node.dispatch.verbs().deadline());
        let Some(next) = deadlines.min() else { return false };
        self.fabric.advance(next.saturating_sub(self.fabric.now()) + Duration::from_nanos(1));
        self.nodes.iter_mut().for_each(|node| node.dispatch.verbs_mut().run());
        true
    }

    fn held_up(&self) -> bool {
        self.nodes.iter().any(|node| node.dispatch.verbs().is_held_up())
    }

    fn events_pending(&mut self) -> bool {
        let mut any = false;
        for node in &mut self.nodes {
            if node.dispatch.verbs_mut().take_event() {
                node.asleep = false;
                any = true;
            }
        }
        any
    }

    fn resume_one(&mut self) -> bool {
        for node in &mut self.nodes {
            if let Some(end) = node.ends.iter_mut().find(|end| end.paused && !end.aborted) {
                end.paused = false;
                node.asleep = false;
                let window = end.plan.window;
                node.dispatch.grant(end.key, window, &mut node.events);
                return true;
            }
        }
        false
    }

    fn turn(&mut self, n: usize) {
        let closes = self.closes;
        let node = &mut self.nodes[n];
        if node.asleep {
            if !node.dispatch.verbs_mut().take_event() {
                return;
            }
            node.asleep = false;
        }
        let more = node.dispatch.progress(&mut node.events);
        node.users(&mut self.rng, closes);
        if !more && node.events.is_empty() {
            node.asleep =
                node.dispatch.arm(&mut node.events) == Armed::Armed && node.events.is_empty();
        }
    }
}

impl Node {
    /// The owner of an end leaves it. What was said before that is not heard any more.
    pub fn leave(&mut self, at: usize) {
        let end = &mut self.ends[at];
        end.aborted = true;
        self.asleep = false;
        let key = end.key;
        self.events.retain(|(of, event)| *of != key || matches!(event, LinkEvent::Sent(_)));
        self.dispatch.abort(key, &mut self.events);
    }

    /// Runs what the users do about what happened.
    fn users(&mut self, rng: &mut Rng, closes: bool) {
        for (key, event) in std::mem::take(&mut self.events) {
            let at = self.by_key[&key];
            self.user(at, event, rng);
        }
        for at in 0..self.ends.len() {
            self.write(at, rng);
            let end = &mut self.ends[at];
            let held = self.dispatch.link(end.key).map_or(0, |link| link.held());
            assert!(held <= 4096, "a peer makes us hold no more than the window");
            let failed = |but: Side| end.failures.iter().any(|(side, _)| *side != but);
            let read_over = end.eof || failed(Side::Write);
            let write_over = end.sent == end.plan.writes || failed(Side::Read);
            if closes && !end.aborted && read_over && write_over {
                self.leave(at);
            }
        }
    }

    fn user(&mut self, at: usize, event: LinkEvent, rng: &mut Rng) {
        let end = &mut self.ends[at];
        assert!(!end.closed, "nothing comes after Closed");
        match event {
            LinkEvent::Received(segment) => {
                assert!(!end.eof && !end.aborted, "bytes came behind the end");
                for &got in segment.bytes() {
                    assert_eq!(got, byte(end.peer_stream, end.received), "at {}", end.received);
                    end.received += 1;
                }
                if end.plan.window > 0 {
                    let next = rng.below(end.plan.window + 1);
                    end.paused = next == 0;
                    self.dispatch.grant(end.key, next, &mut self.events);
                }
            }
            LinkEvent::Sent(n) => end.sent += n as u64,
            LinkEvent::Writable => {}
            LinkEvent::Eof => {
                assert!(!std::mem::replace(&mut end.eof, true), "Eof comes once");
            }
            LinkEvent::Failed(side, error) => end.failures.push((side, error.kind())),
            LinkEvent::Closed => {
                assert!(end.aborted, "only its owner closes a link");
                end.closed = true;
            }
            other => panic!("no such event here: {other:?}"),
        }
    }

    fn write(&mut self, at: usize, rng: &mut Rng) {
        let end = &mut self.ends[at];
        if end.aborted || end.finished {
            return;
        }
        if end.out.is_empty() && end.written < end.plan.writes {
            let n = (1 + rng.below(end.plan.chunk)).min(end.plan.writes - end.written);
            let bytes: Vec<u8> = (0..n).map(|i| byte(end.stream, end.written + i)).collect();
            end.out.add(&bytes);
            end.written += n;
        }
        let before = end.out.len();
        let mut dead = Vec::new();
        self.dispatch.send(
            end.key,
            &mut end.out,
            &mut |_, _, _| unreachable!("no files here"),
            &mut dead,
            &mut self.events,
        );
        end.taken += (before - end.out.len()) as u64;
        if end.out.is_empty() && end.written == end.plan.writes && end.plan.finishes {
            end.finished = true;
            self.dispatch.finish(end.key, &mut self.events);
        }
    }
}
