//! The bus of ringlane: with a relay on each of two hosts, with one in the path, and with none.
//!
//! Both hosts are this machine, and their relays are joined by TCP. A client is a `Bus` on an event
//! base of the default configuration: messages are seen in its callback, where they lie in the
//! ring, and what it sends is published by the turn that follows, after 64 KiB at the latest.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use ringlane::bus::{Bus, BusError, LINGER, PeerEvent, RelayEvent};
use ringlane::cluster::{Cluster, Secret};
use ringlane::prelude::*;
use ringlane::relay::daemon::{Options, Relay};
use ringlane_benches::talk::See;

use crate::client::{Client, Side};
use crate::daemon::{Daemon, free_ports};
use crate::system::{Stage, System};

/// The first word of this program's arguments where it is a relay: `bus-relay HOST SOCKET`, with
/// the config on stdin.
pub const RELAY: &str = "bus-relay";

/// Messages are published after so many bytes, as they leave the peers' buffers.
const TURN_BYTES: usize = 64 << 10;
/// How often a client that waits looks whether it has waited long enough.
const LOOK: Duration = Duration::from_millis(25);
/// Room comes within this, or never.
const ROOM_WITHIN: Duration = Duration::from_secs(10);

pub const DIRECT: System = System {
    name: "bus0",
    what: "the bus, both processes on one host: no relay in the path",
    relays: 0,
    credit: None,
    available: || Ok(()),
    start: || one_host("auto"),
    connect: client,
};

pub const ONE: System = System {
    name: "bus1",
    what: "the bus, both processes on one host, through its relay",
    relays: 1,
    credit: None,
    available: || Ok(()),
    start: || one_host("relay"),
    connect: client,
};

pub const TWO: System = System {
    name: "bus2",
    what: "the bus, a process on each of two hosts, two relays joined by TCP",
    relays: 2,
    credit: None,
    available: || Ok(()),
    start: two_hosts,
    connect: client,
};

fn error(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("bus: {error}"))
}

/// The node's name of a side: the topic that it hears.
fn node(side: Side) -> &'static str {
    side.hears()
}

fn host(name: &str, port: u16, nodes: &[&str]) -> String {
    format!(
        "[[host]]\nname = \"{name}\"\nrelay = [\"tcp://127.0.0.1:{port}\"]\nnodes = {nodes:?}\n"
    )
}

const HEAD: &str = "[cluster]\nname = \"bench\"\nsecret_file = \"none\"\n";

/// A relay, and where its processes find it.
fn relay_of(config: &str, host: &str, port: u16) -> io::Result<(Daemon, String)> {
    let socket = format!("unix://@ringlane-bench-{}-{port}", std::process::id());
    let words = [RELAY, host, &socket].map(String::from);
    Ok((Daemon::own("ringlane relay", &words, config)?.listening(port)?, socket))
}

fn one_host(path: &str) -> io::Result<Stage> {
    let [port] = free_ports()?;
    let nodes = [node(Side::Asks), node(Side::Answers)];
    let config = format!("{HEAD}[defaults]\npath = \"{path}\"\n{}", host("a", port, &nodes));
    let (relay, socket) = relay_of(&config, "a", port)?;
    Ok(Stage { relays: vec![relay], at: [socket.clone(), socket] })
}

fn two_hosts() -> io::Result<Stage> {
    let [near, far] = free_ports()?;
    let config = HEAD.to_string()
        + &host("a", near, &[node(Side::Asks)])
        + &host("b", far, &[node(Side::Answers)]);
    let (a, socket_a) = relay_of(&config, "a", near)?;
    let (b, socket_b) = relay_of(&config, "b", far)?;
    Ok(Stage { relays: vec![a, b], at: [socket_a, socket_b] })
}

/// This process is a relay, until it is killed.
pub fn relay(words: &[String]) -> io::Result<()> {
    let [host, socket] = words else { return Err(error("bus-relay HOST SOCKET")) };
    let mut config = String::new();
    io::stdin().read_to_string(&mut config)?;
    let mut cluster = Cluster::parse(&config).map_err(error)?;
    cluster.secret = Some(Secret::new(b"nobody else is on the loopback").map_err(error)?);
    let base = EventBase::new().map_err(error)?;
    let options = Options {
        host: host.clone(),
        socket: socket.clone(),
        uid: geteuid().as_raw(),
        pid: std::process::id(),
        drain: Duration::ZERO,
    };
    let _relay = Relay::start(&base, cluster, options).map_err(error)?;
    base.dispatch().map_err(error)
}

fn client(side: Side, socket: &str) -> io::Result<Box<dyn Client>> {
    let base = EventBase::new().map_err(error)?;
    let bus = Bus::open_at(&base, node(side), socket).map_err(error)?;
    let trouble: Rc<RefCell<Option<String>>> = Rc::default();
    let told = Rc::clone(&trouble);
    bus.on_relay(move |event| {
        if !matches!(event, RelayEvent::Here { .. }) {
            told.replace(Some(format!("{event:?}")));
        }
    });
    let told = Rc::clone(&trouble);
    bus.on_peer(move |event| {
        if matches!(event, PeerEvent::Gone { .. }) {
            told.replace(Some("the peer is gone".into()));
        }
    });
    // So that a turn ends when nothing comes.
    base.every(LOOK, |_| ());
    let to = side.sends_to();
    Ok(Box::new(Ring { base, bus, to, trouble, shown: Rc::default(), seen: 0, kept: 0 }))
}

/// A process on the bus.
struct Ring {
    base: EventBase,
    bus: Bus,
    to: &'static str,
    trouble: Rc<RefCell<Option<String>>>,
    /// Messages that the callback has shown, and how many of them were told.
    shown: Rc<Cell<usize>>,
    seen: usize,
    /// Bytes sent since the last turn.
    kept: usize,
}

impl Ring {
    fn turn(&mut self, turn: Turn) -> io::Result<()> {
        self.kept = 0;
        self.base.turn(turn).map_err(error)?;
        match self.trouble.take() {
            Some(trouble) => Err(error(trouble)),
            None => Ok(()),
        }
    }
}

impl Client for Ring {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut since = None;
        loop {
            match self.bus.send(self.to, message) {
                Ok(()) => break,
                Err(BusError::WouldBlock) => {
                    if since.get_or_insert_with(Instant::now).elapsed() > ROOM_WITHIN {
                        return Err(error("no room for too long"));
                    }
                    self.turn(Turn::Wait)?;
                }
                Err(other) => return Err(error(other)),
            }
        }
        self.kept += message.len();
        if self.kept >= TURN_BYTES {
            return self.turn(Turn::NoWait);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        // The next turn publishes before it waits, and there is one in `receive` and at the end.
        Ok(())
    }

    fn hear(&mut self, mut see: See) {
        let shown = Rc::clone(&self.shown);
        self.bus.on_message(move |message| {
            see(message.bytes());
            shown.set(shown.get() + 1);
        });
    }

    fn receive(&mut self, within: Duration) -> io::Result<usize> {
        let begun = Instant::now();
        while self.shown.get() == self.seen && begun.elapsed() < within {
            self.turn(Turn::Wait)?;
        }
        let news = self.shown.get() - self.seen;
        self.seen = self.shown.get();
        Ok(news)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // What is not acknowledged then is missed by the other side, which says so.
        let _left = self.bus.close_now(LINGER);
    }
}
