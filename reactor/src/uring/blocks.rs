//! The provided-buffer ring: blocks of `Home` in the kernel's hands.
//!
//! ```text
//!   Home --take, lift--> raw memory --post--> [ring of 16-byte entries] --kernel--> CQE with id
//!    ^                                                                                 |
//!    +---- drop <---- Segment <---- lower <---- Box::from_raw <---- taken by id -------+
//! ```
//!
//! Invariant: memory that is posted is owned by nobody in this process (`Box::into_raw`), and
//! becomes a `Box` again exactly once: when a completion names its id, or when the kernel has let
//! go of the whole ring. How many are posted follows how many are out: blocks that callbacks hold
//! are missing from the ring, so the whole grows while under a quarter of it is left.

use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use ringlane_api::segment::{Block, Home};

use super::ring::{Ring, map_page, unmap_page};

/// The one buffer group.
pub(super) const GROUP: u16 = 0;

/// Entries in a page of them.
const ENTRIES_MAX: usize = 4096 / size_of::<PostedEntry>();

/// Turns in a row with under a quarter left that make the whole grow.
const GROW_TURNS: u32 = 8;

/// Turns in a row with nearly all at home that make it shrink.
const SHRINK_TURNS: u32 = 4096;

/// `struct io_uring_buf` of linux/io_uring.h. The last field of the first entry is the tail.
#[repr(C)]
struct PostedEntry {
    address: u64,
    bytes: u32,
    id: u16,
    tail: u16,
}

/// A block whose memory the kernel has.
struct Lifted {
    shell: Block,
    memory: NonNull<[u8]>,
}

/// The blocks posted for receiving.
pub(super) struct Blocks {
    /// `None` once the kernel has let go.
    page: Option<NonNull<u8>>,
    entries: u16,
    tail: u16,
    lifted: Vec<Option<Lifted>>,
    ids: Vec<u16>,
    posted: usize,
    home: Rc<Home>,
    target: usize,
    target_min: usize,
    target_max: usize,
    tight: u32,
    calm: u32,
}

impl Blocks {
    /// Registers an empty ring of blocks with `ring`.
    pub fn new(ring: &Ring, home: Rc<Home>, first: usize, most: usize) -> io::Result<Blocks> {
        let most = most.clamp(1, ENTRIES_MAX);
        let first = first.clamp(1, most);
        let entries = most.next_power_of_two() as u16;
        let page = map_page()?;
        let blocks = Blocks {
            page: Some(page),
            entries,
            tail: 0,
            lifted: (0..entries).map(|_| None).collect(),
            ids: (0..entries).rev().collect(),
            posted: 0,
            home,
            target: first,
            target_min: first,
            target_max: most,
            tight: 0,
            calm: 0,
        };
        blocks.register(ring)?;
        blocks.tell_home();
        Ok(blocks)
    }

    fn register(&self, ring: &Ring) -> io::Result<()> {
        let submitter = ring.raw().submitter();
        let at = self.first() as u64;
        // SAFETY: the page stays mapped until `unregister` succeeded or is leaked (`abandon`).
        // KERNEL 5.19: provided-buffer rings.
        unsafe { submitter.register_buf_ring_with_flags(at, self.entries, GROUP, 0) }
    }

    fn tell_home(&self) {
        self.home.set_scarce_at(self.target * 3 / 4);
    }

    /// Blocks posted now.
    pub fn posted(&self) -> usize {
        self.posted
    }

    /// Blocks that are posted or out, as wanted now.
    pub fn target(&self) -> usize {
        self.target
    }

    /// Posts what is missing, last home first, and follows the demand.
    #[inline]
    pub fn refill(&mut self) {
        self.follow_demand();
        let least = (self.target / 8).max(1);
        let want = self.target.saturating_sub(self.home.out()).max(least);
        if self.posted < want {
            self.post(want);
        }
    }

    fn follow_demand(&mut self) {
        let out = self.home.out();
        self.tight = if out * 4 >= self.target * 3 { self.tight + 1 } else { 0 };
        self.calm = if out * 8 <= self.target { self.calm + 1 } else { 0 };
        if self.tight >= GROW_TURNS && self.target < self.target_max {
            self.target = (self.target * 2).min(self.target_max);
            self.tight = 0;
            self.tell_home();
        } else if self.calm >= SHRINK_TURNS && self.target > self.target_min {
            self.target = (self.target / 2).max(self.target_min);
            self.calm = 0;
            self.tell_home();
        }
    }

    fn post(&mut self, want: usize) {
        while self.posted < want {
            let Some(id) = self.ids.pop() else { break };
            let mut shell = self.home.take();
            let memory = NonNull::from(Box::leak(shell.lift()));
            self.write_entry(id, memory);
            debug_assert!(self.lifted[usize::from(id)].is_none(), "an id is posted once");
            self.lifted[usize::from(id)] = Some(Lifted { shell, memory });
            self.posted += 1;
        }
        let first = self.first();
        // SAFETY: the page is mapped while anything is posted, and its first entry lies in it.
        let tail = unsafe { &raw mut (*first).tail };
        // SAFETY: as above; a u16, aligned, and no one in this process but this thread uses it.
        let tail = unsafe { AtomicU16::from_ptr(tail) };
        tail.store(self.tail, Ordering::Release);
    }

    fn first(&self) -> *mut PostedEntry {
        self.page.expect("blocks are posted only while registered").as_ptr().cast()
    }

    fn write_entry(&mut self, id: u16, memory: NonNull<[u8]>) {
        let place = usize::from(self.tail & (self.entries - 1));
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `place` is under `entries`, and as many entries lie in the page.
        let entry = unsafe { self.first().add(place) };
        let address = memory.cast::<u8>().as_ptr() as u64;
        // The tail of the first entry must not be touched, so field by field.
        // SAFETY: the entry lies in the mapped page, and the kernel reads it only after the tail
        // was moved past it.
        unsafe { (*entry).address = address };
        // SAFETY: as above.
        unsafe { (*entry).bytes = memory.len() as u32 };
        // SAFETY: as above.
        unsafe { (*entry).id = id };
    }

    /// The block the kernel took under `id`, back in our hands.
    #[inline]
    pub fn taken(&mut self, id: u16) -> Block {
        let lifted = self.lifted[usize::from(id)].take();
        let lifted = lifted.expect("the kernel names a block that was posted, and names it once");
        self.posted -= 1;
        self.ids.push(id);
        lower(lifted)
    }

    /// Takes the ring away from the kernel; then everything posted is ours again. Where the kernel
    /// refuses, all of it is leaked instead.
    pub fn unregister(&mut self, ring: &Ring) {
        if ring.raw().submitter().unregister_buf_ring(GROUP).is_ok() {
            self.reclaim();
        }
    }

    /// Takes everything back in a forked child: the kernel fills the parent's copy of this
    /// memory, never ours.
    pub fn reclaim_after_fork(&mut self) {
        self.reclaim();
    }

    fn reclaim(&mut self) {
        self.posted = 0;
        for lifted in self.lifted.drain(..).flatten() {
            drop(lower(lifted));
        }
        if let Some(page) = self.page.take() {
            unmap_page(page);
        }
    }
}

#[inline]
fn lower(lifted: Lifted) -> Block {
    let Lifted { mut shell, memory } = lifted;
    // SAFETY: the memory came from `Box::leak` in `post`; the kernel has let go of it (its id was
    // reported, or the ring is gone), and the entry that named it was taken out just now.
    shell.lower(unsafe { Box::from_raw(memory.as_ptr()) });
    shell
}
