//! Frames of a relay that knows the secret and has lost its mind.

use ringlane::frame::{AckAt, Body, Class, Frame, Leave, Open, Unreachable};

use super::relay_peer::RelayPeer;
use super::world::{Dice, World, logged, until};

fn open<'a>(bind: u32, linkno: u32, src: &'a str, dst: &'a str) -> Open<'a> {
    Open {
        bind,
        src,
        dst,
        chan: 0,
        class: Class::Reliable,
        priority: 1,
        ack: AckAt::Stored,
        epoch: 77,
        nonce: [7; 16],
        att: 1,
        linkno,
        expected: 0,
        ring: 64 << 10,
    }
}

/// A message with a number in it, as it lies in a ring.
fn record(number: u64) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0, 1, 0, 0, 0];
    bytes.extend(number.to_le_bytes());
    bytes
}

fn join(world: &World) -> RelayPeer {
    let me = world.identity("c");
    RelayPeer::shake(world.ports[0], &me, "a").unwrap_or_else(|refusal| panic!("{refusal}"))
}

#[test]
fn a_frame_that_makes_no_sense_ends_the_link_with_a_word() {
    let world = World::new();
    let mut ping = Vec::new();
    Frame::Ping { id: 1 }.encode(&mut ping);
    let changed = |at: usize, byte: u8| {
        let mut bytes = ping.clone();
        bytes[at] = byte;
        bytes
    };
    let mut opened = Vec::new();
    Frame::Open(open(1, 1, "c0", "victim")).encode(&mut opened);
    let name = opened.windows(2).position(|two| two == b"c0").unwrap();
    opened[name] = 0xff;
    let mut cut = Vec::new();
    Frame::Data { bind: 1, seq: 1, gaps: false, body: Body::new(&[1, 2, 3, 4]) }.encode(&mut cut);
    let cases: [(&str, Vec<u8>); 7] = [
        ("longer than any frame may be", changed(2, 0x20)),
        ("a length that does not fit its kind", changed(0, 7)),
        ("an unknown kind", changed(4, 0xee)),
        ("a field that has to be zero", changed(6, 1)),
        ("a name that is none", opened),
        ("records that are no whole ones", cut),
        ("not a frame at all", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        let mut link = join(&world);
        link.blurt(&[bytes, vec![0; 64]].concat());
        assert_eq!(link.ends(), Some(Leave::Malformed), "{what}");
    }
    logged("a link is closed: ");
    // Half a frame, and then nothing more.
    let mut link = join(&world);
    link.blurt(&ping[..9]);
    drop(link);
    logged("the link with host c is lost");
    world.end();
}

#[test]
fn names_that_are_nobodys_or_another_hosts_are_refused_and_the_link_stays() {
    let world = World::new();
    let mut link = join(&world);
    for (src, dst, why) in [
        ("c0", "nobody", Unreachable::NoSuchNode),
        ("c0", "db", Unreachable::WrongHost),
        ("web", "victim", Unreachable::Denied),
        ("db", "victim", Unreachable::Denied),
    ] {
        link.say(&Frame::Open(open(9, 1, src, dst)));
        let said = link.hear(|frame| match frame {
            Frame::Unreach { bind: 9, why, text } => Some((*why, text.to_string())),
            _ => None,
        });
        assert_eq!(said.0, why, "{}", said.1);
        assert!(!said.1.is_empty());
    }
    link.is_up();
    world.end();
}

/// Opens the channel to the victim; from which record on DATA may flow.
fn bound(link: &mut RelayPeer, number: u32) -> u32 {
    link.say(&Frame::Open(open(number, number, "c0", "victim")));
    link.hear(|frame| match frame {
        Frame::Resume { bind, next, .. } if *bind == number => Some(*next),
        _ => None,
    })
}

/// Waits until a record is stored.
fn stored(link: &mut RelayPeer, number: u32) {
    link.hear(|frame| match frame {
        Frame::Ack { stored, .. } if *stored == number => Some(()),
        _ => None,
    });
}

/// Sends records by their numbers.
fn send(link: &mut RelayPeer, bind: u32, numbers: std::ops::Range<u32>) {
    let seq = numbers.start;
    let bytes: Vec<u8> = numbers.flat_map(|number| record(number.into())).collect();
    link.say(&Frame::Data { bind, seq, gaps: false, body: Body::new(&bytes) });
}

/// The binding is ended, for nonsense.
fn broken(link: &mut RelayPeer, number: u32) {
    link.hear(|frame| match frame {
        Frame::Unreach { bind, why: Unreachable::Broken, text } if *bind == number => {
            assert!(!text.is_empty());
            Some(())
        }
        _ => None,
    });
}

#[test]
fn records_that_come_twice_or_in_disorder_are_stored_once_and_in_order() {
    let world = World::new();
    let mut link = join(&world);
    assert_eq!(bound(&mut link, 1), 1);
    send(&mut link, 1, 1..11);
    stored(&mut link, 10);
    // The same again.
    send(&mut link, 1, 5..8);
    broken(&mut link, 1);
    assert_eq!(bound(&mut link, 2), 11);
    // Some are missing before them.
    send(&mut link, 2, 15..20);
    broken(&mut link, 2);
    // What comes on a binding that has ended.
    send(&mut link, 2, 11..12);
    send(&mut link, 1, 11..12);
    assert_eq!(bound(&mut link, 3), 11);
    send(&mut link, 3, 11..13);
    stored(&mut link, 12);
    // More than was granted.
    let large = [vec![0, 0x30, 0, 0, 1, 0, 0, 0], vec![9; 0x3000]].concat();
    let many = large.repeat(8);
    link.say(&Frame::Data { bind: 3, seq: 13, gaps: false, body: Body::new(&many) });
    broken(&mut link, 3);
    let mut binding = 4;
    // Bodies that are no records.
    for body in [&[0xff; 64][..], &[8, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]] {
        let next = bound(&mut link, binding);
        link.say(&Frame::Data { bind: binding, seq: next, gaps: false, body: Body::new(body) });
        broken(&mut link, binding);
        binding += 1;
    }
    for frame in [
        Frame::Skip { bind: binding, seq: 500, to: 600 },
        Frame::Skip { bind: binding + 1, seq: 13, to: 5 },
        Frame::Fin { bind: binding + 2, last: 999 },
    ] {
        assert_eq!(bound(&mut link, frame.bind()), 13);
        link.say(&frame);
        broken(&mut link, frame.bind());
    }
    // An older generation.
    link.say(&Frame::Open(open(50, 1, "c0", "victim")));
    link.hear(|frame| matches!(frame, Frame::Stale { bind: 50, .. }).then_some(()));
    assert_eq!(bound(&mut link, 60), 13);
    send(&mut link, 60, 13..16);
    until("the victim has seen them", || world.pairs.seen().len() >= 15);
    assert_eq!(world.pairs.seen(), (1..16).collect::<Vec<u64>>());
    link.is_up();
    world.end();
}

#[test]
fn answers_that_contradict_themselves_end_a_binding_and_free_no_record() {
    let world = World::new();
    let mut link = join(&world);
    let opened = |link: &mut RelayPeer| {
        link.hear(|frame| match frame {
            Frame::Open(open) if open.src == "chatty" => Some(open.bind),
            _ => None,
        })
    };
    let resume = |bind, next| Frame::Resume {
        bind,
        next,
        limit: 1 << 20,
        epoch: 5,
        att: 1,
        record_bytes_max: (64 << 10) / 4 - 8,
    };
    let bind = opened(&mut link);
    // From a record on that was never written.
    link.say(&resume(bind, 1_000_000));
    let bind = opened(&mut link);
    link.say(&resume(bind, 1));
    link.hear(|frame| matches!(frame, Frame::Data { .. }).then_some(()));
    // What was never sent cannot be stored.
    link.say(&Frame::Ack { bind, stored: 900_000, limit: 0, consumed: 900_000, expired: 3 });
    let bind = opened(&mut link);
    link.say(&resume(bind, 1));
    let first = link.hear(|frame| match frame {
        Frame::Data { seq, .. } => Some(*seq),
        _ => None,
    });
    assert_eq!(first, 1, "no record was let go");
    link.is_up();
    world.end();
}

/// A frame that is well formed, most of the time.
fn any_frame(dice: &mut Dice) -> Vec<u8> {
    let bind = dice.below(6) as u32;
    let seq = [dice.below(4) as u32, dice.roll() as u32][dice.below(2) as usize];
    let any = dice.roll();
    let names = ["c0", "c1", "victim", "web", "s0", "db"];
    let body = record(any).repeat(1 + dice.below(20) as usize);
    let [src, dst] = [names[dice.below(6) as usize], names[dice.below(6) as usize]];
    let frame = match dice.below(16) {
        0 | 1 => Frame::Open(open(bind, dice.below(100) as u32, src, dst)),
        2 => {
            Frame::Resume { bind, next: seq, limit: any, epoch: 5, att: 1, record_bytes_max: 16376 }
        }
        3 => Frame::Stale { bind, known: any },
        4 => Frame::Unreach { bind, why: Unreachable::Broken, text: "no" },
        5 | 6 => Frame::Data { bind, seq, gaps: any.is_multiple_of(2), body: Body::new(&body) },
        7 => Frame::Skip { bind, seq, to: seq.wrapping_add(dice.below(9) as u32) },
        8 => Frame::Ack { bind, stored: seq, limit: any, consumed: seq, expired: 0 },
        9 => Frame::Fin { bind, last: seq },
        10 => Frame::Abort { bind },
        11 => Frame::Closed { bind },
        12 => Frame::Gone { bind, epoch: 5, first: seq, exact: true },
        13 => Frame::GoneOk { bind },
        14 => Frame::Stuck { bind, millis: seq },
        _ => Frame::Pong { id: any },
    };
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    if dice.below(40) == 0 {
        let at = dice.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << dice.below(8);
    }
    bytes
}

#[test]
fn thousands_of_random_frames_cost_the_link_at_most() {
    let world = World::new();
    let mut dice = Dice(20);
    for _ in 0..80 {
        let mut link = join(&world);
        let n = 1 + dice.below(150);
        let bytes: Vec<u8> = (0..n).flat_map(|_| any_frame(&mut dice)).collect();
        link.blurt(&bytes);
    }
    // Whole nonsense, and whole frames that are cut anywhere.
    for _ in 0..40 {
        let mut link = join(&world);
        let n = 1 + dice.below(5000) as usize;
        let bytes = dice.bytes(n);
        link.blurt(&bytes);
    }
    world.end();
}

#[test]
fn a_relay_that_asks_and_never_reads_loses_its_link() {
    let world = World::with("tcp", "[limits]\nlink_buffer = \"128KiB\"\n", |_| {});
    let mut link = join(&world);
    let mut pings = Vec::new();
    (0..2000).for_each(|id| Frame::Ping { id }.encode(&mut pings));
    // The buffers of the kernel take some megabytes first.
    link.stream.set_write_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    for _ in 0..1000 {
        if std::io::Write::write_all(&mut link.stream, &pings).is_err() {
            break;
        }
    }
    logged("the relay of host c reads nothing: its link is closed");
    world.end();
}
