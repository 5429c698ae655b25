//! Frames that are right, and everything that can be wrong with one.

use proptest::prelude::*;

use super::*;
use crate::Evbuffer;

/// One of every kind, in the order of their numbers.
fn samples(stamps: Stamps<'static>) -> [Frame<'static>; 19] {
    let open = Open {
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
    };
    [
        Frame::Open(open),
        Frame::Resume { bind: 1, next: 2, limit: 3, epoch: 4, att: 5, record_bytes_max: 6 },
        Frame::Pending { bind: 1, why: Waits::NoRing },
        Frame::Stale { bind: 1, known: 9 },
        Frame::Unreach { bind: 1, why: Unreachable::Denied, text: "rule 3" },
        Frame::Data { bind: 1, seq: 2, gaps: true, body: Body::new(&[0; 8]) },
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
        Frame::Probe { id: 1, src: "login", dst: "db", stamps },
        Frame::Probed { id: 1, src: "login", dst: "db", stamps: Stamps::default() },
        Frame::Bye { why: Leave::Idle, text: "" },
    ]
}

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

/// What the bytes are decoded to, as text, up to the first error.
fn decoded(bytes: &[u8]) -> (Vec<String>, Option<Malformed>) {
    let (mut decoder, mut input) = (Decoder::new(), Evbuffer::from(bytes));
    let mut frames = Vec::new();
    loop {
        match decoder.next(&mut input) {
            Ok(Some(frame)) => frames.push(format!("{frame:?}")),
            Ok(None) => return (frames, None),
            Err(bad) => return (frames, Some(bad)),
        }
    }
}

/// An input whose pieces lie apart.
fn pieces(bytes: &[u8], cut: usize) -> Evbuffer {
    let mut input = Evbuffer::new();
    for piece in bytes.chunks(cut) {
        let apart: Box<[u8]> = piece.into();
        input.add_reference(apart);
    }
    input
}

/// A record as it stands in a ring.
fn record(kind: u16, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).expect("it is short").to_le_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&channel.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

#[test]
fn every_kind_of_frame_comes_out_as_it_went_in_in_whatever_pieces_it_comes() {
    let mut stamps = StampList::new();
    assert!(stamps.push("a", 1));
    let stamps = Stamps { bytes: Vec::leak(stamps.stamps().bytes.to_vec()), count: 1 };
    let frames = samples(stamps);
    let kinds: Vec<Kind> = frames.iter().map(Frame::kind).collect();
    assert_eq!(kinds, Kind::ALL);
    let bytes: Vec<u8> = frames.iter().flat_map(encoded).collect();
    for cut in (1..100).chain([bytes.len()]) {
        let (mut decoder, mut input) = (Decoder::new(), pieces(&bytes, cut));
        for frame in frames {
            assert_eq!(decoder.next(&mut input), Ok(Some(frame)));
        }
        assert_eq!(decoder.next(&mut input), Ok(None));
        assert!(input.is_empty());
    }
}

#[test]
fn the_page_of_the_wire_has_every_kind_of_frame() {
    let page = include_str!("../../docs/wire.md");
    for kind in Kind::ALL {
        let row = format!("\n| {} {kind} | ", kind as u8);
        assert!(page.contains(&row), "docs/wire.md lacks {row:?}");
    }
}

#[test]
fn a_frame_that_is_not_all_there_is_waited_for() {
    for frame in samples(Stamps::default()) {
        let bytes = encoded(&frame);
        for end in 0..bytes.len() {
            assert_eq!(decoded(&bytes[..end]), (vec![], None), "{frame:?} up to {end}");
        }
    }
}

#[test]
fn a_body_of_another_length_is_refused_as_soon_as_the_header_is_there_or_the_body() {
    for frame in samples(Stamps::default()) {
        let kind = frame.kind();
        if kind == Kind::Data {
            continue;
        }
        for longer in [false, true] {
            let mut bytes = encoded(&frame);
            let len = bytes.len() - FRAME_HEADER_BYTES;
            let len = if longer { len + 1 } else { len.wrapping_sub(1) };
            bytes.resize(FRAME_HEADER_BYTES.saturating_add(len).min(bytes.len() + 1), 0);
            bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
            let (frames, bad) = decoded(&bytes);
            assert!(frames.is_empty() && bad.is_some(), "{frame:?}: {frames:?}");
        }
    }
}

#[test]
fn a_header_that_makes_no_sense_is_refused_without_waiting_for_the_body() {
    let header = |len: u32, kind: u8, flags: u8, zero: u8, bind: u32, seq: u32| {
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[kind, flags, zero, 0]);
        bytes.extend_from_slice(&bind.to_le_bytes());
        bytes.extend_from_slice(&seq.to_le_bytes());
        decoded(&bytes).1
    };
    let data = |len| header(len, Kind::Data as u8, 0, 0, 1, 1);
    let field = |kind, field| Some(Malformed::Field { kind, field });
    assert_eq!(header(0, 0, 0, 0, 1, 0), Some(Malformed::Kind(0)));
    assert_eq!(header(0, 20, 0, 0, 1, 0), Some(Malformed::Kind(20)));
    assert_eq!(data(1 << 20), None);
    assert!(matches!(data((1 << 20) + 8), Some(Malformed::TooLong { most: 0x10_0000, .. })));
    assert!(matches!(data(u32::MAX), Some(Malformed::TooLong { len: 0xffff_ffff, .. })));
    assert_eq!(data(0), Some(Malformed::Length { kind: Kind::Data, len: 0 }));
    assert_eq!(data(9), Some(Malformed::Length { kind: Kind::Data, len: 9 }));
    let open = header(2049, Kind::Open as u8, 0, 0, 1, 0);
    assert_eq!(open, Some(Malformed::TooLong { kind: Kind::Open, len: 2049, most: 2048 }));
    assert_eq!(header(8, Kind::Data as u8, 2, 0, 1, 1), field(Kind::Data, "flags"));
    assert_eq!(header(0, Kind::Fin as u8, 1, 0, 1, 1), field(Kind::Fin, "flags"));
    assert_eq!(header(0, Kind::Fin as u8, 0, 1, 1, 1), field(Kind::Fin, "zero"));
    assert_eq!(header(0, Kind::Fin as u8, 0, 0, 0, 1), field(Kind::Fin, "bind"));
    assert_eq!(header(0, Kind::Abort as u8, 0, 0, 1, 1), field(Kind::Abort, "seq"));
    assert_eq!(header(8, Kind::Ping as u8, 0, 0, 1, 0), field(Kind::Ping, "bind"));
}

#[test]
fn a_field_with_a_value_that_it_cannot_have_is_refused_by_name() {
    let frames = samples(Stamps::default());
    let change = |kind: Kind, at: usize, byte: u8| {
        let mut bytes = encoded(&frames[kind as usize - 1]);
        bytes[FRAME_HEADER_BYTES + at] = byte;
        match decoded(&bytes) {
            (_, Some(Malformed::Field { kind: bad, field })) if bad == kind => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(change(Kind::Open, 0, 0), "src");
    assert_eq!(change(Kind::Open, 1, b' '), "src");
    assert_eq!(change(Kind::Open, 7, 0xff), "dst");
    // Two names and a channel are eleven bytes.
    assert_eq!(change(Kind::Open, 11, 4), "class");
    assert_eq!(change(Kind::Open, 12, 4), "priority");
    assert_eq!(change(Kind::Open, 13, 2), "ack");
    assert_eq!(change(Kind::Pending, 0, 0), "why");
    assert_eq!(change(Kind::Unreach, 0, 99), "why");
    assert_eq!(change(Kind::Unreach, 2, b'\n'), "text");
    assert_eq!(change(Kind::Gone, 12, 2), "exact");
    assert_eq!(change(Kind::Probe, 17, 17), "stamps");
    assert_eq!(change(Kind::Bye, 0, 0), "why");
}

#[test]
fn after_an_error_nothing_more_is_taken_for_a_frame() {
    let mut bytes = vec![0; FRAME_HEADER_BYTES];
    Frame::Ping { id: 1 }.encode(&mut bytes);
    let (mut decoder, mut input) = (Decoder::new(), Evbuffer::from(&bytes[..]));
    for _ in 0..3 {
        assert_eq!(decoder.next(&mut input), Err(Malformed::Kind(0)));
    }
}

#[test]
fn frames_in_another_order_or_twice_are_frames_all_the_same() {
    // Which of them has a meaning then is the relay's to say; the decoder keeps nothing.
    let mut frames = samples(Stamps::default()).to_vec();
    frames.reverse();
    frames.extend(samples(Stamps::default()));
    let bytes: Vec<u8> = frames.iter().flat_map(encoded).collect();
    let (found, bad) = decoded(&bytes);
    let expected: Vec<String> = frames.iter().map(|frame| format!("{frame:?}")).collect();
    assert_eq!((found, bad), (expected, None));
}

#[test]
fn a_sentence_is_cut_to_what_fits_and_cannot_break_a_log() {
    let long = format!("one\ntwo\x1b[31m{}", "é".repeat(200));
    let bytes = encoded(&Frame::Bye { why: Leave::Limit, text: &long });
    let mut input = Evbuffer::from(&bytes[..]);
    let mut decoder = Decoder::new();
    let Ok(Some(Frame::Bye { text, .. })) = decoder.next(&mut input) else { panic!("a BYE") };
    assert!(text.starts_with("one two [31m") && text.ends_with('é'));
    assert!((254..=255).contains(&text.len()));
}

#[test]
fn a_probe_takes_so_many_stamps_and_goes_on_without_the_rest() {
    let mut list = StampList::new();
    let name = "x".repeat(NAME_BYTES_MAX);
    for i in 0..STAMPS_MAX {
        assert!(list.push(&name, i as u64));
    }
    assert!(!list.push("y", 0));
    let probe = Frame::Probe { id: 1, src: &name, dst: &name, stamps: list.stamps() };
    let mut input = Evbuffer::from(&encoded(&probe)[..]);
    assert_eq!(Decoder::new().next(&mut input), Ok(Some(probe)));
    assert_eq!(StampList::of(list.stamps()).stamps(), list.stamps());
}

#[test]
fn a_body_with_a_bad_record_shows_those_in_front_of_it_and_says_what_is_wrong() {
    let good = record(1, 3, b"good");
    let with = |bad: Vec<u8>| {
        let bytes = [good.clone(), bad].concat();
        let (mut shown, mut scratch) = (0, Vec::new());
        let body = Body::new(&bytes);
        let said = body.runs(64, &mut scratch, |_, records| shown += records);
        assert_eq!((shown, said.is_err()), (1, true));
        let heads: Result<Vec<Record>, BadRecord> = body.records(64).collect();
        assert_eq!(heads.err(), said.err());
        said.expect_err("it is bad")
    };
    assert_eq!(with(record(1, 3, &[0; 65])), BadRecord::TooLong { len: 65, most: 64 });
    assert_eq!(with(record(0x7fff, 0, &[0; 8])), BadRecord::Pad);
    assert_eq!(with(record(1, 3, &[0; 32])[..16].to_vec()), BadRecord::Cut);
    assert_eq!(with(vec![0xff; 8]), BadRecord::TooLong { len: u32::MAX, most: 64 });
}

fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    let record = (0_u16..4, any::<u16>(), payload)
        .prop_map(|(kind, channel, payload)| record(kind, channel, &payload));
    prop::collection::vec(record, 1..20)
}

proptest! {
    #[test]
    fn runs_are_the_records_of_a_body_however_it_was_received(
        records in records(), cut in 1_usize..400, seq: u32, gaps: bool,
    ) {
        let bytes = records.concat();
        let frame = Frame::Data { bind: 1, seq, gaps, body: Body::new(&bytes) };
        let (mut decoder, mut input) = (Decoder::new(), pieces(&encoded(&frame), cut));
        let found = decoder.next(&mut input).expect("it is a frame").expect("it is whole");
        prop_assert_eq!(found, frame);
        let Frame::Data { body, .. } = found else { panic!("DATA") };
        let (mut shown, mut scratch) = (Vec::new(), Vec::new());
        let said = body.runs(300, &mut scratch, |run, _| shown.extend_from_slice(run));
        prop_assert_eq!(said, Ok(records.len() as u32));
        prop_assert_eq!(&shown, &bytes);
        let heads: Vec<usize> =
            body.records(300).map(|head| head.expect("it is good").whole()).collect();
        prop_assert_eq!(heads, records.iter().map(Vec::len).collect::<Vec<_>>());
    }

    #[test]
    fn an_open_comes_out_as_it_went_in(
        names in ["[a-z0-9@._-]{1,64}", "\\PC{1,8}"], numbers: (u16, u64, u32, u32, u64, u32),
        nonce: [u8; 16], codes in (0_usize..4, 0_u8..4, 0_usize..2), bind in 1..=u32::MAX,
    ) {
        prop_assume!(names.iter().all(|name| is_name(name)));
        let open = Frame::Open(Open {
            bind,
            src: &names[0],
            dst: &names[1],
            chan: numbers.0,
            class: Class::ALL[codes.0],
            priority: codes.1,
            ack: AckAt::ALL[codes.2],
            epoch: numbers.1,
            nonce,
            att: numbers.2,
            linkno: numbers.3,
            expected: numbers.4,
            ring: numbers.5,
        });
        let mut input = Evbuffer::from(&encoded(&open)[..]);
        prop_assert_eq!(Decoder::new().next(&mut input), Ok(Some(open)));
    }

    #[test]
    fn numbers_come_out_as_they_went_in(
        bind in 1..=u32::MAX, a: u32, b: u64, c: u64, d: u32, e: u32, exact: bool,
    ) {
        let frames = [
            Frame::Resume { bind, next: a, limit: b, epoch: c, att: d, record_bytes_max: e },
            Frame::Stale { bind, known: b },
            Frame::Skip { bind, seq: a, to: d },
            Frame::Ack { bind, stored: a, limit: b, consumed: d, expired: e },
            Frame::Fin { bind, last: a },
            Frame::Gone { bind, epoch: b, first: a, exact },
            Frame::Stuck { bind, millis: a },
            Frame::Ping { id: b },
            Frame::Pong { id: c },
        ];
        for frame in frames {
            let mut input = Evbuffer::from(&encoded(&frame)[..]);
            prop_assert_eq!(Decoder::new().next(&mut input), Ok(Some(frame)));
        }
    }

    #[test]
    fn random_bytes_are_frames_or_an_error_and_never_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..2000), kind in 0_u8..21, cut in 1_usize..99,
    ) {
        let mut bytes = bytes;
        if let [len, _, high, higher, place, flags, zero, zeros, ..] = &mut bytes[..] {
            // Often enough something that passes for a header.
            (*place, *flags, *zero, *zeros) = (kind, *len & 1, 0, 0);
            (*high, *higher) = (0, 0);
        }
        let whole = decoded(&bytes);
        let (mut decoder, mut input) = (Decoder::new(), pieces(&bytes, cut));
        let mut found = Vec::new();
        let end = loop {
            match decoder.next(&mut input) {
                Ok(Some(frame)) => found.push(format!("{frame:?}")),
                Ok(None) => break None,
                Err(bad) => break Some(bad),
            }
        };
        prop_assert_eq!((found, end), whole);
    }
}
