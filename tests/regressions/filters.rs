//! Bugs of filters.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use ringlane::Filter;
use ringlane::prelude::*;

use super::{epoll, idle, simulated, until, world};

/// Passes bytes on.
struct Plain;

impl Filter for Plain {
    fn input(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, _end: bool) -> io::Result<()> {
        to.append(from);
        Ok(())
    }
    fn output(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, _end: bool) -> io::Result<()> {
        to.append(from);
        Ok(())
    }
}

#[test]
fn bytes_that_came_while_reading_through_a_filter_was_off_are_told_when_it_is_on_again() {
    let base = epoll();
    let (a, b) = base.pair().expect("a pair");
    let top = base.filter(b, Plain);
    let got = Rc::new(Cell::new(0));
    let count = Rc::clone(&got);
    top.on_read(move |top| count.set(count.get() + top.input().take().len()));
    top.enable(READ);
    idle(&base, 5);
    top.disable(READ);
    a.output().add(b"held");
    idle(&base, 20);
    assert_eq!(got.get(), 0);
    top.enable(READ);
    until(&base, "what was held", || got.get() == 4);
    a.output().add(b"more");
    until(&base, "what came later", || got.get() == 8);
}

#[test]
fn the_write_callback_over_a_filter_comes_for_what_was_written_only() {
    let base = epoll();
    let (a, b) = base.pair().expect("a pair");
    let top = base.filter(b, Plain);
    let (got, written) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (count, writes) = (Rc::clone(&got), Rc::clone(&written));
    top.on_read(move |top| count.set(count.get() + top.input().take().len()));
    top.on_write(move |_| writes.set(writes.get() + 1));
    top.enable(READ);
    a.output().add(b"question");
    until(&base, "the question", || got.get() == 8);
    idle(&base, 5);
    assert_eq!(written.get(), 0);
    top.output().add(b"answer");
    until(&base, "the answer is sent", || written.get() == 1);
}

#[test]
fn a_read_limit_over_a_filter_sees_what_is_received() {
    let world = world();
    let base = simulated(&world);
    let (a, b) = base.pair().expect("a pair");
    let top = base.filter(b, Plain);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let note = Rc::clone(&seen);
    top.on_read(|top| drop(top.input().take()));
    top.on_event(move |_, event| note.borrow_mut().push(event.to_string()));
    top.set_timeouts(Some(Duration::from_millis(50)), None);
    top.enable(READ);
    let beat = base.every(Duration::from_millis(20), move |_| a.output().add(b"x"));
    base.stop_after(Duration::from_secs(1));
    base.dispatch().expect("it runs");
    assert!(seen.borrow().is_empty(), "{:?}", seen.borrow());
    beat.free();
}

#[test]
fn a_peer_that_never_reads_stops_a_filtered_echo() {
    let base = epoll();
    let (a, b) = base.pair().expect("a pair");
    let top = base.filter(b.clone(), Plain);
    top.on_read(|top| top.output().append(top.input()));
    top.enable(READ);
    for _ in 0..2000 {
        a.output().add(&[7; 16 * 1024]);
        idle(&base, 2);
    }
    assert!(b.output().len() < 2 << 20, "{} bytes wait", b.output().len());
}

/// Panics at the first bytes, then passes them on.
struct Fragile(Rc<Cell<bool>>);

impl Filter for Fragile {
    fn input(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, _end: bool) -> io::Result<()> {
        assert!(from.is_empty() || self.0.replace(true), "on purpose");
        to.append(from);
        Ok(())
    }
    fn output(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, _end: bool) -> io::Result<()> {
        to.append(from);
        Ok(())
    }
}

#[test]
fn a_panic_in_a_filter_loses_neither_the_filter_nor_the_bytes() {
    let base = epoll();
    let (a, b) = base.pair().expect("a pair");
    let broke = Rc::new(Cell::new(false));
    let top = base.filter(b, Fragile(Rc::clone(&broke)));
    top.enable(READ);
    a.output().add(b"first ");
    let turns = AssertUnwindSafe(|| until(&base, "the panic", || broke.get()));
    assert!(catch_unwind(turns).is_err());
    a.output().add(b"second");
    until(&base, "all bytes", || top.input().len() == 12);
    assert_eq!(top.input().take(), b"first second");
}

#[test]
fn a_filter_is_told_when_what_it_stands_on_is_freed() {
    let world = world();
    let base = simulated(&world);
    let (a, b) = base.pair().expect("a pair");
    let top = base.filter(b.clone(), Plain);
    let told = Rc::new(RefCell::new(String::new()));
    let log = Rc::clone(&told);
    top.on_event(move |_, event| log.borrow_mut().push_str(&event.to_string()));
    top.enable(READ);
    idle(&base, 5);
    b.free();
    a.free();
    base.dispatch().expect("it does not wait for a filter that stands on nothing");
    assert!(told.borrow().contains("the bufferevent under it was freed"), "{}", told.borrow());
    top.output().add(b"nowhere to go");
    top.free();
    base.dispatch().expect("nothing is left");
    assert_eq!(base.stats().links, 0);
}

/// Answers every byte by itself, and passes nothing up.
struct Answering(usize);

impl Filter for Answering {
    fn input(&mut self, from: &mut Evbuffer, _to: &mut Evbuffer, _end: bool) -> io::Result<()> {
        self.0 += from.drain(from.len());
        Ok(())
    }
    fn output(&mut self, _from: &mut Evbuffer, to: &mut Evbuffer, _end: bool) -> io::Result<()> {
        to.add(&vec![b'!'; std::mem::take(&mut self.0)]);
        Ok(())
    }
    fn has_output(&self) -> bool {
        self.0 > 0
    }
}

#[test]
fn a_filter_answers_although_its_user_has_written_nothing() {
    let base = epoll();
    let (a, b) = base.pair().expect("a pair");
    let top = base.filter(b, Answering(0));
    top.enable(READ);
    a.enable(READ);
    for sent in 1..=3 {
        a.output().add(b"?");
        until(&base, "the answer", || a.input().len() == sent);
    }
    assert_eq!((a.input().take(), top.input().len()), (b"!!!".to_vec(), 0));
}

/// Passes bytes on, and ends them with a full stop.
struct Stopping(bool);

impl Filter for Stopping {
    fn input(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, _end: bool) -> io::Result<()> {
        to.append(from);
        Ok(())
    }
    fn output(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, end: bool) -> io::Result<()> {
        to.append(from);
        if end && !std::mem::replace(&mut self.0, true) {
            to.add(b".");
        }
        Ok(())
    }
}

#[test]
fn a_filter_hears_of_the_end_when_it_is_freed_with_nothing_left_to_write() {
    for finish in [false, true] {
        let base = epoll();
        let (a, b) = base.pair().expect("a pair");
        let top = base.filter(b, Stopping(false));
        a.enable(READ);
        top.output().add(b"end");
        until(&base, "what was written", || a.input().len() == 3);
        if finish {
            top.finish();
        } else {
            top.free();
        }
        until(&base, "the full stop", || a.input().len() == 4);
        assert_eq!(a.input().take(), b"end.");
    }
}
