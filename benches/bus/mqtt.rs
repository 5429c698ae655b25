//! MQTT 3.1.1 at QoS 0: `mosquitto` from Debian, one, or two joined by a bridge; a client of our
//! own that does no more than it must. The broker throws away what it cannot write at once, so the
//! load waits for the far side.

use std::io;

use crate::client::{Client, Side};
use crate::daemon::{Daemon, find, free_ports};
use crate::system::{CREDIT, Stage, System};
use crate::wire::{Protocol, Step, Wire, connect};

pub const ONE: System = System {
    name: "mqtt1",
    what: "one mosquitto, QoS 0",
    relays: 1,
    credit: Some(CREDIT),
    available,
    start: one,
    connect: client,
};

pub const TWO: System = System {
    name: "mqtt2",
    what: "two mosquittos joined by a bridge, QoS 0",
    relays: 2,
    credit: Some(CREDIT),
    available,
    start: two,
    connect: client,
};

fn available() -> Result<(), String> {
    find("mosquitto").map(drop).ok_or_else(|| "apt-get install mosquitto".into())
}

/// `user root`: a broker that changes its user forgets that it is to die with the bench.
fn broker(port: u16, more: &str) -> io::Result<Daemon> {
    let config = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n\
         set_tcp_nodelay true\nmax_queued_messages 0\nlog_dest stderr\nlog_type error\n{more}"
    );
    Daemon::start("mosquitto", &["-c".into(), "/dev/stdin".into()], &config)?.listening(port)
}

fn one() -> io::Result<Stage> {
    let [port] = free_ports()?;
    let at = format!("127.0.0.1:{port}");
    Ok(Stage { relays: vec![broker(port, "")?], at: [at.clone(), at] })
}

fn two() -> io::Result<Stage> {
    let [first, second] = free_ports()?;
    let (there, back) = (Side::Asks.sends_to(), Side::Answers.sends_to());
    let far = broker(second, "")?;
    let bridge = format!(
        "connection far\naddress 127.0.0.1:{second}\nbridge_protocol_version mqttv311\n\
         cleansession true\nnotifications false\nrestart_timeout 1\n\
         topic {there} out 0\ntopic {back} in 0\n"
    );
    let near = broker(first, &bridge)?;
    let at = [first, second].map(|port| format!("127.0.0.1:{port}"));
    Ok(Stage { relays: vec![near, far], at })
}

fn client(side: Side, at: &str) -> io::Result<Box<dyn Client>> {
    Ok(Box::new(Wire::new(connect(at)?, Mqtt(side))?))
}

struct Mqtt(Side);

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const CLEAN_SESSION: u8 = 2;
/// What a subscription is answered with that was refused.
const REFUSED: u8 = 0x80;

impl Protocol for Mqtt {
    fn hello(&self) -> Vec<u8> {
        let mut connect = Vec::new();
        string("MQTT", &mut connect);
        // Level 4 is 3.1.1; no keep-alive.
        connect.extend([4, CLEAN_SESSION, 0, 0]);
        string(&format!("bench-{}", self.0.sends_to()), &mut connect);
        let mut subscribe = vec![0, 1];
        string(self.0.hears(), &mut subscribe);
        subscribe.push(0);
        let mut out = Vec::new();
        for (kind, body) in [(CONNECT, connect), (SUBSCRIBE, subscribe)] {
            out.push(kind);
            length(body.len(), &mut out);
            out.extend(body);
        }
        out
    }

    fn head(&self, bytes: usize, out: &mut Vec<u8>) {
        let topic = self.0.sends_to();
        out.push(PUBLISH);
        length(2 + topic.len() + bytes, out);
        string(topic, out);
    }

    const TAIL: &'static [u8] = b"";

    fn next(&self, input: &[u8]) -> io::Result<Step> {
        let Some((bytes, begin)) = remaining(input) else { return Ok(Step::Short) };
        let end = begin + bytes;
        if input.len() < end {
            return Ok(Step::Short);
        }
        let last = input[end - 1];
        match input[0] {
            PUBLISH => Ok(Step::Message(begin + 2 + self.0.hears().len()..end, end)),
            CONNACK if last == 0 => Ok(Step::Skip(end)),
            SUBACK if last != REFUSED => Ok(Step::Skip(end)),
            kind => Err(io::Error::other(format!("mqtt: kind {kind:#x}, last byte {last}"))),
        }
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// Seven bits in a byte, the lowest first.
fn length(mut bytes: usize, out: &mut Vec<u8>) {
    while bytes >= 0x80 {
        out.push(bytes as u8 | 0x80);
        bytes >>= 7;
    }
    out.push(bytes as u8);
}

/// The length behind the first byte, and where what it counts begins.
fn remaining(input: &[u8]) -> Option<(usize, usize)> {
    let mut bytes = 0;
    for (i, byte) in input.iter().skip(1).take(4).enumerate() {
        bytes |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((bytes, i + 2));
        }
    }
    None
}
