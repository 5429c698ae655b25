//! What a connection is going to do, drawn before it begins.

use crate::sim::Rng;

/// What the server does with a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// Sends everything back.
    Echo,
    /// Reads to the end, then answers.
    Sink,
    /// Answers at once, reads on.
    Source,
    /// Echoes after a pause in which it does not read.
    Slow,
    /// Cuts the connection after so many bytes.
    Cut,
}

/// How the client ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// Half close, then reads to the end.
    Finish,
    /// Lets go as soon as everything is written; what is written must arrive.
    Free,
    /// Aborts after so many received bytes, from inside the read callback.
    AbortInRead(usize),
    /// Aborts some turns after dialling.
    AbortEarly(u32),
}

/// Where it dials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Where {
    Tcp,
    Path,
    Name,
    /// Through shared memory.
    Shm,
    /// Nobody listens there.
    Nobody,
    /// By a host name whose first address refuses.
    Host,
    /// A device, whose packets go over TCP, or through shared memory.
    Device,
    DeviceInMemory,
}

/// A connection's life.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub id: u32,
    pub to: Where,
    pub mode: Mode,
    pub ending: Ending,
    /// Bytes the client sends after the header.
    pub up: usize,
    /// Bytes the server answers in modes that do not echo.
    pub reply: usize,
    /// Bytes per write of the client.
    pub piece: usize,
    /// Writes as referenced memory.
    pub lent: bool,
    /// The client reads only after a pause.
    pub lazy: bool,
    /// Milliseconds after which the client gives up on a silent server; 0 for never.
    pub patience: u64,
    /// High watermark of both inputs; 0 for none.
    pub high: usize,
    pub priority: usize,
}

/// Bytes before the body: number, mode, length of the answer.
pub(super) const HEADER: usize = 9;

impl Plan {
    pub fn draw(rng: &mut Rng, id: u32) -> Plan {
        let mode = match rng.below(10) {
            0..=3 => Mode::Echo,
            4 | 5 => Mode::Sink,
            6 => Mode::Source,
            7 | 8 => Mode::Slow,
            _ => Mode::Cut,
        };
        let ending = match rng.below(12) {
            0..=6 => Ending::Finish,
            7 | 8 => Ending::Free,
            9 | 10 => Ending::AbortInRead(rng.size(20_000) as usize),
            _ => Ending::AbortEarly(rng.below(12) as u32),
        };
        let to = match rng.below(16) {
            0..=3 => Where::Tcp,
            4..=6 => Where::Path,
            7 | 8 => Where::Name,
            9..=12 => Where::Shm,
            13 => Where::Nobody,
            _ => Where::Host,
        };
        Plan {
            id,
            to,
            mode,
            ending,
            up: rng.size(60_000) as usize,
            reply: rng.size(60_000) as usize,
            piece: rng.size(30_000).max(16) as usize,
            lent: rng.chance(200),
            lazy: rng.chance(150),
            patience: if rng.chance(100) { rng.between(20, 2_000) } else { 0 },
            high: if rng.chance(250) { rng.between(2_000, 40_000) as usize } else { 0 },
            priority: rng.below(3) as usize,
        }
    }

    /// Dials a device instead, in some runs of a build that has one.
    pub fn onto_device(&mut self, rng: &mut Rng) {
        self.to = match rng.below(4) {
            0 => Where::Device,
            1 => Where::DeviceInMemory,
            _ => self.to,
        };
    }

    /// What the server is told first.
    pub fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&self.id.to_le_bytes());
        header[4] = self.mode as u8;
        header[5..].copy_from_slice(&(self.reply as u32).to_le_bytes());
        header
    }

    /// What its address says of shared memory.
    pub fn memory(&self) -> &'static str {
        match self.id % 4 {
            0 => "",
            1 => "?ring=4KiB",
            2 => "?fallback=unix",
            _ => "?ring=16KiB&fallback=unix",
        }
    }

    pub fn echoes(&self) -> bool {
        matches!(self.mode, Mode::Echo | Mode::Slow | Mode::Cut)
    }

    /// Bytes that come back if nobody cuts it.
    pub fn down(&self) -> usize {
        if self.echoes() { self.up } else { self.reply }
    }

    /// The seed of the client's bytes.
    pub fn up_seed(&self) -> u64 {
        u64::from(self.id) * 2
    }

    /// The seed of the bytes that come back.
    pub fn down_seed(&self) -> u64 {
        self.up_seed() + u64::from(!self.echoes())
    }
}
