//! The byte queue: a chain of segments that is moved, not copied.
//!
//! ```text
//!   Start                                                        End
//!   | seg: block | seg: shared | seg: file range | seg: own ....room |
//!     drain, remove, readln, prepend                 add, append, push
//! ```
//!
//! Invariant: `len` is the sum of the segments' lengths and no segment is empty.
//!
//! Two kinds of verbs. The user's (`add`, `drain`, `append`, …) respect [`Evbuffer::freeze`] and
//! run the callbacks of [`Evbuffer::on_change`] before they return. The machine's (`push`,
//! `push_front`, `pop_front`, `drain_into`, `charge_residue`) do neither: they work on frozen
//! ends, and the changes they make are told to the callbacks by the next verb of the user or by
//! [`Evbuffer::take_pending`].
//!
//! A file range has no bytes in memory. Verbs that look at bytes or copy them stop in front of
//! the first one; verbs that move or drop segments pass over it.

mod add;
mod line;
mod reference;
mod search;
mod std_traits;
mod take;
#[cfg(test)]
mod tests;
mod view;
mod watch;

use std::collections::VecDeque;
use std::fmt;

use crate::segment::Segment;

pub use line::Eol;
pub use watch::{ChangeId, Edge, EvbufferChange, Pending};

/// A queue of bytes made of segments.
///
/// ```
/// use ringlane_api::Evbuffer;
/// let mut a = Evbuffer::new();
/// a.add(b"hello ");
/// let mut b = Evbuffer::new();
/// b.add(b"world");
/// a.append(&mut b);
/// a.drain(1);
/// assert_eq!(a.to_vec(), b"ello world");
/// assert!(b.is_empty());
/// ```
#[derive(Default)]
pub struct Evbuffer {
    chain: VecDeque<Segment>,
    len: usize,
    extra: Option<Box<watch::Extra>>,
}

const _: () = assert!(
    std::mem::size_of::<Evbuffer>() <= 48,
    "two buffers stand in every connection, whose budget is 400 bytes"
);

impl Evbuffer {
    /// An empty buffer; allocates nothing.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// const EMPTY: Evbuffer = Evbuffer::new();
    /// assert!(EMPTY.is_empty());
    /// ```
    pub const fn new() -> Evbuffer {
        Evbuffer { chain: VecDeque::new(), len: 0, extra: None }
    }

    /// Bytes in it, those of file ranges included.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// assert_eq!(Evbuffer::from(&b"four"[..]).len(), 4);
    /// ```
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// assert!(!Evbuffer::from(&b"four"[..]).is_empty());
    /// ```
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The segments in order.
    ///
    /// ```
    /// # use ringlane_api::{Evbuffer, segment::Segment};
    /// let mut buffer = Evbuffer::new();
    /// buffer.push(Segment::copied(b"ab"));
    /// buffer.push(Segment::copied(b"cde"));
    /// assert_eq!(buffer.segments().map(Segment::len).collect::<Vec<_>>(), [2, 3]);
    /// ```
    pub fn segments(
        &self,
    ) -> impl ExactSizeIterator<Item = &Segment> + DoubleEndedIterator + Clone {
        self.chain.iter()
    }

    /// Appends a segment; an empty one is dropped. Machine's verb.
    ///
    /// ```
    /// # use ringlane_api::{Evbuffer, segment::Segment};
    /// let mut buffer = Evbuffer::new();
    /// buffer.push(Segment::copied(b"ab"));
    /// assert_eq!(buffer.front().map(Segment::len), Some(2));
    /// ```
    #[inline]
    pub fn push(&mut self, segment: Segment) {
        let n = segment.len();
        if n > 0 {
            self.chain.push_back(segment);
            self.grown(n);
        }
    }

    /// Puts a segment in front; an empty one is dropped. Machine's verb.
    ///
    /// ```
    /// # use ringlane_api::{Evbuffer, segment::Segment};
    /// let mut buffer = Evbuffer::new();
    /// buffer.push(Segment::copied(b"b"));
    /// buffer.push_front(Segment::copied(b"a"));
    /// assert_eq!(buffer.to_vec(), b"ab");
    /// ```
    #[inline]
    pub fn push_front(&mut self, segment: Segment) {
        let n = segment.len();
        if n > 0 {
            self.chain.push_front(segment);
            self.grown(n);
        }
    }

    /// Takes the first segment out. Machine's verb.
    ///
    /// ```
    /// # use ringlane_api::{Evbuffer, segment::Segment};
    /// let mut buffer = Evbuffer::new();
    /// buffer.push(Segment::copied(b"ab"));
    /// assert_eq!(buffer.pop_front().map(|s| s.len()), Some(2));
    /// assert!(buffer.pop_front().is_none());
    /// ```
    #[inline]
    pub fn pop_front(&mut self) -> Option<Segment> {
        let segment = self.chain.pop_front()?;
        self.shrunk(segment.len());
        Some(segment)
    }

    /// The first segment.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let buffer = Evbuffer::from(&b"four"[..]);
    /// assert_eq!(buffer.front().map(|segment| segment.bytes()), Some(&b"four"[..]));
    /// ```
    #[inline]
    pub fn front(&self) -> Option<&Segment> {
        self.chain.front()
    }

    /// Drops up to `n` bytes off the front and says how many. Segments whose drop may run the
    /// user's code go to `dead` instead, for the caller to drop where that is safe. Machine's
    /// verb.
    ///
    /// ```
    /// # use ringlane_api::{Evbuffer, segment::Segment};
    /// let mut buffer = Evbuffer::new();
    /// buffer.push(Segment::from_shared(std::rc::Rc::new("user")));
    /// let mut dead = Vec::new();
    /// assert_eq!(buffer.drain_into(9, &mut dead), 4);
    /// assert_eq!(dead.len(), 1);
    /// ```
    pub fn drain_into(&mut self, n: usize, dead: &mut Vec<Segment>) -> usize {
        self.drop_front(n, &mut |segment| {
            if segment.foreign() {
                dead.push(segment);
            }
        })
    }

    /// Copies the bytes out of pooled blocks if the whole buffer holds few, so that they do not
    /// pin 16 KiB. Machine's verb.
    ///
    /// ```
    /// # use ringlane_api::{Evbuffer, segment::{Home, Segment}};
    /// let home = Home::new(4096, 1);
    /// let mut buffer = Evbuffer::new();
    /// buffer.push(Segment::from_block(home.take(), 3));
    /// buffer.charge_residue();
    /// assert_eq!((home.out(), buffer.len()), (0, 3));
    /// ```
    #[inline]
    pub fn charge_residue(&mut self) {
        if self.len > 0 && self.len < crate::limits::RESIDUE_BYTES_MAX {
            self.chain.iter_mut().for_each(Segment::copy_out);
        }
    }

    /// Gives back memory that an empty or shrunken buffer keeps for its next bytes.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"burst");
    /// buffer.drain(5);
    /// buffer.trim();
    /// assert!(buffer.is_empty());
    /// ```
    pub fn trim(&mut self) {
        self.chain.shrink_to_fit();
    }

    /// Drops up to `n` bytes off the front, whole segments through `bury`.
    fn drop_front(&mut self, n: usize, bury: &mut dyn FnMut(Segment)) -> usize {
        let n = n.min(self.len);
        let mut left = n;
        while left > 0 {
            let front = self.chain.front_mut().expect("the length says there is a segment");
            if front.len() > left {
                front.advance(left);
                self.shrunk(left);
                break;
            }
            left -= front.len();
            bury(self.pop_front().expect("there is a front"));
        }
        n
    }

    #[inline]
    fn grown(&mut self, n: usize) {
        self.len += n;
        if let Some(extra) = &mut self.extra {
            extra.note(n, 0);
        }
    }

    #[inline]
    fn shrunk(&mut self, n: usize) {
        self.len -= n;
        if let Some(extra) = &mut self.extra {
            extra.note(0, n);
        }
    }

    /// The segments in front of the first file range.
    fn readable(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.chain.iter().take_while(|segment| segment.file().is_none()).map(Segment::bytes)
    }
}

impl fmt::Debug for Evbuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evbuffer").field("len", &self.len).field("chain", &self.chain).finish()
    }
}
