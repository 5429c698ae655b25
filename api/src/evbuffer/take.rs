//! Bytes that go out: dropped, copied, or handed over as one piece.

use super::{Edge, Evbuffer};

impl Evbuffer {
    /// Drops up to `n` bytes off the front, file ranges included; says how many. 0 if the start
    /// is frozen.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"head body");
    /// assert_eq!(buffer.drain(5), 5);
    /// assert_eq!(buffer.to_vec(), b"body");
    /// assert_eq!(buffer.drain(99), 4);
    /// ```
    #[inline]
    pub fn drain(&mut self, n: usize) -> usize {
        if self.is_frozen(Edge::Start) {
            return 0;
        }
        let n = self.drop_front(n, &mut drop);
        self.settle();
        n
    }

    /// Moves bytes from the front into `to`; says how many. Stops at a file range; 0 if the start
    /// is frozen.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"abc");
    /// let mut two = [0; 2];
    /// assert_eq!(buffer.remove(&mut two), 2);
    /// assert_eq!((&two, buffer.len()), (b"ab", 1));
    /// ```
    pub fn remove(&mut self, to: &mut [u8]) -> usize {
        if self.is_frozen(Edge::Start) {
            return 0;
        }
        let n = self.copyout(to);
        self.drain(n)
    }

    /// Copies bytes from the front into `to`; says how many. Stops at a file range.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"abc");
    /// let mut four = [0; 4];
    /// assert_eq!(buffer.copyout(&mut four), 3);
    /// assert_eq!(buffer.len(), 3);
    /// ```
    pub fn copyout(&self, to: &mut [u8]) -> usize {
        self.copyout_from(0, to)
    }

    /// Copies bytes from offset `from` on into `to`; says how many. Stops at a file range.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let buffer = Evbuffer::from(&b"head body"[..]);
    /// let mut four = [0; 4];
    /// assert_eq!(buffer.copyout_from(5, &mut four), 4);
    /// assert_eq!(&four, b"body");
    /// ```
    pub fn copyout_from(&self, from: usize, to: &mut [u8]) -> usize {
        let (mut skip, mut done) = (from, 0);
        for bytes in self.readable() {
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            let bytes = &bytes[skipped..];
            let n = bytes.len().min(to.len() - done);
            to[done..done + n].copy_from_slice(&bytes[..n]);
            done += n;
            if done == to.len() {
                break;
            }
        }
        done
    }

    /// A copy of all bytes in front of the first file range.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"abc");
    /// assert_eq!(buffer.to_vec(), b"abc");
    /// ```
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.readable().map(<[u8]>::len).sum());
        self.readable().for_each(|bytes| all.extend_from_slice(bytes));
        all
    }

    /// Removes all bytes in front of the first file range. Empty if the start is frozen.
    ///
    /// Where `std::io::Read` is in scope, its `take` hides this one on an `Evbuffer` that is not
    /// behind a reference; `Evbuffer::take(&mut buffer)` says which is meant.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"abc");
    /// assert_eq!(buffer.take(), b"abc");
    /// assert!(buffer.is_empty());
    /// ```
    pub fn take(&mut self) -> Vec<u8> {
        if self.is_frozen(Edge::Start) {
            return Vec::new();
        }
        let all = self.to_vec();
        self.drain(all.len());
        all
    }
}
