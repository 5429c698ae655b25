//! Bytes with descriptors (unix(7) SCM_RIGHTS).
//!
//! Invariant: a descriptor that arrives is owned from the first line on: wrapped, or closed.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags};
use ringlane_api::fd::Fd;
use ringlane_api::limits::MESSAGE_FDS_MAX;
use ringlane_api::segment::Parts;

use super::transfer::{Gather, Sent, retry};
use super::{kind_of, number};

/// Room for the ancillary data of one message, aligned as a `cmsghdr`.
const CONTROL_BYTES: usize = 16 + MESSAGE_FDS_MAX * size_of::<RawFd>();
const _: () = assert!(CONTROL_BYTES.is_multiple_of(8), "the control room is whole words");

/// What a receive with ancillary data brought.
pub(crate) struct Bytes {
    /// Bytes received; 0 is the end of the stream.
    pub(crate) len: usize,
    /// Descriptors, close-on-exec.
    pub(crate) fds: Vec<Fd>,
    /// Descriptors were dropped by the kernel or by us.
    pub(crate) truncated: bool,
}

/// Receives bytes with the descriptors that came along.
pub(crate) fn recv_message(fd: &Fd, into: &mut [u8]) -> io::Result<Bytes> {
    let number = number(fd)?;
    let mut control = [0u64; CONTROL_BYTES / 8];
    let mut room = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: all-zero bytes are a valid msghdr (null pointers, zero lengths).
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut room;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let len = retry(|| {
        // SAFETY: the header names `into` and `control`, both alive and exclusively borrowed for
        // the whole call, with their true lengths.
        Errno::result(unsafe { libc::recvmsg(number, &raw mut header, flags) })
    })?;
    let (fds, surplus) = take_descriptors(&header);
    let truncated = surplus || header.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Bytes { len: len as usize, fds, truncated })
}

/// Owns every descriptor in `header`; whether some could not be kept.
fn take_descriptors(header: &libc::msghdr) -> (Vec<Fd>, bool) {
    let (mut fds, mut surplus) = (Vec::new(), false);
    // SAFETY: the header was filled in by recvmsg and its control room is alive in the caller.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return pointers to whole headers in the room.
        let head = unsafe { at.read_unaligned() };
        if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: CMSG_LEN only computes.
            let start = unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: as above; the data lie behind the header inside the room.
            let data = unsafe { libc::CMSG_DATA(at) }.cast::<RawFd>();
            for i in 0..head.cmsg_len.saturating_sub(start) / size_of::<RawFd>() {
                // SAFETY: `i` is below the count that cmsg_len states, inside the room.
                let slot = unsafe { data.add(i) };
                // SAFETY: as above.
                let raw = unsafe { slot.read_unaligned() };
                // SAFETY: the kernel has just installed this descriptor for us, and each is read
                // once.
                let owned = unsafe { OwnedFd::from_raw_fd(raw) };
                match kind_of(owned.as_fd()) {
                    Ok(kind) if fds.len() < MESSAGE_FDS_MAX => fds.push(Fd::from_os(owned, kind)),
                    _ => surplus = true,
                }
            }
        }
        // SAFETY: `at` is a header inside the room of `header`.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
    (fds, surplus)
}

/// Sends the start of `parts` with `fds` attached to its first byte.
pub(crate) fn send_message(fd: &Fd, parts: &Parts, fds: &[Fd]) -> io::Result<Sent> {
    if fds.len() > MESSAGE_FDS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} descriptors in one message; the limit is {MESSAGE_FDS_MAX}", fds.len()),
        ));
    }
    let to = number(fd)?;
    let mut numbers = [-1; MESSAGE_FDS_MAX];
    for (slot, fd) in numbers.iter_mut().zip(fds) {
        *slot = number(fd)?;
    }
    let gather = Gather::new(parts, 0);
    let rights = [ControlMessage::ScmRights(&numbers[..fds.len()])];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let sent = retry(|| nix::sys::socket::sendmsg::<()>(to, gather.slices(), rights, flags, None))?;
    Ok(Sent { bytes: sent, whole: sent == gather.bytes })
}
