//! Why a kernel refuses io_uring, in one sentence that names the likely cause.

use std::io;

/// Where the switch stands: 0 everybody, 1 a group, 2 nobody.
const SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";

/// The sentence for the error that the set-up of a ring ended with.
pub(crate) fn cause(error: &io::Error) -> String {
    let switch = std::fs::read_to_string(SWITCH).ok();
    explain(error, switch.as_deref().map(str::trim), crate::sys::locked_memory_limit())
}

fn explain(error: &io::Error, switch: Option<&str>, locked: Option<u64>) -> String {
    let why = match (error.raw_os_error(), switch) {
        (Some(libc::EPERM), Some("2")) => {
            "the sysctl kernel.io_uring_disabled is 2: io_uring is switched off for everybody"
                .to_string()
        }
        (Some(libc::EPERM), Some("1")) => "the sysctl kernel.io_uring_disabled is 1: only members \
             of the group in kernel.io_uring_group may use io_uring"
            .to_string(),
        (Some(libc::EPERM | libc::EACCES), _) => "most likely a seccomp filter forbids io_uring, \
             as the default profile of a container does"
            .to_string(),
        (Some(libc::ENOSYS), _) => "this kernel has no io_uring (it came with 5.1), or a seccomp \
             filter hides it"
            .to_string(),
        (Some(libc::EINVAL), _) => {
            "this kernel is too old: the ring needs the features of Linux 6.1".to_string()
        }
        (Some(libc::ENOMEM), _) => match locked {
            Some(bytes) => format!(
                "the memory-lock limit of {} KiB is used up (ulimit -l; it is counted per user)",
                bytes / 1024
            ),
            None => "the kernel has no memory for a ring".to_string(),
        },
        (Some(libc::EMFILE | libc::ENFILE), _) => "no descriptor is left".to_string(),
        (_, _) => return format!("io_uring is not available: {error}"),
    };
    format!("io_uring is not available: {why} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_its_likely_cause() {
        for (errno, switch, word) in [
            (libc::EPERM, Some("2"), "io_uring_disabled is 2"),
            (libc::EPERM, Some("1"), "io_uring_group"),
            (libc::EPERM, Some("0"), "seccomp"),
            (libc::EPERM, None, "seccomp"),
            (libc::ENOSYS, None, "no io_uring"),
            (libc::EINVAL, Some("0"), "too old"),
            (libc::ENOMEM, Some("0"), "64 KiB"),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            let text = explain(&error, switch, Some(65_536));
            assert!(text.contains(word), "{text}");
        }
    }
}
