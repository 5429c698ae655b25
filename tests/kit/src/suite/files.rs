//! File ranges, pipes, pairs and filters.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::{Bufferevent, Filter, READ};

use super::stage::{Stage, Tap};
use super::{Outcome, Pattern, Rig, cases, skip};

cases! {
    "file ranges arrive in order between other bytes" => file_ranges,
    "a large file arrives byte for byte" => large_file,
    "a file that is shorter than promised is an error, not a hang" => short_file,
    "a pair is connected from the start" => pair,
    "pipes become bufferevents" => pipes,
    "a filter changes bytes both ways" => filter,
    "filters stand on filters, and ends pass through" => filters_stack,
    "a filter that fails is an error event" => filter_fails,
}

fn a_file(rig: &Rig, bytes: &[u8]) -> OwnedFd {
    let path = rig.path("file");
    let mut file = File::create(&path).expect("a temporary file can be made");
    file.write_all(bytes).expect("there is room for it");
    let file = File::open(&path).expect("it was just made");
    std::fs::remove_file(&path).expect("it was just made");
    file.into()
}

fn file_ranges(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((_server, at_server), (client, _)) = stage.link();
    let content = Pattern::new(20).bytes(0, 200_000);
    let out = client.output();
    out.add(b"head");
    out.add_file(a_file(rig, &content), 1_000, 50_000);
    out.add(b"middle");
    out.add_file(a_file(rig, &content), 199_999, 1);
    out.add_file(a_file(rig, &content), 0, 3);
    out.add(b"tail");
    assert_eq!(client.output().len(), 4 + 50_000 + 6 + 1 + 3 + 4);
    client.finish();
    stage.until("the end", || at_server.ended());
    let mut want = b"head".to_vec();
    want.extend_from_slice(&content[1_000..51_000]);
    want.extend_from_slice(b"middle");
    want.extend_from_slice(&content[199_999..]);
    want.extend_from_slice(&content[..3]);
    want.extend_from_slice(b"tail");
    assert_eq!(at_server.errors(), []);
    assert!(at_server.bytes() == want, "{} of {} bytes", at_server.len(), want.len());
    Outcome::Pass
}

fn large_file(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((_server, at_server), (client, _)) = stage.link();
    let content = Pattern::new(21).bytes(0, rig.scaled(20 << 20, 1 << 20));
    client.output().add_file(a_file(rig, &content), 0, content.len() as u64);
    client.finish();
    stage.until("the end", || at_server.ended());
    assert!(at_server.bytes() == content, "{} of {} bytes", at_server.len(), content.len());
    Outcome::Pass
}

fn short_file(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((_server, at_server), (client, at_client)) = stage.link();
    client.output().add_file(a_file(rig, b"only ten!!"), 0, 1_000);
    stage.until("the error is told", || !at_client.errors().is_empty());
    assert!(at_server.len() <= 10);
    client.free();
    stage.until("the peer is told", || at_server.ended());
    Outcome::Pass
}

fn pair(rig: &Rig) -> Outcome {
    if !rig.is("unix") {
        return skip("pairs are Unix sockets; the unix rows try them");
    }
    let stage = Stage::new(rig);
    let (a, b) = stage.base.pair().expect("a pair can be made");
    let (at_a, at_b) = (Tap::on(&a), Tap::on(&b));
    assert!(a.is_connected() && b.is_connected());
    a.output().add(b"ping");
    stage.until("b has it", || at_b.bytes() == b"ping");
    b.output().add(b"pong");
    b.finish();
    stage.until("a has it", || at_a.bytes() == b"pong" && at_a.eofs() == 1);
    Outcome::Pass
}

fn pipes(rig: &Rig) -> Outcome {
    if !rig.real {
        return skip("virtual sockets are no descriptors");
    }
    if !rig.is("unix") {
        return skip("pipes have no transport of their own; the unix rows try them");
    }
    let stage = Stage::new(rig);
    let (reader, mut writer) = std::io::pipe().expect("pipes can be made");
    let conn = stage.base.from_fd(reader).expect("a pipe becomes a bufferevent");
    let tap = Tap::on(&conn);
    writer.write_all(b"through the pipe").expect("the pipe has room");
    stage.until("the bytes come", || tap.len() == 16);
    drop(writer);
    stage.until("the end comes", || tap.eofs() == 1);
    conn.free();
    let (mut reader, writer) = std::io::pipe().expect("pipes can be made");
    let conn = stage.base.from_fd(writer).expect("a pipe becomes a bufferevent");
    let bytes = Pattern::new(22).bytes(0, 300_000);
    conn.output().add(&bytes);
    conn.free();
    let reading = std::thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).map(|_| got)
    });
    stage.base.dispatch().expect("it ends when the pipe is closed");
    let got = reading.join().expect("the reader does not panic").expect("the pipe can be read");
    assert!(got == bytes, "{} of {} bytes", got.len(), bytes.len());
    Outcome::Pass
}

/// Turns letters by thirteen places, both ways.
struct Rot13(Rc<Cell<u32>>);

fn rot13(from: &mut Evbuffer, to: &mut Evbuffer) {
    let turned: Vec<u8> = from.take().into_iter().map(turn).collect();
    to.add(&turned);
}

fn turn(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => (byte - b'a' + 13) % 26 + b'a',
        b'A'..=b'Z' => (byte - b'A' + 13) % 26 + b'A',
        other => other,
    }
}

impl Filter for Rot13 {
    fn input(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, _end: bool) -> io::Result<()> {
        self.0.set(self.0.get() + 1);
        rot13(from, to);
        Ok(())
    }
    fn output(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, _end: bool) -> io::Result<()> {
        self.0.set(self.0.get() + 1);
        rot13(from, to);
        Ok(())
    }
}

fn filtered(stage: &Stage, under: Bufferevent) -> (Bufferevent, Rc<Cell<u32>>) {
    let calls = Rc::new(Cell::new(0));
    (stage.base.filter(under, Rot13(Rc::clone(&calls))), calls)
}

fn filter(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    let (top, calls) = filtered(&stage, client);
    let at_top = Tap::on(&top);
    top.output().add(b"Hello, World");
    stage.until("it arrives turned", || at_server.len() == 12);
    assert_eq!(at_server.bytes(), b"Uryyb, Jbeyq");
    server.output().add(b"Uryyb, onpx");
    stage.until("it comes back turned", || at_top.len() == 11);
    assert_eq!(at_top.bytes(), b"Hello, back");
    assert!(calls.get() >= 2);
    let bytes = Pattern::new(23).bytes(0, 300_000);
    top.output().add(&bytes);
    top.free();
    stage.until("all of it and the end arrive", || at_server.ended());
    let got = at_server.bytes()[12..].to_vec();
    assert!(got == bytes.into_iter().map(turn).collect::<Vec<u8>>());
    server.free();
    stage.until("all links are gone", || stage.base.stats().links == 0);
    Outcome::Pass
}

fn filters_stack(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    let (middle, _) = filtered(&stage, client);
    let (top, _) = filtered(&stage, middle);
    let at_top = Tap::on(&top);
    top.output().add(b"twice is nothing");
    stage.until("it arrives as it was", || at_server.len() == 16);
    assert_eq!(at_server.bytes(), b"twice is nothing");
    server.output().add(b"indeed");
    server.finish();
    stage.until("the end passes through", || at_top.eofs() == 1);
    assert_eq!(at_top.bytes(), b"indeed");
    top.output().add(b" so");
    top.finish();
    stage.until("the half close passes through", || at_server.eofs() == 1);
    assert_eq!(at_server.bytes(), b"twice is nothing so");
    top.free();
    server.free();
    stage.until("all links are gone", || stage.base.stats().links == 0);
    Outcome::Pass
}

/// Takes nothing.
struct Broken;

impl Filter for Broken {
    fn input(&mut self, _from: &mut Evbuffer, _to: &mut Evbuffer, _end: bool) -> io::Result<()> {
        Err(io::Error::other("not my kind of bytes"))
    }
    fn output(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, _end: bool) -> io::Result<()> {
        to.append(from);
        Ok(())
    }
}

fn filter_fails(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, _), (client, _)) = stage.link();
    let top = stage.base.filter(client, Broken);
    let at_top = Tap::on(&top);
    top.enable(READ);
    server.output().add(b"x");
    stage.until("the error is told", || !at_top.errors().is_empty());
    assert!(at_top.errors()[0].2.contains("not my kind of bytes"), "{:?}", at_top.errors());
    top.free();
    Outcome::Pass
}
