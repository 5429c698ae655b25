//! Memory as it walks the corridor: blocks that go home, and the 32-byte descriptors of them.
//!
//! ```text
//!   Home (LIFO pool) --take--> Block --lift--> Box<[u8]> --> kernel
//!        ^                       ^                              |
//!        +------- drop ----------+---------- lower -------------+
//! ```
//!
//! A [`Block`] is owned memory: it may outlive the base and the ring, and it returns to its
//! [`Home`] when it is dropped. `lift` takes the memory out, so that the reactor can turn it raw
//! for the kernel; `lower` puts it back. While lifted the block holds no memory at all, so nobody
//! keeps a `Box` over bytes that the kernel writes.

mod home;

use std::fmt;
use std::rc::Rc;

use bytes::Bytes;

pub use home::{Block, Home, Lease};

use crate::fd::Fd;

/// Memory that belongs to somebody else and is given back by drop: shared-memory rings,
/// registered regions.
pub trait Lent {
    /// The bytes.
    fn bytes(&self) -> &[u8];
    /// Gives them back to their owner.
    fn give_back(self: Box<Self>);
}

/// A [`Lent`] piece of memory; dropping it gives it back.
pub struct Loan(Option<Box<dyn Lent>>);

impl Loan {
    /// Wraps lent memory.
    pub fn new(lent: Box<dyn Lent>) -> Loan {
        Loan(Some(lent))
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |lent| lent.bytes())
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(lent) = self.0.take() {
            lent.give_back();
        }
    }
}

enum Mem {
    Block(Block),
    Loan(Loan),
    Shared(Rc<dyn AsRef<[u8]>>),
    Own(Box<[u8]>),
    File { file: Fd, offset: u64 },
}

/// A range of bytes in some memory, or of a file. 32 bytes, never empty inside an `Evbuffer`.
pub struct Segment {
    mem: Mem,
    off: u32,
    len: u32,
}

const _: () = assert!(std::mem::size_of::<Segment>() <= 32, "a segment is half a cache line");

impl Segment {
    /// The first `len` bytes of a block.
    ///
    /// # Panics
    /// Panics if the block is shorter.
    pub fn from_block(block: Block, len: usize) -> Segment {
        assert!(len <= block.bytes().len(), "a segment lies inside its block");
        Segment { mem: Mem::Block(block), off: 0, len: len as u32 }
    }

    /// Bytes of `len` out of owned memory that may have room behind them.
    ///
    /// # Panics
    /// Panics if the memory is shorter, or 4 GiB or longer.
    pub fn from_own(mem: Box<[u8]>, len: usize) -> Segment {
        assert!(len <= mem.len() && mem.len() <= u32::MAX as usize, "a segment is under 4 GiB");
        Segment { mem: Mem::Own(mem), off: 0, len: len as u32 }
    }

    /// A copy of `bytes`.
    pub fn copied(bytes: &[u8]) -> Segment {
        Segment::from_own(bytes.into(), bytes.len())
    }

    /// All of some shared memory; its owner is dropped when the last segment over it goes.
    ///
    /// # Panics
    /// Panics if it is 4 GiB or longer.
    pub fn from_shared(mem: Rc<dyn AsRef<[u8]>>) -> Segment {
        let len = (*mem).as_ref().len();
        assert!(len <= u32::MAX as usize, "a segment is under 4 GiB");
        Segment { mem: Mem::Shared(mem), off: 0, len: len as u32 }
    }

    /// All of some lent memory.
    ///
    /// # Panics
    /// Panics if it is 4 GiB or longer.
    pub fn from_loan(loan: Loan) -> Segment {
        let len = loan.bytes().len();
        assert!(len <= u32::MAX as usize, "a segment is under 4 GiB");
        Segment { mem: Mem::Loan(loan), off: 0, len: len as u32 }
    }

    /// A range of a file, sent without passing through user memory. At most `u32::MAX` bytes:
    /// longer ranges are several segments.
    pub fn from_file(file: Fd, offset: u64, len: u32) -> Segment {
        Segment { mem: Mem::File { file, offset }, off: 0, len }
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing is left in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes; empty for a file range (see [`Segment::file`]).
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let all: &[u8] = match &self.mem {
            Mem::Block(block) => block.bytes(),
            Mem::Loan(loan) => loan.bytes(),
            Mem::Shared(shared) => (**shared).as_ref(),
            Mem::Own(own) => own,
            Mem::File { .. } => return &[],
        };
        &all[self.off as usize..self.off as usize + self.len as usize]
    }

    /// The bytes, to write to, where this segment is their only owner.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let (off, len) = (self.off as usize, self.len as usize);
        self.whole_mut().map(|all| &mut all[off..off + len])
    }

    /// The file, the offset and the length, if this is a file range.
    pub fn file(&self) -> Option<(&Fd, u64, u32)> {
        match &self.mem {
            Mem::File { file, offset } => Some((file, offset + u64::from(self.off), self.len)),
            _ => None,
        }
    }

    /// Whether its memory belongs to the user, so that dropping it may run the user's code.
    /// Such a segment is never dropped while the base is borrowed.
    #[inline]
    pub fn foreign(&self) -> bool {
        matches!(self.mem, Mem::Shared(_) | Mem::Loan(_))
    }

    /// Takes `n` bytes off the front.
    ///
    /// # Panics
    /// Panics if it has fewer.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len as usize, "advance stays inside the segment");
        self.off += n as u32;
        self.len -= n as u32;
    }

    /// Cuts it to its first `n` bytes; a longer `n` changes nothing.
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len.min(u32::try_from(n).unwrap_or(u32::MAX));
    }

    /// Bytes that may still be written behind the end (see [`Segment::extend_from`]).
    pub fn room(&self) -> usize {
        let end = (self.off + self.len) as usize;
        match &self.mem {
            Mem::Block(block) => block.bytes().len() - end,
            Mem::Own(own) => own.len() - end,
            _ => 0,
        }
    }

    /// Bytes that may still be written before the front.
    pub fn headroom(&self) -> usize {
        match &self.mem {
            Mem::Block(_) | Mem::Own(_) => self.off as usize,
            _ => 0,
        }
    }

    /// Copies as much of `bytes` as there is room behind the end; returns how much.
    #[inline]
    pub fn extend_from(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        let end = (self.off + self.len) as usize;
        if n > 0
            && let Some(all) = self.whole_mut()
        {
            all[end..end + n].copy_from_slice(&bytes[..n]);
            self.len += n as u32;
        }
        n
    }

    /// Copies as much of the *end* of `bytes` as there is room before the front; returns how much.
    pub fn prepend_from(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.headroom());
        let off = self.off as usize;
        if n > 0
            && let Some(all) = self.whole_mut()
        {
            all[off - n..off].copy_from_slice(&bytes[bytes.len() - n..]);
            self.off -= n as u32;
            self.len += n as u32;
        }
        n
    }

    /// The room behind the end, to be written and then claimed with [`Segment::grow`].
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let end = (self.off + self.len) as usize;
        match self.whole_mut() {
            Some(all) => &mut all[end..],
            None => &mut [],
        }
    }

    /// Claims `n` bytes of the room behind the end.
    ///
    /// # Panics
    /// Panics if there is less room.
    pub fn grow(&mut self, n: usize) {
        assert!(n <= self.room(), "grow stays inside the memory");
        self.len += n as u32;
    }

    /// Moves the bytes' start to `off` inside the memory, for a reservation at the front.
    pub(crate) fn place_at_end(&mut self) {
        let all = self.len as usize + self.room() + self.headroom();
        debug_assert!(self.len == 0, "only an empty segment is placed");
        if !matches!(self.mem, Mem::File { .. }) {
            self.off = all as u32;
        }
    }

    /// Splits the first `n` bytes off. Owned memory is copied where that is small, else both
    /// halves share it from now on.
    pub fn split_front(&mut self, n: usize) -> Segment {
        assert!(n <= self.len as usize, "split stays inside the segment");
        let front = match &self.mem {
            Mem::File { file, offset } => Segment {
                mem: Mem::File { file: file.clone(), offset: *offset },
                off: self.off,
                len: n as u32,
            },
            Mem::Shared(shared) => {
                Segment { mem: Mem::Shared(Rc::clone(shared)), off: self.off, len: n as u32 }
            }
            _ if n <= crate::limits::SPLIT_COPY_BYTES_MAX => Segment::copied(&self.bytes()[..n]),
            _ => {
                let shared = self.share();
                Segment { mem: Mem::Shared(shared), off: self.off, len: n as u32 }
            }
        };
        self.advance(n);
        front
    }

    /// A second segment over the same bytes, without a copy.
    pub fn share_clone(&mut self) -> Segment {
        match &self.mem {
            Mem::File { file, offset } => Segment {
                mem: Mem::File { file: file.clone(), offset: *offset },
                off: self.off,
                len: self.len,
            },
            _ => {
                let shared = self.share();
                Segment { mem: Mem::Shared(shared), off: self.off, len: self.len }
            }
        }
    }

    /// Turns the memory into shared memory in place.
    fn share(&mut self) -> Rc<dyn AsRef<[u8]>> {
        struct Lend(Loan);
        impl AsRef<[u8]> for Lend {
            fn as_ref(&self) -> &[u8] {
                self.0.bytes()
            }
        }
        let mem = std::mem::replace(&mut self.mem, Mem::Own(Box::default()));
        let shared: Rc<dyn AsRef<[u8]>> = match mem {
            Mem::Shared(shared) => shared,
            Mem::Block(block) => Rc::new(block),
            Mem::Loan(loan) => Rc::new(Lend(loan)),
            Mem::Own(own) => Rc::new(own),
            Mem::File { .. } => unreachable!("a file range is cloned, not shared"),
        };
        self.mem = Mem::Shared(Rc::clone(&shared));
        shared
    }

    fn whole_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.mem {
            Mem::Block(block) => Some(block.bytes_mut()),
            Mem::Own(own) => Some(own),
            _ => None,
        }
    }

    /// Charges a received block to `lease`. Past the lease's cap, or when its home is scarce, the
    /// bytes are copied out and the block goes home at once.
    #[inline]
    pub fn charge(&mut self, lease: &Rc<Lease>) {
        let Mem::Block(block) = &mut self.mem else { return };
        if !block.charge(lease) {
            self.copy_out();
        }
    }

    /// Copies the bytes into memory of their own, so that a pooled block goes home.
    pub fn copy_out(&mut self) {
        if matches!(self.mem, Mem::Block(_) | Mem::Loan(_)) {
            *self = Segment::copied(self.bytes());
        }
    }

    /// Its bytes, for another thread: its own memory as it is, anything else copied. Empty for a
    /// file range.
    pub fn into_bytes(self) -> Bytes {
        let (off, len) = (self.off as usize, self.len as usize);
        match self.mem {
            Mem::Own(own) => Bytes::from(own).slice(off..off + len),
            _ => Bytes::copy_from_slice(self.bytes()),
        }
    }

    /// Whether it stands on a pooled block.
    pub fn is_block(&self) -> bool {
        matches!(self.mem, Mem::Block(_))
    }

    /// The start of its bytes and their length, for the kernel to read.
    pub fn raw(&self) -> (*const u8, usize) {
        let bytes = self.bytes();
        (bytes.as_ptr(), bytes.len())
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.mem {
            Mem::Block(_) => "block",
            Mem::Loan(_) => "loan",
            Mem::Shared(_) => "shared",
            Mem::Own(_) => "own",
            Mem::File { .. } => "file",
        };
        write!(f, "Segment({kind}, {} B)", self.len)
    }
}

/// The segments of one send, in order. One segment needs no allocation; the transport recycles
/// `rest`.
#[derive(Debug)]
pub struct Parts {
    /// The first segment.
    pub first: Segment,
    /// Those behind it.
    pub rest: Vec<Segment>,
}

impl Parts {
    /// Bytes in all of them.
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Segment::len).sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many segments.
    pub fn count(&self) -> usize {
        1 + self.rest.len()
    }

    /// The segments in order.
    pub fn iter(&self) -> impl Iterator<Item = &Segment> {
        std::iter::once(&self.first).chain(self.rest.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_its_cap_a_lease_copies_and_the_block_goes_home() {
        let home = Home::new(64, 8);
        let lease = Lease::new(1);
        let mut kept = Segment::from_block(home.take(), 3);
        kept.charge(&lease);
        let mut copied = Segment::from_block(home.take(), 5);
        copied.charge(&lease);
        assert_eq!((lease.held(), home.out()), (1, 1));
        assert!(kept.is_block() && !copied.is_block());
        drop(kept);
        assert_eq!((lease.held(), home.out()), (0, 0));
    }

    #[test]
    fn the_halves_of_a_split_segment_hold_the_same_bytes_as_before() {
        let home = Home::new(8192, 8);
        let mut block = home.take();
        for (i, byte) in block.bytes_mut().iter_mut().enumerate() {
            *byte = i as u8;
        }
        let mut back = Segment::from_block(block, 8192);
        let front = back.split_front(5000);
        assert_eq!((front.len(), back.len()), (5000, 3192));
        assert_eq!(front.bytes()[4999], (4999 % 256) as u8);
        assert_eq!(back.bytes()[0], (5000 % 256) as u8);
        drop(back);
        assert_eq!(home.out(), 1);
        drop(front);
        assert_eq!(home.out(), 0);
    }
}
