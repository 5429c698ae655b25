//! What processes say to their relay.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use ringlane::bus::local::{FromRelay, Nonce, Question, ToRelay, VERSION, decode, encode};

use super::relay_peer::rest;
use super::world::{Dice, World, logged, until};

/// The next line.
pub fn hear(stream: &mut UnixStream) -> FromRelay {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).expect("the relay says something");
        line.push(byte[0]);
    }
    decode(&line).expect("relays say lines")
}

/// The rest of what the relay says, to the end of the connection: the last line's reason.
#[track_caller]
pub fn refused(stream: &mut UnixStream) -> String {
    let all = rest(stream);
    let last = all.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
    let last = last.unwrap_or_else(|| panic!("the relay says why"));
    match decode(last).expect("a line") {
        FromRelay::Refused { why } => why,
        line => panic!("{line:?} is no refusal"),
    }
}

pub fn say(stream: &mut UnixStream, line: &ToRelay) {
    stream.write_all(&encode(line)).unwrap();
}

pub fn register(node: &str, epoch: u64) -> ToRelay {
    let nonce = Nonce([epoch as u8; 16]);
    ToRelay::Register { node: node.to_string(), epoch, nonce, version: VERSION, replace: false }
}

/// A process that is registered.
pub fn registered(world: &World, node: &str, epoch: u64) -> UnixStream {
    let mut stream = world.local();
    say(&mut stream, &register(node, epoch));
    assert!(matches!(hear(&mut stream), FromRelay::Registered { .. }));
    stream
}

#[test]
fn a_line_that_is_none_gets_a_reason_and_ends_the_connection() {
    let world = World::new();
    for (said, why) in [
        (&b"{\"say\":\"regster\"}\n"[..], "unknown variant `regster`"),
        (b"hello\n", "not a line of this protocol"),
        (b"{}\n", "not a line of this protocol"),
        (b"\n", "not a line of this protocol"),
        (b"\xff\xfe\x00\n", "not a line of this protocol"),
        (b"{\"say\":\"register\",\"node\":7}\n", "not a line of this protocol"),
    ] {
        let mut stream = world.local();
        stream.write_all(said).unwrap();
        let found = refused(&mut stream);
        assert!(found.contains(why), "{found}");
    }
    let nested = [vec![b'['; 60_000], b"\n".to_vec()].concat();
    let mut stream = world.local();
    stream.write_all(&nested).unwrap();
    refused(&mut stream);
    world.end();
}

#[test]
fn a_line_without_an_end_is_ended() {
    let world = World::new();
    for first in [b'{', b'x', b'G'] {
        let mut stream = world.local();
        // It may be closed before all of it is written.
        let _ = stream.write_all(&vec![first; 1 << 20]);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("a line of more than 65536 bytes"), "{said}");
    }
    world.end();
}

#[test]
fn lines_that_do_not_belong_there_get_a_reason() {
    let world = World::new();
    let open = ToRelay::Open { id: 1, to: "db".into(), chan: 0 };
    for (lines, why) in [
        (vec![open.clone()], "say Register first"),
        (vec![register("s0", 1), register("s0", 1)], "it has registered before"),
        (vec![register("nobody", 1)], "nobody"),
        (vec![register("db", 1)], "`db` is a node of host `b`"),
        (vec![register("@s", 1)], "no node of cluster"),
        (
            vec![ToRelay::Register {
                node: "s1".into(),
                epoch: 1,
                nonce: Nonce::default(),
                version: 99,
                replace: false,
            }],
            "version 99 of the local protocol; this relay has 1",
        ),
    ] {
        let mut stream = world.local();
        lines.iter().for_each(|line| say(&mut stream, line));
        let found = refused(&mut stream);
        assert!(found.contains(why), "{found}");
        logged(why);
    }
    world.end();
}

#[test]
fn a_name_that_is_taken_stays_its_holders() {
    let world = World::new();
    let mut stream = world.local();
    say(&mut stream, &register("web", 1));
    let line = hear(&mut stream);
    let own = std::process::id();
    assert!(matches!(line, FromRelay::NameInUse { pid, .. } if pid == own), "{line:?}");
    // The same instance is taken for one that has lost its connection.
    let _old = registered(&world, "s2", 5);
    let _new = registered(&world, "s2", 5);
    let mut late = world.local();
    say(&mut late, &register("s2", 4));
    assert!(matches!(hear(&mut late), FromRelay::NameInUse { .. }));
    world.end();
}

#[test]
fn words_about_channels_that_are_nobodys_change_nothing() {
    let world = World::new();
    let mut stream = registered(&world, "s3", 1);
    for line in [
        ToRelay::Close { id: 99 },
        ToRelay::GoneSeen { id: 99 },
        ToRelay::Probed { id: 99 },
        ToRelay::Listening { token: Nonce([9; 16]), address: "shm://@nowhere".into() },
        ToRelay::Ping { id: 7 },
    ] {
        say(&mut stream, &line);
    }
    assert_eq!(hear(&mut stream), FromRelay::Pong { id: 7 });
    say(&mut stream, &ToRelay::Open { id: 1, to: "nobody".into(), chan: 0 });
    let line = hear(&mut stream);
    assert!(matches!(&line, FromRelay::NoPath { id: 1, why } if why.contains("nobody")));
    say(&mut stream, &ToRelay::Open { id: 2, to: "@nobody".into(), chan: 0 });
    assert!(matches!(hear(&mut stream), FromRelay::NoPath { id: 2, .. }));
    world.end();
}

#[test]
fn ten_thousand_connections_that_say_nothing_keep_no_process_out() {
    let world = World::with("tcp", "[link]\nhandshake = \"2s\"\n", |_| {});
    let mut held: Vec<UnixStream> = Vec::new();
    for n in 0..10_000 {
        held.push(world.local());
        if n % 2000 == 1999 {
            drop(registered(&world, "s4", n));
            // A test process has not so many descriptors.
            held.drain(..500);
        }
    }
    let why = refused(held.last_mut().unwrap());
    assert!(why.contains("say Register, or ask something"), "{why}");
    let mut first = held.swap_remove(0);
    let why = refused(&mut first);
    assert!(why.contains("have not registered") || why.contains("say Register"), "{why}");
    world.end();
}

#[test]
fn who_asks_and_never_reads_is_not_heard_and_costs_nobody_memory() {
    let world = World::new();
    let mut stream = registered(&world, "s5", 1);
    stream.set_write_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
    let pings = encode(&ToRelay::Ping { id: u64::MAX }).repeat(1000);
    let mut written = 0;
    while written < 200 << 20 && stream.write_all(&pings).is_ok() {
        written += pings.len();
    }
    assert!(written < 32 << 20, "{written} bytes were heard of one who reads nothing");
    // As soon as it reads it is heard.
    let mut answers = 0;
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while answers < 5000 {
        line.clear();
        lines.read_line(&mut line).unwrap();
        assert!(line.contains("pong"), "{line}");
        answers += 1;
    }
    world.end();
}

#[test]
fn random_lines_cost_their_connection_at_most() {
    let world = World::new();
    let mut dice = Dice(7);
    let open = |id| ToRelay::Open { id, to: "db".into(), chan: 1 };
    let lines = [
        encode(&register("s6", 3)),
        encode(&open(1)),
        encode(&open(1)),
        encode(&ToRelay::Close { id: 1 }),
        encode(&ToRelay::GoneSeen { id: 1 }),
        encode(&ToRelay::Leave),
        encode(&ToRelay::Ask(Question::Status)),
    ];
    for _ in 0..300 {
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..dice.below(12) {
            bytes.extend(&lines[dice.below(7) as usize]);
        }
        for _ in 0..dice.below(4) {
            if bytes.is_empty() {
                break;
            }
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << dice.below(8);
        }
        let mut stream = world.local();
        let _ = stream.write_all(&bytes);
    }
    until("they are gone", || {
        let mut stream = world.local();
        say(&mut stream, &register("s6", 900));
        matches!(hear(&mut stream), FromRelay::Registered { .. })
    });
    world.end();
}
