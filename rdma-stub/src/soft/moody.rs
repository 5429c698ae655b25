//! A layer over a wire that makes the device's trouble, by seed: packets that are late, peers that
//! are not ready, work that fails, hardware that gets ahead in the middle of a call.
//!
//! What it does is what real devices do now and then. Without moods it is not there.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::wire::{Packet, Says, Wire};
use crate::verbs::Port;

/// How often what goes wrong, in thousandths of the packets, or calls, it could happen to.
#[derive(Clone, Debug)]
pub struct Moods {
    /// Of the choices; what they are made about counts, too.
    pub seed: u64,
    /// A packet comes later, and what is behind it on its port, too.
    pub late: u64,
    /// By so much at most; 0 is the next time that the hardware runs.
    pub late_max: Duration,
    /// A message is told to have found no receive (RNR), and has to come again.
    pub not_ready: u64,
    /// A message is told not to have been placed: its pair fails, and all of its work is flushed.
    pub refused: u64,
    /// The hardware runs in the middle of a call: between the last look and arming, too.
    pub interrupts: u64,
    /// How often it happened.
    pub tally: Rc<MoodTally>,
}

/// How often what happened.
#[derive(Debug, Default)]
pub struct MoodTally {
    /// Packets that were late.
    pub late: Cell<u64>,
    /// Messages that had to come again.
    pub not_ready: Cell<u64>,
    /// Messages that failed their pair.
    pub refused: Cell<u64>,
    /// Calls in the middle of which the hardware ran.
    pub interrupts: Cell<u64>,
    /// Completions that lay there after the last look, and were found by looking again after
    /// arming: events that were never going to come.
    pub lost_arms: Cell<u64>,
    /// Ends of links that went on without the device.
    pub plain: Cell<u64>,
}

impl MoodTally {
    /// Names and counts.
    pub fn all(&self) -> [(&'static str, u64); 6] {
        [
            ("RdmaLate", self.late.get()),
            ("RdmaNotReady", self.not_ready.get()),
            ("RdmaRefused", self.refused.get()),
            ("RdmaInterrupt", self.interrupts.get()),
            ("RdmaLostArm", self.lost_arms.get()),
            ("RdmaPlain", self.plain.get()),
        ]
    }
}

impl fmt::Display for MoodTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all().iter().try_for_each(|(name, n)| writeln!(f, "  {name:<14} {n:>10}"))
    }
}

struct Late {
    at: Duration,
    /// The run of the hardware in which it came; it is not seen in that one.
    run: u64,
    port: Port,
    packet: Packet,
}

/// A wire with moods, or without.
pub struct Moody<W> {
    wire: W,
    moods: Option<Moods>,
    random: u64,
    run: u64,
    late: VecDeque<Late>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl<W: Wire> Moody<W> {
    /// A layer over `wire`.
    pub fn new(wire: W, moods: Option<Moods>) -> Moody<W> {
        let random = moods.as_ref().map_or(0, |moods| moods.seed);
        Moody { wire, moods, random, run: 0, late: VecDeque::new() }
    }

    /// The wire under it.
    pub fn wire_mut(&mut self) -> &mut W {
        &mut self.wire
    }

    /// What is late comes the next time that the hardware runs.
    pub fn hurry(&mut self) {
        let now = self.wire.now();
        for late in &mut self.late {
            (late.at, late.run) = (now, self.run.wrapping_sub(1));
        }
    }

    /// splitmix64, over what the choice is about, so that no two runs are alike.
    fn draw(&mut self, about: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15) ^ about.rotate_left(17);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The oldest late packet of a port that is due.
    fn due(&mut self) -> Option<(Port, Packet)> {
        let (now, run) = (self.wire.now(), self.run);
        for i in 0..self.late.len() {
            let late = &self.late[i];
            let first = !self.late.range(..i).any(|before| before.port == late.port);
            if first && late.at <= now && late.run != run {
                return self.late.remove(i).map(|late| (late.port, late.packet));
            }
        }
        None
    }

    /// What becomes of a packet that has come; `None` if it is late, or has been answered here.
    fn fate(&mut self, port: Port, mut packet: Packet) -> Option<(Port, Packet)> {
        let Some(moods) = self.moods.clone() else { return Some((port, packet)) };
        let now = self.wire.now();
        let about = now.as_nanos() as u64 ^ u64::from(packet.number) << 32 ^ u64::from(packet.to.0);
        let behind = self.late.iter().rev().find(|late| late.port == port).map(|late| late.at);
        let is_late = self.draw(about) % 1000 < moods.late;
        if is_late || behind.is_some() {
            let by = self.draw(about) % (moods.late_max.as_nanos() as u64 + 1);
            let at = behind.map_or(now + Duration::from_nanos(by), |at| at.max(now));
            count(&moods.tally.late);
            self.late.push_back(Late { at, run: self.run, port, packet });
            return None;
        }
        let answer =
            |says| Packet { to: packet.from, from: packet.to, number: packet.number, says };
        if !packet.is_answer() {
            let not_ready = self.draw(about) % 1000 < moods.not_ready;
            if not_ready && self.wire.put(port, answer(Says::NotReady)).is_ok() {
                count(&moods.tally.not_ready);
                return None;
            }
        } else if packet.says == Says::Placed && self.draw(about) % 1000 < moods.refused {
            count(&moods.tally.refused);
            packet.says = Says::Refused;
        }
        Some((port, packet))
    }
}

impl<W: Wire> Wire for Moody<W> {
    fn put(&mut self, port: Port, packet: Packet) -> Result<(), Packet> {
        self.wire.put(port, packet)
    }

    fn take(&mut self) -> Option<(Port, Packet)> {
        if let Some(due) = self.due() {
            return Some(due);
        }
        while let Some((port, packet)) = self.wire.take() {
            if let Some(arrived) = self.fate(port, packet) {
                return Some(arrived);
            }
        }
        self.run = self.run.wrapping_add(1);
        None
    }

    fn now(&self) -> Duration {
        self.wire.now()
    }

    fn interrupts(&mut self) -> bool {
        let Some(moods) = self.moods.clone() else { return self.wire.interrupts() };
        let happens = self.draw(1) % 1000 < moods.interrupts;
        if happens {
            count(&moods.tally.interrupts);
        }
        happens
    }

    fn message_bytes_max(&self) -> u32 {
        self.wire.message_bytes_max()
    }

    fn deadline(&self) -> Option<Duration> {
        self.late.iter().map(|late| late.at).chain(self.wire.deadline()).min()
    }
}
