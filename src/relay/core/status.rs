//! What is to be seen of a relay from outside.

use serde::Serialize;

use crate::bus::local::Terms;

use super::near::Stand;
use super::{Core, Counts};

/// A channel in one direction.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct ChannelStatus {
    /// `out` or `in`, seen from this relay.
    pub direction: &'static str,
    /// The sending node.
    pub src: String,
    /// The receiving node.
    pub dst: String,
    /// Which channel between the two.
    pub chan: u16,
    /// The sender's epoch.
    pub epoch: u64,
    /// How it stands.
    pub state: &'static str,
    /// How it is run.
    pub terms: Terms,
    /// The last record that was published, received, stored, consumed: as far as this side knows.
    pub written: u32,
    /// The last that was sent, or received.
    pub sent: u32,
    /// The last that is in the receiver's ring.
    pub stored: u32,
    /// The last whose callback has returned.
    pub consumed: u32,
    /// Records that expired.
    pub expired: u32,
    /// Bytes that may be sent now.
    pub credit: u64,
    /// Milliseconds since something got on.
    pub idle_ms: u64,
}

/// A registered process.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct LocalStatus {
    /// Its name.
    pub node: String,
    /// Its process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its epoch.
    pub epoch: u64,
    /// Microseconds since 1970 since when it is registered.
    pub since: u64,
    /// Channels it sends on through the relay.
    pub sends: usize,
    /// Channels it receives on through the relay.
    pub receives: usize,
}

/// A link.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct LinkStatus {
    /// The other relay's host.
    pub host: String,
    /// Channels that send over it.
    pub sends: usize,
    /// Channels that arrive over it.
    pub receives: usize,
    /// Bytes that wait to be sent.
    pub waiting: usize,
}

/// The channel table.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct TableStatus {
    /// Channels of local senders.
    pub entries: usize,
    /// As many as there may be.
    pub entries_max: usize,
    /// How many came.
    pub inserted: u64,
    /// How many went because there was no room.
    pub evicted: u64,
    /// How many went because they were idle.
    pub expired: u64,
    /// Channels to local receivers.
    pub received: usize,
}

/// Everything at one moment.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The host.
    pub host: String,
    /// The cluster.
    pub cluster: String,
    /// The relay's process.
    pub pid: u32,
    /// Which run of the relay.
    pub incarnation: u64,
    /// Registered processes.
    pub processes: Vec<LocalStatus>,
    /// Channels through the relay.
    pub channels: Vec<ChannelStatus>,
    /// Links to other relays.
    pub links: Vec<LinkStatus>,
    /// The channel table: entries, the most there may be, what came and went.
    pub table: TableStatus,
    /// Bytes of rings that are mapped.
    pub ring_bytes: u64,
    /// What was counted.
    pub counts: Counts,
}

fn state(stand: Stand) -> &'static str {
    match stand {
        Stand::Behind => "behind an earlier stream",
        Stand::Unrouted => "no link",
        Stand::Opening => "opening",
        Stand::Bound => "up",
        Stand::Refused(Some(_)) => "refused, asked again",
        Stand::Refused(None) => "refused",
        Stand::Gone => "receiver died",
        Stand::Ending => "ending",
    }
}

impl Core {
    /// Everything at one moment.
    pub fn status(&mut self) -> Status {
        let now = self.now.instant;
        let mut channels = Vec::new();
        for (_, near) in self.nears.iter_mut() {
            channels.push(ChannelStatus {
                direction: "out",
                src: near.channel.src.to_string(),
                dst: near.channel.dst.to_string(),
                chan: near.channel.chan,
                epoch: near.epoch,
                state: state(near.stand),
                terms: near.terms,
                written: near.reader.written().unwrap_or(near.sent),
                sent: near.sent,
                stored: near.stored,
                consumed: near.consumed,
                expired: near.expired,
                credit: near.limit.saturating_sub(near.sent_bytes),
                idle_ms: now.saturating_duration_since(near.moved).as_millis() as u64,
            });
        }
        for (_, far) in self.fars.iter() {
            channels.push(ChannelStatus {
                direction: "in",
                src: far.channel.src.to_string(),
                dst: far.channel.dst.to_string(),
                chan: far.channel.chan,
                epoch: far.epoch,
                state: match (far.bound, far.at.is_some(), far.gone.is_some()) {
                    (true, ..) => "up",
                    (_, _, true) => "receiver died",
                    (_, true, _) => "waits for the receiver",
                    _ => "no link",
                },
                terms: far.terms,
                written: far.last,
                sent: far.last,
                stored: far.ring.as_ref().map_or(far.last, |ring| ring.writer.stored()),
                consumed: far.told.2,
                expired: far.expired,
                credit: far.limit.saturating_sub(far.received),
                idle_ms: 0,
            });
        }
        // What was seen here is no news any more to whoever looks before the loop sleeps.
        for key in self.nears.iter().map(|(key, _)| key).collect::<Vec<_>>() {
            self.ready(key);
        }
        Status {
            host: self.host.to_string(),
            cluster: self.cluster.name.clone(),
            pid: self.pid,
            incarnation: self.incarnation,
            processes: self.processes(),
            channels,
            links: self.link_statuses(),
            table: self.table_status(),
            ring_bytes: self.charged.values().sum(),
            counts: self.counts,
        }
    }

    fn table_status(&self) -> TableStatus {
        let (entries, entries_max, counters) = self.channels.counters();
        TableStatus {
            entries,
            entries_max,
            inserted: counters.inserted,
            evicted: counters.evicted,
            expired: counters.expired,
            received: self.fars.len(),
        }
    }

    fn processes(&self) -> Vec<LocalStatus> {
        let of = |local: &super::Local| {
            Some(LocalStatus {
                node: local.node.as_ref()?.to_string(),
                pid: local.pid,
                uid: local.uid,
                epoch: local.epoch,
                since: local.since,
                sends: local.nears.len(),
                receives: local.fars.len(),
            })
        };
        self.locals.iter().filter_map(|(_, local)| of(local)).collect()
    }

    fn link_statuses(&self) -> Vec<LinkStatus> {
        let others = self.links.iter().filter(|(_, link)| !link.itself);
        let of = |(_, link): (_, &super::Link)| LinkStatus {
            host: link.host.to_string(),
            sends: link.nears.len(),
            receives: link.fars.len(),
            waiting: link.out.len() + link.backlog,
        };
        others.map(of).collect()
    }
}
