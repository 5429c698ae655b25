//! fork(2) for the case that needs it.

use std::io;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, alarm, fork};

/// Seconds after which a child that hangs is killed by its own alarm.
const CHILD_SECONDS: u32 = 60;

/// Runs `work` in a forked child; tells whether it came to `true`.
pub fn in_child(work: &mut dyn FnMut() -> bool) -> io::Result<bool> {
    // SAFETY: the child has this thread only. The other threads of the test process are the
    // runner's main thread, which waits in a channel and holds no lock, and resolver threads that
    // wait for work: whoever calls this upholds that no thread is inside the allocator or stdout.
    match unsafe { fork() }? {
        ForkResult::Child => {
            alarm::set(CHILD_SECONDS);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // At once: what runs at an ordinary exit (a leak check, destructors of statics) is the
            // parent's business.
            // SAFETY: _exit(2) ends the process and touches no memory of ours.
            unsafe { nix::libc::_exit(i32::from(!matches!(outcome, Ok(true)))) }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None)?;
            Ok(matches!(status, WaitStatus::Exited(_, 0)))
        }
    }
}
