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
            self.nodes.must_mut(tail).next = slot;
        }
        let node = self.nodes.must_mut(slot);
        (node.prev, node.next, node.list) = (tail, NONE, at as u16);
    }

    fn unlink(&mut self, slot: u32) {
        let Node { prev, next, list, .. } = *self.nodes.at(slot);
        let list = list as usize;
        match prev {
            NONE => self.lists[list].head = next,
            _ => self.nodes.must_mut(prev).next = next,
        }
        match next {
            NONE => self.lists[list].tail = prev,
            _ => self.nodes.must_mut(next).prev = prev,
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn wheel() -> (Instant, Wheel<u32>) {
        let start = Instant::now();
        (start, Wheel::new(start))
    }

    fn fired(wheel: &mut Wheel<u32>, now: Instant) -> Vec<u32> {
        let mut out = Vec::new();
        wheel.advance(now, &mut out);
        out
    }

    #[test]
    fn a_timer_is_never_early_and_at_most_one_tick_late() {
        for micros in [0, 1, 999, 1_000, 1_001, 63_999, 64_000, 64_001, 5_000_500] {
            let (start, mut wheel) = wheel();
            let deadline = start + Duration::from_micros(micros);
            wheel.add(deadline, 7);
            if micros > 0 {
                assert!(fired(&mut wheel, deadline - Duration::from_nanos(1)).is_empty());
            }
            assert_eq!(fired(&mut wheel, deadline + TICK), [7], "{micros} us");
        }
    }

    #[test]
    fn equal_deadlines_fire_in_the_order_they_were_added() {
        let (start, mut wheel) = wheel();
        let deadline = start + Duration::from_secs(90);
        for item in 0..100 {
            wheel.add(deadline, item);
            fired(&mut wheel, start + Duration::from_millis(u64::from(item) * 700));
        }
        assert_eq!(fired(&mut wheel, deadline + TICK), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn the_id_of_a_fired_timer_cancels_nothing() {
        let (start, mut wheel) = wheel();
        let old = wheel.add(start, 1);
        assert_eq!(fired(&mut wheel, start), [1]);
        let new = wheel.add(start + TICK, 2);
        assert!(!wheel.cancel(old));
        assert_eq!((wheel.get(old), wheel.get(new)), (None, Some(2)));
        assert!(wheel.cancel(new) && wheel.is_empty());
    }

    #[test]
    fn a_deadline_that_has_passed_is_due_at_once_and_in_order() {
        let (start, mut wheel) = wheel();
        let now = start + Duration::from_secs(70);
        assert!(fired(&mut wheel, now).is_empty());
        wheel.add(now, 3);
        wheel.add(now - Duration::from_secs(5), 2);
        wheel.add(start - Duration::from_millis(1), 1);
        assert!(wheel.next_deadline().is_some_and(|next| next <= now));
        assert_eq!(fired(&mut wheel, now), [1, 2, 3]);
    }

    #[test]
    fn many_timers_do_not_hide_the_one_that_is_due_first() {
        let (start, mut wheel) = wheel();
        for item in (5_000..6_000).rev() {
            wheel.add(start + TICK * item, item);
        }
        assert!(wheel.next_deadline().is_some_and(|next| next <= start + TICK * 5_000));
    }

    #[test]
    fn decades_away_is_as_good_as_seconds_away() {
        let (start, mut wheel) = wheel();
        let year = Duration::from_secs(365 * 24 * 3600);
        wheel.add(start + year * 100, 100);
        wheel.add(start + year * 3, 3);
        assert_eq!(fired(&mut wheel, start + year * 3 - TICK), []);
        assert_eq!(fired(&mut wheel, start + year * 99), [3]);
        let next = wheel.next_deadline().expect("one is pending");
        assert!(next <= start + year * 100 + TICK);
        assert_eq!(fired(&mut wheel, start + year * 101), [100]);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn sleeping_until_the_next_deadline_wakes_up_to_work_few_times() {
        let (start, mut wheel) = wheel();
        for item in 0..1000 {
            wheel.add(start + Duration::from_secs(60) + TICK * item, item);
        }
        let (mut wakes, mut all) = (0, Vec::new());
        while let Some(next) = wheel.next_deadline() {
            wheel.advance(next, &mut all);
            wakes += 1;
        }
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        assert!(wakes <= 1000 + 1000 / 16, "{wakes} wakes for 1000 ticks");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(u64),
        AddLate(u64),
        Cancel(usize),
        Advance(u64),
        AdvanceToNext,
    }

    /// Nanoseconds of every magnitude up to a year.
    fn span() -> impl Strategy<Value = u64> {
        (0u32..=55, any::<u64>()).prop_map(|(bits, any)| any & ((1 << bits) - 1))
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => span().prop_map(Step::Add),
            1 => span().prop_map(Step::AddLate),
            1 => any::<usize>().prop_map(Step::Cancel),
            2 => span().prop_map(Step::Advance),
            1 => Just(Step::AdvanceToNext),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn it_fires_what_an_ordered_map_would(steps in steps()) {
            let (start, mut wheel) = wheel();
            let mut model: BTreeMap<(u64, u32), TimerId> = BTreeMap::new();
            let mut ids = Vec::new();
            let mut now = 0u64;
            let at = |ns: u64| start + Duration::from_nanos(ns);
            for (item, step) in (0u32..).zip(steps) {
                match step {
                    Step::Add(_) | Step::AddLate(_) => {
                        let deadline = match step {
                            Step::Add(after) => now + after,
                            Step::AddLate(before) => now.saturating_sub(before),
                            _ => unreachable!(),
                        };
                        let id = wheel.add(at(deadline), item);
                        model.insert((deadline, item), id);
                        ids.push(id);
                    }
                    Step::Cancel(which) if !ids.is_empty() => {
                        let id = ids[which % ids.len()];
                        let known = model.len();
                        model.retain(|_, pending| *pending != id);
                        prop_assert_eq!(wheel.cancel(id), known != model.len());
                    }
                    Step::Cancel(_) => {}
                    Step::Advance(by) => now += by,
                    Step::AdvanceToNext => {
                        if let Some(next) = wheel.next_deadline() {
                            now = now.max((next - start).as_nanos() as u64);
                        }
                    }
                }
                let mut due = Vec::new();
                while let Some((&(ns, item), _)) = model.first_key_value()
                    && ns.div_ceil(TICK_NS) <= now / TICK_NS
                {
                    model.remove(&(ns, item));
                    due.push(item);
                }
                prop_assert_eq!(fired(&mut wheel, at(now)), due);
                prop_assert_eq!(wheel.len(), model.len());
                let first = model.first_key_value().map(|((ns, _), _)| ns.div_ceil(TICK_NS));
                let next = wheel.next_deadline().map(|next| next - start);
                prop_assert_eq!(first.is_some(), next.is_some());
                if let (Some(first), Some(next)) = (first, next) {
                    prop_assert!(next.as_nanos() <= u128::from(first) * u128::from(TICK_NS));
                    prop_assert!(next.as_nanos() as u64 > now, "a sleep makes progress");
                }
            }
        }
    }
}
