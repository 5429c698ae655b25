//! Sockets between processes and relays, links between relays, and what both carry.

use std::collections::VecDeque;

use ringlane::bus::core::{ConnNo, Do};

use crate::process::Heard;
use crate::relay::{Effect, Happened, Sock, Wire};
use crate::tally::Fault;
use crate::world::{Later, Stand, World};

/// A process's connection to a relay.
pub struct Socket {
    pub process: usize,
    pub conn: ConnNo,
    pub relay: usize,
    /// Ends that are open: the process's, the relay's.
    pub open: [bool; 2],
    /// When the last line arrives.
    last: [u64; 2],
    /// The relay wants to be rung for room.
    pub wants: bool,
}

/// A connection between two relays.
pub struct WireState {
    pub ends: [usize; 2],
    pub open: [bool; 2],
    /// Bytes to each end, and whether nothing comes behind them.
    pub to: [Direction; 2],
    pub broken: bool,
}

#[derive(Default)]
pub struct Direction {
    bytes: VecDeque<u8>,
    closing: bool,
    last: u64,
    due: bool,
}

const RELAY: usize = 1;
const PROCESS: usize = 0;

impl World {
    /// Does what a process wants.
    pub fn carry(&mut self, process: usize, todo: Vec<Do>) {
        for one in todo {
            match one {
                Do::Dial { conn, successor } => self.dial_socket(process, conn, successor),
                Do::Say(conn, said) => {
                    let Some(sock) = self.processes[process].conns.get(&conn).copied() else {
                        continue;
                    };
                    self.tell_relay(sock, Happened::Said(sock, said.line, said.fds));
                }
                Do::Hang(conn) => self.hang_socket(process, conn),
                Do::OpenBell { .. } => {
                    let conns = &self.processes[process].conns;
                    let sock = conns.values().next_back().copied();
                    self.processes[process].bell = sock;
                    if let Some(sock) = sock {
                        self.tell_process(sock, Heard::BellOpen);
                    }
                }
                Do::CloseBell => self.processes[process].bell = None,
                Do::Listen { .. } | Do::Meet { .. } | Do::Part { .. } => {
                    self.fail(|| "a neighbour is introduced where everything goes by relay".into());
                }
            }
        }
    }

    fn dial_socket(&mut self, process: usize, conn: ConnNo, successor: u8) {
        let host = self.plan.nodes[self.processes[process].node].host;
        let relay = self.slots[host][usize::from(successor)];
        let relay = relay.filter(|relay| self.relays[*relay].stand != Stand::Dead);
        let wait = self.latency();
        let Some(relay) = relay else {
            return self.at(self.now + wait, Later::Process(process, Heard::Failed(conn)));
        };
        let sock = self.next;
        self.next += 1;
        let (open, last) = ([true; 2], [self.now; 2]);
        self.socks.insert(sock, Socket { process, conn, relay, open, last, wants: false });
        self.processes[process].conns.insert(conn, sock);
        self.tell_relay(sock, Happened::Opened(sock));
        self.tell_process(sock, Heard::Connected(conn));
    }

    /// In order, but for bells.
    pub fn tell_relay(&mut self, sock: Sock, happened: Happened) {
        let wait = self.latency();
        let Some(socket) = self.socks.get_mut(&sock) else { return };
        let mut at = self.now + wait;
        if !matches!(happened, Happened::Rang(_)) {
            at = at.max(socket.last[RELAY]);
            socket.last[RELAY] = at;
        }
        let relay = socket.relay;
        self.at(at, Later::Relay(relay, happened));
    }

    pub fn tell_process(&mut self, sock: Sock, heard: Heard) {
        let wait = self.latency();
        let Some(socket) = self.socks.get_mut(&sock) else { return };
        if !socket.open[PROCESS] {
            return;
        }
        let mut at = self.now + wait;
        if !matches!(heard, Heard::Rang(_) | Heard::BellOpen) {
            at = at.max(socket.last[PROCESS]);
            socket.last[PROCESS] = at;
        }
        let process = socket.process;
        self.at(at, Later::Process(process, heard));
    }

    /// The process closes its end.
    pub fn hang_socket(&mut self, process: usize, conn: ConnNo) {
        let Some(sock) = self.processes[process].conns.remove(&conn) else { return };
        self.tell_relay(sock, Happened::Closed(sock));
        if let Some(socket) = self.socks.get_mut(&sock) {
            socket.open[PROCESS] = false;
        }
    }

    /// The relay closes its end, or dies.
    pub fn drop_socket(&mut self, sock: Sock) {
        let Some(socket) = self.socks.get_mut(&sock) else { return };
        if !std::mem::replace(&mut socket.open[RELAY], false) {
            return;
        }
        let conn = socket.conn;
        self.tell_process(sock, Heard::HungUp(conn));
    }

    /// Does what a relay did.
    pub fn effects(&mut self, relay: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Say(sock, line) => {
                    let name = self.relay_name(relay);
                    self.log(|| format!("{name} says to {sock}: {line:?}"));
                    let conn = self.socks.get(&sock).map(|socket| socket.conn);
                    if let Some(conn) = conn {
                        self.tell_process(sock, Heard::Said(conn, line));
                    }
                }
                Effect::Hang(sock) => self.drop_socket(sock),
                Effect::Ring(sock, bell) => {
                    let process = self.socks.get(&sock).map(|socket| socket.process);
                    if process.is_some_and(|at| self.processes[at].bell == Some(sock)) {
                        self.tell_process(sock, Heard::Rang(bell));
                    }
                }
                Effect::Dial(dial, host) => {
                    let at = self.now + self.latency();
                    self.at(at, Later::Dialled { relay, dial, host });
                }
                Effect::GiveUp(dial) => {
                    let name = self.relay_name(relay);
                    self.log(|| format!("{name} gives dial {dial} up"));
                }
                Effect::Send(wire, bytes) => self.submit(wire, relay, &bytes),
                Effect::Hangup(wire) => self.close_wire(wire, relay),
                Effect::Broken(what) => {
                    let name = self.relay_name(relay);
                    self.fail(|| format!("{name} calls somebody broken: {what}"));
                }
            }
        }
    }

    pub fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// A dial arrives at a host.
    pub fn dialled(&mut self, relay: usize, dial: u32, host: usize) {
        let from = self.relays[relay].host;
        if self.relays[relay].stand == Stand::Dead || self.is_cut(from, host) {
            return;
        }
        let wait = self.latency();
        let Some(other) = self.serving(host) else {
            return self.at(self.now + wait, Later::Relay(relay, Happened::DialFailed(dial)));
        };
        if self.relays[other].stand != Stand::Runs {
            return;
        }
        let wire = self.next;
        self.next += 1;
        let to = [Direction::default(), Direction::default()];
        let ends = [relay, other];
        self.wires.insert(wire, WireState { ends, open: [true; 2], to, broken: false });
        let [mine, theirs] = ends.map(|end| self.relays[end].incarnation);
        let name = self.relay_name(relay);
        self.log(|| format!("{name} dials {}: wire {wire}", crate::HOSTS[host]));
        let both = [
            (other, Happened::Accepted(wire, from, mine)),
            (relay, Happened::Connected(dial, wire, theirs)),
        ];
        for (side, (end, happened)) in [1, 0].into_iter().zip(both) {
            let at = self.now + wait + self.latency();
            if let Some(state) = self.wires.get_mut(&wire) {
                state.to[side].last = at;
            }
            self.at(at, Later::Relay(end, happened));
        }
    }

    /// A relay gives bytes to the kernel.
    fn submit(&mut self, wire: Wire, relay: usize, bytes: &[u8]) {
        let wait = self.latency();
        let Some(state) = self.wires.get_mut(&wire) else { return };
        let to = usize::from(state.ends[0] == relay);
        if state.broken || !state.open[1 - to] {
            return;
        }
        let (at, direction) = (self.now + wait, &mut state.to[to]);
        direction.bytes.extend(bytes);
        self.due(wire, to, at);
    }

    fn due(&mut self, wire: Wire, to: usize, at: u64) {
        let Some(state) = self.wires.get_mut(&wire) else { return };
        let direction = &mut state.to[to];
        if !std::mem::replace(&mut direction.due, true) {
            let at = at.max(direction.last);
            direction.last = at;
            self.at(at, Later::Deliver(wire, to));
        }
    }

    pub fn deliver(&mut self, wire: Wire, to: usize) {
        let Some(state) = self.wires.get_mut(&wire) else { return };
        state.to[to].due = false;
        let hosts = state.ends.map(|end| self.relays[end].host);
        if self.is_cut(hosts[0], hosts[1]) {
            return;
        }
        let later = self.wires.range(wire + 1..);
        let late = later.clone().any(|(_, other)| {
            let mut of = other.ends.map(|end| self.relays[end].host);
            of.sort_unstable();
            let mut mine = hosts;
            mine.sort_unstable();
            of == mine
        });
        let Some(state) = self.wires.get_mut(&wire) else { return };
        let (end, from) = (state.ends[to], state.ends[1 - to]);
        let direction = &mut state.to[to];
        let there = direction.bytes.len();
        if there > 0 {
            let n = if self.rng.chance(700) {
                there
            } else {
                1 + self.rng.below(there as u64) as usize
            };
            let bytes: Vec<u8> = direction.bytes.drain(..n).collect();
            let empty = direction.bytes.is_empty();
            let more = !empty || direction.closing;
            if late {
                self.tally.count(Fault::LateBytes);
            }
            if state.open[to] {
                self.happen(end, Happened::Bytes(wire, bytes));
            }
            if empty && self.plan.slow_kernel {
                self.happen(from, Happened::LinkRoom(wire));
            }
            if more {
                let at = self.now + self.latency();
                self.due(wire, to, at);
            }
        } else if direction.closing {
            direction.closing = false;
            let was_open = std::mem::replace(&mut state.open[to], false);
            if state.open == [false; 2] {
                self.wires.remove(&wire);
            }
            if was_open {
                self.happen(end, Happened::LinkGone(wire));
            }
        }
    }

    /// One relay closes a link: what it has sent still arrives.
    pub fn close_wire(&mut self, wire: Wire, relay: usize) {
        let Some(state) = self.wires.get_mut(&wire) else { return };
        let to = usize::from(state.ends[0] == relay);
        state.open[1 - to] = false;
        state.to[to].closing = true;
        state.to[1 - to].bytes.clear();
        let at = self.now + self.latency();
        self.due(wire, to, at);
    }

    /// A link breaks: some of what is under way arrives, perhaps much later.
    pub fn break_wire(&mut self, wire: Wire) {
        let late = self.rng.chance(300);
        let Some(state) = self.wires.get_mut(&wire) else { return };
        state.broken = true;
        for to in 0..2 {
            let wait = if late { self.rng.below(1_500_000) } else { self.rng.below(5_000) };
            let Some(state) = self.wires.get_mut(&wire) else { return };
            let direction = &mut state.to[to];
            let keep = self.rng.below(direction.bytes.len() as u64 + 1) as usize;
            direction.bytes.truncate(keep);
            direction.closing = true;
            direction.last = direction.last.max(self.now + wait);
            self.due(wire, to, self.now + wait);
        }
    }

    pub fn heal(&mut self, a: usize, b: usize) {
        self.cut.retain(|pair| *pair != (a, b));
        let waits: Vec<Wire> = self.wires.keys().copied().collect();
        for wire in waits {
            for to in 0..2 {
                let at = self.now + self.latency();
                let Some(state) = self.wires.get(&wire) else { continue };
                if !state.to[to].bytes.is_empty() || state.to[to].closing {
                    self.due(wire, to, at);
                }
            }
        }
    }
}
