//! Mapped memory that a peer may write at any moment, and the one room of this crate where
//! `unsafe` may stand.
//!
//! Invariant: such memory is never a Rust slice or a `&mut`. It is atomics, and copies in and out
//! whose bounds are checked against the size that was mapped. A [`Map`] is of a file that was
//! sealed against shrinking, so no access meets SIGBUS.
//!
//! A map is not there in a forked child (`MADV_DONTFORK`: two producers would tear the ring);
//! [`Fork`] tells a child that it is one. In builds with debug assertions, pages on both sides of
//! a map catch who runs over.

#[cfg(debug_assertions)]
mod guarded;
#[cfg(not(debug_assertions))]
mod plain;

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::atomic::AtomicU8;

use memmap2::MmapMut;

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(debug_assertions)]
use guarded::Place;
#[cfg(not(debug_assertions))]
use plain::Place;

/// All of a memory file, shared.
pub struct Map {
    raw: ManuallyDrop<Place>,
    file: u64,
    fork: Rc<Fork>,
    writable: bool,
}

impl Map {
    /// Maps `bytes` of `fd`, whose [`Memory::id`](ringlane_api::reactor::Memory) is `file`. The
    /// caller has checked that the file is sealed and has that size. `fork` is of this process.
    pub fn new(
        fd: BorrowedFd<'_>,
        bytes: usize,
        file: u64,
        fork: &Rc<Fork>,
    ) -> io::Result<Rc<Map>> {
        let raw = Place::new(fd, bytes)?;
        let map = Map { raw: ManuallyDrop::new(raw), file, fork: Rc::clone(fork), writable: true };
        Ok(Rc::new(map))
    }

    /// The same where this process may only read, whatever it tries: the pages are mapped so, and
    /// what would write panics before the processor refuses it.
    ///
    /// Read a counter there by [`Map::load_u64`].
    pub fn read_only(
        fd: BorrowedFd<'_>,
        bytes: usize,
        file: u64,
        fork: &Rc<Fork>,
    ) -> io::Result<Rc<Map>> {
        let raw = Place::read_only(fd, bytes)?;
        let map = Map { raw: ManuallyDrop::new(raw), file, fork: Rc::clone(fork), writable: false };
        Ok(Rc::new(map))
    }

    /// Whether this process may write there.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The file's id.
    pub fn file(&self) -> u64 {
        self.file
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether nothing is mapped; never.
    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// The address of `len` bytes at `at`.
    fn at(&self, at: usize, len: usize) -> *mut u8 {
        let end = at.checked_add(len).expect("offsets come from the layout");
        assert!(end <= self.raw.len(), "{at}..{end} lies outside {} bytes", self.raw.len());
        // SAFETY: `at` is at most the length of the mapping, as was checked above.
        unsafe { self.raw.as_mut_ptr().add(at) }
    }

    /// The address of `len` bytes at `at` that may be written.
    #[inline]
    fn at_to_write(&self, at: usize, len: usize) -> *mut u8 {
        assert!(self.writable, "this process may only read there");
        self.at(at, len)
    }

    /// The word at `at`.
    ///
    /// # Panics
    /// Panics if it does not lie inside, aligned, or if the map is read-only.
    #[inline]
    pub fn u32_at(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4), "words are aligned");
        let word = self.at_to_write(at, 4).cast::<u32>();
        // SAFETY: inside the mapping, which lives as long as `self`; pages are aligned and `at` is;
        // the bytes are only ever accessed through atomics of this size.
        unsafe { AtomicU32::from_ptr(word) }
    }

    /// The double word at `at`.
    ///
    /// # Panics
    /// Panics if it does not lie inside, aligned, or if the map is read-only.
    #[inline]
    pub fn u64_at(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8), "words are aligned");
        let word = self.at_to_write(at, 8).cast::<u64>();
        // SAFETY: as in `u32_at`.
        unsafe { AtomicU64::from_ptr(word) }
    }

    /// What the double word at `at` says, and everything that was stored before it was (acquire).
    /// For maps that are read-only, too.
    ///
    /// # Panics
    /// Panics if it does not lie inside, aligned.
    #[inline]
    pub fn load_u64(&self, at: usize) -> u64 {
        assert!(at.is_multiple_of(8), "words are aligned");
        let word = self.at(at, 8).cast::<u64>();
        // SAFETY: inside the mapping, and aligned, as in `u32_at`. The pages may be read-only: a
        // relaxed load of eight bytes is one plain load then, and the only access made here.
        let word = unsafe { AtomicU64::from_ptr(word) };
        let value = word.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }

    /// Copies bytes out. What a peer writes meanwhile may be seen in part; the copy is ours.
    ///
    /// # Panics
    /// Panics if they do not lie inside.
    #[inline]
    pub fn read(&self, at: usize, into: &mut [u8]) {
        let from = self.at(at, into.len());
        // SAFETY: source and destination are valid for the length, and do not overlap: `into` is a
        // Rust slice, and no slice lies in a mapping. A peer that writes at the same time makes
        // the values arbitrary, which every reader of them expects.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }

    /// Appends a copy of `len` bytes at `at`, as [`Map::read`] makes it.
    ///
    /// # Panics
    /// Panics if they do not lie inside.
    #[inline]
    pub fn append(&self, at: usize, len: usize, into: &mut Vec<u8>) {
        let from = self.at(at, len);
        into.reserve(len);
        let room = into.spare_capacity_mut()[..len].as_mut_ptr().cast::<u8>();
        // SAFETY: as in `read`; `room` is the vector's own memory, of `len` bytes at least.
        unsafe { std::ptr::copy_nonoverlapping(from, room, len) };
        // SAFETY: so many bytes were written behind the vector's end a line above.
        unsafe { into.set_len(into.len() + len) };
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// Panics if they do not lie inside, or if the map is read-only.
    #[inline]
    pub fn write(&self, at: usize, from: &[u8]) {
        let into = self.at_to_write(at, from.len());
        // SAFETY: as in `read`, the other way round.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into, from.len()) }
    }
}

impl Map {
    /// Copies bytes in past the caches, for a reader on another core: where caches are far apart,
    /// memory that both can fetch in streams is several times faster than lines that go from one
    /// cache to the other. Ordered before any store that follows.
    ///
    /// # Panics
    /// Panics if they do not lie inside, or if the map is read-only.
    pub fn write_through(&self, at: usize, from: &[u8]) {
        let into = self.at_to_write(at, from.len());
        // SAFETY: `into` is valid for writes of `from.len()` bytes, as was checked, and no slice
        // lies in a mapping, so the two do not overlap.
        unsafe { through::copy(from, into) }
    }
}

/// Stores that bypass the caches.
#[cfg(target_arch = "x86_64")]
mod through {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    const LANE: usize = size_of::<__m128i>();

    /// Copies `from` to `into`.
    ///
    /// # Safety
    /// `into` is valid for writes of `from.len()` bytes, and does not overlap `from`.
    pub unsafe fn copy(from: &[u8], into: *mut u8) {
        let (head, rest) = from.split_at(into.align_offset(LANE).min(from.len()));
        let (lanes, tail) = rest.as_chunks::<LANE>();
        // SAFETY: the head is the beginning of what is valid.
        unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), into, head.len()) };
        // SAFETY: the head is not longer than what is valid.
        let mut to = unsafe { into.add(head.len()) };
        for lane in lanes {
            // SAFETY: a lane has the bytes of one load.
            let bytes = unsafe { _mm_loadu_si128(lane.as_ptr().cast()) };
            // SAFETY: the lane lies inside what is valid, and aligned, since the head ended at a
            // multiple of its size.
            unsafe { _mm_stream_si128(to.cast(), bytes) };
            // SAFETY: as many lanes follow the head as were counted in `from`.
            to = unsafe { to.add(LANE) };
        }
        // SAFETY: the tail is the end of what is valid.
        unsafe { std::ptr::copy_nonoverlapping(tail.as_ptr(), to, tail.len()) };
        // Such stores are not ordered by a release store that follows.
        // SAFETY: every x86-64 processor has it.
        unsafe { _mm_sfence() };
    }
}

/// Elsewhere they are stores like any other.
#[cfg(not(target_arch = "x86_64"))]
mod through {
    /// Copies `from` to `into`.
    ///
    /// # Safety
    /// `into` is valid for writes of `from.len()` bytes, and does not overlap `from`.
    pub unsafe fn copy(from: &[u8], into: *mut u8) {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into, from.len()) }
    }
}

/// The processor this thread runs on, counted from one; 0 where that is not known.
pub fn processor() -> u32 {
    // SAFETY: it takes nothing and reads a word that the kernel keeps for the thread.
    let cpu = unsafe { libc::sched_getcpu() };
    u32::try_from(cpu).map_or(0, |cpu| cpu + 1)
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.fork.happened() {
            // Nothing of ours is mapped here, and something else may be at that address by now.
            return;
        }
        // SAFETY: it is dropped here and nowhere else, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.raw) }
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} B of file {})", self.len(), self.file)
    }
}

/// Tells a forked child from its parent, for the price of one load: a page that the kernel wipes
/// in a child.
pub struct Fork(MmapMut);

impl Fork {
    /// A guard of this process.
    pub fn new() -> io::Result<Fork> {
        let page = MmapMut::map_anon(crate::layout::PAGE)?;
        let at = page.as_ptr().cast_mut().cast();
        // SAFETY: the range is the page that was mapped a line above, and nobody else knows it.
        let advised = unsafe { libc::madvise(at, page.len(), libc::MADV_WIPEONFORK) };
        if advised != 0 {
            return Err(io::Error::last_os_error());
        }
        let fork = Fork(page);
        fork.mark().store(1, Ordering::Relaxed);
        Ok(fork)
    }

    /// Whether this is a child of the process that made it.
    #[inline]
    pub fn happened(&self) -> bool {
        self.mark().load(Ordering::Relaxed) == 0
    }

    fn mark(&self) -> &AtomicU8 {
        // SAFETY: the page is mapped as long as `self` lives, and is only accessed here.
        unsafe { AtomicU8::from_ptr(self.0.as_ptr().cast_mut()) }
    }
}
