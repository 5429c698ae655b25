//! One relay per host name: a lock that the kernel frees at death.
//!
//! ```text
//!   take:       open a.lock -> flock, do not wait -> still the file of that name? -> write who
//!   take_over:  write who into a.lock.PID, locked -> rename it to a.lock
//! ```
//!
//! It is flock(2) on a file, not an abstract socket name, because a file can be taken over: the
//! relay that hangs keeps its lock on a file that has no name any more, and sees that by
//! [`Lock::is_mine`] once it is awake. Nothing depends on that, it only ends sooner: the rings and
//! links of the protocol are fenced by themselves.
//!
//! Invariant: whoever holds the lock on the file that has the name is the relay of that name. The
//! file is opened by its owner only: whoever may read a file may lock it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

#[cfg(test)]
mod tests;

/// Times that the file may be replaced under our hands before that is an error.
const REPLACED_MAX: usize = 16;

/// What is written into the file, at most.
const HOLDER_BYTES_MAX: u64 = 64;

/// The right to be the relay of a host name, until it is dropped or the process ends.
#[must_use]
pub struct Lock {
    path: PathBuf,
    file: Flock<File>,
}

/// Who has the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// When it took it: seconds since 1970.
    pub since: u64,
}

/// Why there is no lock to be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refused {
    /// Another process has it.
    Held {
        /// The file.
        path: PathBuf,
        /// Who; None in the moment in which it has not said so yet.
        holder: Option<Holder>,
    },
    /// The file cannot be opened, locked or written.
    Failed {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Lock {
    /// Takes the lock, or says who has it. `now` is seconds since 1970, for whom it may concern.
    ///
    /// ```
    /// use ringlane::relay::lock::{Lock, Refused};
    /// let path = std::env::temp_dir().join(format!("ringlane-doc-{}.lock", std::process::id()));
    /// let lock = Lock::take(&path, 1_764_221_921)?;
    /// let Err(refused) = Lock::take(&path, 1_764_221_922) else { panic!("there is but one") };
    /// assert!(refused.to_string().contains("since 2025-11-27 05:38:41 UTC"), "{refused}");
    /// drop(lock);
    /// assert!(!path.exists());
    /// # Ok::<(), Refused>(())
    /// ```
    pub fn take(path: &Path, now: u64) -> Result<Lock, Refused> {
        let failed = |error| Refused::Failed { path: path.into(), error };
        for _ in 0..REPLACED_MAX {
            let file = open(path).map_err(failed)?;
            let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    return Err(Refused::Held { path: path.into(), holder: holder(&mut file) });
                }
                Err((_, errno)) => return Err(failed(errno.into())),
            };
            let mut lock = Lock { path: path.into(), file };
            // Its last holder may have removed it, or somebody taken over, since it was opened.
            if lock.is_mine() {
                lock.sign(now).map_err(failed)?;
                return Ok(lock);
            }
        }
        Err(failed(io::Error::other("it is replaced again and again; is there a loop of starts?")))
    }

    /// Takes the lock although another may have it, who hangs: `--takeover`.
    pub fn take_over(path: &Path, now: u64) -> Result<Lock, Refused> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let mut lock = Lock::take(Path::new(&fresh), now)?;
        match fs::rename(&fresh, path) {
            Ok(()) => {
                lock.path = path.into();
                Ok(lock)
            }
            Err(error) => Err(Refused::Failed { path: path.into(), error }),
        }
    }

    /// Whether nobody has taken it over.
    pub fn is_mine(&self) -> bool {
        let named = fs::symlink_metadata(&self.path);
        let held = self.file.metadata();
        let same = |named: fs::Metadata, held: fs::Metadata| {
            (named.dev(), named.ino()) == (held.dev(), held.ino())
        };
        named.ok().zip(held.ok()).is_some_and(|(named, held)| same(named, held))
    }

    /// Writes who has it.
    fn sign(&mut self, now: u64) -> io::Result<()> {
        let line = format!("{} {now}\n", std::process::id());
        self.file.set_len(0)?;
        self.file.write_all(line.as_bytes())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: who opened the file meanwhile finds that it has lost its name.
        if self.is_mine() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock({})", self.path.display())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}

/// Who says in the file that it holds it.
fn holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.take(HOLDER_BYTES_MAX).read_to_string(&mut text).ok()?;
    let (pid, since) = text.strip_suffix('\n')?.split_once(' ')?;
    Some(Holder { pid: pid.parse().ok()?, since: since.parse().ok()? })
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Held { path, holder } => {
                let path = path.display();
                match holder {
                    Some(Holder { pid, since }) => {
                        let since = Utc(*since);
                        write!(f, "pid {pid} has the lock {path} since {since}")?;
                    }
                    None => write!(f, "a process that just starts has the lock {path}")?,
                }
                write!(f, "; stop it, or start with --takeover if it hangs")
            }
            Refused::Failed { path, error } => {
                write!(f, "the lock {} cannot be taken: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::NotFound => write!(f, "; make its folder"),
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "; its folder or the file itself belongs to another user")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for Refused {}

/// Seconds since 1970, to be read by people.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        // Days since 1 March of the year 0, in eras of 400 years (Hinnant, civil_from_days).
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}
