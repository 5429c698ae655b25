//! NATS: `nats-server` from Debian, one, or two joined by a route; a client of our own that speaks
//! its text protocol and does no more than it must. Its server cuts a subscriber off that is 64 MiB
//! behind, so the load waits for the far side.

use std::io;

use crate::client::{Client, Side};
use crate::daemon::{Daemon, find, free_ports};
use crate::system::{CREDIT, Stage, System};
use crate::wire::{Protocol, Step, Wire, connect};

pub const ONE: System = System {
    name: "nats1",
    what: "one nats-server",
    relays: 1,
    credit: Some(CREDIT),
    available,
    start: one,
    connect: client,
};

pub const TWO: System = System {
    name: "nats2",
    what: "two nats-servers joined by a route",
    relays: 2,
    credit: Some(CREDIT),
    available,
    start: two,
    connect: client,
};

fn available() -> Result<(), String> {
    find("nats-server").map(drop).ok_or_else(|| "apt-get install nats-server".into())
}

fn server(port: u16, more: &[String]) -> io::Result<Daemon> {
    let mut arguments: Vec<String> =
        ["-a", "127.0.0.1", "-p", &port.to_string()].map(String::from).to_vec();
    arguments.extend_from_slice(more);
    Daemon::start("nats-server", &arguments, "")?.listening(port)
}

fn one() -> io::Result<Stage> {
    let [port] = free_ports()?;
    let at = format!("127.0.0.1:{port}");
    Ok(Stage { relays: vec![server(port, &[])?], at: [at.clone(), at] })
}

fn two() -> io::Result<Stage> {
    let [first, second, first_route, second_route] = free_ports()?;
    let cluster = |route: u16| {
        let url = format!("nats://127.0.0.1:{route}");
        ["--cluster_name".into(), "bench".into(), "--cluster".into(), url]
    };
    let near = server(first, &cluster(first_route))?;
    let mut more = cluster(second_route).to_vec();
    more.extend(["--routes".into(), format!("nats://127.0.0.1:{first_route}")]);
    let far = server(second, &more)?;
    let at = [first, second].map(|port| format!("127.0.0.1:{port}"));
    Ok(Stage { relays: vec![near, far], at })
}

fn client(side: Side, at: &str) -> io::Result<Box<dyn Client>> {
    Ok(Box::new(Wire::new(connect(at)?, Nats::new(side))?))
}

struct Nats {
    side: Side,
    publish: String,
    /// What stands before each message for us, but for its length.
    message: String,
}

impl Nats {
    fn new(side: Side) -> Nats {
        let publish = format!("PUB {} ", side.sends_to());
        Nats { side, publish, message: format!("MSG {} 1 ", side.hears()) }
    }
}

const END: &[u8] = b"\r\n";

impl Protocol for Nats {
    fn hello(&self) -> Vec<u8> {
        let options = r#"{"verbose":false,"pedantic":false,"lang":"raw","version":"1"}"#;
        format!("CONNECT {options}\r\nSUB {} 1\r\n", self.side.hears()).into_bytes()
    }

    fn head(&self, bytes: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.publish.as_bytes());
        decimal(bytes, out);
        out.extend_from_slice(END);
    }

    const TAIL: &'static [u8] = END;

    fn next(&self, input: &[u8]) -> io::Result<Step> {
        if let Some(rest) = input.strip_prefix(self.message.as_bytes()) {
            let Some((bytes, digits)) = number(rest) else { return Ok(Step::Short) };
            let begin = self.message.len() + digits + END.len();
            let body = begin..begin + bytes;
            let end = body.end + END.len();
            return Ok(if input.len() < end { Step::Short } else { Step::Message(body, end) });
        }
        let Some(end) = input.windows(2).position(|two| two == END) else {
            return Ok(Step::Short);
        };
        let (line, next) = (&input[..end], end + END.len());
        match line {
            b"PING" => Ok(Step::Reply(next, b"PONG\r\n")),
            b"PONG" | b"+OK" => Ok(Step::Skip(next)),
            _ if line.starts_with(b"INFO ") => Ok(Step::Skip(next)),
            _ => Err(io::Error::other(format!("nats: {}", String::from_utf8_lossy(line)))),
        }
    }
}

/// The number at the beginning of `text`, and of how many digits it is, once its line has ended.
fn number(text: &[u8]) -> Option<(usize, usize)> {
    let digits = text.iter().position(|byte| !byte.is_ascii_digit())?;
    let value =
        text[..digits].iter().fold(0, |value, digit| value * 10 + usize::from(digit - b'0'));
    Some((value, digits))
}

fn decimal(mut value: usize, out: &mut Vec<u8>) {
    let (mut digits, mut at) = ([0; 20], 20);
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            out.extend_from_slice(&digits[at..]);
            return;
        }
    }
}
