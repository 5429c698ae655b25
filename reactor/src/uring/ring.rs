//! The bare ring: entries in, entries out, one `io_uring_enter`.
//!
//! ```text
//!   push -> backlog -> SQ -> enter -> CQ -> pop
//!           (FIFO)                    (overflow list, flushed by enter)
//! ```
//!
//! Invariants: entries reach the kernel in the order of [`Ring::push`], and each has a number, so
//! that [`Ring::consumed`] tells which of them the kernel has taken. Nothing here knows what an
//! entry means; memory that entries point to is kept alive by the flight table. The maps are not
//! inherited by a forked child, and [`ForkMark`] tells a child that it is one.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{EnterFlags, IoUring, Parameters};

/// `IORING_REGISTER_RING_FDS` of linux/io_uring.h.
const REGISTER_RING_FDS: libc::c_uint = 20;

/// `IORING_UNREGISTER_RING_FDS` of linux/io_uring.h.
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `IORING_CQE_F_BUFFER` of linux/io_uring.h: a block was taken, its id is in the upper half.
const CQE_BUFFER: u32 = 1;

/// `IORING_CQE_F_MORE` of linux/io_uring.h: the operation is still armed.
const CQE_MORE: u32 = 2;

/// Entries that an empty backlog keeps room for.
const BACKLOG_KEPT: usize = 256;

/// A completion entry, copied out of the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cqe {
    pub user_data: u64,
    pub result: i32,
    pub flags: u32,
}

impl Cqe {
    /// Whether the operation is still armed.
    #[inline]
    pub fn more(&self) -> bool {
        self.flags & CQE_MORE != 0
    }

    /// The block the kernel filled.
    #[inline]
    pub fn block(&self) -> Option<u16> {
        (self.flags & CQE_BUFFER != 0).then_some((self.flags >> 16) as u16)
    }

    /// The same entry as if it were the last of its operation.
    pub fn ended(mut self) -> Cqe {
        self.flags &= !CQE_MORE;
        self
    }
}

/// `struct io_uring_getevents_arg` of linux/io_uring.h.
#[repr(C)]
struct WaitArg {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    timeout: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `struct io_uring_rsrc_update` of linux/io_uring.h.
#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// A ring and what waits in front of it.
pub(super) struct Ring {
    ring: ManuallyDrop<IoUring>,
    enter_fd: i32,
    enter_flags: u32,
    backlog: VecDeque<Entry>,
    numbered: u64,
    popped: u64,
    mark: ForkMark,
}

impl Ring {
    /// Sets a ring up on this thread: completions are run by its own `enter` alone.
    pub fn new(sq_entries: u32, cq_entries: u32) -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer() // KERNEL 6.0: one thread submits.
            .setup_defer_taskrun() // KERNEL 6.1: completions run inside enter only.
            .setup_taskrun_flag() // KERNEL 5.19: and it says when there are some to run.
            .setup_submit_all() // KERNEL 5.18: one bad entry does not stop the batch.
            .setup_cqsize(cq_entries)
            .setup_clamp()
            .dontfork()
            .build(sq_entries)?;
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if ring.params().is_feature_no_iowait() {
            flags |= EnterFlags::NO_IOWAIT; // KERNEL 6.15: a waiting loop is not iowait.
        }
        let (mut enter_fd, mut enter_flags) = (ring.as_raw_fd(), flags.bits());
        if let Some(index) = register_fd(ring.as_raw_fd()) {
            enter_fd = index;
            enter_flags |= EnterFlags::REGISTERED_RING.bits();
        }
        Ok(Ring {
            ring: ManuallyDrop::new(ring),
            enter_fd,
            enter_flags,
            backlog: VecDeque::new(),
            numbered: 0,
            popped: 0,
            mark: ForkMark::new()?,
        })
    }

    /// Whether this process is a child of the one that made the ring, and must not touch it.
    #[inline]
    pub fn forked(&self) -> bool {
        self.mark.forked()
    }

    /// What the kernel made of the wishes.
    pub fn params(&self) -> &Parameters {
        self.ring.params()
    }

    /// The ring's own verbs (probe, buffer rings).
    pub fn raw(&self) -> &IoUring {
        &self.ring
    }

    /// Stops accounting waits as something better than iowait, as kernels before 6.15 do.
    pub fn without_no_iowait(&mut self) {
        self.enter_flags &= !EnterFlags::NO_IOWAIT.bits();
    }

    /// Queues an entry; returns its number. Never blocks.
    ///
    /// The caller keeps everything the entry points to in the flight table until the entry's last
    /// completion.
    #[inline]
    pub fn push(&mut self, entry: &Entry) -> u64 {
        let number = self.numbered;
        self.numbered += 1;
        if !self.backlog.is_empty() || self.mark.forked() || !self.try_push(entry) {
            self.backlog.push_back(entry.clone());
        }
        number
    }

    #[inline]
    fn try_push(&mut self, entry: &Entry) -> bool {
        let mut sq = self.ring.submission();
        // SAFETY: what the entry points to stays in the flight table until its last completion
        // (upheld by the callers of `Ring::push`).
        unsafe { sq.push(entry) }.is_ok()
    }

    /// Moves what fits from the backlog to the SQ. Returns whether the backlog is empty then.
    pub fn flush(&mut self) -> bool {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                return false;
            }
        }
        if self.backlog.capacity() > BACKLOG_KEPT {
            // A crowd has passed; its memory need not stay.
            self.backlog.shrink_to(BACKLOG_KEPT);
        }
        true
    }

    /// Entries that wait for room in the SQ.
    pub fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// Entries in the SQ that the kernel has not taken.
    #[inline]
    pub fn waiting(&mut self) -> usize {
        self.ring.submission().len()
    }

    /// Every entry with a smaller number has been taken by the kernel.
    #[inline]
    pub fn consumed(&mut self) -> u64 {
        self.numbered - self.backlog.len() as u64 - self.waiting() as u64
    }

    /// Entries queued so far.
    pub fn numbered(&self) -> u64 {
        self.numbered
    }

    /// Completions taken so far.
    #[inline]
    pub fn popped(&self) -> u64 {
        self.popped
    }

    /// Completions visible now.
    #[inline]
    pub fn visible(&mut self) -> usize {
        self.ring.completion().len()
    }

    /// Whether completions wait in the kernel because the CQ was full.
    #[inline]
    pub fn overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// Whether an `enter` that does not wait would do something: there are entries to submit, or
    /// completions to run.
    #[inline]
    pub fn has_work(&mut self) -> bool {
        let mut sq = self.ring.submission();
        sq.sync();
        !sq.is_empty() || sq.taskrun() || sq.cq_overflow()
    }

    /// Copies up to `into`'s room of visible completions out.
    #[inline]
    pub fn pop_into(&mut self, into: &mut Vec<Cqe>, max: usize) {
        let before = into.len();
        let entries = self.ring.completion().take(max).map(|entry| Cqe {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        });
        into.extend(entries);
        self.popped += (into.len() - before) as u64;
    }

    /// One `io_uring_enter`: submits the SQ and waits until `want` completions are there, at most
    /// `limit` long (`None`: for ever).
    pub fn enter(&mut self, want: u32, limit: Option<Duration>) -> io::Result<usize> {
        let submit = self.waiting() as u32;
        self.call(submit, want, limit)
    }

    /// One `io_uring_enter` that submits nothing and lets the kernel move what overflowed.
    pub fn relieve(&mut self) -> io::Result<usize> {
        self.call(0, 0, None)
    }

    fn call(&mut self, submit: u32, want: u32, limit: Option<Duration>) -> io::Result<usize> {
        let timeout = limit.map(|limit| Timespec {
            seconds: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(limit.subsec_nanos()),
        });
        let arg = WaitArg {
            sigmask: 0,
            sigmask_bytes: 0,
            min_wait_us: 0,
            timeout: timeout.as_ref().map_or(0, |timeout| std::ptr::from_ref(timeout) as u64),
        };
        // SAFETY: `enter_fd` is this ring's own, and `arg` (with the timeout it points to)
        // outlives the call; the entries' memory is kept by the flight table.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                submit,
                want,
                self.enter_flags,
                &raw const arg,
                size_of::<WaitArg>(),
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let fd = self.ring.as_raw_fd();
        if self.forked() {
            // It is the parent's. The maps were not inherited, and something else may live in
            // their place now, so nothing is unmapped; only this process's descriptor goes.
            // SAFETY: the descriptor is the ring's, which is never dropped now, and nobody else
            // in this process knows its number.
            unsafe { libc::close(fd) };
            return;
        }
        if self.enter_fd != fd {
            // A registered descriptor keeps the ring alive as long as the thread lives.
            register(fd, UNREGISTER_RING_FDS, self.enter_fd as u32, 0);
        }
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
    }
}

/// Registers a ring's descriptor with itself, which saves a look-up per enter.
fn register_fd(fd: i32) -> Option<i32> {
    // KERNEL 5.18: registered ring descriptors.
    register(fd, REGISTER_RING_FDS, u32::MAX, fd as u64).map(|index| index as i32)
}

/// One call on the table of registered rings; gives the index it answered with.
fn register(fd: i32, verb: libc::c_uint, offset: u32, data: u64) -> Option<u32> {
    let mut update = RsrcUpdate { offset, reserved: 0, data };
    let one: libc::c_uint = 1;
    // SAFETY: one `io_uring_rsrc_update` is passed, and it outlives the call.
    let done =
        unsafe { libc::syscall(libc::SYS_io_uring_register, fd, verb, &raw mut update, one) };
    (done == 1).then_some(update.offset)
}

/// A byte that a forked child reads as zero.
struct ForkMark {
    page: NonNull<u8>,
}

const PAGE: usize = 4096;

impl ForkMark {
    /// Marks this process.
    fn new() -> io::Result<ForkMark> {
        let page = map_page()?;
        // SAFETY: the page was just mapped, private and PAGE bytes long.
        // KERNEL 4.14: MADV_WIPEONFORK.
        let wiped = unsafe { libc::madvise(page.as_ptr().cast(), PAGE, libc::MADV_WIPEONFORK) };
        if wiped != 0 {
            return Err(io::Error::last_os_error());
        }
        let mark = ForkMark { page };
        // SAFETY: the page is mapped and writable while `mark` lives.
        unsafe { mark.page.as_ptr().write_volatile(1) };
        Ok(mark)
    }

    /// Whether this process is a child of the one that made the mark.
    #[inline]
    fn forked(&self) -> bool {
        // SAFETY: the page is mapped and readable while `self` lives.
        unsafe { self.page.as_ptr().read_volatile() == 0 }
    }
}

impl Drop for ForkMark {
    fn drop(&mut self) {
        unmap_page(self.page);
    }
}

/// A private page of zeroes.
pub(super) fn map_page() -> io::Result<NonNull<u8>> {
    // SAFETY: a new anonymous map touches no memory that exists.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::new(at.cast()).expect("mmap gives no null map without MAP_FIXED"))
}

/// Gives a page of [`map_page`] back.
pub(super) fn unmap_page(page: NonNull<u8>) {
    // SAFETY: the page came from `map_page` and its only owner is being dropped.
    unsafe { libc::munmap(page.as_ptr().cast(), PAGE) };
}
