//! How the sending side of a channel ends, or has to wait: what the far relay says against it, and
//! what becomes of a sender that has gone.

use std::rc::Rc;

use ringlane_api::slab::Key;

use crate::bus::local::FromRelay;
use crate::frame::{Frame, Unreachable};

use super::near::{AGAIN, Stand};
use super::{Core, Note};

impl Core {
    /// A closing channel has been acknowledged to its end: says so.
    pub(super) fn finish(&mut self, key: Key) {
        let Some(near) = self.nears.get_mut(key) else { return };
        if !near.closing || near.stand != Stand::Bound || near.has_more() {
            return;
        }
        let Some((link, bind)) = near.at else { return };
        let Ok(written) = near.reader.written() else { return };
        if near.acked() != written {
            // It may have been written between the two looks.
            return self.ready(key);
        }
        near.stand = Stand::Ending;
        self.frame(link, &Frame::Fin { bind, last: written });
    }

    /// The receiver is told that no more comes.
    pub(super) fn closed(&mut self, key: Key) {
        let Some(near) = self.nears.get(key) else { return };
        let (conn, id) = (near.conn, near.id);
        self.remove_near(key);
        if let Some(conn) = conn {
            self.say(conn, FromRelay::Closed { id });
        }
    }

    /// The receiver waits for something.
    pub(super) fn pending(&mut self, key: Key, why: String) {
        let Some(near) = self.nears.get(key) else { return };
        if let Some(conn) = near.conn {
            let id = near.id;
            self.say(conn, FromRelay::Waiting { id, why });
        }
    }

    /// A later epoch of this sender is known there, or another instance of this one.
    pub(super) fn stale(&mut self, key: Key, known: u64) {
        let Some(near) = self.nears.get_mut(key) else { return };
        near.stand = Stand::Refused(None);
        let conn = near.conn;
        self.unbind(key);
        match conn {
            Some(conn) => self.say(conn, FromRelay::StaleEpoch { known }),
            // A dead instance's: the living one has the word.
            None => self.remove_near(key),
        }
    }

    /// The far relay does not take the channel.
    pub(super) fn refused(&mut self, key: Key, why: Unreachable, text: &str) {
        self.unbind(key);
        let Some(near) = self.nears.get_mut(key) else { return };
        let again = !matches!(why, Unreachable::NoSuchNode | Unreachable::Denied);
        near.stand = Stand::Refused(again.then(|| self.now.instant + AGAIN));
        let (conn, id, host) = (near.conn, near.id, Rc::clone(&near.host));
        let why = match text {
            "" => format!("the relay of host {host}: {why}"),
            text => format!("the relay of host {host}: {why}: {text}"),
        };
        match (conn, again) {
            (Some(conn), true) => self.say(conn, FromRelay::Waiting { id, why }),
            (Some(conn), false) => self.say(conn, FromRelay::NoPath { id, why }),
            (None, true) => {}
            (None, false) => self.remove_near(key),
        }
    }

    /// The other relay broke the rules for this channel: it is opened again.
    pub(super) fn broken_near(&mut self, key: Key, what: &str) {
        if self.let_go(key) {
            return;
        }
        self.counts.broken += 1;
        let Some(near) = self.nears.get(key) else { return };
        let channel = near.channel.clone();
        let what = format!("{} to {}/{}: {what}", channel.src, channel.dst, channel.chan);
        self.note(Note::Broken { what });
        self.refused(key, Unreachable::Broken, "");
    }

    /// Whether the sender has given its ring to another relay. Then this one does nothing more for
    /// it, and above all ends nothing.
    fn let_go(&mut self, key: Key) -> bool {
        let let_go = self.nears.get(key).is_some_and(|near| near.reader.is_let_go());
        if let_go {
            self.remove_near(key);
        }
        let_go
    }

    /// The sender wrote nonsense into its own ring: its channel is over.
    pub(super) fn scribbled(&mut self, key: Key) {
        if self.let_go(key) {
            return;
        }
        let Some(near) = self.nears.get(key) else { return };
        self.counts.broken += 1;
        let (conn, id, channel, at) = (near.conn, near.id, near.channel.clone(), near.at);
        if let Some((link, bind)) = at {
            self.frame(link, &Frame::Abort { bind });
        }
        let what = format!("{} wrote nonsense into its ring to {}", channel.src, channel.dst);
        self.note(Note::Broken { what: what.clone() });
        self.remove_near(key);
        if let Some(conn) = conn {
            self.say(conn, FromRelay::NoPath { id, why: what });
        }
    }

    /// The receiver has died.
    pub(super) fn gone(&mut self, key: Key, epoch: u64, first: u32, exact: bool) {
        let Some(near) = self.nears.get_mut(key) else { return };
        near.stand = Stand::Gone;
        let (conn, id, channel) = (near.conn, near.id, near.channel.clone());
        self.counts.gone += 1;
        let lacks = near.reader.written().is_ok_and(|last| last != first.wrapping_sub(1));
        if lacks || !exact {
            self.note(Note::Gone { channel, first, exact });
        }
        match conn {
            Some(conn) => self.say(conn, FromRelay::Gone { id, epoch, first, exact }),
            // There is nobody left to tell.
            None => self.gone_seen(key),
        }
    }

    /// The sender knows that its receiver has died; the channel is over.
    pub(super) fn gone_seen(&mut self, key: Key) {
        let Some(near) = self.nears.get(key) else { return };
        if near.stand != Stand::Gone {
            return;
        }
        if let Some((link, bind)) = near.at {
            self.frame(link, &Frame::GoneOk { bind });
        }
        self.remove_near(key);
    }

    /// The receiver has heard the end of this stream, and what it answered was lost with a link or
    /// a relay: what it has opened now is another stream, which nobody wants. Whether that is so.
    pub(super) fn ended_before(&mut self, key: Key) -> bool {
        let Some(near) = self.nears.get_mut(key) else { return false };
        let acked = near.reader.acked().seq;
        if near.reader.written() != Ok(acked) {
            return false;
        }
        if !near.closing {
            // Its sender will say once more that it closes it.
            near.stand = Stand::Refused(Some(self.now.instant + AGAIN));
            self.unbind(key);
            return true;
        }
        if let Some((link, bind)) = near.at {
            self.frame(link, &Frame::Abort { bind });
        }
        self.closed(key);
        true
    }

    /// The sender has closed the channel: what is published still goes.
    pub(super) fn close_near(&mut self, key: Key) {
        let Some(near) = self.nears.get_mut(key) else { return };
        near.closing = true;
        if matches!(near.stand, Stand::Refused(None)) {
            return self.closed(key);
        }
        self.finish(key);
    }

    /// The sender's process has gone. What it has published goes on, for a while.
    pub(super) fn sender_left(&mut self, key: Key) {
        if self.let_go(key) {
            return;
        }
        let Some(near) = self.nears.get_mut(key) else { return };
        near.conn = None;
        near.closing = true;
        near.linger = Some(self.now.instant + near.keep);
        match near.stand {
            Stand::Gone => self.gone_seen(key),
            Stand::Refused(None) => self.remove_near(key),
            _ => {
                self.ready(key);
                self.finish(key);
            }
        }
    }

    /// Looks at channels that wait for a time: refused ones, ones of the dead, stuck ones.
    pub(super) fn look_after(&mut self) {
        self.age_channels();
        self.look_for_missing();
        let now = self.now.instant;
        for key in self.nears.iter().map(|(key, _)| key).collect::<Vec<_>>() {
            self.look_at_age(key);
            let Some(near) = self.nears.get(key) else { continue };
            match near.stand {
                Stand::Refused(Some(at)) if at <= now => self.route(key),
                _ if near.linger.is_some_and(|until| until <= now) => self.give_up(key),
                _ => self.look_for_stuck(key),
            }
        }
    }

    /// A dead sender's messages could not be delivered in time.
    fn give_up(&mut self, key: Key) {
        if self.let_go(key) {
            return;
        }
        let Some(near) = self.nears.get_mut(key) else { return };
        let left = near.reader.written().map_or(0, |written| written.wrapping_sub(near.stored));
        let (channel, at) = (near.channel.clone(), near.at);
        let what = format!(
            "{} died and {left} messages of it to {} could not be delivered in time",
            channel.src, channel.dst
        );
        self.note(Note::Refused { what });
        if let Some((link, bind)) = at {
            self.frame(link, &Frame::Abort { bind });
        }
        self.remove_near(key);
    }

    fn look_for_stuck(&mut self, key: Key) {
        let now = self.now.instant;
        let Some(near) = self.nears.get_mut(key) else { return };
        let waits = near.reader.written().is_ok_and(|written| written != near.stored);
        if !waits {
            near.moved = now;
            return;
        }
        // What was seen here is no news any more to whoever looks before the loop sleeps.
        self.ready(key);
        let Some(near) = self.nears.get_mut(key) else { return };
        let after = near.terms.stuck_after_ms;
        let since = now.saturating_duration_since(near.moved).as_millis() as u64;
        if near.told_stuck || after == 0 || since < u64::from(after) {
            return;
        }
        near.told_stuck = true;
        let why = match near.stand {
            Stand::Bound => format!("{} does not read", near.channel.dst),
            Stand::Unrouted => format!("the relay of host {} is out of reach", near.host),
            Stand::Opening => format!("{} is not there", near.channel.dst),
            _ => "the receiver's relay does not take it".to_string(),
        };
        let (conn, id, channel) = (near.conn, near.id, near.channel.clone());
        if let Some(conn) = conn {
            self.say(conn, FromRelay::Stuck { id, for_ms: since, why: why.clone() });
        }
        self.note(Note::Stuck { channel, for_ms: since, why });
    }
}
