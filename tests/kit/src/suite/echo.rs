//! Bytes there and back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringlane_api::evbuffer::Eol;
use ringlane_api::{BevEvent, Bufferevent, Handler, READ};

use super::stage::{Stage, Tap, cell};
use super::{Checker, Outcome, Pattern, Rig, cases};
use crate::sim::Rng;

cases! {
    "a connection without a byte opens and ends on both sides" => nothing,
    "one byte is echoed" => one_byte,
    "a mebibyte is echoed byte for byte" => mebibyte,
    "64 MiB are echoed byte for byte" => many_mebibytes,
    "ten thousand messages of random sizes arrive in order" => messages,
    "a hundred connections echo at the same time" => hundred,
    "two hundred connections share a few receive blocks" => few_blocks,
    "bytes written before the connection is made arrive" => early_bytes,
    "writes from within the write callback follow each other" => write_chain,
    "lines are answered one by one, however they were cut up" => lines,
    "one Handler object gets every kind of event" => handler,
    "what comes during a callback is told by another callback" => during_callback,
    "input that is left unread is told again only when more comes" => left_unread,
}

/// Sends `total` bytes through an echo server and checks what comes back.
fn round_trip(rig: &Rig, total: u64) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let client = stage.connect(&server);
    let pattern = Pattern::new(total);
    let checker = Rc::new(RefCell::new(Checker::new(pattern.clone())));
    let wrong = cell(false);
    let (check, bad) = (Rc::clone(&checker), Rc::clone(&wrong));
    client.on_read(move |c| {
        let bytes = c.input().take();
        if !check.borrow_mut().feed(&bytes) {
            bad.set(true);
        }
    });
    let mut written = 0;
    client.enable(READ);
    stage.until("all bytes are back", || {
        // Feed as a file would be read: never more than half a mebibyte ahead.
        while written < total && client.output().len() < 512 * 1024 {
            let n = (total - written).min(64 * 1024 + 17);
            client.output().add(&pattern.bytes(written, n as usize));
            written += n;
        }
        assert!(!wrong.get(), "wrong byte after {}", checker.borrow().count());
        checker.borrow().count() == total
    });
    client.free();
    Outcome::Pass
}

fn nothing(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, at_client)) = stage.link();
    client.finish();
    stage.until("the server sees the end", || at_server.eofs() == 1);
    server.finish();
    stage.until("the client sees the end", || at_client.eofs() == 1);
    assert_eq!((at_server.len(), at_client.len()), (0, 0));
    assert!(at_server.errors().is_empty() && at_client.errors().is_empty());
    assert_eq!(at_client.order(), "ce");
    Outcome::Pass
}

fn one_byte(rig: &Rig) -> Outcome {
    round_trip(rig, 1)
}

fn mebibyte(rig: &Rig) -> Outcome {
    round_trip(rig, 1 << 20)
}

fn many_mebibytes(rig: &Rig) -> Outcome {
    round_trip(rig, rig.scaled(64 << 20, 3 << 20))
}

fn messages(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let client = stage.connect(&server);
    let tap = Tap::on(&client);
    let pattern = Pattern::new(3);
    let mut rng = Rng::new(77);
    let count = rig.scaled(10_000, 2_000);
    let (mut sent, mut messages) = (0, 0);
    stage.until("all messages are back", || {
        for _ in 0..50 {
            if messages < count {
                let n = rng.size(3_000);
                client.output().add(&pattern.bytes(sent, n as usize));
                sent += n;
                messages += 1;
            }
        }
        messages == count && tap.len() as u64 == sent
    });
    assert!(tap.bytes() == pattern.bytes(0, sent as usize), "bytes came back changed");
    client.free();
    Outcome::Pass
}

fn many_links(rig: &Rig, links: u64, bytes: usize) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let clients: Vec<(Bufferevent, Tap, Pattern)> = (0..links)
        .map(|seed| {
            let client = stage.connect(&server);
            let pattern = Pattern::new(seed);
            client.output().add(&pattern.bytes(0, bytes));
            let tap = Tap::on(&client);
            (client, tap, pattern)
        })
        .collect();
    stage.until("every link has its bytes back", || {
        clients.iter().all(|(_, tap, _)| tap.len() >= bytes || tap.ended())
    });
    for (client, tap, pattern) in &clients {
        assert_eq!(tap.errors(), []);
        assert!(tap.bytes() == pattern.bytes(0, bytes), "a link got another's bytes");
        client.free();
    }
    Outcome::Pass
}

fn hundred(rig: &Rig) -> Outcome {
    many_links(rig, 100, 3_000)
}

fn few_blocks(rig: &Rig) -> Outcome {
    many_links(rig, 200, rig.scaled(100_000, 20_000))
}

fn early_bytes(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let (server, taps) = stage.sink();
    let client = stage.connect(&server);
    client.output().add(b"before anything ");
    let hello = Tap::on(&client);
    client.output().add(b"was connected");
    let all = b"before anything was connected";
    stage.until("the early bytes arrive", || {
        taps.borrow().first().is_some_and(|(_, tap)| tap.len() >= all.len())
    });
    assert_eq!(taps.borrow()[0].1.bytes(), all);
    stage.until("the client is told that it is connected", || hello.connected() == 1);
    client.free();
    Outcome::Pass
}

fn write_chain(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((_server, at_server), (client, _)) = stage.link();
    let left = cell(99u32);
    client.on_write(move |c| {
        if left.get() > 0 {
            left.set(left.get() - 1);
            c.output().add(b"again ");
        }
    });
    client.output().add(b"again ");
    stage.until("a hundred writes have arrived", || at_server.len() == 600);
    assert_eq!(at_server.bytes(), b"again ".repeat(100));
    Outcome::Pass
}

fn lines(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.listen(|conn| {
        conn.on_read(|c| {
            while let Some(line) = c.input().readln(Eol::Crlf) {
                c.output().add(&line);
                c.output().add(b"!\n");
            }
        });
        conn.enable(READ);
    });
    let client = stage.connect(&server);
    let tap = Tap::on(&client);
    for piece in ["on", "e\ntw", "o\r", "\nthree", "\n", "\nfi", "ve\n"] {
        client.output().add(piece.as_bytes());
        client.flush();
        stage.idle(3);
    }
    let want = b"one!\ntwo!\nthree!\n!\nfive!\n";
    stage.until("every line is answered", || tap.len() == want.len());
    assert_eq!(tap.bytes(), want);
    Outcome::Pass
}

/// Counts what it is told.
struct Counts(Rc<Cell<[u32; 4]>>);

impl Counts {
    fn add(&self, at: usize) {
        let mut counts = self.0.get();
        counts[at] += 1;
        self.0.set(counts);
    }
}

impl Handler for Counts {
    fn on_connected(&mut self, conn: &Bufferevent) {
        self.add(0);
        conn.output().add(b"hello");
    }
    fn on_read(&mut self, conn: &Bufferevent) {
        self.add(1);
        conn.input().take();
        conn.finish();
    }
    fn on_written(&mut self, _conn: &Bufferevent) {
        self.add(2);
    }
    fn on_event(&mut self, _conn: &Bufferevent, event: &BevEvent) {
        if event.is_end() {
            self.add(3);
        }
    }
}

fn handler(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let counts = cell([0u32; 4]);
    let client = stage.connect(&server);
    client.set_handler(Counts(Rc::clone(&counts)));
    client.enable(READ);
    stage.until("the end has come", || counts.get()[3] > 0);
    let [connected, read, written, ended] = counts.get();
    assert_eq!((connected, ended), (1, 1));
    assert!(read >= 1 && written >= 1, "read {read}, written {written}");
    Outcome::Pass
}

fn during_callback(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, _), (client, _)) = stage.link();
    // A ball: each side answers from inside its read callback.
    let hits = cell(0u32);
    for end in [&server, &client] {
        let hits = Rc::clone(&hits);
        end.on_read(move |c| {
            hits.set(hits.get() + 1);
            c.output().append(c.input());
        });
    }
    client.output().add(b"ball");
    stage.until("the ball was hit a thousand times", || hits.get() >= 1_000);
    Outcome::Pass
}

fn left_unread(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, _), (client, _)) = stage.link();
    let calls = cell(0);
    let count = Rc::clone(&calls);
    server.on_read(move |_| count.set(count.get() + 1));
    client.output().add(b"x");
    stage.until("the first byte is told", || calls.get() == 1);
    stage.idle(50);
    assert_eq!(calls.get(), 1, "nothing new came, and yet the callback did");
    client.output().add(b"y");
    stage.until("the second byte is told", || calls.get() == 2);
    assert_eq!(server.input().take(), b"xy");
    Outcome::Pass
}
