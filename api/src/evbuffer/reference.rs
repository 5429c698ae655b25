//! Bytes that are not copied: the user's memory, shared memory, ranges of files.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use super::add::SEGMENT_BYTES_MAX;
use super::{Edge, Evbuffer};
use crate::fd::Fd;
use crate::segment::Segment;

/// A part of memory that is too long for one segment.
struct Window {
    memory: Rc<dyn AsRef<[u8]>>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        &(*self.memory).as_ref()[self.range.clone()]
    }
}

impl Evbuffer {
    /// Adds memory without a copy; its owner is dropped when the last byte was sent or drained.
    /// `false` if the end is frozen: then the owner is dropped at once.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add_reference("static");
    /// buffer.add_reference(vec![b'!'; 3]);
    /// assert_eq!(buffer.to_vec(), b"static!!!");
    /// ```
    pub fn add_reference(&mut self, owner: impl AsRef<[u8]> + 'static) -> bool {
        self.add_memory(Rc::new(owner))
    }

    /// [`Evbuffer::add_reference`] of memory that others may hold, too.
    pub(crate) fn add_memory(&mut self, memory: Rc<dyn AsRef<[u8]>>) -> bool {
        if self.is_frozen(Edge::End) {
            return false;
        }
        self.lend(memory, SEGMENT_BYTES_MAX);
        self.settle();
        true
    }

    /// Adds shared bytes without a copy; `false` if the end is frozen.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let page = bytes::Bytes::from_static(b"<html>");
    /// let mut buffer = Evbuffer::new();
    /// buffer.add_shared(page.clone());
    /// assert_eq!(buffer.to_vec(), page);
    /// ```
    pub fn add_shared(&mut self, bytes: Bytes) -> bool {
        self.add_reference(bytes)
    }

    /// Adds `len` bytes of a file, from `offset`, without reading them: they are sent by the
    /// kernel, or read by the transport. `false` if the end is frozen or no file is that long.
    ///
    /// ```
    /// # use ringlane_api::{Evbuffer, fd::{Fd, FdKind}};
    /// # let file = Fd::from_other(0, FdKind::File, Box::new(()));
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"header");
    /// buffer.add_file(file, 4096, 1000);
    /// assert_eq!(buffer.len(), 1006);
    /// assert_eq!(buffer.to_vec(), b"header");
    /// ```
    pub fn add_file(&mut self, file: Fd, offset: u64, len: u64) -> bool {
        let fits = offset.checked_add(len).is_some_and(|end| i64::try_from(end).is_ok());
        if self.is_frozen(Edge::End) || !fits {
            return false;
        }
        let mut done = 0;
        while done < len {
            let part = (len - done).min(SEGMENT_BYTES_MAX as u64);
            self.push(Segment::from_file(file.clone(), offset + done, part as u32));
            done += part;
        }
        self.settle();
        true
    }

    /// Whether a file range is in it, at which `copyout`, `search` and the like stop.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"bytes");
    /// assert!(!buffer.has_file());
    /// ```
    pub fn has_file(&self) -> bool {
        self.segments().any(|segment| segment.file().is_some())
    }

    /// Adds all that `other` holds without a copy, and leaves `other` as it is: one message to
    /// many receivers. `false` if the end is frozen.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let (mut news, mut a, mut b) = (Evbuffer::new(), Evbuffer::new(), Evbuffer::new());
    /// news.add(b"to all");
    /// a.add_buffer_reference(&mut news);
    /// b.add_buffer_reference(&mut news);
    /// a.drain(3);
    /// assert_eq!((a.to_vec(), b.to_vec()), (b"all".to_vec(), b"to all".to_vec()));
    /// ```
    pub fn add_buffer_reference(&mut self, other: &mut Evbuffer) -> bool {
        if self.is_frozen(Edge::End) {
            return false;
        }
        for segment in &mut other.chain {
            let shared = segment.share_clone();
            self.chain.push_back(shared);
        }
        self.grown(other.len);
        self.settle();
        true
    }

    /// All bytes in front of the first file range, to be sent to another thread. One segment of
    /// our own memory is handed over as it is; anything else is copied.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"work");
    /// let job = buffer.into_bytes();
    /// let worker = std::thread::spawn(move || job.len());
    /// assert_eq!(worker.join().expect("it does not panic"), 4);
    /// ```
    pub fn into_bytes(mut self) -> Bytes {
        match self.pop_front() {
            Some(only) if self.is_empty() => only.into_bytes(),
            Some(first) => {
                self.push_front(first);
                Bytes::from(self.to_vec())
            }
            None => Bytes::new(),
        }
    }

    /// Pushes all of `memory`, in segments of at most `max` bytes.
    fn lend(&mut self, memory: Rc<dyn AsRef<[u8]>>, max: usize) {
        let len = (*memory).as_ref().len();
        if len <= max {
            return self.push(Segment::from_shared(memory));
        }
        for start in (0..len).step_by(max) {
            let range = start..len.min(start + max);
            let window = Window { memory: Rc::clone(&memory), range };
            self.push(Segment::from_shared(Rc::new(window)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_longer_than_a_segment_lies_in_several_and_is_freed_with_the_last() {
        let memory: Rc<dyn AsRef<[u8]>> = Rc::new(b"0123456789".to_vec());
        let weak = Rc::downgrade(&memory);
        let mut buffer = Evbuffer::new();
        buffer.lend(memory, 4);
        assert_eq!(buffer.segments().map(Segment::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(buffer.to_vec(), b"0123456789");
        buffer.drain(9);
        assert!(weak.upgrade().is_some());
        buffer.drain(1);
        assert!(weak.upgrade().is_none());
    }
}
