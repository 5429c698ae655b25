//! Rings beside those of a link, which its bells serve.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::mpsc;

use ringlane::prelude::*;
use ringlane::reactor::{Config, Engine, best};
use ringlane::shm::through::{
    CONTROL_BYTES, Flow, Inlet, InletWriter, Outlet, OutletReader, Published, inlet_bytes,
    outlet_bytes,
};
use ringlane::shm::{Attached, Fork, Map, Refused};

use crate::{address, bases, port, watch};

const CAP: u32 = 4096;
const ALL: u32 = 5000;
const BYTES: [usize; 3] = [outlet_bytes(CAP), CONTROL_BYTES, inlet_bytes(CAP)];

/// The files that a process hands to its relay.
struct Files([OwnedFd; 3]);

impl Files {
    fn new() -> Files {
        let config = Config { engine: Engine::Epoll, ..Config::default() };
        let mut reactor = best(&config).expect("every machine has it");
        Files(BYTES.map(|bytes| {
            let file = reactor.sys().memory(bytes as u64).unwrap();
            file.into_os().unwrap()
        }))
    }

    fn maps(&self) -> [Rc<Map>; 3] {
        let fork = Rc::new(Fork::new().unwrap());
        [0, 1, 2].map(|i| Map::new(self.0[i].as_fd(), BYTES[i], 1, &fork).unwrap())
    }
}

/// What a process has.
struct Process {
    outlet: RefCell<Outlet>,
    inlet: RefCell<Inlet>,
    sent: Cell<u32>,
    got: Cell<u32>,
    /// The outlet was full.
    blocked: Cell<bool>,
    /// Consumed and not said.
    gave: Cell<bool>,
}

impl Process {
    /// Sends what there is room for, and takes what is there. Returns whether that is all.
    fn work(&self) -> bool {
        let mut outlet = self.outlet.borrow_mut();
        self.blocked.set(false);
        while self.sent.get() < ALL {
            let n = self.sent.get();
            match outlet.push(1, 0, &vec![n as u8; (n % 700) as usize]) {
                Ok(()) => self.sent.set(n + 1),
                Err(refused) => {
                    assert_eq!(refused, Refused::Full);
                    self.blocked.set(true);
                    break;
                }
            }
        }
        let shown = self.inlet.borrow_mut().walk(&mut Vec::new(), 100, |seq, header, bytes| {
            let n = self.got.get();
            assert_eq!((seq, header.len, bytes), (n + 1, n % 700, &vec![n as u8; bytes.len()][..]));
            self.got.set(n + 1);
            Flow::Go
        });
        self.gave.set(self.gave.get() | (shown.unwrap() > 0));
        self.got.get() == ALL
    }
}

impl Attached for Process {
    fn publish(&self) -> bool {
        self.outlet.borrow_mut().publish()
    }
    fn gave(&self) -> bool {
        self.gave.take()
    }
    fn news(&self) -> bool {
        let mut outlet = self.outlet.borrow_mut();
        let room = self.blocked.get() && {
            let before = outlet.from().seq;
            outlet.acked().unwrap().seq != before
        };
        let inlet = self.inlet.borrow();
        room || inlet.news() || inlet.unread() > 0
    }
    fn wants_room(&self) -> bool {
        self.blocked.get()
    }
    fn is_near(&self) -> bool {
        self.outlet.borrow().is_near()
    }
}

/// What a relay has: it sends everything back to who it came from.
struct Relay {
    reader: RefCell<OutletReader>,
    writer: RefCell<InletWriter>,
    /// Something is left that found no room.
    blocked: Cell<bool>,
    gave: Cell<bool>,
}

impl Relay {
    fn work(&self) {
        let (mut reader, mut writer) = (self.reader.borrow_mut(), self.writer.borrow_mut());
        let mut run = Vec::new();
        let room = writer.room().unwrap();
        let batch = reader.read(2000, room, &mut run).unwrap();
        writer.push_run(&run).unwrap();
        if batch.records > 0 {
            let last = batch.first + batch.records - 1;
            reader.mark_sent(last);
            reader.mark_acked(last).unwrap();
            self.gave.set(true);
        }
        self.blocked.set(reader.unread() > 0);
    }
}

impl Attached for Relay {
    fn publish(&self) -> bool {
        let mut writer = self.writer.borrow_mut();
        let dirty = writer.is_dirty();
        writer.publish().unwrap();
        dirty
    }
    fn gave(&self) -> bool {
        self.gave.take()
    }
    fn news(&self) -> bool {
        let enough = || self.writer.borrow_mut().room().unwrap() >= 1000;
        self.reader.borrow().news() || self.blocked.get() && enough()
    }
    fn wants_room(&self) -> bool {
        self.blocked.get()
    }
    fn is_near(&self) -> bool {
        self.writer.borrow().is_near()
    }
}

impl Process {
    fn new(files: &Files) -> Rc<Process> {
        let [segment, control, inlet] = files.maps();
        let mut outlet = Outlet::new(segment, CAP);
        assert_eq!(outlet.attach(control), Published::default());
        Rc::new(Process {
            outlet: RefCell::new(outlet),
            inlet: RefCell::new(Inlet::new(inlet, CAP)),
            sent: Cell::new(0),
            got: Cell::new(0),
            blocked: Cell::new(false),
            gave: Cell::new(false),
        })
    }

    /// Connects, and stops its base when everything has come.
    fn start(self: Rc<Process>, base: &EventBase, address: &str) {
        let conn = base.connect(address).unwrap();
        let process = Rc::clone(&self);
        conn.on_event(move |conn, event| {
            assert!(matches!(event, BevEvent::Connected), "{event}");
            port(conn).attach(Rc::clone(&process) as Rc<dyn Attached>);
            process.work();
        });
        conn.on_read(move |conn| {
            let all = self.work();
            port(conn).touch();
            if all {
                conn.base().unwrap().stop();
            }
        });
        conn.enable(READ);
    }
}

impl Relay {
    fn new(files: &Files) -> Rc<Relay> {
        let [segment, control, inlet] = files.maps();
        let reader = OutletReader::new(segment, control, Published::default()).unwrap();
        Rc::new(Relay {
            reader: RefCell::new(reader),
            writer: RefCell::new(InletWriter::new(inlet).unwrap()),
            blocked: Cell::new(false),
            gave: Cell::new(false),
        })
    }

    /// Listens, and stops its base when its peer is gone.
    fn start(self: Rc<Relay>, base: &EventBase, address: &str) {
        let listening = base.listen(address, move |conn| {
            let relay = Rc::clone(&self);
            port(&conn).attach(Rc::clone(&relay) as Rc<dyn Attached>);
            conn.on_read(move |conn| {
                relay.work();
                port(conn).touch();
            });
            conn.on_event(|conn, event| {
                if event.is_end() {
                    conn.base().unwrap().stop();
                    conn.free();
                }
            });
            conn.enable(READ);
        });
        listening.unwrap();
    }
}

const PARAMETERS: [&str; 3] = ["face=records", "face=records&yield=0", "face=records&spin=50us"];

fn rescues(base: &EventBase) -> u64 {
    let counters = base.transport_counters("shm");
    counters.iter().find(|(of, _)| *of == "rescues").expect("it is counted").1
}

#[test]
fn rings_that_are_attached_to_a_link_are_served_by_its_bells() {
    for parameters in PARAMETERS {
        for base in bases() {
            watch(&base);
            let (files, address) = (Files::new(), address("attached", parameters));
            let process = Process::new(&files);
            Relay::new(&files).start(&base, &address);
            Rc::clone(&process).start(&base, &address);
            base.dispatch().unwrap();
            assert_eq!((process.got.get(), process.sent.get()), (ALL, ALL));
            assert_eq!(rescues(&base), 0, "a wake was lost");
        }
    }
}

#[test]
fn two_loops_that_sleep_wake_each_other_for_attached_rings() {
    for parameters in PARAMETERS {
        for engine in [Engine::Uring, Engine::Epoll] {
            let config = Config { engine, ..Config::default() };
            let Ok(base) = EventBase::with_config(&config) else { continue };
            watch(&base);
            let (files, address) = (Files::new(), address("asleep", parameters));
            let process = Process::new(&files);
            let theirs = Files([0, 1, 2].map(|i| files.0[i].try_clone().unwrap()));
            let (listens, heard) = mpsc::channel();
            let at = address.clone();
            let relay = std::thread::spawn(move || {
                let base = EventBase::with_config(&config).unwrap();
                Relay::new(&theirs).start(&base, &at);
                listens.send(()).unwrap();
                base.dispatch().unwrap();
                rescues(&base)
            });
            heard.recv().unwrap();
            Rc::clone(&process).start(&base, &address);
            base.dispatch().unwrap();
            assert_eq!((process.got.get(), rescues(&base)), (ALL, 0));
            drop(base);
            assert_eq!(relay.join().unwrap(), 0, "a wake was lost");
        }
    }
}

#[test]
fn rings_that_were_let_go_are_asked_no_more_and_an_end_lets_all_go() {
    for base in bases() {
        watch(&base);
        let address = address("detached", "face=records");
        let relay: Rc<RefCell<Option<Rc<Relay>>>> = Rc::default();
        let held = Rc::clone(&relay);
        let listening = base.listen(&address, move |conn| {
            // What has news at once and for ever, until it is let go.
            let files = Files::new();
            let process = Process::new(&files);
            process.work();
            process.outlet.borrow_mut().publish();
            let relay = Relay::new(&files);
            let attached: Rc<dyn Attached> = Rc::clone(&relay) as Rc<dyn Attached>;
            port(&conn).attach(Rc::clone(&attached));
            let mut reads = 0;
            conn.on_read(move |conn| {
                reads += 1;
                match reads {
                    3 => port(conn).detach(&attached),
                    4 => panic!("it was let go"),
                    _ => {}
                }
                if reads == 3 {
                    port(conn).attach(Process::new(&files));
                    conn.free();
                    conn.base().unwrap().stop();
                }
            });
            conn.enable(READ);
            *held.borrow_mut() = Some(relay);
        });
        listening.unwrap();
        let _conn = base.connect(&address).unwrap();
        base.dispatch().unwrap();
        base.turn(Turn::NoWait).unwrap();
        let relay = relay.take().unwrap();
        assert_eq!(Rc::strong_count(&relay), 1, "nobody else has it");
    }
}
