//! The hot path: one system call each, never waiting, `EINTR` tried again.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag};
use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::limits;
use ringlane_api::segment::Parts;
use socket2::{SockAddr, SockRef};

use super::{number, os};

/// Runs a call until it is not interrupted.
pub(super) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

/// Receives into `into`; 0 is the end of the stream.
pub(crate) fn recv(fd: &Fd, into: &mut [u8]) -> io::Result<usize> {
    if fd.kind() != FdKind::Socket {
        let fd = os(fd)?;
        return retry(|| nix::unistd::read(fd, into));
    }
    let number = number(fd)?;
    retry(|| nix::sys::socket::recv(number, into, MsgFlags::MSG_DONTWAIT))
}

/// The same for a Unix stream. `true` says that the read ended early because descriptors were
/// passed with it (they are dropped), so that more may wait although the room was not filled.
pub(crate) fn recv_noting(fd: &Fd, into: &mut [u8]) -> io::Result<(usize, bool)> {
    use nix::sys::socket::{SockaddrStorage, recvmsg};
    let number = number(fd)?;
    let mut room = [io::IoSliceMut::new(into)];
    retry(|| {
        let got = recvmsg::<SockaddrStorage>(number, &mut room, None, MsgFlags::MSG_DONTWAIT)?;
        Ok((got.bytes, got.flags.contains(MsgFlags::MSG_CTRUNC)))
    })
}

/// The first [`limits::SEND_PARTS_MAX`] pieces of `parts` behind `skip` bytes, for a gathered send.
pub(super) struct Gather<'a> {
    slices: [IoSlice<'a>; limits::SEND_PARTS_MAX],
    used: usize,
    /// Bytes in them.
    pub(super) bytes: usize,
}

impl<'a> Gather<'a> {
    pub(super) fn new(parts: &'a Parts, mut skip: usize) -> Gather<'a> {
        let slices = [IoSlice::new(&[]); limits::SEND_PARTS_MAX];
        let mut all = Gather { slices, used: 0, bytes: 0 };
        for segment in parts.iter() {
            let bytes = segment.bytes();
            if skip >= bytes.len() {
                skip -= bytes.len();
                continue;
            }
            let rest = &bytes[skip..];
            skip = 0;
            all.slices[all.used] = IoSlice::new(rest);
            all.used += 1;
            all.bytes += rest.len();
            if all.used == limits::SEND_PARTS_MAX {
                break;
            }
        }
        all
    }

    pub(super) fn slices(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.used]
    }
}

/// How a send went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Bytes the kernel took.
    pub(crate) bytes: usize,
    /// Whether it would have taken more, had there been more: nothing is full yet.
    pub(crate) whole: bool,
}

/// Sends `parts` behind `skip` bytes, as much as goes in one call.
pub(crate) fn send(fd: &Fd, parts: &Parts, skip: usize) -> io::Result<Sent> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let socket = fd.kind() == FdKind::Socket;
    if socket && parts.rest.is_empty() {
        let bytes = &parts.first.bytes()[skip..];
        let number = number(fd)?;
        let sent = retry(|| nix::sys::socket::send(number, bytes, flags))?;
        return Ok(Sent { bytes: sent, whole: sent == bytes.len() });
    }
    let gather = Gather::new(parts, skip);
    let sent = if socket {
        let number = number(fd)?;
        retry(|| nix::sys::socket::sendmsg::<()>(number, gather.slices(), &[], flags, None))?
    } else {
        let fd = os(fd)?;
        retry(|| nix::sys::uio::writev(fd, gather.slices()))?
    };
    Ok(Sent { bytes: sent, whole: sent == gather.bytes })
}

/// Sends at most `len` bytes of `file` from `offset`; 0 is the end of the file.
pub(crate) fn sendfile(fd: &Fd, file: &Fd, offset: u64, len: usize) -> io::Result<usize> {
    let (fd, file) = (os(fd)?, os(file)?);
    let start = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    retry(|| {
        let mut offset = start;
        nix::sys::sendfile::sendfile64(fd, file, Some(&mut offset), len)
    })
}

/// Accepts one connection.
pub(crate) fn accept(fd: &Fd) -> io::Result<Fd> {
    let number = number(fd)?;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let made = retry(|| nix::sys::socket::accept4(number, flags))?;
    // SAFETY: accept4 has just made this descriptor, and nobody else knows its number.
    let owned = unsafe { OwnedFd::from_raw_fd(made) };
    Ok(Fd::from_os(owned, FdKind::Socket))
}

/// Starts to connect, or asks how it goes: `Ok` is connected (`EISCONN` says the same the second
/// time), `EINPROGRESS` and `EALREADY` are under way.
pub(crate) fn connect(fd: &Fd, to: &SockAddr) -> io::Result<()> {
    let fd = os(fd)?;
    SockRef::from(&fd).connect(to)
}

/// Whether a socket is a Unix one.
pub(crate) fn is_unix(fd: &Fd) -> bool {
    let domain = |fd: &Fd| SockRef::from(&os(fd)?).domain();
    domain(fd).is_ok_and(|domain| domain == socket2::Domain::UNIX)
}

/// Puts `with` behind the number of `target`, whatever that named before.
pub(crate) fn replace(target: impl AsFd, with: OwnedFd) -> io::Result<()> {
    let number = target.as_fd().as_raw_fd();
    // SAFETY: both numbers are open and ours for the whole call. What `target` named is closed,
    // but its number stays open throughout, so every holder of it keeps a valid descriptor.
    let replaced = unsafe { libc::dup3(with.as_raw_fd(), number, libc::O_CLOEXEC) };
    Errno::result(replaced)?;
    Ok(())
}
