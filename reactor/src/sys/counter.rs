//! Counters (eventfd(2)) that a stranger holds, too, and that are rung without ever waiting.
//!
//! Whoever shares a counter can clear its O_NONBLOCK and fill it; a write to it then sleeps until
//! somebody reads. So nothing is written: the kernel is asked for a read of no bytes that ends at
//! once, with the counter as what is to be told of its end (io_submit(2), `IOCB_FLAG_RESFD`). The
//! kernel's own notice never waits: a counter that is full stays full, and whoever polls it is
//! woken all the same.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use ringlane_api::fd::Fd;

use super::os;

/// Answers that the kernel keeps until they are taken.
const ANSWERS: usize = 64;

/// `IOCB_CMD_PREAD` and `IOCB_FLAG_RESFD` of linux/aio_abi.h.
const PREAD: u16 = 0;
const RESFD: u32 = 1;

/// `struct iocb` of linux/aio_abi.h. `key` and `rw_flags` change places with the byte order; both
/// are 0.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    counter: u32,
}

/// `struct io_event` of linux/aio_abi.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Answer([u64; 4]);

const _: () = assert!(size_of::<Request>() == 64 && size_of::<Answer>() == 32, "the kernel's");

/// The kernel's side of it; made when the first counter is rung.
pub(crate) struct Context {
    /// 0 in a forked child, where it is the parent's.
    id: libc::c_ulong,
    /// An empty file to read nothing from.
    file: OwnedFd,
    untaken: usize,
}

/// What rings counters.
#[derive(Default)]
pub(crate) enum Ringer {
    #[default]
    Untried,
    Ready(Context),
    /// This kernel, or what watches over us, has said no.
    Unable,
}

impl Ringer {
    /// Rings it once. `InvalidInput`: it is no counter. `Unsupported`: this kernel cannot.
    pub(crate) fn ring(&mut self, counter: &Fd) -> io::Result<()> {
        let counter = os(counter)?.as_raw_fd();
        if matches!(self, Ringer::Untried) {
            *self = match Context::new() {
                Ok(context) => Ringer::Ready(context),
                Err(error) => {
                    log::debug!("no counter can be rung for others here: {error}");
                    Ringer::Unable
                }
            };
        }
        match self {
            Ringer::Ready(context) => Ok(context.ring(counter)?),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// In a forked child: the parent's is not there.
    pub(crate) fn after_fork(&mut self) {
        if let Ringer::Ready(context) = self {
            context.id = 0;
        }
        *self = Ringer::Untried;
    }
}

impl Context {
    fn new() -> Result<Context, Errno> {
        let file = memfd_create(c"ringlane-nothing", MFdFlags::MFD_CLOEXEC)?;
        let mut id: libc::c_ulong = 0;
        // SAFETY: the kernel writes the context's id to `id`, which outlives the call.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, ANSWERS, &raw mut id) };
        Errno::result(made)?;
        Ok(Context { id, file, untaken: 0 })
    }

    fn ring(&mut self, counter: i32) -> Result<(), Errno> {
        if self.untaken == ANSWERS {
            self.take_answers()?;
        }
        let mut request = Request {
            opcode: PREAD,
            file: self.file.as_raw_fd() as u32,
            flags: RESFD,
            counter: counter as u32,
            ..Request::default()
        };
        let mut list = [&raw mut request];
        // SAFETY: one request is copied during the call. It reads 0 bytes, so that the kernel keeps
        // no address of ours; its descriptors are open, or it is refused.
        let told = unsafe { libc::syscall(libc::SYS_io_submit, self.id, 1, list.as_mut_ptr()) };
        Errno::result(told)?;
        self.untaken += 1;
        Ok(())
    }

    fn take_answers(&mut self) -> Result<(), Errno> {
        let mut answers = [MaybeUninit::<Answer>::uninit(); ANSWERS];
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let (into, most) = (answers.as_mut_ptr(), ANSWERS as libc::c_long);
        // SAFETY: the kernel writes at most `most` answers to `into`; it does not wait.
        let taken =
            unsafe { libc::syscall(libc::SYS_io_getevents, self.id, 0, most, into, &raw mut now) };
        let taken = Errno::result(taken)? as usize;
        self.untaken = self.untaken.saturating_sub(taken);
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.id != 0 {
            // SAFETY: it was made by us and is not used any more; nothing is in flight in it.
            unsafe { libc::syscall(libc::SYS_io_destroy, self.id) };
        }
    }
}
