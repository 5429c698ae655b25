//! The accepting side of a link. It learns from the header which link it is.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::{BevEvent, Bufferevent, READ};

use super::plan::{HEADER, Mode};
use super::{Book, Link, Seen, client};
use crate::suite::{Checker, Pattern};

/// Bytes after which a cutting server cuts.
const CUT_BYTES: usize = 3_000;

/// What one accepted connection knows.
struct Server {
    book: Rc<Book>,
    link: RefCell<Option<Rc<Link>>>,
    checker: RefCell<Option<Checker>>,
    seen: Seen,
    got: Cell<usize>,
    paused: Cell<bool>,
}

/// Takes an accepted connection in.
pub(super) fn start(book: &Rc<Book>, conn: &Bufferevent) {
    book.called();
    let server = Rc::new(Server {
        book: Rc::clone(book),
        link: RefCell::default(),
        checker: RefCell::default(),
        seen: Seen::default(),
        got: Cell::new(0),
        paused: Cell::new(false),
    });
    let me = Rc::clone(&server);
    conn.on_read(move |c| me.on_read(c));
    let me = Rc::clone(&server);
    conn.on_event(move |c, event| me.on_event(c, event));
    conn.enable(READ);
}

impl Server {
    fn who(&self) -> String {
        match &*self.link.borrow() {
            Some(link) => format!("server {} {:?}", link.plan.id, link.plan.mode),
            None => "server of nobody yet".into(),
        }
    }

    fn leave(&self, c: &Bufferevent, cut: bool) {
        self.seen.freed.set(true);
        if !cut {
            return c.free();
        }
        if let Some(link) = &*self.link.borrow() {
            link.server_cut.set(true);
        }
        c.abort();
    }

    /// Reads the header if it is there; false while it is not.
    fn introduced(&self, c: &Bufferevent) -> bool {
        if self.link.borrow().is_some() {
            return true;
        }
        let mut header = [0; HEADER];
        if c.input().len() < HEADER {
            return false;
        }
        c.input().remove(&mut header);
        let id = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let found = self.book.links.borrow().get(id as usize).cloned();
        let Some(link) = found else {
            self.book.wrong(format!("a header names link {id}, which was never dialled"));
            self.leave(c, true);
            return false;
        };
        self.book.check(header == link.plan.header(), || format!("link {id}: a wrong header"));
        self.got.set(HEADER);
        c.set_read_watermark(0, link.plan.high);
        c.set_priority(link.plan.priority);
        *self.checker.borrow_mut() = Some(Checker::new(Pattern::new(link.plan.up_seed())));
        if link.plan.mode == Mode::Source {
            self.answer(c, &link);
        }
        *self.link.borrow_mut() = Some(link);
        true
    }

    fn answer(&self, c: &Bufferevent, link: &Link) {
        let bytes = Pattern::new(link.plan.down_seed()).bytes(0, link.plan.reply);
        c.output().add(&bytes);
    }

    fn on_read(&self, c: &Bufferevent) {
        self.book.called();
        self.seen.reads(&self.book, &self.who());
        if !self.introduced(c) {
            return;
        }
        let link = self.link.borrow().clone();
        let Some(link) = link else { return };
        if link.plan.mode == Mode::Slow && !self.paused.replace(true) {
            c.disable(READ);
            let late = c.clone();
            if let Some(base) = c.base() {
                base.once(Duration::from_millis(5), move |_| late.enable(READ));
            }
        }
        let bytes = c.input().to_vec();
        self.got.set(self.got.get() + bytes.len());
        let right = self.checker.borrow_mut().as_mut().is_some_and(|check| check.feed(&bytes));
        self.book.check(right, || format!("{}: wrong within {}", self.who(), self.got.get()));
        if link.plan.echoes() {
            c.output().append(c.input());
        } else {
            c.input().drain(bytes.len());
        }
        if link.plan.mode == Mode::Cut && self.got.get() > CUT_BYTES {
            self.leave(c, true);
        }
    }

    fn on_event(&self, c: &Bufferevent, event: &BevEvent) {
        self.book.called();
        self.seen.alive(&self.book, &self.who());
        match event {
            BevEvent::Eof => {
                self.seen.ends(&self.book, &self.who());
                let link = self.link.borrow().clone();
                let Some(link) = link else { return self.leave(c, true) };
                let (got, want) = (self.got.get(), client::upload(&link));
                let whole = got == want || link.client_cut.get();
                self.book.check(whole, || format!("{}: an end after {got} of {want}", self.who()));
                if link.plan.mode == Mode::Sink {
                    self.answer(c, &link);
                }
                self.leave(c, false);
            }
            BevEvent::Connected => {}
            _ => self.leave(c, true),
        }
    }
}
