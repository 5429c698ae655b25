//! Back-pressure, watermarks, fairness, priorities.

use std::cell::RefCell;
use std::rc::Rc;

use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::limits::{ARM_BYTES_MAX, BULK_BLOCK_BYTES, OUTPUT_HIGH_BYTES};
use ringlane_api::{Bufferevent, LinkOptions, READ, What};

use super::stage::{Stage, Tap, cell};
use super::{Outcome, Pattern, Rig, cases, skip};

cases! {
    "a peer that sends and never reads does not make us grow" => never_reads,
    "the input's high watermark stops the peer and lets it go on" => high_watermark,
    "the input's low watermark holds the read callback back" => low_watermark,
    "the output's low watermark brings the write callback early" => write_watermark,
    "what comes while reading is off is kept, and told when it is on" => reading_off,
    "a parked receive can be freed" => parked_free,
    "a firehose leaves room for trickles" => firehose,
    "a message larger than every buffer is sent in pieces" => large_message,
    "flush hands the output over within the turn" => flush,
    "more urgent callbacks run first" => priorities,
    "an output that changes while it is being flushed is flushed again" => changed_while_flushed,
    "a link that holds many received blocks does not stop the others" => hoarder,
    "received blocks that were given back are lent to the link again" => lent_again,
}

fn never_reads(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let conns: Rc<RefCell<Vec<Bufferevent>>> = Rc::default();
    let into = Rc::clone(&conns);
    let server = stage.listen(move |conn| {
        conn.on_read(|c| {
            c.output().append(c.input());
        });
        conn.enable(READ);
        into.borrow_mut().push(conn);
    });
    let client = stage.connect(&server);
    let total = rig.scaled(64 << 20, 4 << 20);
    let pattern = Pattern::new(9);
    client.output().add(&pattern.bytes(0, total));
    stage.until("it is accepted", || conns.borrow().len() == 1);
    let conn = conns.borrow()[0].clone();
    stage.settle(|| client.output().len() + conn.output().len());
    let held = conn.output().len() + conn.input().len();
    let bound = OUTPUT_HIGH_BYTES + BULK_BLOCK_BYTES + 2 * ARM_BYTES_MAX as usize;
    assert!(held <= bound, "the server holds {held} bytes for a client that never reads");
    assert!(client.output().len() > total / 4, "nothing pushed back on the client");
    // It is not stuck: as soon as the client reads, everything comes.
    let tap = Tap::on(&client);
    stage.until("all bytes are back", || tap.len() == total || tap.ended());
    assert!(tap.bytes() == pattern.bytes(0, total));
    Outcome::Pass
}

fn high_watermark(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, _), (client, _)) = stage.link();
    let high = 64 * 1024;
    server.on_read(|_| {});
    server.set_read_watermark(0, high);
    let total = rig.scaled(32 << 20, 2 << 20);
    let pattern = Pattern::new(10);
    client.output().add(&pattern.bytes(0, total));
    stage.settle(|| server.input().len() + client.output().len());
    let held = server.input().len();
    assert!(held <= high + 32 * 1024, "{held} bytes unread with a high watermark of {high}");
    assert!(held >= high / 2, "only {held} bytes came");
    assert!(!client.output().is_empty(), "nothing pushed back on the client");
    let mut got = Vec::new();
    stage.until("everything comes as it is read", || {
        got.extend(server.input().take());
        got.len() == total
    });
    assert!(got == pattern.bytes(0, total));
    Outcome::Pass
}

fn low_watermark(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, _), (client, _)) = stage.link();
    let seen: Rc<RefCell<Vec<usize>>> = Rc::default();
    let into = Rc::clone(&seen);
    server.on_read(move |c| into.borrow_mut().push(c.input().take().len()));
    server.set_read_watermark(1000, 0);
    for _ in 0..4 {
        client.output().add(&[1; 249]);
        client.flush();
        stage.settle(|| server.input().len());
    }
    assert_eq!((seen.borrow().len(), server.input().len()), (0, 996));
    client.output().add(&[1; 10]);
    stage.until("the low watermark is reached", || !seen.borrow().is_empty());
    // The last ten bytes may come in pieces; the callback must not have come before enough had.
    assert!(seen.borrow()[0] >= 1000, "{seen:?}");
    let sum = || seen.borrow().iter().sum::<usize>();
    stage.until("all of it is there", || sum() + server.input().len() == 1006);
    Outcome::Pass
}

fn write_watermark(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    let low = 64 * 1024;
    let levels: Rc<RefCell<Vec<usize>>> = Rc::default();
    let into = Rc::clone(&levels);
    client.on_write(move |c| into.borrow_mut().push(c.output().len()));
    client.set_write_watermark(low, 0);
    server.disable(READ);
    client.output().add(&vec![1; 8 << 20]);
    stage.settle(|| client.output().len());
    assert!(levels.borrow().is_empty(), "told with {} bytes left", client.output().len());
    server.enable(READ);
    stage.until("everything has come", || at_server.len() == 8 << 20);
    stage.until("the write callback has come", || !levels.borrow().is_empty());
    assert!(levels.borrow().iter().all(|left| *left <= low), "{levels:?}");
    Outcome::Pass
}

fn reading_off(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    for round in 1..=5 {
        server.disable(READ);
        stage.idle(3);
        let before = at_server.len();
        client.output().add(&[round; 5_000]);
        stage.settle(|| client.output().len());
        assert_eq!(at_server.len(), before, "a read callback although reading is off");
        server.enable(READ);
        stage.until("what was kept is told", || at_server.len() == before + 5_000);
    }
    client.output().add(b"last");
    server.disable(READ);
    client.finish();
    stage.settle(|| client.output().len());
    server.enable(READ);
    stage.until("the end is told too", || at_server.eofs() == 1);
    assert!(at_server.bytes().ends_with(b"last"));
    Outcome::Pass
}

fn parked_free(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    for way in 0..6 {
        let ((server, _), (client, _)) = stage.link();
        if way % 2 == 0 {
            server.disable(READ);
        }
        if way > 2 {
            client.output().add(&[1; 40_000]);
        }
        stage.idle(way);
        if way % 3 == 0 {
            server.free()
        } else {
            server.abort()
        }
        client.abort();
        stage.until("all links are gone", || stage.base.stats().links == 0);
    }
    Outcome::Pass
}

fn firehose(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let (sink, hoses) = stage.sink();
    let echo = stage.echo();
    let swallowed = cell(0usize);
    let pumps: Vec<Bufferevent> = (0..2)
        .map(|_| {
            let pump = stage.connect(&sink);
            let gush = |c: &Bufferevent| c.output().add(&[5; 256 * 1024]);
            pump.on_write(gush);
            gush(&pump);
            pump
        })
        .collect();
    stage.until("the firehoses are accepted", || hoses.borrow().len() == 2);
    for (hose, _) in hoses.borrow().iter() {
        let sum = Rc::clone(&swallowed);
        hose.on_read(move |c| {
            let n = c.input().len();
            c.input().drain(n);
            sum.set(sum.get() + n);
        });
    }
    let trips: Vec<Rc<std::cell::Cell<u32>>> = (0..8)
        .map(|_| {
            let trickle = stage.connect(&echo);
            let trips = cell(0);
            let count = Rc::clone(&trips);
            trickle.on_read(move |c| {
                count.set(count.get() + 1);
                c.output().append(c.input());
            });
            trickle.enable(READ);
            trickle.output().add(b"drop");
            trips
        })
        .collect();
    // A virtual ring is as fast as memory, and the sockets of its hand-over are as slow as sockets.
    let memory = if rig.is("rdma") { 64 << 20 } else { 256 << 20 };
    let enough = rig.scaled(64 << 20, if rig.shares_memory() { memory } else { 4 << 20 });
    stage.until("the firehoses have gushed", || swallowed.get() >= enough);
    // Not a time: while so many bytes pass, each trickle must have had its turns.
    let least = trips.iter().map(|trips| trips.get()).min().unwrap_or(0);
    assert!(least >= 3, "a trickle made {least} trips while {enough} bytes gushed");
    for pump in pumps {
        pump.abort();
    }
    Outcome::Pass
}

fn large_message(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let (listener, taps) = stage.sink();
    let options = LinkOptions { send_buffer: Some(4096), ..LinkOptions::default() };
    let to = listener.address().to_string();
    let client = stage.base.connect_with(&to, &options).expect("the address is valid");
    let total = rig.scaled(5 << 20, 1 << 20);
    let pattern = Pattern::new(11);
    client.output().add(&pattern.bytes(0, total));
    client.finish();
    stage.until("it has come", || taps.borrow().first().is_some_and(|(_, tap)| tap.ended()));
    assert!(taps.borrow()[0].1.bytes() == pattern.bytes(0, total));
    Outcome::Pass
}

fn flush(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((_server, at_server), (client, _)) = stage.link();
    client.output().add(b"now");
    client.flush();
    client.output().add(b" and then");
    client.flush();
    client.flush();
    stage.until("all of it comes", || at_server.len() == 12);
    assert_eq!(at_server.bytes(), b"now and then");
    Outcome::Pass
}

fn priorities(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    stage.base.set_priorities(3).expect("three are allowed");
    let order: Rc<RefCell<Vec<usize>>> = Rc::default();
    let events: Vec<_> = [2, 0, 1]
        .into_iter()
        .map(|priority| {
            let into = Rc::clone(&order);
            let event = stage.base.user_event(move |_, _| into.borrow_mut().push(priority));
            event.set_priority(priority);
            event
        })
        .collect();
    for event in &events {
        event.activate(What::READ);
    }
    stage.until("all were called", || order.borrow().len() == 3);
    assert_eq!(*order.borrow(), [0, 1, 2]);
    // Connections, too: both have bytes waiting, the urgent one was accepted last.
    let ((slow, _), (to_slow, _)) = stage.link();
    let ((fast, _), (to_fast, _)) = stage.link();
    order.borrow_mut().clear();
    for (conn, priority) in [(&slow, 2), (&fast, 0)] {
        conn.set_priority(priority);
        let into = Rc::clone(&order);
        conn.on_read(move |c| {
            c.input().take();
            into.borrow_mut().push(priority);
        });
    }
    to_slow.output().add(b"x");
    to_fast.output().add(b"x");
    stage.until("both were called", || order.borrow().len() == 2);
    Outcome::Pass
}

fn changed_while_flushed(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((_server, at_server), (client, _)) = stage.link();
    let mut want = Vec::new();
    for round in 0..200u32 {
        let piece = round.to_le_bytes();
        want.extend_from_slice(&piece);
        client.output().add(&piece);
        if round % 3 == 0 {
            client.flush();
        }
        if round % 2 == 0 {
            let mut more = Evbuffer::new();
            more.add(b"+");
            want.push(b'+');
            client.output().append(&mut more);
        }
        if round % 5 == 0 {
            stage.idle(1);
        }
    }
    stage.until("all of it comes", || at_server.len() == want.len());
    assert!(at_server.bytes() == want);
    Outcome::Pass
}

fn hoarder(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let hoards: Rc<RefCell<Vec<Evbuffer>>> = Rc::default();
    let into = Rc::clone(&hoards);
    let hoarding = stage.listen(move |conn| {
        let into = Rc::clone(&into);
        conn.on_read(move |c| into.borrow_mut().push(c.input().detach()));
        conn.enable(READ);
    });
    let total = rig.scaled(16 << 20, 3 << 20);
    let clients: Vec<Bufferevent> = (0..4)
        .map(|_| {
            let client = stage.connect(&hoarding);
            client.output().add(&vec![2; total / 4]);
            client
        })
        .collect();
    let held = || hoards.borrow().iter().map(Evbuffer::len).sum::<usize>();
    stage.until("everything is hoarded", || held() == total);
    let echo = stage.echo();
    let client = stage.connect(&echo);
    client.output().add(b"room for me?");
    let tap = Tap::on(&client);
    stage.until("another link still works", || tap.len() == 12);
    drop(clients);
    // Blocks that are out outlive the base.
    drop(stage);
    assert_eq!(held(), total);
    Outcome::Pass
}

fn lent_again(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, _), (client, _)) = stage.link();
    let kept: Rc<RefCell<Vec<bool>>> = Rc::default();
    let into = Rc::clone(&kept);
    server.on_read(move |c| {
        let on_block = c.input().with(|input| input.front().is_some_and(|s| s.is_block()));
        into.borrow_mut().push(on_block == Some(true));
        let n = c.input().len();
        c.input().drain(n);
    });
    for round in 1..=40 {
        client.output().add(&[3; 2_000]);
        stage.until("it has come", || kept.borrow().len() >= round);
    }
    let kept = kept.borrow();
    if !kept[0] {
        return skip("blocks are so few here that every one is copied");
    }
    // Copies are legal when blocks are scarce, but they must not become the rule.
    let late = kept[kept.len() - 10..].iter().filter(|on_block| **on_block).count();
    assert!(late > 0, "after {} receives every byte is copied", kept.len());
    Outcome::Pass
}
