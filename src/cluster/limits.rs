//! Every bound: those of the file itself as constants, those of a relay as [`Limits`], which a
//! file may change. Each has a reason.

use std::time::Duration;

use serde::Serialize;

/// A file of so many bytes is read, at most: 100,000 nodes with a table each are 6 MiB.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// So many problems are shown: who has more than these reads the first ones and tries again.
pub const PROBLEMS_MAX: usize = 100;

/// A name is so long, at most. It stands in frames, in file names and in abstract sockets, whose
/// 107 bytes have to hold a prefix, too.
pub const NAME_BYTES_MAX: usize = 64;

/// Hosts: every one may have a link to every other one, so more would need another topology.
pub const HOSTS_MAX: usize = 4096;

/// Nodes: ten times what a relay is measured with.
pub const NODES_MAX: usize = 1_000_000;

/// Groups: membership is asked per rule.
pub const GROUPS_MAX: usize = 4096;

/// Rules for channels, and as many for access: they are tried in order when a channel is opened.
pub const RULES_MAX: usize = 1024;

/// Addresses of one relay: they are tried in turn, each with a timeout.
pub const ADDRESSES_MAX: usize = 16;

/// Patterns with `*` in all groups together: each is held against every node when the file is
/// read.
pub const GLOBS_MAX: usize = 256;

/// Looks at nodes that a hint may cost, over all problems of a file: a hint is a courtesy.
pub const HINT_LOOKS_MAX: usize = 1_000_000;

/// A secret shorter than this can be guessed.
pub const SECRET_BYTES_MIN: usize = 16;

/// A secret is a line, not a disk.
pub const SECRET_BYTES_MAX: usize = 4096;

/// A ring below a page holds no message worth having, one above 64 MiB has no room in its
/// positions.
pub const RING_BYTES_MIN: u64 = 4 << 10;
/// The other end of [`RING_BYTES_MIN`].
pub const RING_BYTES_MAX: u64 = 64 << 20;

/// Priorities of a link, 0 before 3.
pub const PRIORITIES: u8 = 4;

const _: () = assert!(RULES_MAX <= u16::MAX as usize && NODES_MAX <= u32::MAX as usize);
const _: () = assert!(RING_BYTES_MIN.is_power_of_two() && RING_BYTES_MAX.is_power_of_two());

/// What a relay holds, at most: `[limits]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Limits {
    /// Processes that are registered at one relay: four times what it is measured with.
    pub processes: u32,
    /// The same of one uid, so that one user leaves room for others.
    pub processes_per_uid: u32,
    /// Entries of the channel table: sixteen for each process.
    pub channels: u32,
    /// The same of one process, so that one process leaves room for others.
    pub channels_per_process: u32,
    /// Bytes of rings that a relay maps: memory that processes own, and that is only there once
    /// something was written.
    pub ring_memory: u64,
    /// The same of the processes of one uid.
    pub ring_memory_per_uid: u64,
    /// Entries of the routing table: more than twice the 100,000 names it is measured with.
    pub routes: u32,
    /// Links to other relays: a relay pair has one, and while it changes two.
    pub links: u32,
    /// Bytes that wait in one link's output: what 10 Gbit/s carry in 3 ms.
    pub link_buffer: u64,
    /// Bytes that a relay buffers in all; it reads no more from rings at it.
    pub relay_memory: u64,
    /// Bytes of one message that goes in pieces.
    pub message: u64,
    /// Bytes of messages that a process puts together from pieces, per channel.
    pub reassembly: u64,
    /// The same per uid.
    pub reassembly_per_uid: u64,
    /// Connections that have not shown yet that they know the secret.
    pub handshakes: u32,
    /// The same from one address, so that a stranger leaves room for relays.
    pub handshakes_per_peer: u32,
    /// Admin connections (`status`, `top`) at once.
    pub admins: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            processes: 4096,
            processes_per_uid: 2048,
            channels: 65536,
            channels_per_process: 8192,
            ring_memory: 8 << 30,
            ring_memory_per_uid: 4 << 30,
            routes: 262_144,
            links: 1024,
            link_buffer: 4 << 20,
            relay_memory: 256 << 20,
            message: 16 << 20,
            reassembly: 32 << 20,
            reassembly_per_uid: 256 << 20,
            handshakes: 256,
            handshakes_per_peer: 16,
            admins: 64,
        }
    }
}

/// After how long something unused goes: `[ageing]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Ageing {
    /// The step of the timing wheel: nothing is more exact than this, and each costs a look.
    pub tick: Duration,
    /// A link over which nothing goes is closed: it is dialled again in a round trip.
    pub idle_link: Duration,
    /// A channel without messages leaves the table: it is opened again by the next one.
    pub idle_channel: Duration,
    /// A route that was learned and is not used leaves the table.
    pub idle_route: Duration,
}

impl Default for Ageing {
    fn default() -> Ageing {
        Ageing {
            tick: Duration::from_millis(100),
            idle_link: Duration::from_secs(300),
            idle_channel: Duration::from_secs(600),
            idle_route: Duration::from_secs(3600),
        }
    }
}

/// How links between relays are made and watched: `[link]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Links {
    /// Between two pings.
    pub ping: Duration,
    /// Silent for so long is dead: three pings, so that one lost is not an end.
    pub dead_after: Duration,
    /// How long a peer may take to show that it knows the secret.
    pub handshake: Duration,
    /// Between two attempts right after a loss: a relay that restarts is found at once.
    pub redial: Duration,
    /// How long it is tried that often.
    pub redial_for: Duration,
    /// Between two attempts later, at most; shorter by chance, so that relays do not dial in step.
    pub redial_max: Duration,
}

impl Default for Links {
    fn default() -> Links {
        Links {
            ping: Duration::from_secs(1),
            dead_after: Duration::from_secs(3),
            handshake: Duration::from_secs(5),
            redial: Duration::from_millis(100),
            redial_for: Duration::from_secs(30),
            redial_max: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_or_process_does_not_fill_what_all_share() {
        let l = Limits::default();
        assert!(l.processes_per_uid < l.processes && l.channels_per_process < l.channels);
        assert!(l.ring_memory_per_uid < l.ring_memory && l.message <= l.reassembly);
        assert!(l.reassembly < l.reassembly_per_uid && l.handshakes_per_peer < l.handshakes);
        assert!(l.link_buffer < l.relay_memory);
    }
}
