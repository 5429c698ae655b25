//! A base with a server and clients on it, and a tap that notes what happens to a connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::reactor::Side;
use ringlane_api::{BevEvent, Bufferevent, EventBase, Listener, READ, Turn};

use super::rig::Rig;

/// How long nothing may change until it counts as settled.
const SETTLE_MILLIS: u32 = 30;

/// Turns without news after which a wait is due: more than a fault layer holds a completion back.
const QUIET_TURNS: u32 = 10;

/// Accepted connections, each with what it was told.
pub type Accepted = Rc<RefCell<Vec<(Bufferevent, Tap)>>>;

/// One base and what a case needs to play on it.
pub struct Stage {
    /// The base.
    pub base: EventBase,
    address: Box<dyn Fn() -> String>,
}

impl Stage {
    /// A new base of this rig.
    pub fn new(rig: &Rig) -> Stage {
        let mine = rig.clone();
        Stage { base: rig.base(), address: Box::new(move || mine.address()) }
    }

    /// A listener at an address of its own.
    pub fn listen(&self, on: impl FnMut(Bufferevent) + 'static) -> Listener {
        self.base.listen((self.address)(), on).expect("this address is ours alone")
    }

    /// A server that sends everything back, ends its direction when the client does, and counts.
    pub fn echo(&self) -> Listener {
        self.listen(|conn| {
            conn.on_read(|c| {
                c.output().append(c.input());
            });
            conn.on_event(|c, event| {
                if event.is_end() {
                    c.free();
                }
            });
            conn.enable(READ);
        })
    }

    /// A server that only notes what comes; taps appear in the list as connections do.
    pub fn sink(&self) -> (Listener, Accepted) {
        let taps: Rc<RefCell<Vec<(Bufferevent, Tap)>>> = Rc::default();
        let into = Rc::clone(&taps);
        let listener = self.listen(move |conn| {
            let tap = Tap::on(&conn);
            into.borrow_mut().push((conn, tap));
        });
        (listener, taps)
    }

    /// A client of this listener.
    pub fn connect(&self, to: &Listener) -> Bufferevent {
        self.base.connect(to.address().to_string()).expect("the listener's address is valid")
    }

    /// A connected pair: the accepted end and the connecting end, each with a tap.
    pub fn link(&self) -> ((Bufferevent, Tap), (Bufferevent, Tap)) {
        let (listener, taps) = self.sink();
        let client = self.connect(&listener);
        let tap = Tap::on(&client);
        self.until("both ends are connected", || tap.connected() == 1 && taps.borrow().len() == 1);
        listener.free();
        let server = taps.borrow_mut().remove(0);
        (server, (client, tap))
    }

    /// Turns until `holds`; nothing left to wait for before that is a failure. It waits only after
    /// turns that brought nothing: what a flush alone brings about wakes nobody.
    #[track_caller]
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let mut quiet = 0;
        while !holds() {
            let before = self.base.counters().cqes;
            let turn = if quiet < QUIET_TURNS { Turn::NoWait } else { Turn::Wait };
            let live = self.base.turn(turn).expect("a turn works");
            let news = turn == Turn::Wait || self.base.counters().cqes != before;
            quiet = if news { 0 } else { quiet + 1 };
            assert!(live || holds(), "nothing is left to wait for, and yet not: {what}");
        }
    }

    /// Some turns that do not wait; for what must *not* happen.
    pub fn idle(&self, turns: usize) {
        for _ in 0..turns {
            self.base.turn(Turn::NoWait).expect("a turn works");
        }
    }

    /// Turns until nothing has changed for some milliseconds.
    pub fn settle(&self, mut state: impl FnMut() -> usize) {
        let (mut quiet, mut before) = (0, state());
        while quiet < SETTLE_MILLIS {
            let passed = cell(false);
            let set = Rc::clone(&passed);
            self.base.once(Duration::from_millis(1), move |_| set.set(true));
            self.until("a millisecond has passed", || passed.get());
            let now = state();
            quiet = if now == before { quiet + 1 } else { 0 };
            before = now;
        }
    }
}

/// What happened to one bufferevent so far.
#[derive(Clone, Default)]
pub struct Tap(Rc<Notes>);

#[derive(Default)]
struct Notes {
    bytes: RefCell<Vec<u8>>,
    connected: Cell<usize>,
    eofs: Cell<usize>,
    errors: RefCell<Vec<(Side, std::io::ErrorKind, String)>>,
    timeouts: RefCell<Vec<Side>>,
    writes: Cell<usize>,
    order: RefCell<String>,
}

impl Tap {
    /// Takes the callbacks of `bev` and enables reading.
    pub fn on(bev: &Bufferevent) -> Tap {
        let tap = Tap::default();
        tap.take_callbacks(bev);
        bev.enable(READ);
        tap
    }

    /// Takes the callbacks of `bev`; reading stays as it is.
    pub fn take_callbacks(&self, bev: &Bufferevent) {
        let notes = Rc::clone(&self.0);
        bev.on_read(move |c| {
            notes.note('r');
            notes.bytes.borrow_mut().extend(c.input().take());
        });
        let notes = Rc::clone(&self.0);
        bev.on_write(move |_| {
            notes.writes.set(notes.writes.get() + 1);
        });
        let notes = Rc::clone(&self.0);
        bev.on_event(move |_, event| match event {
            BevEvent::Connected => {
                notes.note('c');
                notes.connected.set(notes.connected.get() + 1);
            }
            BevEvent::Eof => {
                notes.note('e');
                notes.eofs.set(notes.eofs.get() + 1);
            }
            BevEvent::Error { side, error } => {
                notes.note('x');
                notes.errors.borrow_mut().push((*side, error.kind(), error.to_string()));
            }
            BevEvent::Timeout(side) => {
                notes.note('t');
                notes.timeouts.borrow_mut().push(*side);
            }
            _ => {}
        });
    }

    /// Bytes received.
    pub fn len(&self) -> usize {
        self.0.bytes.borrow().len()
    }

    /// Whether nothing was received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of what was received.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.bytes.borrow().clone()
    }

    /// How often it was connected.
    pub fn connected(&self) -> usize {
        self.0.connected.get()
    }

    /// How often the end was reported.
    pub fn eofs(&self) -> usize {
        self.0.eofs.get()
    }

    /// Errors so far.
    pub fn errors(&self) -> Vec<(Side, std::io::ErrorKind, String)> {
        self.0.errors.borrow().clone()
    }

    /// Whether it ended, well or badly.
    pub fn ended(&self) -> bool {
        self.eofs() > 0 || !self.0.errors.borrow().is_empty()
    }

    /// Time limits that passed.
    pub fn timeouts(&self) -> Vec<Side> {
        self.0.timeouts.borrow().clone()
    }

    /// Write callbacks.
    pub fn writes(&self) -> usize {
        self.0.writes.get()
    }

    /// One letter per callback, repeats squeezed: c(onnected) r(ead) e(of) x(error) t(imeout).
    pub fn order(&self) -> String {
        self.0.order.borrow().clone()
    }
}

impl Notes {
    fn note(&self, letter: char) {
        let mut order = self.order.borrow_mut();
        if !(letter == 'r' && order.ends_with('r')) {
            order.push(letter);
        }
    }
}

/// A counted cell for callbacks.
pub(super) fn cell<T>(value: T) -> Rc<Cell<T>> {
    Rc::new(Cell::new(value))
}
