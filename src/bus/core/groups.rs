//! Groups: a name for several nodes. The library chooses, so that each message belongs to one
//! stream.

use std::collections::VecDeque;
use std::rc::Rc;

use ringlane_api::slab::Key;

use super::outs::What;
use super::{Core, Event, Post, kind};
use crate::bus::error::BusError;
use crate::bus::event::{PeerEvent, Undelivered};
use crate::bus::local::{Pick, ToRelay};

/// How many messages to any member are remembered before it is looked which were taken.
const TRIM: usize = 64;

/// A message for a group whose members are not known yet.
#[derive(Debug)]
struct Waiting {
    key: Option<Vec<u8>>,
    what: What,
    body: Vec<u8>,
}

/// A group that was written to, on one channel.
#[derive(Debug)]
pub(super) struct Group {
    id: u32,
    name: Rc<str>,
    chan: u16,
    members: Vec<String>,
    pick: Option<Pick>,
    /// Whose turn it is.
    turn: usize,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// The user waits for room.
    wanted: bool,
}

impl Core {
    fn group_of(&mut self, name: &str, chan: u16) -> Result<usize, BusError> {
        let found = self.groups.iter().position(|group| *group.name == *name && group.chan == chan);
        if let Some(at) = found {
            return Ok(at);
        }
        let most = self.setup.limits.channels;
        if self.groups.len() >= most {
            return Err(BusError::TooMany { most });
        }
        let id = self.next_number();
        self.groups.push(Group {
            id,
            name: name.into(),
            chan,
            members: Vec::new(),
            pick: None,
            turn: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            wanted: false,
        });
        self.say_line(ToRelay::Open { id, to: name.to_string(), chan });
        Ok(self.groups.len() - 1)
    }

    pub(super) fn ask_for_members(&mut self) {
        let asked: Vec<ToRelay> = self
            .groups
            .iter()
            .map(|group| ToRelay::Open {
                id: group.id,
                to: group.name.to_string(),
                chan: group.chan,
            })
            .collect();
        asked.into_iter().for_each(|line| self.say_line(line));
    }

    pub(super) fn post_to_group(
        &mut self,
        post: Post<'_>,
        what: What,
        body: &[u8],
    ) -> Result<(), BusError> {
        let at = self.group_of(post.to, post.chan)?;
        let limit = self.setup.limits.queue_bytes;
        let group = &mut self.groups[at];
        if group.pick.is_some() {
            let posted = self.post_to_members(at, post.key, what, body);
            if let Err(BusError::WouldBlock) = posted {
                self.groups[at].wanted = true;
            }
            return posted;
        }
        if group.waiting_bytes + body.len() > limit && !group.waiting.is_empty() {
            group.wanted = true;
            return Err(BusError::WouldBlock);
        }
        group.waiting_bytes += body.len();
        group.waiting.push_back(Waiting {
            key: post.key.map(<[u8]>::to_vec),
            what,
            body: body.to_vec(),
        });
        Ok(())
    }

    fn post_to_members(
        &mut self,
        at: usize,
        key: Option<&[u8]>,
        what: What,
        body: &[u8],
    ) -> Result<(), BusError> {
        let group = &self.groups[at];
        let (chan, name) = (group.chan, group.name.to_string());
        if group.members.is_empty() {
            let why = "the group has no members; name some in the cluster's file".to_string();
            return Err(BusError::NoPath { to: name, why });
        }
        match (group.pick, key) {
            (Some(Pick::Hash), None) => Err(BusError::NeedsKey { group: name }),
            (Some(Pick::Hash), Some(key)) => {
                let member = choose(&group.members, key).to_string();
                let out = self.out_of(&member, chan)?;
                self.offer(out, what, body)
            }
            (Some(Pick::All), _) => self.post_to_all(at, what, body),
            _ => self.post_to_any(at, what, body),
        }
    }

    fn member_outs(&mut self, at: usize) -> Result<Vec<Key>, BusError> {
        let group = &self.groups[at];
        let (members, chan) = (group.members.clone(), group.chan);
        members.iter().map(|member| self.out_of(member, chan)).collect()
    }

    /// To every member, or to none.
    fn post_to_all(&mut self, at: usize, what: What, body: &[u8]) -> Result<(), BusError> {
        let (outs, limits) = (self.member_outs(at)?, self.setup.limits);
        let bytes = u32::try_from(body.len() + 16).unwrap_or(u32::MAX);
        for key in &outs {
            let Some(out) = self.outs.get_mut(*key) else { continue };
            if !what.large && body.len() + 16 > out.record_bytes_max() {
                let most = out.record_bytes_max();
                return Err(BusError::TooLong { bytes: body.len(), most });
            }
            if !out.has_room(bytes, &limits) {
                out.wanted = Some(bytes);
                self.waiting_room.insert(*key);
                return Err(BusError::WouldBlock);
            }
        }
        let mut posted = Ok(());
        for key in outs {
            match self.offer(key, what, body) {
                // Whoever cannot be reached does not keep it from the others.
                Err(BusError::NoPath { .. }) | Ok(()) => {}
                Err(error) => posted = Err(error),
            }
        }
        posted
    }

    /// To a member that is there and has room, in turn; else to one that has room.
    fn post_to_any(&mut self, at: usize, what: What, body: &[u8]) -> Result<(), BusError> {
        let (outs, limits) = (self.member_outs(at)?, self.setup.limits);
        let bytes = u32::try_from(body.len() + 16).unwrap_or(u32::MAX);
        let turn = self.groups[at].turn;
        self.groups[at].turn = turn.wrapping_add(1);
        let mut refused = BusError::WouldBlock;
        for here in [true, false] {
            for i in 0..outs.len() {
                let key = outs[turn.wrapping_add(i) % outs.len()];
                let Some(out) = self.outs.get_mut(key) else { continue };
                if out.here != here || out.closing || !out.has_room(bytes, &limits) {
                    continue;
                }
                match self.offer(key, what, body) {
                    Ok(()) => {
                        self.remember_post(key, at, what);
                        return Ok(());
                    }
                    Err(error) => refused = error,
                }
            }
        }
        if matches!(refused, BusError::WouldBlock) {
            for key in outs {
                if let Some(out) = self.outs.get_mut(key) {
                    out.wanted = Some(bytes);
                    self.waiting_room.insert(key);
                }
            }
        }
        Err(refused)
    }

    /// Another member may have it if this one dies.
    fn remember_post(&mut self, key: Key, at: usize, what: What) {
        if let Some(out) = self.outs.get_mut(key)
            && what.kind == kind::MESSAGE
            && out.is_queue_empty()
        {
            if out.posted.len() % TRIM == TRIM - 1 {
                out.trim_posted();
            }
            let seq = out.written();
            out.posted.push_back((seq, at));
        }
    }

    /// Messages of a member that is gone go to others.
    pub(super) fn post_again(&mut self, again: Vec<(usize, u16, Undelivered)>) {
        for (at, chan, message) in again {
            let what = What { kind: kind::MESSAGE, number: None, ttl: None, large: true };
            let Some(group) = self.groups.get(at) else { continue };
            let node = Rc::clone(&group.name);
            if let Err(error) = self.post_to_members(at, None, what, &message.bytes) {
                let (why, undelivered) = (error.to_string(), vec![message]);
                let lost = PeerEvent::NoPath { node, chan, why, undelivered };
                self.events.push_back(Event::Peer(lost));
            }
        }
    }

    pub(super) fn members(&mut self, id: u32, nodes: Vec<String>, pick: Pick) {
        let Some(at) = self.groups.iter().position(|group| group.id == id) else { return };
        let group = &mut self.groups[at];
        group.members = nodes;
        group.pick = Some(pick);
        // All are asked for, so that it is known who is there.
        let _ = self.member_outs(at);
        while let Some(waiting) = self.groups[at].waiting.pop_front() {
            let Waiting { key, what, body } = waiting;
            self.groups[at].waiting_bytes -= body.len();
            if let Err(error) = self.post_to_members(at, key.as_deref(), what, &body) {
                let undelivered =
                    Undelivered { seq: 0, is_request: what.kind == kind::REQUEST, bytes: body };
                let (node, chan) = (Rc::clone(&self.groups[at].name), self.groups[at].chan);
                let (why, undelivered) = (error.to_string(), vec![undelivered]);
                let lost = PeerEvent::NoPath { node, chan, why, undelivered };
                self.events.push_back(Event::Peer(lost));
            }
        }
        self.group_has_room(at);
    }

    fn group_has_room(&mut self, at: usize) {
        let group = &mut self.groups[at];
        if std::mem::take(&mut group.wanted) {
            let (to, chan) = (Rc::clone(&group.name), group.chan);
            self.events.push_back(Event::Writable { to, chan });
        }
    }

    /// A member has room again.
    pub(super) fn groups_have_room(&mut self, key: Key) {
        let Some(out) = self.outs.get(key) else { return };
        let (node, chan) = (Rc::clone(&out.node), out.chan);
        let of = |group: &Group| {
            let bare = |member: &String| *node == *member.split('@').next().unwrap_or_default();
            group.chan == chan && group.wanted && group.members.iter().any(bare)
        };
        let wanted: Vec<usize> =
            (0..self.groups.len()).filter(|at| of(&self.groups[*at])).collect();
        wanted.into_iter().for_each(|at| self.group_has_room(at));
    }

    /// Whether it was a group that has no path.
    pub(super) fn group_has_no_path(&mut self, id: u32, why: &str) -> bool {
        let Some(at) = self.groups.iter().position(|group| group.id == id) else { return false };
        let group = &mut self.groups[at];
        let undelivered = group
            .waiting
            .drain(..)
            .map(|waiting| Undelivered {
                seq: 0,
                is_request: waiting.what.kind == kind::REQUEST,
                bytes: waiting.body,
            })
            .collect();
        (group.waiting_bytes, group.members, group.pick) = (0, Vec::new(), Some(Pick::Any));
        let (node, chan, why) = (Rc::clone(&group.name), group.chan, why.to_string());
        self.events.push_back(Event::Peer(PeerEvent::NoPath { node, chan, why, undelivered }));
        true
    }
}

/// The member that a key names: the one with the highest rank for it, so that few keys move when a
/// member is added.
fn choose<'a>(members: &'a [String], key: &[u8]) -> &'a str {
    let rank = |member: &&String| {
        let bytes = member.bytes().chain([0]).chain(key.iter().copied());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // Names that differ in their last letter only differ in all bits then.
        let mixed = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ mixed >> 33
    };
    members.iter().max_by_key(rank).map(String::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spread_over_members_and_few_move_when_one_is_added() {
        let three: Vec<String> = ["db1", "db2", "db3"].map(String::from).to_vec();
        let four: Vec<String> = ["db1", "db2", "db3", "db4"].map(String::from).to_vec();
        let (mut counts, mut moved) = ([0; 3], 0);
        for key in 0..3000_u32 {
            let chosen = choose(&three, &key.to_le_bytes());
            counts[three.iter().position(|member| member == chosen).expect("a member")] += 1;
            let after = choose(&four, &key.to_le_bytes());
            assert!(after == chosen || after == "db4", "a key moves to the new member only");
            moved += u32::from(after != chosen);
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert!((600..900).contains(&moved), "{moved}");
    }
}
