//! Nothing between the two: a TCP connection, and a length before each message.

use std::io;
use std::net::TcpListener;

use crate::client::{Client, Side};
use crate::daemon::free_ports;
use crate::system::{Stage, System};
use crate::wire::{Protocol, Step, Wire, connect};

pub const DIRECT: System = System {
    name: "tcp",
    what: "raw TCP between the two processes, a length before each message",
    relays: 0,
    credit: None,
    available: || Ok(()),
    start,
    connect: client,
};

fn start() -> io::Result<Stage> {
    let [port] = free_ports()?;
    let at = format!("127.0.0.1:{port}");
    Ok(Stage { relays: Vec::new(), at: [at.clone(), at] })
}

fn client(side: Side, at: &str) -> io::Result<Box<dyn Client>> {
    let stream = match side {
        Side::Asks => connect(at)?,
        Side::Answers => TcpListener::bind(at)?.accept()?.0,
    };
    Ok(Box::new(Wire::new(stream, Lengths)?))
}

struct Lengths;

const HEAD: usize = size_of::<u32>();

impl Protocol for Lengths {
    fn hello(&self) -> Vec<u8> {
        Vec::new()
    }

    fn head(&self, bytes: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&(bytes as u32).to_le_bytes());
    }

    const TAIL: &'static [u8] = b"";

    fn next(&self, input: &[u8]) -> io::Result<Step> {
        let Some(length) = input.first_chunk() else { return Ok(Step::Short) };
        let end = HEAD + u32::from_le_bytes(*length) as usize;
        Ok(if input.len() < end { Step::Short } else { Step::Message(HEAD..end, end) })
    }
}
