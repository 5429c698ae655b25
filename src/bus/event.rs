//! What the bus tells its user, beside messages.

use std::fmt;
use std::rc::Rc;

/// A message that was accepted for a peer and that it has not consumed, as far as that is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undelivered {
    /// Its number in the stream; 0 where it had none yet.
    pub seq: u32,
    /// It was a request.
    pub is_request: bool,
    /// Its bytes; of a large message those pieces that are still here.
    pub bytes: Vec<u8>,
}

/// Something about a peer: another node of the cluster.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A way to it stands: what was sent flows.
    Here {
        /// Its name.
        node: Rc<str>,
        /// The channel.
        chan: u16,
        /// Its epoch.
        epoch: u64,
    },
    /// It is not there, or cannot be reached now: messages wait.
    Waiting {
        /// Its name.
        node: Rc<str>,
        /// The channel.
        chan: u16,
        /// For what.
        why: String,
    },
    /// It has died. The next message to it begins a new stream.
    Gone {
        /// Its name.
        node: Rc<str>,
        /// The channel.
        chan: u16,
        /// Its epoch.
        epoch: u64,
        /// The first message that it had not consumed, if `exact`; else the first of which that
        /// is not known.
        first: u32,
        /// Its death was seen.
        exact: bool,
        /// The last message that may have left this host.
        sent: u32,
        /// What is still here of the messages from `first` on. Those to a group that takes any
        /// member are not among them: another member gets them.
        undelivered: Vec<Undelivered>,
    },
    /// One that has written to us writes no more: everything it sent was shown.
    Ended {
        /// Its name.
        node: Rc<str>,
        /// The channel.
        chan: u16,
        /// Its epoch.
        epoch: u64,
        /// Number of its last record.
        last: u32,
        /// It said so itself; otherwise it has died.
        clean: bool,
    },
    /// No progress for as long as the channel's terms allow.
    Stuck {
        /// Its name.
        node: Rc<str>,
        /// The channel.
        chan: u16,
        /// Milliseconds without progress.
        for_ms: u64,
        /// What is waited for.
        why: String,
    },
    /// There is no way to it, and there will be none until the configuration changes.
    NoPath {
        /// Its name, or a group's.
        node: Rc<str>,
        /// The channel.
        chan: u16,
        /// Why, and what to do.
        why: String,
        /// What was accepted for it.
        undelivered: Vec<Undelivered>,
    },
    /// A message of it was larger than the budget for such allows, and was dropped.
    TooLarge {
        /// Its name.
        node: Rc<str>,
        /// The channel.
        chan: u16,
    },
}

/// Something about the relay of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RelayEvent {
    /// It has taken this process in, for the first time or again.
    Here {
        /// The host's name.
        host: String,
        /// The cluster's name.
        cluster: String,
        /// Which run of the relay.
        incarnation: u64,
    },
    /// It is gone, or hangs. Messages wait in their rings until there is one again; neighbours are
    /// not disturbed.
    Lost {
        /// What was seen.
        why: &'static str,
    },
    /// Somebody else has the name of this process, which is off the bus now.
    NameInUse {
        /// Its process.
        pid: u32,
        /// Microseconds since 1970 since when.
        since: u64,
    },
    /// It does not want this process, which is off the bus now.
    Refused {
        /// Why, and what to do.
        why: String,
    },
}

/// What was counted on a channel that is sent on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct OutCounts {
    /// Messages accepted.
    pub accepted: u64,
    /// Messages for which there was no room when they came, and which were not taken.
    pub refused: u64,
    /// Messages that a newer one replaced (`latest`).
    pub conflated: u64,
    /// New messages dropped for want of room (`drop-new`).
    pub dropped_new: u64,
    /// Old messages dropped for want of room (`drop-old`).
    pub dropped_old: u64,
}

/// What was counted on a channel that is received on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct InCounts {
    /// Messages shown.
    pub shown: u64,
    /// Messages that were larger than their budget.
    pub too_large: u64,
    /// Messages that their sender broke off.
    pub aborted: u64,
    /// Records of a kind that this version does not know.
    pub unknown: u64,
}

/// How a channel that is sent on stands.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct OutStatus {
    /// The receiver.
    pub node: Rc<str>,
    /// The channel.
    pub chan: u16,
    /// Which way: `asked`, `waiting`, `relay` or `direct`.
    pub way: &'static str,
    /// What is waited for, if anything.
    pub why: Option<String>,
    /// Records accepted and not acknowledged.
    pub unacknowledged: u32,
    /// Bytes that wait beside the ring.
    pub queued_bytes: usize,
    /// The receiver's epoch, if it is known.
    pub epoch: u64,
    /// What was counted.
    pub counts: OutCounts,
}

/// How a channel that is received on stands.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct InStatus {
    /// The sender.
    pub node: Rc<str>,
    /// The channel.
    pub chan: u16,
    /// Which way: `relay` or `direct`.
    pub way: &'static str,
    /// Number of the last record that was consumed.
    pub consumed: u32,
    /// The sender's epoch.
    pub epoch: u64,
    /// What was counted.
    pub counts: InCounts,
}

impl fmt::Display for PeerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerEvent::Here { node, chan, .. } => write!(f, "{node}/{chan} is there"),
            PeerEvent::Waiting { node, chan, why } => {
                write!(f, "messages to {node}/{chan} wait: {why}")
            }
            PeerEvent::Gone { node, chan, first, exact: true, undelivered, .. } => write!(
                f,
                "{node}/{chan} has died; the first message that it had not consumed is number \
                 {first}, and {} are still here",
                undelivered.len()
            ),
            PeerEvent::Gone { node, chan, first, sent, undelivered, .. } => write!(
                f,
                "{node}/{chan} has died; it is not known how many of the messages {first} to \
                 {sent} it had consumed, and {} are still here",
                undelivered.len()
            ),
            PeerEvent::Ended { node, chan, last, clean: true, .. } => {
                write!(f, "{node}/{chan} has ended behind message {last}")
            }
            PeerEvent::Ended { node, chan, last, .. } => {
                write!(f, "{node}/{chan} has died; message {last} was the last that came")
            }
            PeerEvent::Stuck { node, chan, for_ms, why } => {
                write!(f, "messages to {node}/{chan} have not moved for {for_ms} ms: {why}")
            }
            PeerEvent::NoPath { node, chan, why, .. } => {
                write!(f, "there is no way to {node}/{chan}: {why}")
            }
            PeerEvent::TooLarge { node, chan } => {
                write!(f, "a message of {node}/{chan} was larger than its budget")
            }
        }
    }
}
