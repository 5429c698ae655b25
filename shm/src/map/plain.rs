//! Where a memory file is mapped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use memmap2::{Advice, MmapOptions, MmapRaw};

/// The mapping. Dropping it unmaps.
pub(super) struct Place(MmapRaw);

impl Place {
    /// Maps `bytes` of `fd`, not to be there in a forked child.
    pub(super) fn new(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Place> {
        Place::of(MmapOptions::new().len(bytes).map_raw(fd.as_raw_fd())?)
    }

    /// The same, to be read only.
    pub(super) fn read_only(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Place> {
        Place::of(MmapOptions::new().len(bytes).map_raw_read_only(fd.as_raw_fd())?)
    }

    fn of(raw: MmapRaw) -> io::Result<Place> {
        raw.advise(Advice::DontFork)?;
        Ok(Place(raw))
    }

    /// Bytes mapped.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The first of them.
    pub(super) fn as_mut_ptr(&self) -> *mut u8 {
        self.0.as_mut_ptr()
    }
}
