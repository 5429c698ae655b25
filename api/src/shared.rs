//! Memory that other processes share, as far as the kernel is asked about it.

use std::fmt;
use std::sync::atomic::AtomicU32;

/// A 32-bit word in shared memory that one side sleeps on and the other rings, and what keeps its
/// memory mapped. An [`Op::FutexWait`](crate::reactor::Op::FutexWait) holds it until its last
/// completion, so that nothing is unmapped under the kernel.
///
/// A word is for two parties. A third could take the wake that was meant for another.
pub trait SharedWord: fmt::Debug {
    /// The word. Whoever shares it may change it at any time.
    fn word(&self) -> &AtomicU32;
    /// Where it lies, the same in every process and under every mapping.
    fn place(&self) -> Place;
}

/// A position in a shared file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// [`Memory::id`] of the file.
    pub file: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// What a descriptor is that is said to be a memory file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Its size in bytes.
    pub bytes: u64,
    /// Nobody can ever change its size again: sealed against shrinking, growing and other seals
    /// (fcntl(2) F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL).
    pub sealed: bool,
    /// It has pages of the usual size. Huge ones come from a pool that may be empty when a page is
    /// touched that the peer has punched out, and that is a SIGBUS.
    pub plain: bool,
    /// Tells it from every other memory file of this machine.
    pub id: u64,
}
