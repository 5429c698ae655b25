//! What is known about each descriptor, by number.
//!
//! Invariant: a number may come to mean another open file between two turns. Each meaning has a
//! `stamp`; an event or a queued piece of work that carries an older one means a file that is
//! gone, and is nobody's. Ops hold their descriptor open, so an entry with ops never changes its
//! meaning.

use nix::sys::epoll::EpollFlags;
use ringlane_api::fd::{Fd, WeakFd};
use ringlane_api::reactor::Ready;

use super::flight::Lane;

/// Names one meaning of one number: in the run queue, and with each registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pub(super) number: i32,
    pub(super) stamp: u32,
}

impl Key {
    pub(super) fn data(self) -> u64 {
        u64::from(self.stamp) << 32 | u64::from(self.number as u32)
    }

    pub(super) fn from_data(data: u64) -> Key {
        Key { number: data as u32 as i32, stamp: (data >> 32) as u32 }
    }
}

/// Whether and how the kernel watches a descriptor for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Watched {
    /// Not at all.
    #[default]
    No,
    /// For input only: a Unix socket tells of room at each read of its peer, which costs a turn
    /// per message where nobody waits for room.
    In,
    /// For input and room.
    InOut,
    /// The kernel does not watch such files, because they are always ready.
    Always,
}

/// One descriptor.
#[derive(Default)]
pub(super) struct Entry {
    meaning: Option<WeakFd>,
    stamp: u32,
    pub(super) watched: Watched,
    /// A read may find something.
    pub(super) readable: bool,
    /// A send may find room.
    pub(super) writable: bool,
    /// The peer ended its side, or all of it: short reads are no proof of emptiness any more.
    pub(super) hung_up: bool,
    /// Whether it is a Unix socket, once that mattered.
    pub(super) unix: Option<bool>,
    /// Its connect waits for time to pass, not for an event.
    pub(super) paused: bool,
    /// It stands in the run queue.
    pub(super) queued: bool,
    /// What the kernel reported and polls have not been told.
    pub(super) news: Ready,
    pub(super) ins: Vec<u32>,
    pub(super) outs: Vec<u32>,
    pub(super) polls: Vec<u32>,
}

impl Entry {
    pub(super) fn lane(&mut self, lane: Lane) -> &mut Vec<u32> {
        match lane {
            Lane::In => &mut self.ins,
            Lane::Out => &mut self.outs,
            Lane::Poll => &mut self.polls,
            Lane::Aside => unreachable!("such ops stand in no entry"),
        }
    }

    /// Takes an op out of its list.
    pub(super) fn remove(&mut self, lane: Lane, slot: u32) {
        let list = self.lane(lane);
        if let Some(at) = list.iter().position(|&other| other == slot) {
            list.remove(at);
        }
    }

    /// Forgets what the kernel said; the ops stay.
    pub(super) fn forget(&mut self) {
        self.watched = Watched::No;
        self.readable = false;
        self.writable = true;
        self.hung_up = false;
        self.paused = false;
        self.news = Ready::NONE;
    }

    /// Takes an event in.
    pub(super) fn learn(&mut self, flags: EpollFlags) {
        let gone = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let ended = flags.contains(EpollFlags::EPOLLRDHUP);
        let readable = flags.contains(EpollFlags::EPOLLIN);
        self.hung_up |= gone || ended;
        self.readable |= readable || gone || ended;
        self.writable |= flags.contains(EpollFlags::EPOLLOUT) || gone;
        if readable || ended {
            self.news |= Ready::READ;
        }
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.news |= Ready::WRITE;
        }
        if gone {
            self.news |= Ready::HANGUP;
        }
    }

    /// Whether nobody holds the descriptor any more.
    pub(super) fn is_orphan(&self) -> bool {
        self.fd().is_none()
    }

    /// The descriptor, while somebody holds it.
    pub(super) fn fd(&self) -> Option<Fd> {
        self.meaning.as_ref().and_then(WeakFd::upgrade)
    }

    /// Whether somebody waits for room.
    pub(super) fn wants_room(&self, polls_want_room: bool) -> bool {
        polls_want_room || (!self.outs.is_empty() && !self.writable && !self.paused)
    }
}

/// All descriptors.
#[derive(Default)]
pub(super) struct Entries(Vec<Entry>);

impl Entries {
    /// The entry of `fd`, which is from now on the meaning of its number.
    pub(super) fn bind(&mut self, fd: &Fd) -> (Key, &mut Entry) {
        let at = usize::try_from(fd.number()).expect("an open descriptor has a number");
        if at >= self.0.len() {
            self.0.resize_with(at + 1, Entry::default);
        }
        let entry = &mut self.0[at];
        if !entry.meaning.as_ref().is_some_and(|meaning| meaning.is(fd)) {
            entry.unbind();
            entry.meaning = Some(fd.downgrade());
        }
        (Key { number: fd.number(), stamp: entry.stamp }, entry)
    }

    /// The entry of `key`, if it still means what it meant.
    pub(super) fn get(&mut self, key: Key) -> Option<&mut Entry> {
        let entry = self.0.get_mut(usize::try_from(key.number).ok()?)?;
        (entry.stamp == key.stamp).then_some(entry)
    }

    /// The entry of an op that is under way.
    pub(super) fn of(&mut self, number: i32) -> &mut Entry {
        &mut self.0[usize::try_from(number).expect("an op under way names an open descriptor")]
    }

    /// The entry and the key of `fd`, if anything was ever asked of it.
    pub(super) fn find(&mut self, fd: &Fd) -> Option<(Key, &mut Entry)> {
        let entry = self.0.get_mut(usize::try_from(fd.number()).ok()?)?;
        let ours = entry.meaning.as_ref().is_some_and(|meaning| meaning.is(fd));
        ours.then(|| (Key { number: fd.number(), stamp: entry.stamp }, entry))
    }

    /// Every entry that has ops, with its key.
    pub(super) fn busy(&mut self) -> impl Iterator<Item = (Key, &mut Entry)> {
        self.0.iter_mut().enumerate().filter_map(|(number, entry)| {
            let busy = !(entry.ins.is_empty() && entry.outs.is_empty() && entry.polls.is_empty());
            let key = Key { number: number as i32, stamp: entry.stamp };
            busy.then_some((key, entry))
        })
    }

    /// Every entry.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.0.iter_mut()
    }
}

impl Entry {
    /// Ends the meaning of this number.
    pub(super) fn unbind(&mut self) {
        debug_assert!(
            self.ins.is_empty() && self.outs.is_empty() && self.polls.is_empty(),
            "ops hold their descriptor, so its number keeps its meaning"
        );
        self.forget();
        self.meaning = None;
        self.stamp = self.stamp.wrapping_add(1);
        self.unix = None;
        self.queued = false;
    }
}
