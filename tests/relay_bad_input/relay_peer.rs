//! One who plays the relay of a host.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ringlane::Evbuffer;
use ringlane::frame::{Decoder, Frame, Leave};
use ringlane::relay::handshake::{Handshake, Identity, Refusal, Step, random};

use super::world::PATIENCE;

pub struct RelayPeer {
    pub stream: TcpStream,
    input: Evbuffer,
    decoder: Decoder,
}

/// A connection to a port of this machine.
pub fn dial(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Everything until the other side ends the connection.
pub fn rest(stream: &mut impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) => assert!(is_end(&error), "the connection is not closed: {error}"),
    }
    all
}

fn is_end(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

impl RelayPeer {
    /// Dials, and shows that it knows the secret, or does not.
    pub fn shake(port: u16, me: &Identity, wanted: &str) -> Result<RelayPeer, Refusal> {
        let mut stream = dial(port);
        let mut said = Vec::new();
        let mut handshake = Handshake::dial(me, wanted, random().unwrap(), &mut said);
        let mut input = Evbuffer::new();
        loop {
            stream.write_all(&said).unwrap();
            said.clear();
            let mut bytes = [0; 4096];
            let n = stream.read(&mut bytes).expect("an answer");
            assert!(n > 0, "the relay says why");
            input.add(&bytes[..n]);
            match handshake.on_bytes(me, |_| true, &mut input, &mut said)? {
                Step::Wait => {}
                Step::Known(_) => {
                    stream.write_all(&said).unwrap();
                    return Ok(RelayPeer { stream, input, decoder: Decoder::new() });
                }
            }
        }
    }

    pub fn say(&mut self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// Waits for a frame that is wanted; pings are answered meanwhile, others passed over.
    pub fn hear<T>(&mut self, mut wanted: impl FnMut(&Frame<'_>) -> Option<T>) -> T {
        self.hear_or_end(&mut wanted).expect("the link is not closed before")
    }

    /// The same; nothing if the link is closed first.
    pub fn hear_or_end<T>(&mut self, wanted: &mut dyn FnMut(&Frame<'_>) -> Option<T>) -> Option<T> {
        loop {
            let mut pings = Vec::new();
            let mut found = None;
            while let Some(frame) = self.decoder.next(&mut self.input).expect("relays say frames") {
                if let Frame::Ping { id } = frame {
                    Frame::Pong { id }.encode(&mut pings);
                }
                found = found.or_else(|| wanted(&frame));
                if found.is_some() {
                    break;
                }
            }
            self.decoder.settle(&mut self.input);
            let _ = self.stream.write_all(&pings);
            if found.is_some() {
                return found;
            }
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(n) => self.input.add(&bytes[..n]),
                Err(error) if is_end(&error) => return None,
                Err(error) => panic!("nothing comes: {error}"),
            };
        }
    }

    /// Waits for the end of the link; what the relay said of it.
    pub fn ends(&mut self) -> Option<Leave> {
        let mut bye = None;
        let end: Option<()> = self.hear_or_end(&mut |frame| {
            if let Frame::Bye { why, .. } = frame {
                bye = Some(*why);
            }
            None
        });
        assert!(end.is_none());
        bye
    }

    /// The link still stands: a ping is answered.
    pub fn is_up(&mut self) {
        self.say(&Frame::Ping { id: 4711 });
        self.hear(|frame| matches!(frame, Frame::Pong { id: 4711 }).then_some(()));
    }

    /// Says what a relay may be too tired to hear.
    pub fn blurt(&mut self, bytes: &[u8]) {
        self.stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = self.stream.write_all(bytes);
    }
}
