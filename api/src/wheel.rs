//! The hierarchical timing wheel: ticks of one millisecond, adding and cancelling in O(1).
//!
//! ```text
//!   tick:  ... | 6 bits | 6 bits | 6 bits |      level 0: 64 slots of 1 ms
//!                 lvl 2    lvl 1    lvl 0         level 1: 64 slots of 64 ms, ...
//! ```
//!
//! Invariant: a timer stands at the level of the highest 6-bit digit in which its tick differs
//! from `elapsed`, in the slot of that digit. So every timer of a level is due after all timers
//! of the levels below, no level wraps, and the first set bit of the lowest level in use is the
//! slot that is due first. Eight levels hold every tick that 64 bits of nanoseconds can name.
//!
//! A deadline is rounded up to its tick and the present down: a timer is never early and at most
//! one tick late.

use std::fmt;
use std::time::{Duration, Instant};

use crate::slab::{Key, Slab};

/// Length of a tick.
pub const TICK: Duration = Duration::from_millis(1);

const TICK_NS: u64 = TICK.as_nanos() as u64;
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const LEVELS: usize = 8;
const NONE: u32 = u32::MAX;

/// Timers looked at to make [`Wheel::next_deadline`] exact; with more in the first slot it is the
/// start of that slot.
const LOOK_MAX: usize = 16;

const _: () = assert!(SLOTS == u64::BITS as usize, "a level's slots fit in one word");
const _: () = assert!(
    u64::MAX / TICK_NS < 1 << (LEVELS as u32 * LEVEL_BITS),
    "the levels hold every tick there is"
);

/// Names a timer of a [`Wheel`], and nothing once it has fired or was cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerId(Key);

/// Timers that each carry one `T`.
///
/// ```
/// use ringlane_api::wheel::Wheel;
/// use std::time::{Duration, Instant};
/// let start = Instant::now();
/// let mut wheel = Wheel::new(start);
/// let id = wheel.add(start + Duration::from_millis(5), 'a');
/// wheel.add(start + Duration::from_millis(3), 'b');
/// let mut due = Vec::new();
/// wheel.advance(start + Duration::from_millis(4), &mut due);
/// assert_eq!(due, ['b']);
/// assert!(wheel.cancel(id) && !wheel.cancel(id));
/// ```
pub struct Wheel<T: Copy> {
    start: Instant,
    /// Ticks up to which every slot has been emptied.
    elapsed: u64,
    nodes: Slab<Node<T>>,
    occupied: [u64; LEVELS],
    lists: Box<[List]>,
    /// What one `advance` found, before it is in order.
    due: Vec<(u64, u32, T)>,
}

struct Node<T> {
    /// Deadline in nanoseconds after the start.
    at: u64,
    prev: u32,
    next: u32,
    list: u16,
    item: T,
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

impl<T: Copy> Wheel<T> {
    /// An empty wheel whose ticks count from `start`.
    pub fn new(start: Instant) -> Wheel<T> {
        Wheel {
            start,
            elapsed: 0,
            nodes: Slab::new(),
            occupied: [0; LEVELS],
            lists: vec![List { head: NONE, tail: NONE }; LEVELS * SLOTS].into_boxed_slice(),
            due: Vec::new(),
        }
    }

    /// Timers pending.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no timer is pending.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a timer. A deadline in the past is due at the next [`Wheel::advance`].
    pub fn add(&mut self, deadline: Instant, item: T) -> TimerId {
        let at = self.nanos(deadline);
        let key = self.nodes.insert(Node { at, prev: NONE, next: NONE, list: 0, item });
        self.link(key.slot());
        TimerId(key)
    }

    /// Takes a timer away; `false` if it has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        if !self.nodes.contains(id.0) {
            return false;
        }
        self.unlink(id.0.slot());
        self.nodes.remove(id.0);
        true
    }

    /// The item of a pending timer.
    pub fn get(&self, id: TimerId) -> Option<T> {
        self.nodes.get(id.0).map(|node| node.item)
    }

    /// Appends the items of all timers that are due at `now` to `out`, by deadline, and equal
    /// deadlines in the order they were added.
    pub fn advance(&mut self, now: Instant, out: &mut Vec<T>) {
        let now_tick = self.nanos(now) / TICK_NS;
        while let Some((level, slot)) = self.first_slot() {
            let starts = self.slot_start(level, slot);
            if starts > now_tick {
                break;
            }
            self.elapsed = self.elapsed.max(starts);
            self.empty_slot(level * SLOTS + slot, now_tick);
        }
        self.elapsed = self.elapsed.max(now_tick);
        self.due.sort_unstable_by_key(|&(at, order, _)| (at, order));
        out.extend(self.due.drain(..).map(|(_, _, item)| item));
    }

    /// When to call [`Wheel::advance`] next: never later than the moment at which the first timer
    /// becomes due. It may be earlier (a call that finds nothing) if many timers are pending.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (level, slot) = self.first_slot()?;
        let mut first = u64::MAX;
        let mut at = self.lists[level * SLOTS + slot].head;
        for _ in 0..LOOK_MAX {
            if at == NONE {
                break;
            }
            let node = self.nodes.at(at);
            first = first.min(due_tick(node.at));
            at = node.next;
        }
        if at != NONE {
            first = self.slot_start(level, slot);
        }
        self.start.checked_add(Duration::from_nanos(first.saturating_mul(TICK_NS)))
    }

    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start).as_nanos();
        // The last tick is left out, so that rounding up stays inside the levels.
        u64::try_from(since).unwrap_or(u64::MAX).min(u64::MAX - TICK_NS)
    }

    /// The slot whose timers are due first.
    fn first_slot(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    /// The first tick of a slot, in the rotation that `elapsed` is in.
    fn slot_start(&self, level: usize, slot: usize) -> u64 {
        let shift = level as u32 * LEVEL_BITS;
        let rotation = !((1 << (shift + LEVEL_BITS)) - 1);
        (self.elapsed & rotation) | (slot as u64) << shift
    }

    /// Fires or moves down all timers of one list.
    fn empty_slot(&mut self, list: usize, now_tick: u64) {
        let mut slot = self.lists[list].head;
        self.lists[list] = List { head: NONE, tail: NONE };
        self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        while slot != NONE {
            let node = self.nodes.at(slot);
            let next = node.next;
            if due_tick(node.at) <= now_tick {
                let node = self.nodes.remove_at(slot);
                self.due.push((node.at, self.due.len() as u32, node.item));
            } else {
                self.link(slot);
            }
            slot = next;
        }
    }

    /// Appends a node to the list of its tick.
    fn link(&mut self, slot: u32) {
        let tick = due_tick(self.nodes.at(slot).at).max(self.elapsed);
        let level = (63 - ((tick ^ self.elapsed) | 1).leading_zeros()) / LEVEL_BITS;
        let digit = (tick >> (level * LEVEL_BITS)) as usize % SLOTS;
        let at = level as usize * SLOTS + digit;
        let tail = std::mem::replace(&mut self.lists[at].tail, slot);
        if tail == NONE {
            self.lists[at].head = slot;
            self.occupied[level as usize] |= 1 << digit;
        } else {
            self.nodes.at_mut(tail).next = slot;
        }
        let node = self.nodes.at_mut(slot);
        (node.prev, node.next, node.list) = (tail, NONE, at as u16);
    }

    fn unlink(&mut self, slot: u32) {
        let Node { prev, next, list, .. } = *self.nodes.at(slot);
        let list = list as usize;
        match prev {
            NONE => self.lists[list].head = next,
            _ => self.nodes.at_mut(prev).next = next,
        }
        match next {
            NONE => self.lists[list].tail = prev,
            _ => self.nodes.at_mut(next).prev = prev,
        }
        if self.lists[list].head == NONE {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }
}

/// The tick at which a deadline is due: rounded up, so that nothing is early.
fn due_tick(at: u64) -> u64 {
    at.div_ceil(TICK_NS)
}

impl<T: Copy> fmt::Debug for Wheel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wheel({} pending)", self.len())
    }
}
