//! What the device enforces: each rule of `verbs`, broken on purpose.

#![forbid(unsafe_code)]

use std::time::Duration;

use ringlane_rdma_stub::soft::{
    Cable, Device, Fabric, Fate, LIMITS, POISON, Packet, PairState, Says, Wire,
};
use ringlane_rdma_stub::verbs::{
    AsyncEvent, DeviceLimits, PairNumber, PairShape, Piece, Port, QueueNumber, Refusal, Region,
    Retry, SendRequest, Status, Verbs, Work, WorkCompletion,
};

/// One node: device, queue, pair, and one region of 64 slots of 16 bytes.
struct Node {
    device: Device<Cable>,
    port: Port,
    queue: QueueNumber,
    pair: PairNumber,
    region: Region,
}

struct Two {
    fabric: Fabric,
    a: Node,
    b: Node,
}

const SENDS: u32 = 8;
const RECEIVES: u32 = 16;

fn node(fabric: &Fabric, limits: DeviceLimits, entries: u32) -> Node {
    let cable = fabric.cable();
    let port = cable.port();
    let mut device = Device::new(cable, limits);
    let queue = device.create_queue(entries).expect("a queue");
    let shape = PairShape { queue, sends: SENDS, receives: RECEIVES };
    let pair = device.create_pair(shape).expect("a pair");
    let region = device.register(1024).expect("memory");
    Node { device, port, queue, pair, region }
}

fn two_with(retry: Retry, entries: u32) -> Two {
    let fabric = Fabric::new(1, Duration::ZERO);
    let mut a = node(&fabric, LIMITS, entries);
    let mut b = node(&fabric, LIMITS, entries);
    a.device.connect_pair(a.pair, b.port, b.pair, retry).expect("connects");
    b.device.connect_pair(b.pair, a.port, a.pair, retry).expect("connects");
    Two { fabric, a, b }
}

fn two() -> Two {
    two_with(Retry::default(), 64)
}

impl Two {
    /// Lets everything happen that can, for this long.
    fn settle(&mut self, time: Duration) {
        let end = self.fabric.now() + time;
        while self.fabric.now() <= end {
            self.a.device.run();
            self.b.device.run();
            self.fabric.advance(Duration::from_micros(100));
        }
    }

    fn settled(mut self) -> Two {
        self.settle(Duration::from_millis(1));
        self
    }
}

impl Node {
    fn slot(&self, slot: u32) -> Piece {
        Piece { region: self.region, offset: slot * 16, length: 16 }
    }

    fn send(&mut self, slot: u32, signalled: bool) -> Result<(), Refusal> {
        let pieces = [self.slot(slot)];
        let request = SendRequest { id: u64::from(slot), pieces: &pieces, signalled };
        self.device.post_send(self.pair, &request)
    }

    fn receive(&mut self, slot: u32) -> Result<(), Refusal> {
        let piece = self.slot(slot);
        self.device.post_receive(self.pair, u64::from(slot), piece)
    }

    fn poll(&mut self) -> Vec<WorkCompletion> {
        let mut done = Vec::new();
        self.device.poll(self.queue, &mut done, 1000).expect("the queue works");
        done
    }

    fn statuses(&mut self) -> Vec<(Work, u64, Status)> {
        self.poll().iter().map(|done| (done.work, done.id, done.status)).collect()
    }
}

#[test]
fn a_message_arrives_and_completes_on_both_sides() {
    let mut two = two();
    two.b.receive(3).expect("posted");
    let from = two.a.slot(0);
    two.a.device.memory_mut(from).expect("ours").copy_from_slice(b"sixteen bytes ok");
    two.a.send(0, true).expect("posted");
    two.settle(Duration::from_millis(1));
    assert_eq!(two.a.statuses(), [(Work::Send, 0, Status::Success)]);
    let done = two.b.poll();
    assert_eq!((done.len(), done[0].id, done[0].bytes), (1, 3, 16));
    let to = two.b.slot(3);
    assert_eq!(two.b.device.memory(to), Ok(&b"sixteen bytes ok"[..]));
}

#[test]
fn a_stale_key_fails_the_pair_when_its_turn_comes_and_flushes_the_rest() {
    let mut two = two();
    (0..8).for_each(|slot| two.a.receive(slot + 8).expect("posted"));
    two.b.receive(0).expect("posted");
    let stale = two.a.device.register(16).expect("memory");
    two.a.device.deregister(stale).expect("nothing names it");
    two.a.send(0, true).expect("posted");
    let pieces = [Piece { region: stale, offset: 0, length: 16 }];
    let request = SendRequest { id: 77, pieces: &pieces, signalled: false };
    two.a.device.post_send(two.a.pair, &request).expect("hardware looks later");
    two.a.send(1, false).expect("posted");
    two.settle(Duration::from_millis(1));
    let got = two.a.statuses();
    let sends = [(0, Status::Success), (77, Status::LocalProtection), (1, Status::Flushed)];
    assert_eq!(got[..3], sends.map(|(id, status)| (Work::Send, id, status)));
    assert_eq!(got.len(), 3 + 8);
    assert!(got[3..].iter().all(|(work, _, s)| (*work, *s) == (Work::Receive, Status::Flushed)));
    assert_eq!(two.a.device.pair_state(two.a.pair), Some(PairState::Failed));
}

#[test]
fn a_piece_past_its_region_is_refused_to_us_and_fails_as_work() {
    let mut two = two();
    let past = Piece { region: two.a.region, offset: 1020, length: 16 };
    assert_eq!(two.a.device.memory(past), Err(Refusal::OutOfBounds));
    let wraps = Piece { region: two.a.region, offset: u32::MAX, length: 16 };
    assert_eq!(two.a.device.memory_mut(wraps).err(), Some(Refusal::OutOfBounds));
    let request = SendRequest { id: 1, pieces: &[past], signalled: false };
    two.a.device.post_send(two.a.pair, &request).expect("hardware looks later");
    two.settle(Duration::from_millis(1));
    assert_eq!(two.a.statuses(), [(Work::Send, 1, Status::LocalProtection)]);
}

#[test]
fn a_receive_past_its_region_fails_both_sides() {
    let mut two = two();
    let past = Piece { region: two.b.region, offset: 1020, length: 16 };
    two.b.device.post_receive(two.b.pair, 5, past).expect("hardware looks later");
    two.a.send(0, true).expect("posted");
    two.settle(Duration::from_millis(1));
    assert_eq!(two.b.statuses(), [(Work::Receive, 5, Status::LocalProtection)]);
    assert_eq!(two.a.statuses(), [(Work::Send, 0, Status::RemoteOperation)]);
}

#[test]
fn what_the_device_owns_may_not_be_touched_until_its_completion_was_polled() {
    let mut two = two();
    two.b.receive(0).expect("posted");
    let posted = two.b.slot(0);
    let overlaps = Piece { offset: 8, ..posted };
    assert_eq!(two.b.device.memory(overlaps), Err(Refusal::DeviceOwned));
    assert_eq!(two.b.device.memory_mut(posted).err(), Some(Refusal::DeviceOwned));
    assert_eq!(two.b.receive(0), Err(Refusal::DeviceOwned), "posted twice");

    two.a.send(1, true).expect("posted");
    let sent = two.a.slot(1);
    assert!(two.a.device.memory(sent).is_ok(), "it is only read");
    assert_eq!(two.a.device.memory_mut(sent).err(), Some(Refusal::DeviceOwned));
    assert_eq!(two.a.receive(1), Err(Refusal::DeviceOwned));

    let mut two = two.settled();
    assert_eq!(two.b.device.memory(posted), Err(Refusal::DeviceOwned), "placed, not polled");
    assert_eq!(two.a.device.memory_mut(sent).err(), Some(Refusal::DeviceOwned));
    assert_eq!((two.a.poll().len(), two.b.poll().len()), (1, 1));
    assert!(two.b.device.memory(posted).is_ok() && two.a.device.memory_mut(sent).is_ok());
}

#[test]
fn behind_a_short_message_there_is_poison_and_not_what_was_there_before() {
    let mut two = two();
    let slot = two.b.slot(2);
    two.b.device.memory_mut(slot).expect("ours").fill(b'o');
    two.b.receive(2).expect("posted");
    let short = Piece { length: 3, ..two.a.slot(0) };
    two.a.device.memory_mut(short).expect("ours").copy_from_slice(b"new");
    let request = SendRequest { id: 0, pieces: &[short], signalled: true };
    two.a.device.post_send(two.a.pair, &request).expect("posted");
    two.settle(Duration::from_millis(1));
    assert_eq!(two.b.poll()[0].bytes, 3);
    let got = two.b.device.memory(slot).expect("polled");
    assert_eq!((&got[..3], &got[3..]), (&b"new"[..], &[POISON; 13][..]));
}

#[test]
fn a_peer_without_a_receive_is_asked_again_until_it_has_one() {
    let retry = Retry { not_ready: Retry::FOR_EVER, ..Retry::default() };
    let mut two = two_with(retry, 64);
    (0..5).for_each(|slot| two.a.send(slot, true).expect("posted"));
    two.settle(Duration::from_millis(20));
    assert!(two.a.poll().is_empty());
    let naks = two.b.device.counters().not_ready_naks;
    assert!(naks >= 6, "asked again {naks} times");
    (0..5).for_each(|slot| two.b.receive(slot).expect("posted"));
    two.settle(Duration::from_millis(5));
    assert!(two.a.statuses().iter().all(|(.., status)| *status == Status::Success));
    let ids: Vec<u64> = two.b.poll().iter().map(|done| done.id).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4]);
}

#[test]
fn a_peer_that_stays_without_a_receive_fails_the_pair_when_the_tries_are_used_up() {
    let retry = Retry { not_ready: 2, ..Retry::default() };
    let mut two = two_with(retry, 64);
    (0..2).for_each(|slot| two.b.receive(slot).expect("posted"));
    (0..5).for_each(|slot| two.a.send(slot, true).expect("posted"));
    two.settle(Duration::from_millis(20));
    let got: Vec<Status> = two.a.poll().iter().map(|done| done.status).collect();
    let ok = Status::Success;
    let lost = Status::NotReadyExceeded;
    assert_eq!(got, [ok, ok, lost, Status::Flushed, Status::Flushed]);
    assert_eq!(two.b.device.counters().not_ready_naks, 3);
}

#[test]
fn a_message_that_is_too_long_fails_both_sides() {
    let mut two = two();
    let short = Piece { length: 8, ..two.b.slot(0) };
    two.b.device.post_receive(two.b.pair, 9, short).expect("posted");
    (1..8).for_each(|slot| two.b.receive(slot).expect("posted"));
    two.a.send(0, true).expect("posted");
    two.settle(Duration::from_millis(1));
    assert_eq!(two.a.statuses(), [(Work::Send, 0, Status::RemoteOperation)]);
    let got = two.b.statuses();
    assert_eq!((got.len(), got[0]), (8, (Work::Receive, 9, Status::LocalLength)));
    assert!(got[1..].iter().all(|(.., status)| *status == Status::Flushed));
}

#[test]
fn arming_is_one_shot_and_says_nothing_of_what_was_there_before() {
    let mut two = two();
    (0..3).for_each(|slot| two.b.receive(slot).expect("posted"));
    two.a.send(0, true).expect("posted");
    two.settle(Duration::from_millis(1));
    two.b.device.request_notify(two.b.queue).expect("armed");
    assert!(!two.b.device.take_event(), "it came before: only looking again finds it");
    assert_eq!(two.b.poll().len(), 1);

    two.a.send(1, true).expect("posted");
    two.settle(Duration::from_millis(1));
    assert!(two.b.device.take_event(), "it came while armed");
    two.a.send(2, true).expect("posted");
    two.settle(Duration::from_millis(1));
    assert!(!two.b.device.take_event(), "one event per arming");
}

#[test]
fn unsignalled_sends_give_their_places_back_with_a_later_signalled_one() {
    let mut two = two();
    (0..RECEIVES).for_each(|slot| two.b.receive(slot).expect("posted"));
    for slot in 0..SENDS - 1 {
        two.a.send(slot, false).expect("posted");
    }
    two.a.send(20, true).expect("posted");
    assert_eq!(two.a.send(21, true), Err(Refusal::Full));
    two.settle(Duration::from_millis(1));
    assert_eq!(two.a.send(21, true), Err(Refusal::Full), "done, and not polled");
    assert_eq!(two.a.statuses(), [(Work::Send, 20, Status::Success)]);
    for slot in 0..SENDS {
        two.a.send(slot, false).expect("all places are free");
    }
    two.settle(Duration::from_millis(1));
    assert!(two.a.poll().is_empty());
    assert_eq!(two.a.send(30, true), Err(Refusal::Full), "nothing can retire them any more");
}

#[test]
fn more_receives_than_were_asked_for_are_refused() {
    let mut two = two();
    (0..RECEIVES).for_each(|slot| two.b.receive(slot).expect("posted"));
    assert_eq!(two.b.receive(RECEIVES), Err(Refusal::Full));
}

#[test]
fn a_pair_that_is_not_connected_takes_receives_and_no_sends() {
    let fabric = Fabric::new(1, Duration::ZERO);
    let mut lone = node(&fabric, LIMITS, 64);
    assert_eq!(lone.receive(0), Ok(()));
    assert_eq!(lone.send(1, true), Err(Refusal::State));
    lone.device.connect_pair(lone.pair, lone.port, lone.pair, Retry::default()).expect("connects");
    let again = lone.device.connect_pair(lone.pair, lone.port, lone.pair, Retry::default());
    assert_eq!(again, Err(Refusal::State));
}

#[test]
fn a_failed_pair_takes_work_and_flushes_it() {
    let mut two = two();
    two.a.device.fail_pair(two.a.pair).expect("fails");
    two.a.receive(0).expect("taken");
    two.a.send(1, false).expect("taken");
    let flushed = |work, id| (work, id, Status::Flushed);
    assert_eq!(two.a.statuses(), [flushed(Work::Receive, 0), flushed(Work::Send, 1)]);
}

#[test]
fn a_completion_queue_that_overruns_takes_its_pairs_with_it() {
    let mut two = two_with(Retry::default(), 4);
    (0..6).for_each(|slot| two.b.receive(slot).expect("posted"));
    (0..5).for_each(|slot| two.a.send(slot, false).expect("posted"));
    two.settle(Duration::from_millis(1));
    let mut done = Vec::new();
    assert_eq!(two.b.device.poll(two.b.queue, &mut done, 9), Err(Refusal::Overrun));
    assert!(done.is_empty());
    let event = two.b.device.take_async_event();
    assert_eq!(event, Some(AsyncEvent::QueueOverrun(two.b.queue)));
    assert_eq!(two.b.device.take_async_event(), None, "it is told once");
    assert_eq!(two.b.device.pair_state(two.b.pair), Some(PairState::Failed));
    assert_eq!(two.b.device.request_notify(two.b.queue), Err(Refusal::Overrun));
}

#[test]
fn neither_pairs_nor_memory_can_be_taken_away_under_work() {
    let mut two = two();
    two.b.receive(0).expect("posted");
    assert_eq!(two.b.device.deregister(two.b.region), Err(Refusal::Busy));
    assert_eq!(two.b.device.destroy_pair(two.b.pair), Err(Refusal::State));
    two.b.device.fail_pair(two.b.pair).expect("fails");
    assert_eq!(two.b.device.destroy_pair(two.b.pair), Err(Refusal::Busy), "not polled");
    assert_eq!(two.b.device.deregister(two.b.region), Err(Refusal::Busy));
    assert_eq!(two.b.poll().len(), 1);
    assert_eq!(two.b.device.destroy_pair(two.b.pair), Ok(()));
    assert_eq!(two.b.device.deregister(two.b.region), Ok(()));
    assert_eq!(two.b.device.deregister(two.b.region), Err(Refusal::NotRegistered));
    assert_eq!((two.b.device.pairs(), two.b.device.registered_bytes()), (0, 0));
}

#[test]
fn silence_is_met_by_trying_again_and_then_by_giving_up() {
    let mut two = two();
    two.b.receive(0).expect("posted");
    two.fabric.unplug(two.b.port);
    two.a.send(0, true).expect("posted");
    two.a.receive(5).expect("posted");
    two.settle(Duration::from_millis(900));
    assert!(two.a.poll().is_empty(), "it tries for 8 x 125 ms");
    two.settle(Duration::from_millis(200));
    let got = two.a.statuses();
    assert_eq!(got[0], (Work::Send, 0, Status::SilenceExceeded));
    assert_eq!(got[1], (Work::Receive, 5, Status::Flushed));
    assert_eq!(two.a.device.counters().silence_retries, 7);
}

#[test]
fn lost_packets_of_both_kinds_are_sent_again_and_the_order_stays() {
    let mut two = two();
    let mut count = 0;
    two.fabric.set_script(move |_| {
        count += 1;
        if count % 3 == 0 { Fate::Lost } else { Fate::Arrives }
    });
    (0..RECEIVES).for_each(|slot| two.b.receive(slot).expect("posted"));
    (0..SENDS).for_each(|slot| {
        let piece = two.a.slot(slot);
        two.a.device.memory_mut(piece).expect("ours").fill(slot as u8);
        two.a.send(slot, true).expect("posted");
    });
    two.settle(Duration::from_secs(3));
    assert!(two.a.statuses().iter().all(|(.., status)| *status == Status::Success));
    for (i, done) in two.b.poll().iter().enumerate() {
        let piece = two.b.slot(done.id as u32);
        assert_eq!(two.b.device.memory(piece), Ok(&[i as u8; 16][..]));
    }
    assert!(two.a.device.counters().silence_retries > 0);
}

#[test]
fn packets_from_anybody_but_the_peer_and_answers_to_nothing_are_dropped() {
    let mut two = two();
    two.b.receive(0).expect("posted");
    let mut stranger = two.fabric.cable();
    let to = two.b.pair;
    let packet = |from, number, says| Packet { to, from, number, says };
    let message = || Says::Message(vec![1; 16]);
    stranger.put(two.b.port, packet(two.a.pair, 0, message())).expect("room");
    two.a.device.wire_mut().put(two.b.port, packet(PairNumber(99), 0, message())).expect("room");
    two.a.device.wire_mut().put(two.b.port, packet(two.a.pair, 7, Says::Placed)).expect("room");
    two.settle(Duration::from_millis(1));
    assert!(two.b.poll().is_empty());
    assert_eq!(two.b.device.counters().dropped, 2);
    assert_eq!(two.b.device.pair_state(two.b.pair), Some(PairState::Ready));
}

#[test]
fn limits_of_the_device_are_kept() {
    let fabric = Fabric::new(1, Duration::ZERO);
    let limits = DeviceLimits {
        pieces_max: 2,
        message_bytes_max: 40,
        registered_bytes_max: 2048,
        region_bytes_max: 1500,
        ..LIMITS
    };
    let mut lone = node(&fabric, limits, 64);
    let device = &mut lone.device;
    assert_eq!(device.register(1501), Err(Refusal::Limit));
    assert_eq!(device.register(1200), Err(Refusal::NoMemory), "1024 are locked");
    assert_eq!(device.create_queue(0), Err(Refusal::Limit));
    let shape = PairShape { queue: lone.queue, sends: LIMITS.sends_max + 1, receives: 1 };
    assert_eq!(device.create_pair(shape), Err(Refusal::Limit));
    let shape = PairShape { queue: QueueNumber(9), sends: 1, receives: 1 };
    assert_eq!(device.create_pair(shape), Err(Refusal::Unknown));
    device.connect_pair(lone.pair, lone.port, lone.pair, Retry::default()).expect("connects");
    let piece = Piece { region: lone.region, offset: 0, length: 16 };
    let mut post = |pieces: &[Piece]| {
        device.post_send(lone.pair, &SendRequest { id: 0, pieces, signalled: true })
    };
    assert_eq!(post(&[piece; 3]), Err(Refusal::Limit));
    assert_eq!(post(&[Piece { length: 41, ..piece }]), Err(Refusal::Limit));
    assert_eq!(post(&[piece; 2]), Ok(()));
}

#[test]
fn a_device_that_breaks_down_says_so_once_and_completes_nothing() {
    let mut two = two();
    two.a.receive(0).expect("posted");
    two.a.device.break_down();
    assert_eq!(two.a.device.take_async_event(), Some(AsyncEvent::DeviceFatal));
    assert_eq!(two.a.device.take_async_event(), None);
    let mut done = Vec::new();
    assert_eq!(two.a.device.poll(two.a.queue, &mut done, 9), Err(Refusal::DeviceGone));
    assert_eq!(two.a.receive(1), Err(Refusal::DeviceGone));
    assert_eq!(two.a.device.register(1), Err(Refusal::DeviceGone));
    assert_eq!(two.a.device.destroy_pair(two.a.pair), Ok(()));
    assert_eq!(two.a.device.deregister(two.a.region), Ok(()));
}
