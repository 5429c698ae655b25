//! What the verbs of the bus fail with, and what to do then.

use std::fmt;
use std::io;

/// Why a verb of the bus failed. Its text says what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum BusError {
    /// No room now. `on_writable` comes once when there is some.
    WouldBlock,
    /// A message is longer than a record may be.
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// Bytes that go as one record on this channel.
        most: usize,
    },
    /// A message is longer than anything that is sent.
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The limit, of the options.
        most: usize,
    },
    /// There is no way to that name.
    NoPath {
        /// The name.
        to: String,
        /// Why, and what to do.
        why: String,
    },
    /// It is no name.
    BadName {
        /// What was given.
        name: String,
        /// How a name looks.
        why: &'static str,
    },
    /// A group whose members are chosen by a key was written to without one.
    NeedsKey {
        /// The group.
        group: String,
    },
    /// Somebody else has this process's name.
    NameInUse {
        /// Its process.
        pid: u32,
        /// Microseconds since 1970 since when.
        since: u64,
    },
    /// The relay does not want this process.
    Refused {
        /// Why, and what to do.
        why: String,
    },
    /// The peer died, or was replaced, before it answered.
    PeerGone,
    /// Nothing came in time.
    TimedOut,
    /// This bus is closed, or its base is gone.
    Closed,
    /// More channels than the options allow.
    TooMany {
        /// The limit.
        most: usize,
    },
    /// No relay's socket was found.
    NoRelay {
        /// Where it was looked for, and what to do.
        why: String,
    },
    /// It may not be done inside of a callback.
    InCallback,
    /// No memory for a ring.
    Memory(io::Error),
    /// The loop failed.
    Base(crate::Error),
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BusError::WouldBlock => f.write_str("no room now; send it again in on_writable"),
            BusError::TooLong { bytes, most } => write!(
                f,
                "{bytes} bytes are more than one record of this channel takes ({most}); use \
                 send_large, or a larger ring in the cluster's file"
            ),
            BusError::TooLarge { bytes, most } => write!(
                f,
                "{bytes} bytes are more than a message may have ({most}); raise \
                 Limits::message_bytes on both sides, or cut it"
            ),
            BusError::NoPath { to, why } => write!(f, "no way to {to}: {why}"),
            BusError::BadName { name, why } => write!(f, "{name:?} is no name: {why}"),
            BusError::NeedsKey { group } => {
                write!(f, "{group} chooses its member by a key; use send_keyed")
            }
            BusError::NameInUse { pid, .. } => write!(
                f,
                "process {pid} has that name; end it, take another name, or open with \
                 Options::replace"
            ),
            BusError::Refused { why } => write!(f, "the relay refused: {why}"),
            BusError::PeerGone => f.write_str("the peer died before it answered"),
            BusError::TimedOut => f.write_str("nothing came in time"),
            BusError::Closed => f.write_str("the bus is closed; open it again"),
            BusError::TooMany { most } => {
                write!(f, "{most} channels are open, the limit; raise Limits::channels")
            }
            BusError::NoRelay { why } => f.write_str(why),
            BusError::InCallback => {
                f.write_str("a callback cannot wait for the loop it runs in; use the callback form")
            }
            BusError::Memory(error) => write!(f, "no memory for a ring: {error}"),
            BusError::Base(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for BusError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BusError::Memory(error) => Some(error),
            BusError::Base(error) => Some(error),
            _ => None,
        }
    }
}

impl From<crate::Error> for BusError {
    fn from(error: crate::Error) -> BusError {
        BusError::Base(error)
    }
}
