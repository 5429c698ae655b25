//! Faults: who is killed, stopped, cut off, and who comes back.

use ringlane::shm::crash::Point;

use crate::process::{Heard, Process};
use crate::relay::{Happened, Job, Trap, Wire};
use crate::tally::Fault;
use crate::world::{Later, SLOTS, Stand, Then, World};

impl World {
    /// Whether a relay stops in its next turns, and what becomes of it.
    pub fn set_trap(&mut self, relay: usize) {
        if self.calm {
            self.relays[relay].trap = Trap::default();
            return;
        }
        if self.relays[relay].trap.left > 0 {
            return;
        }
        let then = if self.rng.chance(self.plan.kills_at) {
            Then::Killed
        } else if self.rng.chance(self.plan.stops_at) {
            let long = self.rng.chance(300);
            Then::Stopped(self.rng.below(if long { 200_000 } else { 5_000 }))
        } else {
            return;
        };
        self.lay_trap(relay, then, 30);
    }

    /// It stops at one of the next points, or at one of the next of a kind.
    fn lay_trap(&mut self, relay: usize, then: Then, within: u64) {
        let through = [Point::RunTaken, Point::SentMarked, Point::AckedMarked, Point::RunWritten];
        let kinds = [&through[..], &[Point::Published], &Point::RELAY[..]].concat();
        let only = self.rng.chance(600);
        let only = only.then(|| kinds[self.rng.below(kinds.len() as u64) as usize]);
        let within = if only.is_some() { 4 } else { within };
        let left = 1 + self.rng.below(within) as u32;
        self.relays[relay].trap = Trap { left, only };
        self.relays[relay].then = then;
    }

    /// A relay has run into its trap.
    pub fn trapped(&mut self, relay: usize, then: Then) {
        match then {
            Then::Killed => {
                self.tally.count(Fault::RelayKilledAt);
                self.kill_relay(relay);
            }
            Then::Stopped(micros) => {
                self.tally.count(Fault::RelayStoppedAt);
                self.relays[relay].stand = Stand::Stopped { amid: true };
                self.at(self.now + micros, Later::Go(relay));
                self.perhaps_take_over(relay, micros);
            }
        }
    }

    /// It stands still for so long that somebody notices.
    fn perhaps_take_over(&mut self, relay: usize, micros: u64) {
        if micros < 1_000_000 {
            return;
        }
        if self.rng.chance(700) {
            let host = self.relays[relay].host;
            self.soon(1_000_000, Later::TakeOver(host, relay));
        } else if micros > 3_000_000 {
            self.tally.count(Fault::RelayHung);
        }
    }

    pub fn take_over(&mut self, host: usize, relay: usize) {
        let stopped = matches!(self.relays[relay].stand, Stand::Stopped { .. });
        if !stopped || self.relays[relay].replaced {
            return;
        }
        let free = |slot: &usize| {
            let holder = self.slots[host][*slot];
            holder.is_none_or(|at| self.relays[at].stand == Stand::Dead)
        };
        let Some(slot) = (self.relays[relay].slot + 1..SLOTS).find(free) else { return };
        self.tally.count(Fault::Takeover);
        self.relays[relay].replaced = true;
        self.spawn_relay(host, slot);
    }

    /// A relay that stood still goes on.
    pub fn go(&mut self, relay: usize) {
        let Stand::Stopped { amid } = self.relays[relay].stand else { return };
        let name = self.relay_name(relay);
        self.log(|| format!("{name} goes on"));
        self.relays[relay].stand = Stand::Runs;
        if self.relays[relay].replaced {
            self.tally.count(Fault::ZombieWoke);
            let lives = self.rng.below(4_000_000);
            self.at(self.now + lives, Later::Zombie(relay));
        }
        self.relays[relay].due = false;
        if amid {
            let report = self.relays[relay].thread.run(Job::Go);
            self.hear(relay, report);
        }
        self.schedule_turn(relay);
    }

    /// Whoever watches over the relays has found one too many.
    pub fn end_zombie(&mut self, relay: usize) {
        let host = self.relays[relay].host;
        if self.serving(host).is_some_and(|serving| serving != relay) {
            self.kill_relay(relay);
        }
    }

    pub fn kill_relay(&mut self, relay: usize) {
        if self.relays[relay].stand == Stand::Dead {
            return;
        }
        let name = self.relay_name(relay);
        self.log(|| format!("{name} is killed"));
        if let Err(why) = self.relays[relay].thread.kill() {
            self.fail(|| format!("{name} panicked as it was killed: {why}"));
        }
        let it = &mut self.relays[relay];
        it.stand = Stand::Dead;
        it.inbox.clear();
        let host = it.host;
        let socks = self.socks.iter().filter(|(_, socket)| socket.relay == relay);
        let socks: Vec<_> = socks.map(|(sock, _)| *sock).collect();
        for sock in socks {
            self.drop_socket(sock);
        }
        let wires = self.wires.iter().filter(|(_, wire)| wire.ends.contains(&relay));
        let wires: Vec<Wire> = wires.map(|(wire, _)| *wire).collect();
        for wire in wires {
            self.break_wire(wire);
        }
        self.soon(1_000_000, Later::StartRelay(host));
    }

    pub fn kill_process(&mut self, process: usize) {
        let it = &mut self.processes[process];
        if !std::mem::replace(&mut it.alive, false) {
            return;
        }
        let (node, number) = (it.node, it.number);
        self.log(|| format!("process {number} dies"));
        self.end_process(process);
        self.current[node] = None;
        // Not before its relay has heard of its end: it would find its name in use.
        let at = self.now + 100_000 + self.rng.below(1_500_000);
        self.at(at, Later::StartProcess(node));
    }

    fn end_process(&mut self, process: usize) {
        let conns: Vec<_> = self.processes[process].conns.keys().copied().collect();
        for conn in conns {
            self.hang_socket(process, conn);
        }
        self.processes[process].bury(&self.memory);
    }

    pub fn start_process(&mut self, node: usize) {
        if self.over || self.current[node].is_some() {
            return;
        }
        let number = self.processes.len() as u32;
        let before = self.processes.iter().rev().find(|process| process.node == node);
        let before = before.map(|process| process.epochs.last().copied().unwrap_or(0));
        let mut epoch = 1_000_000 + self.now;
        if let Some(before) = before.filter(|_| self.rng.chance(150)) {
            self.tally.count(Fault::ClockBack);
            // The same one only where nobody is told to which instance messages went.
            let receives = self.plan.nodes.iter().flat_map(|node| &node.lines);
            let receives = receives.filter(|line| line.to == node).count() > 0;
            epoch = before - u64::from(receives) - self.rng.below(3);
        }
        let of = &self.plan.nodes[node];
        let mut process =
            Process::new((node, &of.name, number), epoch, &self.memory, of.lines.clone());
        if self.plan.slow_consumers && self.rng.chance(500) {
            process.pace = Some(1 + self.rng.below(5) as u32);
        }
        let (name, lines) = (of.name.clone(), of.lines.len());
        self.log(|| format!("process {number} starts as {name}, epoch {epoch}"));
        self.processes.push(process);
        self.current[node] = Some(number as usize);
        self.at(self.now, Later::Process(number as usize, Heard::Tick));
        for line in 0..lines {
            self.soon(100_000, Later::Send(number as usize, line));
        }
    }

    /// One fault, and when the next comes.
    pub fn fault(&mut self) {
        if self.calm {
            return;
        }
        let every = self.plan.fault_every;
        self.soon(2 * every, Later::Fault);
        let host = self.rng.below(self.plan.hosts as u64) as usize;
        let relay = self.serving(host).filter(|at| self.relays[*at].stand == Stand::Runs);
        let process = self.rng.below(self.current.len() as u64) as usize;
        let process = self.current[process];
        match (self.rng.below(16), relay, process) {
            (0..3, Some(relay), _) => {
                self.tally.count(Fault::RelayKilled);
                self.kill_relay(relay);
            }
            (3, ..) => {
                self.tally.count(Fault::AllKilled);
                (0..self.relays.len()).for_each(|relay| self.kill_relay(relay));
            }
            (4, Some(relay), _) => {
                self.tally.count(Fault::RelayStopped);
                let micros = self.rng.below(400_000);
                self.stop_relay(relay, micros);
            }
            (5, Some(relay), _) => {
                let micros = 1_000_000 + self.rng.below(4_000_000);
                self.stop_relay(relay, micros);
                self.perhaps_take_over(relay, micros);
            }
            (6..9, Some(relay), _) => {
                let micros = 1_000_000 + self.rng.below(4_000_000);
                self.lay_trap(relay, Then::Stopped(micros), 60);
            }
            (9..11, ..) => self.cut_link(),
            (11, ..) => self.partition(),
            (12..15, _, Some(process)) => self.trouble_process(process),
            _ => {}
        }
    }

    fn stop_relay(&mut self, relay: usize, micros: u64) {
        let name = self.relay_name(relay);
        self.log(|| format!("{name} is stopped for {micros} us"));
        self.relays[relay].stand = Stand::Stopped { amid: false };
        self.at(self.now + micros, Later::Go(relay));
    }

    fn cut_link(&mut self) {
        let wires: Vec<Wire> = self.wires.keys().copied().collect();
        if wires.is_empty() {
            return;
        }
        let wire = wires[self.rng.below(wires.len() as u64) as usize];
        self.tally.count(Fault::LinkCut);
        self.log(|| format!("wire {wire} breaks"));
        self.break_wire(wire);
    }

    fn partition(&mut self) {
        let a = self.rng.below(self.plan.hosts as u64) as usize;
        let b = (a + 1) % self.plan.hosts;
        let pair = (a.min(b), a.max(b));
        if self.cut.contains(&pair) {
            return;
        }
        self.tally.count(Fault::Partition);
        self.log(|| format!("hosts {pair:?} are cut off from each other"));
        self.cut.push(pair);
        let long = self.rng.chance(300);
        self.soon(if long { 5_000_000 } else { 700_000 }, Later::Heal(pair.0, pair.1));
    }

    fn trouble_process(&mut self, process: usize) {
        match self.rng.below(4) {
            0 => {
                self.tally.count(Fault::ProcessKilled);
                self.kill_process(process);
            }
            1 => {
                self.tally.count(Fault::ProcessStopped);
                let micros = self.rng.below(1_500_000);
                self.processes[process].stopped_until =
                    std::time::Duration::from_micros(self.now + micros);
                self.at(self.now + micros, Later::Wake(process));
            }
            2 => {
                self.tally.count(Fault::ProcessLeft);
                self.process(process, Heard::Close);
            }
            _ => self.processes[process].trap = 1 + self.rng.below(40) as u32,
        }
    }

    /// No more trouble: everybody is brought back.
    pub fn make_calm(&mut self) {
        self.calm = true;
        self.log(|| "calm".into());
        for (a, b) in self.cut.clone() {
            self.heal(a, b);
        }
        for relay in 0..self.relays.len() {
            self.relays[relay].trap = Trap::default();
            if matches!(self.relays[relay].stand, Stand::Stopped { .. }) {
                self.go(relay);
            }
        }
        for process in 0..self.processes.len() {
            self.processes[process].trap = 0;
            self.processes[process].stopped_until = std::time::Duration::ZERO;
            self.at(self.now, Later::Wake(process));
        }
        for host in 0..self.plan.hosts {
            self.soon(100_000, Later::StartRelay(host));
        }
        for node in 0..self.current.len() {
            self.soon(100_000, Later::StartProcess(node));
        }
    }

    /// Something happens to a process.
    pub fn process(&mut self, process: usize, heard: Heard) {
        let at = self.time();
        let it = &mut self.processes[process];
        if !it.alive {
            return;
        }
        if matches!(heard, Heard::Tick) {
            it.tick_at = None;
        }
        if it.stopped_until > at {
            it.pending.push_back(heard);
            return;
        }
        // The relay looks, too, when the bell is there.
        let opens = matches!(heard, Heard::BellOpen);
        let outcome = it.turn(at, heard);
        self.check_process(process);
        if let Some(why) = outcome.panicked {
            return self.fail(|| format!("process {process} panicked: {why}"));
        }
        if outcome.killed {
            self.tally.count(Fault::ProcessKilledAt);
            return self.kill_process(process);
        }
        let bell = self.processes[process].bell;
        self.carry(process, outcome.todo);
        if let Some(sock) = bell {
            let wants = self.socks.get(&sock).is_some_and(|socket| socket.wants);
            if opens || outcome.published || outcome.consumed && wants {
                self.tell_relay(sock, Happened::Rang(sock));
            }
        }
        self.after_turn(process);
    }

    /// What a process wants later.
    fn after_turn(&mut self, process: usize) {
        let it = &mut self.processes[process];
        if it.closed_left.is_some() {
            it.alive = false;
            let node = it.node;
            self.log(|| format!("process {process} has left"));
            self.end_process(process);
            if !self.over {
                self.current[node] = None;
                let at = self.now + 100_000 + self.rng.below(300_000);
                self.at(at, Later::StartProcess(node));
            }
            return;
        }
        if it.look && !std::mem::replace(&mut it.consuming, true) {
            let wait = if it.pace.is_some() && !self.calm { 50_000 } else { 500 };
            self.soon(wait, Later::Process(process, Heard::Consume));
        }
        let it = &mut self.processes[process];
        if let Some(deadline) = it.core.deadline() {
            let at = (deadline * 1000).max(self.now + 1);
            if it.tick_at.is_none_or(|tick| tick > at) {
                it.tick_at = Some(at);
                self.at(at, Later::Process(process, Heard::Tick));
            }
        }
    }

    pub fn wake_process(&mut self, process: usize) {
        let it = &mut self.processes[process];
        if it.stopped_until > std::time::Duration::from_micros(self.now) {
            return;
        }
        for heard in std::mem::take(&mut it.pending) {
            self.process(process, heard);
        }
    }

    pub fn send(&mut self, process: usize, line: usize) {
        if self.calm || !self.processes[process].alive {
            return;
        }
        let every = self.plan.send_every;
        let burst = if self.rng.chance(50) { self.rng.below(200) } else { 1 + self.rng.below(3) };
        self.process(process, Heard::Send(line, burst as u32));
        self.soon(2 * every + 1, Later::Send(process, line));
    }
}
