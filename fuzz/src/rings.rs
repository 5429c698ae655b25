//! The rings between a process and its relay: the side that reads, while the other one writes
//! whatever it likes wherever it may.
//!
//! Input: steps of four bytes. The first says what happens: something good, a look, or a store of
//! the other three by a place and a value.

use std::rc::Rc;

use ringlane::bus::memory::Memory;
use ringlane::shm::Map;
use ringlane::shm::through::{
    CONTROL_BYTES, Flow, Inlet, InletWriter, Outlet, OutletReader, Published, inlet_bytes,
    outlet_bytes,
};

const RING: u32 = 4096;

thread_local! {
    static MEMORY: Memory = Memory::new().expect("a page");
}

fn map(make: impl FnOnce(&Memory) -> std::io::Result<ringlane::bus::memory::Made>) -> Rc<Map> {
    MEMORY.with(|memory| make(memory).expect("a memory file").map)
}

/// One of the words of a page of counters, or any place.
fn place(what: u8, bytes: usize) -> usize {
    let words = [0, 8, 16, 24, 256, 512, 520, 768, 4096, 4096 + 256, 8192, 8200];
    let at = match what {
        0..=127 => words[usize::from(what) % words.len()],
        _ => usize::from(what - 128) * 96,
    };
    at.min(bytes - 8) & !7
}

fn store(map: &Map, [_, at, low, high]: [u8; 4]) {
    let at = place(at, map.len());
    let word = map.u64_at(at);
    let before = word.load(std::sync::atomic::Ordering::Relaxed);
    let value = match high % 4 {
        // Near what it is.
        0 => before.wrapping_add(u64::from(low)),
        1 => before ^ 1 << (low % 64),
        2 => u64::from(low) << (high / 4),
        _ => u64::from_le_bytes([low, high, 0, low, high, 0, low, 0]),
    };
    word.store(value, std::sync::atomic::Ordering::Relaxed);
}

/// A sender that scribbles, seen by its relay.
pub fn outlet(data: &[u8]) {
    let (ring, control) = (map(|m| m.make_outlet(RING)), map(Memory::make_control));
    assert_eq!((ring.len(), control.len()), (outlet_bytes(RING), CONTROL_BYTES));
    let mut sender = Outlet::new(Rc::clone(&ring), RING);
    sender.attach(Rc::clone(&control));
    let mut steps = data.chunks_exact(4).map(|step| [step[0], step[1], step[2], step[3]]);
    let from = match steps.next() {
        Some([0..=127, ..]) | None => Published::default(),
        Some([_, seq, a, b]) => {
            Published { seq: seq.into(), pos: u32::from_le_bytes([a, b, 0, 0]), frozen: false }
        }
    };
    // The header is checked once, before or after somebody has scribbled over it.
    let mut reader = OutletReader::new(Rc::clone(&ring), Rc::clone(&control), from).ok();
    let mut bytes = Vec::new();
    for step in steps {
        match step[0] % 8 {
            0 | 1 => {
                // Its own code pushes no kind that is for rings themselves; scribbling may.
                let kind = u16::from(step[1] & 3);
                let _ = sender.push(kind, 0, &data[..data.len().min(step[2].into())]);
                let _ = sender.publish();
            }
            2 => store(&ring, step),
            3 => store(&control, step),
            4 => {
                let from = Published { seq: step[1].into(), pos: 0, frozen: false };
                reader = OutletReader::new(Rc::clone(&ring), Rc::clone(&control), from).ok();
            }
            _ => look(&mut sender, reader.as_mut(), step, &mut bytes),
        }
    }
}

fn look(
    sender: &mut Outlet,
    reader: Option<&mut OutletReader>,
    step: [u8; 4],
    bytes: &mut Vec<u8>,
) {
    let _ = (sender.acked(), sender.sent(), sender.bound(), sender.held());
    assert!(sender.undelivered(step[1].into()).count() < RING as usize);
    let Some(reader) = reader else { return };
    let _ = (reader.news(), reader.written(), reader.unread(), reader.next_is_large());
    if step[1] > 200 {
        let _ = reader.seek(step[2].into());
    }
    bytes.clear();
    let most = u32::from(step[3]) * 32;
    if let Ok(batch) = reader.read(most, most * 2, bytes) {
        assert_eq!(batch.bytes as usize, bytes.len(), "what is said of a batch is so");
        assert!(batch.bytes <= RING && bytes.len().is_multiple_of(8));
        let (mut at, mut records) = (0, 0);
        while at < bytes.len() {
            let len = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
            assert!(len <= RING / 4, "no record is larger than a quarter");
            at += (len as usize + 8).next_multiple_of(8);
            records += 1;
        }
        assert_eq!((at, records), (bytes.len(), batch.records), "whole records only");
        if batch.records > 0 {
            let last = batch.first.wrapping_add(batch.records - 1);
            reader.mark_sent(last);
            reader.mark_bound(u64::from(step[2]) + 1);
            let _ = reader.mark_acked(last);
        }
    }
    let _ = reader.mark_acked(step[1].into());
}

/// A receiver that scribbles, and a relay that does.
pub fn inlet(data: &[u8]) {
    let ring = map(|m| m.make_inlet(RING));
    assert_eq!(ring.len(), inlet_bytes(RING));
    let mut receiver = Inlet::new(Rc::clone(&ring), RING);
    let mut writer = InletWriter::new(Rc::clone(&ring)).ok();
    let mut private = Vec::new();
    let steps = data.chunks_exact(4).map(|step| [step[0], step[1], step[2], step[3]]);
    for step in steps {
        match step[0] % 8 {
            0 | 1 => store(&ring, step),
            2 => writer = InletWriter::new(Rc::clone(&ring)).ok(),
            3 | 4 => {
                let Some(writer) = writer.as_mut() else { continue };
                let _ = (writer.consumed(), writer.room(), writer.look());
                // Records that are some, or any bytes.
                let any = &data[..data.len().min(usize::from(step[2]) * 8)];
                let mut record = vec![step[1], 0, 0, 0, 1, 0, 0, 0];
                record.resize(8 + usize::from(step[1]).next_multiple_of(8), step[2]);
                let _ = writer.push_run(if step[3] < 200 { &record } else { any });
                if step[3].is_multiple_of(5) {
                    let _ = writer.skip(u32::from(step[2]));
                }
                let _ = writer.publish();
            }
            5 if step[1] > 250 => {
                receiver.freeze();
            }
            _ => {
                let mut shown = 0;
                let seen = receiver.walk(&mut private, step[1].into(), |_, header, bytes| {
                    assert!(bytes.len() <= RING as usize / 4 && bytes.len() == header.len as usize);
                    shown += 1;
                    Flow::Go
                });
                assert!(shown <= u32::from(step[1]), "{seen:?}");
                let _ = (receiver.news(), receiver.unread(), receiver.stored());
                let _ = (receiver.consumed(), receiver.frozen());
            }
        }
    }
    let fresh = map(|m| m.make_inlet(2 * RING));
    if let Ok(mut next) = receiver.hand_over(fresh, 2 * RING) {
        let _ = next.walk(&mut private, 100, |_, _, _| Flow::Go);
    }
}
