//! Memory files that a process and its relay share: made here, and checked here before one of
//! somebody else's is mapped.
//!
//! Such a file never changes its size again, so that whoever has mapped it meets no SIGBUS. A
//! sender's ring can also not be mapped for writing any more once its owner has: a relay reads it,
//! whatever it tries.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::ftruncate;

use crate::shm::through::{CONTROL_BYTES, inlet_bytes, outlet_bytes};
use crate::shm::{Fork, Map};

/// `F_SEAL_FUTURE_WRITE` of fcntl(2).
const FUTURE_WRITE: SealFlag = SealFlag::from_bits_retain(0x10);

/// `MFD_NOEXEC_SEAL` of memfd_create(2).
const NEVER_EXECUTABLE: MFdFlags = MFdFlags::from_bits_retain(0x8);

fn size_seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

/// Makes and maps memory that is shared. Cloning gives another handle.
#[derive(Clone)]
pub struct Memory {
    fork: Rc<Fork>,
}

/// A memory file of this process's own.
#[derive(Debug)]
pub struct Made {
    /// The file, to be passed on.
    pub fd: OwnedFd,
    /// The same, mapped.
    pub map: Rc<Map>,
}

/// Why a descriptor of somebody else's is not mapped.
#[derive(Debug)]
#[non_exhaustive]
pub enum Foreign {
    /// It is no memory file, or one of huge pages.
    NoMemory,
    /// Its owner may still shrink it, or it is not sealed as it should be.
    Unsealed,
    /// It has another size than its owner says.
    Size {
        /// Bytes that it should have.
        wanted: usize,
        /// Bytes that it has.
        found: u64,
    },
    /// The kernel does not map it.
    Map(io::Error),
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Foreign::NoMemory => f.write_str("the descriptor is no memory file (memfd_create)"),
            Foreign::Unsealed => f.write_str(
                "the memory file is not sealed: add F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL, \
                 and F_SEAL_FUTURE_WRITE to a ring that is sent from",
            ),
            Foreign::Size { wanted, found } => {
                write!(f, "the memory file has {found} bytes where {wanted} are said")
            }
            Foreign::Map(error) => write!(f, "the memory file cannot be mapped: {error}"),
        }
    }
}

impl std::error::Error for Foreign {}

impl From<Errno> for Foreign {
    fn from(errno: Errno) -> Foreign {
        Foreign::Map(errno.into())
    }
}

impl Memory {
    /// Of this process: a forked child needs its own.
    pub fn new() -> io::Result<Memory> {
        Ok(Memory { fork: Rc::new(Fork::new()?) })
    }

    /// A ring to send from, of `ring` bytes: nobody else can map it for writing.
    pub fn make_outlet(&self, ring: u32) -> io::Result<Made> {
        self.make(outlet_bytes(ring), FUTURE_WRITE)
    }

    /// A control page for one attachment of a ring to send from.
    pub fn make_control(&self) -> io::Result<Made> {
        self.make(CONTROL_BYTES, SealFlag::empty())
    }

    /// A ring to receive into, of `ring` bytes.
    pub fn make_inlet(&self, ring: u32) -> io::Result<Made> {
        self.make(inlet_bytes(ring), SealFlag::empty())
    }

    fn make(&self, bytes: usize, more: SealFlag) -> io::Result<Made> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        // KERNEL 6.3: never executable.
        let fd = match memfd_create(c"ringlane-bus", flags | NEVER_EXECUTABLE) {
            Err(Errno::EINVAL) => memfd_create(c"ringlane-bus", flags)?,
            other => other?,
        };
        ftruncate(&fd, i64::try_from(bytes).map_err(|_| Errno::EFBIG)?)?;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(size_seals()))?;
        let map = Map::new(fd.as_fd(), bytes, fstat(&fd)?.st_ino, &self.fork)?;
        // What is mapped for writing stays so.
        fcntl(&fd, FcntlArg::F_ADD_SEALS(more | SealFlag::F_SEAL_SEAL))?;
        Ok(Made { fd, map })
    }

    /// Maps a sender's ring, to be read only.
    pub fn outlet(&self, fd: &OwnedFd, ring: u32) -> Result<Rc<Map>, Foreign> {
        let bytes = outlet_bytes(ring);
        let file = check(fd, bytes, FUTURE_WRITE)?;
        Map::read_only(fd.as_fd(), bytes, file, &self.fork).map_err(Foreign::Map)
    }

    /// Maps a control page.
    pub fn control(&self, fd: &OwnedFd) -> Result<Rc<Map>, Foreign> {
        let file = check(fd, CONTROL_BYTES, SealFlag::empty())?;
        Map::new(fd.as_fd(), CONTROL_BYTES, file, &self.fork).map_err(Foreign::Map)
    }

    /// Maps a receiver's ring.
    pub fn inlet(&self, fd: &OwnedFd, ring: u32) -> Result<Rc<Map>, Foreign> {
        let bytes = inlet_bytes(ring);
        let file = check(fd, bytes, SealFlag::empty())?;
        Map::new(fd.as_fd(), bytes, file, &self.fork).map_err(Foreign::Map)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

/// Checks a file of somebody else's; returns which it is.
fn check(fd: &OwnedFd, bytes: usize, more: SealFlag) -> Result<u64, Foreign> {
    let seals = match fcntl(fd, FcntlArg::F_GET_SEALS) {
        Ok(bits) => SealFlag::from_bits_retain(bits),
        // A file of a kind that has no seals.
        Err(Errno::EINVAL) => return Err(Foreign::NoMemory),
        Err(errno) => return Err(errno.into()),
    };
    // Huge pages come from a pool that may be empty when a page is touched: SIGBUS.
    if fstatfs(fd)?.filesystem_type() != TMPFS_MAGIC {
        return Err(Foreign::NoMemory);
    }
    if !seals.contains(size_seals() | SealFlag::F_SEAL_SEAL | more) {
        return Err(Foreign::Unsealed);
    }
    let found = fstat(fd)?;
    if u64::try_from(found.st_size).ok() != Some(bytes as u64) {
        return Err(Foreign::Size { wanted: bytes, found: found.st_size as u64 });
    }
    Ok(found.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_ring_that_was_made_here_is_taken_there() {
        let memory = Memory::new().expect("a page");
        let made = memory.make_outlet(4096).expect("a memory file");
        assert!(!memory.outlet(&made.fd, 4096).expect("it is one").is_writable());
        let made = memory.make_inlet(4096).expect("a memory file");
        assert!(memory.inlet(&made.fd, 4096).expect("it is one").is_writable());
        let made = memory.make_control().expect("a memory file");
        assert!(memory.control(&made.fd).expect("it is one").is_writable());
    }

    #[test]
    fn a_ring_to_send_from_cannot_be_mapped_for_writing() {
        let memory = Memory::new().expect("a page");
        let made = memory.make_outlet(4096).expect("a memory file");
        let bytes = outlet_bytes(4096);
        assert!(Map::new(made.fd.as_fd(), bytes, 0, &memory.fork).is_err());
    }

    #[test]
    fn a_descriptor_that_is_no_ring_is_refused_with_a_reason() {
        let memory = Memory::new().expect("a page");
        let file = OwnedFd::from(File::open("/proc/self/exe").expect("a file"));
        assert!(matches!(memory.inlet(&file, 4096), Err(Foreign::NoMemory)));
        let open = memfd_create(c"open", MFdFlags::MFD_ALLOW_SEALING).expect("a memory file");
        ftruncate(&open, inlet_bytes(4096) as i64).expect("it grows");
        assert!(matches!(memory.inlet(&open, 4096), Err(Foreign::Unsealed)));
        let made = memory.make_inlet(4096).expect("a memory file");
        assert!(matches!(memory.inlet(&made.fd, 8192), Err(Foreign::Size { .. })));
        assert!(matches!(memory.outlet(&made.fd, 4096), Err(Foreign::Unsealed)));
        let null = OwnedFd::from(File::open("/dev/null").expect("a device"));
        assert!(memory.control(&null).is_err());
    }
}
