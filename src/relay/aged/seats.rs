//! The wheel itself: one list of slots per tick, linked through [`Seat`]s that the entries hold.
//!
//! Invariant: an entry that sits is in the list of `max(its seat's tick, base)`. No list outside
//! `base..=present` holds anyone, so no two ticks share one.

pub(super) const NONE: u32 = u32::MAX;

/// Where an entry sits, and its neighbours there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    /// [`NONE`] in the car park.
    tick: u32,
    prev: u32,
    next: u32,
}

/// Who holds the seats.
pub(super) trait Seated {
    /// The seat of the entry in a slot.
    fn seat(&mut self, slot: u32) -> &mut Seat;
}

impl Seat {
    pub const fn parked() -> Seat {
        Seat { tick: NONE, prev: NONE, next: NONE }
    }

    pub fn is_parked(self) -> bool {
        self.tick == NONE
    }
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

const EMPTY: List = List { head: NONE, tail: NONE };

pub(super) struct Seats {
    lists: Box<[List]>,
    /// A bit per list: somebody is there.
    occupied: Box<[u64]>,
    present: u32,
    /// No list before this tick holds anyone.
    first: u32,
    taken: usize,
}

impl Seats {
    /// `span` lists, a power of two.
    pub fn new(span: u32) -> Seats {
        assert!(span.is_power_of_two(), "a tick finds its list by a mask");
        let words = (span as usize).div_ceil(64);
        Seats {
            lists: vec![EMPTY; span as usize].into_boxed_slice(),
            occupied: vec![0; words].into_boxed_slice(),
            present: 0,
            first: 0,
            taken: 0,
        }
    }

    /// How many sit.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// The oldest tick that can be told apart.
    fn base(&self) -> u32 {
        self.present.saturating_sub(self.lists.len() as u32 - 1)
    }

    fn at(&self, tick: u32) -> usize {
        tick as usize & (self.lists.len() - 1)
    }

    /// The tick of the first list that holds anyone.
    pub fn first(&self) -> Option<u32> {
        let mut tick = self.first.max(self.base());
        while self.taken > 0 && tick <= self.present {
            let at = self.at(tick);
            // Bits above the mask of a small wheel are never set.
            let ahead = self.occupied[at / 64] >> (at % 64);
            if ahead != 0 {
                return Some(tick + ahead.trailing_zeros());
            }
            tick += (64 - at as u32 % 64).min(self.lists.len() as u32 - at as u32);
        }
        None
    }

    /// The first slot in the list of a tick that [`Seats::first`] told.
    pub fn head(&self, tick: u32) -> u32 {
        self.lists[self.at(tick)].head
    }

    /// The present moves on, never back; lists that fall out of the wheel go before that of the
    /// oldest tick left.
    pub fn advance(&mut self, present: u32, nodes: &mut impl Seated) {
        if present <= self.present {
            return;
        }
        let (old_base, old_present) = (self.base(), self.present);
        self.present = present;
        let base = self.base();
        let mut fallen = EMPTY;
        if self.taken > 0 {
            for tick in old_base.max(self.first)..=old_present.min(base.saturating_sub(1)) {
                if tick < base {
                    let list = self.empty(tick);
                    fallen = join(fallen, list, nodes);
                }
            }
        }
        self.first = if self.taken > 0 { self.first.max(base) } else { present };
        if fallen.head != NONE {
            let list = self.empty(base);
            self.fill(base, join(fallen, list, nodes));
        }
    }

    /// Appends a slot to the list of a tick, or of the tick nearest to it that has one.
    pub fn sit(&mut self, slot: u32, tick: u32, nodes: &mut impl Seated) {
        let tick = tick.clamp(self.base(), self.present);
        debug_assert!(nodes.seat(slot).is_parked(), "it sits in one place");
        *nodes.seat(slot) = Seat { tick, ..Seat::parked() };
        let list = self.empty(tick);
        self.fill(tick, join(list, List { head: slot, tail: slot }, nodes));
        self.first = if self.taken == 0 { tick } else { self.first.min(tick) };
        self.taken += 1;
    }

    /// Takes a slot out of its list; nothing if it is parked.
    pub fn rise(&mut self, slot: u32, nodes: &mut impl Seated) {
        let Seat { tick, prev, next } = *nodes.seat(slot);
        if tick == NONE {
            return;
        }
        *nodes.seat(slot) = Seat::parked();
        let tick = tick.max(self.base());
        let mut list = self.empty(tick);
        match prev {
            NONE => list.head = next,
            _ => nodes.seat(prev).next = next,
        }
        match next {
            NONE => list.tail = prev,
            _ => nodes.seat(next).prev = prev,
        }
        self.fill(tick, list);
        self.taken -= 1;
    }

    fn empty(&mut self, tick: u32) -> List {
        let at = self.at(tick);
        self.occupied[at / 64] &= !(1 << (at % 64));
        std::mem::replace(&mut self.lists[at], EMPTY)
    }

    fn fill(&mut self, tick: u32, list: List) {
        let at = self.at(tick);
        if list.head != NONE {
            self.occupied[at / 64] |= 1 << (at % 64);
        }
        self.lists[at] = list;
    }
}

/// One list behind the other.
fn join(front: List, back: List, nodes: &mut impl Seated) -> List {
    if front.head == NONE || back.head == NONE {
        return if front.head == NONE { back } else { front };
    }
    nodes.seat(front.tail).next = back.head;
    nodes.seat(back.head).prev = front.tail;
    List { head: front.head, tail: back.tail }
}
