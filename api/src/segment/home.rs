//! The pool that received blocks come from and go home to, and how many of them a link may keep.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use crate::mutant::{self, Mutant};

/// A last-in-first-out pool of equally sized blocks.
pub struct Home {
    // The box is what a block is: it leaves the pool and comes back as it is.
    #[allow(clippy::vec_box)]
    free: RefCell<Vec<Box<Inner>>>,
    size: usize,
    keep_max: usize,
    made: Cell<usize>,
    out: Cell<usize>,
    scarce_at: Cell<usize>,
    kept: Cell<usize>,
    returns: Cell<u64>,
}

struct Inner {
    mem: Box<[u8]>,
    home: Option<Rc<Home>>,
    lease: Option<Rc<Lease>>,
}

/// Owned memory of one [`Home`]; goes home when dropped. 8 bytes.
pub struct Block(Option<Box<Inner>>);

/// How many received blocks one link may have out at a time.
pub struct Lease {
    held: Cell<u32>,
    cap: u32,
}

impl Home {
    /// A pool of blocks of `size` bytes that keeps at most `keep_max` of them when idle.
    pub fn new(size: usize, keep_max: usize) -> Rc<Home> {
        Rc::new(Home {
            free: RefCell::new(Vec::new()),
            size,
            keep_max,
            made: Cell::new(0),
            out: Cell::new(0),
            scarce_at: Cell::new(usize::MAX),
            kept: Cell::new(0),
            returns: Cell::new(0),
        })
    }

    /// Takes the block that came home last, or makes one.
    pub fn take(self: &Rc<Self>) -> Block {
        let mut inner = self.free.borrow_mut().pop().unwrap_or_else(|| {
            self.made.set(self.made.get() + 1);
            Box::new(Inner { mem: vec![0; self.size].into_boxed_slice(), home: None, lease: None })
        });
        inner.home = Some(Rc::clone(self));
        self.out.set(self.out.get() + 1);
        Block(Some(inner))
    }

    /// Whether a block can be had without making more than are kept.
    pub fn may_take(&self) -> bool {
        self.made.get() < self.keep_max || !self.free.borrow().is_empty()
    }

    /// Bytes in each block.
    pub fn block_bytes(&self) -> usize {
        self.size
    }

    /// Blocks in somebody's hands: neither at home nor with the kernel.
    pub fn out(&self) -> usize {
        self.out.get()
    }

    /// Blocks that are out and may come home soon: all but those that somebody gave up on.
    pub fn moving(&self) -> usize {
        self.out.get() - self.kept.get()
    }

    /// Gives up on the blocks that are out: waiting did not bring them home. As many are counted
    /// as kept until fewer are out.
    pub fn give_up(&self) {
        self.kept.set(self.out.get());
    }

    /// How often a block has come home.
    pub fn returns(&self) -> u64 {
        self.returns.get()
    }

    /// A block left somebody's hands.
    fn one_less_out(&self) {
        let out = self.out.get() - 1;
        self.out.set(out);
        self.kept.set(self.kept.get().min(out));
    }

    /// Blocks that exist.
    pub fn made(&self) -> usize {
        self.made.get()
    }

    /// Sets how many blocks may be out before [`Home::scarce`] says so.
    pub fn set_scarce_at(&self, blocks: usize) {
        self.scarce_at.set(blocks);
    }

    /// Whether so many blocks are out that received bytes should be copied instead of kept.
    /// It counts blocks that are *out*, not blocks that are home: the ring takes every free block
    /// at the turn's start, so few at home is the normal state.
    pub fn scarce(&self) -> bool {
        self.out.get() > self.scarce_at.get()
    }
}

impl Block {
    /// The memory.
    ///
    /// # Panics
    /// Panics while the block is lifted.
    pub fn bytes(&self) -> &[u8] {
        &self.inner().mem
    }

    /// The memory, to write to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.inner_mut().mem
    }

    /// Takes the memory out, for the kernel. The block stays as an empty shell until
    /// [`Block::lower`]; a shell that is dropped does not go home.
    pub fn lift(&mut self) -> Box<[u8]> {
        let inner = self.inner_mut();
        if let Some(home) = &inner.home {
            home.one_less_out();
        }
        std::mem::take(&mut inner.mem)
    }

    /// Puts the memory back that [`Block::lift`] took out.
    ///
    /// # Panics
    /// Panics if the memory is not of the size that was lifted.
    pub fn lower(&mut self, mem: Box<[u8]>) {
        let inner = self.inner_mut();
        assert!(inner.mem.is_empty(), "a block is lowered once");
        if let Some(home) = &inner.home {
            assert_eq!(mem.len(), home.size, "a block gets its own memory back");
            home.out.set(home.out.get() + 1);
        }
        inner.mem = mem;
    }

    /// Charges it to `lease`; `false` past the lease's cap, or when its home is scarce.
    #[inline]
    pub(super) fn charge(&mut self, lease: &Rc<Lease>) -> bool {
        let inner = self.inner_mut();
        let scarce = inner.home.as_ref().is_some_and(|home| home.scarce());
        if scarce || lease.held.get() >= lease.cap {
            return false;
        }
        if inner.lease.is_none() {
            lease.held.set(lease.held.get() + 1);
            inner.lease = Some(Rc::clone(lease));
        }
        true
    }

    fn inner(&self) -> &Inner {
        self.0.as_ref().expect("a block has its memory until it is dropped")
    }

    fn inner_mut(&mut self) -> &mut Inner {
        self.0.as_mut().expect("a block has its memory until it is dropped")
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(mut inner) = self.0.take() else { return };
        if let Some(lease) = inner.lease.take()
            && !mutant::on(Mutant::LeaseLeaked)
        {
            lease.held.set(lease.held.get() - 1);
        }
        let Some(home) = inner.home.take() else { return };
        if inner.mem.is_empty() {
            // Dropped while lifted: the memory is the kernel's (or leaked on purpose).
            home.made.set(home.made.get() - 1);
            return;
        }
        home.one_less_out();
        home.returns.set(home.returns.get() + 1);
        let mut free = home.free.borrow_mut();
        if free.len() < home.keep_max {
            free.push(inner);
        } else {
            home.made.set(home.made.get() - 1);
        }
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Home({} of {} blocks of {} B out)", self.out(), self.made(), self.size)
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} B)", self.inner().mem.len())
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Lease {
    /// A lease that allows `cap` blocks.
    pub fn new(cap: u32) -> Rc<Lease> {
        Rc::new(Lease { held: Cell::new(0), cap })
    }

    /// Blocks charged to it now.
    pub fn held(&self) -> u32 {
        self.held.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_goes_home_and_is_taken_last_in_first_out() {
        let home = Home::new(64, 8);
        let (a, b) = (home.take(), home.take());
        let b_at = b.bytes().as_ptr();
        assert_eq!(home.out(), 2);
        drop(a);
        drop(b);
        assert_eq!(home.out(), 0);
        assert_eq!(home.take().bytes().as_ptr(), b_at);
    }

    #[test]
    fn a_shell_dropped_while_lifted_does_not_go_home_empty() {
        let home = Home::new(64, 8);
        let mut block = home.take();
        let _mem = block.lift();
        drop(block);
        assert_eq!((home.made(), home.out()), (0, 0));
        assert_eq!(home.take().bytes().len(), 64);
    }
}
