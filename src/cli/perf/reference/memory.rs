//! Directions through memory that both processes map: a buffer of messages and two semaphores, as
//! textbooks have it.
//!
//! ```text
//!   send     wait(free)    copy in,  post(filled)
//!   receive  wait(filled)  copy out, post(free)
//! ```
//!
//! A semaphore is what sem_post(3) and sem_wait(3) of glibc are made of: a count and how many
//! wait, and a futex that is called only if somebody does. (No safe crate calls sem_open.)

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, posix_fallocate};
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::stat::Mode;
use ringlane::map::{Fork, Map};
use rustix::io::Errno;
use rustix::thread::futex;

use super::{Reference, Way};

/// Whether this build can do it.
pub const HERE: bool = true;

/// Bytes of messages that a direction holds: as many as a pipe.
const BUFFER_BYTES: usize = 64 * 1024;

/// Messages that it holds, at least: one is written while the other is read.
const SLOTS_MIN: usize = 2;

/// Where the semaphores stand, each on a line of its own; messages begin behind them.
const FILLED: usize = 0;
const FREE: usize = 128;
const SLOTS: usize = 4096;

/// How long the other process may take over a message.
const PATIENCE: futex::Timespec = futex::Timespec { tv_sec: 10, tv_nsec: 0 };

fn slots(size: usize) -> usize {
    (BUFFER_BYTES / size).max(SLOTS_MIN)
}

/// Opens what has that name; memory and files are mapped alike.
fn file(reference: Reference, name: &str, new: bool) -> Result<File> {
    let opened = if reference == Reference::Memory {
        let flags = if new { OFlag::O_CREAT | OFlag::O_EXCL } else { OFlag::empty() };
        shm_open(name, flags | OFlag::O_RDWR, Mode::S_IRUSR | Mode::S_IWUSR)
            .map(File::from)
            .map_err(io::Error::from)
    } else {
        OpenOptions::new().read(true).write(true).create_new(new).mode(0o600).open(name)
    };
    opened.with_context(|| format!("opening {name}"))
}

/// Makes a direction for messages of that size.
pub fn make(reference: Reference, name: &str, size: usize) -> Result<()> {
    let file = file(reference, name, true)?;
    let bytes = SLOTS + slots(size) * size;
    // All of it at once: memory that is missing later would be a SIGBUS.
    posix_fallocate(&file, 0, bytes as i64).with_context(|| format!("{bytes} bytes for {name}"))?;
    let lane = Lane::new(&file, size)?;
    lane.free().count.store(slots(size) as u32, Ordering::SeqCst);
    Ok(())
}

/// Takes a name of shm_open(3) away, if it is there.
pub fn unlink(name: &str) {
    let _ = shm_unlink(name);
}

pub(super) fn open(reference: Reference, name: &str, size: usize) -> Result<Box<dyn Way>> {
    Ok(Box::new(Lane::new(&file(reference, name, false)?, size)?))
}

/// One end of a direction.
struct Lane {
    map: Rc<Map>,
    size: usize,
    /// Messages that went through this end.
    messages: usize,
}

impl Lane {
    fn new(file: &File, size: usize) -> Result<Lane> {
        let bytes = SLOTS + slots(size) * size;
        // Nobody but us two knows it, and neither makes it shorter.
        let map = Map::new(file.as_fd(), bytes, 0, &Rc::new(Fork::new()?)).context("mapping")?;
        Ok(Lane { map, size, messages: 0 })
    }

    fn semaphore(&self, at: usize) -> Semaphore<'_> {
        Semaphore { count: self.map.u32_at(at), waiters: self.map.u32_at(at + 4) }
    }

    fn filled(&self) -> Semaphore<'_> {
        self.semaphore(FILLED)
    }

    fn free(&self) -> Semaphore<'_> {
        self.semaphore(FREE)
    }

    /// Where the next message is.
    fn next(&mut self) -> usize {
        let slot = self.messages % slots(self.size);
        self.messages += 1;
        SLOTS + slot * self.size
    }
}

impl Way for Lane {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.free().wait()?;
        let at = self.next();
        self.map.write(at, bytes);
        self.filled().post()
    }

    fn receive(&mut self, room: &mut [u8]) -> io::Result<()> {
        self.filled().wait()?;
        let at = self.next();
        self.map.read(at, room);
        self.free().post()
    }
}

/// A counting semaphore between processes.
struct Semaphore<'m> {
    count: &'m AtomicU32,
    waiters: &'m AtomicU32,
}

impl Semaphore<'_> {
    fn post(&self) -> io::Result<()> {
        self.count.fetch_add(1, Ordering::SeqCst);
        // Whoever is not counted yet sees the new count before it sleeps.
        if self.waiters.load(Ordering::SeqCst) > 0 {
            futex::wake(self.count, futex::Flags::empty(), 1)?;
        }
        Ok(())
    }

    fn take(&self) -> bool {
        let less = |count: u32| count.checked_sub(1);
        self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }

    fn wait(&self) -> io::Result<()> {
        if self.take() {
            return Ok(());
        }
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let outcome = loop {
            if self.take() {
                break Ok(());
            }
            match futex::wait(self.count, futex::Flags::empty(), 0, Some(&PATIENCE)) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => break Err(error.into()),
            }
        };
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        outcome
    }
}
