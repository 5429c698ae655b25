//! File ranges: the one thing that is read from the real machine, through std alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ringlane_api::fd::Fd;

use super::names::{errno, os};

/// pread(2) of a real file.
pub(super) fn read_at(file: &Fd, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let fd = file.as_os().ok_or_else(|| os(errno::EBADF))?;
    File::from(fd.try_clone_to_owned()?).read_at(into, offset)
}
