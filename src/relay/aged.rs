//! A bounded table whose entries age: it forgets who was idle for too long, and when it is full
//! the one that has been idle longest makes room, unless something of it is not acknowledged.
//!
//! ```text
//!   seats:   | base |  ..  | t | t+1 |  ..  | present |      one list of entries per tick
//!               ^             '-> a <-> b <-> c              tick: when it was last used
//!               '- as old as can be told apart
//! ```
//!
//! A touch stores a tick and moves nothing. An entry sits in the list of some tick at which it was
//! used, and only when the front of the wheel comes to it does it move up to the tick of its last
//! use: so a touch is paid for at most once more, by a move of O(1). The seat is a lower bound of
//! the last use, hence the first entry whose seat is true has been idle longest of all.
//!
//! This is a wheel of activity and of one level. `ringlane_api::wheel`, the wheel of deadlines,
//! cannot say whose timer is first without moving its present there: its upper levels are not in
//! order. Here idle times beyond the wheel's span, a little over the idle limit, count as equal.
//!
//! Invariant: every entry is in exactly one of two places, the wheel or the car park. In the car
//! park is what [`Evict::may_go`] was false for when it came or the front came to it; such entries
//! cost nothing any more, neither while ageing nor when the table is full. The guard of
//! [`Aged::get_mut`] drives an entry out as soon as it may go.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use ringlane_api::slab::{Key, Slab};

use seats::{Seat, Seated, Seats};

mod seats;
#[cfg(test)]
mod tests;

/// The shortest tick there is.
pub const TICK_MIN: Duration = Duration::from_millis(100);

/// Idle limits beyond this are this.
pub const IDLE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Entries that one call of [`Aged::age`] looks at, so that no turn is long.
pub const AGE_VISITS_MAX: usize = 1024;

/// Ticks in an idle limit, at most: it sizes the wheel (4,096 lists of 8 bytes).
const IDLE_TICKS_MAX: u128 = 4_000;

const _: () = assert!(
    IDLE_TICKS_MAX < 4_096 - 2,
    "an idle limit, rounded up, and the present fit in a wheel of 4,096 seats"
);

/// What may be asked of a value before its entry leaves.
pub trait Evict {
    /// Whether nothing is lost when the entry goes: nothing unacknowledged, nothing configured.
    /// The answer changes only through [`Aged::get_mut`].
    fn may_go(&self) -> bool;
}

/// A moment in the ticks of one [`Aged`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tick(u32);

/// Names an entry of an [`Aged`], and nothing once it has left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Id(Key);

/// How large and how old a table may become.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The key in the config that says so, for the operator's eyes: `limits.channels`.
    pub setting: &'static str,
    /// Entries, at most.
    pub entries_max: usize,
    /// An entry not touched for so long goes, if it may.
    pub idle_max: Duration,
}

/// The table is full and none of its entries may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full {
    /// The key in the config that sets the limit.
    pub setting: &'static str,
    /// Its value.
    pub limit: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Full { setting, limit } = self;
        write!(f, "{limit} entries, and none may go before it is acknowledged; raise {setting}")
    }
}

impl std::error::Error for Full {}

/// What an [`Aged::insert`] did.
#[derive(PartialEq, Eq, Debug)]
#[must_use]
pub struct Inserted<K, V> {
    /// The new entry.
    pub id: Id,
    /// Who left for it: the entry of the same key, or else the one that was idle longest.
    pub left: Option<(K, V)>,
}

/// What came and went since the table was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Counters {
    /// Entries that came.
    pub inserted: u64,
    /// Went because the table was full.
    pub evicted: u64,
    /// Went because they were idle.
    pub expired: u64,
    /// Were taken out, or replaced under their key.
    pub removed: u64,
    /// Did not come, because the table was full and nobody might go.
    pub refused: u64,
}

struct Node<K, V> {
    key: K,
    value: V,
    /// When it was last touched.
    tick: u32,
    seat: Seat,
}

/// A bounded, ageing table. See the [module](self).
///
/// ```
/// use ringlane::relay::aged::{Aged, Evict, Limits};
/// use std::time::{Duration, Instant};
/// struct Unacked(u32);
/// impl Evict for Unacked {
///     fn may_go(&self) -> bool {
///         self.0 == 0
///     }
/// }
/// let idle_max = Duration::from_secs(600);
/// let limits = Limits { setting: "limits.channels", entries_max: 2, idle_max };
/// let start = Instant::now();
/// let mut table = Aged::new(limits, start);
/// let a = table.insert("a", Unacked(1), table.tick(start))?.id;
/// let b = table.insert("b", Unacked(0), table.tick(start + Duration::from_secs(1)))?.id;
/// let later = start + Duration::from_secs(2);
/// let left = table.insert("c", Unacked(0), table.tick(later))?.left;
/// assert_eq!(left.map(|(key, _)| key), Some("b"), "a is older, but something of it is unacked");
///
/// table.get_mut(a).expect("a is there").0 = 0;
/// table.touch(a, table.tick(later));
/// let mut expired = Vec::new();
/// table.age(later + Duration::from_secs(601), &mut expired);
/// assert_eq!(expired.len(), 2);
/// # Ok::<(), ringlane::relay::aged::Full>(())
/// ```
pub struct Aged<K, V> {
    limits: Limits,
    start: Instant,
    tick: Duration,
    idle_ticks: u32,
    slots: HashMap<K, u32>,
    nodes: Slab<Node<K, V>>,
    seats: Seats,
    counters: Counters,
}

impl<K: Clone + Eq + Hash, V: Evict> Aged<K, V> {
    /// An empty table whose ticks count from `start`.
    pub fn new(limits: Limits, start: Instant) -> Aged<K, V> {
        let idle = limits.idle_max.min(IDLE_MAX).as_nanos();
        let tick_ns = TICK_MIN.as_nanos().max(idle.div_ceil(IDLE_TICKS_MAX));
        let idle_ticks = idle.div_ceil(tick_ns) as u32;
        Aged {
            limits,
            start,
            tick: Duration::from_nanos(tick_ns as u64),
            idle_ticks,
            slots: HashMap::new(),
            nodes: Slab::new(),
            // One seat more for the tick that runs, and one since a tick may just have begun.
            seats: Seats::new((idle_ticks + 2).next_power_of_two()),
            counters: Counters::default(),
        }
    }

    /// The moment in ticks. Ask once a turn.
    pub fn tick(&self, now: Instant) -> Tick {
        let ticks = now.saturating_duration_since(self.start).as_nanos() / self.tick.as_nanos();
        Tick(u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    /// Entries in it.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Entries that were found not to be allowed to go, and cost nothing until they are.
    pub fn parked(&self) -> usize {
        self.nodes.len() - self.seats.taken()
    }

    /// The limits it keeps.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Other limits from now on, after a reload. Entries beyond a smaller `entries_max` stay until
    /// they leave; `idle_max` counts from the next table.
    pub fn set_entries_max(&mut self, entries_max: usize) {
        self.limits.entries_max = entries_max;
    }

    /// What came and went.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Puts an entry in, touched at `tick`. The entry of the same key leaves, whatever its state;
    /// else, if the table is full, the one that has been idle longest of those that may go.
    pub fn insert(&mut self, key: K, value: V, tick: Tick) -> Result<Inserted<K, V>, Full> {
        let left = match self.slots.get(&key) {
            Some(&slot) => {
                self.counters.removed += 1;
                Some(self.take(slot))
            }
            None if self.len() >= self.limits.entries_max => {
                let Some(slot) = self.longest_idle() else {
                    self.counters.refused += 1;
                    let Limits { setting, entries_max, .. } = self.limits;
                    return Err(Full { setting, limit: entries_max });
                };
                self.counters.evicted += 1;
                Some(self.take(slot))
            }
            None => None,
        };
        let may_go = value.may_go();
        let node = Node { key: key.clone(), value, tick: tick.0, seat: Seat::parked() };
        let id = self.nodes.insert(node);
        self.slots.insert(key, id.slot());
        if may_go {
            self.sit(id.slot(), tick.0);
        }
        self.counters.inserted += 1;
        Ok(Inserted { id: Id(id), left })
    }

    /// The entry of a key.
    pub fn find<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Id>
    where
        K: Borrow<Q>,
    {
        let slot = *self.slots.get(key)?;
        Some(Id(self.nodes.key_at(slot).expect("a key stands for an entry")))
    }

    /// The value of an entry.
    #[inline]
    pub fn get(&self, id: Id) -> Option<&V> {
        self.nodes.get(id.0).map(|node| &node.value)
    }

    /// The key of an entry.
    pub fn key(&self, id: Id) -> Option<&K> {
        self.nodes.get(id.0).map(|node| &node.key)
    }

    /// The value of an entry, to be changed. The guard looks at it when it is dropped.
    #[inline]
    pub fn get_mut(&mut self, id: Id) -> Option<ValueMut<'_, K, V>> {
        self.nodes.contains(id.0).then_some(ValueMut { table: self, slot: id.0.slot() })
    }

    /// The entry is in use: stores the tick, and nothing else.
    #[inline]
    pub fn touch(&mut self, id: Id, tick: Tick) {
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.tick = node.tick.max(tick.0);
        }
    }

    /// For how long the entry has been idle, give or take a tick.
    pub fn idle(&self, id: Id, now: Instant) -> Option<Duration> {
        let last = self.nodes.get(id.0)?.tick;
        Some(self.tick * self.tick(now).0.saturating_sub(last))
    }

    /// Takes an entry out.
    pub fn remove(&mut self, id: Id) -> Option<(K, V)> {
        self.nodes.contains(id.0).then(|| {
            self.counters.removed += 1;
            self.take(id.0.slot())
        })
    }

    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &K, &V)> {
        self.nodes.iter().map(|(id, node)| (Id(id), &node.key, &node.value))
    }

    /// Appends to `out` what has been idle for the limit and may go: never early, at most two
    /// ticks late. `true` if it stopped at [`AGE_VISITS_MAX`] and wants to be called again.
    pub fn age(&mut self, now: Instant, out: &mut Vec<(K, V)>) -> bool {
        let present = self.tick(now).0;
        self.advance(present);
        let Some(due) = present.checked_sub(self.idle_ticks + 1) else { return false };
        for _ in 0..AGE_VISITS_MAX {
            let Some(tick) = self.seats.first().filter(|&tick| tick <= due) else { return false };
            if let Some(slot) = self.front(tick) {
                self.counters.expired += 1;
                let gone = self.take(slot);
                out.push(gone);
            }
        }
        self.seats.first().is_some_and(|tick| tick <= due)
    }

    /// When to call [`Aged::age`] next: never later than the first entry expires, perhaps earlier.
    pub fn next_deadline(&self) -> Option<Instant> {
        let ticks = u64::from(self.seats.first()?) + u64::from(self.idle_ticks) + 1;
        let nanos = ticks.saturating_mul(self.tick.as_nanos() as u64);
        self.start.checked_add(Duration::from_nanos(nanos))
    }

    /// Who is to go first.
    fn longest_idle(&mut self) -> Option<u32> {
        loop {
            let tick = self.seats.first()?;
            if let Some(slot) = self.front(tick) {
                return Some(slot);
            }
        }
    }

    /// Looks at the first entry of the list of `tick`: the entry, if it has really been idle since
    /// then and may go, else moves it to where it belongs.
    fn front(&mut self, tick: u32) -> Option<u32> {
        let slot = self.seats.head(tick);
        let node = self.nodes.at_mut(slot).expect("a seat has an entry");
        let (last, may_go) = (node.tick, node.value.may_go());
        if last <= tick && may_go {
            return Some(slot);
        }
        self.rise(slot);
        if may_go {
            self.sit(slot, last);
        }
        None
    }

    fn take(&mut self, slot: u32) -> (K, V) {
        self.rise(slot);
        let id = self.nodes.key_at(slot).expect("the slot of an entry");
        let node = self.nodes.remove(id).expect("the key of an entry");
        self.slots.remove(&node.key);
        (node.key, node.value)
    }

    fn advance(&mut self, present: u32) {
        self.seats.advance(present, &mut self.nodes);
    }

    /// Seats an entry that has no seat.
    fn sit(&mut self, slot: u32, tick: u32) {
        self.advance(tick);
        self.seats.sit(slot, tick, &mut self.nodes);
    }

    /// Makes an entry leave its seat, if it has one.
    fn rise(&mut self, slot: u32) {
        self.seats.rise(slot, &mut self.nodes);
    }
}

impl<K, V> Seated for Slab<Node<K, V>> {
    fn seat(&mut self, slot: u32) -> &mut Seat {
        &mut self.at_mut(slot).expect("the slot of an entry").seat
    }
}

impl<K, V> fmt::Debug for Aged<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { setting, entries_max, .. } = self.limits;
        write!(f, "Aged({setting}: {} of {entries_max})", self.nodes.len())
    }
}

/// A value that is being changed; see [`Aged::get_mut`].
#[must_use]
pub struct ValueMut<'a, K: Clone + Eq + Hash, V: Evict> {
    table: &'a mut Aged<K, V>,
    slot: u32,
}

impl<K: Clone + Eq + Hash, V: Evict> Deref for ValueMut<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        let id = self.table.nodes.key_at(self.slot).expect("the guard keeps its entry");
        &self.table.nodes.get(id).expect("the guard keeps its entry").value
    }
}

impl<K: Clone + Eq + Hash, V: Evict> DerefMut for ValueMut<'_, K, V> {
    fn deref_mut(&mut self) -> &mut V {
        &mut self.table.nodes.at_mut(self.slot).expect("the guard keeps its entry").value
    }
}

impl<K: Clone + Eq + Hash, V: Evict> Drop for ValueMut<'_, K, V> {
    fn drop(&mut self) {
        let node = self.table.nodes.at_mut(self.slot).expect("the guard keeps its entry");
        if node.seat.is_parked() && node.value.may_go() {
            let tick = node.tick;
            self.table.sit(self.slot, tick);
        }
    }
}

impl<K: Clone + Eq + Hash, V: Evict> fmt::Debug for ValueMut<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueMut(slot {})", self.slot)
    }
}
