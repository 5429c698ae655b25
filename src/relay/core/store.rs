//! Records on their way into a receiver's ring, and what is said of them.

use ringlane_api::mutant::{self, Mutant};
use ringlane_api::slab::Key;

use crate::bus::local::AckWhen;
use crate::frame::{Body, Frame};
use crate::shm::Scribbled;
use crate::shm::crash::{self, Point};
use crate::shm::through::Ended;

use super::far::{Far, SKIP_BYTES};
use super::{Bell, Core};

impl Core {
    /// Records.
    pub(super) fn data(&mut self, link: Key, bind: u32, seq: u32, gaps: bool, body: Body<'_>) {
        let Some(key) = self.bound_far(link, bind) else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        let stored = self.store(key, seq, gaps, body, &mut scratch);
        self.scratch = scratch;
        match stored {
            Ok(records) => {
                self.counts.stored += u64::from(records);
                self.counts.stored_bytes += body.len() as u64;
                self.soil(key);
            }
            Err(what) => self.broken_far(key, &what),
        }
    }

    fn bound_far(&mut self, link: Key, bind: u32) -> Option<Key> {
        let key = self.links.get(link).and_then(|link| link.fars.get(&bind).copied());
        let bound = key.filter(|key| self.fars.get(*key).is_some_and(|far| far.bound));
        self.counts.stray += u64::from(bound.is_none());
        bound
    }

    fn store(
        &mut self,
        key: Key,
        seq: u32,
        gaps: bool,
        body: Body<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<u32, String> {
        let far = self.fars.get_mut(key).ok_or("no such channel")?;
        let ring = far.ring.as_mut().ok_or("no ring")?;
        let gap = seq.wrapping_sub(far.last.wrapping_add(1));
        if gap != 0 && (!gaps || gap >= 1 << 31) {
            return Err(format!("record {seq} behind record {}", far.last));
        }
        far.received += body.len() as u64 + if gap > 0 { u64::from(SKIP_BYTES) } else { 0 };
        if far.received > far.limit {
            return Err(format!("{} bytes where {} were allowed", far.received, far.limit));
        }
        if gap > 0 {
            ring.writer.skip(gap).map_err(|error| error.to_string())?;
        }
        let mut failed = None;
        let most = ring.writer.record_bytes_max();
        let runs = body.runs(most, scratch, |run, _| {
            if failed.is_none() {
                failed = ring.writer.push_run(run).err();
            }
        });
        let records = runs.map_err(|bad| bad.to_string())?;
        if let Some(error) = failed {
            return Err(error.to_string());
        }
        far.last = seq.wrapping_add(records).wrapping_sub(1);
        Ok(records)
    }

    /// Records `seq` to `to` have expired.
    pub(super) fn skip(&mut self, link: Key, bind: u32, seq: u32, to: u32) {
        let Some(key) = self.bound_far(link, bind) else { return };
        let Some(far) = self.fars.get_mut(key) else { return };
        let Some(ring) = far.ring.as_mut() else { return };
        let n = to.wrapping_sub(seq).wrapping_add(1);
        far.received += u64::from(SKIP_BYTES);
        let fits = seq == far.last.wrapping_add(1) && n > 0 && n < 1 << 31;
        if !fits || far.received > far.limit || ring.writer.skip(n).is_err() {
            return self.broken_far(key, "a SKIP that does not fit");
        }
        far.last = to;
        far.expired = far.expired.wrapping_add(n);
        self.soil(key);
    }

    fn soil(&mut self, key: Key) {
        if let Some(far) = self.fars.get_mut(key)
            && !std::mem::replace(&mut far.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Lets the receiver see what was stored, rings it, and acknowledges: in this order.
    pub(super) fn publish(&mut self, key: Key) {
        let Some(far) = self.fars.get_mut(key) else { return };
        if mutant::on(Mutant::BusAckEarly) && far.dirty && far.told.0 != far.last {
            self.dirty.push(key);
            return self.acknowledge(key);
        }
        if !std::mem::take(&mut far.dirty) {
            return;
        }
        let Some(ring) = far.ring.as_mut() else { return };
        let conn = ring.conn;
        match ring.writer.publish() {
            Ok(()) => {
                self.ring(conn, Bell::Messages);
                self.acknowledge(key);
            }
            Err(Ended::Frozen) => self.lost_ring(key),
            Err(_) => self.spoiled(key),
        }
    }

    /// Says what is stored, how much more may come, and what was consumed.
    pub(super) fn acknowledge(&mut self, key: Key) {
        let Some(far) = self.fars.get_mut(key) else { return };
        let (Some((link, bind)), true, Some(ring)) = (far.at, far.bound, far.ring.as_mut()) else {
            return;
        };
        let (Ok(room), Ok(consumed)) = (ring.writer.room(), ring.writer.consumed()) else {
            return self.spoiled(key);
        };
        far.limit = far.limit.max(far.received + u64::from(room));
        far.told = (far.last, far.limit, consumed);
        let (stored, limit, expired) = (far.last, far.limit, far.expired);
        self.frame(link, &Frame::Ack { bind, stored, limit, consumed, expired });
        crash::here(Point::AckSaid);
    }

    /// Channels whose receiver may have got on: grants room, tells what was consumed.
    pub(super) fn look_at_consumers(&mut self) {
        for key in std::mem::take(&mut self.consumed) {
            let Some(far) = self.fars.get_mut(key) else { continue };
            far.watched = false;
            match owes(far) {
                Ok(true) => self.acknowledge(key),
                Ok(false) => {}
                Err(Scribbled) => self.spoiled(key),
            }
        }
    }

    /// Whether a receiver that is waited for has consumed so much that it is to be told.
    pub(super) fn has_consumed(&mut self, key: Key) -> bool {
        self.wants_room(key) && self.fars.get_mut(key).is_some_and(|far| owes(far) != Ok(false))
    }

    /// Whether the receiver at a connection is to ring when it has consumed something.
    pub(super) fn wants_room(&self, far: Key) -> bool {
        let Some(far) = self.fars.get(far) else { return false };
        let Some(ring) = far.ring.as_ref().filter(|_| far.bound) else { return false };
        let dry = far.limit - far.received < u64::from(ring.cap / 2);
        dry || far.terms.ack == AckWhen::Consumed && far.told.2 != far.last
    }
}

/// Whether the sender is to be told what its receiver has consumed: an eighth of the ring, or
/// anything if it has little left to send, or wants to know of each.
fn owes(far: &mut Far) -> Result<bool, Scribbled> {
    let (Some(ring), true) = (far.ring.as_mut(), far.bound && !far.dirty) else { return Ok(false) };
    let (room, consumed) = (ring.writer.room()?, ring.writer.consumed()?);
    let (cap, (_, told_limit, told_consumed)) = (u64::from(ring.cap), far.told);
    let limit = far.limit.max(far.received + u64::from(room));
    let more = limit - told_limit >= cap / 8;
    let dry = told_limit - far.received < cap / 4 && limit > told_limit;
    let heard = far.terms.ack == AckWhen::Consumed && consumed != told_consumed;
    Ok(more || dry || heard)
}
