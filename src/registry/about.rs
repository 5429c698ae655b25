//! What matters to each transport on this machine: what `ringlane doctor` says of them.

/// What was found out about this machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Whether the engine waits on words in shared memory.
    pub waits_on_words: bool,
    /// Why the kernel gives no memory file, if it gives none.
    pub memory_refused: Option<String>,
    /// Why the kernel does not name the process at the other end, if it does not.
    pub pidfd_refused: Option<String>,
    /// `vm.memfd_noexec`.
    pub memfd_noexec: Option<u32>,
    /// `vm.max_map_count`.
    pub max_map_count: Option<u64>,
    /// Bytes that a new Unix socket keeps, `net.core.wmem_default`.
    pub unix_bytes: Option<u64>,
    /// Bytes that a TCP socket may keep, the last number of `net.ipv4.tcp_wmem`.
    pub tcp_bytes: Option<u64>,
    /// Whether there are IPv6 addresses.
    pub ipv6: bool,
    /// RDMA devices of the machine.
    pub rdma_devices: Vec<String>,
}

/// What there is to say of one transport.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// What it does here.
    pub notes: Vec<String>,
    /// What to do about what it lacks.
    pub advice: Vec<String>,
}

/// What Linux gives a program that asks for nothing.
const MAPS_USUAL: u64 = 65_530;

/// What there is to say of a transport, by its scheme.
///
/// ```
/// use ringlane::about::{Machine, about};
/// let machine = Machine { waits_on_words: true, ..Machine::default() };
/// assert!(about("shm", &machine).notes[0].contains("futex"));
/// ```
pub fn about(scheme: &str, machine: &Machine) -> About {
    match scheme {
        "tcp" => tcp(machine),
        "unix" => unix(machine),
        "shm" => shm(machine),
        "rdma" => rdma(machine),
        _ => About::default(),
    }
}

fn tcp(machine: &Machine) -> About {
    let mut about = About::default();
    let ipv6 = if machine.ipv6 { "IPv4 and IPv6" } else { "IPv4; no IPv6 address here" };
    about.notes.push(ipv6.into());
    if let Some(bytes) = machine.tcp_bytes {
        about.notes.push(format!("a socket keeps up to {} KiB (net.ipv4.tcp_wmem)", bytes >> 10));
    }
    about
}

fn unix(machine: &Machine) -> About {
    let mut about = About::default();
    if let Some(bytes) = machine.unix_bytes {
        about.notes.push(format!("a socket keeps {} KiB (net.core.wmem_default)", bytes >> 10));
    }
    about
}

fn shm(machine: &Machine) -> About {
    let mut about = About::default();
    about.notes.push(if machine.waits_on_words {
        "rung by a futex, waited for in the ring of the engine".into()
    } else {
        "rung by a byte on its socket: this engine does not wait on futexes".into()
    });
    if !machine.waits_on_words {
        about.advice.push(
            "shm:// is rung by a byte on its socket, which costs a system call more for each wake. \
             Futexes in the ring take io_uring, tier u2 or better (Linux 6.7)."
                .into(),
        );
    }
    match &machine.memory_refused {
        None => about.notes.push("memfd_create gives sealed memory".into()),
        Some(why) => {
            about.notes.push(format!("no memory file: {why}"));
            about.advice.push(format!(
                "shm:// gets no memory: {why}. Allow memfd_create, fallocate and fcntl in the \
                 seccomp profile and raise the memory limit, or take unix://."
            ));
        }
    }
    if let Some(why) = &machine.pidfd_refused {
        about.notes.push(format!(
            "no pidfd of the other end ({why}; Linux 6.5): its socket alone tells of its death"
        ));
    }
    if let Some(mode) = machine.memfd_noexec {
        let means = ["executable memory files allowed", "not executable by default"];
        let means = means.get(mode as usize).unwrap_or(&"never executable");
        about.notes.push(format!("vm.memfd_noexec = {mode}: {means}; ours never are"));
    }
    if let Some(maps) = machine.max_map_count {
        about.notes.push(format!("vm.max_map_count = {maps}: at most so many links, one map each"));
        if maps < MAPS_USUAL {
            about.advice.push(format!(
                "vm.max_map_count = {maps} bounds the links of shm:// in one process. Raise it: \
                 sysctl -w vm.max_map_count={MAPS_USUAL}"
            ));
        }
    }
    about
}

fn rdma(machine: &Machine) -> About {
    let mut about = About::default();
    about.notes.push("on a device in software only: for its protocol, not for speed".into());
    if !machine.rdma_devices.is_empty() {
        about.notes.push(format!(
            "not used: {} (docs/rdma.md says what a driver for it must implement)",
            machine.rdma_devices.join(", ")
        ));
    }
    about
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_something_to_say_of_every_transport() {
        let machine = Machine { unix_bytes: Some(1 << 16), ..Machine::default() };
        for known in crate::KNOWN {
            assert!(!about(known.scheme, &machine).notes.is_empty(), "{}", known.scheme);
        }
    }

    #[test]
    fn what_limits_shared_memory_comes_with_a_way_out() {
        let good = Machine { waits_on_words: true, ..Machine::default() };
        assert!(about("shm", &good).advice.is_empty());
        for (machine, word) in [
            (Machine { waits_on_words: false, ..good.clone() }, "6.7"),
            (Machine { memory_refused: Some("EPERM".into()), ..good.clone() }, "seccomp"),
            (Machine { max_map_count: Some(1000), ..good.clone() }, "sysctl -w vm.max_map_count"),
        ] {
            let advice = about("shm", &machine).advice.join(" ");
            assert!(advice.contains(word), "{advice}");
        }
    }
}
