//! Requests that wait for their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::Millis;

/// A number comes again after so many calls of one process, and after so many microseconds between
/// two instances of it.
const PER_MICROSECOND: u64 = 1 << 12;

#[derive(Debug)]
pub(super) struct Calls {
    next: u64,
    open: BTreeMap<u64, (Millis, Rc<str>, u16)>,
    deadlines: BTreeSet<(Millis, u64)>,
}

impl Calls {
    /// Numbers differ from those of an earlier instance, whose answers may still come.
    pub fn new(epoch: u64) -> Calls {
        let next = epoch.wrapping_mul(PER_MICROSECOND);
        Calls { next, open: BTreeMap::new(), deadlines: BTreeSet::new() }
    }

    pub fn next_number(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    pub fn add(&mut self, call: u64, until: Millis, to: Rc<str>, chan: u16) {
        self.open.insert(call, (until, to, chan));
        self.deadlines.insert((until, call));
    }

    /// An answer has come. Whether somebody waited for it.
    pub fn answered(&mut self, call: u64) -> bool {
        let Some((until, ..)) = self.open.remove(&call) else { return false };
        self.deadlines.remove(&(until, call));
        true
    }

    pub fn deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Takes those whose time is over.
    pub fn due(&mut self, now: Millis) -> Vec<u64> {
        let mut due = Vec::new();
        while let Some((until, call)) = self.deadlines.first().copied()
            && until <= now
        {
            self.deadlines.pop_first();
            self.open.remove(&call);
            due.push(call);
        }
        due
    }

    /// Takes those that a peer will not answer any more.
    pub fn of(&mut self, peer: &str, chan: u16) -> Vec<u64> {
        let to_it = |(_, to, on): &(Millis, Rc<str>, u16)| **to == *peer && *on == chan;
        let open = self.open.iter().filter(|(_, call)| to_it(call));
        let calls: Vec<u64> = open.map(|(call, _)| *call).collect();
        for call in &calls {
            self.answered(*call);
        }
        calls
    }

    /// Takes all.
    pub fn all(&mut self) -> Vec<u64> {
        self.deadlines.clear();
        std::mem::take(&mut self.open).into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_ends_once_by_its_answer_or_by_its_deadline() {
        let mut calls = Calls::new(7);
        let (a, b) = (calls.next_number(), calls.next_number());
        calls.add(a, 100, "db".into(), 0);
        calls.add(b, 50, "db".into(), 0);
        assert_eq!(calls.deadline(), Some(50));
        assert_eq!((calls.due(49), calls.due(50)), (vec![], vec![b]));
        assert!(!calls.answered(b) && calls.answered(a) && !calls.answered(a));
        assert_eq!(calls.deadline(), None);
    }

    #[test]
    fn calls_to_a_peer_that_is_gone_end_and_others_go_on() {
        let mut calls = Calls::new(7);
        let (a, b) = (calls.next_number(), calls.next_number());
        calls.add(a, 100, "db".into(), 0);
        calls.add(b, 100, "audit".into(), 0);
        assert_eq!(calls.of("db", 0), [a]);
        assert_eq!(calls.all(), [b]);
    }
}
