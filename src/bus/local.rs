//! What a process and the relay of its host say to each other: one JSON object per line over a
//! Unix socket, in both directions; descriptors ride with the line that names them.
//!
//! ```text
//!   process                                   relay
//!     Register ------------------------------->      who it is; the socket says which user
//!     <------------------ Registered (bell) ---      or NameInUse, Refused
//!     Open --------------------------------->        a way to a node
//!     <------------------------------- Path ---      through the relay: which ring, which class
//!     Attach (ring, control page) ---------->        here is the ring, go on behind `from`
//!     <------------------- Bound, Gone, ... ---
//!
//!     <--------------------------- Incoming ---      somebody writes to you: give me a ring
//!     Segment (ring) ------------------------>
//!     <-------------------------------- End ---      nothing comes behind `last`
//!
//!     <----------------------------- Expect ---      a neighbour will connect: where?
//!     Listening ----------------------------->
//!     <---------------------------- Connect ---      to the neighbour: it listens there
//! ```
//!
//! What lies in rings never goes this way. After a relay has died, processes say all this again to
//! its successor, each ring with where it stands: a relay remembers nothing.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

pub use super::nonce::Nonce;

/// Bytes of one line at most, its end included.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Version of this protocol. Both programs are of one build, or nearly; what does not fit is
/// refused by name.
pub const VERSION: u32 = 1;

/// What becomes of a message for which there is no room, and of one that was not delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// In order, each exactly once into the peer's ring while both processes live.
    #[default]
    Reliable,
    /// Only the newest one matters.
    Latest,
    /// What finds no room is dropped, and counted.
    DropNew,
    /// What finds no room drops the oldest one that waits, and counts it.
    DropOld,
}

/// When the sender's copy of a message is let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AckWhen {
    /// It is in the receiver's ring.
    #[default]
    Stored,
    /// The receiver's callback for it has returned.
    Consumed,
}

/// How a channel is run: from the cluster's file, told to the sender with [`FromRelay::Path`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Terms {
    /// Its delivery class.
    pub class: Class,
    /// When its messages are acknowledged.
    pub ack: AckWhen,
    /// Bytes of its ring, a power of two.
    pub ring: u32,
    /// 0 is the most urgent of four.
    pub priority: u8,
    /// After so many milliseconds without progress the sender is told.
    pub stuck_after_ms: u32,
    /// Milliseconds after which a message that has not left is worth nothing; 0: it always is.
    pub ttl_ms: u32,
}

/// A place in a ring of records: the last record before it, and its position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    /// Sequence number of the last record before it.
    pub seq: u32,
    /// Position modulo 2^31.
    pub pos: u32,
}

/// How messages to a group choose among its members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// Whoever is there and has room, in turn.
    Any,
    /// Every one.
    All,
    /// The one that a key names.
    Hash,
}

/// A process, or a person with a question, to the relay.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum ToRelay {
    /// The first line of a process.
    Register {
        /// Its name: a node of this host, `login` or `login@a`.
        node: String,
        /// Microseconds since 1970 when it began; one more than any that a relay has refused.
        epoch: u64,
        /// This instance.
        nonce: Nonce,
        /// [`VERSION`].
        version: u32,
        /// Ends the process that has the name.
        #[serde(default)]
        replace: bool,
    },
    /// Asks for a way to a node, or who is in a group (`@db`).
    Open {
        /// The process's own number for this channel, never used twice.
        id: u32,
        /// `db`, `db@b` or `@db`.
        to: String,
        /// Which channel to it.
        chan: u16,
    },
    /// A ring to send from and a fresh control page: two descriptors, in this order.
    Attach {
        /// Of [`ToRelay::Open`].
        id: u32,
        /// The receiver.
        to: String,
        /// The channel.
        chan: u16,
        /// The sender's epoch.
        epoch: u64,
        /// How often this process has attached rings, from 1; it only grows.
        att: u32,
        /// Up to where the ring is free.
        from: Place,
        /// The receiver's epoch, once it is known; 0 before.
        expected: u64,
        /// Bytes of the ring.
        ring: u32,
    },
    /// A ring to receive into: one descriptor.
    Segment {
        /// The sender.
        from: String,
        /// The channel.
        chan: u16,
        /// The sender's epoch that this ring is for.
        epoch: u64,
        /// The sender's instance.
        nonce: Nonce,
        /// How often this process has handed rings over, from 1; it only grows.
        att: u32,
        /// Bytes of the ring.
        ring: u32,
    },
    /// Nothing comes behind what is published in this channel's ring.
    Close {
        /// Of [`ToRelay::Open`].
        id: u32,
    },
    /// [`FromRelay::Gone`] was understood; this channel number is over.
    GoneSeen {
        /// Of [`ToRelay::Open`].
        id: u32,
    },
    /// Where a neighbour may connect: the answer to [`FromRelay::Expect`].
    Listening {
        /// Of the introduction.
        token: Nonce,
        /// An address of this process's own.
        address: String,
    },
    /// The answer to [`FromRelay::Probe`].
    Probed {
        /// What came.
        id: u64,
    },
    /// Are you there? Answered at once.
    Ping {
        /// Comes back.
        id: u64,
    },
    /// This process goes, in peace.
    Leave,
    /// A question of an operator: the first and only line.
    Ask(Question),
}

/// What an operator asks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "kebab-case")]
pub enum Question {
    /// Channels, routes, links, tables.
    Status,
    /// Which way messages from one node to another take, and why.
    Explain {
        /// The sender.
        src: String,
        /// The receiver.
        dst: String,
        /// The channel.
        chan: u16,
    },
    /// How long to a node and back, hop by hop.
    Ping {
        /// The node.
        to: String,
    },
    /// Prometheus text.
    Metrics,
    /// Reads the configuration again.
    Reload,
}

/// The relay to a process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum FromRelay {
    /// The name is the process's.
    Registered {
        /// The host's name.
        host: String,
        /// The cluster's name.
        cluster: String,
        /// Connect there (`shm://…?face=records`) and say `token` as the first record: the bell
        /// that both sides ring for their rings.
        bell: String,
        /// For the bell.
        token: Nonce,
        /// The relay's process.
        pid: u32,
        /// Which run of the relay.
        incarnation: u64,
    },
    /// Somebody else lives under that name.
    NameInUse {
        /// Its process.
        pid: u32,
        /// Microseconds since 1970 since when.
        since: u64,
    },
    /// No. The line says why, and what to do.
    Refused {
        /// Why.
        why: String,
    },
    /// Another instance with this epoch, or a later one, is known: register again with more.
    StaleEpoch {
        /// The largest that is known.
        known: u64,
    },
    /// The way to a node: its ring goes through the relay; attach it.
    Path {
        /// Of [`ToRelay::Open`].
        id: u32,
        /// The receiver's name, without its host.
        node: String,
        /// Its host.
        host: String,
        /// How the channel is run.
        terms: Terms,
        /// The receiver is a neighbour: it will be told, and [`FromRelay::Connect`] follows when
        /// it is there. No ring is attached.
        direct: bool,
    },
    /// Who is in a group.
    Members {
        /// Of [`ToRelay::Open`].
        id: u32,
        /// Their names.
        nodes: Vec<String>,
        /// How to choose.
        pick: Pick,
    },
    /// There is no way and there will be none, until the configuration changes.
    NoPath {
        /// Of [`ToRelay::Open`].
        id: u32,
        /// Why, and what to do.
        why: String,
    },
    /// Connect to the neighbour there and say `token` as the first record.
    Connect {
        /// Of [`ToRelay::Open`].
        id: u32,
        /// Where it listens.
        address: String,
        /// For the introduction.
        token: Nonce,
        /// Its epoch.
        epoch: u64,
    },
    /// A neighbour will connect and say `token`: answer with [`ToRelay::Listening`].
    Expect {
        /// Of the introduction.
        token: Nonce,
        /// The neighbour's name.
        from: String,
        /// The channel.
        chan: u16,
        /// Its epoch.
        epoch: u64,
        /// Its user.
        uid: u32,
        /// How the channel is run.
        terms: Terms,
    },
    /// The channel stands: messages flow to a receiver of that epoch.
    Bound {
        /// Of [`ToRelay::Open`].
        id: u32,
        /// The receiver's epoch.
        epoch: u64,
    },
    /// The receiver is not there yet, or its relay is out of reach: messages wait in the ring.
    Waiting {
        /// Of [`ToRelay::Open`].
        id: u32,
        /// For what.
        why: String,
    },
    /// The receiver has died. Answer with [`ToRelay::GoneSeen`].
    Gone {
        /// Of [`ToRelay::Open`].
        id: u32,
        /// Its epoch.
        epoch: u64,
        /// The first message that it had not consumed, if `exact`; else the first of which that is
        /// not known.
        first: u32,
        /// Its relay saw it die.
        exact: bool,
    },
    /// No progress for as long as the terms allow.
    Stuck {
        /// Of [`ToRelay::Open`].
        id: u32,
        /// Milliseconds without progress.
        for_ms: u64,
        /// What is waited for.
        why: String,
    },
    /// Everything was stored and the receiver was told that no more comes: after
    /// [`ToRelay::Close`].
    Closed {
        /// Of [`ToRelay::Open`].
        id: u32,
    },
    /// Somebody writes to you: answer with [`ToRelay::Segment`].
    Incoming {
        /// The sender.
        from: String,
        /// The channel.
        chan: u16,
        /// The sender's epoch: a later one than of an open stream ends that.
        epoch: u64,
        /// The sender's instance.
        nonce: Nonce,
        /// How the channel is run.
        terms: Terms,
    },
    /// Nothing comes behind `last` in the stream of this epoch.
    End {
        /// The sender.
        from: String,
        /// The channel.
        chan: u16,
        /// The sender's epoch.
        epoch: u64,
        /// Sequence number of its last record.
        last: u32,
        /// It said so itself; otherwise it has died.
        clean: bool,
    },
    /// Somebody measures the way to this process: answer with [`ToRelay::Probed`] at once.
    Probe {
        /// Comes back.
        id: u64,
    },
    /// The channel has been idle for long: if nothing is in its ring, say [`ToRelay::Close`], and
    /// open another when there is something to send.
    Idle {
        /// Of [`ToRelay::Open`].
        id: u32,
    },
    /// The answer to [`ToRelay::Ping`].
    Pong {
        /// What came.
        id: u64,
    },
    /// The answer to [`ToRelay::Ask`]: text, or JSON.
    Answer {
        /// It.
        text: String,
    },
}

/// A line with its descriptors.
#[derive(Debug)]
pub struct Said<T> {
    /// The line.
    pub line: T,
    /// Its descriptors.
    pub fds: Vec<OwnedFd>,
}

impl<T> Said<T> {
    /// A line without descriptors.
    pub fn plain(line: T) -> Said<T> {
        Said { line, fds: Vec::new() }
    }
}

impl ToRelay {
    /// How many descriptors ride with it.
    pub fn descriptors(&self) -> usize {
        match self {
            ToRelay::Attach { .. } => 2,
            ToRelay::Segment { .. } => 1,
            _ => 0,
        }
    }
}

/// A line as bytes, its end included.
pub fn encode<T: Serialize>(line: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).expect("such a value has a JSON form");
    bytes.push(b'\n');
    bytes
}

/// Reads a line, and says what is wrong with one that is none.
pub fn decode<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| format!("not a line of this protocol: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = ToRelay::Attach {
            id: 7,
            to: "db".to_string(),
            chan: 1,
            epoch: 1 << 60,
            att: 2,
            from: Place { seq: 3, pos: 4096 },
            expected: 0,
            ring: 1 << 20,
        };
        let bytes = encode(&line);
        assert!(bytes.ends_with(b"\n") && !bytes[..bytes.len() - 1].contains(&b'\n'));
        assert_eq!(decode(&bytes), Ok(line));
    }

    #[test]
    fn nonsense_is_an_error_that_says_where() {
        let said = decode::<ToRelay>(b"{\"say\":\"regster\"}").expect_err("no such line");
        assert!(said.contains("regster") && said.contains("register"), "{said}");
    }
}
