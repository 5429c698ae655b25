//! loom runs every interleaving of a hand-over with the relay that it is taken from; see
//! `shm/src/model.rs` for how.

use loom::thread::{spawn, yield_now};

use super::layout::{BOUND, SENT};
use super::{Ended, Flow, Inlet, InletWriter, Outlet, OutletReader, Published};
use crate::layout::Lane;
use crate::map::Map;
use crate::record::{RecordHeader, Refused};
use crate::sync::Shared;

/// Four records without payload fill it.
const LANE: Lane = Lane { word: 0, state: 8, head: 16, cpu: 12, ring: 64, cap: 32 };

fn segment() -> Shared<Map> {
    let words = [LANE.word, LANE.head];
    Shared::new(Map::modelled(&words, &[LANE.cpu], LANE.ring, LANE.cap as usize))
}

fn control() -> Shared<Map> {
    Shared::new(Map::modelled(&[LANE.head, BOUND], &[LANE.cpu, SENT], LANE.ring, 0))
}

fn check(bounded: usize, what: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(bounded);
    model.check(what);
}

/// Stores records up to number `last`; returns the last that it may acknowledge.
fn store(writer: &mut InletWriter, last: u32) -> u32 {
    for seq in writer.stored() + 1..=last {
        let mut run = Vec::new();
        RecordHeader { len: 0, kind: 1, channel: seq as u16 }.append(&[], &mut run);
        assert_eq!(writer.push_run(&run), Ok(1));
        match writer.publish() {
            Ok(()) => assert_eq!(writer.stored(), seq),
            Err(ended) => {
                assert_eq!(ended, Ended::Frozen);
                return seq - 1;
            }
        }
    }
    last
}

/// Takes what is there; checks that it is the next.
fn take(inlet: &mut Inlet, seen: &mut u32) {
    let walked = inlet.walk(&mut Vec::new(), 9, |seq, header, _| {
        *seen += 1;
        assert_eq!((seq, u32::from(header.channel)), (*seen, *seen), "lost, torn or twice");
        Flow::Go
    });
    walked.expect("nobody scribbles");
}

#[test]
fn what_a_relay_may_acknowledge_is_in_the_fresh_segment_and_nothing_else_is() {
    const ALL: u32 = 2;
    check(3, || {
        let old = segment();
        let mut inlet = Inlet::laid(Shared::clone(&old), LANE, Published::default());
        let relay = spawn(move || {
            let mut writer = InletWriter::laid(old, LANE).or(Err(())).ok()?;
            Some(store(&mut writer, ALL))
        });
        let mut seen = 0;
        take(&mut inlet, &mut seen);
        let fresh = segment();
        let handed = inlet.hand_over_laid(Shared::clone(&fresh), LANE);
        let mut inlet = handed.expect("nobody scribbles");
        let mut writer = InletWriter::laid(fresh, LANE).expect("a fresh one fits");
        assert_eq!(writer.consumed(), Ok(seen));
        let stored = writer.stored();
        let acknowledged = relay.join().expect("it ends");
        // One that came too late to begin has said nothing.
        assert_eq!(acknowledged.unwrap_or(stored), stored, "what was said is what is there");
        assert_eq!(store(&mut writer, ALL), ALL);
        take(&mut inlet, &mut seen);
        assert_eq!(seen, ALL);
    });
}

#[test]
fn a_receiver_is_never_shown_what_is_not_wholly_written() {
    check(2, || {
        let map = segment();
        let mut inlet = Inlet::laid(Shared::clone(&map), LANE, Published::default());
        let relay = spawn(move || {
            let mut writer = InletWriter::laid(map, LANE).expect("a fresh one fits");
            // The ring holds four: the fifth waits until one is consumed.
            assert_eq!(store(&mut writer, 4), 4);
            while writer.consumed().expect("nobody scribbles") == 0 {
                yield_now();
            }
            assert_eq!(store(&mut writer, 5), 5);
        });
        let mut seen = 0;
        while seen < 5 {
            take(&mut inlet, &mut seen);
            yield_now();
        }
        relay.join().expect("it ends");
    });
}

/// Reads `records` and acknowledges each; checks that they are the next.
fn relay(reader: &mut OutletReader, until: u32) {
    while reader.acked().seq != until {
        let mut run = Vec::new();
        let batch = reader.read(8, u32::MAX, &mut run).expect("nobody scribbles");
        if batch.records == 0 {
            yield_now();
            continue;
        }
        let channel = u16::from_le_bytes([run[6], run[7]]);
        assert_eq!((batch.records, u32::from(channel)), (1, batch.first), "torn or out of order");
        reader.mark_sent(batch.first);
        assert_eq!(reader.mark_acked(batch.first), Ok(true));
    }
}

#[test]
fn a_sender_writes_over_nothing_that_is_not_acknowledged() {
    const ALL: u32 = 5;
    check(2, || {
        let (map, page) = (segment(), control());
        let mut outlet = Outlet::laid(Shared::clone(&map), LANE);
        let from = outlet.attach_laid(Shared::clone(&page));
        let reader = spawn(move || {
            let reader = OutletReader::laid(map, page, LANE, from);
            relay(&mut reader.expect("nobody scribbles"), ALL);
        });
        for seq in 1..=ALL {
            while let Err(refused) = outlet.push(1, seq as u16, &[]) {
                assert_eq!(refused, Refused::Full);
                yield_now();
            }
            outlet.publish();
        }
        reader.join().expect("it ends");
        assert_eq!((outlet.acked().expect("it is sane").seq, outlet.sent()), (ALL, Ok(ALL)));
    });
}

#[test]
fn a_relay_that_was_let_go_frees_nothing_whenever_it_says_so() {
    check(2, || {
        let (map, old) = (segment(), control());
        let mut outlet = Outlet::laid(Shared::clone(&map), LANE);
        let from = outlet.attach_laid(Shared::clone(&old));
        for seq in 1..=4 {
            outlet.push(1, seq, &[]).expect("there is room");
        }
        outlet.publish();
        let theirs = Shared::clone(&map);
        let zombie = spawn(move || {
            let mut reader = OutletReader::laid(theirs, old, LANE, from).expect("it is sane");
            reader.mark_acked(2).expect("they are there");
        });
        let page = control();
        let from = outlet.attach_laid(Shared::clone(&page));
        let mut reader = OutletReader::laid(map, page, LANE, from).expect("it is sane");
        assert_eq!(from.seq == 0, outlet.push(1, 5, &[]) == Err(Refused::Full));
        outlet.publish();
        relay(&mut reader, outlet.written());
        zombie.join().expect("it ends");
    });
}
