//! A wire inside one process, for tests: seeded, with a clock of its own, loss-free unless told
//! otherwise.
//!
//! ```text
//!   lane = (from node, from pair, messages | answers)      each lane in order, none with another
//! ```
//!
//! That is the freedom real hardware has: pairs overtake each other, and an answer may come long
//! after what the peer said later.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::wire::{Packet, Wire};
use crate::verbs::{PairNumber, Port};

/// What happens to a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It arrives in its time.
    Arrives,
    /// It arrives so much later, and what is behind it in its lane, too.
    Late(Duration),
    /// It is lost.
    Lost,
}

type Script = Box<dyn FnMut(&Packet) -> Fate>;

struct Lane {
    to: u32,
    flying: VecDeque<(Duration, Packet)>,
}

struct State {
    random: u64,
    now: Duration,
    nodes: u32,
    /// By sending node, sending pair, and whether it carries answers.
    lanes: BTreeMap<(u32, PairNumber, bool), Lane>,
    delay_max: Duration,
    interrupts_per_mille: u64,
    lane_packets_max: usize,
    unplugged: BTreeSet<u32>,
    script: Option<Script>,
}

/// The wire; devices are attached to it by [`Fabric::cable`].
#[derive(Clone)]
pub struct Fabric(Rc<RefCell<State>>);

/// One device's end of a [`Fabric`]. Ports are the numbers of nodes, in the order of their cables.
pub struct Cable {
    state: Rc<RefCell<State>>,
    node: u32,
}

impl State {
    /// splitmix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Fabric {
    /// A wire whose every choice follows from `seed`. Packets take up to `delay_max`.
    pub fn new(seed: u64, delay_max: Duration) -> Fabric {
        Fabric(Rc::new(RefCell::new(State {
            random: seed,
            now: Duration::ZERO,
            nodes: 0,
            lanes: BTreeMap::new(),
            delay_max,
            interrupts_per_mille: 0,
            lane_packets_max: usize::MAX,
            unplugged: BTreeSet::new(),
            script: None,
        })))
    }

    /// Lets the hardware run in the middle of so many calls of a thousand.
    pub fn set_interrupts(&self, per_mille: u64) {
        self.0.borrow_mut().interrupts_per_mille = per_mille;
    }

    /// Takes so many packets per lane at a time.
    pub fn set_room(&self, packets: usize) {
        self.0.borrow_mut().lane_packets_max = packets;
    }

    /// Decides the fate of every packet from now on.
    pub fn set_script(&self, script: impl FnMut(&Packet) -> Fate + 'static) {
        self.0.borrow_mut().script = Some(Box::new(script));
    }

    /// A new node's end.
    pub fn cable(&self) -> Cable {
        let mut state = self.0.borrow_mut();
        state.nodes += 1;
        Cable { state: Rc::clone(&self.0), node: state.nodes - 1 }
    }

    /// Nothing reaches or leaves this node any more.
    pub fn unplug(&self, node: Port) {
        let mut state = self.0.borrow_mut();
        state.unplugged.insert(node.0);
        state.lanes.retain(|(from, ..), lane| *from != node.0 && lane.to != node.0);
    }

    /// The time.
    pub fn now(&self) -> Duration {
        self.0.borrow().now
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.0.borrow_mut().now += by;
    }

    /// Packets on their way.
    pub fn flying(&self) -> usize {
        self.0.borrow().lanes.values().map(|lane| lane.flying.len()).sum()
    }
}

impl Cable {
    /// How others name this node.
    pub fn port(&self) -> Port {
        Port(self.node)
    }
}

impl Wire for Cable {
    fn put(&mut self, port: Port, packet: Packet) -> Result<(), Packet> {
        let mut state = self.state.borrow_mut();
        if state.unplugged.contains(&port.0) || state.unplugged.contains(&self.node) {
            return Ok(());
        }
        let fate = state.script.as_mut().map_or(Fate::Arrives, |script| script(&packet));
        let late = match fate {
            Fate::Arrives => Duration::ZERO,
            Fate::Late(by) => by,
            Fate::Lost => return Ok(()),
        };
        let span = state.delay_max.as_nanos() as u64 + 1;
        let at = state.now + late + Duration::from_nanos(state.draw() % span);
        let most = state.lane_packets_max;
        let lane = (self.node, packet.from, packet.is_answer());
        let lane =
            state.lanes.entry(lane).or_insert_with(|| Lane { to: port.0, flying: VecDeque::new() });
        if lane.flying.len() >= most {
            return Err(packet);
        }
        let at = lane.flying.back().map_or(at, |(before, _)| at.max(*before));
        lane.flying.push_back((at, packet));
        Ok(())
    }

    fn take(&mut self) -> Option<(Port, Packet)> {
        let mut state = self.state.borrow_mut();
        let now = state.now;
        let here = |lane: &Lane| {
            lane.to == self.node && lane.flying.front().is_some_and(|(at, _)| *at <= now)
        };
        let ready: Vec<_> =
            state.lanes.iter().filter(|(_, lane)| here(lane)).map(|(key, _)| *key).collect();
        if ready.is_empty() {
            return None;
        }
        let key = ready[(state.draw() % ready.len() as u64) as usize];
        let (_, packet) = state.lanes.get_mut(&key)?.flying.pop_front()?;
        Some((Port(key.0), packet))
    }

    fn now(&self) -> Duration {
        self.state.borrow().now
    }

    fn interrupts(&mut self) -> bool {
        let mut state = self.state.borrow_mut();
        let chance = state.interrupts_per_mille;
        state.draw() % 1000 < chance
    }

    fn message_bytes_max(&self) -> u32 {
        u32::MAX
    }
}
