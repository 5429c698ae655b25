//! loom runs every interleaving of the ring and its bells:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p ringlane-shm --lib --release
//! ```
//!
//! A lost wake is a deadlock, which loom reports; a torn or early read is a wrong byte.

use loom::sync::Arc;
use loom::sync::Notify;
use loom::thread::spawn;

use crate::bell::{Bell, News};
use crate::layout::Lane;
use crate::map::Map;
use crate::ring::{Consumer, Producer, State};
use crate::sync::Shared;

const LANE: Lane = Lane { word: 0, state: 8, head: 16, cpu: 12, ring: 64, cap: 2 };
const ANNOUNCE: [usize; 2] = [24, 28];

/// One side: its own bell and the other's, and where each sleeps.
struct Side {
    mine: Bell,
    theirs: Bell,
    sleep: Arc<Notify>,
    wake: Arc<Notify>,
}

impl Side {
    fn ring(&self, news: News) {
        if self.theirs.must_ring(news) {
            self.wake.notify();
        }
    }

    /// Sleeps unless `look` finds something after the announcement.
    fn rest(&self, wants_room: bool, mut look: impl FnMut() -> bool) {
        self.mine.announce(wants_room);
        if look() {
            self.mine.retract();
        } else {
            self.sleep.wait();
        }
    }
}

fn sides(map: &Shared<Map>) -> (Side, Side) {
    let (a, b) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let bell = |side: usize| Bell::new(Shared::clone(map), ANNOUNCE[side]);
    let one = Side { mine: bell(0), theirs: bell(1), sleep: Arc::clone(&a), wake: Arc::clone(&b) };
    let two = Side { mine: bell(1), theirs: bell(0), sleep: b, wake: a };
    (one, two)
}

fn map() -> Shared<Map> {
    Shared::new(Map::modelled(
        &[LANE.word, LANE.head],
        &[LANE.state, LANE.cpu, ANNOUNCE[0], ANNOUNCE[1]],
        LANE.ring,
        LANE.cap as usize,
    ))
}

/// Writes `bytes` bytes 1, 2, 3 …, publishing each, then the end.
fn produce(map: Shared<Map>, side: &Side, bytes: u8) {
    let mut ring = Producer::new(map, LANE);
    let mut next = 1;
    while next <= bytes {
        if ring.write(&[next]).expect("nobody scribbles") == 0 {
            side.rest(true, || ring.room(1).expect("nobody scribbles") > 0);
            continue;
        }
        ring.publish();
        side.ring(News::Bytes);
        next += 1;
    }
    ring.finish();
    side.ring(News::Bytes);
}

/// Reads to the end; checks each byte.
fn consume(map: Shared<Map>, side: &Side) -> u8 {
    let mut ring = Consumer::new(map, LANE);
    let mut last = 0;
    loop {
        let over = ring.state() == State::Fin;
        if ring.available(1).expect("nobody scribbles") == 0 {
            if over {
                return last;
            }
            side.rest(false, || {
                ring.state() == State::Fin || ring.available(1).expect("nobody scribbles") > 0
            });
            continue;
        }
        let mut byte = [0];
        assert_eq!(ring.read(&mut byte), 1);
        assert_eq!(byte[0], last + 1, "a byte was read before it was written, or twice");
        last = byte[0];
        ring.release();
        side.ring(News::Room);
    }
}

fn run(bytes: u8) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let map = map();
        let (one, two) = sides(&map);
        let theirs = Shared::clone(&map);
        let producer = spawn(move || produce(theirs, &one, bytes));
        assert_eq!(consume(map, &two), bytes);
        producer.join().expect("it ends");
    });
}

#[test]
fn a_sleeping_consumer_is_woken_by_bytes_and_by_the_end() {
    run(1);
}

#[test]
fn both_sides_sleep_and_wake_around_a_full_ring() {
    run(3);
}

#[test]
fn a_frozen_word_says_what_was_published_and_nothing_after_it() {
    loom::model(|| {
        let map = map();
        let theirs = Shared::clone(&map);
        let producer = spawn(move || {
            let mut ring = Producer::new(theirs, LANE);
            let before = ring.published();
            assert_eq!(ring.write(&[7]), Ok(1));
            ring.publish_unless_frozen(before)
        });
        let mut ring = Consumer::new(map, LANE);
        let frozen = ring.freeze();
        let published = producer.join().expect("it ends");
        assert_eq!(published.is_ok(), frozen.pos == 1, "the word alone decides");
        if frozen.pos == 1 {
            assert_eq!(ring.available(1), Ok(1));
            let mut byte = [0];
            ring.read(&mut byte);
            assert_eq!(byte, [7]);
        }
    });
}
