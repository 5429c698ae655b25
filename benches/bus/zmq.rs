//! ZeroMQ: libzmq from Debian, PUSH and PULL over TCP, with processes between the two clients that
//! run `zmq_proxy`, one, or two of them joined. It holds a sender back by itself, at 1,000
//! messages.

use std::io;
use std::thread;
use std::time::Duration;

use ringlane_benches::talk::See;
use zmq::{Context, Message, PULL, PUSH, Socket};

use crate::client::{Client, Side};
use crate::daemon::{Daemon, free_ports};
use crate::run::RELAY;
use crate::system::{Stage, System};

/// A relay that takes nothing for so long is given up, in ms.
const SEND_WITHIN_MS: i32 = 10_000;
/// Messages that are shown in one go.
const BATCH: usize = 64;

pub const ONE: System = System {
    name: "zmq1",
    what: "libzmq PUSH/PULL over TCP through one zmq_proxy process",
    relays: 1,
    credit: None,
    available: || Ok(()),
    start: one,
    connect: client,
};

pub const TWO: System = System {
    name: "zmq2",
    what: "libzmq PUSH/PULL over TCP through two zmq_proxy processes",
    relays: 2,
    credit: None,
    available: || Ok(()),
    start: two,
    connect: client,
};

fn error(error: zmq::Error) -> io::Error {
    io::Error::other(format!("zmq: {error}"))
}

/// A relay of two ways: what it pulls from and pushes to, for each. A port is bound, `+port` is
/// that of another relay.
fn proxy(ways: [[String; 2]; 2]) -> io::Result<Daemon> {
    let mut words = vec![RELAY.to_string()];
    let wait = ways.concat().into_iter().find(|end| !end.starts_with('+'));
    words.extend(ways.concat());
    let daemon = Daemon::own("zmq relay", &words, "")?;
    match wait.and_then(|port| port.parse().ok()) {
        Some(port) => daemon.listening(port),
        None => Ok(daemon),
    }
}

fn one() -> io::Result<Stage> {
    let [there_in, there_out, back_in, back_out] = free_ports()?;
    let ways = [[there_in, there_out], [back_in, back_out]].map(|way| way.map(|p| p.to_string()));
    let relays = vec![proxy(ways)?];
    Ok(Stage { relays, at: [format!("{there_in} {back_out}"), format!("{back_in} {there_out}")] })
}

fn two() -> io::Result<Stage> {
    let [there_in, there, there_out, back_in, back, back_out] = free_ports()?;
    let far =
        [[format!("{there}"), format!("{there_out}")], [format!("{back_in}"), format!("{back}")]];
    let near =
        [[format!("{there_in}"), format!("+{there}")], [format!("+{back}"), format!("{back_out}")]];
    let relays = vec![proxy(near)?, proxy(far)?];
    Ok(Stage { relays, at: [format!("{there_in} {back_out}"), format!("{back_in} {there_out}")] })
}

/// A process that passes messages on, both ways, until it is killed.
pub fn relay(ways: &[String]) -> io::Result<()> {
    let context = Context::new();
    let open = |kind, end: &str| -> io::Result<Socket> {
        let socket = context.socket(kind).map_err(error)?;
        match end.strip_prefix('+') {
            Some(port) => socket.connect(&at(port)).map_err(error)?,
            None => socket.bind(&at(end)).map_err(error)?,
        }
        Ok(socket)
    };
    let mut threads = Vec::new();
    for way in ways.chunks(2) {
        let [from, to] = way else { return Err(io::Error::other("a way has two ends")) };
        let (from, to) = (open(PULL, from)?, open(PUSH, to)?);
        threads.push(thread::spawn(move || zmq::proxy(&from, &to)));
    }
    for thread in threads {
        let ended = thread.join().map_err(|_| io::Error::other("a way panicked"))?;
        ended.map_err(error)?;
    }
    Ok(())
}

fn at(port: &str) -> String {
    format!("tcp://127.0.0.1:{port}")
}

fn client(_side: Side, at_ports: &str) -> io::Result<Box<dyn Client>> {
    let context = Context::new();
    let (out, into) =
        at_ports.split_once(' ').ok_or_else(|| io::Error::other("two ports are needed"))?;
    let push = context.socket(PUSH).map_err(error)?;
    push.set_sndtimeo(SEND_WITHIN_MS).map_err(error)?;
    push.connect(&at(out)).map_err(error)?;
    let pull = context.socket(PULL).map_err(error)?;
    pull.connect(&at(into)).map_err(error)?;
    let (message, see) = (Message::new(), Box::new(|_: &[u8]| ()));
    Ok(Box::new(Zmq { push, pull, message, see, within: Duration::ZERO }))
}

struct Zmq {
    push: Socket,
    pull: Socket,
    message: Message,
    see: See,
    /// What the socket's timeout is.
    within: Duration,
}

impl Client for Zmq {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.push.send(message, 0).map_err(error)
    }

    fn flush(&mut self) -> io::Result<()> {
        // libzmq's own thread batches.
        Ok(())
    }

    fn hear(&mut self, see: See) {
        self.see = see;
    }

    fn receive(&mut self, within: Duration) -> io::Result<usize> {
        if self.within != within {
            self.pull.set_rcvtimeo(within.as_millis() as i32).map_err(error)?;
            self.within = within;
        }
        let (mut shown, mut flags) = (0, 0);
        while shown < BATCH {
            match self.pull.recv(&mut self.message, flags) {
                Ok(()) => (self.see)(&self.message),
                Err(zmq::Error::EAGAIN) => break,
                Err(other) => return Err(error(other)),
            }
            shown += 1;
            flags = zmq::DONTWAIT;
        }
        Ok(shown)
    }
}
