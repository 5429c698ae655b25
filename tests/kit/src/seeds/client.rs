//! The dialling side of a link.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::{BevEvent, Bufferevent, EventBase, READ};

use super::plan::{Ending, HEADER};
use super::{Book, Link, Seen};
use crate::suite::{Checker, Pattern};

/// Memory whose end is counted.
struct Lent {
    bytes: Vec<u8>,
    out: Rc<Cell<i64>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.out.set(self.out.get() - 1);
    }
}

/// What one client knows.
struct Client {
    link: Rc<Link>,
    book: Rc<Book>,
    who: String,
    pattern: Pattern,
    written: Cell<usize>,
    checker: RefCell<Checker>,
    seen: Seen,
}

/// Sets a dialled connection going.
pub(super) fn start(base: &EventBase, book: &Rc<Book>, link: &Rc<Link>, conn: &Bufferevent) {
    let plan = &link.plan;
    let client = Rc::new(Client {
        link: Rc::clone(link),
        book: Rc::clone(book),
        who: format!("client {} {:?} {:?} {:?}", plan.id, plan.to, plan.mode, plan.ending),
        pattern: Pattern::new(plan.up_seed()),
        written: Cell::new(0),
        checker: RefCell::new(Checker::new(Pattern::new(plan.down_seed()))),
        seen: Seen::default(),
    });
    conn.set_priority(plan.priority);
    conn.set_read_watermark(0, plan.high);
    if plan.patience > 0 {
        conn.set_timeouts(Some(Duration::from_millis(plan.patience)), None);
    }
    conn.output().add(&plan.header());
    let me = Rc::clone(&client);
    conn.on_write(move |c| me.on_write(c));
    let me = Rc::clone(&client);
    conn.on_read(move |c| me.on_read(c));
    let me = Rc::clone(&client);
    conn.on_event(move |c, event| me.on_event(c, event));
    client.write_on(conn);
    if plan.lazy {
        let late = conn.clone();
        base.once(Duration::from_millis(3), move |_| late.enable(READ));
    } else {
        conn.enable(READ);
    }
}

impl Client {
    /// Takes the connection back from outside its callbacks.
    fn leave(&self, c: &Bufferevent, cut: bool) {
        self.seen.freed.set(true);
        self.link.client_over.set(true);
        if cut {
            self.link.client_cut.set(true);
            c.abort();
        } else {
            c.free();
        }
    }

    /// Writes the next piece; after the last one, ends as planned.
    fn write_on(&self, c: &Bufferevent) {
        let plan = &self.link.plan;
        let from = self.written.get();
        if from > plan.up {
            return;
        }
        let n = plan.piece.min(plan.up - from);
        let bytes = self.pattern.bytes(from as u64, n);
        if plan.lent {
            self.book.lent.set(self.book.lent.get() + 1);
            c.output().add_reference(Lent { bytes, out: Rc::clone(&self.book.lent) });
        } else {
            c.output().add(&bytes);
        }
        self.written.set(from + n);
        if plan.id.is_multiple_of(5) {
            c.flush();
        }
        if from + n == plan.up {
            // Over the end, so that nothing is written twice.
            self.written.set(plan.up + 1);
            match plan.ending {
                Ending::Free => self.leave(c, false),
                _ => c.finish(),
            }
        }
    }

    fn on_write(&self, c: &Bufferevent) {
        self.book.called();
        self.seen.alive(&self.book, &self.who);
        self.write_on(c);
    }

    fn on_read(&self, c: &Bufferevent) {
        self.book.called();
        self.seen.reads(&self.book, &self.who);
        let bytes = c.input().take();
        let mut checker = self.checker.borrow_mut();
        let right = checker.feed(&bytes);
        self.book.check(right, || format!("{}: wrong after {}", self.who, checker.count()));
        if let Ending::AbortInRead(after) = self.link.plan.ending
            && checker.count() as usize >= after
        {
            self.leave(c, true);
        }
    }

    fn on_event(&self, c: &Bufferevent, event: &BevEvent) {
        self.book.called();
        self.seen.alive(&self.book, &self.who);
        match event {
            BevEvent::Connected => {
                let twice = self.seen.connected.replace(true);
                self.book.check(!twice, || format!("{}: connected twice", self.who));
            }
            BevEvent::Eof => {
                self.seen.ends(&self.book, &self.who);
                let (got, want) = (self.checker.borrow().count() as usize, self.link.plan.down());
                let whole = got == want || self.link.server_cut.get();
                self.book.check(whole, || format!("{}: an end after {got} of {want}", self.who));
                let all_up = self.written.get() > self.link.plan.up;
                // An end before we have written all: the other direction goes on.
                if all_up {
                    self.leave(c, false);
                } else {
                    self.leave(c, true);
                }
            }
            BevEvent::Timeout(_) => self.leave(c, true),
            _ => {
                self.seen.error.set(true);
                self.leave(c, true);
            }
        }
    }
}

/// Bytes a whole upload has.
pub(super) fn upload(link: &Link) -> usize {
    HEADER + link.plan.up
}
