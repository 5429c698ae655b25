//! Memory files, and what rings across processes: futex words, eventfds, pidfds.
//!
//! Invariant: a memory file leaves here with all of its pages and with its seals, so that nobody
//! who maps it meets SIGBUS.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::ftruncate;
use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::reactor::{Memory, SharedWord};

use super::os;

/// `SO_PEERPIDFD` of asm-generic/socket.h.
const PEER_PIDFD: i32 = 77;

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

pub(super) fn memory(bytes: u64) -> io::Result<Fd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // KERNEL 6.3: never executable.
    let strict = flags | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let fd = match memfd_create(c"ringlane", strict) {
        Err(Errno::EINVAL) => memfd_create(c"ringlane", flags)?,
        other => other?,
    };
    let size = i64::try_from(bytes).map_err(|_| Errno::EFBIG)?;
    ftruncate(&fd, size)?;
    while let Err(error) = fallocate(&fd, FallocateFlags::empty(), 0, size) {
        if error != Errno::EINTR {
            return Err(error.into());
        }
    }
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(Fd::from_os(fd, FdKind::File))
}

pub(super) fn memory_of(fd: &Fd) -> io::Result<Memory> {
    let fd = os(fd)?;
    let found = fstat(fd)?;
    // EINVAL: a file of a kind that has no seals.
    let sealed = match fcntl(fd, FcntlArg::F_GET_SEALS) {
        Ok(bits) => SealFlag::from_bits_retain(bits).contains(seals()),
        Err(Errno::EINVAL) => false,
        Err(error) => return Err(error.into()),
    };
    let plain = fstatfs(fd)?.filesystem_type() == TMPFS_MAGIC;
    Ok(Memory { bytes: found.st_size as u64, sealed, plain, id: found.st_ino })
}

pub(super) fn futex_wake(word: &dyn SharedWord) -> io::Result<u32> {
    let at = word.word().as_ptr();
    // SAFETY: FUTEX_WAKE reads no memory; the address names the word, which `word` keeps mapped
    // during the call. Everybody is woken: a dead ring's waiter must not take the only wake.
    let woken = unsafe { libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAKE, i32::MAX) };
    Errno::result(woken).map(|n| n as u32).map_err(Into::into)
}

pub(super) fn event() -> io::Result<Fd> {
    let fd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    Ok(Fd::from_os(OwnedFd::from(fd), FdKind::Pollable))
}

pub(super) fn ring(fd: &Fd) -> io::Result<()> {
    match nix::unistd::write(os(fd)?, &1u64.to_ne_bytes()) {
        // EAGAIN: the counter is full, so it is readable.
        Ok(_) | Err(Errno::EAGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn pidfd(socket: &Fd) -> io::Result<Fd> {
    let number = os(socket)?.as_raw_fd();
    let mut pidfd: i32 = -1;
    let mut len = size_of::<i32>() as libc::socklen_t;
    let into = (&raw mut pidfd).cast();
    // SAFETY: the kernel writes one int to `pidfd` and its length to `len`; both outlive the call.
    // KERNEL 6.5: SO_PEERPIDFD; ENOPROTOOPT before.
    let got = unsafe { libc::getsockopt(number, libc::SOL_SOCKET, PEER_PIDFD, into, &raw mut len) };
    Errno::result(got)?;
    // SAFETY: the call succeeded, so this is a descriptor that the kernel made for us just now.
    let fd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fd::from_os(fd, FdKind::Pollable))
}
