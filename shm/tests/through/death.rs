//! Relays that die behind every step, and come back when nobody wants them any more.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

use ringlane_shm::crash::{Point, arm};
use ringlane_shm::through::{Flow, InletWriter, OutletReader};

use crate::kit::{CAP, Dice, Memory, Receiver, Sender};

/// What a relay dies of here: its maps go on, as they do for a process that is stopped.
struct Death;

fn die() {
    panic_any(Death);
}

fn disarm() {
    arm(Point::Ending, u32::MAX, || {});
}

/// Does something on the way of which a relay may die; whether it lived.
fn lives(point: Point, nth: u32, what: impl FnOnce()) -> bool {
    arm(point, nth, die);
    let done = catch_unwind(AssertUnwindSafe(what));
    disarm();
    match done {
        Ok(()) => true,
        Err(payload) if payload.is::<Death>() => false,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Steps between which relays die.
const STEPS: [Point; 8] = [
    Point::WordLoaded,
    Point::Copied,
    Point::RunTaken,
    Point::SentMarked,
    Point::RunWritten,
    Point::Published,
    Point::Released,
    Point::AckedMarked,
];

/// One relay at each end.
struct Relays {
    reader: OutletReader,
    writer: InletWriter,
}

impl Relays {
    /// New ones, which know nothing but what the processes hand them.
    fn new(sender: &mut Sender, receiver: &mut Receiver) -> Result<Relays, String> {
        let said = |what: &str, why: String| format!("{what}: {why}");
        let segment = Memory::new(ringlane_shm::through::inlet_bytes(CAP));
        let handed = receiver.inlet.hand_over(segment.map(), CAP);
        receiver.inlet = handed.map_err(|why| said("hand-over", format!("{why:?}")))?;
        receiver.segment = segment;
        let writer = InletWriter::new(receiver.segment.map());
        let writer = writer.map_err(|why| said("inlet", why.to_string()))?;
        let mut reader = sender.attach();
        let found = reader.seek(writer.stored() + 1);
        found.map_err(|why| said("resume", why.to_string()))?;
        let acked = reader.mark_acked(writer.stored());
        acked.map_err(|why| said("acknowledge", why.to_string()))?;
        Ok(Relays { reader, writer })
    }

    /// Moves a batch.
    fn work(&mut self, most: u32) {
        let room = self.writer.room().expect("nobody scribbles");
        let mut run = Vec::new();
        let batch = self.reader.read(most, room, &mut run).expect("nobody scribbles");
        if batch.records == 0 {
            return;
        }
        self.reader.mark_bound(7);
        self.reader.mark_sent(batch.first + batch.records - 1);
        self.writer.push_run(&run).expect("there is room");
        if self.writer.publish().is_ok() {
            self.reader.mark_acked(self.writer.stored()).expect("it was sent");
        }
    }
}

fn payload(seq: u32) -> Vec<u8> {
    vec![seq as u8; (seq * 29 % 300) as usize]
}

/// Relays work, die and come back; what the receiver sees of it.
pub fn story(seed: u64) -> Result<(), String> {
    let mut dice = Dice(seed);
    let (mut sender, mut receiver) = (Sender::new(CAP), Receiver::new(CAP));
    let mut relays = Relays::new(&mut sender, &mut receiver)?;
    let (mut seen, mut wrong) = (0, None);
    for _ in 0..120 {
        for _ in 0..dice.below(4) {
            let next = sender.outlet.written() + 1;
            let _ = sender.outlet.push(1, 0, &payload(next));
        }
        sender.outlet.publish();
        let point = STEPS[dice.below(STEPS.len() as u64) as usize];
        let (nth, most) = (1 + dice.below(3) as u32, dice.below(2000) as u32);
        if !lives(point, nth, || relays.work(most)) || dice.below(8) == 0 {
            let mut dead = relays;
            relays = Relays::new(&mut sender, &mut receiver)?;
            // It was only stopped: the far one takes what comes to it, and says so to the new
            // near one, over a link of the same relay pair.
            let mut late = Vec::new();
            let read = relays.reader.read(1000, 1000, &mut late).expect("nobody scribbles");
            let stored = dead.writer.stored();
            if read.first == stored + 1
                && dead.writer.push_run(&late).is_ok()
                && read.records > 0
                && dead.writer.publish().is_ok()
            {
                let _ = relays.reader.mark_acked(dead.writer.stored());
            }
            relays.reader.seek(read.first).map_err(|why| format!("go on: {why}"))?;
        }
        let walked =
            receiver.inlet.walk(&mut Vec::new(), dice.below(20) as u32, |seq, _, bytes| {
                seen += 1;
                if seq != seen || bytes != payload(seq) {
                    wrong = Some(format!("record {seq} in place of {seen}"));
                }
                Flow::Go
            });
        walked.map_err(|why| format!("{why:?}"))?;
        if let Some(wrong) = wrong.take() {
            return Err(wrong);
        }
        let acked = sender.outlet.acked().map_err(|why| format!("{why:?}"))?;
        let stored = receiver.inlet.stored();
        if acked.seq > stored {
            return Err(format!("{} acknowledged, {stored} stored", acked.seq));
        }
    }
    Ok(())
}

#[test]
fn relays_that_die_behind_any_step_lose_nothing_and_store_nothing_twice() {
    quiet();
    for seed in 1..=150 {
        assert_eq!(story(seed), Ok(()), "seed {seed}");
    }
}

/// Deaths are no news.
pub fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        if !info.payload().is::<Death>() {
            eprintln!("{info}");
        }
    }));
}

#[test]
fn every_step_of_rings_through_a_relay_is_come_by() {
    quiet();
    let mut reached = BTreeSet::new();
    for point in Point::THROUGH {
        let (mut sender, mut receiver) = (Sender::new(CAP), Receiver::new(CAP));
        let mut shown = 0;
        let lived = lives(point, 1, || {
            for seq in 1..=3 {
                sender.outlet.push(1, 0, &payload(seq)).expect("there is room");
            }
            sender.outlet.publish();
            let reader = sender.attach();
            let mut relays = Relays { reader, writer: receiver.writer() };
            relays.work(u32::MAX);
            let walked = receiver.inlet.walk(&mut Vec::new(), 2, |seq, _, _| {
                shown = seq;
                Flow::Go
            });
            assert_eq!(walked, Ok(2));
            receiver.hand_over();
        });
        if !lived {
            reached.insert(format!("{point:?}"));
        }
        // What a witness reads when the receiver is dead is how many callbacks have returned and
        // were followed by their store.
        if point == Point::Shown {
            assert_eq!((shown, receiver.writer().consumed()), (1, Ok(0)));
        }
    }
    assert_eq!(reached, Point::THROUGH.iter().map(|point| format!("{point:?}")).collect());
}
