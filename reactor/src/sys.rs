//! The calls that are answered at once, and the one room of this crate (beside `uring`) where
//! `unsafe` may stand.
//!
//! Invariant: nothing here blocks. Every descriptor that is made or taken in is non-blocking and
//! close-on-exec, and every transfer says `MSG_DONTWAIT`.
//!
//! ```text
//!   sys.rs          Kernel: the answers to `Sys`
//!   sys/name.rs     names of sockets, and their limits
//!   sys/transfer.rs the hot path: recv, send, accept, connect, sendfile
//!   sys/message.rs  bytes with descriptors
//!   sys/shared.rs   memory files, futex words, eventfds, pidfds
//!   sys/signal.rs   signals as descriptors
//!   sys/watch.rs    readiness: epoll and poll
//! ```

mod counter;
mod message;
mod name;
mod shared;
mod signal;
mod transfer;
mod watch;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::kill;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::stat::{Mode, SFlag, fstat, lstat};
use nix::unistd::Pid;
use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::reactor::{
    Credentials, Family, Memory, Occupant, SharedWord, Side, SockName, SockOption, Sys,
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

pub(crate) use message::{recv_message, send_message};
pub(crate) use name::{from_kernel, to_kernel};
pub(crate) use transfer::{
    Sent, accept, connect, is_unix, recv, recv_noting, replace, send, sendfile,
};
pub(crate) use watch::{Watch, poll_now};

/// How long the ring of a process that was killed may hold its sockets, in ms.
const RING_END_MS: u16 = 500;

/// How long a taken port is waited for, and how often it is looked at: nothing tells a living
/// holder from the ring of a dead one, so the error for a living one is that late.
const PORT_WAIT: Duration = Duration::from_millis(200);
const PORT_LOOK: Duration = Duration::from_millis(10);

/// The kernel, as far as it answers at once.
#[derive(Default)]
pub(crate) struct Kernel {
    signals: signal::Signals,
    ringer: counter::Ringer,
}

impl Kernel {
    /// Opens the door.
    pub(crate) fn new() -> Kernel {
        Kernel::default()
    }

    /// In a forked child: signals get pipes of their own, so that the parent's no longer ring
    /// here and ours do not ring there. The numbers of the descriptors stay.
    pub(crate) fn after_fork(&mut self) -> io::Result<()> {
        self.ringer.after_fork();
        self.signals.after_fork()
    }
}

/// The kernel's descriptor behind `fd`.
pub(crate) fn os(fd: &Fd) -> io::Result<BorrowedFd<'_>> {
    fd.as_os().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
}

/// What a descriptor is, without changing it.
pub(crate) fn kind_of(fd: BorrowedFd<'_>) -> io::Result<FdKind> {
    let mode = SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT;
    Ok(match mode {
        SFlag::S_IFSOCK => FdKind::Socket,
        SFlag::S_IFREG | SFlag::S_IFBLK | SFlag::S_IFDIR => FdKind::File,
        // Pipes, FIFOs, ttys and other character devices; eventfd, timerfd and their kin have no
        // type at all.
        _ => FdKind::Pollable,
    })
}

/// The limit on locked memory, in bytes; `None` where there is none.
pub(crate) fn locked_memory_limit() -> Option<u64> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

fn domain(family: Family) -> Domain {
    match family {
        Family::Inet4 => Domain::IPV4,
        Family::Inet6 => Domain::IPV6,
        Family::Unix => Domain::UNIX,
    }
}

fn option<T>(fd: &Fd, set: impl FnOnce(SockRef<'_>) -> io::Result<T>) -> io::Result<T> {
    let fd = os(fd)?;
    set(SockRef::from(&fd))
}

fn wrap(socket: Socket) -> Fd {
    Fd::from_os(OwnedFd::from(socket), FdKind::Socket)
}

/// Whether a connection to a Unix listener leads to nobody: the process that listened is gone, and
/// the kernel is about to let go of its socket. A ring that dies with its process is taken down in
/// the background and holds its sockets until then; a child that has inherited the listener keeps
/// it, and then the connection stays.
fn lost(probe: &Socket) -> bool {
    let Ok(listener) = getsockopt(probe, PeerCredentials) else { return false };
    let pid = Pid::from_raw(listener.pid());
    if pid.as_raw() <= 0 || kill(pid, None) != Err(Errno::ESRCH) {
        return false;
    }
    // A hang-up is reported unasked.
    let mut end = [PollFd::new(probe.as_fd(), PollFlags::empty())];
    matches!(poll(&mut end, RING_END_MS), Ok(1..))
}

impl Sys for Kernel {
    fn socket(&mut self, family: Family) -> io::Result<Fd> {
        // socket2 sets both flags in the same call.
        let kind = Type::STREAM.nonblocking().cloexec();
        Ok(wrap(Socket::new_raw(domain(family), kind, None::<Protocol>)?))
    }

    fn pair(&mut self) -> io::Result<(Fd, Fd)> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let (a, b) = Socket::pair_raw(Domain::UNIX, kind, None)?;
        Ok((wrap(a), wrap(b)))
    }

    fn adopt(&mut self, fd: OwnedFd) -> io::Result<Fd> {
        use std::os::fd::AsFd;
        let mode = SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT;
        if mode == SFlag::S_IFDIR {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        let kind = kind_of(fd.as_fd())?;
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        if kind != FdKind::File && !flags.contains(OFlag::O_NONBLOCK) {
            fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        let flags = FdFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFD)?);
        if !flags.contains(FdFlag::FD_CLOEXEC) {
            fcntl(&fd, FcntlArg::F_SETFD(flags | FdFlag::FD_CLOEXEC))?;
        }
        Ok(Fd::from_os(fd, kind))
    }

    fn bind(&mut self, fd: &Fd, name: &SockName) -> io::Result<()> {
        let address = to_kernel(name)?;
        let mut waited = Duration::ZERO;
        loop {
            let result = option(fd, |socket| socket.bind(&address));
            // The port may belong to a process that was just killed; see `lost`.
            let taken = matches!(&result, Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE));
            if !taken || !matches!(name, SockName::Inet(_)) || waited >= PORT_WAIT {
                return result;
            }
            std::thread::sleep(PORT_LOOK);
            waited += PORT_LOOK;
        }
    }

    fn listen(&mut self, fd: &Fd, backlog: u32) -> io::Result<()> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        option(fd, |socket| socket.listen(backlog))
    }

    fn set(&mut self, fd: &Fd, what: SockOption) -> io::Result<()> {
        option(fd, |socket| match what {
            SockOption::NoDelay(on) => socket.set_tcp_nodelay(on),
            SockOption::Keepalive { idle, interval, count } => {
                let probes = TcpKeepalive::new().with_time(idle).with_interval(interval);
                socket.set_tcp_keepalive(&probes.with_retries(count))
            }
            SockOption::UserTimeout(after) => socket.set_tcp_user_timeout(Some(after)),
            SockOption::ReuseAddress(on) => socket.set_reuse_address(on),
            SockOption::ReusePort(on) => socket.set_reuse_port(on),
            SockOption::V6Only(on) => socket.set_only_v6(on),
            SockOption::SendBuffer(bytes) => socket.set_send_buffer_size(bytes as usize),
            SockOption::ReceiveBuffer(bytes) => socket.set_recv_buffer_size(bytes as usize),
            SockOption::ResetOnClose(on) => {
                socket.set_linger(on.then_some(std::time::Duration::ZERO))
            }
        })
    }

    fn local_name(&mut self, fd: &Fd) -> io::Result<SockName> {
        option(fd, |socket| socket.local_addr()).and_then(|name| from_kernel(&name))
    }

    fn peer_name(&mut self, fd: &Fd) -> io::Result<SockName> {
        option(fd, |socket| socket.peer_addr()).and_then(|name| from_kernel(&name))
    }

    fn credentials(&mut self, fd: &Fd) -> io::Result<Credentials> {
        use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
        let found = getsockopt(&os(fd)?, PeerCredentials)?;
        Ok(Credentials { pid: found.pid(), uid: found.uid(), gid: found.gid() })
    }

    fn shutdown(&mut self, fd: &Fd, side: Side) -> io::Result<()> {
        let how = match side {
            Side::Read => std::net::Shutdown::Read,
            Side::Write => std::net::Shutdown::Write,
            Side::Both => std::net::Shutdown::Both,
        };
        option(fd, |socket| socket.shutdown(how))
    }

    fn occupant(&mut self, path: &Path) -> io::Result<Occupant> {
        let name = to_kernel(&SockName::Path(path.to_path_buf()))?;
        match lstat(path) {
            Err(Errno::ENOENT) => return Ok(Occupant::Nobody),
            Err(error) => return Err(error.into()),
            Ok(found) => {
                let mode = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
                if mode != SFlag::S_IFSOCK {
                    return Ok(Occupant::NotASocket);
                }
            }
        }
        let kind = Type::STREAM.nonblocking().cloexec();
        let mut probe = Socket::new_raw(Domain::UNIX, kind, None)?;
        let mut answer = probe.connect(&name);
        if answer.is_ok() && lost(&probe) {
            probe = Socket::new_raw(Domain::UNIX, kind, None)?;
            answer = probe.connect(&name);
        }
        match answer {
            Ok(()) => Ok(Occupant::Listening),
            Err(error) => match error.raw_os_error() {
                Some(libc::ECONNREFUSED) => Ok(Occupant::Stale),
                // EAGAIN: its backlog is full. EPROTOTYPE: a datagram socket somebody holds.
                Some(libc::EAGAIN | libc::EINPROGRESS | libc::EPROTOTYPE) => {
                    Ok(Occupant::Listening)
                }
                Some(libc::ENOENT) => Ok(Occupant::Nobody),
                Some(libc::ENOTSOCK) => Ok(Occupant::NotASocket),
                _ => Err(error),
            },
        }
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        Ok(nix::unistd::unlink(path)?)
    }

    fn chmod(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        use nix::sys::stat::{FchmodatFlags, fchmodat};
        let mode = Mode::from_bits(mode).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("mode {mode:o} is not a mode"))
        })?;
        Ok(fchmodat(nix::fcntl::AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink)?)
    }

    fn signal(&mut self, number: i32) -> io::Result<Fd> {
        self.signals.open(number)
    }

    fn drain(&mut self, fd: &Fd) -> io::Result<u64> {
        let (mut room, mut came) = ([0u8; 1024], 0);
        loop {
            match recv(fd, &mut room) {
                Ok(0) => return Ok(came),
                Ok(n) => came += n as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(came),
                Err(error) => return Err(error),
            }
        }
    }

    fn memory(&mut self, bytes: u64) -> io::Result<Fd> {
        shared::memory(bytes)
    }

    fn memory_of(&mut self, fd: &Fd) -> io::Result<Memory> {
        shared::memory_of(fd)
    }

    fn futex_wake(&mut self, word: &dyn SharedWord) -> io::Result<u32> {
        shared::futex_wake(word)
    }

    fn event(&mut self) -> io::Result<Fd> {
        shared::event()
    }

    fn ring(&mut self, event: &Fd) -> io::Result<()> {
        shared::ring(event)
    }

    fn ring_shared(&mut self, event: &Fd) -> io::Result<()> {
        self.ringer.ring(event)
    }

    fn pidfd(&mut self, socket: &Fd) -> io::Result<Fd> {
        shared::pidfd(socket)
    }

    fn uid(&mut self) -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    fn give_way(&mut self) {
        std::thread::yield_now();
    }

    fn cpus(&mut self) -> usize {
        // It looks at the affinity mask and at the quota of the control group.
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn read_at(&mut self, file: &Fd, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let start = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        let mut filled = 0;
        while filled < into.len() {
            let at = start.checked_add(filled as i64).ok_or(Errno::EOVERFLOW)?;
            match nix::sys::uio::pread(os(file)?, &mut into[filled..], at) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    }
}

/// Whether a path can be the name of a Unix socket at all.
fn fits(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    !bytes.is_empty() && bytes.len() <= name::PATH_BYTES_MAX && !bytes.contains(&0)
}

/// The number, for calls that only take numbers. It is open as long as `fd` is held.
fn number(fd: &Fd) -> io::Result<i32> {
    Ok(os(fd)?.as_raw_fd())
}
