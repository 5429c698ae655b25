//! Callbacks that pull the floor from under themselves.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use ringlane_api::{Bufferevent, EventBase, READ};

use super::stage::{Stage, Tap, cell};
use super::{Outcome, Rig, cases};

cases! {
    "a callback may free itself" => frees_itself,
    "a callback may free its peer" => frees_peer,
    "a callback may free its listener" => frees_listener,
    "a callback may let go of the base" => frees_base,
    "a slot freed and taken again in one batch gets none of the old one's events" => slot_reuse,
    "no callback comes after free" => silence_after_free,
    "a handle of something freed is harmless" => dead_handle,
    "a base dropped with everything in flight leaves nothing behind" => dropped_in_flight,
    "memory of the user's may call the base when it is dropped" => reference_calls_base,
    "referenced memory is dropped once, and not before it is sent" => reference_once,
    "a panic in a callback reaches the caller, and the base goes on" => panic_passes,
}

fn frees_itself(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let freed = cell(0);
    let count = Rc::clone(&freed);
    let server = stage.listen(move |conn| {
        let count = Rc::clone(&count);
        conn.on_read(move |c| {
            c.free();
            assert!(!c.is_alive());
            c.free();
            count.set(count.get() + 1);
        });
        conn.enable(READ);
    });
    for _ in 0..10 {
        let client = stage.connect(&server);
        client.output().add(b"x");
        let before = freed.get();
        stage.until("it has freed itself", || freed.get() == before + 1);
        client.free();
    }
    stage.until("all links are gone", || stage.base.stats().links == 0);
    Outcome::Pass
}

fn frees_peer(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, _), (client, at_client)) = stage.link();
    let victim = client.clone();
    let done = cell(false);
    let set = Rc::clone(&done);
    server.on_read(move |c| {
        victim.abort();
        c.output().add(b"to nobody");
        set.set(true);
    });
    client.output().add(b"x");
    stage.until("the peer was freed", || done.get());
    stage.idle(20);
    assert!(!client.is_alive() && at_client.is_empty());
    server.free();
    stage.until("all links are gone", || stage.base.stats().links == 0);
    Outcome::Pass
}

fn frees_listener(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let own: Rc<RefCell<Option<ringlane_api::Listener>>> = Rc::default();
    let accepted = cell(0);
    let (inside, count) = (Rc::clone(&own), Rc::clone(&accepted));
    let server = stage.listen(move |conn| {
        count.set(count.get() + 1);
        if let Some(listener) = inside.borrow_mut().take() {
            listener.free();
        }
        conn.output().add(b"the last one");
        conn.free();
    });
    own.borrow_mut().replace(server.clone());
    let client = stage.connect(&server);
    let tap = Tap::on(&client);
    stage.until("the connection is served", || tap.ended());
    assert_eq!(tap.bytes(), b"the last one");
    client.free();
    stage.until("the listener is gone", || stage.base.stats().listeners == 0);
    assert_eq!(accepted.get(), 1);
    Outcome::Pass
}

fn frees_base(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, _), (client, _)) = stage.link();
    client.output().add(b"x");
    let slot: Rc<RefCell<Option<EventBase>>> = Rc::default();
    let mine = Rc::clone(&slot);
    let done = cell(false);
    let set = Rc::clone(&done);
    server.on_read(move |c| {
        mine.borrow_mut().take();
        c.output().add(b"y");
        set.set(true);
    });
    // The stage's handle moves into the slot: while the callback runs, dispatch's is the last.
    let Stage { base, .. } = stage;
    slot.borrow_mut().replace(base.clone());
    let last = base;
    while !done.get() {
        assert!(last.turn(ringlane_api::Turn::Wait).expect("a turn works"));
    }
    drop(last);
    assert!(!server.is_alive() && !client.is_alive());
    assert!(server.base().is_none());
    Outcome::Pass
}

fn slot_reuse(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let (server, taps) = stage.sink();
    let address = server.address().to_string();
    for round in 0..rig.scaled(30, 15) {
        // Many links with bytes for them under way; the first that is told frees all the others
        // and dials anew in the same callback.
        let olds: Rc<RefCell<Vec<Bufferevent>>> = Rc::default();
        let news: Rc<RefCell<Vec<(Bufferevent, Tap)>>> = Rc::default();
        taps.borrow_mut().clear();
        for _ in 0..8 {
            let client = stage.connect(&server);
            let (all, fresh) = (Rc::clone(&olds), Rc::clone(&news));
            let to = address.clone();
            client.on_read(move |c| {
                let base = c.base().expect("the base outlives its callbacks");
                for old in all.borrow_mut().drain(..) {
                    old.abort();
                    let again = base.connect(&to).expect("the listener's address is valid");
                    let tap = Tap::on(&again);
                    fresh.borrow_mut().push((again, tap));
                }
            });
            client.enable(READ);
            olds.borrow_mut().push(client);
        }
        // A dial that the last round took back may still be accepted now, and ends at once.
        let open = || taps.borrow().iter().filter(|(_, tap)| !tap.ended()).count();
        stage.until("all are accepted", || open() >= 8);
        for (conn, _) in taps.borrow().iter() {
            conn.output().add(b"for the old ones only");
        }
        stage.until("the new ones are connected", || {
            let news = news.borrow();
            news.len() == 8 && news.iter().all(|(_, tap)| tap.connected() == 1 || tap.ended())
        });
        stage.idle(10);
        for (again, tap) in news.borrow().iter() {
            assert_eq!(tap.order(), "c", "round {round}: a new link got an old one's event");
            again.abort();
        }
        for (conn, _) in taps.borrow_mut().drain(..) {
            conn.abort();
        }
        stage.until("all links are gone", || {
            for (conn, _) in taps.borrow_mut().drain(..) {
                conn.abort();
            }
            stage.base.stats().links == 0
        });
    }
    Outcome::Pass
}

fn silence_after_free(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    client.output().add(b"x");
    client.finish();
    server.output().add(b"y");
    server.free();
    stage.idle(50);
    client.free();
    stage.until("all links are gone", || stage.base.stats().links == 0);
    assert_eq!((at_server.order().as_str(), at_server.writes()), ("", 0));
    Outcome::Pass
}

fn dead_handle(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, _), (client, _)) = stage.link();
    client.abort();
    client.free();
    client.abort();
    client.output().add(b"x");
    client.enable(READ);
    client.disable(READ);
    client.finish();
    client.flush();
    client.set_timeouts(None, None);
    client.set_read_watermark(1, 2);
    client.set_write_watermark(1, 2);
    client.on_read(|_| panic!("nobody is there"));
    let state = (client.input().len(), client.output().len(), client.is_connected());
    assert_eq!(state, (0, 0, false));
    assert!(client.take_fds().is_empty() && client.release_fd().is_none());
    assert!(client.peer().is_none());
    assert!(server.is_alive());
    server.free();
    stage.until("all links are gone", || stage.base.stats().links == 0);
    Outcome::Pass
}

fn dropped_in_flight(rig: &Rig) -> Outcome {
    let memory = Rc::new(vec![1u8; 100_000]);
    {
        let stage = Stage::new(rig);
        let (server, taps) = stage.sink();
        let clients: Vec<Bufferevent> = (0..20).map(|_| stage.connect(&server)).collect();
        stage.until("all are accepted", || taps.borrow().len() == 20);
        for (at, client) in clients.iter().enumerate() {
            client.disable(READ);
            let kept = Rc::clone(&memory);
            client.output().add_reference(Lent(kept));
            client.output().add(&vec![3; 100_000 * (at % 3)]);
        }
        // Some of it is under way, some dials have not been answered.
        stage.idle(3);
        for _ in 0..5 {
            stage.connect(&server);
        }
        stage.base.timer(std::time::Duration::from_secs(1), |_| {});
    }
    assert_eq!(Rc::strong_count(&memory), 1, "referenced memory was leaked");
    Outcome::Pass
}

/// Memory that is counted.
struct Lent(Rc<Vec<u8>>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Memory whose end calls the base.
struct Caller {
    bytes: Vec<u8>,
    base: EventBase,
    peer: Bufferevent,
    dropped: Rc<std::cell::Cell<u32>>,
}

impl AsRef<[u8]> for Caller {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.dropped.set(self.dropped.get() + 1);
        self.peer.output().add(b"!");
        self.base.defer(|_| {});
        let _ = self.base.stats();
    }
}

fn reference_calls_base(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((_server, at_server), (client, _)) = stage.link();
    let dropped = cell(0);
    let caller = |bytes: Vec<u8>| Caller {
        bytes,
        base: stage.base.clone(),
        peer: client.clone(),
        dropped: Rc::clone(&dropped),
    };
    client.output().add_reference(caller(vec![b'a'; 50_000]));
    stage.until("it was sent and its end has written", || at_server.len() == 50_001);
    assert_eq!(dropped.get(), 1);
    // Drained, aborted and dropped with the output: each drop may call the base.
    client.output().add_reference(caller(vec![b'b'; 10]));
    client.output().drain(10);
    client.output().add_reference(caller(vec![b'c'; 10]));
    client.abort();
    stage.until("all of it was dropped", || dropped.get() == 3);
    Outcome::Pass
}

fn reference_once(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    server.disable(READ);
    stage.idle(3);
    let memory = Rc::new(super::Pattern::new(8).bytes(0, 4 << 20));
    client.output().add_reference(Lent(Rc::clone(&memory)));
    stage.idle(100);
    assert_eq!(Rc::strong_count(&memory), 2, "dropped although most of it cannot be sent yet");
    server.enable(READ);
    stage.until("it was sent", || at_server.len() == memory.len());
    stage.until("it was dropped", || Rc::strong_count(&memory) == 1);
    assert!(at_server.bytes() == *memory);
    Outcome::Pass
}

fn panic_passes(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, _), (client, at_client)) = stage.link();
    // A message may come in pieces.
    server.set_read_watermark(4, 0);
    let calls = cell(0);
    let count = Rc::clone(&calls);
    server.on_read(move |c| {
        count.set(count.get() + 1);
        let bytes = c.input().take();
        assert!(bytes != b"boom", "on purpose");
        c.output().add(&bytes);
    });
    client.output().add(b"boom");
    let caught = catch_unwind(AssertUnwindSafe(|| {
        stage.until("the callback panics", || false);
    }));
    let text = caught.expect_err("the panic reaches the caller");
    let text = text
        .downcast_ref::<&str>()
        .copied()
        .map(String::from)
        .or_else(|| text.downcast_ref::<String>().cloned());
    assert!(text.is_some_and(|text| text.contains("on purpose")));
    assert_eq!(calls.get(), 1);
    // Another connection, the same one and the loop itself go on.
    client.output().add(b"fine");
    stage.until("the same connection goes on", || at_client.bytes() == b"fine");
    let ((other, at_other), (dial, _)) = stage.link();
    dial.output().add(b"hello");
    stage.until("another connection works", || at_other.bytes() == b"hello");
    drop(other);
    Outcome::Pass
}
