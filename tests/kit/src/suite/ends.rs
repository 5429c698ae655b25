//! How connections end.

use std::rc::Rc;

use ringlane_api::reactor::Side;
use ringlane_api::{READ, WRITE};

use super::stage::{Stage, cell};
use super::{Outcome, Pattern, Rig, cases};

cases! {
    "after the client's half close the server still sends" => client_half_close,
    "after the server's half close the client still sends" => server_half_close,
    "the end of the stream is reported exactly once" => eof_once,
    "the end comes after every byte before it" => eof_last,
    "what was written before free still arrives" => free_sends,
    "what was written before the half close still arrives" => finish_sends,
    "abort ends it now and the peer is told" => abort_tells,
    "a peer that vanishes with bytes unread is an end, not a hang" => vanished_peer,
    "writing to a peer that is gone is one error at the writer" => write_to_gone,
    "bytes written after the half close are never sent" => write_after_finish,
}

fn client_half_close(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, at_client)) = stage.link();
    client.output().add(b"question");
    client.finish();
    stage.until("the server has it all", || at_server.eofs() == 1);
    assert_eq!(at_server.bytes(), b"question");
    let answer = Pattern::new(1).bytes(0, 300_000);
    server.output().add(&answer);
    server.finish();
    stage.until("the client has it all", || at_client.eofs() == 1);
    assert!(at_client.bytes() == answer);
    assert!(at_client.errors().is_empty() && at_server.errors().is_empty());
    Outcome::Pass
}

fn server_half_close(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, at_client)) = stage.link();
    server.finish();
    stage.until("the client sees the end", || at_client.eofs() == 1);
    let more = Pattern::new(2).bytes(0, 300_000);
    client.output().add(&more);
    client.finish();
    stage.until("the server has it all", || at_server.eofs() == 1);
    assert!(at_server.bytes() == more);
    assert!(at_client.errors().is_empty() && at_server.errors().is_empty());
    Outcome::Pass
}

fn eof_once(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    client.output().add(b"last");
    client.finish();
    stage.until("the end", || at_server.eofs() > 0);
    // Whatever is asked of it now, the end is not told again.
    server.disable(READ);
    stage.idle(20);
    server.enable(READ | WRITE);
    server.output().add(b"still here");
    stage.idle(50);
    client.finish();
    stage.idle(50);
    assert_eq!(at_server.eofs(), 1);
    assert_eq!(at_server.order(), "re");
    Outcome::Pass
}

fn eof_last(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    for round in 0..20 {
        let ((server, at_server), (client, _)) = stage.link();
        let bytes = Pattern::new(round).bytes(0, 1 + 7_000 * round as usize);
        client.output().add(&bytes);
        client.finish();
        stage.until("the end", || at_server.ended());
        assert!(at_server.bytes() == bytes, "round {round}: {} bytes", at_server.len());
        assert_eq!(at_server.order(), "re");
        server.free();
        client.free();
    }
    Outcome::Pass
}

fn free_sends(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((_server, at_server), (client, _)) = stage.link();
    let bytes = Pattern::new(4).bytes(0, rig.scaled(3_000_000, 400_000));
    client.output().add(&bytes);
    client.free();
    assert!(!client.is_alive());
    stage.until("the end", || at_server.ended());
    assert_eq!(at_server.errors(), []);
    assert!(at_server.bytes() == bytes, "{} of {} bytes", at_server.len(), bytes.len());
    Outcome::Pass
}

fn finish_sends(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((_server, at_server), (client, _)) = stage.link();
    let bytes = Pattern::new(5).bytes(0, rig.scaled(3_000_000, 400_000));
    client.output().add(&bytes[..1_000_000.min(bytes.len() / 2)]);
    stage.idle(1);
    client.output().add(&bytes[1_000_000.min(bytes.len() / 2)..]);
    client.finish();
    stage.until("the end", || at_server.ended());
    assert!(at_server.bytes() == bytes, "{} of {} bytes", at_server.len(), bytes.len());
    Outcome::Pass
}

fn abort_tells(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    server.disable(READ);
    client.output().add(&vec![1; 8 << 20]);
    stage.idle(10);
    client.abort();
    assert!(!client.is_alive());
    server.enable(READ);
    stage.until("the server is told", || at_server.ended());
    assert!(at_server.len() < 8 << 20, "abort sent everything first");
    Outcome::Pass
}

fn vanished_peer(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    client.disable(READ);
    stage.idle(5);
    server.output().add(&vec![1; 200_000]);
    stage.idle(20);
    // The client goes with bytes unread: a reset on most transports, an end on others.
    client.abort();
    stage.until("the server is told", || at_server.ended());
    assert!(at_server.eofs() <= 1);
    Outcome::Pass
}

fn write_to_gone(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    client.abort();
    stage.until("the server is told", || at_server.ended());
    for _ in 0..50 {
        if server.is_alive() {
            server.output().add(&[7; 1000]);
        }
        stage.idle(4);
    }
    let writes = at_server.errors().iter().filter(|(side, ..)| *side != Side::Read).count();
    assert!(writes <= 1, "{:?}", at_server.errors());
    assert!(at_server.eofs() <= 1);
    server.free();
    Outcome::Pass
}

fn write_after_finish(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, at_client)) = stage.link();
    client.output().add(b"in time");
    client.finish();
    client.output().add(b" too late");
    stage.until("the end", || at_server.eofs() == 1);
    // Bytes written in the same breath may still be in time; afterwards they may not.
    client.output().add(b" much too late");
    stage.idle(20);
    assert!(at_server.bytes().starts_with(b"in time"));
    assert!(!at_server.bytes().ends_with(b"much too late"));
    let done = cell(false);
    let set = Rc::clone(&done);
    server.on_write(move |_| set.set(true));
    server.output().add(b"bye");
    stage.until("the other direction still works", || at_client.bytes() == b"bye");
    Outcome::Pass
}
