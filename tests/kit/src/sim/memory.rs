//! Memory files: real files that lost their name at once, so that they can be mapped. What they
//! hold depends on the program alone, so a seed still replays.

use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};

use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::reactor::Memory;

use super::names::{errno, os};

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A nameless file of zeros.
pub(super) fn make(bytes: u64) -> io::Result<Fd> {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("ringlane-kit-memory-{}-{n}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    remove_file(&path)?;
    file.set_len(bytes)?;
    Ok(Fd::from_os(file.into(), FdKind::File))
}

/// A file without a name counts as sealed: only [`make`] makes such.
pub(super) fn look_at(fd: &Fd) -> io::Result<Memory> {
    let fd = fd.as_os().ok_or_else(|| os(errno::EINVAL))?;
    let found = File::from(fd.try_clone_to_owned()?).metadata()?;
    let nameless = found.is_file() && found.nlink() == 0;
    Ok(Memory { bytes: found.len(), sealed: nameless, plain: true, id: found.ino() })
}
