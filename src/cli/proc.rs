//! What /proc says, read without ceremony.

use std::fs;

/// The first line of a file, without its end; `None` if it cannot be read.
pub fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().next().unwrap_or("").trim().to_string())
}

/// A field of /proc/self/status.
pub fn status(field: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_string())
}

/// CPU time that a process used so far in all its threads, in milliseconds. The kernel counts it
/// in hundredths of a second (proc_pid_stat(5), USER_HZ).
pub fn cpu_ms(pid: u32) -> Option<u64> {
    let text = line(&format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; fields are counted behind it.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 10)
}

/// The same in nanoseconds, of the threads that live now; 0 if nobody counts it (schedstats of
/// sched-stats.rst).
pub fn cpu_ns(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let of = |task: fs::DirEntry| -> Option<u64> {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    tasks.flatten().filter_map(of).sum()
}

/// The most memory a process had resident, in KiB.
pub fn peak_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_found() {
        assert!(cpu_ms(std::process::id()).is_some());
        assert!(cpu_ns(std::process::id()) > 0 && cpu_ns(u32::MAX) == 0);
        assert!(peak_kib(std::process::id()).is_some_and(|kib| kib > 100));
        assert!(status("Seccomp").is_some());
        assert_eq!(cpu_ms(u32::MAX), None);
    }
}
