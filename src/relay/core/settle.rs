//! The end of a turn: what was stored is published and acknowledged, and the links are filled.
//!
//! The order of stores is the protocol: the publish word, then the bell, then the acknowledgement;
//! `sent`, then the bytes.

use ringlane_api::mutant::{self, Mutant};
use std::time::Instant;

use ringlane_api::slab::Key;

use crate::bus::local::Class;
use crate::frame::{DataStart, Frame, data_header};
use crate::shm::crash::{self, Point};
use crate::shm::through::{Batch, Missed};

use super::far::SKIP_BYTES;
use super::link::GULP_BYTES;
use super::near::Stand;
use super::{Bell, ConnId, Core, Now, Out};

/// A record with this in its kind begins with the time after which it is worth nothing.
pub const DEADLINE: u16 = 0x100;

/// Set in a record's kind where its message goes on in the next one.
const MORE: u16 = crate::shm::MORE;

/// Batches up to so many bytes are copied behind each other; larger ones go as they are.
const COPY_BYTES: usize = 4 << 10;

/// Rounds of one turn, so that a stream to ourselves does not keep everybody else waiting.
const ROUNDS: u32 = 4;

impl Core {
    /// Does what the events since the last turn have made possible. Returns whether there is more:
    /// then it wants another turn soon.
    pub fn turn(&mut self, now: Now) -> bool {
        self.now = now;
        let mut rounds = 0;
        while rounds < ROUNDS {
            self.look_at_consumers();
            self.publish_all();
            self.pay_all();
            self.fill_all();
            self.flush_links();
            let calm = self.dirty.is_empty() && self.touched.is_empty();
            if calm || mutant::on(Mutant::BusAckEarly) {
                break;
            }
            rounds += 1;
        }
        for conn in std::mem::take(&mut self.bells) {
            if let Some(local) = self.locals.get_mut(conn) {
                let Some(bell) = local.to_ring.take() else { continue };
                self.counts.rings += 1;
                self.out.push_back(Out::Ring(ConnId(conn), bell));
            }
        }
        !self.dirty.is_empty() || !self.touched.is_empty()
    }

    fn publish_all(&mut self) {
        for far in std::mem::take(&mut self.dirty) {
            self.publish(far);
        }
    }

    /// Lets every link that has room and something to send take it.
    fn fill_all(&mut self) {
        let most = self.link_bytes();
        for at in 0..self.touched.len() {
            let link = self.touched[at];
            while let Some(one) = self.links.get_mut(link).filter(|one| one.waiting() < most) {
                let Some(near) = one.next() else { break };
                self.gulp(near, link);
            }
            // What is owed goes with it.
            if self.links.get(link).is_some_and(|one| !one.out.is_empty()) {
                self.pay(link);
            }
        }
    }

    /// When the machine wants a turn, if nothing else gives it one.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.ack_at
    }

    /// One channel's turn on its link.
    fn gulp(&mut self, key: Key, link: Key) {
        let Some(near) = self.nears.get_mut(key) else { return };
        let Some((at, bind)) = near.at else { return };
        if at != link || near.stand != Stand::Bound || !near.queued {
            return;
        }
        near.queued = false;
        if let Some(seat) = near.seat {
            self.channels.touch(seat, self.now.instant);
        }
        if near.terms.class == Class::Latest && self.conflate(key).is_err() {
            return self.scribbled(key);
        }
        let Some(near) = self.nears.get_mut(key) else { return };
        let gaps = near.terms.class == Class::Latest;
        let mut credit = near.limit.saturating_sub(near.sent_bytes);
        if mutant::on(Mutant::BusCreditIgnored) {
            credit = u64::MAX;
        }
        let gap = near.reader.next().wrapping_sub(near.sent.wrapping_add(1));
        if gap > 0 {
            credit = credit.saturating_sub(u64::from(SKIP_BYTES));
        }
        let credit = u32::try_from(credit).unwrap_or(u32::MAX);
        let mut bytes = Vec::new();
        let start = DataStart::new(&mut bytes);
        let batch = match near.reader.read(GULP_BYTES, credit, &mut bytes) {
            Ok(batch) => batch,
            Err(_) => return self.scribbled(key),
        };
        if batch.records == 0 {
            // Without credit; an ACK brings it back.
            return;
        }
        if batch.kinds & DEADLINE != 0 {
            self.send_unexpired(key, link, bind, &batch, &bytes);
        } else {
            let last = batch.first.wrapping_add(batch.records - 1);
            near.reader.mark_sent(last);
            near.sent = last;
            near.sent_bytes += u64::from(batch.bytes) + if gap > 0 { SKIP_BYTES.into() } else { 0 };
            start.end(&mut bytes, bind, batch.first, gaps);
            self.append(link, bytes);
        }
        self.counts.sent += u64::from(batch.records);
        self.counts.sent_bytes += u64::from(batch.bytes);
        self.ready(key);
        self.finish(key);
    }

    /// Moves a frame to a link's output.
    fn append(&mut self, link: Key, bytes: Vec<u8>) {
        let Some(one) = self.links.get_mut(link) else { return };
        match bytes.len() <= COPY_BYTES {
            true => one.out.add(&bytes),
            false => one.out.add_shared(bytes.into()),
        };
        crash::here(Point::Appended);
    }

    /// Of a channel whose newest record only matters, passes over the others.
    fn conflate(&mut self, key: Key) -> Result<(), Missed> {
        let Some(near) = self.nears.get_mut(key) else { return Ok(()) };
        let newest = near.reader.written()?;
        let next = near.reader.next();
        let over = newest.wrapping_sub(next);
        if over == 0 || over >= 1 << 31 {
            return Ok(());
        }
        near.reader.seek(newest)?;
        near.reader.mark_acked(newest.wrapping_sub(1))?;
        self.counts.conflated += u64::from(over);
        let conn = near.conn;
        if let Some(conn) = conn {
            self.ring(conn, Bell::Room);
        }
        Ok(())
    }

    /// Sends what has not expired of a batch that has deadlines, and says which numbers have.
    fn send_unexpired(&mut self, key: Key, link: Key, bind: u32, batch: &Batch, bytes: &[u8]) {
        let mono_ms = self.now.mono_ms;
        let Some(near) = self.nears.get_mut(key) else { return };
        near.reader.mark_sent(batch.first.wrapping_add(batch.records - 1));
        let mut runs = Runs::new(batch.first, &bytes[crate::frame::FRAME_HEADER_BYTES..]);
        while let Some(run) = runs.next(mono_ms) {
            let last = run.first.wrapping_add(run.records - 1);
            let Some(near) = self.nears.get_mut(key) else { return };
            near.sent = last;
            if run.expired {
                near.sent_bytes += u64::from(SKIP_BYTES);
                self.counts.expired += u64::from(run.records);
                self.frame(link, &Frame::Skip { bind, seq: run.first, to: last });
            } else {
                near.sent_bytes += run.bytes.len() as u64;
                let len = u32::try_from(run.bytes.len()).expect("a gulp is short");
                let Some(one) = self.links.get_mut(link) else { return };
                one.out.add(&data_header(bind, run.first, false, len));
                one.out.add(run.bytes);
            }
        }
    }
}

/// Records back to back, of which some have expired: in runs of one kind.
struct Runs<'a> {
    bytes: &'a [u8],
    next: u32,
}

struct Run<'a> {
    first: u32,
    records: u32,
    expired: bool,
    bytes: &'a [u8],
}

impl<'a> Runs<'a> {
    fn new(first: u32, bytes: &'a [u8]) -> Runs<'a> {
        Runs { bytes, next: first }
    }

    /// The next run. A message of several records is judged by its first, and expires only if all
    /// of it is here: what is partly stored is not taken back.
    fn next(&mut self, mono_ms: u64) -> Option<Run<'a>> {
        let (bytes, first) = (self.bytes, self.next);
        let (mut at, mut records, mut kind) = (0, 0, None);
        while at < bytes.len() {
            let (whole, parts, expired) = message(&bytes[at..], mono_ms);
            // Runs that expire stand for themselves, so that a gap is one message.
            if kind.is_some_and(|kind| kind != expired) {
                break;
            }
            kind = Some(expired);
            at += whole;
            records += parts;
            if expired {
                break;
            }
        }
        self.bytes = &bytes[at..];
        self.next = first.wrapping_add(records);
        Some(Run { first, records, expired: kind?, bytes: &bytes[..at] })
    }
}

/// Bytes and records of the message at the front, and whether it is worth nothing any more.
fn message(bytes: &[u8], mono_ms: u64) -> (usize, u32, bool) {
    let word = |at: usize, n: usize| -> u64 {
        let mut value = [0; 8];
        value[..n].copy_from_slice(&bytes[at..at + n]);
        u64::from_le_bytes(value)
    };
    let (mut at, mut records, mut late) = (0, 0, false);
    loop {
        let (len, kind) = (word(at, 4) as usize, word(at + 4, 2) as u16);
        if records == 0 {
            late = kind & DEADLINE != 0 && len >= 8 && word(at + 8, 8) < mono_ms;
        }
        at += (len + 8 + 7) & !7;
        records += 1;
        if kind & MORE == 0 {
            return (at, records, late);
        }
        if at >= bytes.len() {
            return (at, records, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn what_has_expired_leaves_in_runs_of_its_own_and_only_whole() {
        let late = 5_u64.to_le_bytes();
        let early = 500_u64.to_le_bytes();
        let all = [
            record(1, b"a"),
            record(1 | DEADLINE, &late),
            record(1 | DEADLINE | MORE, &late),
            record(1, b"the rest of it"),
            record(1 | DEADLINE, &early),
            record(1, b"b"),
            record(1 | DEADLINE | MORE, &late),
        ]
        .concat();
        let mut runs = Runs::new(u32::MAX, &all);
        let mut told = Vec::new();
        while let Some(run) = runs.next(100) {
            told.push((run.first, run.records, run.expired));
        }
        let cut = (4, 3, false);
        assert_eq!(
            told,
            [(u32::MAX, 1, false), (0, 1, true), (1, 2, true), (3, 3, false)],
            "{cut:?}"
        );
    }
}
