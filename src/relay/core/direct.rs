//! Neighbours: two processes of one host are introduced and talk without the relay.

use std::rc::Rc;

use ringlane_api::slab::Key;

use crate::bus::local::{FromRelay, Nonce};

use super::Core;
use super::local::Found;

/// Introductions under way.
#[derive(Default)]
pub struct Introductions(Vec<Introduction>);

struct Introduction {
    token: Nonce,
    /// Who asked, and under which number.
    from: Key,
    id: u32,
    found: Found,
    /// The neighbour that was told.
    told: Option<Key>,
}

impl Core {
    /// A process asks for a neighbour, who may not be there yet.
    pub(super) fn introduce(&mut self, from: Key, id: u32, found: Found) {
        let dst = Rc::clone(&found.channel.dst);
        let token = (self.tokens)();
        // Asked again, after a relay was lost or a neighbour has died.
        self.introductions.0.retain(|one| (one.from, one.id) != (from, id));
        self.introductions.0.push(Introduction { token, from, id, found, told: None });
        if !self.names.contains_key(&dst) {
            let why = format!("{dst} has not registered yet");
            self.say(from, FromRelay::Waiting { id, why });
        }
        self.introduce_to(&dst);
    }

    /// Tells a process who will connect to it.
    pub(super) fn introduce_to(&mut self, node: &Rc<str>) {
        let Some(to) = self.names.get(node).copied() else { return };
        let mut lines = Vec::new();
        for one in &mut self.introductions.0 {
            if one.found.channel.dst != *node || one.told == Some(to) {
                continue;
            }
            let Some(from) = self.locals.get(one.from) else { continue };
            one.told = Some(to);
            lines.push(FromRelay::Expect {
                token: one.token,
                from: one.found.channel.src.to_string(),
                chan: one.found.channel.chan,
                epoch: from.epoch,
                uid: from.uid,
                terms: one.found.terms,
            });
        }
        for line in lines {
            self.say(to, line);
        }
    }

    /// The neighbour says where it listens.
    pub(super) fn listening(
        &mut self,
        conn: Key,
        token: Nonce,
        address: String,
    ) -> Result<(), String> {
        let epoch = self.locals.get(conn).ok_or("the connection is over")?.epoch;
        let fits = |one: &Introduction| one.token == token && one.told == Some(conn);
        let Some(at) = self.introductions.0.iter().position(fits) else {
            // Whoever asked has gone meanwhile.
            return Ok(());
        };
        let one = self.introductions.0.swap_remove(at);
        self.say(one.from, FromRelay::Connect { id: one.id, address, token, epoch });
        Ok(())
    }

    /// A process has gone: what it asked for is void, and what it was told is told to the next.
    pub(super) fn forget_introductions(&mut self, conn: Key) {
        self.introductions.0.retain(|one| one.from != conn);
        for one in &mut self.introductions.0 {
            if one.told == Some(conn) {
                one.told = None;
            }
        }
    }
}
