//! The sending side of a channel: reads a local process's ring and sends what is there over the
//! link to the receiver's relay.
//!
//! ```text
//!   attach -> Unrouted --link--> Opening --RESUME--> Bound --GONE--> Gone --GoneSeen--> (removed)
//!                ^                  |  PENDING          |
//!                '------ link lost, STALE, broken ------'
//! ```

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringlane_api::slab::Key;

use crate::bus::local::{AckWhen, Class, FromRelay, Nonce, Place, Terms};
use crate::frame::{self, Frame, Open, Unreachable};
use crate::relay::aged::Id;
use crate::shm::crash::{self, Point};
use crate::shm::through::{OutletReader, Published};

use super::local::Found;
use super::{Bell, Channel, Core, Out};

/// After so long an end that was refused for the moment is asked again.
pub const AGAIN: Duration = Duration::from_millis(500);

/// How a channel stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stand {
    /// A stream of an earlier instance of the sender is sent first.
    Behind,
    /// There is no link to the receiver's host.
    Unrouted,
    /// OPEN was sent.
    Opening,
    /// DATA flows.
    Bound,
    /// Refused; asked again at that time, if ever.
    Refused(Option<Instant>),
    /// The receiver has died; the sender was told.
    Gone,
    /// FIN was sent.
    Ending,
}

/// The sending side of a channel.
pub struct Near {
    pub channel: Channel,
    /// The receiver's host.
    pub host: Rc<str>,
    /// The sending process, while it is there.
    pub conn: Option<Key>,
    /// The process's number for the channel.
    pub id: u32,
    pub epoch: u64,
    pub nonce: Nonce,
    pub att: u32,
    /// The receiver's epoch, once known.
    pub expected: u64,
    pub terms: Terms,
    pub reader: OutletReader,
    pub ring: u32,
    /// Bytes that are charged to the sender's user, and to whom.
    pub charged: (u32, u64),
    pub stand: Stand,
    /// The link and the binding, while there are.
    pub at: Option<(Key, u32)>,
    /// It stands in its link's queue.
    pub queued: bool,
    /// Bytes of records that may be sent in this binding, and that were.
    pub limit: u64,
    pub sent_bytes: u64,
    /// The last record that was sent in this binding.
    pub sent: u32,
    pub stored: u32,
    pub consumed: u32,
    pub expired: u32,
    /// Nothing comes any more: the process has closed the channel, or died (then, until when it is
    /// tried).
    pub closing: bool,
    pub linger: Option<Instant>,
    /// How long it is tried after the sender's death.
    pub keep: Duration,
    /// When something last got on, and whether the sender knows that nothing does.
    pub moved: Instant,
    pub told_stuck: bool,
    /// The sender knows that there is no link.
    pub told_waiting: bool,
    /// Its place in the table of channels.
    pub seat: Option<Id>,
}

/// What comes with [`Attach`](crate::bus::local::ToRelay::Attach).
pub struct Attached {
    pub id: u32,
    pub to: String,
    pub chan: u16,
    pub epoch: u64,
    pub att: u32,
    pub from: Place,
    pub expected: u64,
    pub ring: u32,
}

impl Near {
    fn new(
        (conn, nonce): (Key, Nonce),
        attached: &Attached,
        found: Found,
        (reader, charged): (OutletReader, (u32, u64)),
        now: Instant,
    ) -> Near {
        let from = attached.from;
        Near {
            channel: found.channel,
            host: found.host,
            conn: Some(conn),
            id: attached.id,
            epoch: attached.epoch,
            nonce,
            att: attached.att,
            expected: attached.expected,
            terms: found.terms,
            reader,
            ring: attached.ring,
            charged,
            stand: Stand::Unrouted,
            at: None,
            queued: false,
            limit: 0,
            sent_bytes: 0,
            sent: from.seq,
            stored: from.seq,
            // Of what is only stored it is not known yet.
            consumed: if found.terms.ack == AckWhen::Consumed { from.seq } else { 0 },
            expired: 0,
            closing: false,
            linger: None,
            keep: found.keep,
            moved: now,
            told_stuck: false,
            told_waiting: false,
            seat: None,
        }
    }

    /// The last record that need not be held any more.
    pub fn acked(&self) -> u32 {
        match self.terms.ack {
            AckWhen::Stored => self.stored,
            AckWhen::Consumed => self.consumed,
        }
    }

    /// Whether the sender has published since it was looked at, and something can be sent.
    pub(super) fn is_news(&self) -> bool {
        let may = matches!(self.stand, Stand::Bound | Stand::Unrouted);
        may && !self.queued && self.reader.news()
    }

    /// Whether there are records that were not sent in this binding.
    pub(super) fn has_more(&self) -> bool {
        self.reader.unread() > 0 || self.reader.news()
    }
}

fn wire_class(class: Class) -> frame::Class {
    match class {
        Class::Reliable => frame::Class::Reliable,
        Class::Latest => frame::Class::Latest,
        Class::DropNew => frame::Class::DropNew,
        Class::DropOld => frame::Class::DropOld,
    }
}

impl Core {
    /// A process hands a ring over: a new channel, or one that a relay before us had.
    pub(super) fn attach(
        &mut self,
        conn: Key,
        attached: Attached,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let local = self.locals.get(conn).ok_or("the connection is over")?;
        let (src, uid) = (local.registered()?, local.uid);
        let (epoch, nonce) = (local.epoch, local.nonce);
        if attached.epoch != epoch {
            return Err(format!("epoch {} is not the registered one, {epoch}", attached.epoch));
        }
        let Attached { id, ref to, chan, from, ring, .. } = attached;
        let found = match self.find(&src, to, chan) {
            Ok(found) => found,
            Err(why) => {
                self.say(conn, FromRelay::NoPath { id, why });
                return Ok(());
            }
        };
        let most = self.cluster.limits.channels_per_process as usize;
        if self.locals.get(conn).is_some_and(|local| local.nears.len() >= most) {
            let why = format!("limits.channels_per_process = {most} is reached");
            self.say(conn, FromRelay::NoPath { id, why });
            return Ok(());
        }
        let charged = self.charge(uid, u64::from(ring))?;
        let reader = match self.reader(&fds, ring, from) {
            Ok(reader) => reader,
            Err(why) => {
                self.release(charged);
                return Err(why);
            }
        };
        let channel = found.channel.clone();
        let stand = self.replace_older(&channel, epoch, nonce);
        let sender = (conn, nonce);
        let near = Near::new(sender, &attached, found, (reader, charged), self.now.instant);
        let key = self.nears.insert(Near { stand, ..near });
        if let Err(why) = self.seat(key) {
            let near = self.nears.remove(key).expect("it was put there above");
            self.release(near.charged);
            self.say(conn, FromRelay::NoPath { id, why });
            return Ok(());
        }
        self.near_at.entry(channel).or_default().push(key);
        if let Some(local) = self.locals.get_mut(conn) {
            local.nears.push(key);
        }
        if stand == Stand::Unrouted {
            self.route(key);
        }
        Ok(())
    }

    /// Lets go of what this process had attached for a channel before; behind what an earlier
    /// instance of it had, the new one waits.
    fn replace_older(&mut self, channel: &Channel, epoch: u64, nonce: Nonce) -> Stand {
        let mut stand = Stand::Unrouted;
        for old in self.near_at.get(channel).cloned().unwrap_or_default() {
            let Some(near) = self.nears.get(old) else { continue };
            if near.epoch == epoch && near.nonce == nonce {
                self.remove_near(old);
            } else {
                stand = Stand::Behind;
            }
        }
        stand
    }

    /// The ring and the control page behind two descriptors.
    fn reader(&self, fds: &[OwnedFd], ring: u32, from: Place) -> Result<OutletReader, String> {
        let [data, control] = fds else { return Err("two descriptors come with Attach".into()) };
        let data = self.memory.outlet(data, ring).map_err(|error| format!("the ring: {error}"))?;
        let control =
            self.memory.control(control).map_err(|error| format!("the control page: {error}"))?;
        let from = Published { seq: from.seq, pos: from.pos, frozen: false };
        OutletReader::new(data, control, from).map_err(|error| format!("the ring: {error}"))
    }

    /// Binds the channel to the link to its receiver's host, or asks for one.
    pub(super) fn route(&mut self, key: Key) {
        let Some(near) = self.nears.get_mut(key) else { return };
        let host = Rc::clone(&near.host);
        let Some(link) = self.link_of(&host) else {
            let Some(near) = self.nears.get_mut(key) else { return };
            near.stand = Stand::Unrouted;
            near.at = None;
            let (conn, id) = (near.conn, near.id);
            let told = std::mem::replace(&mut near.told_waiting, true);
            if let Some(conn) = conn.filter(|_| !told) {
                let why = format!("no link to the relay of host {host} yet");
                self.say(conn, FromRelay::Waiting { id, why });
            }
            self.out.push_back(Out::Want(host));
            return;
        };
        self.linkno = self.linkno.wrapping_add(1);
        let linkno = self.linkno;
        let Some(bind) = self.links.get_mut(link).map(|one| one.bind(key)) else { return };
        let Some(near) = self.nears.get_mut(key) else { return };
        near.at = Some((link, bind));
        near.stand = Stand::Opening;
        near.queued = false;
        let channel = near.channel.clone();
        let open = Frame::Open(Open {
            bind,
            src: &channel.src,
            dst: &channel.dst,
            chan: channel.chan,
            class: wire_class(near.terms.class),
            priority: near.terms.priority,
            ack: match near.terms.ack {
                AckWhen::Stored => frame::AckAt::Stored,
                AckWhen::Consumed => frame::AckAt::Consumed,
            },
            epoch: near.epoch,
            nonce: near.nonce.0,
            att: near.att,
            linkno,
            expected: near.expected,
            ring: near.ring,
        });
        self.frame(link, &open);
        crash::here(Point::OpenSaid);
    }

    /// A link to a host stands: every channel to it is opened.
    pub(super) fn route_all(&mut self, host: &str) {
        let waits = |near: &Near| &*near.host == host && near.stand == Stand::Unrouted;
        let keys = self.nears.iter().filter(|(_, near)| waits(near)).map(|(key, _)| key);
        for key in keys.collect::<Vec<_>>() {
            self.route(key);
        }
    }

    /// A channel's link is gone.
    pub(super) fn near_unlinked(&mut self, key: Key, link: Key) {
        let Some(near) = self.nears.get_mut(key) else { return };
        if near.at.is_none_or(|(at, _)| at != link) {
            return;
        }
        near.at = None;
        near.queued = false;
        if near.stand == Stand::Gone {
            return;
        }
        near.stand = Stand::Unrouted;
        // A channel without work waits until it has some: an idle link is not dialled again.
        if near.has_more() || near.stored != near.sent || near.closing {
            self.route(key);
        }
    }

    /// Leaves the binding: nothing that comes on it is for this channel any more.
    pub(super) fn unbind(&mut self, key: Key) {
        let Some(near) = self.nears.get_mut(key) else { return };
        near.queued = false;
        if let Some((link, bind)) = near.at.take()
            && let Some(link) = self.links.get_mut(link)
        {
            link.nears.remove(&bind);
        }
    }

    /// The channel is over here.
    pub(super) fn remove_near(&mut self, key: Key) {
        self.unbind(key);
        let Some(near) = self.nears.remove(key) else { return };
        self.release(near.charged);
        if let Some(seat) = near.seat {
            self.channels.remove(seat);
        }
        let mut next = None;
        if let Some(keys) = self.near_at.get_mut(&near.channel) {
            keys.retain(|one| *one != key);
            next = keys.first().copied();
            if keys.is_empty() {
                self.near_at.remove(&near.channel);
            }
        }
        if let Some(local) = near.conn.and_then(|conn| self.locals.get_mut(conn)) {
            local.nears.retain(|one| *one != key);
        }
        // A stream that waited for this one to end.
        let behind = |near: &Near| near.stand == Stand::Behind;
        if let Some(next) = next.filter(|next| self.nears.get(*next).is_some_and(behind)) {
            self.route(next);
        }
    }

    /// DATA may flow, from record `next` on.
    pub(super) fn resumed(&mut self, key: Key, next: u32, limit: u64, epoch: u64, most: u32) {
        let Some(near) = self.nears.get_mut(key) else { return };
        if near.stand != Stand::Opening {
            return self.broken_near(key, "RESUME without OPEN");
        }
        crash::here(Point::ResumeHeard);
        if near.expected != 0 && near.expected != epoch {
            let (was, first) = (near.expected, near.consumed.wrapping_add(1));
            return self.gone(key, was, first, false);
        }
        if most < near.ring / 4 - 8 {
            let why = "the receiver's ring is smaller; let both relays read one configuration";
            return self.refused(key, Unreachable::OtherRules, why);
        }
        if near.reader.seek(next).is_err() {
            if near.expected == epoch && self.ended_before(key) {
                return;
            }
            let what = format!("it would go on at record {next}, which the sender does not hold");
            return self.broken_near(key, &what);
        }
        let again = near.expected != 0;
        near.reader.mark_bound(epoch);
        near.expected = epoch;
        near.stand = Stand::Bound;
        near.told_waiting = false;
        (near.limit, near.sent_bytes) = (limit, 0);
        (near.sent, near.stored) = (next.wrapping_sub(1), next.wrapping_sub(1));
        near.moved = self.now.instant;
        let (conn, id) = (near.conn, near.id);
        self.counts.resumed += u64::from(again);
        if let Some(conn) = conn {
            self.say(conn, FromRelay::Bound { id, epoch });
        }
        self.free_to(key);
        self.ready(key);
        // It may have ended before, and nobody has heard of it.
        self.finish(key);
    }

    /// What is acknowledged is the sender's to overwrite.
    pub(super) fn free_to(&mut self, key: Key) {
        let Some(near) = self.nears.get_mut(key) else { return };
        let acked = near.acked();
        let conn = near.conn;
        match near.reader.mark_acked(acked) {
            Ok(true) => {
                near.moved = self.now.instant;
                near.told_stuck = false;
                if let Some(conn) = conn {
                    self.ring(conn, Bell::Room);
                }
            }
            Ok(false) => {}
            Err(_) => self.scribbled(key),
        }
    }

    /// Stored and consumed, and how far may be sent.
    pub(super) fn acked(&mut self, key: Key, stored: u32, limit: u64, consumed: u32, expired: u32) {
        let Some(near) = self.nears.get_mut(key) else { return };
        if !matches!(near.stand, Stand::Bound | Stand::Ending) {
            return;
        }
        let ahead = |from: u32, to: u32| to.wrapping_sub(from) < 1 << 31;
        // More than was sent, or less than before: nonsense.
        if !ahead(near.stored, stored) || !ahead(stored, near.sent) || !ahead(consumed, stored) {
            return self.broken_near(key, "an ACK for what was not sent");
        }
        near.stored = stored;
        if ahead(near.consumed, consumed) {
            near.consumed = consumed;
        }
        near.expired = expired;
        near.limit = near.limit.max(limit);
        crash::here(Point::AckHeard);
        self.free_to(key);
        self.ready(key);
        self.finish(key);
    }

    /// Puts the channel into its link's queue, if it has something to send and may.
    pub(super) fn ready(&mut self, key: Key) {
        let Some(near) = self.nears.get_mut(key) else { return };
        if near.stand == Stand::Unrouted && near.has_more() {
            // Seen, so that it is no news again while there is no link.
            let _ = near.reader.written();
            return self.route(key);
        }
        let Some((link, _)) = near.at else { return };
        if near.queued || near.stand != Stand::Bound || !near.has_more() {
            return;
        }
        let Some(one) = self.links.get_mut(link) else { return };
        near.queued = true;
        one.enqueue(key, near.terms.priority);
        self.touch(link);
    }
}
