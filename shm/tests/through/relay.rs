//! What goes through, as long as everybody is honest.

use ringlane_shm::record::{MORE, Refused};
use ringlane_shm::through::{Ended, Flow, LARGE_BYTES, Missed, SKIP_BYTES, Unstored};

use crate::kit::{CAP, Receiver, Sender, record};

#[test]
fn records_go_from_a_sender_through_a_relay_to_a_receiver() {
    let (mut sender, mut receiver) = (Sender::new(CAP), Receiver::new(CAP));
    let (mut reader, mut writer) = (sender.attach(), receiver.writer());
    let (mut run, mut want) = (Vec::new(), Vec::new());
    for i in 0..501_u32 {
        let payload = vec![i as u8; (i * 37 % 900) as usize];
        sender.outlet.push(1, i as u16, &payload).unwrap();
        want.push((i + 1, i as u16, payload));
        if i % 3 < 2 {
            continue;
        }
        sender.outlet.publish();
        assert!(reader.news());
        run.clear();
        let room = writer.room().unwrap();
        let batch = reader.read(u32::MAX, room, &mut run).unwrap();
        assert_eq!((batch.first, batch.records, reader.news()), (i - 1, 3, false));
        assert_eq!(batch.bytes as usize, run.len());
        reader.mark_sent(batch.first + 2);
        assert_eq!(sender.outlet.sent(), Ok(i + 1));
        assert_eq!(writer.push_run(&run), Ok(3));
        assert_eq!(receiver.inlet.stored(), i - 2, "not before it is published");
        writer.publish().unwrap();
        assert!(receiver.inlet.news());
        assert_eq!(receiver.take(9), want);
        want.clear();
        assert_eq!((receiver.inlet.consumed(), writer.consumed()), (i + 1, Ok(i + 1)));
        assert_eq!(reader.mark_acked(writer.stored()), Ok(true));
        assert_eq!(sender.outlet.acked().unwrap().seq, i + 1);
    }
    assert_eq!((sender.outlet.held(), sender.outlet.written()), (0, 501));
}

#[test]
fn a_sender_without_a_relay_fills_its_ring_and_goes_on_when_there_is_one() {
    let mut sender = Sender::new(CAP);
    let payload = [7; 504];
    for _ in 0..8 {
        sender.outlet.push(1, 0, &payload).unwrap();
    }
    assert_eq!(sender.outlet.push(1, 0, &[]), Err(Refused::Full));
    sender.outlet.publish();
    let mut reader = sender.attach();
    assert_eq!(sender.outlet.push(1, 0, &[]), Err(Refused::Full));
    let batch = reader.read(u32::MAX, u32::MAX, &mut Vec::new()).unwrap();
    assert_eq!((batch.first, batch.records, batch.bytes), (1, 8, CAP));
    // In the middle of a batch, and then of none.
    assert_eq!(reader.mark_acked(3), Ok(true));
    assert_eq!(reader.mark_acked(3), Ok(false));
    assert_eq!(reader.mark_acked(2), Ok(false), "an older one says nothing");
    assert_eq!(reader.mark_acked(9), Err(Missed::NoSuchRecord));
    for _ in 0..3 {
        sender.outlet.push(1, 0, &payload).unwrap();
    }
    assert_eq!(sender.outlet.push(1, 0, &payload), Err(Refused::Full));
}

#[test]
fn a_new_relay_goes_on_where_the_receiver_stands() {
    let (mut sender, mut receiver) = (Sender::new(CAP), Receiver::new(CAP));
    let (mut reader, mut writer) = (sender.attach(), receiver.writer());
    let mut want = Vec::new();
    for i in 1..=20_u32 {
        sender.outlet.push(1, 0, &i.to_le_bytes()).unwrap();
        want.push((i, 0, i.to_le_bytes().to_vec()));
    }
    sender.outlet.publish();
    let mut run = Vec::new();
    reader.read(16 * 12, u32::MAX, &mut run).unwrap();
    writer.push_run(&run).unwrap();
    writer.publish().unwrap();
    reader.mark_sent(12);
    reader.mark_bound(77);
    reader.mark_acked(5).unwrap();
    let mut got = receiver.take(4);
    // Both relays are replaced; twelve are stored, five acknowledged, four consumed.
    let mut writer = receiver.hand_over();
    let mut reader = sender.attach();
    assert_eq!((receiver.inlet.consumed(), writer.stored(), writer.consumed()), (4, 12, Ok(4)));
    assert_eq!(
        (sender.outlet.from().seq, sender.outlet.sent(), sender.outlet.bound()),
        (5, Ok(12), 77)
    );
    assert_eq!(reader.next(), 6);
    assert_eq!(reader.seek(5), Err(Missed::NoSuchRecord));
    assert_eq!(reader.seek(22), Err(Missed::NoSuchRecord));
    assert_eq!(reader.seek(21), Ok(()));
    reader.seek(writer.look().unwrap() + 1).unwrap();
    reader.mark_acked(12).unwrap();
    run.clear();
    let batch = reader.read(u32::MAX, u32::MAX, &mut run).unwrap();
    assert_eq!((batch.first, batch.records), (13, 8));
    writer.push_run(&run).unwrap();
    writer.publish().unwrap();
    got.extend(receiver.take(100));
    assert_eq!(got, want);
}

#[test]
fn a_relay_that_was_replaced_stores_nothing_and_frees_nothing_more() {
    let (mut sender, mut receiver) = (Sender::new(CAP), Receiver::new(CAP));
    let (mut old_reader, mut old_writer) = (sender.attach(), receiver.writer());
    sender.outlet.push(1, 0, b"first").unwrap();
    sender.outlet.push(1, 0, b"second").unwrap();
    sender.outlet.publish();
    old_writer.push_run(&record(b"first")).unwrap();
    old_writer.publish().unwrap();
    old_writer.push_run(&record(b"too late")).unwrap();
    let mut writer = receiver.hand_over();
    let _reader = sender.attach();
    assert_eq!(old_writer.publish(), Err(Ended::Frozen));
    assert_eq!(old_writer.look(), Err(Ended::Frozen));
    assert_eq!(old_writer.publish(), Err(Ended::Frozen));
    writer.push_run(&record(b"second")).unwrap();
    writer.publish().unwrap();
    old_reader.mark_acked(2).unwrap();
    assert_eq!(sender.outlet.acked().unwrap().seq, 0, "of the current page only");
    old_reader.mark_sent(2);
    assert_eq!(sender.outlet.sent(), Ok(2), "of every page");
    let got: Vec<Vec<u8>> = receiver.take(9).into_iter().map(|(_, _, bytes)| bytes).collect();
    assert_eq!(got, [b"first".to_vec(), b"second".to_vec()]);
}

#[test]
fn what_a_receiver_that_is_gone_has_not_taken_is_had_back() {
    let mut sender = Sender::new(CAP);
    let mut reader = sender.attach();
    for i in 1..=30_u32 {
        sender.outlet.push(1, i as u16, &[i as u8; 100]).unwrap();
    }
    reader.seek(1).unwrap();
    sender.outlet.publish();
    reader.mark_acked(20).unwrap();
    let mut later = 0;
    for i in 31..=45_u32 {
        sender.outlet.push(1, i as u16, &[i as u8; 100]).unwrap();
        later = i;
    }
    let back: Vec<_> = sender.outlet.undelivered(24).collect();
    assert_eq!((back.len(), sender.outlet.is_dirty()), (21, false));
    for (i, (seq, header, bytes)) in (25..=later).zip(back) {
        assert_eq!((seq, header.channel, bytes), (i, i as u16, vec![i as u8; 100]));
    }
    assert_eq!(sender.outlet.undelivered(0).count(), 25, "those that are acknowledged are gone");
    assert_eq!(sender.outlet.undelivered(45).count(), 0);
}

#[test]
fn a_skipped_range_is_consumed_and_not_shown() {
    let mut receiver = Receiver::new(CAP);
    let mut writer = receiver.writer();
    writer.push_run(&record(b"1")).unwrap();
    writer.skip(0).unwrap();
    let room = writer.room().unwrap();
    writer.skip(40).unwrap();
    assert_eq!(writer.room(), Ok(room - SKIP_BYTES));
    writer.push_run(&record(b"42")).unwrap();
    writer.publish().unwrap();
    writer.skip(3).unwrap();
    writer.publish().unwrap();
    assert_eq!((writer.stored(), receiver.inlet.stored()), (45, 45));
    let got: Vec<u32> = receiver.take(9).into_iter().map(|(seq, ..)| seq).collect();
    assert_eq!((got, receiver.inlet.consumed()), (vec![1, 42], 45));
    assert_eq!(writer.consumed(), Ok(45));
    let mut run = record(b"1");
    run[4] = 4;
    assert_eq!(writer.push_run(&run), Err(Unstored::Malformed), "senders skip nothing");
}

#[test]
fn each_record_is_consumed_when_its_callback_has_returned() {
    let mut receiver = Receiver::new(CAP);
    let mut writer = receiver.writer();
    for _ in 0..10 {
        writer.push_run(&record(&[1; 20])).unwrap();
    }
    writer.publish().unwrap();
    let mut walk = |receiver: &mut Receiver, most, stop_at| {
        let walked = receiver.inlet.walk(&mut Vec::new(), most, |seq, _, _| {
            assert_eq!(writer.consumed(), Ok(seq - 1));
            if seq == stop_at { Flow::Stop } else { Flow::Go }
        });
        (walked.unwrap(), receiver.inlet.consumed(), receiver.inlet.unread())
    };
    assert_eq!(walk(&mut receiver, 3, 0), (3, 3, 7));
    assert_eq!(walk(&mut receiver, 100, 5), (2, 5, 5));
    assert_eq!(walk(&mut receiver, 0, 0), (0, 5, 5));
    assert_eq!(walk(&mut receiver, 100, 0), (5, 10, 0));
}

#[test]
fn a_large_record_may_be_taken_in_place() {
    let cap = 256 << 10;
    let mut sender = Sender::new(cap);
    let mut reader = sender.attach();
    let large: Vec<u8> = (0..40_000_u32).map(|i| (i % 251) as u8).collect();
    sender.outlet.push(1, 0, b"small").unwrap();
    sender.outlet.push(1, 9, &large).unwrap();
    sender.outlet.publish();
    assert_eq!(reader.next_is_large(), Ok(None));
    let mut run = Vec::new();
    assert_eq!(reader.read(1000, u32::MAX, &mut run).unwrap().records, 1);
    assert_eq!(reader.next_is_large(), Ok(Some(40_000)));
    const { assert!(LARGE_BYTES < 40_000) };
    assert_eq!(reader.read(1000, 40_000, &mut run).unwrap().records, 0, "not for that credit");
    let (seq, header, payload) = reader.read_large().unwrap().unwrap();
    assert_eq!((seq, header.channel, payload.to_vec() == large), (2, 9, true));
    assert!(reader.read_large().unwrap().is_none());
    reader.seek(2).unwrap();
    run.clear();
    let batch = reader.read(1000, u32::MAX, &mut run).unwrap();
    assert_eq!((batch.first, batch.records, batch.bytes), (2, 1, 40_008), "alone it may be larger");
    assert_eq!(run[8..], large);
    reader.mark_acked(2).unwrap();
    assert_eq!(sender.outlet.acked().unwrap().seq, 2);
}

#[test]
fn a_message_longer_than_a_record_goes_in_pieces_as_room_comes() {
    let mut sender = Sender::new(CAP);
    let mut reader = sender.attach();
    let message: Vec<u8> = (0..20_000_u32).map(|i| (i % 249) as u8).collect();
    let (mut sent, mut got, mut run, mut ends) = (0, Vec::new(), Vec::new(), 0);
    while sent < message.len() {
        sent += sender.outlet.push_pieces(2, 5, &message[sent..]).unwrap();
        sender.outlet.publish();
        run.clear();
        let batch = reader.read(u32::MAX, u32::MAX, &mut run).unwrap();
        let mut receiver = Receiver::new(CAP);
        let mut writer = receiver.writer();
        writer.push_run(&run).unwrap();
        writer.publish().unwrap();
        let walked = receiver.inlet.walk(&mut Vec::new(), 99, |_, header, bytes| {
            got.extend_from_slice(bytes);
            ends += u32::from(header.kind & MORE == 0);
            Flow::Go
        });
        assert_eq!(walked, Ok(batch.records));
        reader.mark_acked(batch.first + batch.records - 1).unwrap();
    }
    assert_eq!((got == message, ends), (true, 1));
}
