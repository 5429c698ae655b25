//! A completion queue of the software device.
//!
//! Invariant: an event is made by a completion that comes while the queue is armed, and disarms
//! it. Completions that were there before make none; that is the race every user must close by
//! asking once more after arming.

use std::collections::VecDeque;

use super::super::verbs::WorkCompletion;

/// A completion, and how many sends of its pair are over with it: itself, and the unsignalled ones
/// before it.
pub(super) struct Entry {
    pub(super) completion: WorkCompletion,
    pub(super) retires: u32,
}

pub(super) struct Queue {
    entries: VecDeque<Entry>,
    capacity: usize,
    armed: bool,
    event: bool,
    overrun: bool,
}

impl Queue {
    pub(super) fn new(capacity: u32) -> Queue {
        Queue {
            entries: VecDeque::new(),
            capacity: capacity as usize,
            armed: false,
            event: false,
            overrun: false,
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        if self.entries.len() == self.capacity {
            self.overrun = true;
        }
        if self.overrun {
            return;
        }
        self.entries.push_back(entry);
        self.event |= std::mem::take(&mut self.armed);
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.entries.pop_front()
    }

    pub(super) fn arm(&mut self) {
        self.armed = true;
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    pub(super) fn take_event(&mut self) -> bool {
        std::mem::take(&mut self.event)
    }

    pub(super) fn overran(&self) -> bool {
        self.overrun
    }

    pub(super) fn holds(&self, pair: super::PairNumber) -> bool {
        self.entries.iter().any(|entry| entry.completion.pair == pair)
    }
}
