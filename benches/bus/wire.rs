//! Clients whose server speaks over TCP: one stream, messages in frames of some protocol.
//!
//! What the protocol of a server says is a [`Protocol`]; buffers and system calls are the same for
//! all: small messages leave 64 KiB at a time, large ones in place, and a read takes 256 KiB. That
//! is as good as a client library gets or better, so it is in no server's disfavour.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::{Duration, Instant};

use ringlane_benches::talk::See;

use crate::client::Client;

/// Small messages are kept back up to this.
const OUT_BYTES: usize = 64 << 10;
/// From here on a message is written from where it is.
const LARGE_BYTES: usize = 16 << 10;
const READ_BYTES: usize = 256 << 10;
const IN_BYTES: usize = 1 << 20;
/// A server that takes nothing for so long is given up.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// A server that cannot be reached for so long is given up.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// What stands at the beginning of the input.
pub enum Step {
    /// Not enough to tell.
    Short,
    /// So many bytes that are of no interest.
    Skip(usize),
    /// So many bytes, and what is to be said to them.
    Reply(usize, &'static [u8]),
    /// A message, and where the next frame begins.
    Message(Range<usize>, usize),
}

/// How a server frames messages.
pub trait Protocol {
    /// What is said first.
    fn hello(&self) -> Vec<u8>;
    /// Appends what stands before a message of that length.
    fn head(&self, bytes: usize, out: &mut Vec<u8>);
    /// What stands behind each.
    const TAIL: &'static [u8];
    /// Looks at the input.
    fn next(&self, input: &[u8]) -> io::Result<Step>;
}

/// A client of a protocol.
pub struct Wire<P> {
    protocol: P,
    stream: TcpStream,
    see: See,
    /// Kept back.
    out: Vec<u8>,
    input: Vec<u8>,
    /// Where in `input` the unread bytes are.
    unread: Range<usize>,
    /// What the socket's timeout is.
    within: Duration,
}

/// Connects to where somebody will listen soon.
pub fn connect(address: &str) -> io::Result<TcpStream> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return Ok(stream),
            Err(error) if begun.elapsed() > CONNECT_WITHIN => {
                return Err(io::Error::other(format!("{address}: {error}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

impl<P: Protocol> Wire<P> {
    /// Says hello.
    pub fn new(stream: TcpStream, protocol: P) -> io::Result<Wire<P>> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_WITHIN))?;
        let mut wire = Wire {
            out: protocol.hello(),
            protocol,
            stream,
            see: Box::new(|_| ()),
            input: vec![0; IN_BYTES],
            unread: 0..0,
            within: Duration::ZERO,
        };
        wire.flush()?;
        Ok(wire)
    }

    /// Reads once; false if nothing came in time.
    fn fill(&mut self, within: Duration) -> io::Result<bool> {
        if self.unread.is_empty() {
            self.unread = 0..0;
        }
        if self.input.len() - self.unread.end < READ_BYTES {
            self.input.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.within != within {
            self.stream.set_read_timeout(Some(within))?;
            self.within = within;
        }
        let room = self.input.len().min(self.unread.end + READ_BYTES);
        match self.stream.read(&mut self.input[self.unread.end..room]) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection was closed")),
            Ok(bytes) => {
                self.unread.end += bytes;
                Ok(true)
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Shows the messages that were read whole.
    fn show(&mut self) -> io::Result<usize> {
        let mut shown = 0;
        loop {
            let input = &self.input[self.unread.clone()];
            match self.protocol.next(input)? {
                Step::Short => return Ok(shown),
                Step::Skip(bytes) => self.unread.start += bytes,
                Step::Reply(bytes, reply) => {
                    self.unread.start += bytes;
                    self.out.extend_from_slice(reply);
                    self.flush()?;
                }
                Step::Message(body, end) => {
                    (self.see)(&input[body]);
                    shown += 1;
                    self.unread.start += end;
                }
            }
        }
    }
}

impl<P: Protocol> Client for Wire<P> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.protocol.head(message.len(), &mut self.out);
        if message.len() >= LARGE_BYTES {
            let mut slices =
                [IoSlice::new(&self.out), IoSlice::new(message), IoSlice::new(P::TAIL)];
            write_all(&mut self.stream, &mut slices)?;
            self.out.clear();
            return Ok(());
        }
        self.out.extend_from_slice(message);
        self.out.extend_from_slice(P::TAIL);
        if self.out.len() >= OUT_BYTES {
            return self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn hear(&mut self, see: See) {
        self.see = see;
    }

    fn receive(&mut self, within: Duration) -> io::Result<usize> {
        loop {
            let shown = self.show()?;
            if shown > 0 || !self.fill(within)? {
                return Ok(shown);
            }
        }
    }
}

fn write_all(stream: &mut TcpStream, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match stream.write_vectored(slices)? {
            0 => return Err(ErrorKind::WriteZero.into()),
            bytes => IoSlice::advance_slices(&mut slices, bytes),
        }
    }
    Ok(())
}
