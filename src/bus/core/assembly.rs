//! Messages that come in pieces, put together in private memory: what has come survives relays.

use std::cell::Cell;
use std::rc::Rc;

use super::{Limits, kind};
use crate::shm::{MORE, RecordHeader};

/// Bytes of unfinished messages of one sender, on all of its channels.
pub(super) type Budget = Rc<Cell<usize>>;

/// An unfinished message of one stream.
#[derive(Debug)]
pub(super) struct Assembly {
    /// The kind that its first piece said, without [`MORE`].
    kind: Option<u16>,
    bytes: Vec<u8>,
    /// The rest of it is dropped.
    too_large: bool,
    /// All of it has come.
    complete: bool,
    sender: Budget,
    limits: Limits,
}

/// What a record was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A message, whole, with its kind and payload.
    Whole(u16, &'a [u8]),
    /// Some of one.
    Part,
    /// The last of one that was larger than its budget.
    TooLarge,
    /// Its sender has broken it off.
    Aborted,
}

impl Assembly {
    pub fn new(sender: Budget, limits: Limits) -> Assembly {
        Assembly {
            kind: None,
            bytes: Vec::new(),
            too_large: false,
            complete: false,
            sender,
            limits,
        }
    }

    /// Drops what has come.
    fn clear(&mut self) {
        self.sender.set(self.sender.get() - self.bytes.len());
        self.bytes = Vec::new();
        self.kind = None;
        self.too_large = false;
        self.complete = false;
    }

    /// Takes a record; [`Assembly::shown`] follows.
    pub fn take<'a>(&'a mut self, header: RecordHeader, payload: &'a [u8]) -> Piece<'a> {
        let more = header.kind & MORE != 0;
        let of = header.kind & !MORE;
        if of & 0xff == kind::ABORT {
            self.clear();
            return Piece::Aborted;
        }
        let Some(first) = self.kind else {
            if !more {
                return Piece::Whole(of, payload);
            }
            self.kind = Some(of);
            self.add(payload);
            return Piece::Part;
        };
        self.add(payload);
        if more {
            return Piece::Part;
        }
        if self.too_large {
            self.clear();
            return Piece::TooLarge;
        }
        self.complete = true;
        Piece::Whole(first, &self.bytes)
    }

    /// What [`Assembly::take`] gave was looked at.
    pub fn shown(&mut self) {
        if self.complete {
            self.clear();
        }
    }

    fn add(&mut self, payload: &[u8]) {
        let sender = self.sender.get() + payload.len();
        let whole = self.bytes.len() + payload.len();
        if whole > self.limits.message_bytes || sender > self.limits.sender_bytes {
            self.too_large = true;
            self.sender.set(self.sender.get() - self.bytes.len());
            self.bytes = Vec::new();
        }
        if !self.too_large {
            self.bytes.extend_from_slice(payload);
            self.sender.set(sender);
        }
    }
}

impl Drop for Assembly {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u16) -> RecordHeader {
        RecordHeader { len: 0, kind, channel: 0 }
    }

    fn assembly(message_bytes: usize, sender: &Budget) -> Assembly {
        Assembly::new(Rc::clone(sender), Limits { message_bytes, ..Limits::default() })
    }

    #[test]
    fn pieces_are_one_message_of_the_kind_of_the_first() {
        let sender = Budget::default();
        let mut assembly = assembly(100, &sender);
        assert_eq!(assembly.take(header(1), b"one"), Piece::Whole(1, b"one"));
        assembly.shown();
        assert_eq!(assembly.take(header(2 | kind::DEADLINE | MORE), b"a"), Piece::Part);
        assert_eq!(assembly.take(header(2 | MORE), b"b"), Piece::Part);
        assert_eq!(sender.get(), 2);
        assert_eq!(assembly.take(header(2), b"c"), Piece::Whole(2 | kind::DEADLINE, b"abc"));
        assembly.shown();
        assert_eq!((sender.get(), assembly.take(header(1), b"")), (0, Piece::Whole(1, b"")));
    }

    #[test]
    fn a_message_over_its_budget_is_dropped_whole_and_the_next_one_is_shown() {
        let sender = Budget::default();
        let mut assembly = assembly(3, &sender);
        for _ in 0..3 {
            assert_eq!(assembly.take(header(1 | MORE), b"ab"), Piece::Part);
            assert!(sender.get() <= 3);
        }
        assert_eq!(assembly.take(header(1), b"z"), Piece::TooLarge);
        assert_eq!(assembly.take(header(1), b"next"), Piece::Whole(1, b"next"));
    }

    #[test]
    fn what_was_broken_off_is_forgotten_and_no_budget_with_it() {
        let sender = Budget::default();
        let mut assembly = assembly(100, &sender);
        assembly.take(header(1 | MORE), b"half");
        assert_eq!(assembly.take(header(kind::ABORT), b""), Piece::Aborted);
        assert_eq!(assembly.take(header(1), b"next"), Piece::Whole(1, b"next"));
        assembly.shown();
        assembly.take(header(1 | MORE), b"half");
        drop(assembly);
        assert_eq!(sender.get(), 0);
    }
}
