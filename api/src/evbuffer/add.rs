//! Bytes that come in: copied into the room at an end, or moved as segments.

use std::mem;
use std::rc::Rc;

use super::{Edge, Evbuffer};
use crate::limits::BLOCK_BYTES;
use crate::segment::{Home, Segment};

/// Bytes in the smallest chunk that copied bytes go to.
const CHUNK_BYTES_MIN: usize = 512;

/// Bytes in one segment at most, well inside its 32-bit length.
pub(super) const SEGMENT_BYTES_MAX: usize = 1 << 30;

impl Evbuffer {
    /// Copies `bytes` to the end; `false` if the end is frozen.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// assert!(buffer.add(b"bytes"));
    /// assert_eq!(buffer.len(), 5);
    /// ```
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) -> bool {
        if self.is_frozen(Edge::End) {
            return false;
        }
        let rest = self.fill_tail(bytes);
        for piece in rest.chunks(SEGMENT_BYTES_MAX) {
            let chunk = self.chunk(piece);
            self.push(chunk);
        }
        self.settle();
        true
    }

    /// Copies `bytes` to the end, into blocks of `home` instead of fresh memory, so that a steady
    /// flow allocates nothing; `false` if the end is frozen.
    ///
    /// ```
    /// # use ringlane_api::{Evbuffer, segment::Home};
    /// let home = Home::new(4096, 8);
    /// let mut buffer = Evbuffer::new();
    /// buffer.add_in(&home, b"a");
    /// buffer.add_in(&home, b"b");
    /// assert_eq!((home.out(), buffer.len()), (1, 2));
    /// ```
    #[inline]
    pub fn add_in(&mut self, home: &Rc<Home>, bytes: &[u8]) -> bool {
        if self.is_frozen(Edge::End) {
            return false;
        }
        let mut rest = self.fill_tail(bytes);
        while !rest.is_empty() {
            let mut segment = Segment::from_block(home.take(), 0);
            let n = segment.extend_from(rest);
            assert!(n > 0, "a home's blocks are not empty");
            rest = &rest[n..];
            self.push(segment);
        }
        self.settle();
        true
    }

    /// Copies `bytes` before the front; `false` if the start is frozen.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"body");
    /// buffer.prepend(b"head ");
    /// assert_eq!(buffer.to_vec(), b"head body");
    /// ```
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        if self.is_frozen(Edge::Start) {
            return false;
        }
        let fit = self.chain.front_mut().map_or(0, |front| front.prepend_from(bytes));
        self.grown(fit);
        let rest = &bytes[..bytes.len() - fit];
        for piece in rest.rchunks(SEGMENT_BYTES_MAX) {
            let mem = vec![0; piece.len().max(CHUNK_BYTES_MIN)].into_boxed_slice();
            let mut segment = Segment::from_own(mem, 0);
            segment.place_at_end();
            segment.prepend_from(piece);
            self.push_front(segment);
        }
        self.settle();
        true
    }

    /// Moves all of `source` to the end, without a copy; `false` if this end or the source's
    /// start is frozen.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let (mut a, mut b) = (Evbuffer::new(), Evbuffer::new());
    /// b.add(b"moved");
    /// assert!(a.append(&mut b));
    /// assert_eq!((a.len(), b.len()), (5, 0));
    /// ```
    pub fn append(&mut self, source: &mut Evbuffer) -> bool {
        if self.is_frozen(Edge::End) || source.is_frozen(Edge::Start) {
            return false;
        }
        self.splice(source);
        source.settle();
        self.settle();
        true
    }

    /// Moves up to `n` bytes from the front of `source` to the end, without a copy but for the
    /// small half of a segment that is cut; says how many.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let (mut a, mut b) = (Evbuffer::new(), Evbuffer::new());
    /// b.add(b"head|body");
    /// assert_eq!(a.append_n(&mut b, 5), 5);
    /// assert_eq!((a.to_vec(), b.to_vec()), (b"head|".to_vec(), b"body".to_vec()));
    /// ```
    pub fn append_n(&mut self, source: &mut Evbuffer, n: usize) -> usize {
        if self.is_frozen(Edge::End) || source.is_frozen(Edge::Start) {
            return 0;
        }
        let n = n.min(source.len);
        if n == source.len {
            self.splice(source);
        } else {
            let mut left = n;
            while left > 0 {
                let front = source.chain.front_mut().expect("the length says there is a segment");
                if front.len() > left {
                    let part = front.split_front(left);
                    source.shrunk(left);
                    self.push(part);
                    break;
                }
                left -= front.len();
                let whole = source.pop_front().expect("there is a front");
                self.push(whole);
            }
        }
        source.settle();
        self.settle();
        n
    }

    /// Moves all of `source` before the front, without a copy; `false` if this start or the
    /// source's is frozen.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut body = Evbuffer::from(&b"body"[..]);
    /// let mut head = Evbuffer::from(&b"head "[..]);
    /// assert!(body.prepend_buffer(&mut head));
    /// assert_eq!(body, b"head body");
    /// ```
    pub fn prepend_buffer(&mut self, source: &mut Evbuffer) -> bool {
        if self.is_frozen(Edge::Start) || source.is_frozen(Edge::Start) {
            return false;
        }
        let n = source.len;
        source.chain.append(&mut self.chain);
        mem::swap(&mut self.chain, &mut source.chain);
        source.shrunk(n);
        self.grown(n);
        source.settle();
        self.settle();
        true
    }

    /// Moves all segments. Where this chain is empty the two are swapped, so that both keep the
    /// room they have.
    #[inline]
    fn splice(&mut self, source: &mut Evbuffer) {
        let n = source.len;
        if self.chain.is_empty() {
            mem::swap(&mut self.chain, &mut source.chain);
        } else {
            self.chain.append(&mut source.chain);
        }
        source.shrunk(n);
        self.grown(n);
    }

    /// Copies what fits behind the last segment; returns the rest.
    #[inline]
    fn fill_tail<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(tail) = self.chain.back_mut() else { return bytes };
        let n = tail.extend_from(bytes);
        self.grown(n);
        &bytes[n..]
    }

    /// Fresh memory with `bytes` in it, and room that grows with the buffer.
    fn chunk(&self, bytes: &[u8]) -> Segment {
        let capacity = self.len.clamp(CHUNK_BYTES_MIN, BLOCK_BYTES);
        if bytes.len() >= capacity {
            return Segment::copied(bytes);
        }
        let mut mem = Vec::with_capacity(capacity);
        mem.extend_from_slice(bytes);
        mem.resize(capacity, 0);
        Segment::from_own(mem.into_boxed_slice(), bytes.len())
    }
}
