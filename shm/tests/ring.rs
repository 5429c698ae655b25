//! The ring from outside: what goes in comes out, whatever a stranger writes over it.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use ringlane_reactor::{Config, Engine, best};
use ringlane_shm::layout::{Header, RING_BYTES_MIN, announce};
use ringlane_shm::map::{Fork, Map};
use ringlane_shm::record::{MORE, Records, Refused};
use ringlane_shm::ring::{Consumer, Producer, Published, Scribbled, State};
use ringlane_shm::through::Flow;

const HEADER: Header = Header { cap: RING_BYTES_MIN, nonce: 1, features: 0 };

/// A segment of two small rings.
fn memory() -> OwnedFd {
    let config = Config { engine: Engine::Epoll, ..Config::default() };
    let mut reactor = best(&config).unwrap();
    let fd = reactor.sys().memory(HEADER.segment_bytes()).unwrap();
    fd.into_os().unwrap()
}

fn map(fd: &OwnedFd) -> Rc<Map> {
    use std::os::fd::AsFd;
    let fork = Rc::new(Fork::new().unwrap());
    Map::new(fd.as_fd(), HEADER.segment_bytes() as usize, 1, &fork).unwrap()
}

/// Two mappings of one segment, as two processes have them.
fn two_maps() -> (Rc<Map>, Rc<Map>) {
    let fd = memory();
    (map(&fd), map(&fd))
}

fn ring() -> (Producer, Consumer) {
    let (ours, theirs) = two_maps();
    (Producer::new(ours, HEADER.lane(0)), Consumer::new(theirs, HEADER.lane(0)))
}

/// xorshift64*: seeds that replay.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_come_out_as_they_went_in(
        steps in prop::collection::vec((0u8..4, 1usize..6000), 1..200),
    ) {
        let (mut producer, mut consumer) = ring();
        let (mut model, mut written, mut visible) = (VecDeque::new(), 0u64, 0usize);
        for (step, n) in steps {
            match step {
                0 => {
                    let bytes = (written..).take(n).map(|i| (i * 31 % 251) as u8);
                    let bytes: Vec<u8> = bytes.collect();
                    let taken = producer.write(&bytes).unwrap();
                    model.extend(&bytes[..taken]);
                    written += taken as u64;
                }
                1 => {
                    producer.publish();
                    visible = model.len();
                }
                2 => {
                    let seen = consumer.available(u32::MAX).unwrap() as usize;
                    prop_assert_eq!(seen, visible);
                    let mut into = vec![0; n];
                    let got = consumer.read(&mut into);
                    prop_assert_eq!(got, n.min(visible));
                    let right: Vec<u8> = model.drain(..got).collect();
                    prop_assert_eq!(&into[..got], &right[..]);
                    visible -= got;
                }
                _ => { consumer.release(); }
            }
            prop_assert!(model.len() <= RING_BYTES_MIN as usize);
        }
    }

    #[test]
    fn records_come_out_whole_and_in_order(
        sizes in prop::collection::vec((0usize..1016, any::<bool>()), 1..300),
    ) {
        let (mut producer, consumer) = ring();
        let mut records = Records::new(consumer);
        let (mut model, mut private, mut seq) = (VecDeque::new(), Vec::new(), 0);
        for (i, (len, drain)) in sizes.into_iter().enumerate() {
            let payload = vec![i as u8; len];
            let channel = i as u16;
            loop {
                match producer.push(3, channel, &payload) {
                    Ok(()) => break,
                    Err(Refused::Full) => {}
                    Err(other) => panic!("{other:?}"),
                }
                producer.publish();
                if drain {
                    let came = records.drain(&mut private, |header, bytes| {
                        seq += 1;
                        assert_eq!(model.pop_front(), Some((header.channel, bytes.to_vec())));
                    }).unwrap();
                    prop_assert!(came > 0, "a full ring has records");
                } else {
                    let record = records.borrow().unwrap().expect("a full ring has records");
                    seq += 1;
                    prop_assert_eq!(record.seq, seq);
                    let came = (record.header.channel, record.payload.to_vec());
                    prop_assert_eq!(model.pop_front(), Some(came));
                    records.give_back(record);
                }
            }
            model.push_back((channel, payload));
        }
        producer.publish();
        records.drain(&mut private, |header, bytes| {
            assert_eq!(model.pop_front(), Some((header.channel, bytes.to_vec())));
        }).unwrap();
        prop_assert!(model.is_empty());
        prop_assert_eq!(records.ring().seq(), producer.published().seq);
    }
}

#[test]
fn records_that_are_walked_are_given_back_one_by_one() {
    let (map, theirs) = two_maps();
    let mut producer = Producer::new(Rc::clone(&map), HEADER.lane(0));
    let mut records = Records::new(Consumer::new(theirs, HEADER.lane(0)));
    let read = || Published::of(map.u64_at(HEADER.lane(0).head).load(Ordering::Acquire)).seq;
    let (mut private, mut dice) = (Vec::new(), Dice(11));
    let (mut sent, mut seen) = (0_u32, 0_u32);
    while seen < 3000 {
        while producer.push(1, sent as u16, &vec![sent as u8; dice.below(900) as usize]).is_ok() {
            sent += 1;
        }
        producer.publish();
        let (most, stop) = (1 + dice.below(20) as u32, dice.below(9) as u32);
        let (before, mut shown) = (seen, 0);
        let walked = records.walk(&mut private, most, |seq, header, bytes| {
            assert_eq!((seq, header.channel), (seen + 1, seen as u16));
            assert!(bytes.iter().all(|byte| *byte == seen as u8));
            assert_eq!(read(), seen, "the one that is being seen is not given back");
            (seen, shown) = (seen + 1, shown + 1);
            if shown == stop { Flow::Stop } else { Flow::Go }
        });
        assert_eq!(walked, Ok(shown));
        assert_eq!((seen, read()), (before + shown, before + shown));
        assert!(shown <= most && (stop == 0 || shown <= stop));
    }
}

#[test]
fn a_large_message_goes_in_pieces_and_the_last_one_says_so() {
    let (mut producer, consumer) = ring();
    let mut records = Records::new(consumer);
    let message: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    let (mut sent, mut got, mut ends, mut private) = (0, Vec::new(), 0, Vec::new());
    while sent < message.len() {
        sent += producer.push_pieces(5, 9, &message[sent..]).unwrap();
        producer.publish();
        let drained = records.drain(&mut private, |header, bytes| {
            assert_eq!((header.kind & !MORE, header.channel), (5, 9));
            got.extend_from_slice(bytes);
            ends += usize::from(header.kind & MORE == 0);
        });
        drained.unwrap();
    }
    assert_eq!((got == message, ends), (true, 1));
    assert_eq!(producer.push(0, 0, &vec![0; 4096]), Err(Refused::TooLong));
}

#[test]
fn a_reservation_that_is_dropped_leaves_nothing() {
    let (mut producer, consumer) = ring();
    let mut records = Records::new(consumer);
    assert_eq!(producer.reserve(100).unwrap().len(), 100);
    producer.push(1, 2, b"kept").unwrap();
    producer.publish();
    let record = records.borrow().unwrap().unwrap();
    assert_eq!((record.payload.to_vec(), record.seq), (b"kept".to_vec(), 1));
    assert_eq!(record.payload.get_u32(0), Some(u32::from_le_bytes(*b"kept")));
    assert_eq!(record.payload.get_u64(0), None);
    records.give_back(record);
    assert!(records.borrow().unwrap().is_none());
}

#[test]
fn a_borrowed_record_keeps_its_place_until_it_is_given_back() {
    let (mut producer, consumer) = ring();
    let mut records = Records::new(consumer);
    for i in 0..3u8 {
        producer.push(0, 0, &[i; 1016]).unwrap();
    }
    producer.publish();
    let held = records.borrow().unwrap().unwrap();
    let next = records.borrow().unwrap().unwrap();
    assert_eq!(producer.push(0, 0, &[3; 1016]), Ok(()), "one record's room is left");
    assert_eq!(producer.push(0, 0, &[4; 1016]), Err(Refused::Full));
    assert_eq!(held.payload.to_vec(), [0; 1016]);
    records.give_back(next);
    assert_eq!(producer.push(0, 0, &[4; 1016]), Ok(()));
}

#[test]
fn a_ring_is_handed_over_and_the_old_producer_publishes_nothing_more() {
    let (ours, theirs) = two_maps();
    let mut old = Producer::new(Rc::clone(&ours), HEADER.lane(0));
    let mut records = Records::new(Consumer::new(theirs, HEADER.lane(0)));
    let before = old.published();
    old.push(1, 0, b"first").unwrap();
    old.publish_unless_frozen(before).unwrap();
    let before = old.published();
    old.push(1, 0, b"too late").unwrap();
    let frozen = records.ring().freeze();
    assert_eq!((frozen.seq, frozen.frozen), (1, false), "what it said before");
    let refused = old.publish_unless_frozen(before).unwrap_err();
    assert_eq!(refused.0, Published { frozen: true, ..frozen });
    // Another producer goes on behind what was published.
    let mut new = Producer::resume(ours, HEADER.lane(0), frozen).unwrap();
    new.push(1, 0, b"second").unwrap();
    new.publish();
    let mut came = Vec::new();
    records.drain(&mut Vec::new(), |_, bytes| came.push(bytes.to_vec())).unwrap();
    assert_eq!(came, [b"first".to_vec(), b"second".to_vec()]);
}

#[test]
fn a_ring_whose_consumer_has_scribbled_is_not_taken_over() {
    let (ours, theirs) = two_maps();
    let mut old = Producer::new(Rc::clone(&ours), HEADER.lane(0));
    old.push(1, 0, b"first").unwrap();
    old.publish();
    for head in [1 << 30, old.published().word() + 8, RING_BYTES_MIN.into()] {
        theirs.u64_at(HEADER.lane(0).head).store(head, Ordering::Release);
        let taken = Producer::resume(Rc::clone(&ours), HEADER.lane(0), old.published());
        assert_eq!(taken.err(), Some(Scribbled), "{head:#x}");
    }
}

/// One step of an innocent side beside a scribbler; `Err` is what it may come to.
fn innocent_step(
    dice: &mut Dice,
    producer: &mut Producer,
    records: &mut Records,
    private: &mut Vec<u8>,
) -> Result<(), Scribbled> {
    let len = dice.below(1200) as usize;
    match dice.below(5) {
        0 => _ = producer.room(len as u32)?,
        1 => match producer.push(1, 2, &vec![7; len]) {
            Err(Refused::Scribbled) => return Err(Scribbled),
            _ => _ = producer.publish(),
        },
        2 => {
            _ = records
                .drain(private, |header, bytes| assert_eq!(header.len as usize, bytes.len()))?
        }
        3 => {
            if let Some(record) = records.borrow()? {
                let copy = record.payload.to_vec();
                assert_eq!(copy.len(), record.header.len as usize);
                records.give_back(record);
            }
        }
        _ => {
            let mut room = [0; 700];
            let n = records.ring().available(1)?;
            assert!(n <= RING_BYTES_MIN);
            records.ring().read(&mut room[..len.min(700)]);
            records.ring().release();
        }
    }
    Ok(())
}

/// Something that a stranger might write, somewhere where it might hurt.
fn scribble(dice: &mut Dice, map: &Map) {
    let lane = HEADER.lane(0);
    let place =
        [lane.word, lane.head, lane.state, announce(0), announce(1)][dice.below(5) as usize];
    let value = match dice.below(6) {
        0 => 0,
        1 => u64::MAX,
        2 => dice.roll(),
        3 => dice.below(2 * u64::from(RING_BYTES_MIN)),
        4 => map.u64_at(place & !7).load(Ordering::Relaxed).wrapping_add(dice.below(4096)),
        _ => {
            let at = lane.ring + dice.below(u64::from(lane.cap) - 8) as usize;
            return map.write(at, &dice.roll().to_le_bytes());
        }
    };
    map.u64_at(place & !7).store(value, Ordering::Relaxed);
}

#[test]
fn a_scribbler_costs_at_most_the_link() {
    let (mut detected, mut survived) = (0, 0);
    for seed in 1..=600 {
        let mut dice = Dice(seed);
        let (ours, theirs) = two_maps();
        let mut producer = Producer::new(Rc::clone(&ours), HEADER.lane(0));
        let mut records = Records::new(Consumer::new(ours, HEADER.lane(0)));
        let mut private = vec![1; 2000];
        let ended = (0..400).any(|_| {
            if dice.below(8) == 0 {
                scribble(&mut dice, &theirs);
            }
            innocent_step(&mut dice, &mut producer, &mut records, &mut private).is_err()
        });
        *(if ended { &mut detected } else { &mut survived }) += 1;
    }
    assert!(detected > 0, "no seed was found out: {survived} survived");
    println!("{detected} found out, {survived} lived with it");
}

#[test]
fn a_scribbler_at_the_same_time_costs_at_most_the_link() {
    let fd = memory();
    /// A panic must not leave the scribbler running.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let map = map(&fd);
            let mut dice = Dice(99);
            while !stop.load(Ordering::Relaxed) {
                scribble(&mut dice, &map);
            }
        });
        let end = Instant::now() + Duration::from_millis(500);
        let (mut dice, mut links) = (Dice(5), 0u32);
        while Instant::now() < end {
            let map = map(&fd);
            let mut producer = Producer::new(Rc::clone(&map), HEADER.lane(0));
            let mut records = Records::new(Consumer::new(map, HEADER.lane(0)));
            let mut private = vec![1; 2000];
            let steps = (0..1000).take_while(|_| {
                innocent_step(&mut dice, &mut producer, &mut records, &mut private).is_ok()
            });
            links += u32::from(steps.count() < 1000);
        }
        assert!(links > 0, "the scribbler was never found out");
    });
}

#[test]
fn the_end_is_seen_behind_the_bytes_before_it() {
    let (mut producer, mut consumer) = ring();
    assert_eq!(consumer.state(), State::Open);
    producer.write(b"last words").unwrap();
    producer.publish();
    producer.finish();
    assert_eq!((consumer.state(), consumer.available(1)), (State::Fin, Ok(10)));
}

#[test]
fn a_forked_child_is_told_so_and_its_parent_is_not() {
    let fork = Fork::new().unwrap();
    assert!(!fork.happened());
}

#[test]
fn bytes_written_past_the_caches_are_the_same_at_every_alignment() {
    let (ours, theirs) = two_maps();
    let bytes: Vec<u8> = (0..300_u32).map(|n| (n * 7 + 1) as u8).collect();
    let at = HEADER.lane(0).ring;
    for skip in 0..33 {
        for len in (0..80).chain([255, 256, 257, 300]) {
            ours.write(at, &[0xee; 400]);
            ours.write_through(at + skip, &bytes[..len]);
            let mut got = [0; 400];
            theirs.read(at, &mut got);
            assert!(got[..skip].iter().all(|byte| *byte == 0xee), "{skip} {len}");
            assert_eq!(got[skip..skip + len], bytes[..len], "{skip} {len}");
            assert!(got[skip + len..].iter().all(|byte| *byte == 0xee), "{skip} {len}");
        }
    }
}

#[test]
fn a_reservation_that_is_dropped_leaves_nothing_behind() {
    let (mut tx, rx) = ring();
    let mut records = Records::new(rx);
    tx.push(1, 0, b"first").unwrap();
    drop(tx.reserve(100).unwrap());
    drop(tx.reserve(50).unwrap());
    tx.push(2, 0, b"second").unwrap();
    // Too large to be gathered with others, and dropped too.
    drop(tx.reserve(tx.record_bytes_max()).unwrap());
    let mut place = tx.reserve(5).unwrap();
    place.write(0, b"third");
    place.commit(3, 0);
    tx.publish();
    let mut seen = Vec::new();
    let mut copy = Vec::new();
    records.drain(&mut copy, |header, bytes| seen.push((header.kind, bytes.to_vec()))).unwrap();
    let want: [(u16, &[u8]); 3] = [(1, b"first"), (2, b"second"), (3, b"third")];
    assert_eq!(seen, want.map(|(kind, bytes)| (kind, bytes.to_vec())));
}
