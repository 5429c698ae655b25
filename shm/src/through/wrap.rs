//! Numbers and positions that wrap, at every end: each test begins shortly before.

use std::os::fd::AsFd;
use std::rc::Rc;

use ringlane_reactor::{Config, Engine, best};

use super::layout::{self, CONTROL_BYTES, inlet_bytes, outlet_bytes};
use super::{Flow, Inlet, InletWriter, Missed, Outlet, OutletReader, Published};
use crate::map::{Fork, Map};
use crate::sync::Ordering;

const CAP: u32 = 4096;

/// Positions modulo 2^31 and numbers modulo 2^32, both about to wrap.
const START: Published = Published { seq: u32::MAX - 20, frozen: false, pos: (1 << 31) - 1000 };

fn map(bytes: usize) -> Rc<Map> {
    let config = Config { engine: Engine::Epoll, ..Config::default() };
    let mut reactor = best(&config).expect("every machine has it");
    let file = reactor.sys().memory(bytes as u64).expect("there is memory");
    let file = file.into_os().expect("it is a file");
    let fork = Rc::new(Fork::new().expect("a page"));
    Map::new(file.as_fd(), bytes, 1, &fork).expect("it maps")
}

/// An outlet that has written and freed everything up to `START`.
fn outlet() -> (Rc<Map>, Outlet) {
    let map = map(outlet_bytes(CAP));
    layout::found(&map, layout::Kind::Outlet, CAP);
    let lane = layout::outlet(CAP);
    map.u64_at(lane.word).store(START.word(), Ordering::Release);
    let outlet = Outlet::laid_at(Rc::clone(&map), lane, START);
    (map, outlet)
}

/// An inlet that has consumed everything up to `START`.
fn inlet() -> (Rc<Map>, Inlet) {
    let map = map(inlet_bytes(CAP));
    layout::found(&map, layout::Kind::Inlet, CAP);
    let lane = layout::inlet(CAP);
    map.u64_at(lane.word).store(START.word(), Ordering::Release);
    map.u64_at(lane.head).store(START.word(), Ordering::Release);
    let inlet = Inlet::laid(Rc::clone(&map), lane, START);
    (map, inlet)
}

fn control() -> Rc<Map> {
    map(CONTROL_BYTES)
}

#[test]
fn records_go_through_while_numbers_and_positions_wrap() {
    let (segment, mut outlet) = outlet();
    let (place, mut inlet) = inlet();
    let page = control();
    let from = outlet.attach(Rc::clone(&page));
    assert_eq!((from, outlet.sent()), (START, Ok(START.seq)));
    let mut reader = OutletReader::new(segment, page, from).expect("it fits");
    let mut writer = InletWriter::new(place).expect("it fits");
    let mut seen = START.seq;
    for round in 0..60_u32 {
        let first = outlet.written().wrapping_add(1);
        for _ in 0..3 {
            let seq = outlet.written().wrapping_add(1);
            let payload = vec![seq as u8; (seq % 90) as usize];
            outlet.push(1, seq as u16, &payload).expect("there is room");
        }
        outlet.publish();
        let mut run = Vec::new();
        let room = writer.room().expect("nobody scribbles");
        let batch = reader.read(u32::MAX, room, &mut run).expect("nobody scribbles");
        assert_eq!((batch.first, batch.records), (first, 3), "{round}");
        reader.mark_sent(outlet.written());
        assert_eq!(outlet.sent(), Ok(outlet.written()));
        writer.push_run(&run).expect("there is room");
        writer.publish().expect("nobody freezes");
        let walked = inlet.walk(&mut Vec::new(), 2, |seq, header, bytes| {
            seen = seen.wrapping_add(1);
            assert_eq!((seq, header.channel, bytes.len() as u32), (seen, seq as u16, seq % 90));
            Flow::Go
        });
        assert_eq!((walked, inlet.consumed(), writer.consumed()), (Ok(2), seen, Ok(seen)));
        reader.mark_acked(first).expect("it was read");
        assert_eq!(outlet.acked().map(|acked| acked.seq), Ok(first));
        let held: Vec<u32> = outlet.undelivered(first).map(|(seq, ..)| seq).collect();
        assert_eq!(held, [first.wrapping_add(1), first.wrapping_add(2)]);
        // Around, and back to where it was.
        assert_eq!(reader.seek(first), Err(Missed::NoSuchRecord));
        reader.seek(first.wrapping_add(1)).expect("it is held");
        reader.seek(first.wrapping_add(3)).expect("it comes next");
        reader.mark_acked(outlet.written()).expect("it was read");
        let walked = inlet.walk(&mut Vec::new(), 9, |seq, _, _| {
            seen = seen.wrapping_add(1);
            assert_eq!(seq, seen);
            Flow::Go
        });
        assert_eq!(walked, Ok(1));
    }
    assert!(seen < 1000, "it has wrapped");
}

#[test]
fn a_hand_over_amid_the_wrap_keeps_the_numbers() {
    let (segment, mut outlet) = outlet();
    let (mut place, mut inlet) = inlet();
    let mut seen = START.seq;
    for _ in 0..30 {
        for _ in 0..4 {
            let seq = outlet.written().wrapping_add(1);
            outlet.push(1, seq as u16, &[seq as u8; 100]).expect("there is room");
        }
        outlet.publish();
        let page = control();
        let from = outlet.attach(Rc::clone(&page));
        let mut reader = OutletReader::new(Rc::clone(&segment), page, from).expect("it fits");
        let mut writer = InletWriter::new(Rc::clone(&place)).expect("it fits");
        reader.seek(writer.stored().wrapping_add(1)).expect("it is held");
        reader.mark_acked(writer.stored()).expect("it was published");
        let mut run = Vec::new();
        reader.read(400, u32::MAX, &mut run).expect("nobody scribbles");
        writer.push_run(&run).expect("there is room");
        writer.publish().expect("nobody freezes");
        reader.mark_acked(writer.stored()).expect("it was read");
        outlet.acked().expect("nobody scribbles");
        let fresh = map(inlet_bytes(CAP));
        inlet = inlet.hand_over(Rc::clone(&fresh), CAP).expect("nobody scribbles");
        place = fresh;
        let walked = inlet.walk(&mut Vec::new(), 3, |seq, header, _| {
            seen = seen.wrapping_add(1);
            assert_eq!((seq, header.channel), (seen, seq as u16));
            Flow::Go
        });
        walked.expect("nobody scribbles");
        if outlet.held() > CAP / 2 {
            break;
        }
    }
    assert!(seen < 1000, "it has wrapped");
}

#[test]
fn a_range_that_is_skipped_may_be_half_of_all_numbers() {
    let (place, mut inlet) = inlet();
    let mut writer = InletWriter::new(place).expect("it fits");
    let mut last = START.seq;
    for _ in 0..5 {
        writer.skip(1 << 30).expect("there is room");
        writer.publish().expect("nobody freezes");
        last = last.wrapping_add(1 << 30);
        assert_eq!(inlet.walk(&mut Vec::new(), 9, |_, _, _| Flow::Go), Ok(0));
        assert_eq!((inlet.consumed(), writer.consumed()), (last, Ok(last)));
    }
}
