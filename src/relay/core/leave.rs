//! How the receiving side of a channel ends: by its sender, by its receiver's death, by nonsense.

use std::rc::Rc;

use ringlane_api::slab::Key;

use crate::bus::local::FromRelay;
use crate::frame::{Frame, Unreachable};
use crate::shm::through::{Ended, InletWriter, Unfit};

use super::{Core, Note};

impl Core {
    /// The sender has ended its stream behind `last`, or without an end.
    pub(super) fn fin(&mut self, link: Key, bind: u32, last: Option<u32>) {
        let Some(key) = self.links.get(link).and_then(|link| link.fars.get(&bind).copied()) else {
            self.counts.stray += 1;
            return;
        };
        self.publish(key);
        let Some(far) = self.fars.get(key) else { return };
        if last.is_some() && far.gone.is_some() {
            // The two crossed: that the receiver has died is on its way.
            return;
        }
        if last.is_some() && !far.bound {
            // Its ring is on the way from one relay to the next, or from here to here. Nobody could
            // be told of the end now.
            return self.open_again(key);
        }
        if last.is_some_and(|last| far.last != last) {
            return self.broken_far(key, "a FIN that is not behind the last record");
        }
        self.end_stream(key, last.is_some());
        self.unbind_far(key);
        self.remove_far(key);
        self.frame(link, &Frame::Closed { bind });
    }

    /// Tells the receiver that no more comes in the stream that is open.
    pub(super) fn end_stream(&mut self, key: Key, clean: bool) {
        let Some(far) = self.fars.get_mut(key) else { return };
        let (epoch, from, chan) = (far.epoch, far.channel.src.to_string(), far.channel.chan);
        far.bound = false;
        far.dirty = false;
        far.asked = None;
        let Some(ring) = far.ring.take() else { return };
        let last = ring.writer.stored();
        self.release(ring.charged);
        self.say(ring.conn, FromRelay::End { from, chan, epoch, last, clean });
    }

    /// The sender's relay has heard that the receiver died.
    pub(super) fn gone_heard(&mut self, link: Key, bind: u32) {
        let Some(key) = self.links.get(link).and_then(|link| link.fars.get(&bind).copied()) else {
            return;
        };
        // Who lives under the name now may have given a ring for the stream that is over.
        self.end_stream(key, false);
        self.unbind_far(key);
        self.remove_far(key);
    }

    /// What was bound to a link that is gone.
    pub(super) fn far_unlinked(&mut self, key: Key, link: Key) {
        let Some(far) = self.fars.get_mut(key) else { return };
        if far.at.is_some_and(|(at, _)| at == link) {
            far.at = None;
            far.bound = false;
        }
    }

    pub(super) fn unbind_far(&mut self, key: Key) {
        let Some(far) = self.fars.get_mut(key) else { return };
        far.bound = false;
        if let Some((link, bind)) = far.at.take()
            && let Some(link) = self.links.get_mut(link)
        {
            link.fars.remove(&bind);
        }
    }

    pub(super) fn remove_far(&mut self, key: Key) {
        let Some(far) = self.fars.remove(key) else { return };
        self.far_at.remove(&far.channel);
        let Some(ring) = far.ring else { return };
        self.release(ring.charged);
        if let Some(local) = self.locals.get_mut(ring.conn) {
            local.fars.retain(|one| *one != key);
        }
    }

    /// The receiver's process is not served any more on that connection; it may come back.
    pub(super) fn receiver_refused(&mut self, key: Key, conn: Key) {
        let Some(far) = self.fars.get_mut(key) else { return };
        if far.asked == Some(conn) {
            far.asked = None;
        }
        if far.ring.as_ref().is_some_and(|ring| ring.conn == conn) {
            self.lost_ring(key);
        }
    }

    /// The receiver's process is gone.
    pub(super) fn receiver_left(&mut self, key: Key, conn: Key) {
        let Some(far) = self.fars.get_mut(key) else { return };
        if far.asked == Some(conn) {
            far.asked = None;
        }
        if far.ring.as_ref().is_none_or(|ring| ring.conn != conn) {
            return;
        }
        far.bound = false;
        far.dirty = false;
        let Some(mut ring) = far.ring.take() else { return };
        self.release(ring.charged);
        if ring.writer.look() == Err(Ended::Frozen) {
            // It has taken its ring to another relay.
            return;
        }
        let Some(far) = self.fars.get_mut(key) else { return };
        let consumed = ring.writer.consumed();
        let first = consumed.map_or(1, |consumed| consumed.wrapping_add(1));
        far.gone = Some((ring.epoch, first, consumed.is_ok()));
        let (channel, at) = (far.channel.clone(), far.at);
        self.counts.gone += 1;
        let exact = consumed.is_ok();
        if consumed != Ok(ring.writer.stored()) {
            self.note(Note::Gone { channel, first, exact });
        }
        if let Some((link, bind)) = at {
            self.frame(link, &Frame::Gone { bind, epoch: ring.epoch, first, exact });
        }
    }

    /// The receiver wrote nonsense into its ring: it is not served any more.
    pub(super) fn spoiled(&mut self, key: Key) {
        let Some(ring) = self.fars.get(key).and_then(|far| far.ring.as_ref()) else { return };
        let conn = ring.conn;
        self.counts.broken += 1;
        self.refuse(conn, "it wrote nonsense into its own ring".to_string());
    }

    /// The sending relay broke the rules for this channel, which is opened again.
    pub(super) fn broken_far(&mut self, key: Key, what: &str) {
        self.counts.broken += 1;
        let Some(far) = self.fars.get_mut(key) else { return };
        let (at, channel) = (far.at, far.channel.clone());
        // What was written and not published is as if it never came.
        far.dirty = false;
        let fresh = far.ring.as_ref().map(|ring| InletWriter::new(Rc::clone(&ring.map)));
        match (fresh, far.ring.as_mut()) {
            (Some(Ok(writer)), Some(ring)) => ring.writer = writer,
            (Some(Err(Unfit::Frozen)), _) => self.lost_ring(key),
            (Some(Err(_)), _) => return self.spoiled(key),
            _ => {}
        }
        self.unbind_far(key);
        let what = format!("{} to {}/{}: {what}", channel.src, channel.dst, channel.chan);
        if let Some((link, bind)) = at {
            let text: String = what.chars().take(100).collect();
            self.frame(link, &Frame::Unreach { bind, why: Unreachable::Broken, text: &text });
        }
        self.note(Note::Broken { what });
    }
}
