use super::*;
use crate::Evbuffer;

#[test]
fn every_kind_of_frame_comes_out_as_it_went_in() {
    let mut stamps = StampList::new();
    stamps.push("a", 1);
    let record = [0; 8];
    let frames = [
        Frame::Open(Open {
            bind: 1,
            src: "login",
            dst: "db",
            chan: 3,
            class: Class::DropOld,
            priority: 2,
            ack: AckAt::Consumed,
            epoch: 4,
            nonce: [5; 16],
            att: 6,
            linkno: 7,
            expected: 8,
            ring: 1 << 20,
        }),
        Frame::Resume { bind: 1, next: 2, limit: 3, epoch: 4, att: 5, record_bytes_max: 6 },
        Frame::Pending { bind: 1, why: Waits::NoRing },
        Frame::Stale { bind: 1, known: 9 },
        Frame::Unreach { bind: 1, why: Unreachable::Denied, text: "rule 3" },
        Frame::Data { bind: 1, seq: 2, gaps: true, body: Body::new(&record) },
        Frame::Skip { bind: 1, seq: 2, to: 5 },
        Frame::Ack { bind: 1, stored: 2, limit: 3, consumed: 4, expired: 5 },
        Frame::Fin { bind: 1, last: 2 },
        Frame::Abort { bind: 1 },
        Frame::Closed { bind: 1 },
        Frame::Gone { bind: 1, epoch: 2, first: 3, exact: true },
        Frame::GoneOk { bind: 1 },
        Frame::Stuck { bind: 1, millis: 30_000 },
        Frame::Ping { id: 1 },
        Frame::Pong { id: 1 },
        Frame::Probe { id: 1, src: "login", dst: "db", stamps: stamps.stamps() },
        Frame::Probed { id: 1, src: "login", dst: "db", stamps: Stamps::default() },
        Frame::Bye { why: Leave::Idle, text: "" },
    ];
    let kinds: Vec<Kind> = frames.iter().map(Frame::kind).collect();
    assert_eq!(kinds, Kind::ALL);
    let mut input = Evbuffer::new();
    frames.iter().for_each(|frame| frame.encode_to(&mut input));
    let mut decoder = Decoder::new();
    for frame in frames {
        assert_eq!(decoder.next(&mut input), Ok(Some(frame)));
    }
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert!(input.is_empty());
}
