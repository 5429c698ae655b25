//! Where a memory file is mapped, in builds with debug assertions: between pages that nobody may
//! touch.
//!
//! ```text
//!   | PROT_NONE | header | counters | ring 0 | ring 1 | PROT_NONE |
//! ```
//!
//! AddressSanitizer does not see overruns of a map; these pages do. The last ring ends flush with
//! them. They are not there in a forked child, as the map between them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Bytes on each side: a page, however large pages are here.
const GUARD: usize = 64 << 10;

/// The mapping and its guards. Dropping it unmaps all three.
pub(super) struct Place {
    area: *mut u8,
    area_bytes: usize,
    bytes: usize,
}

impl Place {
    /// Maps `bytes` of `fd`, not to be there in a forked child.
    pub(super) fn new(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Place> {
        Place::with(fd, bytes, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// The same, to be read only.
    pub(super) fn read_only(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Place> {
        Place::with(fd, bytes, libc::PROT_READ)
    }

    fn with(fd: BorrowedFd<'_>, bytes: usize, rights: i32) -> io::Result<Place> {
        let area_bytes = bytes
            .checked_next_multiple_of(GUARD)
            .and_then(|inside| inside.checked_add(2 * GUARD))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let area =
            unsafe { libc::mmap(ptr::null_mut(), area_bytes, libc::PROT_NONE, flags, -1, 0) };
        if area == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // From here on its drop unmaps.
        let place = Place { area: area.cast(), area_bytes, bytes };
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: the range lies inside the area that was mapped above, which nobody else knows.
        let inside = unsafe {
            libc::mmap(place.as_mut_ptr().cast(), bytes, rights, flags, fd.as_raw_fd(), 0)
        };
        if inside == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range is the whole area, which is mapped.
        let advised = unsafe { libc::madvise(area, area_bytes, libc::MADV_DONTFORK) };
        if advised != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(place)
    }

    /// Bytes mapped between the guards.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// The first of them.
    pub(super) fn as_mut_ptr(&self) -> *mut u8 {
        self.area.wrapping_add(GUARD)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // SAFETY: the area was mapped by `new`, and nobody uses it afterwards.
        unsafe { libc::munmap(self.area.cast(), self.area_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};

    use super::*;

    const BYTES: usize = 3 * crate::layout::PAGE;

    fn memory() -> OwnedFd {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"ringlane-guarded".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: it was opened a line above, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let file = File::from(fd);
        file.set_len(BYTES as u64).expect("a memory file grows");
        file.into()
    }

    /// What becomes of a child that maps the file and reads the byte at an offset: its exit code,
    /// or the signal it died of.
    fn child_reads(fd: &OwnedFd, at: isize) -> Result<i32, i32> {
        // SAFETY: the child makes system calls and one read, and allocates nothing.
        match unsafe { libc::fork() } {
            0 => {
                let code = Place::new(fd.as_fd(), BYTES).map_or(9, |place| {
                    let byte = place.as_mut_ptr().wrapping_offset(at);
                    // SAFETY: inside the map for some offsets; for others it is what is tested,
                    // and ends this process.
                    i32::from(unsafe { byte.read_volatile() })
                });
                // SAFETY: it ends the process.
                unsafe { libc::_exit(code) }
            }
            child => {
                let mut status = 0;
                // SAFETY: the status is ours to be written.
                let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
                assert!(child > 0 && waited == child, "{}", io::Error::last_os_error());
                match libc::WIFSIGNALED(status) {
                    true => Err(libc::WTERMSIG(status)),
                    false => Ok(libc::WEXITSTATUS(status)),
                }
            }
        }
    }

    #[test]
    fn who_reads_one_byte_beside_a_map_dies_of_it() {
        let fd = memory();
        let end = BYTES as isize;
        assert_eq!(child_reads(&fd, 0), Ok(0));
        assert_eq!(child_reads(&fd, end - 1), Ok(0));
        for beside in [-1, end, end + GUARD as isize - 1, -(GUARD as isize)] {
            assert_eq!(child_reads(&fd, beside), Err(libc::SIGSEGV), "{beside}");
        }
    }

    #[test]
    fn neither_map_nor_guards_are_there_in_a_forked_child_or_after_the_drop() {
        let fd = memory();
        let place = Place::new(fd.as_fd(), BYTES).expect("it maps");
        let (area, bytes) = (place.area, place.area_bytes);
        // ENOMEM: not mapped.
        let is_mapped = move || {
            // SAFETY: it changes nothing, whatever lies there.
            let asked = unsafe { libc::madvise(area.cast(), bytes, libc::MADV_NORMAL) };
            asked == 0
        };
        assert!(is_mapped());
        // SAFETY: the child makes two system calls and allocates nothing.
        match unsafe { libc::fork() } {
            // SAFETY: it ends the process.
            0 => unsafe { libc::_exit(i32::from(is_mapped())) },
            child => {
                let mut status = -1;
                // SAFETY: the status is ours to be written.
                let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
                assert_eq!((waited, status), (child, 0), "mapped in the child");
            }
        }
        drop(place);
    }
}
