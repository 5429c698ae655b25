//! What the other side may write, at every place: it costs the channel at most.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringlane_shm::layout::{Bad, PAGE};
use ringlane_shm::map::Map;
use ringlane_shm::record::{PAD, RecordHeader, Refused};
use ringlane_shm::through::{
    CONTROL_BYTES, Ended, Flow, Inlet, InletWriter, Missed, Outlet, OutletReader, Published,
    Scribbled, Unfit, Unstored, inlet_bytes, outlet_bytes,
};

use crate::kit::{CAP, Dice, Memory, Receiver, Sender, record};

/// Where the words lie, as a stranger knows it from the source.
const WORD: usize = PAGE;
const HEAD: usize = PAGE + 256;
const RING: usize = 2 * PAGE;
const ACKED: usize = 256;
const SENT: usize = 512;

fn word(seq: u32, pos: u32) -> u64 {
    Published { seq, frozen: false, pos }.word()
}

const FROZEN: u64 = 1 << 31;

fn set(map: &Map, at: usize, value: u64) {
    map.u64_at(at).store(value, Ordering::Release);
}

#[test]
fn a_segment_that_says_something_else_is_refused() {
    let sender = Sender::new(CAP);
    let receiver = Receiver::new(CAP);
    let from = Published::default();
    let read =
        |control: Rc<Map>| OutletReader::new(sender.segment.read_only(), control, from).err();
    let fresh = Memory::new(CONTROL_BYTES);
    assert_eq!(read(fresh.map()), Some(Unfit::Header(Bad::Magic)));
    assert_eq!(read(receiver.segment.map()), Some(Unfit::Header(Bad::Magic)), "no control page");
    let other = Memory::new(CONTROL_BYTES);
    Outlet::new(Memory::new(outlet_bytes(2 * CAP)).map(), 2 * CAP).attach(other.map());
    assert_eq!(read(other.map()), Some(Unfit::Header(Bad::Size)), "of another ring");
    assert_eq!(read(Memory::new(8).map()), Some(Unfit::Header(Bad::Size)));
    let stranger = InletWriter::new(sender.segment.map()).err();
    assert_eq!(stranger, Some(Unfit::Header(Bad::Magic)), "an outlet is no inlet");
    let map = receiver.segment.map();
    for (at, bad) in [
        (0, Bad::Magic),
        (8, Bad::Version),
        (12, Bad::Magic),
        (16, Bad::Ring),
        (17, Bad::Size),
        (20, Bad::Size),
        (24, Bad::Size),
    ] {
        let mut bytes = [0; 32];
        map.read(0, &mut bytes);
        let right = bytes;
        // A ring of twice the size is one that may be.
        bytes[at] ^= if at == 17 { 0x30 } else { 1 };
        map.write(0, &bytes);
        assert_eq!(InletWriter::new(Rc::clone(&map)).err(), Some(Unfit::Header(bad)), "{at}");
        map.write(0, &right);
    }
    assert!(InletWriter::new(map).is_ok());
    let short = Memory::new(inlet_bytes(CAP) + PAGE);
    let mut bytes = [0; 32];
    receiver.segment.map().read(0, &mut bytes);
    short.map().write(0, &bytes);
    assert_eq!(InletWriter::new(short.map()).err(), Some(Unfit::Header(Bad::Size)));
}

#[test]
fn what_says_where_to_begin_is_checked() {
    let mut sender = Sender::new(CAP);
    sender.attach();
    sender.outlet.push(1, 0, &[1; 20]).unwrap();
    sender.outlet.publish();
    for from in [word(1, 0), word(2, 32), word(0, 64), word(0, 1), FROZEN, word(9, 9)] {
        let (ring, control) = (sender.segment.read_only(), sender.control.map());
        let read = OutletReader::new(ring, control, Published::of(from));
        assert_eq!(read.err(), Some(Unfit::Scribbled), "{from:#x}");
    }
    let receiver = Receiver::new(CAP);
    let map = receiver.segment.map();
    for (head, at, want) in [
        (word(0, 0), word(1, 0), Unfit::Scribbled),
        (word(0, 0), word(0, 16), Unfit::Scribbled),
        (word(0, 0), word(1, CAP + 8), Unfit::Scribbled),
        (word(3, 48), word(2, 32), Unfit::Scribbled),
        (word(0, 0), word(1, 12), Unfit::Scribbled),
        (FROZEN, word(1, 16), Unfit::Scribbled),
        (word(0, 0), word(1, 16) | FROZEN, Unfit::Frozen),
    ] {
        set(&map, HEAD, head);
        set(&map, WORD, at);
        assert_eq!(InletWriter::new(Rc::clone(&map)).err(), Some(want), "{head:#x} {at:#x}");
    }
}

#[test]
fn a_relay_that_acknowledges_nonsense_is_found_out_and_another_one_goes_on() {
    let mut sender = Sender::new(CAP);
    sender.attach();
    for _ in 0..8 {
        sender.outlet.push(1, 0, &[1; 100]).unwrap();
    }
    sender.outlet.publish();
    let whole = 112;
    for bad in [
        word(9, 9 * whole),
        word(8, 7 * whole),
        word(7, 8 * whole),
        word(1, 0),
        word(0, whole),
        word(2, 2 * whole + 4),
        word(2, 2 * whole) | FROZEN,
        u64::MAX,
    ] {
        set(&sender.control.map(), ACKED, bad);
        assert_eq!(sender.outlet.acked(), Err(Scribbled), "{bad:#x}");
        assert_eq!(sender.outlet.acked(), Err(Scribbled), "it stays so");
    }
    set(&sender.control.map(), ACKED, word(2, 2 * whole));
    assert_eq!(sender.outlet.acked().unwrap().seq, 2);
    set(&sender.control.map(), ACKED, word(1, whole));
    assert_eq!(sender.outlet.acked(), Err(Scribbled), "not back");
    while sender.outlet.held() < CAP - 112 {
        sender.outlet.push(1, 0, &[1; 100]).unwrap_or_else(|refused| {
            panic!("{refused}: there is room without a look");
        });
    }
    assert_eq!(sender.outlet.push(1, 0, &[1; 1000]), Err(Refused::Scribbled));
    set(&sender.control.map().clone(), SENT, 99);
    assert_eq!(sender.outlet.sent(), Err(Scribbled));
    let reader = sender.attach();
    assert_eq!((reader.acked().seq, sender.outlet.sent(), reader.next()), (2, Ok(2), 3));
    assert_eq!(sender.outlet.push(1, 0, &[1; 1000]), Err(Refused::Full));
}

#[test]
fn a_sender_that_writes_nonsense_is_found_out() {
    let whole = 32;
    let bytes = |header: RecordHeader| {
        let mut run = Vec::new();
        header.append(&vec![0; header.len as usize], &mut run);
        run
    };
    let header = |len, kind| bytes(RecordHeader { len, kind, channel: 0 })[..8].to_vec();
    for (at, lie) in [
        (WORD, word(3, 3 * whole)),
        (WORD, word(2, 3 * whole)),
        (WORD, word(3, 2 * whole)),
        (WORD, word(2, 2 * whole + 4)),
        (WORD, word(2, CAP + 8)),
        (WORD, word(2, 2 * whole) | FROZEN),
        (WORD, word(1 << 31, 2 * whole)),
        (RING, u64::from(u32::MAX)),
        (RING, u64::from_le_bytes(header(57, 1).try_into().unwrap())),
        (RING, u64::from_le_bytes(header(56, 1).try_into().unwrap())),
        (RING, u64::from_le_bytes(header(8, 1).try_into().unwrap())),
        (RING, u64::from_le_bytes(header(24, PAD).try_into().unwrap())),
        (RING, u64::from_le_bytes(header(24, 4).try_into().unwrap())),
    ] {
        let mut sender = Sender::new(CAP);
        let mut reader = sender.attach();
        for _ in 0..2 {
            sender.outlet.push(1, 0, &[1; 24]).unwrap();
        }
        sender.outlet.publish();
        set(&sender.segment.map(), at, lie);
        let mut out = vec![9];
        assert_eq!(reader.read(u32::MAX, u32::MAX, &mut out), Err(Scribbled), "{at} {lie:#x}");
        assert_eq!(out, [9], "nothing of it comes out");
        // Which must not make anybody fall over.
        let _ = (reader.mark_acked(2), reader.seek(2), reader.mark_acked(1));
    }
}

#[test]
fn a_word_that_goes_back_is_found_out_at_every_end() {
    let mut sender = Sender::new(CAP);
    let mut reader = sender.attach();
    sender.outlet.push(1, 0, &[1; 24]).unwrap();
    sender.outlet.publish();
    assert_eq!(reader.written(), Ok(1));
    set(&sender.segment.map(), WORD, 0);
    assert_eq!(reader.written(), Err(Scribbled));
    assert_eq!(reader.seek(1), Err(Missed::NoSuchRecord).or(Ok(())), "what was seen is there");
    let mut receiver = Receiver::new(CAP);
    let mut writer = receiver.writer();
    writer.push_run(&record(&[1; 24])).unwrap();
    writer.publish().unwrap();
    assert_eq!(receiver.take(0).len(), 0);
    set(&receiver.segment.map(), WORD, 0);
    let walked = receiver.inlet.walk(&mut Vec::new(), 9, |_, _, _| Flow::Go);
    assert_eq!(walked, Err(Scribbled));
    writer.push_run(&record(&[1; 24])).unwrap();
    assert_eq!((writer.look(), writer.publish()), (Err(Ended::Scribbled), Err(Ended::Scribbled)));
    assert_eq!(
        receiver.inlet.hand_over(Memory::new(inlet_bytes(CAP)).map(), CAP).err(),
        Some(Scribbled)
    );
}

#[test]
fn a_relay_that_writes_nonsense_is_found_out_and_what_was_shown_is_consumed() {
    let skip = |len: u32, n: u32| u64::from(len) | 4 << 32 | u64::from(n) << 48;
    for (at, lie) in [
        (WORD, word(4, 3 * 32)),
        (WORD, word(3, 4 * 32)),
        (WORD, word(2, 3 * 32)),
        (RING + 64, u64::MAX),
        (RING + 64, 25),
        (RING + 64, u64::from(PAD) << 32 | 24),
        (RING + 64, skip(4, 0)),
        (RING + 64, skip(24, 1)),
    ] {
        for most in [9, 900] {
            let mut receiver = Receiver::new(CAP);
            let mut writer = receiver.writer();
            for _ in 0..3 {
                writer.push_run(&record(&[1; 24])).unwrap();
            }
            writer.publish().unwrap();
            set(&receiver.segment.map(), at, lie);
            let mut shown = 0;
            let walked = receiver.inlet.walk(&mut Vec::new(), most, |seq, _, _| {
                shown += 1;
                assert_eq!(seq, shown);
                Flow::Go
            });
            assert_eq!(walked, Err(Scribbled), "{at} {lie:#x} {most}");
            assert_eq!(receiver.inlet.consumed(), shown, "{at} {lie:#x}");
            let map = Memory::new(inlet_bytes(CAP)).map();
            let handed = receiver.inlet.hand_over(map, CAP);
            assert!(shown == 3 || handed.is_err(), "{at} {lie:#x}");
        }
    }
}

#[test]
fn a_receiver_that_writes_nonsense_is_found_out() {
    for lie in [word(1, 0), word(0, 16), word(3, 48), word(2, 16), word(1, 12), FROZEN, u64::MAX] {
        let receiver = Receiver::new(CAP);
        let mut writer = receiver.writer();
        for _ in 0..2 {
            writer.push_run(&record(&[1; 8])).unwrap();
        }
        writer.publish().unwrap();
        set(&receiver.segment.map(), HEAD, lie);
        assert_eq!(writer.consumed(), Err(Scribbled), "{lie:#x}");
        assert_eq!(writer.room(), Err(Scribbled), "{lie:#x}");
        assert_eq!(writer.push_run(&vec![0; CAP as usize]), Err(Unstored::Scribbled), "{lie:#x}");
    }
}

#[test]
fn what_is_no_run_of_records_is_not_stored() {
    let receiver = Receiver::new(CAP);
    let mut writer = receiver.writer();
    let mut late = record(&[1; 100]);
    late.extend_from_slice(&[9; 4]);
    let mut long = record(&[1; 100]);
    long[0] = 200;
    let mut pad = record(&[1; 100]);
    pad[4..6].copy_from_slice(&PAD.to_le_bytes());
    for run in [late, long, pad, vec![0; 7], vec![0xff; 64], record(&[1; 1017])] {
        assert_eq!(writer.push_run(&run), Err(Unstored::Malformed));
        assert!(!writer.is_dirty());
    }
    let run: Vec<u8> = (0..5).flat_map(|_| record(&[1; 1000])).collect();
    assert_eq!(writer.push_run(&run), Err(Unstored::NoRoom));
    assert!(!writer.is_dirty());
    assert_eq!(writer.push_run(&[]), Ok(0));
    assert_eq!(writer.publish(), Ok(()));
}

#[test]
fn a_map_that_may_only_be_read_is_read_and_nothing_else() {
    let memory = Memory::new(PAGE);
    memory.map().u64_at(64).store(77, Ordering::Relaxed);
    let map = memory.read_only();
    let mut bytes = [0; 8];
    map.read(64, &mut bytes);
    assert_eq!((map.load_u64(64), u64::from_le_bytes(bytes), map.is_writable()), (77, 77, false));
    let mut copy = vec![1];
    map.append(64, 2, &mut copy);
    assert_eq!(copy, [1, 77, 0]);
    let tries: [fn(&Map); 4] = [
        |map| map.write(0, &[1]),
        |map| map.write_through(0, &[1]),
        |map| _ = map.u32_at(0),
        |map| _ = map.u64_at(0),
    ];
    for attempt in tries {
        let map = std::panic::AssertUnwindSafe(&map);
        assert!(std::panic::catch_unwind(|| attempt(&map)).is_err());
    }
}

/// Everything that a stranger may write to.
struct Strange {
    maps: [(Rc<Map>, Vec<usize>); 3],
}

impl Strange {
    fn new(sender: &Sender, receiver: &Receiver) -> Strange {
        let maps = [
            (sender.segment.map(), vec![WORD]),
            (sender.control.map(), vec![ACKED, SENT, SENT + 8]),
            (receiver.segment.map(), vec![WORD, HEAD]),
        ];
        Strange { maps }
    }

    fn scribble(&self, dice: &mut Dice) {
        let (map, places) = &self.maps[dice.below(3) as usize];
        let at = places[dice.below(places.len() as u64) as usize];
        let value = match dice.below(6) {
            0 => 0,
            1 => dice.roll(),
            2 => word(dice.below(200) as u32, dice.below(2 * u64::from(CAP)) as u32 & !7),
            3 => map.load_u64(at).wrapping_add(dice.below(64) << (dice.below(2) * 32)),
            _ if map.len() > RING => {
                let at = RING + (dice.below(u64::from(CAP)) as usize & !7);
                let small = RecordHeader { len: dice.below(1100) as u32, kind: 1, channel: 0 };
                let kinds = [1, 4, PAD, 2];
                let kind = kinds[dice.below(4) as usize];
                return set(map, at, u64::from(small.len) | u64::from(kind) << 32);
            }
            _ => u64::MAX,
        };
        set(map, at, value);
    }
}

/// A run that a reader has let out is one that anybody can take apart.
fn check_run(run: &[u8], records: u32) {
    let (mut rest, mut count) = (run, 0);
    while let Some((_, _, more)) = RecordHeader::split(rest) {
        (rest, count) = (more, count + 1);
    }
    assert_eq!((rest.len(), count), (0, records));
}

/// One step of somebody innocent at each end; whether anybody was found out.
fn step(
    dice: &mut Dice,
    outlet: &mut Outlet,
    reader: &mut OutletReader,
    inlet: &mut Inlet,
    writer: &mut InletWriter,
) -> bool {
    let n = dice.below(1100) as u32;
    match dice.below(9) {
        0 => matches!(outlet.push(1, 0, &vec![7; n as usize % 1000]), Err(Refused::Scribbled)),
        1 => outlet.publish() && outlet.sent().is_err(),
        2 => outlet.acked().is_err(),
        3 => {
            let mut run = Vec::new();
            match reader.read(n * 3, u32::MAX, &mut run) {
                Err(Scribbled) => return true,
                Ok(batch) => {
                    assert_eq!(batch.bytes as usize, run.len());
                    check_run(&run, batch.records);
                }
            }
            let stored = writer.push_run(&run);
            assert_ne!(stored, Err(Unstored::Malformed));
            stored == Err(Unstored::Scribbled) || writer.publish().is_err()
        }
        4 => reader.mark_acked(writer.stored().wrapping_add(n % 3)) == Err(Missed::Scribbled),
        5 => reader.seek(n % 100) == Err(Missed::Scribbled),
        6 => writer.consumed().is_err() || writer.skip(n % 3) == Err(Unstored::Scribbled),
        7 => match reader.read_large() {
            Ok(Some((_, header, payload))) => {
                assert_eq!(payload.to_vec().len(), header.len as usize);
                false
            }
            read => read.is_err(),
        },
        _ => {
            let most = if n.is_multiple_of(2) { n % 8 } else { 1000 };
            let walked = inlet.walk(&mut Vec::new(), most, |_, header, bytes| {
                assert_eq!(header.len as usize, bytes.len());
                Flow::Go
            });
            walked.is_err()
        }
    }
}

/// Steps until somebody is found out, then a hand-over of what is left; returns whether it came to
/// that.
fn live(
    dice: &mut Dice,
    steps: u32,
    strange: &mut impl FnMut(&mut Dice, &Sender, &Receiver),
) -> bool {
    let (mut sender, mut receiver) = (Sender::new(CAP), Receiver::new(CAP));
    let (mut reader, mut writer) = (sender.attach(), receiver.writer());
    let found = (0..steps).any(|_| {
        strange(dice, &sender, &receiver);
        let (outlet, inlet) = (&mut sender.outlet, &mut receiver.inlet);
        step(dice, outlet, &mut reader, inlet, &mut writer)
    });
    let _ = receiver.inlet.hand_over(Memory::new(inlet_bytes(CAP)).map(), CAP);
    sender.outlet.undelivered(3).for_each(drop);
    sender.outlet.attach(Memory::new(CONTROL_BYTES).map());
    found
}

#[test]
fn a_scribbler_costs_at_most_the_channel() {
    let (mut found, mut lived) = (0, 0);
    for seed in 1..=300 {
        let mut dice = Dice(seed);
        let mut strange = |dice: &mut Dice, sender: &Sender, receiver: &Receiver| {
            if dice.below(10) == 0 {
                Strange::new(sender, receiver).scribble(dice);
            }
        };
        *(if live(&mut dice, 300, &mut strange) { &mut found } else { &mut lived }) += 1;
    }
    assert!(found > 0, "{lived} lived");
}

#[test]
fn without_a_scribbler_nobody_is_found_out() {
    for seed in 1..=100 {
        assert!(!live(&mut Dice(seed), 300, &mut |_, _, _| {}), "seed {seed}");
    }
}

#[test]
fn a_scribbler_at_the_same_time_costs_at_most_the_channel() {
    /// A panic must not leave the scribbler running.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let (mut sender, mut receiver) = (Sender::new(CAP), Receiver::new(CAP));
    sender.attach();
    let fds = [&sender.segment, &sender.control, &receiver.segment].map(Memory::again);
    let mut found = 0;
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let places = [vec![WORD], vec![ACKED, SENT, SENT + 8], vec![WORD, HEAD]];
            let mut maps = fds.iter().map(|file| file.map()).zip(places);
            let strange = Strange { maps: [(); 3].map(|()| maps.next().unwrap()) };
            let mut dice = Dice(99);
            while !stop.load(Ordering::Relaxed) {
                strange.scribble(&mut dice);
            }
        });
        let (begun, mut dice) = (Instant::now(), Dice(5));
        let passed = |millis| begun.elapsed() >= Duration::from_millis(millis);
        // Where the scribbler's thread is not let run, a little longer.
        while !passed(400) || found == 0 && !passed(20_000) {
            sender.outlet = Outlet::new(sender.segment.map(), CAP);
            sender.outlet.attach(sender.control.map());
            receiver.inlet = Inlet::new(receiver.segment.map(), CAP);
            let (ring, control) = (sender.segment.read_only(), sender.control.map());
            let reader = OutletReader::new(ring, control, Published::default());
            let writer = InletWriter::new(receiver.segment.map());
            let (Ok(mut reader), Ok(mut writer)) = (reader, writer) else { continue };
            let (outlet, inlet) = (&mut sender.outlet, &mut receiver.inlet);
            let mut steps = 0..1000;
            let ended = steps.any(|_| step(&mut dice, outlet, &mut reader, inlet, &mut writer));
            found += u32::from(ended);
        }
    });
    assert!(found > 0, "the scribbler was never found out");
}
