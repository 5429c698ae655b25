//! Any order of steps against a simple model: what was accepted comes out, once and in order.

use proptest::prelude::*;
use ringlane_shm::record::Refused;
use ringlane_shm::through::{Ended, Flow, InletWriter, OutletReader};

use crate::kit::{CAP, Receiver, Sender, record};

type Record = (u16, Vec<u8>);

struct World {
    sender: Sender,
    receiver: Receiver,
    reader: OutletReader,
    writer: InletWriter,
    /// Relays that were replaced and may come back.
    zombies: Vec<(OutletReader, InletWriter)>,
    /// Credit, counted in whole records from the beginning of a binding: what was granted, and
    /// what came.
    limit: u32,
    received: u32,
    /// Every record that was written, and how many are published and consumed.
    written: Vec<Record>,
    published: u32,
    consumed: u32,
}

impl World {
    fn new() -> World {
        let (mut sender, receiver) = (Sender::new(CAP), Receiver::new(CAP));
        let (reader, writer) = (sender.attach(), receiver.writer());
        let (zombies, written) = (Vec::new(), Vec::new());
        let (limit, received, published, consumed) = (0, 0, 0, 0);
        World {
            sender,
            receiver,
            reader,
            writer,
            zombies,
            limit,
            received,
            written,
            published,
            consumed,
        }
    }

    fn push(&mut self, n: u32) {
        let channel = self.written.len() as u16;
        let payload = vec![channel as u8; (n % 1017) as usize];
        match self.sender.outlet.push(1, channel, &payload) {
            Ok(()) => self.written.push((channel, payload)),
            Err(refused) => {
                assert_eq!(refused, Refused::Full);
                assert!(self.sender.outlet.held() + 2 * 1024 > CAP, "there was room");
            }
        }
        assert_eq!(self.sender.outlet.written() as usize, self.written.len());
    }

    fn publish(&mut self) {
        self.sender.outlet.publish();
        self.published = self.written.len() as u32;
    }

    /// Moves a batch, as far as the credit goes, and stores it.
    fn transfer(&mut self, most: u32) {
        self.limit = self.limit.max(self.received + self.writer.room().unwrap());
        let mut run = Vec::new();
        let batch = self.reader.read(most, self.limit - self.received, &mut run).unwrap();
        assert_eq!(batch.first, self.writer.stored() + 1);
        self.reader.mark_sent(batch.first + batch.records - 1);
        self.received += batch.bytes;
        assert_eq!(self.writer.push_run(&run), Ok(batch.records), "credit is a promise");
        self.writer.publish().unwrap();
        assert_eq!(self.receiver.inlet.stored(), self.writer.stored());
    }

    fn acknowledge(&mut self, fewer: u32) {
        let stored = self.writer.stored();
        let acked = self.reader.acked().seq;
        let seq = stored - fewer.min(stored - acked);
        assert_eq!(self.reader.mark_acked(seq), Ok(seq > acked));
        assert_eq!(self.sender.outlet.acked().unwrap(), self.reader.acked());
    }

    fn walk(&mut self, most: u32) {
        let (consumed, written) = (&mut self.consumed, &self.written);
        let stored = self.writer.stored();
        let walked = self.receiver.inlet.walk(&mut Vec::new(), most, |seq, header, bytes| {
            let (channel, payload) = &written[*consumed as usize];
            assert_eq!((seq, header.channel), (*consumed + 1, *channel));
            assert_eq!(bytes, payload);
            *consumed += 1;
            Flow::Go
        });
        assert!(walked.is_ok());
        assert!(*consumed == stored || walked == Ok(most));
        assert_eq!(self.receiver.inlet.consumed(), *consumed);
        assert_eq!(self.writer.consumed(), Ok(*consumed));
    }

    /// Both relays are replaced.
    fn replace(&mut self) {
        let stored = self.writer.stored();
        let writer = self.receiver.hand_over();
        let reader = self.sender.attach();
        let old = std::mem::replace(&mut self.reader, reader);
        self.zombies.push((old, std::mem::replace(&mut self.writer, writer)));
        assert_eq!((self.writer.stored(), self.writer.look()), (stored, Ok(stored)));
        assert_eq!(self.receiver.inlet.consumed(), self.consumed);
        self.reader.seek(stored + 1).unwrap();
        self.reader.mark_acked(stored).unwrap();
        (self.limit, self.received) = (0, 0);
    }

    /// A relay that was replaced does what it can.
    fn haunt(&mut self, n: u32) {
        let Some((reader, writer)) = self.zombies.last_mut() else { return };
        if writer.push_run(&record(&[0xee; 100])).is_ok() {
            assert_eq!(writer.publish(), Err(Ended::Frozen));
        }
        let last = reader.written().map_or(0, |last| last.min(reader.acked().seq + n));
        let before = self.sender.outlet.from();
        let _ = reader.mark_acked(last);
        assert!(self.sender.outlet.acked().unwrap().seq >= before.seq);
        assert_eq!(self.sender.outlet.from(), self.reader.acked());
    }

    fn step(&mut self, what: u8, n: u32) {
        match what {
            0..=3 => self.push(n),
            4 => self.publish(),
            5 | 6 => self.transfer(n),
            7 => self.acknowledge(n % 4),
            8 => self.walk(n % 7),
            9 => self.walk(u32::MAX),
            10 => self.replace(),
            11 => self.haunt(n % 9),
            _ => {
                let from = self.sender.outlet.from().seq;
                self.publish();
                let held: Vec<u16> = self
                    .sender
                    .outlet
                    .undelivered(0)
                    .map(|(_, header, _)| header.channel)
                    .collect();
                let want: Vec<u16> = (from as u16..self.published as u16).collect();
                assert_eq!(held, want);
            }
        }
        let sent = self.sender.outlet.sent().unwrap();
        assert!(self.consumed <= self.writer.stored() && self.writer.stored() <= sent);
        assert!(sent <= self.published);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_accepted_comes_out_once_and_in_order(
        steps in prop::collection::vec((0u8..13, 0u32..3000), 1..400),
    ) {
        let mut world = World::new();
        for (what, n) in steps {
            world.step(what, n);
        }
        // With everybody at work, everything comes through.
        world.publish();
        for _ in 0..20 {
            world.transfer(u32::MAX);
            world.walk(u32::MAX);
            world.acknowledge(0);
        }
        prop_assert_eq!(world.consumed as usize, world.written.len());
        prop_assert_eq!(world.sender.outlet.held(), 0);
    }
}
