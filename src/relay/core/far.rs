//! The receiving side of a channel: stores what comes over a link in a local process's ring.
//!
//! ```text
//!   OPEN -> is the receiver here? -no-> PENDING
//!              | yes
//!           has it given a ring for this stream? -no-> Incoming -> Segment
//!              | yes                                                  |
//!           RESUME <--------------------------------------------------'
//!           DATA -> written -> (end of turn) published -> bell -> ACK
//! ```
//!
//! DATA is taken from one link only, that of the largest generation (epoch, attachment, number of
//! the OPEN) that was seen; everything else is dropped unread. Where to go on is read from the
//! ring's publish word and never remembered.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringlane_api::mutant::{self, Mutant};
use ringlane_api::slab::Key;

use crate::bus::local::{FromRelay, Nonce, Terms};
use crate::frame::{Frame, Open, Unreachable, Waits};
use crate::shm::crash::{self, Point};
use crate::shm::map::Map;
use crate::shm::through::{Ended, InletWriter, Unfit};

use super::{Channel, Core, Note, Out};

/// A receiver that was with the relay before this one, or with this one and had not given its ring
/// again, has so long to come back until its senders are told that it is gone.
pub const COMES_BACK: Duration = Duration::from_secs(30);

/// What a record that stands for skipped numbers takes of a sender's credit.
pub const SKIP_BYTES: u32 = 16;

/// The receiving side of a channel.
pub struct Far {
    pub channel: Channel,
    /// The generation of the binding: the sender's epoch, its attachment, the number of the OPEN.
    pub epoch: u64,
    pub nonce: Nonce,
    pub att: u32,
    pub linkno: u32,
    /// The link and the binding, while there are.
    pub at: Option<(Key, u32)>,
    /// The receiver to whom records of this stream have gone before, or 0.
    pub expected: u64,
    pub terms: Terms,
    /// The receiver's ring.
    pub ring: Option<Ring>,
    /// It was asked for one, on which connection.
    pub asked: Option<Key>,
    /// DATA flows.
    pub bound: bool,
    /// RESUME was said in this binding, so that DATA may be under way.
    pub resumed: bool,
    /// The last record that was received.
    pub last: u32,
    /// Bytes received in this binding, and how many may be.
    pub received: u64,
    pub limit: u64,
    /// Of those, acknowledged.
    pub acked_bytes: u64,
    /// What the last ACK said.
    pub told: (u32, u64, u32),
    pub expired: u32,
    pub dirty: bool,
    /// Stands in its link's list of those who are owed an acknowledgement.
    pub owed: bool,
    /// It is to be looked at for what was consumed.
    pub watched: bool,
    /// The receiver has died: its epoch, the first record that it had not consumed, whether that is
    /// sure. Kept until the sender's relay has confirmed it.
    pub gone: Option<(u64, u32, bool)>,
    /// The receiver that is expected has not come back to this relay, since when.
    pub missing: Option<Instant>,
}

/// The ring of a receiver.
pub struct Ring {
    pub conn: Key,
    /// The epoch of the receiver.
    pub epoch: u64,
    pub att: u32,
    pub writer: InletWriter,
    pub map: Rc<Map>,
    pub charged: (u32, u64),
    pub cap: u32,
}

/// What comes with [`Segment`](crate::bus::local::ToRelay::Segment).
pub struct Given {
    pub from: String,
    pub chan: u16,
    pub epoch: u64,
    pub nonce: Nonce,
    pub att: u32,
    pub ring: u32,
}

impl Core {
    /// A relay asks to send on a channel.
    pub(super) fn opened(&mut self, link: Key, open: &Open<'_>) {
        let Some(from) = self.links.get(link).map(|link| Rc::clone(&link.host)) else { return };
        let bind = open.bind;
        let (channel, terms) = match self.may_open(&from, open) {
            Ok(found) => found,
            Err((why, text)) => {
                return self.frame(link, &Frame::Unreach { bind, why, text: &text });
            }
        };
        let key = match self.far_at.get(&channel) {
            Some(key) => *key,
            None => self.new_far(channel, terms),
        };
        let Some(far) = self.fars.get(key) else { return };
        let nonce = Nonce(open.nonce);
        let older = (open.epoch, open.att, open.linkno) <= (far.epoch, far.att, far.linkno);
        let other = open.epoch == far.epoch && far.nonce != nonce;
        let takes_all = mutant::on(Mutant::BusGenerationIgnored);
        if far.epoch != 0 && (older || other) && !takes_all {
            let known = far.epoch;
            return self.frame(link, &Frame::Stale { bind, known });
        }
        // What was received whole is stored; what comes on the old binding from now on is not.
        self.publish(key);
        self.unbind_far(key);
        if self.fars.get(key).is_some_and(|far| far.epoch != 0 && far.epoch != open.epoch)
            && !mutant::on(Mutant::BusEpochIgnored)
        {
            self.end_stream(key, false);
        }
        let Some(far) = self.fars.get_mut(key) else { return };
        (far.epoch, far.nonce) = (open.epoch, nonce);
        (far.att, far.linkno) = (open.att, open.linkno);
        if std::mem::replace(&mut far.expected, open.expected) != open.expected {
            far.missing = None;
        }
        far.terms = terms;
        far.at = Some((link, bind));
        far.resumed = false;
        if let Some(link) = self.links.get_mut(link) {
            link.fars.insert(bind, key);
        }
        crash::here(Point::OpenHeard);
        self.bind_far(key);
    }

    /// Whether a host may open a channel here, and on which terms.
    fn may_open(
        &self,
        from: &str,
        open: &Open<'_>,
    ) -> Result<(Channel, Terms), (Unreachable, String)> {
        let node = |name: &str| self.cluster.node(name);
        let Some(dst) = node(open.dst) else {
            return Err((Unreachable::NoSuchNode, open.dst.to_string()));
        };
        if dst.host.name != *self.host {
            return Err((Unreachable::WrongHost, format!("{} is on {}", open.dst, dst.host.name)));
        }
        if node(open.src).is_none_or(|src| src.host.name != from) {
            return Err((Unreachable::Denied, format!("{} is not on {from}", open.src)));
        }
        if let Err(denied) = self.cluster.may(open.src, open.dst) {
            return Err((Unreachable::Denied, denied.to_string()));
        }
        let channel = Channel { src: open.src.into(), dst: open.dst.into(), chan: open.chan };
        if !self.far_at.contains_key(&channel) && self.fars.len() >= self.channels_max() {
            let text = format!("channels = {}", self.channels_max());
            return Err((Unreachable::Limit, text));
        }
        let terms = self.terms(open.src, open.dst, open.chan);
        Ok((channel, terms))
    }

    fn new_far(&mut self, channel: Channel, terms: Terms) -> Key {
        let key = self.fars.insert(Far {
            channel: channel.clone(),
            epoch: 0,
            nonce: Nonce::default(),
            att: 0,
            linkno: 0,
            at: None,
            expected: 0,
            terms,
            ring: None,
            asked: None,
            bound: false,
            resumed: false,
            last: 0,
            received: 0,
            limit: 0,
            acked_bytes: 0,
            told: (0, 0, 0),
            expired: 0,
            dirty: false,
            owed: false,
            watched: false,
            gone: None,
            missing: None,
        });
        self.far_at.insert(channel, key);
        key
    }

    /// Brings a binding to RESUME, as far as that is possible now.
    pub(super) fn bind_far(&mut self, key: Key) {
        let Some(far) = self.fars.get_mut(key) else { return };
        let Some((link, bind)) = far.at else { return };
        let here = self.names.get(&far.channel.dst).copied();
        let here = here.and_then(|conn| self.locals.get(conn).map(|local| (conn, local.epoch)));
        if far.expected != 0 {
            let died = far.gone.filter(|gone| gone.0 == far.expected);
            // Nobody saw it die; that another one lives under its name is proof enough.
            let replaced = here.filter(|here| here.1 != far.expected);
            let died = died.or(replaced.map(|_| (far.expected, 1, false)));
            if let Some((epoch, first, exact)) = died {
                far.gone = died;
                return self.frame(link, &Frame::Gone { bind, epoch, first, exact });
            }
        }
        let Some((conn, epoch)) = here else {
            return self.frame(link, &Frame::Pending { bind, why: Waits::NotHere });
        };
        let fits = |ring: &Ring| ring.conn == conn && ring.epoch == epoch;
        if far.ring.as_ref().is_some_and(fits) {
            if far.resumed {
                return self.open_again(key);
            }
            return self.resume(key);
        }
        if far.asked != Some(conn) {
            far.asked = Some(conn);
            let line = FromRelay::Incoming {
                from: far.channel.src.to_string(),
                chan: far.channel.chan,
                epoch: far.epoch,
                nonce: far.nonce,
                terms: far.terms,
            };
            self.say(conn, line);
        }
        self.frame(link, &Frame::Pending { bind, why: Waits::NoRing });
    }

    /// Gives up receivers that were with the relay before this one and have not come back: they
    /// died when nobody looked. How far they had come, nobody knows.
    pub(super) fn look_for_missing(&mut self) {
        let now = self.now.instant;
        let mut late = Vec::new();
        for (key, far) in self.fars.iter_mut() {
            let waits = far.at.is_some() && far.expected != 0 && !far.bound && far.gone.is_none();
            if !waits || self.names.contains_key(&far.channel.dst) {
                far.missing = None;
            } else if now - *far.missing.get_or_insert(now) >= COMES_BACK {
                late.push(key);
            }
        }
        for key in late {
            let Some(far) = self.fars.get_mut(key) else { continue };
            let (epoch, channel) = (far.expected, far.channel.clone());
            far.gone = Some((epoch, 1, false));
            // Should it live after all, it is to begin anew: its senders were told.
            self.given_up.insert(Rc::clone(&channel.dst), epoch);
            self.counts.gone += 1;
            self.note(Note::Gone { channel, first: 1, exact: false });
            self.bind_far(key);
        }
    }

    fn resume(&mut self, key: Key) {
        let Some(far) = self.fars.get_mut(key) else { return };
        let (Some((link, bind)), Some(ring)) = (far.at, far.ring.as_mut()) else { return };
        // From the word, and from nowhere else.
        let stored = match ring.writer.look() {
            Ok(stored) => stored,
            Err(Ended::Frozen) => return self.lost_ring(key),
            Err(Ended::Scribbled) => return self.spoiled(key),
        };
        crash::here(Point::StoredLooked);
        let Ok(room) = ring.writer.room() else { return self.spoiled(key) };
        (far.last, far.received, far.limit) = (stored, 0, u64::from(room));
        far.acked_bytes = 0;
        (far.bound, far.resumed) = (true, true);
        // Whoever sends to this receiver knows that the one before has died.
        far.gone = None;
        let consumed = ring.writer.consumed().unwrap_or(stored);
        far.told = (stored, far.limit, consumed);
        let frame = Frame::Resume {
            bind,
            next: stored.wrapping_add(1),
            limit: far.limit,
            epoch: ring.epoch,
            att: ring.att,
            record_bytes_max: ring.writer.record_bytes_max(),
        };
        self.frame(link, &frame);
        // What was consumed, for the case that nobody sees the receiver's end.
        self.acknowledge(key);
    }

    /// What is under way in this binding follows on records that the ring may not have: the
    /// sender's relay is to begin another one.
    pub(super) fn open_again(&mut self, key: Key) {
        let Some((link, bind)) = self.fars.get(key).and_then(|far| far.at) else { return };
        self.unbind_far(key);
        let why = Unreachable::Broken;
        self.frame(link, &Frame::Unreach { bind, why, text: "the ring was replaced" });
    }

    /// The receiver has taken its ring back, or spoiled it. Of the first, nothing is said: another
    /// relay has it now, or a fresh one comes.
    pub(super) fn lost_ring(&mut self, key: Key) {
        let Some(far) = self.fars.get_mut(key) else { return };
        far.bound = false;
        far.dirty = false;
        far.asked = None;
        if let Some(ring) = far.ring.take() {
            self.release(ring.charged);
        }
    }

    /// A process gives a ring for a stream.
    pub(super) fn segment(
        &mut self,
        conn: Key,
        given: Given,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let local = self.locals.get(conn).ok_or("the connection is over")?;
        let (dst, uid, epoch_d) = (local.registered()?, local.uid, local.epoch);
        let [fd] = &fds[..] else { return Err("one descriptor comes with Segment".into()) };
        let Given { from, chan, epoch, nonce, att, ring: cap } = given;
        let channel = Channel { src: from.as_str().into(), dst, chan };
        let key = match self.far_at.get(&channel) {
            Some(key) => *key,
            None if self.fars.len() >= self.channels_max() => {
                return Err(format!("channels = {} is reached", self.channels_max()));
            }
            None => {
                let terms = self.terms(&channel.src, &channel.dst, chan);
                self.new_far(channel, terms)
            }
        };
        let charged = self.charge(uid, u64::from(cap))?;
        let map = self.memory.inlet(fd, cap).map_err(|error| format!("the ring: {error}"));
        let made = map.map(|map| (InletWriter::new(Rc::clone(&map)), map));
        let (writer, map) = match made {
            Ok((Ok(writer), map)) => (writer, map),
            Ok((Err(Unfit::Frozen), _)) => {
                // Its owner has taken it back meanwhile, for a later stream: another one comes.
                self.release(charged);
                return Ok(());
            }
            Ok((Err(error), _)) => {
                self.release(charged);
                return Err(format!("the ring: {error}"));
            }
            Err(why) => {
                self.release(charged);
                return Err(why);
            }
        };
        let ring = Ring { conn, epoch: epoch_d, att, writer, map, charged, cap };
        self.take_ring(key, ring, epoch, nonce);
        // Whoever sent before us has to find us.
        if let Some(host) =
            self.cluster.node(&from).map(|node| Rc::<str>::from(node.host.name.as_str()))
            && self.link_of(&host).is_none()
        {
            self.out.push_back(Out::Want(host));
        }
        Ok(())
    }

    /// Makes a ring a channel's, if it is for the stream that is the latest here.
    fn take_ring(&mut self, key: Key, ring: Ring, epoch: u64, nonce: Nonce) {
        let Some(far) = self.fars.get_mut(key) else { return self.release(ring.charged) };
        if epoch < far.epoch {
            let last = ring.writer.stored();
            let (from, chan) = (far.channel.src.to_string(), far.channel.chan);
            far.asked = None;
            self.release(ring.charged);
            self.say(ring.conn, FromRelay::End { from, chan, epoch, last, clean: false });
            return self.bind_far(key);
        }
        if epoch > far.epoch {
            (far.att, far.linkno) = (0, 0);
            (far.epoch, far.nonce) = (epoch, nonce);
            if let Some((link, bind)) = far.at {
                self.unbind_far(key);
                self.frame(link, &Frame::Stale { bind, known: epoch });
            }
        }
        let Some(far) = self.fars.get_mut(key) else { return };
        let conn = ring.conn;
        let old = far.ring.replace(ring);
        (far.bound, far.dirty) = (false, false);
        far.asked = Some(conn);
        if let Some(local) = self.locals.get_mut(conn)
            && !local.fars.contains(&key)
        {
            local.fars.push(key);
        }
        if let Some(old) = old {
            self.release(old.charged);
        }
        self.bind_far(key);
    }
}
