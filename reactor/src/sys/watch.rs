//! An epoll instance, with waits to the nanosecond where the kernel has them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::transfer::retry;

/// An epoll instance.
pub(crate) struct Watch {
    epoll: Epoll,
    /// epoll_pwait2 works here.
    precise: bool,
}

impl Watch {
    /// A new instance that watches nothing.
    pub(crate) fn new() -> io::Result<Watch> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut watch = Watch { epoll, precise: true };
        // Probed, not guessed: old container profiles refuse it on new kernels.
        watch.precise =
            watch.wait_precise(&mut [EpollEvent::empty()], Some(Duration::ZERO)).is_ok();
        Ok(watch)
    }

    /// Whether waits are precise to the nanosecond instead of the millisecond.
    pub(crate) fn precise(&self) -> bool {
        self.precise
    }

    /// Watches `fd`. If the same open file is watched under the same number already (it was let
    /// go and adopted again), the old registration becomes this one.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, flags: EpollFlags, data: u64) -> io::Result<()> {
        match self.epoll.add(fd, EpollEvent::new(flags, data)) {
            Err(Errno::EEXIST) => self.modify(fd, flags, data),
            other => Ok(other?),
        }
    }

    /// Watches `fd` for something else; what holds already is reported anew.
    pub(crate) fn modify(
        &self,
        fd: BorrowedFd<'_>,
        flags: EpollFlags,
        data: u64,
    ) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(flags, data))?)
    }

    /// Watches `fd` no more.
    pub(crate) fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// Watches no more what was registered under a number that we do not hold any more. If the
    /// number means another file now, or none, nothing happens.
    pub(crate) fn delete_number(&self, number: i32) {
        let none = std::ptr::null_mut();
        // SAFETY: EPOLL_CTL_DEL takes no event and only looks the number up; it changes nothing
        // but our own instance, and that only where this very file is registered in it.
        unsafe {
            libc::epoll_ctl(self.epoll.0.as_raw_fd(), libc::EPOLL_CTL_DEL, number, none);
        }
    }

    /// Waits. Not tried again on `EINTR`: the caller's turn is over then.
    pub(crate) fn wait(
        &mut self,
        events: &mut [EpollEvent],
        wait: Option<Duration>,
    ) -> io::Result<usize> {
        // Not waiting and waiting for ever need no precision.
        if self.precise && wait.is_some_and(|wait| !wait.is_zero()) {
            return self.wait_precise(events, wait);
        }
        let timeout = wait.map_or(-1, |wait| {
            // Rounded up: a timer that is due in 0.3 ms is not due now.
            let whole = wait.as_nanos().div_ceil(1_000_000);
            i32::try_from(whole).unwrap_or(i32::MAX)
        });
        let count = events.len() as libc::c_int;
        // SAFETY: EpollEvent is a transparent epoll_event; the pointer and the length are those
        // of one exclusively borrowed slice.
        let found = unsafe {
            libc::epoll_wait(self.epoll.0.as_raw_fd(), events.as_mut_ptr().cast(), count, timeout)
        };
        Ok(Errno::result(found)? as usize)
    }

    fn wait_precise(
        &mut self,
        events: &mut [EpollEvent],
        wait: Option<Duration>,
    ) -> io::Result<usize> {
        let wait = wait.unwrap_or(Duration::MAX);
        let limit = libc::timespec {
            tv_sec: libc::time_t::try_from(wait.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(wait.subsec_nanos() as i32),
        };
        // KERNEL 5.11: epoll_pwait2.
        // SAFETY: the events are one exclusively borrowed slice given with its length, the
        // timespec outlives the call, and no signal mask is given.
        let found = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.0.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as libc::c_int,
                &raw const limit,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        Ok(Errno::result(found)? as usize)
    }
}

/// What is ready now among `fds`, without waiting. Returns how many are.
pub(crate) fn poll_now(fds: &mut [libc::pollfd]) -> io::Result<usize> {
    let count = fds.len() as libc::nfds_t;
    retry(|| {
        // SAFETY: the pointer and the length are those of one exclusively borrowed slice.
        Errno::result(unsafe { libc::poll(fds.as_mut_ptr(), count, 0) }).map(|n| n as usize)
    })
}
