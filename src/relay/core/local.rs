//! Local connections: who registers, and what processes say.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::slab::Key;

use crate::bus::local::{AckWhen, Class, FromRelay, Nonce, Pick, Terms, ToRelay, VERSION};
use crate::cluster::{self, Path};

use super::far::Given;
use super::near::Attached;
use super::{Bell, Channel, ConnId, Core, Note, Out};

/// A local connection.
pub struct Local {
    pub pid: u32,
    pub uid: u32,
    /// The node it has registered as.
    pub node: Option<Rc<str>>,
    pub epoch: u64,
    pub nonce: Nonce,
    /// When, in microseconds since 1970.
    pub since: u64,
    /// What it says on the bell's connection.
    pub token: Nonce,
    pub nears: Vec<Key>,
    pub fars: Vec<Key>,
    pub to_ring: Option<Bell>,
    /// It has said that it goes.
    pub leaving: bool,
    /// It was refused; its connection is being closed.
    pub over: bool,
}

impl Local {
    /// The node, if it has registered.
    pub(super) fn registered(&self) -> Result<Rc<str>, String> {
        self.node.clone().ok_or_else(|| "say Register first".to_string())
    }
}

/// The way to a node.
pub struct Found {
    pub channel: Channel,
    pub host: Rc<str>,
    pub terms: Terms,
    pub keep: Duration,
}

/// Bytes of rings, by user.
pub type Charged = HashMap<u32, u64>;

fn millis(duration: Option<Duration>) -> u32 {
    duration.map_or(0, |duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1))
}

/// How a rule of the configuration is told to processes.
pub fn terms_of(rule: &cluster::ChannelRule) -> Terms {
    Terms {
        class: match rule.class {
            cluster::Class::Reliable => Class::Reliable,
            cluster::Class::Latest => Class::Latest,
            cluster::Class::Lossy(cluster::Loss::DropNew) => Class::DropNew,
            cluster::Class::Lossy(cluster::Loss::DropOld) => Class::DropOld,
        },
        ack: match rule.ack {
            cluster::Ack::Stored => AckWhen::Stored,
            cluster::Ack::Consumed => AckWhen::Consumed,
        },
        ring: rule.ring,
        priority: rule.priority,
        stuck_after_ms: millis(rule.stuck_after),
        ttl_ms: millis(rule.ttl),
    }
}

impl Core {
    /// Somebody has connected to the relay's socket; the kernel says who.
    pub fn local_opened(&mut self, pid: u32, uid: u32) -> ConnId {
        ConnId(self.locals.insert(Local {
            pid,
            uid,
            node: None,
            epoch: 0,
            nonce: Nonce::default(),
            since: self.now.unix_us,
            token: Nonce::default(),
            nears: Vec::new(),
            fars: Vec::new(),
            to_ring: None,
            leaving: false,
            over: false,
        }))
    }

    /// A local connection's line. Questions are the driver's to answer.
    pub fn local_said(&mut self, conn: ConnId, line: ToRelay, fds: Vec<OwnedFd>) {
        let key = conn.0;
        if self.locals.get(key).is_none_or(|local| local.over) {
            return;
        }
        if fds.len() != line.descriptors() {
            let why = format!("{} descriptors where {} belong", fds.len(), line.descriptors());
            return self.refuse(key, why);
        }
        if let Err(why) = self.hear(key, line, fds) {
            self.refuse(key, why);
        }
    }

    /// What a local connection says is no line, or not one that belongs there.
    pub fn local_babbled(&mut self, conn: ConnId, why: String) {
        self.refuse(conn.0, why);
    }

    fn hear(&mut self, conn: Key, line: ToRelay, fds: Vec<OwnedFd>) -> Result<(), String> {
        match line {
            ToRelay::Register { node, epoch, nonce, version, replace } => {
                self.register(conn, &node, (epoch, nonce), version, replace)
            }
            ToRelay::Open { id, to, chan } => self.open(conn, id, &to, chan),
            ToRelay::Attach { id, to, chan, epoch, att, from, expected, ring } => {
                let attached = Attached { id, to, chan, epoch, att, from, expected, ring };
                self.attach(conn, attached, fds)
            }
            ToRelay::Segment { from, chan, epoch, nonce, att, ring } => {
                self.segment(conn, Given { from, chan, epoch, nonce, att, ring }, fds)
            }
            ToRelay::Close { id } => {
                if let Some(near) = self.near_of(conn, id) {
                    self.close_near(near);
                }
                Ok(())
            }
            ToRelay::GoneSeen { id } => {
                if let Some(near) = self.near_of(conn, id) {
                    self.gone_seen(near);
                }
                Ok(())
            }
            ToRelay::Listening { token, address } => self.listening(conn, token, address),
            ToRelay::Probed { id } => {
                self.probe_answered(conn, id);
                Ok(())
            }
            ToRelay::Ping { id } => {
                self.say(conn, FromRelay::Pong { id });
                Ok(())
            }
            ToRelay::Leave => {
                if let Some(local) = self.locals.get_mut(conn) {
                    local.leaving = true;
                }
                // Its name is free at once; the end of its socket may take its time.
                self.leave(conn);
                Ok(())
            }
            ToRelay::Ask(_) => Err("a question is a connection's only line".into()),
        }
    }

    fn near_of(&self, conn: Key, id: u32) -> Option<Key> {
        let local = self.locals.get(conn)?;
        let fits = |key: &&Key| self.nears.get(**key).is_some_and(|near| near.id == id);
        local.nears.iter().find(fits).copied()
    }

    /// Says why not, and closes the connection: whoever it was is served no more.
    pub(super) fn refuse(&mut self, conn: Key, why: String) {
        let Some(local) = self.locals.get_mut(conn).filter(|local| !local.over) else { return };
        local.over = true;
        let who = local.node.as_deref().unwrap_or("somebody").to_string();
        self.counts.refused += 1;
        self.note(Note::Refused { what: format!("{who}: {why}") });
        self.say(conn, FromRelay::Refused { why });
        self.leave(conn);
        self.out.push_back(Out::Drop(ConnId(conn)));
    }

    fn register(
        &mut self,
        conn: Key,
        name: &str,
        (epoch, nonce): (u64, Nonce),
        version: u32,
        replace: bool,
    ) -> Result<(), String> {
        let local = self.locals.get(conn).ok_or("the connection is over")?;
        let (pid, uid) = (local.pid, local.uid);
        if version != VERSION {
            return Err(format!(
                "version {version} of the local protocol; this relay has {VERSION}"
            ));
        }
        if local.node.is_some() {
            return Err("it has registered before".into());
        }
        let node = self.may_be(name, uid)?;
        if let Some(holder) = self.names.get(&node).copied()
            && let Some(held) = self.locals.get(holder)
        {
            let same = held.nonce == nonce;
            if !replace && !same {
                let (pid, since) = (held.pid, held.since);
                self.say(conn, FromRelay::NameInUse { pid, since });
                return Ok(());
            }
            // The same instance on a new connection has lost the old one.
            let why = format!("process {pid} has taken the name `{node}`");
            self.refuse(holder, why);
        }
        let known = self.epochs.get(&node).copied();
        if let Some((known, other)) = known
            && (epoch < known || epoch == known && other != nonce)
        {
            self.say(conn, FromRelay::StaleEpoch { known });
            return Ok(());
        }
        if self.given_up.get(&node) == Some(&epoch) {
            self.say(conn, FromRelay::StaleEpoch { known: epoch });
            return Ok(());
        }
        self.may_be_one_more(&node, uid)?;
        self.given_up.remove(&node);
        self.epochs.insert(Rc::clone(&node), (epoch, nonce));
        self.names.insert(Rc::clone(&node), conn);
        let token = (self.tokens)();
        let since = self.now.unix_us;
        let Some(local) = self.locals.get_mut(conn) else { return Ok(()) };
        local.node = Some(Rc::clone(&node));
        (local.epoch, local.nonce, local.token, local.since) = (epoch, nonce, token, since);
        self.note(Note::Here { node: Rc::clone(&node), pid, epoch });
        let line = FromRelay::Registered {
            host: self.host.to_string(),
            cluster: self.cluster.name.clone(),
            // The driver knows.
            bell: String::new(),
            token,
            pid: self.pid,
            incarnation: self.incarnation,
        };
        self.say(conn, line);
        self.came(&node);
        Ok(())
    }

    /// Whether one more process of a user may register.
    fn may_be_one_more(&self, node: &Rc<str>, uid: u32) -> Result<(), String> {
        let limits = &self.cluster.limits;
        let (all, own) = (limits.processes as usize, limits.processes_per_uid as usize);
        if !self.names.contains_key(node) && self.names.len() >= all {
            return Err(format!("limits.processes = {all} is reached"));
        }
        let of_user = |conn: &&Key| self.locals.get(**conn).is_some_and(|local| local.uid == uid);
        if self.names.len() >= own && self.names.values().filter(of_user).count() >= own {
            return Err(format!("limits.processes_per_uid = {own} is reached by uid {uid}"));
        }
        Ok(())
    }

    /// The node of that name, if it is one of this host and the user's.
    fn may_be(&self, name: &str, uid: u32) -> Result<Rc<str>, String> {
        let node = self.cluster.node(name).ok_or_else(|| self.cluster.no_such_node(name))?;
        if node.host.name != *self.host {
            return Err(format!("`{}` is a node of host `{}`", node.name, node.host.name));
        }
        let wanted = node.uid.unwrap_or(self.uid);
        if uid != wanted && uid != 0 {
            return Err(format!("`{}` is for uid {wanted}, and this is uid {uid}", node.name));
        }
        Ok(node.name.into())
    }

    /// A node has registered: what waited for it goes on.
    fn came(&mut self, node: &Rc<str>) {
        let waits = |channel: &Channel| channel.dst == *node;
        let fars = self.fars.iter().filter(|(_, far)| waits(&far.channel)).map(|(key, _)| key);
        for far in fars.collect::<Vec<_>>() {
            self.bind_far(far);
        }
        self.introduce_to(node);
    }

    /// Whose bell a connection is.
    pub fn bell(&self, token: Nonce) -> Option<ConnId> {
        let fits = |local: &Local| local.token == token && local.node.is_some() && !local.over;
        self.locals.iter().find(|(_, local)| fits(local)).map(|(key, _)| ConnId(key))
    }

    /// A process has rung: it has sent or consumed something.
    pub fn rang(&mut self, conn: ConnId) {
        let Some(local) = self.locals.get(conn.0) else { return };
        for key in &local.fars {
            if let Some(far) = self.fars.get_mut(*key)
                && !std::mem::replace(&mut far.watched, true)
            {
                self.consumed.push(*key);
            }
        }
        let nears = local.nears.clone();
        for near in nears {
            self.ready(near);
        }
    }

    /// Whether a look at the rings of a process would find something.
    pub fn has_news(&mut self, conn: ConnId) -> bool {
        let Some(local) = self.locals.get(conn.0) else { return false };
        if local.nears.iter().any(|key| self.nears.get(*key).is_some_and(|near| near.is_news())) {
            return true;
        }
        (0..local.fars.len()).any(|at| {
            let far = self.locals.get(conn.0).and_then(|local| local.fars.get(at).copied());
            far.is_some_and(|far| self.has_consumed(far))
        })
    }

    /// Whether a process is to ring when it has consumed something.
    pub fn wants_consumed(&self, conn: ConnId) -> bool {
        let Some(local) = self.locals.get(conn.0) else { return false };
        local.fars.iter().any(|key| self.wants_room(*key))
    }

    /// A local connection has ended, or the process behind it.
    pub fn local_closed(&mut self, conn: ConnId) {
        self.leave(conn.0);
        self.locals.remove(conn.0);
    }

    /// Ends what a process had here.
    fn leave(&mut self, conn: Key) {
        let Some(local) = self.locals.get_mut(conn) else { return };
        let (nears, fars) = (std::mem::take(&mut local.nears), std::mem::take(&mut local.fars));
        let (pid, died, refused) = (local.pid, !local.leaving, local.over);
        if let Some(node) = local.node.take() {
            if self.names.get(&node) == Some(&conn) {
                self.names.remove(&node);
            }
            self.note(Note::Left { node, pid, died });
        }
        // Receivers first: what it had not consumed is counted before anything else moves.
        for far in fars {
            match refused {
                // It lives, for all that we know: nothing ends.
                true => self.receiver_refused(far, conn),
                false => self.receiver_left(far, conn),
            }
        }
        for near in nears {
            match refused {
                true => self.remove_near(near),
                false => self.sender_left(near),
            }
        }
        self.forget_introductions(conn);
    }

    /// The way from a node to another, or why there is none.
    pub(super) fn find(&self, src: &Rc<str>, to: &str, chan: u16) -> Result<Found, String> {
        let node = self.cluster.node(to).ok_or_else(|| self.cluster.no_such_node(to))?;
        self.cluster.may(src, node.name).map_err(|denied| denied.to_string())?;
        let rule = self.cluster.rule(src, node.name, chan);
        let channel = Channel { src: Rc::clone(src), dst: node.name.into(), chan };
        let host = node.host.name.as_str().into();
        Ok(Found { channel, host, terms: terms_of(rule), keep: rule.linger })
    }

    pub(super) fn terms(&self, src: &str, dst: &str, chan: u16) -> Terms {
        terms_of(self.cluster.rule(src, dst, chan))
    }

    fn open(&mut self, conn: Key, id: u32, to: &str, chan: u16) -> Result<(), String> {
        let src = self.locals.get(conn).ok_or("the connection is over")?.registered()?;
        if to.starts_with('@') {
            self.say_members(conn, id, to);
            return Ok(());
        }
        let found = match self.find(&src, to, chan) {
            Ok(found) => found,
            Err(why) => {
                self.say(conn, FromRelay::NoPath { id, why });
                return Ok(());
            }
        };
        let rule = self.cluster.rule(&src, &found.channel.dst, chan);
        let direct = found.host == self.host && rule.path == Path::Auto;
        let line = FromRelay::Path {
            id,
            node: found.channel.dst.to_string(),
            host: found.host.to_string(),
            terms: found.terms,
            direct,
        };
        self.say(conn, line);
        if direct {
            self.introduce(conn, id, found);
        }
        Ok(())
    }

    fn say_members(&mut self, conn: Key, id: u32, to: &str) {
        let line = match self.cluster.group(to) {
            Some(group) => FromRelay::Members {
                id,
                nodes: self.cluster.members(group).map(|node| node.name.to_string()).collect(),
                pick: match group.pick {
                    cluster::Pick::Any => Pick::Any,
                    cluster::Pick::All => Pick::All,
                    cluster::Pick::Hash => Pick::Hash,
                },
            },
            None => FromRelay::NoPath { id, why: format!("there is no group `{to}`") },
        };
        self.say(conn, line);
    }

    /// Counts a ring of a user, if it may have it.
    pub(super) fn charge(&mut self, uid: u32, bytes: u64) -> Result<(u32, u64), String> {
        let limits = &self.cluster.limits;
        let all: u64 = self.charged.values().sum();
        let own = self.charged.get(&uid).copied().unwrap_or(0);
        for (name, limit, used) in [
            ("ring_memory", limits.ring_memory, all),
            ("ring_memory_per_uid", limits.ring_memory_per_uid, own),
        ] {
            if used + bytes > limit {
                return Err(format!("limits.{name} = {limit} bytes is reached"));
            }
        }
        *self.charged.entry(uid).or_default() += bytes;
        Ok((uid, bytes))
    }

    pub(super) fn release(&mut self, (uid, bytes): (u32, u64)) {
        if let Some(own) = self.charged.get_mut(&uid) {
            *own = own.saturating_sub(bytes);
        }
    }

    pub(super) fn channels_max(&self) -> usize {
        self.cluster.limits.channels as usize
    }
}
