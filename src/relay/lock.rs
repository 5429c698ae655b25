//! One relay per host: a name that the kernel frees when its holder dies, however it dies.
//!
//! ```text
//!   @ringlane-lock-UID-HOST.1     the relay
//!                          .2     one that took over from it (`--takeover`)
//! ```
//!
//! The name is that of a Unix socket in the abstract namespace, so nothing is left behind and
//! nothing is stale. A relay that was stopped and goes on looks whether somebody holds a later
//! number, and ends: its successor has everything.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockopt,
    listen, socket, sockopt::PeerCredentials,
};

/// Relays of one host that live at the same time, at most: the one, and stopped ones.
const NUMBERS: u32 = 9;

/// Who holds the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its process; 0 if it is outside of our process namespace.
    pub pid: u32,
    /// Its number.
    pub number: u32,
}

/// Why there is no lock.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refused {
    /// Somebody holds it.
    Held(Holder),
    /// So many relays of this host are stopped that no number is left.
    TooMany,
    /// The kernel does not make the socket.
    Failed(io::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Held(Holder { pid, .. }) => write!(
                f,
                "process {pid} is the relay of this host; stop it, or start with --takeover if it \
                 hangs"
            ),
            Refused::TooMany => {
                write!(f, "{NUMBERS} relays of this host are stopped; kill them")
            }
            Refused::Failed(error) => write!(f, "the lock cannot be made: {error}"),
        }
    }
}

impl std::error::Error for Refused {}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Refused {
        Refused::Failed(errno.into())
    }
}

/// The lock. Dropping it frees it.
#[derive(Debug)]
pub struct Lock {
    listener: OwnedFd,
    uid: u32,
    host: String,
    number: u32,
}

fn address(uid: u32, host: &str, number: u32) -> Result<UnixAddr, Errno> {
    UnixAddr::new_abstract(format!("ringlane-lock-{uid}-{host}.{number}").as_bytes())
}

fn stream() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

/// Who holds a number.
fn holder(uid: u32, host: &str, number: u32) -> Result<Option<Holder>, Errno> {
    let probe = stream()?;
    match connect(probe.as_raw_fd(), &address(uid, host, number)?) {
        Ok(()) => {
            let who = getsockopt(&probe, PeerCredentials)?;
            Ok(Some(Holder { pid: u32::try_from(who.pid()).unwrap_or(0), number }))
        }
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(None),
        // Nobody takes connections there: a stopped one.
        Err(Errno::EAGAIN) => Ok(Some(Holder { pid: 0, number })),
        Err(errno) => Err(errno),
    }
}

impl Lock {
    /// Takes the lock of a user's relay for a host. With `takeover` a holder does not matter.
    ///
    /// ```
    /// use ringlane::relay::lock::{Lock, Refused};
    /// let host = format!("doc-{}", std::process::id());
    /// let lock = Lock::take(0, &host, false)?;
    /// assert!(matches!(Lock::take(0, &host, false), Err(Refused::Held(_))));
    /// let next = Lock::take(0, &host, true)?;
    /// assert!(lock.is_replaced()? && !next.is_replaced()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take(uid: u32, host: &str, takeover: bool) -> Result<Lock, Refused> {
        let mut last = None;
        for number in 1..=NUMBERS {
            last = holder(uid, host, number)?.or(last);
        }
        let number = match last {
            None => 1,
            Some(holder) if !takeover => return Err(Refused::Held(holder)),
            Some(holder) if holder.number == NUMBERS => return Err(Refused::TooMany),
            Some(holder) => holder.number + 1,
        };
        let listener = stream()?;
        match bind(listener.as_raw_fd(), &address(uid, host, number)?) {
            Ok(()) => {}
            // Somebody was quicker.
            Err(Errno::EADDRINUSE) => return Err(Refused::Held(Holder { pid: 0, number })),
            Err(errno) => return Err(errno.into()),
        }
        listen(&listener, Backlog::MAXCONN)?;
        Ok(Lock { listener, uid, host: host.to_string(), number })
    }

    /// Which relay this is of those that live, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether a later one has taken over.
    pub fn is_replaced(&self) -> io::Result<bool> {
        for number in self.number + 1..=NUMBERS {
            if holder(self.uid, &self.host, number)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets go of those who have asked who holds it. Now and then.
    pub fn sweep(&self) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        while let Ok(asker) = accept4(self.listener.as_raw_fd(), flags) {
            let _ = nix::unistd::close(asker);
        }
    }
}

/// The socket of a relay with a number: the usual one, or one beside it.
///
/// ```
/// assert_eq!(ringlane::relay::lock::socket_of("unix://@r", 1), "unix://@r");
/// assert_eq!(ringlane::relay::lock::socket_of("unix://@r", 3), "unix://@r.3");
/// ```
pub fn socket_of(usual: &str, number: u32) -> String {
    if number == 1 { usual.to_string() } else { format!("{usual}.{number}") }
}
