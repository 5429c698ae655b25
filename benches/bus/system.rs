//! What is measured: systems that carry messages between two processes, each behind the same few
//! words.

use std::io;

use crate::client::{Client, Side};
use crate::daemon::Daemon;
use crate::{mqtt, nats, ringlane, tcp, zmq};

/// A system.
pub struct System {
    /// For `--system`.
    pub name: &'static str,
    /// What it consists of.
    pub what: &'static str,
    /// How many processes pass a message on between the two.
    pub relays: u8,
    /// Bytes that may be under way where the system itself holds nobody back.
    pub credit: Option<u64>,
    /// Whether it can run here, or what to do about it.
    pub available: fn() -> Result<(), String>,
    /// Starts what stands between the two clients.
    pub start: fn() -> io::Result<Stage>,
    /// One of the two clients, in its own process.
    pub connect: fn(Side, &str) -> io::Result<Box<dyn Client>>,
}

/// Bytes that may be under way in systems that throw away what a reader is too slow for. Four times
/// as much, or as little as a sixteenth, changes no rate by more than the noise.
pub const CREDIT: u64 = 4 << 20;

/// What stands between the two clients; it ends when this is dropped.
pub struct Stage {
    /// The processes whose CPU counts as the system's.
    pub relays: Vec<Daemon>,
    /// What the client that asks and the one that answers are told.
    pub at: [String; 2],
}

/// In the order they are printed.
pub const SYSTEMS: &[System] = &[
    tcp::DIRECT,
    ringlane::DIRECT,
    ringlane::ONE,
    nats::ONE,
    mqtt::ONE,
    zmq::ONE,
    ringlane::TWO,
    nats::TWO,
    mqtt::TWO,
    zmq::TWO,
];

impl System {
    /// Beside whom its ratios are printed.
    pub fn reference(&self) -> &'static str {
        if self.relays < 2 { nats::ONE.name } else { nats::TWO.name }
    }
}

/// The system of that name.
pub fn named(name: &str) -> io::Result<&'static System> {
    let found = SYSTEMS.iter().find(|system| system.name == name);
    found.ok_or_else(|| io::Error::other(format!("no system is called {name}")))
}
