//! What the suite needs of the machine.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, raise as raise_here};

/// Sends a signal to this process.
pub fn raise(signal: i32) {
    let signal = Signal::try_from(signal).expect("the suite raises signals that exist");
    raise_here(signal).expect("a process may signal itself");
}

/// Lets this process open `more` descriptors and no further, or as many as it could at first.
pub fn limit_fds(more: Option<usize>) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("every process has this limit");
    let soft = match more {
        // Reading the directory takes a descriptor itself.
        Some(more) => (highest_fd() + 1 + more) as u64,
        None => hard.min(1 << 16),
    };
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard).expect("lowering is allowed");
}

/// The limit is on the number itself, so that gaps below it count as room.
fn highest_fd() -> usize {
    let open: Vec<usize> = std::fs::read_dir("/proc/self/fd")
        .expect("there is a /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let free = (0..).take_while(|n| open.contains(n)).count();
    free.saturating_sub(1)
}
