//! What single verbs promise. The oracles are in the two modules below.

mod lines;
mod oracle;

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, Write};
use std::rc::Rc;

use super::*;
use crate::fd::{Fd, FdKind};
use crate::segment::{Home, Lent, Loan};

struct Lending(Vec<u8>);

impl Lent for Lending {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn give_back(self: Box<Self>) {}
}

/// Kinds of memory that [`segment`] makes.
const KINDS: usize = 6;

/// A segment of each kind, with room around the bytes where the kind has room.
fn segment(kind: usize, bytes: &[u8], home: &Rc<Home>) -> Segment {
    let around = |mem: &mut [u8]| {
        mem[..2].fill(b'#');
        mem[2..2 + bytes.len()].copy_from_slice(bytes);
    };
    let mut made = match kind {
        0 => return Segment::copied(bytes),
        1 => return Segment::from_shared(Rc::new(bytes.to_vec())),
        2 => return Segment::from_loan(Loan::new(Box::new(Lending(bytes.to_vec())))),
        3 => {
            let mut mem = vec![b'?'; bytes.len() + 7].into_boxed_slice();
            around(&mut mem);
            Segment::from_own(mem, bytes.len() + 2)
        }
        4 => {
            let mut block = home.take();
            around(block.bytes_mut());
            Segment::from_block(block, bytes.len() + 2)
        }
        _ => {
            let mut whole = segment(3, bytes, home);
            return whole.share_clone();
        }
    };
    made.advance(2);
    made
}

fn file() -> Fd {
    Fd::from_other(9, FdKind::File, Box::new(()))
}

fn shared_text(buffer: &mut Evbuffer, bytes: &'static [u8]) {
    buffer.push(Segment::from_shared(Rc::new(bytes)));
}

#[test]
fn a_file_range_counts_moves_and_drains_but_is_not_looked_into() {
    let mut buffer = Evbuffer::from(&b"ab\n"[..]);
    buffer.add_file(file(), 10, 5 << 30);
    buffer.add(b"tail\n");
    assert_eq!(buffer.len() as u64, 3 + (5 << 30) + 5);
    assert!(buffer.has_file() && buffer != b"ab\n");
    assert_eq!(buffer.segments().filter(|s| s.file().is_some()).count(), 5);
    assert_eq!(buffer.to_vec(), b"ab\n");
    assert_eq!((buffer.search(b"tail"), buffer.search(b"\n")), (None, Some(2)));
    assert_eq!(buffer.pullup(usize::MAX), b"ab\n");
    assert_eq!(buffer.peek(99).count(), 1);
    assert_eq!(buffer.readln(Eol::Lf).as_deref(), Some(&b"ab"[..]));
    assert_eq!(buffer.readln(Eol::Lf), None);
    assert!(buffer.pullup(1).is_empty());
    assert_eq!(buffer.remove(&mut [0; 4]), 0);
    let refused = io::Read::read(&mut buffer, &mut [0; 4]).expect_err("a file range is not read");
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);

    let mut head = Evbuffer::new();
    assert_eq!(head.append_n(&mut buffer, 1 << 20), 1 << 20);
    assert_eq!(head.front().and_then(Segment::file).map(|f| (f.1, f.2)), Some((10, 1 << 20)));
    let (_, offset, _) = buffer.front().and_then(Segment::file).expect("the rest of the range");
    assert_eq!(offset, 10 + (1 << 20));
    assert_eq!(buffer.drain((5 << 30) - (1 << 20)), (5 << 30) - (1 << 20));
    assert_eq!(buffer, b"tail\n");
}

#[test]
fn a_file_range_past_the_end_of_any_file_is_refused() {
    let mut buffer = Evbuffer::new();
    assert!(!buffer.add_file(file(), u64::MAX, 2));
    assert!(!buffer.add_file(file(), i64::MAX as u64, 1));
    assert!(buffer.add_file(file(), 7, 0), "an empty range is no error");
    assert!(buffer.is_empty() && buffer.front().is_none());
}

#[test]
fn the_users_memory_is_not_dropped_inside_drain_into() {
    let memory = Rc::new("users");
    let mut buffer = Evbuffer::new();
    buffer.add(b"ours");
    buffer.push(Segment::from_shared(Rc::clone(&memory) as Rc<dyn AsRef<[u8]>>));
    buffer.add(b"ours");
    let mut dead = Vec::new();
    assert_eq!(buffer.drain_into(6, &mut dead), 6);
    assert!(dead.is_empty(), "part of it is still in the buffer");
    assert_eq!(buffer.drain_into(usize::MAX, &mut dead), 7);
    assert_eq!((dead.len(), Rc::strong_count(&memory)), (1, 2));
    dead.clear();
    assert_eq!(Rc::strong_count(&memory), 1);
}

#[test]
fn a_few_bytes_left_over_send_their_blocks_home() {
    let home = Home::new(4096, 4);
    let mut buffer = Evbuffer::new();
    for kind in [4, 1, 4] {
        buffer.push(segment(kind, b"abc", &home));
    }
    buffer.charge_residue();
    assert_eq!((home.out(), buffer.to_vec()), (0, b"abcabcabc".to_vec()));
    buffer.push(Segment::from_block(home.take(), crate::limits::RESIDUE_BYTES_MAX));
    buffer.charge_residue();
    assert_eq!(home.out(), 1, "many bytes keep theirs");
}

#[test]
fn a_steady_flow_takes_no_memory_that_it_does_not_give_back() {
    let home = Home::new(4096, 64);
    let (mut from, mut to) = (Evbuffer::new(), Evbuffer::new());
    let mut turn = || {
        from.add_in(&home, &[7; 6000]);
        to.append(&mut from);
        to.add_in(&home, b"end");
        from.append(&mut to);
        from.drain(usize::MAX);
        (home.made(), from.chain.capacity() + to.chain.capacity())
    };
    turn();
    let warm = turn();
    for _ in 0..100 {
        assert_eq!(turn(), warm);
    }
    assert_eq!(home.out(), 0);
}

#[test]
fn an_append_to_an_empty_buffer_leaves_both_with_the_room_they_have() {
    let (mut a, mut b) = (Evbuffer::new(), Evbuffer::new());
    for buffer in [&mut a, &mut b] {
        (0..20).for_each(|_| shared_text(buffer, b"x"));
    }
    a.drain(20);
    let before = (a.chain.capacity(), b.chain.capacity());
    a.append(&mut b);
    assert_eq!((a.len(), b.len()), (20, 0));
    assert_eq!((b.chain.capacity(), a.chain.capacity()), before);
    b.trim();
    assert_eq!(b.chain.capacity(), 0);
}

#[test]
fn multicast_shares_the_memory_and_outlives_the_source() {
    let mut news = Evbuffer::from(&b"news"[..]);
    news.add_file(file(), 0, 10);
    let (mut a, mut b) = (Evbuffer::new(), Evbuffer::new());
    assert!(a.add_buffer_reference(&mut news) && b.add_buffer_reference(&mut news));
    assert_eq!(a.front().map(Segment::raw), b.front().map(Segment::raw));
    assert_eq!((a.len(), news.len()), (14, 14));
    news.add(b"more");
    drop(news);
    a.prepend(b"> ");
    assert_eq!((a.to_vec(), b.to_vec()), (b"> news".to_vec(), b"news".to_vec()));
}

#[test]
fn a_reservation_ends_with_the_next_change() {
    let mut buffer = Evbuffer::new();
    buffer.add(b"ab");
    for room in [10, 100_000] {
        assert!(buffer.reserve(room).len() >= room);
        buffer.add(b"c");
        assert!(!buffer.commit(1), "somebody else wrote there");
        buffer.reserve(room)[..2].copy_from_slice(b"de");
        assert!(buffer.commit(2) && !buffer.commit(2), "it is claimed once");
        let lent = buffer.reserve(room).len();
        assert!(!buffer.commit(lent + 1));
    }
    assert_eq!(buffer, b"abcdecde");
    buffer.reserve(4);
    let mut other = Evbuffer::new();
    other.add_buffer_reference(&mut buffer);
    assert!(!buffer.commit(1), "the memory is shared now");
    let mut buffer = Evbuffer::new();
    for room in [99, 9] {
        buffer.push(Segment::from_own(vec![0; 1 + room].into_boxed_slice(), 1));
    }
    buffer.reserve(4);
    buffer.pullup(usize::MAX);
    assert!(!buffer.commit(1), "the room went with its segment");
}

#[test]
fn a_large_copy_is_one_segment_and_a_small_one_leaves_room_for_more() {
    let mut buffer = Evbuffer::new();
    buffer.add(&[1; 300_000]);
    assert_eq!(buffer.segments().len(), 1);
    let mut small = Evbuffer::new();
    (0..1000).for_each(|_| assert!(small.add(b"twelve bytes")));
    assert!(small.segments().len() <= 8, "{small:?}");
}

type Verb = (&'static str, fn(&mut Evbuffer) -> bool);

#[test]
fn a_frozen_end_refuses_every_verb_that_changes_it_and_no_other() {
    fn other() -> Evbuffer {
        Evbuffer::from(&b"other"[..])
    }
    let at_end: [Verb; 12] = [
        ("add", |b| b.add(b"x")),
        ("add_in", |b| b.add_in(&Home::new(64, 1), b"x")),
        ("append", |b| b.append(&mut other())),
        ("append_n", |b| b.append_n(&mut other(), 2) == 2),
        ("add_reference", |b| b.add_reference("x")),
        ("add_shared", |b| b.add_shared(bytes::Bytes::from_static(b"x"))),
        ("add_file", |b| b.add_file(file(), 0, 1)),
        ("add_buffer_reference", |b| b.add_buffer_reference(&mut other())),
        ("reserve", |b| !b.reserve(1).is_empty()),
        ("commit", |b| {
            let thawed = !b.is_frozen(Edge::End);
            b.unfreeze(Edge::End);
            b.reserve(1);
            if !thawed {
                b.freeze(Edge::End);
            }
            b.commit(1)
        }),
        ("io::Write", |b| Write::write(b, b"x").is_ok()),
        ("fmt::Write", |b| std::fmt::Write::write_str(b, "x").is_ok()),
    ];
    let at_start: [Verb; 10] = [
        ("prepend", |b| b.prepend(b"x")),
        ("prepend_buffer", |b| b.prepend_buffer(&mut other())),
        ("drain", |b| b.drain(1) == 1),
        ("remove", |b| b.remove(&mut [0]) == 1),
        ("take", |b| !b.take().is_empty()),
        ("readln", |b| b.readln(Eol::Lf).is_some()),
        ("append from", |b| Evbuffer::new().append(b)),
        ("append_n from", |b| Evbuffer::new().append_n(b, 1) == 1),
        ("io::Read", |b| io::Read::read(b, &mut [0]).is_ok()),
        ("io::BufRead", |b| b.fill_buf().is_ok()),
    ];
    let both = [(Edge::End, &at_end[..]), (Edge::Start, &at_start[..])];
    for (edge, verbs) in both {
        for (name, verb) in verbs {
            for frozen in [Edge::Start, Edge::End] {
                let mut buffer = Evbuffer::from(&b"line\n"[..]);
                buffer.freeze(frozen);
                assert_eq!(verb(&mut buffer), frozen != edge, "{name} with {frozen:?} frozen");
                assert!(frozen != edge || buffer == b"line\n", "{name} changed a frozen end");
                buffer.unfreeze(frozen);
                assert!(frozen != edge || verb(&mut buffer), "{name} after unfreeze");
            }
        }
    }
}

#[test]
fn callbacks_hear_each_verb_once_and_the_machines_verbs_with_the_next() {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&heard);
    let mut buffer = Evbuffer::from(&b"abc"[..]);
    let id = buffer.on_change(move |c| log.borrow_mut().push((c.before, c.added, c.removed)));
    buffer.add(b"de");
    buffer.remove(&mut [0; 4]);
    buffer.pullup(1);
    buffer.drain(0);
    buffer.push(Segment::copied(b"xyz"));
    buffer.drain(1);
    buffer.append_n(&mut Evbuffer::from(&b"12345"[..]), 2);
    assert_eq!(heard.take(), [(3, 2, 0), (5, 0, 4), (1, 3, 1), (3, 2, 0)]);
    assert!(buffer.forget_change(id) && !buffer.forget_change(id));
    buffer.add(b"unheard");
    assert!(heard.take().is_empty());
}

#[test]
fn a_callback_added_while_the_others_are_out_comes_behind_them() {
    let order = Rc::new(Cell::new(0));
    let mut buffer = Evbuffer::new();
    for (digit, deferred) in [(1, true), (2, false)] {
        let order = Rc::clone(&order);
        buffer.defer_changes(true);
        let pending = deferred.then(|| buffer.take_pending());
        buffer.on_change(move |_| order.set(order.get() * 10 + digit));
        assert!(pending.flatten().is_none(), "nothing has changed yet");
    }
    buffer.add(b"x");
    let mut pending = buffer.take_pending().expect("a byte was added");
    let late = Rc::clone(&order);
    buffer.on_change(move |_| late.set(late.get() * 10 + 3));
    pending.run();
    buffer.put_back(pending);
    assert_eq!(order.get(), 12);
    buffer.defer_changes(false);
    buffer.add(b"y");
    assert_eq!(order.get(), 12_123);
}

#[test]
fn the_traits_of_std_read_and_write_the_same_bytes() {
    let mut buffer = Evbuffer::new();
    buffer.write_all(b"one\ntwo").expect("not frozen");
    buffer.push(Segment::copied(b"2\nthree"));
    let lines: Vec<String> = (&mut buffer).lines().map_while(Result::ok).collect();
    assert_eq!(lines, ["one", "two2", "three"]);
    assert!(io::Read::read(&mut buffer, &mut [0; 1]).is_ok_and(|n| n == 0));
}

#[test]
fn bytes_for_another_thread_are_the_same_whatever_they_lay_in() {
    let home = Home::new(64, 4);
    for first in 0..KINDS {
        let mut one = Evbuffer::new();
        one.push(segment(first, b"ab", &home));
        assert_eq!(&one.into_bytes()[..], b"ab");
        let mut two = Evbuffer::new();
        two.push(segment(first, b"ab", &home));
        two.push(segment(3, b"cd", &home));
        assert_eq!(&two.into_bytes()[..], b"abcd");
    }
    assert!(Evbuffer::new().into_bytes().is_empty());
}
