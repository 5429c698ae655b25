//! The process's side of the bus, with a small relay that these tests play.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod direct;
mod mailbox;
mod relay;
mod through;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringlane::bus::local::{AckWhen, Class, Terms};
use ringlane::bus::{Bus, PeerEvent};
use ringlane::prelude::*;

use relay::Relay;

/// A base, a relay on it, and processes of this one.
struct World {
    base: EventBase,
    relay: Option<Rc<Relay>>,
    name: String,
    terms: Terms,
}

/// What one process saw.
#[derive(Clone, Default)]
struct Seen {
    texts: Rc<RefCell<Vec<String>>>,
    events: Rc<RefCell<Vec<PeerEvent>>>,
}

fn terms(ring: u32) -> Terms {
    Terms {
        class: Class::Reliable,
        ack: AckWhen::Stored,
        ring,
        priority: 1,
        stuck_after_ms: 5000,
        ttl_ms: 0,
    }
}

impl World {
    fn new(ring: u32) -> World {
        static TIMES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let times = TIMES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let base = EventBase::new().unwrap();
        base.timer(Duration::from_secs(30), |_| panic!("nothing moves any more"));
        let name = format!("bus-test-{}-{times}", std::process::id());
        let mut world = World { base, relay: None, name, terms: terms(ring) };
        world.start_relay(1);
        world
    }

    fn start_relay(&mut self, run: u64) {
        self.relay = Some(Relay::start(&self.base, &self.name, self.terms, run));
    }

    fn relay(&self) -> &Relay {
        self.relay.as_ref().unwrap()
    }

    fn open(&self, node: &str) -> Bus {
        Bus::open_at(&self.base, node, &format!("unix://@{}", self.name)).unwrap()
    }

    /// A process that writes down what comes.
    fn listener(&self, node: &str) -> (Bus, Seen) {
        let (bus, seen) = (self.open(node), Seen::default());
        let texts = Rc::clone(&seen.texts);
        bus.on_message(move |m| texts.borrow_mut().push(m.text().into_owned()));
        let events = Rc::clone(&seen.events);
        bus.on_peer(move |event| events.borrow_mut().push(event.clone()));
        (bus, seen)
    }

    /// Turns the base until it is so.
    fn until(&self, what: impl Fn() -> bool) {
        while !what() {
            self.base.turn(Turn::Wait).unwrap();
        }
    }
}

impl Seen {
    fn count(&self) -> usize {
        self.texts.borrow().len()
    }
}

/// Sends the texts of numbers, as room allows.
fn send_numbers(bus: &Bus, to: &'static str, numbers: std::ops::Range<u32>) -> Rc<Cell<u32>> {
    let sent = Rc::new(Cell::new(numbers.start));
    let (next, again) = (Rc::clone(&sent), bus.clone());
    let send = move || {
        while next.get() < numbers.end && again.send(to, next.get().to_string().as_bytes()).is_ok()
        {
            next.set(next.get() + 1);
        }
    };
    send();
    bus.on_writable(move |_, _| send());
    sent
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}
