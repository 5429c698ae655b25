//! A table of things under generation-checked keys.
//!
//! Invariant: an entry's generation changes whenever the thing in it leaves, so a key finds the
//! very thing it was made for or nothing at all.
//!
//! ```text
//!   Key { slot, generation }          entries: [ 3: T | 8: free -> 4 | 1: T | ... ]
//!          |        '---- must equal ------------'
//!          '------------- index
//! ```

use std::fmt;

const NONE: u32 = u32::MAX;

/// Names one thing in a [`Slab`]. 8 bytes, never reused while the generation has not wrapped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A growing table without a heap allocation per entry.
///
/// ```
/// use ringlane_api::slab::Slab;
/// let mut slab = Slab::new();
/// let key = slab.insert("one");
/// assert_eq!(slab.get(key), Some(&"one"));
/// assert_eq!(slab.remove(key), Some("one"));
/// assert_eq!(slab.get(key), None);
/// ```
pub struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: u32,
    len: u32,
}

struct Entry<T> {
    generation: u32,
    state: State<T>,
}

enum State<T> {
    Taken(T),
    Free { next: u32 },
}

impl Key {
    /// The key of `slot` in its generation `generation`.
    pub const fn new(slot: u32, generation: u32) -> Key {
        Key { slot, generation }
    }

    /// The index.
    #[inline]
    pub const fn slot(self) -> u32 {
        self.slot
    }

    /// The generation; never 0.
    #[inline]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// The low half of the generation, for tokens that have no more room.
    #[inline]
    pub const fn generation16(self) -> u16 {
        self.generation as u16
    }

    /// Both halves in one word.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The key that [`Key::to_bits`] was called on.
    #[inline]
    pub const fn from_bits(bits: u64) -> Key {
        Key { slot: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

impl<T> Slab<T> {
    /// An empty table; allocates nothing.
    pub const fn new() -> Slab<T> {
        Slab { entries: Vec::new(), free: NONE, len: 0 }
    }

    /// An empty table with room for `n` things.
    pub fn with_capacity(n: usize) -> Slab<T> {
        Slab { entries: Vec::with_capacity(n), free: NONE, len: 0 }
    }

    /// How many things are in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing is in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key that the next [`Slab::insert`] will return.
    pub fn next_key(&self) -> Key {
        match self.entries.get(self.free as usize) {
            Some(entry) => Key { slot: self.free, generation: entry.generation },
            None => Key { slot: self.entries.len() as u32, generation: 1 },
        }
    }

    /// Puts a thing in.
    ///
    /// # Panics
    /// Panics past `u32::MAX - 1` things.
    pub fn insert(&mut self, thing: T) -> Key {
        let key = self.next_key();
        match self.entries.get_mut(key.slot as usize) {
            Some(entry) => {
                let was = std::mem::replace(&mut entry.state, State::Taken(thing));
                let State::Free { next } = was else { unreachable!("a free entry is free") };
                self.free = next;
            }
            None => {
                assert!(key.slot < NONE, "a slab has under 2^32 - 1 entries");
                self.entries.push(Entry { generation: 1, state: State::Taken(thing) });
            }
        }
        self.len += 1;
        key
    }

    /// The thing, if it is still there.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.entries.get(key.slot as usize) {
            Some(Entry { generation, state: State::Taken(thing) })
                if *generation == key.generation =>
            {
                Some(thing)
            }
            _ => None,
        }
    }

    /// The thing, to change it, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.slot as usize) {
            Some(Entry { generation, state: State::Taken(thing) })
                if *generation == key.generation =>
            {
                Some(thing)
            }
            _ => None,
        }
    }

    /// Whether the thing is still there.
    #[inline]
    pub fn contains(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// The whole key of what is in `slot` now, if the low half of its generation is `generation`.
    #[inline]
    pub fn find16(&self, slot: u32, generation: u16) -> Option<Key> {
        match self.entries.get(slot as usize) {
            Some(Entry { generation: whole, state: State::Taken(_) })
                if *whole as u16 == generation =>
            {
                Some(Key { slot, generation: *whole })
            }
            _ => None,
        }
    }

    /// The whole key of what is in `slot` now.
    #[inline]
    pub fn key_at(&self, slot: u32) -> Option<Key> {
        match self.entries.get(slot as usize) {
            Some(Entry { generation, state: State::Taken(_) }) => {
                Some(Key { slot, generation: *generation })
            }
            _ => None,
        }
    }

    /// What is in `slot` now, to change it.
    #[inline]
    pub fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        match self.entries.get_mut(slot as usize) {
            Some(Entry { state: State::Taken(thing), .. }) => Some(thing),
            _ => None,
        }
    }

    /// Takes the thing out; its key finds nothing from now on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        if entry.generation != key.generation || matches!(entry.state, State::Free { .. }) {
            return None;
        }
        let was = std::mem::replace(&mut entry.state, State::Free { next: self.free });
        entry.generation = entry.generation.checked_add(1).unwrap_or(1);
        self.free = key.slot;
        self.len -= 1;
        match was {
            State::Taken(thing) => Some(thing),
            State::Free { .. } => unreachable!("checked above"),
        }
    }

    /// All things with their keys, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().enumerate().filter_map(|(slot, entry)| match &entry.state {
            State::Taken(thing) => {
                Some((Key { slot: slot as u32, generation: entry.generation }, thing))
            }
            State::Free { .. } => None,
        })
    }

    /// All things with their keys, by slot, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.entries.iter_mut().enumerate().filter_map(|(slot, entry)| match &mut entry.state {
            State::Taken(thing) => {
                Some((Key { slot: slot as u32, generation: entry.generation }, thing))
            }
            State::Free { .. } => None,
        })
    }

    /// What is in a slot that the caller knows to be taken.
    #[inline]
    pub(crate) fn at(&self, slot: u32) -> &T {
        match &self.entries[slot as usize].state {
            State::Taken(thing) => thing,
            State::Free { .. } => unreachable!("slot {slot} is taken"),
        }
    }

    /// What is in a slot that the caller knows to be taken, to change it.
    #[inline]
    pub(crate) fn must_mut(&mut self, slot: u32) -> &mut T {
        match &mut self.entries[slot as usize].state {
            State::Taken(thing) => thing,
            State::Free { .. } => unreachable!("slot {slot} is taken"),
        }
    }

    /// Takes out what is in a slot that the caller knows to be taken.
    pub(crate) fn remove_at(&mut self, slot: u32) -> T {
        let generation = self.entries[slot as usize].generation;
        self.remove(Key { slot, generation }).expect("the slot is taken")
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_stale_key_finds_nothing_although_its_slot_is_in_use_again() {
        let mut slab = Slab::new();
        let old = slab.insert('a');
        assert_eq!(slab.remove(old), Some('a'));
        let new = slab.insert('b');
        assert_eq!(old.slot(), new.slot());
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.get_mut(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get(new), Some(&'b'));
        assert_eq!(slab.find16(new.slot(), new.generation16()), Some(new));
        assert_eq!(slab.find16(old.slot(), old.generation16()), None);
    }

    #[test]
    fn the_generation_skips_zero_when_it_wraps() {
        let mut slab = Slab::new();
        let key = slab.insert(0);
        slab.entries[0].generation = u32::MAX;
        slab.remove_at(key.slot());
        assert_eq!(slab.next_key().generation(), 1);
        assert_eq!(slab.find16(0, 1), None, "nothing is in the slot");
    }

    #[test]
    fn a_key_survives_its_way_through_one_word() {
        let key = Key::new(7, 0xdead_beef);
        assert_eq!(Key::from_bits(key.to_bits()), key);
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_under_unique_keys_holds(
            ops in prop::collection::vec((any::<bool>(), any::<u16>()), 0..300)
        ) {
            let mut slab = Slab::new();
            let mut model: HashMap<Key, u16> = HashMap::new();
            let mut keys: Vec<Key> = Vec::new();
            for (insert, value) in ops {
                if insert || keys.is_empty() {
                    let expected = slab.next_key();
                    let key = slab.insert(value);
                    prop_assert_eq!(key, expected);
                    prop_assert!(model.insert(key, value).is_none());
                    keys.push(key);
                } else {
                    let key = keys[value as usize % keys.len()];
                    prop_assert_eq!(slab.remove(key), model.remove(&key));
                }
                prop_assert_eq!(slab.len(), model.len());
            }
            for key in keys {
                prop_assert_eq!(slab.get(key), model.get(&key));
            }
            prop_assert_eq!(slab.iter().count(), model.len());
        }
    }
}
