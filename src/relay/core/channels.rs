//! The channel table's ageing: which channels of local senders have been idle for long, and which
//! one makes room when there are as many as there may be.
//!
//! A channel that leaves the table is not cut: its sender is asked to close it
//! ([`FromRelay::Idle`]), since only the sender knows that nothing is about to be written into its
//! ring. One that has something unacknowledged is never asked. Touching stores a tick; whether a
//! channel may go is looked at ten times a second, with everything else that waits for a time.

use std::time::Instant;

use ringlane_api::slab::Key;

use crate::bus::local::FromRelay;
use crate::cluster::Cluster;
use crate::relay::aged::{Aged, Counters, Evict, Full, Id, Limits};

use super::Core;
use super::near::Stand;

/// What the table knows of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Channel {
    idle: bool,
}

impl Evict for Channel {
    fn may_go(&self) -> bool {
        self.idle
    }
}

/// The table: every channel of a local sender, by what the machine calls it.
pub struct Channels {
    table: Aged<Key, Channel>,
}

impl Channels {
    /// An empty one, with a cluster's limits.
    pub fn new(cluster: &Cluster, now: Instant) -> Channels {
        let limits = Limits {
            setting: "limits.channels",
            entries_max: cluster.limits.channels as usize,
            idle_max: cluster.ageing.idle_channel,
        };
        Channels { table: Aged::new(limits, now) }
    }

    /// Other limits, after a reload.
    pub fn reconfigure(&mut self, cluster: &Cluster) {
        self.table.set_entries_max(cluster.limits.channels as usize);
    }

    /// A new channel; and which one is to be asked to go for it.
    pub fn insert(&mut self, key: Key, now: Instant) -> Result<(Id, Option<Key>), Full> {
        let tick = self.table.tick(now);
        let inserted = self.table.insert(key, Channel { idle: false }, tick)?;
        Ok((inserted.id, inserted.left.map(|(key, _)| key)))
    }

    /// Messages went on it.
    pub fn touch(&mut self, id: Id, now: Instant) {
        let tick = self.table.tick(now);
        self.table.touch(id, tick);
    }

    /// Says whether everything on it is acknowledged.
    pub fn set_idle(&mut self, id: Id, idle: bool) {
        if self.table.get(id).is_some_and(|channel| channel.idle != idle)
            && let Some(mut channel) = self.table.get_mut(id)
        {
            channel.idle = idle;
        }
    }

    pub fn remove(&mut self, id: Id) {
        self.table.remove(id);
    }

    /// Which ones have been idle for too long.
    pub fn age(&mut self, now: Instant) -> Vec<Key> {
        let mut out = Vec::new();
        self.table.age(now, &mut out);
        out.into_iter().map(|(key, _)| key).collect()
    }

    /// How many there are, and may be; what came and went.
    pub fn counters(&self) -> (usize, usize, Counters) {
        (self.table.len(), self.table.limits().entries_max, self.table.counters())
    }
}

impl Core {
    /// Asks the senders of channels that have been idle for long to close them.
    pub(super) fn age_channels(&mut self) {
        for key in self.channels.age(self.now.instant) {
            self.ask_to_go(key);
        }
    }

    pub(super) fn ask_to_go(&mut self, key: Key) {
        let Some(near) = self.nears.get_mut(key) else { return };
        near.seat = None;
        let (conn, id) = (near.conn, near.id);
        if let Some(conn) = conn {
            self.say(conn, FromRelay::Idle { id });
        }
    }

    /// A seat for a new channel.
    pub(super) fn seat(&mut self, key: Key) -> Result<(), String> {
        let (seat, left) =
            self.channels.insert(key, self.now.instant).map_err(|full| full.to_string())?;
        if let Some(near) = self.nears.get_mut(key) {
            near.seat = Some(seat);
        }
        if let Some(left) = left {
            self.ask_to_go(left);
        }
        Ok(())
    }

    /// Tells the table how a channel is. One that was asked to go and did not gets a seat again
    /// when something moves on it.
    pub(super) fn look_at_age(&mut self, key: Key) {
        let now = self.now.instant;
        let Some(near) = self.nears.get_mut(key) else { return };
        let calm = matches!(near.stand, Stand::Bound | Stand::Unrouted);
        let idle = calm && !near.closing && near.stored == near.sent && !near.has_more();
        match near.seat {
            Some(seat) => self.channels.set_idle(seat, idle),
            None if idle => {}
            None => {
                let Ok((seat, left)) = self.channels.insert(key, now) else { return };
                near.seat = Some(seat);
                if let Some(left) = left {
                    self.ask_to_go(left);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringlane_api::slab::Slab;

    use super::*;

    fn table(most: usize) -> (Channels, Slab<()>, Instant) {
        let text = format!(
            r#"
[cluster]
name = "t"
[[host]]
name = "a"
nodes = ["s"]
[limits]
channels = {most}
channels_per_process = {most}
[ageing]
idle_channel = "10s"
"#
        );
        let cluster = Cluster::parse(&text).expect("it is right");
        let now = Instant::now();
        (Channels::new(&cluster, now), Slab::with_capacity(0), now)
    }

    #[test]
    fn the_longest_idle_channel_makes_room_and_never_one_with_something_unacknowledged() {
        let (mut channels, mut slab, now) = table(3);
        let keys = [(); 5].map(|()| slab.insert(()));
        let seats: Vec<Id> =
            (0..3).map(|at| channels.insert(keys[at], now).expect("there is room").0).collect();
        let later = now + Duration::from_secs(3);
        channels.touch(seats[0], later);
        channels.set_idle(seats[0], true);
        channels.set_idle(seats[1], true);
        // The third one is not idle, though it moved as long ago as the second.
        assert_eq!(channels.insert(keys[3], later).expect("one goes").1, Some(keys[1]));
        assert_eq!(channels.insert(keys[4], later).expect("one goes").1, Some(keys[0]));
        let full = channels.insert(keys[0], later).expect_err("nobody may go");
        assert!(full.to_string().contains("limits.channels"), "{full}");
    }

    #[test]
    fn a_channel_without_messages_leaves_and_one_with_some_stays() {
        let (mut channels, mut slab, now) = table(10);
        let keys = [(); 3].map(|()| slab.insert(()));
        let seats = keys.map(|key| channels.insert(key, now).expect("there is room").0);
        seats.iter().take(2).for_each(|seat| channels.set_idle(*seat, true));
        channels.touch(seats[1], now + Duration::from_secs(8));
        assert_eq!(channels.age(now + Duration::from_secs(12)), [keys[0]]);
        assert_eq!(channels.age(now + Duration::from_secs(20)), [keys[1]]);
        assert_eq!(channels.counters().0, 1);
    }
}
