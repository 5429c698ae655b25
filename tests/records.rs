//! The record face of `shm://` links, between two bases in one process and on every engine.
//! What is asked of rings and records themselves stands in `shm/tests/ring.rs`.
#![allow(clippy::unwrap_used)]

#[path = "records/attached.rs"]
mod attached;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringlane::prelude::*;
use ringlane::reactor::{Config, Engine};
use ringlane::shm::{MORE, Port, Refused};
use ringlane_kit::sim::{Setup, World};

/// A base on each engine that this machine has, and one on the simulator.
fn bases() -> Vec<EventBase> {
    let mut bases: Vec<EventBase> = [Engine::Uring, Engine::Epoll]
        .into_iter()
        .filter_map(|engine| EventBase::with_config(&Config { engine, ..Config::default() }).ok())
        .collect();
    let world = World::new(Setup { seed: 5, ..Setup::default() });
    let transports = vec![ringlane_uds::transport(), ringlane_shm::transport()];
    bases.push(EventBase::with(Box::new(world.reactor()), transports));
    bases
}

/// An address of this test's own.
fn address(name: &str, more: &str) -> String {
    // One count for all threads: two tests may use one name at the same time.
    static TIMES: AtomicU32 = AtomicU32::new(0);
    let time = TIMES.fetch_add(1, Ordering::Relaxed);
    format!("shm://@records-{name}-{}-{time}?{more}", std::process::id())
}

/// Ends a base that hangs.
fn watch(base: &EventBase) {
    let watchdog = |_: &Event| panic!("nothing moves any more");
    base.timer(Duration::from_secs(30), watchdog);
}

fn port(conn: &Bufferevent) -> Port {
    conn.face::<Port>().expect("the link carries records")
}

/// Sends everything that comes back, record by record.
fn echo(conn: &Bufferevent) {
    let (mut copy, mut waiting) = (Vec::new(), Vec::<(u16, u16, Vec<u8>)>::new());
    conn.on_read(move |conn| {
        let port = port(conn);
        port.drain(&mut copy, |header, bytes| {
            waiting.push((header.kind, header.channel, bytes.to_vec()));
        })
        .unwrap();
        for (kind, channel, bytes) in waiting.drain(..) {
            port.push(kind, channel, &bytes).unwrap();
        }
    });
    conn.on_event(|conn, event| {
        if event.is_end() {
            conn.free();
        }
    });
    conn.enable(READ);
}

#[test]
fn records_go_there_and_back_whole_and_in_order() {
    there_and_back("face=records&ring=16KiB");
}

#[test]
fn a_link_that_spins_or_does_not_give_way_carries_the_same() {
    there_and_back("face=records&ring=16KiB&spin=50us");
    there_and_back("face=records&ring=16KiB&yield=0");
}

fn there_and_back(parameters: &str) {
    for base in bases() {
        watch(&base);
        let address = address("order", parameters);
        base.listen(&address, |conn| echo(&conn)).unwrap();
        let conn = base.connect(&address).unwrap();
        let (sent, came) = (Rc::new(Cell::new(0_u32)), Rc::new(Cell::new(0_u32)));
        const ALL: u32 = 3000;
        let fill = move |conn: &Bufferevent| {
            // At most 16 are under way, so that the echo always finds room.
            let port = port(conn);
            while sent.get() < ALL && sent.get() < came.get() + 16 {
                let n = sent.get();
                let mut slot = port.reserve(4 + n % 200).unwrap();
                slot.write(0, &n.to_le_bytes());
                slot.commit(n as u16 & 0x7f, (n >> 7) as u16);
                sent.set(n + 1);
            }
            let mut taken = came.get();
            while let Some(record) = port.borrow().unwrap() {
                assert_eq!(record.payload.get_u32(0), Some(taken));
                assert_eq!(record.payload.len() as u32, 4 + taken % 200);
                let header = record.header;
                assert_eq!(
                    (header.kind, header.channel),
                    (taken as u16 & 0x7f, (taken >> 7) as u16)
                );
                assert_eq!(record.seq, taken + 1, "records count from one");
                port.give_back(record);
                taken += 1;
            }
            let more = taken != came.replace(taken);
            if taken == ALL {
                conn.base().unwrap().stop();
            }
            more
        };
        let fill = Rc::new(fill);
        let again = Rc::clone(&fill);
        conn.on_read(move |conn| while again(conn) {});
        conn.on_event(move |conn, event| {
            assert!(matches!(event, BevEvent::Connected), "{event}");
            fill(conn);
        });
        conn.enable(READ);
        base.dispatch().unwrap();
    }
}

#[test]
fn a_full_ring_says_so_and_tells_when_there_is_room() {
    for base in bases() {
        watch(&base);
        let address = address("full", "face=records&ring=4KiB");
        let reader: Rc<RefCell<Option<Bufferevent>>> = Rc::default();
        let (held, got) = (Rc::clone(&reader), Rc::new(Cell::new(0_u32)));
        let count = Rc::clone(&got);
        base.listen(&address, move |conn| {
            let (mut copy, count) = (Vec::new(), Rc::clone(&count));
            conn.on_read(move |conn| {
                let n = port(conn).drain(&mut copy, |_, bytes| assert_eq!(bytes, [9; 100]));
                count.set(count.get() + n.unwrap() as u32);
            });
            *held.borrow_mut() = Some(conn);
        })
        .unwrap();
        let conn = base.connect(&address).unwrap();
        let pushed = Rc::new(Cell::new(0_u32));
        let rooms = Rc::new(Cell::new(0_u32));
        let counted = Rc::clone(&pushed);
        let push = move |conn: &Bufferevent| loop {
            match port(conn).push(1, 0, &[9; 100]) {
                Ok(()) => counted.set(counted.get() + 1),
                Err(refused) => break assert_eq!(refused, Refused::Full),
            }
        };
        let push = Rc::new(push);
        let first = Rc::clone(&push);
        conn.on_event(move |conn, _| first(conn));
        let (told, first_full) = (Rc::clone(&rooms), Rc::new(Cell::new(0)));
        conn.on_write(move |conn| {
            told.set(told.get() + 1);
            if told.get() < 20 {
                push(conn);
            }
        });
        while pushed.get() == 0 || reader.borrow().is_none() {
            base.turn(Turn::Wait).unwrap();
        }
        first_full.set(pushed.get());
        // Nobody reads, so nothing is told.
        for _ in 0..10 {
            base.turn(Turn::NoWait).unwrap();
        }
        assert_eq!((rooms.get(), got.get(), pushed.get()), (0, 0, first_full.get()));
        reader.borrow().as_ref().unwrap().enable(READ);
        while rooms.get() < 20 || got.get() < pushed.get() {
            base.turn(Turn::Wait).unwrap();
        }
        assert!(pushed.get() > 2 * first_full.get(), "room was used when it was told");
    }
}

#[test]
fn everything_written_before_the_end_is_read_before_it_is_told() {
    for base in bases() {
        watch(&base);
        let address = address("end", "face=records");
        let said: Rc<RefCell<Vec<String>>> = Rc::default();
        let log = Rc::clone(&said);
        base.listen(&address, move |conn| {
            let (records, ends) = (Rc::clone(&log), Rc::clone(&log));
            conn.on_read(move |conn| {
                // One at a time: it comes again for the next.
                let port = port(conn);
                let record = port.borrow().unwrap().expect("it comes when there is one");
                let bytes = record.payload.to_vec();
                records.borrow_mut().push(String::from_utf8(bytes).unwrap());
                port.give_back(record);
            });
            conn.on_event(move |conn, event| {
                ends.borrow_mut().push(event.to_string());
                let kept = port(conn);
                conn.base().unwrap().stop();
                conn.free();
                assert_eq!(kept.borrow().unwrap().map(|r| r.seq), None);
            });
            conn.enable(READ);
        })
        .unwrap();
        let conn = base.connect(&address).unwrap();
        conn.on_event(|conn, _| {
            let port = port(conn);
            for text in ["one", "two", "three"] {
                port.push(0, 0, text.as_bytes()).unwrap();
            }
            conn.free();
        });
        base.dispatch().unwrap();
        assert_eq!(*said.borrow(), ["one", "two", "three", "end of stream"]);
    }
}

#[test]
fn a_port_that_outlives_its_link_refuses_and_does_no_harm() {
    for base in bases() {
        watch(&base);
        let address = address("over", "face=records");
        base.listen(&address, |conn| echo(&conn)).unwrap();
        let conn = base.connect(&address).unwrap();
        let kept: Rc<RefCell<Option<Port>>> = Rc::default();
        let keep = Rc::clone(&kept);
        conn.on_event(move |conn, _| {
            let port = port(conn);
            let slot = port.reserve(8).unwrap();
            // A link may go while a record is being written.
            conn.abort();
            conn.flush();
            slot.commit(0, 0);
            *keep.borrow_mut() = Some(port);
        });
        while kept.borrow().is_none() {
            base.turn(Turn::Wait).unwrap();
        }
        while kept.borrow().as_ref().unwrap().is_open() {
            base.turn(Turn::Wait).unwrap();
        }
        let port = kept.borrow_mut().take().unwrap();
        assert_eq!(port.push(0, 0, b"late"), Err(Refused::Closed));
        assert_eq!(port.push_pieces(0, 0, b"late"), Err(Refused::Closed));
        port.publish();
        assert!(port.borrow().unwrap().is_none());
        assert!(conn.face::<Port>().is_none());
        base.turn(Turn::NoWait).unwrap();
    }
}

#[test]
fn a_message_larger_than_the_ring_goes_in_pieces() {
    for base in bases() {
        watch(&base);
        let address = address("pieces", "face=records&ring=4KiB");
        let message: Rc<Vec<u8>> = Rc::new((0..100_000_u32).map(|n| (n % 251) as u8).collect());
        let wanted = Rc::clone(&message);
        base.listen(&address, move |conn| {
            let (mut copy, mut whole, wanted) = (Vec::new(), Vec::new(), Rc::clone(&wanted));
            conn.on_read(move |conn| {
                let mut done = false;
                port(conn)
                    .drain(&mut copy, |header, bytes| {
                        whole.extend_from_slice(bytes);
                        done = header.kind & MORE == 0;
                    })
                    .unwrap();
                if done {
                    assert!(whole == *wanted, "{} bytes came", whole.len());
                    conn.base().unwrap().stop();
                }
            });
            conn.enable(READ);
        })
        .unwrap();
        let conn = base.connect(&address).unwrap();
        assert!(conn.face::<Port>().is_none(), "not before it is connected");
        let at = Cell::new(0);
        let push = move |conn: &Bufferevent| {
            at.set(at.get() + port(conn).push_pieces(3, 0, &message[at.get()..]).unwrap());
        };
        let push = Rc::new(push);
        let first = Rc::clone(&push);
        conn.on_event(move |conn, _| first(conn));
        conn.on_write(move |conn| push(conn));
        base.dispatch().unwrap();
    }
}

#[test]
fn both_ends_must_want_the_same_face_and_bytes_are_not_records() {
    for base in bases() {
        watch(&base);
        for (there, here) in [("face=records", ""), ("face=bytes", "face=records")] {
            let address = address("face", there);
            base.listen(&address, |conn| conn.free()).unwrap();
            let (place, _) = address.split_once('?').unwrap();
            let conn = base.connect(format!("{place}?{here}")).unwrap();
            let said = Rc::new(RefCell::new(String::new()));
            let told = Rc::clone(&said);
            conn.on_event(move |conn, event| {
                *told.borrow_mut() = event.to_string();
                conn.free();
            });
            while said.borrow().is_empty() {
                base.turn(Turn::Wait).unwrap();
            }
            assert!(said.borrow().contains("face=records on both"), "{}", said.borrow());
        }
        let address = address("bytes", "face=records");
        base.listen(&address, |conn| conn.enable(READ)).unwrap();
        let conn = base.connect(&address).unwrap();
        conn.output().add(b"a stream of bytes");
        let said = Rc::new(RefCell::new(String::new()));
        let told = Rc::clone(&said);
        conn.on_event(move |conn, event| {
            if event.is_end() {
                *told.borrow_mut() = event.to_string();
                conn.abort();
            }
        });
        while said.borrow().is_empty() {
            base.turn(Turn::Wait).unwrap();
        }
        assert!(said.borrow().contains("write them to its port"), "{}", said.borrow());
    }
}
