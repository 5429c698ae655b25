//! A peer that says what it likes. It costs at most its own link, and the error names what it did.

#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::time::Duration;

use ringlane_api::reactor::Side;
use ringlane_api::slab::Key;
use ringlane_rdma_stub::dispatch::{Armed, Dispatch};
use ringlane_rdma_stub::link::{Fault, Offer, Shape};
use ringlane_rdma_stub::message::{Header, Kind, Violation};
use ringlane_rdma_stub::soft::{Cable, Device, Fabric, LIMITS};
use ringlane_rdma_stub::verbs::{
    PairNumber, PairShape, Piece, Port, QueueNumber, Region, Retry, SendRequest, Verbs,
};

/// Random enough for noise.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// An honest node, and a liar that has a queue pair and no protocol.
struct Scene {
    fabric: Fabric,
    honest: Dispatch<Device<Cable>>,
    events: Vec<(Key, ringlane_api::transport::LinkEvent)>,
    key: Key,
    liar: Device<Cable>,
    queue: QueueNumber,
    pair: PairNumber,
    region: Region,
}

const SHAPE: Shape = Shape { message_bytes: 256, window: 4, sends: 4, control: 4 };

fn scene(seed: u64) -> Scene {
    let fabric = Fabric::new(seed, Duration::ZERO);
    let (here, there) = (fabric.cable(), fabric.cable());
    let ports: [Port; 2] = [here.port(), there.port()];
    let mut honest = Dispatch::new(Device::new(here, LIMITS)).expect("a device");
    let (key, offer) = honest.open(SHAPE).expect("a link");
    let mut liar = Device::new(there, LIMITS);
    let queue = liar.create_queue(1000).expect("a queue");
    let pair = liar.create_pair(PairShape { queue, sends: 64, receives: 64 }).expect("a pair");
    let region = liar.register(64 * 1024).expect("memory");
    for slot in 0..32 {
        let piece = Piece { region, offset: 32 * 1024 + slot * 256, length: 256 };
        liar.post_receive(pair, u64::from(slot), piece).expect("posted");
    }
    liar.connect_pair(pair, ports[0], offer.pair, Retry::default()).expect("connects");
    let lie = Offer { pair, message_bytes: 256, window: 8 };
    honest.connect(key, ports[1], &lie, Retry::default()).expect("connects");
    let mut scene = Scene { fabric, honest, events: Vec::new(), key, liar, queue, pair, region };
    scene.honest.grant(key, u64::MAX, &mut scene.events);
    scene
}

impl Scene {
    fn say(&mut self, bytes: &[u8]) {
        let piece = Piece { region: self.region, offset: 0, length: bytes.len() as u32 };
        self.liar.memory_mut(piece).expect("polled").copy_from_slice(bytes);
        let request = SendRequest { id: 0, pieces: &[piece], signalled: true };
        self.liar.post_send(self.pair, &request).expect("posted");
        for _ in 0..4 {
            self.fabric.advance(Duration::from_millis(1));
            self.liar.run();
            self.honest.verbs_mut().run();
            self.honest.progress(&mut self.events);
            let _: Armed = self.honest.arm(&mut self.events);
        }
        self.liar.poll(self.queue, &mut Vec::new(), 100).expect("polled");
    }

    fn header(&mut self, header: Header) {
        let mut bytes = header.encode().to_vec();
        bytes.resize(bytes.len() + header.length as usize, b'x');
        self.say(&bytes);
    }

    fn fault(&self) -> Option<Fault> {
        self.honest.link(self.key).and_then(|link| link.fault())
    }
}

fn message(kind: Kind, length: u32, sequence: u32, credit: u32) -> Header {
    Header { kind, length, sequence, credit }
}

#[test]
fn each_lie_has_its_name_and_ends_the_link() {
    use Kind::{Credit, Data, Finish, Goodbye};
    let lies: [(&[Header], Violation); 9] = [
        (&[message(Data, 1, 1, 8)], Violation::Sequence),
        (&[message(Data, 1, 0, 8), message(Data, 1, 0, 8)], Violation::Sequence),
        (&[message(Data, 1, 0, 7)], Violation::Credit),
        (&[message(Data, 1, 0, 9)], Violation::Credit),
        (&[message(Credit, 0, 0, 8)], Violation::Credit),
        (&[message(Finish, 0, 0, 8), message(Data, 1, 1, 8)], Violation::AfterEnd),
        (&[message(Finish, 0, 0, 8), message(Finish, 0, 1, 8)], Violation::AfterEnd),
        (&[message(Goodbye, 0, 0, 8), message(Credit, 0, 1, 9)], Violation::AfterEnd),
        (&[message(Goodbye, 0, 0, 8), message(Goodbye, 0, 1, 8)], Violation::AfterEnd),
    ];
    for (headers, violation) in lies {
        let mut scene = scene(1);
        headers.iter().for_each(|header| scene.header(*header));
        let gone = headers[0].kind == Kind::Goodbye;
        let fault = if gone { Fault::Reset } else { Fault::Peer(violation) };
        assert_eq!(scene.fault(), Some(fault), "{headers:?}");
    }
}

#[test]
fn data_without_credit_ends_the_link_though_a_receive_was_posted() {
    let mut scene = scene(1);
    scene.honest.grant(scene.key, 0, &mut scene.events);
    for n in 0..5 {
        scene.header(message(Kind::Data, 1, n, 8));
    }
    assert_eq!(scene.fault(), Some(Fault::Peer(Violation::NoCredit)));
    let failed = scene.events.iter().any(|(_, event)| {
        matches!(event, ringlane_api::transport::LinkEvent::Failed(Side::Write, error)
            if error.kind() == ErrorKind::InvalidData)
    });
    assert!(failed, "{:?}", scene.events);
}

#[test]
fn a_message_without_a_whole_header_ends_the_link() {
    for length in [0, 1, 15] {
        let mut scene = scene(1);
        scene.say(&vec![1; length]);
        assert_eq!(scene.fault(), Some(Fault::Peer(Violation::Short)));
    }
}

#[test]
fn a_message_longer_than_what_we_offered_ends_the_link() {
    let mut scene = scene(1);
    scene.say(&[0; 257]);
    assert!(matches!(scene.fault(), Some(Fault::Unplaced(_))), "{:?}", scene.fault());
}

#[test]
fn offers_that_make_no_sense_are_refused() {
    let good = Offer { pair: PairNumber(2), message_bytes: 256, window: 8 };
    assert!(good.check().is_ok());
    for bad in [
        Offer { message_bytes: 63, ..good },
        Offer { message_bytes: u32::MAX, ..good },
        Offer { window: 0, ..good },
        Offer { window: 4097, ..good },
    ] {
        let error = bad.check().expect_err("refused").to_string();
        assert!(error.contains("make sense"), "{error}");
    }
}

/// Any bytes at all, many seeds: no panic, an end that can be drained, and a second link of the
/// same device that nobody disturbs.
#[test]
fn noise_costs_its_own_link_only() {
    for seed in 0..400 {
        let mut scene = scene(seed);
        let (other, _) = scene.honest.open(SHAPE).expect("a second link");
        let mut rng = Rng(seed);
        for n in 0..20 {
            let mut bytes: Vec<u8> = (0..rng.below(257)).map(|_| rng.below(256) as u8).collect();
            if rng.below(2) == 0 && bytes.len() >= 16 {
                // Close to a good one, so that the deeper checks are reached.
                let kind = [Kind::Data, Kind::Credit, Kind::Finish, Kind::Goodbye];
                let kind = kind[rng.below(4) as usize];
                let length = if kind == Kind::Data { bytes.len() as u32 - 16 } else { 0 };
                let good = message(kind, length, n, 8 + rng.below(3) as u32);
                bytes[..16].copy_from_slice(&good.encode());
                bytes.truncate(16 + length as usize);
            }
            if scene.fault().is_some() {
                break;
            }
            scene.say(&bytes);
        }
        scene.honest.abort(scene.key, &mut scene.events);
        for _ in 0..10 {
            scene.fabric.advance(Duration::from_millis(300));
            scene.honest.verbs_mut().run();
            scene.honest.progress(&mut scene.events);
        }
        scene.honest.lingered(scene.key, &mut scene.events);
        scene.honest.progress(&mut scene.events);
        assert!(scene.honest.link(scene.key).is_none(), "seed {seed}: it did not close");
        assert!(scene.honest.link(other).is_some_and(|link| link.fault().is_none()));
    }
}
