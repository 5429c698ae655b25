//! The standard library's traits: `Read`, `BufRead`, `Write`, `fmt::Write`, comparison, `From`.

use std::fmt;
use std::io::{self, BufRead, Read, Write};

use super::{Edge, Evbuffer};
use crate::segment::Segment;

/// Why a frozen buffer refuses.
fn frozen(edge: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("the buffer's {edge} is frozen"))
}

/// Reads from the front; an error at a file range and while the start is frozen.
///
/// ```
/// # use ringlane_api::Evbuffer;
/// use std::io::Read;
/// let mut buffer = Evbuffer::from(&b"text"[..]);
/// let mut text = String::new();
/// buffer.read_to_string(&mut text)?;
/// assert_eq!(text, "text");
/// # std::io::Result::Ok(())
/// ```
impl Read for Evbuffer {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        self.fill_buf()?;
        Ok(self.remove(to))
    }
}

impl BufRead for Evbuffer {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.is_frozen(Edge::Start) {
            return Err(frozen("start"));
        }
        match self.front() {
            Some(front) if front.file().is_some() => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a file range has no bytes in memory to read",
            )),
            front => Ok(front.map_or(&[], Segment::bytes)),
        }
    }

    fn consume(&mut self, n: usize) {
        self.drain(n);
    }
}

/// Adds to the end; an error while it is frozen.
///
/// ```
/// # use ringlane_api::Evbuffer;
/// use std::io::Write;
/// let mut buffer = Evbuffer::new();
/// write!(buffer, "{} + {}", 1, 2)?;
/// assert_eq!(buffer, b"1 + 2");
/// # std::io::Result::Ok(())
/// ```
impl Write for Evbuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.add(bytes) { Ok(bytes.len()) } else { Err(frozen("end")) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adds to the end; an error while it is frozen.
///
/// ```
/// # use ringlane_api::Evbuffer;
/// use std::fmt::Write;
/// let mut buffer = Evbuffer::new();
/// write!(buffer, "{:04}", 7)?;
/// assert_eq!(buffer, b"0007");
/// # std::fmt::Result::Ok(())
/// ```
impl fmt::Write for Evbuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.add(text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

/// A copy of the bytes.
impl From<&[u8]> for Evbuffer {
    fn from(bytes: &[u8]) -> Evbuffer {
        let mut buffer = Evbuffer::new();
        buffer.add(bytes);
        buffer
    }
}

/// The buffer's bytes are these, and it holds no file range.
impl PartialEq<[u8]> for Evbuffer {
    fn eq(&self, other: &[u8]) -> bool {
        let mut rest = other;
        let same = self.readable().all(|bytes| match rest.split_at_checked(bytes.len()) {
            Some((start, end)) => {
                rest = end;
                start == bytes
            }
            None => false,
        });
        same && rest.is_empty() && self.len() == other.len()
    }
}

impl PartialEq<&[u8]> for Evbuffer {
    fn eq(&self, other: &&[u8]) -> bool {
        *self == **other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Evbuffer {
    fn eq(&self, other: &[u8; N]) -> bool {
        *self == other[..]
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Evbuffer {
    fn eq(&self, other: &&[u8; N]) -> bool {
        *self == other[..]
    }
}

impl PartialEq<Vec<u8>> for Evbuffer {
    fn eq(&self, other: &Vec<u8>) -> bool {
        *self == other[..]
    }
}
