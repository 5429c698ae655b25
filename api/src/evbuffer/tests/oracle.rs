//! Random walks of two buffers beside two vectors.

use proptest::prelude::*;

use super::lines::{eol_oracle, search_oracle};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<u8>),
    AddIn(Vec<u8>),
    Prepend(Vec<u8>),
    Push { kind: usize, front: bool, bytes: Vec<u8> },
    PopFront,
    Append,
    AppendN(usize),
    PrependBuffer,
    Multicast,
    Drain(usize),
    DrainInto(usize),
    Remove(usize),
    Copyout(usize, usize),
    Peek(usize),
    Pullup(usize),
    Reserve { ask: usize, write: Vec<u8> },
    Readln(Eol),
    Search { what: Vec<u8>, from: usize, to: usize },
    Take,
    Residue,
    Trim,
    Swap,
}

/// Mostly a few bytes out of a small alphabet, sometimes enough to split without a copy.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(&b"ab\r\n\0"[..]);
    prop_oneof![
        8 => prop::collection::vec(byte, 0..40),
        1 => (1000usize..9000).prop_map(|n| (0..n).map(|i| i as u8).collect()),
    ]
}

fn count() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0usize..60, 1 => 0usize..10_000, 1 => Just(usize::MAX)]
}

fn step() -> impl Strategy<Value = Step> {
    let eol = prop::sample::select(vec![Eol::Any, Eol::Crlf, Eol::CrlfStrict, Eol::Lf, Eol::Nul]);
    let few = prop::collection::vec(prop::sample::select(&b"ab\r\n\0"[..]), 0..4);
    prop_oneof![
        3 => text().prop_map(Step::Add),
        2 => text().prop_map(Step::AddIn),
        2 => text().prop_map(Step::Prepend),
        6 => (0..KINDS, any::<bool>(), text())
            .prop_map(|(kind, front, bytes)| Step::Push { kind, front, bytes }),
        1 => Just(Step::PopFront),
        1 => Just(Step::Append),
        3 => count().prop_map(Step::AppendN),
        1 => Just(Step::PrependBuffer),
        1 => Just(Step::Multicast),
        2 => count().prop_map(Step::Drain),
        1 => count().prop_map(Step::DrainInto),
        1 => (0usize..5000).prop_map(Step::Remove),
        1 => (0usize..50, 0usize..5000).prop_map(|(from, n)| Step::Copyout(from, n)),
        1 => count().prop_map(Step::Peek),
        2 => count().prop_map(Step::Pullup),
        2 => (1usize..3000, text()).prop_map(|(ask, write)| Step::Reserve { ask, write }),
        2 => eol.prop_map(Step::Readln),
        2 => (few, 0usize..30, count())
            .prop_map(|(what, from, to)| Step::Search { what, from, to }),
        1 => Just(Step::Take),
        1 => Just(Step::Residue),
        1 => Just(Step::Trim),
        3 => Just(Step::Swap),
    ]
}

/// One buffer, what should be in it, and its length as its callbacks tell it.
struct Beside {
    buffer: Evbuffer,
    model: Vec<u8>,
    told: Rc<Cell<usize>>,
}

impl Beside {
    fn new() -> Beside {
        let told = Rc::new(Cell::new(0));
        let tell = Rc::clone(&told);
        let mut buffer = Evbuffer::new();
        buffer.on_change(move |change| {
            assert_eq!(tell.get(), change.before, "no change is told twice or not at all");
            tell.set(change.before + change.added - change.removed);
        });
        Beside { buffer, model: Vec::new(), told }
    }

    fn check(&mut self) {
        let lens = self.buffer.segments().map(Segment::len);
        assert!(lens.clone().all(|len| len > 0), "no segment is empty");
        assert_eq!(lens.sum::<usize>(), self.buffer.len());
        assert!(self.buffer == self.model, "{:?} is not {:?}", self.buffer, self.model);
        self.buffer.drain(0);
        assert_eq!(self.told.get(), self.model.len());
    }

    fn drained(&mut self, n: usize) -> Vec<u8> {
        let n = n.min(self.model.len());
        self.model.drain(..n).collect()
    }
}

/// The steps that bring bytes in.
fn bring(a: &mut Beside, b: &mut Beside, home: &Rc<Home>, step: Step) {
    match step {
        Step::Add(bytes) => {
            assert!(a.buffer.add(&bytes));
            a.model.extend(bytes);
        }
        Step::AddIn(bytes) => {
            assert!(a.buffer.add_in(home, &bytes));
            a.model.extend(bytes);
        }
        Step::Prepend(bytes) => {
            assert!(a.buffer.prepend(&bytes));
            a.model.splice(..0, bytes);
        }
        Step::Push { kind, front, bytes } => {
            let made = segment(kind, &bytes, home);
            if front {
                a.buffer.push_front(made);
                a.model.splice(..0, bytes);
            } else {
                a.buffer.push(made);
                a.model.extend(bytes);
            }
        }
        Step::Append => {
            assert!(a.buffer.append(&mut b.buffer));
            a.model.append(&mut b.model);
        }
        Step::AppendN(n) => {
            let moved = b.drained(n);
            assert_eq!(a.buffer.append_n(&mut b.buffer, n), moved.len());
            a.model.extend(moved);
        }
        Step::PrependBuffer => {
            assert!(a.buffer.prepend_buffer(&mut b.buffer));
            a.model.splice(..0, b.model.drain(..));
        }
        Step::Multicast if a.model.len() + b.model.len() < 100_000 => {
            assert!(a.buffer.add_buffer_reference(&mut b.buffer));
            a.model.extend_from_slice(&b.model);
        }
        Step::Reserve { ask, write } => {
            let room = a.buffer.reserve(ask);
            assert!(room.len() >= ask);
            let n = write.len().min(room.len());
            room[..n].copy_from_slice(&write[..n]);
            assert!(a.buffer.commit(n));
            a.model.extend_from_slice(&write[..n]);
        }
        step => take(a, step),
    }
}

/// The steps that look and take.
fn take(a: &mut Beside, step: Step) {
    match step {
        Step::PopFront => {
            let popped = a.buffer.pop_front();
            let bytes = popped.as_ref().map_or(&[][..], Segment::bytes).to_vec();
            assert_eq!(bytes, a.drained(bytes.len()));
        }
        Step::Drain(n) => assert_eq!(a.buffer.drain(n), a.drained(n).len()),
        Step::DrainInto(n) => {
            let mut dead = Vec::new();
            assert_eq!(a.buffer.drain_into(n, &mut dead), a.drained(n).len());
            assert!(dead.iter().all(Segment::foreign));
        }
        Step::Remove(n) => {
            let mut to = vec![0; n];
            let got = a.buffer.remove(&mut to);
            assert_eq!(to[..got], a.drained(n));
        }
        Step::Copyout(from, n) => {
            let mut to = vec![0; n];
            let got = a.buffer.copyout_from(from, &mut to);
            let seen = a.model.get(from..).unwrap_or(&[]);
            assert_eq!(to[..got], seen[..n.min(seen.len())]);
        }
        Step::Peek(n) => {
            let seen: Vec<u8> = a.buffer.peek(n).flatten().copied().collect();
            assert_eq!(seen, a.model[..n.min(a.model.len())]);
        }
        Step::Pullup(n) => assert_eq!(a.buffer.pullup(n), &a.model[..n.min(a.model.len())]),
        Step::Readln(eol) => {
            let line = eol_oracle(&a.model, 0, eol).map(|(at, ends)| {
                let line = a.drained(at);
                a.drained(ends);
                line
            });
            assert_eq!(a.buffer.readln(eol), line);
        }
        Step::Search { what, from, to } => {
            let expected = search_oracle(&a.model, &what, from, to);
            assert_eq!(a.buffer.search_range(&what, from, to), expected);
        }
        Step::Take => {
            let all = a.buffer.take();
            assert_eq!(all, a.drained(usize::MAX));
        }
        Step::Residue => a.buffer.charge_residue(),
        Step::Trim => a.buffer.trim(),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_is_done_to_it_it_holds_what_a_vector_would(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let home = Home::new(9100, 8);
        let (mut a, mut b) = (Beside::new(), Beside::new());
        for step in steps {
            match step {
                Step::Swap => std::mem::swap(&mut a, &mut b),
                step => bring(&mut a, &mut b, &home, step),
            }
            a.check();
            b.check();
        }
        drop((a, b));
        prop_assert_eq!(home.out(), 0, "every block came home");
    }
}
