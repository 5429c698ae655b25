//! Looking at the bytes in place, making them contiguous, and writing them in place.

use std::mem;

use super::{Edge, Evbuffer};
use crate::limits::BLOCK_BYTES;
use crate::segment::Segment;

/// Where [`Evbuffer::reserve`] lent room.
pub(super) enum Reserved {
    /// Behind the last segment.
    Tail,
    /// In a chunk that is not in the chain yet.
    Chunk(Segment),
}

impl Evbuffer {
    /// The first `n` bytes as they lie in memory, piece by piece; stops at a file range.
    ///
    /// ```
    /// # use ringlane_api::{Evbuffer, segment::Segment};
    /// let mut buffer = Evbuffer::new();
    /// buffer.push(Segment::copied(b"abc"));
    /// buffer.push(Segment::copied(b"def"));
    /// assert_eq!(buffer.peek(4).collect::<Vec<_>>(), [&b"abc"[..], b"d"]);
    /// ```
    pub fn peek(&self, n: usize) -> impl Iterator<Item = &[u8]> {
        let mut left = n;
        self.readable().map_while(move |bytes| {
            let bytes = &bytes[..bytes.len().min(left)];
            left -= bytes.len();
            (!bytes.is_empty()).then_some(bytes)
        })
    }

    /// The first `n` bytes in one piece (fewer, if there are fewer or a file range comes before);
    /// copies only what does not lie so already. The contents stay the same, so it works on frozen
    /// ends and tells no callback.
    ///
    /// # Panics
    /// Panics if the piece would be 4 GiB or longer.
    ///
    /// ```
    /// # use ringlane_api::{Evbuffer, segment::Segment};
    /// let mut buffer = Evbuffer::new();
    /// buffer.push(Segment::copied(b"abc"));
    /// buffer.push(Segment::copied(b"def"));
    /// assert_eq!(buffer.pullup(4), b"abcd");
    /// assert_eq!(buffer.pullup(usize::MAX), b"abcdef");
    /// ```
    pub fn pullup(&mut self, n: usize) -> &[u8] {
        if self.front().is_none_or(|front| front.len() < n) {
            let n = n.min(self.readable_len());
            if self.front().is_some_and(|front| front.len() < n) {
                self.gather(n);
            }
        }
        self.front().map_or(&[], |front| &front.bytes()[..n.min(front.bytes().len())])
    }

    /// Makes the first segment hold the first `n` bytes, which are there and need more than it.
    fn gather(&mut self, n: usize) {
        // A reservation behind the last segment would not stand on the same memory afterwards.
        if let Some(extra) = &mut self.extra {
            extra.reserved = None;
        }
        let mut dead = Vec::new();
        let mut whole = self.chain.pop_front().expect("there are bytes");
        if whole.len() + whole.room() < n {
            let mut wider = Segment::from_own(vec![0; n].into_boxed_slice(), 0);
            wider.extend_from(whole.bytes());
            dead.push(mem::replace(&mut whole, wider));
        }
        while whole.len() < n {
            let next = self.chain.front_mut().expect("there are n bytes");
            let part = next.len().min(n - whole.len());
            whole.extend_from(&next.bytes()[..part]);
            if part == next.len() {
                dead.extend(self.chain.pop_front());
            } else {
                next.advance(part);
            }
        }
        self.chain.push_front(whole);
        // Last, because dropping what the user lent may run, and even panic in, the user's code.
        drop(dead);
    }

    /// Lends at least `n` bytes of room at the end, to be written and then claimed with
    /// [`Evbuffer::commit`]. What they hold before is unspecified. Empty if the end is frozen.
    ///
    /// # Panics
    /// Panics if `n` is 4 GiB or more.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.reserve(100)[..2].copy_from_slice(b"ok");
    /// assert!(buffer.commit(2));
    /// assert_eq!(buffer.to_vec(), b"ok");
    /// ```
    pub fn reserve(&mut self, n: usize) -> &mut [u8] {
        if n == 0 || self.is_frozen(Edge::End) {
            return &mut [];
        }
        let extra = self.extra.get_or_insert_default();
        if self.chain.back().is_some_and(|tail| tail.room() >= n) {
            extra.reserved = Some(Reserved::Tail);
            return self.chain.back_mut().expect("there is a tail").spare_mut();
        }
        let capacity = n.max(self.len.min(BLOCK_BYTES));
        let chunk = Segment::from_own(vec![0; capacity].into_boxed_slice(), 0);
        match extra.reserved.insert(Reserved::Chunk(chunk)) {
            Reserved::Chunk(chunk) => chunk.spare_mut(),
            Reserved::Tail => unreachable!("a chunk was put there"),
        }
    }

    /// Claims the first `n` bytes of what [`Evbuffer::reserve`] lent. `false`, and nothing is
    /// added, if the buffer was changed since, if less was lent, or if the end is frozen.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.reserve(2)[..2].copy_from_slice(b"ok");
    /// buffer.drain(0);
    /// buffer.add(b"first");
    /// assert!(!buffer.commit(2), "the room was used otherwise");
    /// ```
    pub fn commit(&mut self, n: usize) -> bool {
        let frozen = self.is_frozen(Edge::End);
        let reserved = self.extra.as_mut().and_then(|extra| extra.reserved.take());
        match (reserved, self.chain.back_mut()) {
            _ if frozen => return false,
            (Some(Reserved::Tail), Some(tail)) if n <= tail.room() => {
                tail.grow(n);
                self.grown(n);
            }
            (Some(Reserved::Chunk(mut chunk)), _) if n <= chunk.room() => {
                chunk.grow(n);
                self.push(chunk);
            }
            _ => return false,
        }
        self.settle();
        true
    }
}
