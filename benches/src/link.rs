//! One connection of the generator, and the byte pattern that makes every byte's value known.
//!
//! The invariant: the byte at stream position `p` of a connection is `pattern[(base + p) % P]`
//! with a prime `P`, so a byte that is lost, doubled or swapped between connections shifts all
//! that follow and is seen. Received chunks are compared whole up to `WHOLE_BYTES_MAX`, above
//! that in lines of 64 bytes per 4 KiB and at both ends: enough to see any shift, and cheap beside
//! the copy out of the kernel.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

/// The pattern's period, a prime.
const PERIOD: usize = 65_521;
/// Bytes that one send takes at most unless the message is larger.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// Received chunks up to here are compared byte by byte.
const WHOLE_BYTES_MAX: usize = 4096;
const LINE: usize = 64;

/// Pseudo-random bytes of period `PERIOD`, long enough for a slice of any length asked for.
#[derive(Debug)]
pub struct Pattern(Vec<u8>);

impl Pattern {
    /// A pattern that can give slices of up to `longest` bytes.
    pub fn new(longest: usize) -> Pattern {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let period: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        Pattern(period.iter().copied().cycle().take(PERIOD + longest).collect())
    }

    /// `len` bytes from position `at` of the endless stream.
    pub fn slice(&self, at: u64, len: usize) -> &[u8] {
        let start = (at % PERIOD as u64) as usize;
        &self.0[start..start + len]
    }

    /// Whether `got` is what stands at position `at`.
    pub fn matches(&self, at: u64, got: &[u8]) -> bool {
        let want = self.slice(at, got.len());
        if got.len() <= WHOLE_BYTES_MAX {
            return got == want;
        }
        let last = got.len() - LINE;
        got[last..] == want[last..]
            && (0..last).step_by(WHOLE_BYTES_MAX).all(|i| got[i..i + LINE] == want[i..i + LINE])
    }
}

/// What a connection does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Keeps `depth` messages out and waits for their echo.
    Echo,
    /// Writes without waiting for anything.
    Stream,
}

/// What one [`Link::step`] did.
#[derive(Debug, Default)]
pub struct Step {
    /// Bytes that came back.
    pub received: u64,
    /// Bytes that the kernel took.
    pub sent: u64,
    /// Whether there is more to do without waiting for an event.
    pub again: bool,
}

/// A connection of the generator.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    kind: Kind,
    size: usize,
    base: u64,
    asked: u64,
    sent: u64,
    received: u64,
    stamps: VecDeque<Instant>,
    readable: bool,
    writable: bool,
    /// Whether it stands in the generator's ready list.
    pub queued: bool,
}

impl Link {
    /// A connection over a connected non-blocking socket; `base` tells it from its neighbours.
    pub fn new(fd: OwnedFd, kind: Kind, size: usize, base: u64) -> Link {
        Link {
            fd,
            kind,
            size,
            base,
            asked: 0,
            sent: 0,
            received: 0,
            stamps: VecDeque::new(),
            readable: false,
            writable: true,
            queued: false,
        }
    }

    /// Asks for `n` more messages to go out.
    pub fn ask(&mut self, n: usize) {
        let now = Instant::now();
        self.stamps.extend(std::iter::repeat_n(now, n));
        self.asked += (n * self.size) as u64;
    }

    /// Notes what epoll said.
    pub fn mark(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// One receive and one send at most, so that no connection holds up the others. `done` is
    /// told the latency of each message that is back; while `more`, each asks for the next one.
    pub fn step(
        &mut self,
        pattern: &Pattern,
        scratch: &mut [u8],
        more: bool,
        done: &mut dyn FnMut(u64),
    ) -> io::Result<Step> {
        let mut step = Step::default();
        if self.readable {
            step.received = self.receive(pattern, scratch, more, done)?;
        }
        let wants = match self.kind {
            Kind::Echo => self.sent < self.asked,
            Kind::Stream => more || !self.sent.is_multiple_of(self.size as u64),
        };
        if self.writable && wants {
            step.sent = self.send(pattern)?;
        }
        let unsent = match self.kind {
            Kind::Echo => self.sent < self.asked,
            Kind::Stream => more,
        };
        step.again = self.readable || (self.writable && unsent);
        Ok(step)
    }

    fn receive(
        &mut self,
        pattern: &Pattern,
        scratch: &mut [u8],
        more: bool,
        done: &mut dyn FnMut(u64),
    ) -> io::Result<u64> {
        let n = match recv(self.fd.as_raw_fd(), scratch, MsgFlags::empty()) {
            Err(Errno::EAGAIN) => {
                self.readable = false;
                return Ok(0);
            }
            other => other?,
        };
        if n == 0 {
            return Err(io::Error::other("the server closed a connection early"));
        }
        // epoll(7): after a short read of a stream the next arrival is a new edge.
        self.readable = n == scratch.len();
        if !pattern.matches(self.base + self.received, &scratch[..n]) {
            let at = self.received;
            return Err(io::Error::other(format!("wrong bytes within {n} from position {at}")));
        }
        let size = self.size as u64;
        let before = self.received / size;
        self.received += n as u64;
        if self.received > self.sent {
            return Err(io::Error::other("the server sent more than it was sent"));
        }
        let whole = (self.received / size - before) as usize;
        if whole > 0 {
            let now = Instant::now();
            for stamp in self.stamps.drain(..whole) {
                done((now - stamp).as_nanos() as u64);
            }
            if more {
                self.stamps.extend(std::iter::repeat_n(now, whole));
                self.asked += whole as u64 * size;
            }
        }
        Ok(n as u64)
    }

    fn send(&mut self, pattern: &Pattern) -> io::Result<u64> {
        let size = self.size as u64;
        let len = match self.kind {
            Kind::Echo => (self.asked - self.sent).min(size.max(SEND_BYTES_MAX as u64)),
            Kind::Stream => size - self.sent % size,
        };
        let bytes = pattern.slice(self.base + self.sent, len as usize);
        match send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EAGAIN) => {
                self.writable = false;
                Ok(0)
            }
            Ok(n) => {
                self.writable = n as u64 == len;
                self.sent += n as u64;
                Ok(n as u64)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether every byte asked for went out and, for an echo, came back.
    pub fn settled(&self) -> bool {
        match self.kind {
            Kind::Echo => self.received == self.asked,
            Kind::Stream => self.sent.is_multiple_of(self.size as u64),
        }
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Echo or stream.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Gives up the socket.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_by_one_byte_is_seen_in_chunks_of_every_size() {
        let pattern = Pattern::new(1 << 18);
        for len in [1 << 6, 4096, 4097, 1 << 18] {
            let good = pattern.slice(70_000, len).to_vec();
            assert!(pattern.matches(70_000, &good));
            assert!(!pattern.matches(70_001, &good));
        }
    }
}
