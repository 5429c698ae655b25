//! Two relays and processes with real rings, moved by hand.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringlane_api::Evbuffer;

use crate::bus::local::{FromRelay, Nonce, Place, ToRelay, VERSION};
use crate::bus::memory::{Made, Memory};
use crate::cluster::Cluster;
use crate::shm::Refused;
use crate::shm::through::{Flow, Inlet, Outlet};

use super::{ConnId, Core, LinkId, Now, Out, Setup};

const CONFIG: &str = r#"
[cluster]
name = "t"
secret_file = "t.secret"
[[host]]
name = "a"
relay = ["tcp://127.0.0.1:7000"]
nodes = ["s", "s2"]
[[host]]
name = "b"
relay = ["tcp://127.0.0.1:7001"]
nodes = ["d", "d2"]
[[channel]]
from = "*"
to = "*"
ring = "16KiB"
path = "relay"
"#;

/// A relay, and whom it is connected to.
struct Relay {
    core: Core,
    /// Lines to processes.
    said: VecDeque<(ConnId, FromRelay)>,
    link: Option<LinkId>,
    /// Bytes under way to the other relay.
    wire: Evbuffer,
    rung: Vec<ConnId>,
}

struct Pair {
    relays: [Relay; 2],
    start: Instant,
    now: Duration,
    memory: Memory,
}

fn tokens() -> super::Tokens {
    let mut next = 0_u8;
    Box::new(move || {
        next += 1;
        Nonce([next; 16])
    })
}

impl Pair {
    fn new() -> Pair {
        let start = Instant::now();
        let memory = Memory::new().unwrap();
        let relays = ["a", "b"].map(|host| Relay::new(host, &memory, start));
        let mut pair = Pair { relays, start, now: Duration::ZERO, memory };
        pair.connect();
        pair
    }

    fn now(&self) -> Now {
        let unix_us = self.now.as_micros() as u64;
        Now { instant: self.start + self.now, mono_ms: unix_us / 1000, unix_us }
    }

    fn connect(&mut self) {
        for (relay, other) in self.relays.iter_mut().zip(["b", "a"]) {
            relay.link = Some(relay.core.link_up(other));
            relay.wire = Evbuffer::new();
        }
    }

    fn cut(&mut self) {
        for relay in &mut self.relays {
            if let Some(link) = relay.link.take() {
                relay.core.link_closed(link);
            }
            relay.wire = Evbuffer::new();
        }
    }

    /// The relay dies, and another one begins.
    fn restart(&mut self, which: usize) {
        self.cut();
        let host = ["a", "b"][which];
        self.relays[which] = Relay::new(host, &self.memory, self.start);
        self.connect();
    }

    /// Moves everything until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..100 {
            let now = self.now();
            let mut moved = false;
            for at in 0..2 {
                moved |= self.relays[at].turn(now);
                let mut wire = std::mem::take(&mut self.relays[at].wire);
                let other = &mut self.relays[1 - at];
                if let Some(link) = other.link.filter(|_| !wire.is_empty()) {
                    other.core.link_input(link, &mut wire).unwrap();
                    moved = true;
                }
            }
            if !moved && self.relays.iter().all(|relay| relay.core.next_deadline().is_none()) {
                return;
            }
            if !moved {
                self.now += Duration::from_millis(1);
            }
        }
        panic!("it does not come to rest");
    }
}

impl Relay {
    fn new(host: &str, memory: &Memory, start: Instant) -> Relay {
        let core = Core::new(Setup {
            host: host.into(),
            cluster: Rc::new(Cluster::parse(CONFIG).unwrap()),
            incarnation: 1,
            uid: 0,
            pid: 1,
            memory: memory.clone(),
            tokens: tokens(),
            now: Now { instant: start, mono_ms: 0, unix_us: 0 },
        });
        let (said, wire) = (VecDeque::new(), Evbuffer::new());
        Relay { core, said, link: None, wire, rung: Vec::new() }
    }

    fn turn(&mut self, now: Now) -> bool {
        let mut moved = self.core.turn(now);
        while let Some(out) = self.core.take() {
            moved = true;
            match out {
                Out::Say(conn, line) => self.said.push_back((conn, line)),
                Out::Ring(conn, _) => self.rung.push(conn),
                Out::Flush(link) => {
                    self.core.take_output(link, &mut self.wire);
                    self.core.link_room(link, 0);
                }
                _ => {}
            }
        }
        moved
    }

    fn register(&mut self, node: &str, epoch: u64) -> ConnId {
        let conn = self.core.local_opened(7, 0);
        let nonce = Nonce([epoch as u8; 16]);
        let line =
            ToRelay::Register { node: node.into(), epoch, nonce, version: VERSION, replace: false };
        self.core.local_said(conn, line, Vec::new());
        conn
    }
}

/// A process that sends.
struct Sender {
    outlet: Outlet,
    fd: OwnedFd,
    conn: ConnId,
    att: u32,
    expected: u64,
    memory: Memory,
    to: &'static str,
}

const RING: u32 = 16 << 10;

impl Sender {
    fn new(pair: &mut Pair, to: &'static str, epoch: u64) -> Sender {
        let memory = pair.memory.clone();
        let conn = pair.relays[0].register("s", epoch);
        let Made { fd, map } = memory.make_outlet(RING).unwrap();
        let outlet = Outlet::new(map, RING);
        let mut sender = Sender { outlet, fd, conn, att: 0, expected: 0, memory, to };
        sender.attach(pair, epoch);
        sender
    }

    fn attach(&mut self, pair: &mut Pair, epoch: u64) {
        let control = self.memory.make_control().unwrap();
        let from = self.outlet.attach(control.map);
        self.att += 1;
        self.expected = self.outlet.bound();
        let line = ToRelay::Attach {
            id: 1,
            to: self.to.into(),
            chan: 0,
            epoch,
            att: self.att,
            from: Place { seq: from.seq, pos: from.pos },
            expected: self.expected,
            ring: RING,
        };
        let fds = vec![self.fd.try_clone().unwrap(), control.fd];
        pair.relays[0].core.local_said(self.conn, line, fds);
    }

    fn send(&mut self, pair: &mut Pair, payload: &[u8]) -> Result<(), Refused> {
        self.outlet.push(1, 0, payload)?;
        self.outlet.publish();
        pair.relays[0].core.rang(self.conn);
        Ok(())
    }
}

/// A process that receives.
struct Receiver {
    /// Its relay.
    at: usize,
    conn: ConnId,
    node: &'static str,
    epoch: u64,
    inlet: Option<(Inlet, u64, Nonce)>,
    att: u32,
    got: Vec<Vec<u8>>,
    memory: Memory,
    said: Vec<FromRelay>,
}

impl Receiver {
    fn new(pair: &mut Pair, node: &'static str, epoch: u64) -> Receiver {
        let at = usize::from(node.starts_with('d'));
        let conn = pair.relays[at].register(node, epoch);
        let (memory, got, said) = (pair.memory.clone(), Vec::new(), Vec::new());
        Receiver { at, conn, node, epoch, inlet: None, att: 0, got, memory, said }
    }

    fn give(&mut self, pair: &mut Pair, fd: OwnedFd) {
        let Some((_, epoch, nonce)) = &self.inlet else { return };
        self.att += 1;
        let (epoch, nonce, att) = (*epoch, *nonce, self.att);
        let line = ToRelay::Segment { from: "s".into(), chan: 0, epoch, nonce, att, ring: RING };
        pair.relays[self.at].core.local_said(self.conn, line, vec![fd]);
    }

    /// Does what its relay says.
    fn listen(&mut self, pair: &mut Pair) {
        let said = std::mem::take(&mut pair.relays[self.at].said);
        for (conn, line) in said {
            if conn != self.conn {
                pair.relays[self.at].said.push_back((conn, line));
                continue;
            }
            if let FromRelay::Incoming { epoch, nonce, .. } = &line {
                let made = self.memory.make_inlet(RING).unwrap();
                self.inlet = Some((Inlet::new(made.map, RING), *epoch, *nonce));
                self.give(pair, made.fd);
            }
            self.said.push(line);
        }
    }

    fn read(&mut self, pair: &mut Pair) {
        let Some((inlet, ..)) = &mut self.inlet else { return };
        let got = &mut self.got;
        let walked = inlet.walk(&mut Vec::new(), u32::MAX, |_, _, bytes| {
            got.push(bytes.to_vec());
            Flow::Go
        });
        walked.unwrap();
        pair.relays[self.at].core.rang(self.conn);
    }

    /// Its relay has died: takes its ring away from it and gives a fresh one to the next.
    fn hand_over(&mut self, pair: &mut Pair) {
        let (node, epoch) = (self.node, self.epoch);
        if let Some((old, ..)) = &mut self.inlet {
            let made = self.memory.make_inlet(RING).unwrap();
            let fresh = old.hand_over(made.map, RING).unwrap();
            self.inlet.as_mut().unwrap().0 = fresh;
            self.conn = pair.relays[self.at].register(node, epoch);
            self.give(pair, made.fd);
        }
    }
}

fn both(pair: &mut Pair, d: &mut Receiver) {
    for _ in 0..6 {
        pair.settle();
        d.listen(pair);
        d.read(pair);
    }
}

fn numbers(n: u32) -> Vec<Vec<u8>> {
    (0..n).map(|i| i.to_le_bytes().to_vec()).collect()
}

#[test]
fn two_processes_of_one_host_may_talk_through_its_relay() {
    let mut pair = Pair::new();
    let mut s = Sender::new(&mut pair, "s2", 10);
    let mut s2 = Receiver::new(&mut pair, "s2", 20);
    for i in 0..200_u32 {
        s.send(&mut pair, &i.to_le_bytes()).unwrap();
        if i % 50 == 0 {
            both(&mut pair, &mut s2);
        }
    }
    both(&mut pair, &mut s2);
    assert_eq!(s2.got, numbers(200));
    assert_eq!(s.outlet.acked().unwrap().seq, 200);
}

#[test]
fn messages_go_from_ring_to_ring_in_order() {
    let mut pair = Pair::new();
    let mut s = Sender::new(&mut pair, "d", 10);
    // Sent before the receiver is there.
    for i in 0..3_u32 {
        s.send(&mut pair, &i.to_le_bytes()).unwrap();
    }
    pair.settle();
    let mut d = Receiver::new(&mut pair, "d", 20);
    both(&mut pair, &mut d);
    for i in 3..5000_u32 {
        while s.send(&mut pair, &i.to_le_bytes()) == Err(Refused::Full) {
            both(&mut pair, &mut d);
        }
    }
    both(&mut pair, &mut d);
    assert_eq!(d.got, numbers(5000));
    assert_eq!(s.outlet.acked().unwrap().seq, 5000);
    assert_eq!(s.outlet.bound(), 20);
    assert!(pair.relays[0].core.counts().broken == 0 && pair.relays[1].core.counts().broken == 0);
}

#[test]
fn who_looks_at_a_ring_takes_no_news_of_it_away() {
    let mut pair = Pair::new();
    let mut s = Sender::new(&mut pair, "d", 10);
    let mut d = Receiver::new(&mut pair, "d", 20);
    both(&mut pair, &mut d);
    type Look = fn(&mut Core, Now);
    let looks: [Look; 2] = [|core, _| drop(core.status()), |core, now| core.tick(now)];
    for (i, look) in looks.into_iter().enumerate() {
        // Published, and nobody is rung: the relay is awake and will look before it sleeps.
        s.outlet.push(1, 0, &(i as u32).to_le_bytes()).unwrap();
        s.outlet.publish();
        let now = pair.now();
        look(&mut pair.relays[0].core, now);
        both(&mut pair, &mut d);
        assert_eq!(d.got, numbers(i as u32 + 1));
    }
}

#[test]
fn nothing_is_lost_or_doubled_when_links_and_relays_die() {
    let mut pair = Pair::new();
    let mut s = Sender::new(&mut pair, "d", 10);
    let mut d = Receiver::new(&mut pair, "d", 20);
    both(&mut pair, &mut d);
    let mut dice = 7_u64;
    for i in 0..6000_u32 {
        while s.send(&mut pair, &i.to_le_bytes()) == Err(Refused::Full) {
            both(&mut pair, &mut d);
        }
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match dice >> 56 {
            0 => {
                pair.cut();
                pair.connect();
            }
            1 => {
                pair.restart(0);
                s.conn = pair.relays[0].register("s", 10);
                s.attach(&mut pair, 10);
            }
            2 => {
                pair.restart(1);
                d.hand_over(&mut pair);
            }
            3 => {
                let now = pair.now();
                pair.relays[0].turn(now);
            }
            4..20 => both(&mut pair, &mut d),
            _ => {}
        }
    }
    both(&mut pair, &mut d);
    assert_eq!(d.got.len(), 6000);
    assert_eq!(d.got, numbers(6000));
    assert_eq!(s.outlet.acked().unwrap().seq, 6000);
}

#[test]
fn a_dead_receiver_is_told_of_with_the_first_message_that_it_had_not_consumed() {
    let mut pair = Pair::new();
    let mut s = Sender::new(&mut pair, "d", 10);
    let mut d = Receiver::new(&mut pair, "d", 20);
    for i in 0..7_u32 {
        s.send(&mut pair, &i.to_le_bytes()).unwrap();
    }
    both(&mut pair, &mut d);
    for i in 7..9_u32 {
        s.send(&mut pair, &i.to_le_bytes()).unwrap();
    }
    pair.settle();
    pair.relays[1].core.local_closed(d.conn);
    pair.settle();
    let gone = FromRelay::Gone { id: 1, epoch: 20, first: 8, exact: true };
    assert!(pair.relays[0].said.iter().any(|said| said.1 == gone), "{:?}", pair.relays[0].said);
    pair.relays[0].core.local_said(s.conn, ToRelay::GoneSeen { id: 1 }, Vec::new());
    pair.settle();
    assert!(pair.relays.iter_mut().all(|relay| relay.core.status().channels.is_empty()));
}

#[test]
fn a_receiver_that_died_while_its_relay_did_is_given_up_in_the_end() {
    for registers in [false, true] {
        let mut pair = Pair::new();
        let mut s = Sender::new(&mut pair, "d", 10);
        let mut d = Receiver::new(&mut pair, "d", 20);
        s.send(&mut pair, b"one").unwrap();
        both(&mut pair, &mut d);
        pair.restart(1);
        pair.settle();
        if registers {
            // It gets so far, and dies before it has given its ring.
            let conn = pair.relays[1].register("d", 20);
            pair.settle();
            pair.relays[1].core.local_closed(conn);
        }
        let gone = FromRelay::Gone { id: 1, epoch: 20, first: 1, exact: false };
        let mut told = [false; 2];
        for told in &mut told {
            let now = pair.now();
            pair.relays[1].core.tick(now);
            pair.settle();
            *told = pair.relays[0].said.iter().any(|said| said.1 == gone);
            pair.now += super::far::COMES_BACK;
        }
        assert_eq!(told, [false, true], "{registers}");
        // It lives after all: it has to be another instance, and is one then.
        d.hand_over(&mut pair);
        pair.settle();
        let stale = FromRelay::StaleEpoch { known: 20 };
        assert!(pair.relays[1].said.iter().any(|said| said.1 == stale), "{registers}");
        pair.relays[0].core.local_said(s.conn, ToRelay::GoneSeen { id: 1 }, Vec::new());
        pair.settle();
        assert!(pair.relays.iter_mut().all(|relay| relay.core.status().channels.is_empty()));
    }
}

#[test]
fn what_a_dead_sender_has_published_still_arrives_and_then_its_end() {
    let mut pair = Pair::new();
    let mut s = Sender::new(&mut pair, "d", 10);
    for i in 0..9_u32 {
        s.send(&mut pair, &i.to_le_bytes()).unwrap();
    }
    pair.relays[0].core.local_closed(s.conn);
    let mut d = Receiver::new(&mut pair, "d", 20);
    both(&mut pair, &mut d);
    assert_eq!(d.got, numbers(9));
    let end = FromRelay::End { from: "s".into(), chan: 0, epoch: 10, last: 9, clean: true };
    assert_eq!(d.said.last(), Some(&end));
    assert!(pair.relays.iter_mut().all(|relay| relay.core.status().channels.is_empty()));
}
