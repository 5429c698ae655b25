//! What a connection to another relay has: bindings in both directions, output, and who may send
//! next.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use ringlane_api::Evbuffer;
use ringlane_api::slab::Key;

use crate::frame::{Decoder, Frame};

use super::{Core, LinkId, Out};

/// Output that a link holds before channels have to wait, if the configuration allows as much:
/// enough for a long pipe's next gulp, and little enough that an urgent message is not far from the
/// wire.
const LINK_BYTES_MAX: usize = 512 << 10;

/// What each channel may have beside that: its OPEN, a RESUME, an ACK.
const CHANNEL_BYTES: usize = 512;

/// Bytes that one channel sends before the next has its turn.
pub const GULP_BYTES: u32 = 64 << 10;

/// Of so many turns the least urgent channels have one, whatever waits before them.
const FLOOR: u32 = 16;

/// Priorities.
pub const PRIORITIES: usize = 4;

/// A connection to another relay, or the one to ourselves.
pub struct Link {
    pub host: Rc<str>,
    pub itself: bool,
    pub out: Evbuffer,
    /// Output that the connection has taken and the kernel has not.
    pub backlog: usize,
    pub decoder: Decoder,
    /// Channels that send over it, by the number of their binding.
    pub nears: HashMap<u32, Key>,
    /// Channels that arrive over it.
    pub fars: HashMap<u32, Key>,
    next_bind: u32,
    ready: [VecDeque<Key>; PRIORITIES],
    turns: u32,
    pub touched: bool,
}

impl Link {
    pub fn new(host: Rc<str>, itself: bool) -> Link {
        Link {
            host,
            itself,
            out: Evbuffer::new(),
            backlog: 0,
            decoder: Decoder::new(),
            nears: HashMap::new(),
            fars: HashMap::new(),
            next_bind: 1,
            ready: Default::default(),
            turns: 0,
            touched: false,
        }
    }

    /// A number for a binding, never used before on this link.
    pub fn bind(&mut self, near: Key) -> u32 {
        let bind = self.next_bind;
        self.next_bind = bind.checked_add(1).expect("a link lives for fewer than 2^32 bindings");
        self.nears.insert(bind, near);
        bind
    }

    /// Output that the other relay has not taken.
    pub fn waiting(&self) -> usize {
        self.out.len() + self.backlog
    }

    /// Puts a channel at the end of those of its priority that have something to send.
    pub fn enqueue(&mut self, near: Key, priority: u8) {
        self.ready[usize::from(priority).min(PRIORITIES - 1)].push_back(near);
    }

    /// Who sends next: the most urgent, but now and then the least.
    pub fn next(&mut self) -> Option<Key> {
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(FLOOR)
            && let Some(near) = self.ready.iter_mut().rev().find_map(VecDeque::pop_front)
        {
            return Some(near);
        }
        self.ready.iter_mut().find_map(VecDeque::pop_front)
    }
}

impl Core {
    /// A link stands: the other relay has proved who it is. An older one to the same host is to be
    /// closed by the caller first.
    pub fn link_up(&mut self, host: &str) -> LinkId {
        let host: Rc<str> = host.into();
        let link = self.links.insert(Link::new(Rc::clone(&host), false));
        if let Some(old) = self.link_to.insert(Rc::clone(&host), link) {
            self.unlink(old);
        }
        self.route_all(&host);
        LinkId(link)
    }

    /// A link is gone. What was under way is sent again over the next one.
    pub fn link_closed(&mut self, link: LinkId) {
        self.unlink(link.0);
    }

    fn unlink(&mut self, link: Key) {
        let Some(gone) = self.links.remove(link) else { return };
        if self.link_to.get(&gone.host) == Some(&link) {
            self.link_to.remove(&gone.host);
        }
        // In the order in which they were bound.
        let in_order = |bound: HashMap<u32, Key>| bound.into_iter().collect::<BTreeMap<_, _>>();
        for near in in_order(gone.nears).into_values() {
            self.near_unlinked(near, link);
        }
        for far in in_order(gone.fars).into_values() {
            self.far_unlinked(far, link);
        }
    }

    /// How much of a link's output waits for the kernel.
    pub fn link_room(&mut self, link: LinkId, backlog: usize) {
        if let Some(link) = self.links.get_mut(link.0) {
            link.backlog = backlog;
        }
        self.touch(link.0);
    }

    /// What is to be sent over a link, moved behind `to`.
    pub fn take_output(&mut self, link: LinkId, to: &mut Evbuffer) {
        if let Some(link) = self.links.get_mut(link.0) {
            link.backlog += link.out.len();
            to.append(&mut link.out);
        }
    }

    /// Output at which the channels of a link wait: half of what one link may hold, and of its
    /// share of what all may.
    pub(super) fn link_bytes(&self) -> usize {
        let limits = &self.cluster.limits;
        let share = limits.relay_memory / (2 * self.links.len().max(1) as u64);
        let most = share.min(limits.link_buffer / 2);
        usize::try_from(most).unwrap_or(usize::MAX).min(LINK_BYTES_MAX)
    }

    /// Whether another relay reads so little that its link is to be closed: what waits is no
    /// message, since those wait in rings, but answers to what it sends.
    pub fn is_stuffed(&self, link: LinkId) -> bool {
        let Some(one) = self.links.get(link.0) else { return false };
        let channels = one.nears.len() + one.fars.len();
        let most = self.cluster.limits.link_buffer + (channels * CHANNEL_BYTES) as u64;
        one.waiting() as u64 > most
    }

    /// Records to each host that are not acknowledged; hosts that have everything are left out.
    pub fn unacked_by_host(&self) -> HashMap<&str, u64> {
        let mut all = HashMap::new();
        for (_, near) in self.nears.iter() {
            let of = u64::from(near.sent.wrapping_sub(near.stored)) + u64::from(near.has_more());
            if of > 0 {
                *all.entry(&*near.host).or_default() += of;
            }
        }
        all
    }

    /// The link to a host, if there is one; to ourselves there always is.
    pub(super) fn link_of(&self, host: &str) -> Option<Key> {
        if host == &*self.host { self.itself } else { self.link_to.get(host).copied() }
    }

    /// Looks at the link when the turn ends.
    pub(super) fn touch(&mut self, link: Key) {
        if let Some(one) = self.links.get_mut(link)
            && !std::mem::replace(&mut one.touched, true)
        {
            self.touched.push(link);
        }
    }

    pub(super) fn frame(&mut self, link: Key, frame: &Frame<'_>) {
        if let Some(one) = self.links.get_mut(link) {
            frame.encode_to(&mut one.out);
            self.touch(link);
        }
    }

    /// Says to the driver which links have output; what goes to ourselves is taken at once.
    pub(super) fn flush_links(&mut self) {
        // What is touched on the way has something to send, and is for the next round.
        let touched = self.touched.len();
        for at in 0..touched {
            let link = self.touched[at];
            let Some(one) = self.links.get_mut(link) else { continue };
            one.touched = false;
            if one.itself {
                self.loop_back(link);
            } else if !one.out.is_empty() {
                self.out.push_back(Out::Flush(LinkId(link)));
            }
        }
        self.touched.drain(..touched);
    }
}
