//! Seeds: whole lives of many connections under a moody kernel, every byte checked.
//!
//! ```text
//!   seed -> world (faults, sizes, latencies) + plans -> dials in waves -> callbacks check
//!        -> everything over -> nothing left: links, descriptors, memory, timers
//! ```
//!
//! A run is a pure function of its seed. It fails with a sentence: a wrong byte, a lost end, an
//! event too many, a stall, something left behind.

mod client;
mod drive;
mod plan;
mod server;

pub use drive::{Summary, run};

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use plan::Plan;

/// What all parts of one run share.
pub(crate) struct Book {
    /// What went wrong, first thing first.
    wrongs: RefCell<Vec<String>>,
    /// Callbacks so far.
    callbacks: Cell<u64>,
    /// Links by number, for the server side to find its plan.
    links: RefCell<Vec<Rc<Link>>>,
    /// Referenced memory that is out.
    lent: Rc<Cell<i64>>,
}

/// One dial, and what both sides know of it.
pub(crate) struct Link {
    plan: Plan,
    /// The client took its connection back, or gave up on it.
    client_cut: Cell<bool>,
    client_over: Cell<bool>,
    /// The server cut the connection.
    server_cut: Cell<bool>,
}

impl Book {
    fn new() -> Rc<Book> {
        Rc::new(Book {
            wrongs: RefCell::default(),
            callbacks: Cell::new(0),
            links: RefCell::default(),
            lent: Rc::default(),
        })
    }

    /// Notes that something is wrong.
    fn wrong(&self, what: String) {
        self.wrongs.borrow_mut().push(what);
    }

    fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(what());
        }
    }

    fn called(&self) {
        self.callbacks.set(self.callbacks.get() + 1);
    }
}

/// Which callbacks one side has seen; order is checked as they come.
#[derive(Default)]
pub(crate) struct Seen {
    connected: Cell<bool>,
    eof: Cell<bool>,
    error: Cell<bool>,
    freed: Cell<bool>,
}

impl Seen {
    fn alive(&self, book: &Book, who: &str) {
        book.check(!self.freed.get(), || format!("{who}: a callback after free"));
    }

    fn reads(&self, book: &Book, who: &str) {
        self.alive(book, who);
        book.check(!self.eof.get(), || format!("{who}: bytes after the end"));
    }

    fn ends(&self, book: &Book, who: &str) {
        self.alive(book, who);
        let twice = self.eof.replace(true);
        book.check(!twice, || format!("{who}: the end came twice"));
    }
}
