//! What the kernel answers at once, as a contract: [`Sys`], and the words it uses.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use crate::fd::Fd;
use crate::reactor::{Credentials, SockName};
use crate::shared::{Memory, SharedWord};

/// The address family of a socket to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    Inet4,
    /// IPv6.
    Inet6,
    /// AF_UNIX.
    Unix,
}

/// A socket option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SockOption {
    /// Send small segments at once (tcp(7) TCP_NODELAY).
    NoDelay(bool),
    /// Probe an idle peer (tcp(7) TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).
    Keepalive {
        /// Silence before the first probe.
        idle: Duration,
        /// Between probes.
        interval: Duration,
        /// Unanswered probes that end the connection.
        count: u32,
    },
    /// How long sent bytes may stay unacknowledged (tcp(7) TCP_USER_TIMEOUT).
    UserTimeout(Duration),
    /// Bind over connections in TIME_WAIT (socket(7) SO_REUSEADDR).
    ReuseAddress(bool),
    /// Several listeners on one port (socket(7) SO_REUSEPORT).
    ReusePort(bool),
    /// An IPv6 socket takes no IPv4 (ipv6(7) IPV6_V6ONLY).
    V6Only(bool),
    /// Kernel send buffer in bytes (socket(7) SO_SNDBUF).
    SendBuffer(u32),
    /// Kernel receive buffer in bytes (socket(7) SO_RCVBUF).
    ReceiveBuffer(u32),
    /// Closing drops unsent bytes and sends a reset (socket(7) SO_LINGER 0).
    ResetOnClose(bool),
}

/// Which direction of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Receiving.
    Read,
    /// Sending.
    Write,
    /// Both.
    Both,
}

/// What stands at a path where a Unix socket is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occupant {
    /// Nothing.
    Nobody,
    /// A socket file that nobody listens on.
    Stale,
    /// A socket somebody listens on.
    Listening,
    /// Something that is not a socket.
    NotASocket,
}

/// The calls that are answered at once.
pub trait Sys {
    /// A non-blocking, close-on-exec stream socket.
    fn socket(&mut self, family: Family) -> io::Result<Fd>;
    /// Two connected Unix stream sockets.
    fn pair(&mut self) -> io::Result<(Fd, Fd)>;
    /// Takes a descriptor from outside: finds out what it is, makes it non-blocking and
    /// close-on-exec.
    fn adopt(&mut self, fd: OwnedFd) -> io::Result<Fd>;
    /// Names a socket.
    fn bind(&mut self, fd: &Fd, name: &SockName) -> io::Result<()>;
    /// Starts to listen.
    fn listen(&mut self, fd: &Fd, backlog: u32) -> io::Result<()>;
    /// Sets an option.
    fn set(&mut self, fd: &Fd, option: SockOption) -> io::Result<()>;
    /// This side's name.
    fn local_name(&mut self, fd: &Fd) -> io::Result<SockName>;
    /// The other side's name.
    fn peer_name(&mut self, fd: &Fd) -> io::Result<SockName>;
    /// Who connected (unix(7) SO_PEERCRED).
    fn credentials(&mut self, fd: &Fd) -> io::Result<Credentials>;
    /// Ends a direction of a connection.
    fn shutdown(&mut self, fd: &Fd, side: Side) -> io::Result<()>;
    /// Looks at a path where a Unix socket is wanted, by trying to connect.
    fn occupant(&mut self, path: &Path) -> io::Result<Occupant>;
    /// Removes a socket file.
    fn unlink(&mut self, path: &Path) -> io::Result<()>;
    /// Sets the mode of a socket file.
    fn chmod(&mut self, path: &Path, mode: u32) -> io::Result<()>;
    /// A descriptor that is readable when signal `number` has come; dropping it lets the signal
    /// go. One base per process owns the signals.
    fn signal(&mut self, number: i32) -> io::Result<Fd>;
    /// Reads everything from a signal descriptor; returns how often it came.
    fn drain(&mut self, fd: &Fd) -> io::Result<u64>;
    /// Makes a memory file of so many bytes that no file system knows: all of its pages are there,
    /// its size is sealed for ever, and nobody can execute it.
    fn memory(&mut self, bytes: u64) -> io::Result<Fd>;
    /// What a descriptor is that is said to be a memory file.
    fn memory_of(&mut self, fd: &Fd) -> io::Result<Memory>;
    /// Wakes whoever waits on the word, in whichever process; returns how many did.
    fn futex_wake(&mut self, word: &dyn SharedWord) -> io::Result<u32>;
    /// A counter that is readable when it was rung (eventfd(2)), for an edge-triggered poll: it
    /// is never read.
    fn event(&mut self) -> io::Result<Fd>;
    /// Rings a counter that [`Sys::event`] made. Not for one that a stranger holds, too: he can
    /// make the write block.
    fn ring(&mut self, event: &Fd) -> io::Result<()>;
    /// Rings a counter that a stranger holds, too, and never waits, whatever he does with it.
    /// `InvalidInput` if it is no counter; `Unsupported` where the kernel has no way to do it.
    fn ring_shared(&mut self, event: &Fd) -> io::Result<()>;
    /// A descriptor that is readable when the process has ended that made this connection, or that
    /// listened (socket(7) SO_PEERPIDFD).
    fn pidfd(&mut self, socket: &Fd) -> io::Result<Fd>;
    /// Lets whoever else wants this processor have it (sched_yield(2)).
    fn give_way(&mut self);
    /// The user we are.
    fn uid(&mut self) -> u32;
    /// Processors this thread may run on.
    fn cpus(&mut self) -> usize;
    /// Reads a file range into memory; fewer bytes at the end of the file.
    fn read_at(&mut self, file: &Fd, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}
