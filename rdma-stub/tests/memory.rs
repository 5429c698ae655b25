//! The wire of shared memory: packets, bells, and a peer that writes what it likes.

#![forbid(unsafe_code)]

#[path = "world/memory.rs"]
#[allow(dead_code, reason = "the mutants use the rest")]
mod world;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use ringlane_rdma_stub::soft::{MemoryWire, Packet, Says, Wire};
use ringlane_rdma_stub::verbs::{PairNumber, Port};
use ringlane_shm::layout::PAGE;
use world::{file, header, join};

const MOST: u32 = 8 * 1024;

fn two() -> (File, MemoryWire, MemoryWire, Port, Port) {
    let file = file();
    let (mut a, mut b) = (MemoryWire::new(MOST), MemoryWire::new(MOST));
    let (here, there) = (join(&mut a, &file, 0), join(&mut b, &file, 1));
    (file, a, b, here, there)
}

fn packet(number: u32, says: Says) -> Packet {
    Packet { to: PairNumber(7), from: PairNumber(9), number, says }
}

fn message(number: u32, bytes: usize) -> Packet {
    packet(number, Says::Message(vec![number as u8; bytes]))
}

/// Everything that can be taken now; a pass ends, the next one sees what came meanwhile.
fn take_all(wire: &mut MemoryWire) -> Vec<Packet> {
    let mut got = Vec::new();
    loop {
        let before = got.len();
        got.extend(std::iter::from_fn(|| wire.take()).map(|(_, packet)| packet));
        if got.len() == before {
            return got;
        }
    }
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let says = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..MOST as usize).prop_map(Says::Message),
        Just(Says::Placed),
        Just(Says::NotReady),
        Just(Says::Refused),
    ];
    (any::<u32>(), says).prop_map(|(number, says)| packet(number, says))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn packets_come_out_as_they_went_in_and_nobody_sleeps_over_one(
        packets in proptest::collection::vec(any_packet(), 1..60),
        sleeps in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let (_file, mut a, mut b, here, there) = two();
        let mut got = Vec::new();
        for (packet, sleeps) in packets.iter().zip(sleeps) {
            let asleep = sleeps && !b.rest();
            let mut packet = packet.clone();
            while let Err(back) = a.put(here, packet) {
                // No room: what is published must have been heard of, and makes some.
                a.publish();
                b.wake(there);
                got.extend(take_all(&mut b));
                b.publish();
                packet = back;
            }
            let rung = a.publish();
            if asleep && !b.is_hot() {
                prop_assert_eq!(rung, [here], "it is asleep and was told");
                b.wake(there);
            }
        }
        b.wake(there);
        got.extend(take_all(&mut b));
        prop_assert_eq!(got, packets);
        prop_assert!(b.spoiled().is_empty() && !b.rest());
    }
}

#[test]
fn a_bell_rings_once_per_announcement_and_not_for_who_is_awake() {
    let (_file, mut a, mut b, here, there) = two();
    let say = |a: &mut MemoryWire, n| {
        assert!(a.put(here, message(n, 10)).is_ok());
        a.publish()
    };
    assert!(say(&mut a, 0).is_empty(), "it looks by itself");
    assert!(b.rest(), "and finds it by looking once more");
    assert_eq!(take_all(&mut b).len(), 1);
    b.publish();
    assert!(!b.rest() && !b.is_hot());
    assert_eq!(say(&mut a, 1), [here]);
    assert!(say(&mut a, 2).is_empty(), "once is enough");
    assert!(take_all(&mut b).is_empty(), "nobody looks at a port that is asleep");
    b.wake(there);
    assert_eq!(take_all(&mut b).len(), 2);
}

#[test]
fn who_waits_for_room_is_rung_when_there_is_some_and_answers_have_their_own() {
    let (_file, mut a, mut b, here, there) = two();
    let sent = (0..).take_while(|n| a.put(here, message(*n, 8000)).is_ok()).count();
    assert!((7..=8).contains(&sent), "{sent} messages fill it");
    let answers = (0..).take_while(|n| a.put(here, packet(*n, Says::Placed)).is_ok()).count();
    assert!(answers >= 16, "{answers} answers still fit");
    a.publish();
    assert!(!a.rest(), "it waits");
    b.wake(there);
    assert_eq!(take_all(&mut b).len(), sent + answers);
    assert_eq!(b.publish(), [there], "room is news to who waits for it");
    a.wake(here);
    assert!(a.put(here, message(99, 8000)).is_ok());
    // A reader that keeps up does not ring a writer that waits for nothing.
    a.publish();
    while a.rest() {}
    assert_eq!(take_all(&mut b).len(), 1);
    assert!(b.publish().is_empty());
}

/// Half a frame is no reason to stay awake, and it is whole when the rest comes.
#[test]
fn half_a_frame_waits_asleep() {
    let (file, mut a, mut b, here, there) = two();
    let words = PAGE as u64;
    assert!(a.put(here, message(1, 100)).is_ok());
    a.publish();
    // The peer's word says less than it did: 30 of 120 bytes.
    let mut whole = [0; 8];
    file.read_exact_at(&mut whole, words).expect("its word");
    assert_eq!(u64::from_le_bytes(whole) & 0xffff_ffff, 120);
    file.write_all_at(&30_u64.to_le_bytes(), words).expect("written");
    b.wake(there);
    assert!(take_all(&mut b).is_empty());
    b.publish();
    assert!(!b.rest(), "nothing is left to do until more comes");
    file.write_all_at(&whole, words).expect("written");
    b.wake(there);
    assert_eq!(take_all(&mut b), [message(1, 100)]);
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// One word, in the page of counters more often than elsewhere.
fn scribble(file: &File, rng: &mut Rng) {
    let bytes = header().segment_bytes();
    let at = match rng.below(3) {
        0 => rng.below(bytes / 8) * 8,
        _ => PAGE as u64 + rng.below(20) * 64 + rng.below(2) * 8,
    };
    let word = match rng.below(4) {
        0 => rng.below(1 << 17),
        1 => u64::MAX,
        2 => rng.below(200),
        _ => rng.0,
    };
    file.write_all_at(&word.to_le_bytes(), at).expect("it is sealed against other things");
}

#[test]
fn a_peer_that_scribbles_spoils_its_own_port() {
    let mut spoiled = 0;
    for seed in 0..300 {
        let mut rng = Rng(seed);
        let (file, mut a, mut b, here, there) = two();
        let good = world::file();
        let mut peer = MemoryWire::new(MOST);
        let (other, its) = (join(&mut b, &good, 1), join(&mut peer, &good, 0));
        for n in 0..40 {
            let _ = a.put(here, message(n, rng.below(2000) as usize + 1));
            a.publish();
            (0..4).for_each(|_| scribble(&file, &mut rng));
            let _ = b.put(there, message(n, 500));
            b.wake(there);
            assert!(peer.put(its, message(n, 100)).is_ok());
            peer.publish();
            b.wake(other);
            let from: Vec<_> = std::iter::from_fn(|| b.take()).collect();
            let ours = from.iter().filter(|(port, _)| *port == other).map(|(_, packet)| packet);
            assert_eq!(ours.collect::<Vec<_>>(), [&message(n, 100)], "seed {seed}");
            b.publish();
            b.rest();
        }
        let lost = b.spoiled();
        assert!(lost.iter().all(|port| *port == there) && lost.len() <= 1, "{lost:?}");
        spoiled += lost.len();
    }
    assert!(spoiled > 100, "only {spoiled} of 300 were found out");
}

/// The same, while we look: counters, lengths and announce words change between any two loads.
#[test]
fn a_peer_that_scribbles_all_the_time_costs_nobody_else_anything() {
    let stop = AtomicBool::new(false);
    let shared = file();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = Rng(11);
            while !stop.load(Ordering::Relaxed) {
                scribble(&shared, &mut rng);
            }
        });
        let (mut b, mut packets, mut lost) = (MemoryWire::new(MOST), 0, 0);
        for n in 0..20_000 {
            // It is found out again and again; each time a new link begins on the same memory.
            let port = join(&mut b, &shared, 1);
            for _ in 0..20 {
                let _ = b.put(port, message(n, 300));
                b.wake(port);
                packets += std::iter::from_fn(|| b.take()).count();
                b.publish();
                b.rest();
            }
            lost += b.spoiled().len();
            b.remove(port);
            if n > 200 && lost > 100 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(lost > 100, "{lost} links were found out, {packets} packets looked right");
    });
}
