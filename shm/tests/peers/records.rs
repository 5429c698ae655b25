//! Records between two processes that share a segment and nothing else.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::rc::Rc;
use std::time::Instant;

use ringlane_reactor::{Config, Engine, best};
use ringlane_shm::map::{Fork, Map};
use ringlane_shm::record::{RECORD_HEADER_BYTES, Records, Refused};
use ringlane_shm::ring::{Consumer, Producer, Published, State};

use crate::kit::{self, Dice, SMALL};

/// Records of a child that ends by itself.
const CHILD_RECORDS: u32 = 3000;

/// Records that go in one publication, at most.
const BATCH: u64 = 5;

/// A segment with small rings.
pub fn memory() -> OwnedFd {
    let config = Config { engine: Engine::Epoll, ..Config::default() };
    let mut reactor = best(&config).expect("epoll is everywhere");
    let fd = reactor.sys().memory(SMALL.segment_bytes()).expect("there is memory");
    fd.into_os().unwrap_or_else(|_| panic!("it is a descriptor"))
}

pub fn map(fd: impl AsFd) -> Rc<Map> {
    let fork = Rc::new(Fork::new().expect("a page"));
    Map::new(fd.as_fd(), SMALL.segment_bytes() as usize, 1, &fork).expect("it maps")
}

fn length(seq: u32) -> usize {
    (seq.wrapping_mul(2_654_435_761) >> 16) as usize % 700
}

/// One end of both rings.
pub struct End {
    map: Rc<Map>,
    side: usize,
    out: Producer,
    pub records: Records,
    dice: Dice,
    /// Records made and got, and the first kilobyte or so of the stream's pattern for each.
    made: u32,
    pub got: u32,
    /// Where each record ends that was made, by an own count.
    ends: Vec<u32>,
    private: Vec<u8>,
}

impl End {
    pub fn new(map: Rc<Map>, side: usize, seed: u64) -> End {
        let out = Producer::new(Rc::clone(&map), SMALL.lane(side));
        let records = Records::new(Consumer::new(Rc::clone(&map), SMALL.lane(1 - side)));
        let dice = Dice(seed);
        End { map, side, out, records, dice, made: 0, got: 0, ends: vec![0], private: Vec::new() }
    }

    /// Makes some records, in two writes each, and publishes them together.
    fn produce(&mut self) {
        for _ in 0..=self.dice.below(BATCH) {
            let seq = self.made + 1;
            let payload = payload(self.side, seq);
            let mut place = match self.out.reserve(payload.len() as u32) {
                Ok(place) => place,
                Err(Refused::Full) => break,
                Err(refused) => panic!("record {seq}: {refused:?}"),
            };
            let (one, two) = payload.split_at(payload.len() / 2);
            place.write(one.len(), two);
            place.write(0, one);
            place.commit(7, seq as u16);
            self.made = seq;
            let (last, whole) = (self.ends[self.ends.len() - 1], payload.len() as u32);
            let whole = (whole + RECORD_HEADER_BYTES).next_multiple_of(8);
            let to_end = SMALL.cap - last % SMALL.cap;
            self.ends.push(last + whole + if to_end < whole { to_end } else { 0 });
        }
        self.out.publish();
    }

    /// Reads what is there, by one of the two ways; checks every byte.
    pub fn consume(&mut self) {
        let (side, mut got) = (1 - self.side, self.got);
        let check = |got: &mut u32, channel: u16, bytes: &[u8]| {
            *got += 1;
            assert_eq!((channel, bytes), (*got as u16, &payload(side, *got)[..]), "record {got}");
        };
        if self.dice.below(2) == 0 {
            let drained = self.records.drain(&mut self.private, |header, bytes| {
                check(&mut got, header.channel, bytes);
            });
            drained.expect("nobody scribbles");
        } else {
            while let Some(record) = self.records.borrow().expect("nobody scribbles") {
                check(&mut got, record.header.channel, &record.payload.to_vec());
                assert_eq!(record.seq, got);
                self.records.give_back(record);
            }
        }
        self.got = got;
    }

    /// What the other side has published, and what it has given back.
    fn others(&self) -> (Published, Published) {
        let at = |offset| self.map.u64_at(offset).load(std::sync::atomic::Ordering::Acquire);
        let word = Published::of(at(SMALL.lane(1 - self.side).word));
        (word, Published::of(at(SMALL.lane(self.side).head)))
    }

    /// The other side is dead: everything it published comes and nothing else, and it gave back
    /// whole records only.
    fn bury(&mut self) {
        self.consume();
        self.consume();
        let (word, head) = self.others();
        assert_eq!(self.got, word.seq, "records that were published, and no more");
        assert_eq!(self.records.ring().available(1), Ok(0));
        assert_eq!(head.pos, self.ends[head.seq as usize], "it gave back whole records");
        assert!(head.seq <= self.made);
        // Nobody reads any more; the ring is full some time, and that is all.
        (0..100).for_each(|_| self.produce());
        assert_eq!(self.out.reserve(1000).map(drop), Err(Refused::Full));
    }
}

fn payload(side: usize, seq: u32) -> Vec<u8> {
    (0..length(seq)).map(|at| kit::pattern(side, u64::from(seq) << 10 | at as u64)).collect()
}

/// Exchanges records with a child until it has ended, which somebody sees to.
pub fn bury(mut child: Child, fd: &OwnedFd, seed: u64) -> Option<i32> {
    let mut end = End::new(map(fd), 0, seed);
    let status = loop {
        for _ in 0..20 {
            end.produce();
            end.consume();
            std::thread::yield_now();
        }
        if let Some(status) = child.try_wait().expect("it is ours") {
            break status;
        }
    };
    end.bury();
    status.signal()
}

/// A child that dies at a point; what killed it.
#[cfg(feature = "crash-points")]
pub fn crash(point: &str, nth: &str) -> Option<i32> {
    let fd = memory();
    let stdin = fd.try_clone().expect("a descriptor");
    let (child, _told) = kit::child(&["records", "3", point, nth], stdin);
    bury(child, &fd, 5)
}

/// A child at the other end: its seed, then a point to die at and when; or `stream` and how many.
pub fn child(arguments: &[&str]) {
    let map = map(std::io::stdin());
    match arguments {
        ["stream", count] => return stream(map, count.parse().expect("a number")),
        [_, point, nth] => crate::crash::arm(point, nth),
        _ => {}
    }
    let mut end = End::new(map, 1, arguments[0].parse().expect("a number"));
    // Who is to die on the way goes on until it did: how often a reader looks at the word, in so
    // many records, is the scheduler's to say.
    let most = if arguments[1..].contains(&"Finished") { CHILD_RECORDS } else { u32::MAX };
    while end.made < most {
        end.produce();
        end.consume();
        std::thread::yield_now();
    }
    end.out.finish();
}

/// Words of a record of the long run.
fn words(seq: u64) -> [u64; 8] {
    std::array::from_fn(|i| (seq + i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn stream(map: Rc<Map>, count: u64) {
    let mut out = Producer::new(map, SMALL.lane(1));
    let mut seq = 0;
    while seq < count {
        let mut bytes = [0; 64];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words(seq)) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        match out.push(1, seq as u16, &bytes) {
            Ok(()) => seq += 1,
            Err(Refused::Full) => {
                out.publish();
                std::thread::yield_now();
            }
            Err(refused) => panic!("record {seq}: {refused:?}"),
        }
        if seq.is_multiple_of(16) {
            out.publish();
        }
    }
    out.publish();
    out.finish();
}

/// So many records go from one process to another; each is whole, and none is missing.
pub fn all_of_them() {
    let count = kit::bound("RINGLANE_RECORDS", 1_000_000);
    kit::watch("records", 60 + count / 100_000);
    let begun = Instant::now();
    let fd = memory();
    let stdin = fd.try_clone().expect("a descriptor");
    let (mut child, _told) = kit::child(&["records", "stream", &count.to_string()], stdin);
    let mut records = Records::new(Consumer::new(map(&fd), SMALL.lane(1)));
    let (mut got, mut private) = (0, Vec::new());
    let check = |got: &mut u64, channel: u16, bytes: &[u8]| {
        let words = words(*got);
        let same = bytes.chunks_exact(8).zip(words).all(|(of, word)| of == word.to_le_bytes());
        assert!(same && bytes.len() == 64 && channel == *got as u16, "record {got}");
        *got += 1;
    };
    loop {
        let over = records.ring().state() == State::Fin;
        let before = got;
        if got % 3 == 0 {
            let each = |header: ringlane_shm::record::RecordHeader, bytes: &[u8]| {
                check(&mut got, header.channel, bytes);
            };
            records.drain(&mut private, each).expect("nobody scribbles");
        } else {
            let mut bytes = [0; 64];
            while let Some(record) = records.borrow().expect("nobody scribbles") {
                let n = record.payload.copy_to(0, &mut bytes);
                check(&mut got, record.header.channel, &bytes[..n]);
                records.give_back(record);
            }
        }
        if got == before {
            if over {
                break;
            }
            std::thread::yield_now();
        }
    }
    assert_eq!(got, count);
    assert!(child.wait().expect("it is ours").success());
    let took = begun.elapsed().as_secs_f64();
    println!("  {count} records in {took:.1} s, none lost, torn or twice");
}
