//! The decoder of frames: what a relay hears from another.
//!
//! Input: a byte that says how the rest is cut into pieces, then the bytes of a link.

use ringlane::Evbuffer;
use ringlane::frame::{
    CONTROL_BODY_BYTES_MAX, Decoder, FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, Frame, Kind,
};

/// Bytes of payload that the imagined ring takes.
const RECORD_BYTES_MAX: u32 = 1 << 12;

/// Decodes the bytes as they come and all at once, and encodes what was found.
pub fn run(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let piece = usize::from(cut % 64) + 1;
    let (mut decoder, mut input) = (Decoder::new(), Evbuffer::new());
    let (mut whole, mut all) = (Decoder::new(), Evbuffer::from(bytes));
    let (mut at, mut scratch) = (0, Vec::new());
    for piece in bytes.chunks(piece) {
        // Pieces as they come from the kernel: each in memory of its own.
        input.add_reference(Vec::from(piece));
        loop {
            let found = decoder.next(&mut input);
            match found {
                Ok(None) => break,
                Err(bad) => {
                    assert_eq!(whole.next(&mut all), Err(bad), "an error depends on the pieces");
                    assert_eq!(decoder.next(&mut input), Err(bad), "an error is forgotten");
                    return;
                }
                Ok(Some(frame)) => {
                    assert_eq!(whole.next(&mut all), Ok(Some(frame)));
                    at += check(frame, &bytes[at..], &mut scratch);
                }
            }
        }
        assert!(input.len() < FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX);
    }
    assert_eq!(whole.next(&mut all), Ok(None));
    assert_eq!(at + all.len(), bytes.len(), "bytes were lost");
}

/// Checks a frame that stands at the front of `bytes`; says how long it is.
fn check(frame: Frame<'_>, bytes: &[u8], scratch: &mut Vec<u8>) -> usize {
    let mut again = Vec::new();
    frame.encode(&mut again);
    assert!(bytes.starts_with(&again), "{frame:?} is written in two ways");
    if let Frame::Data { body, .. } = frame {
        let mut shown = Vec::new();
        let runs = body.runs(RECORD_BYTES_MAX, scratch, |run, _| shown.extend_from_slice(run));
        let heads: Result<Vec<_>, _> = body.records(RECORD_BYTES_MAX).collect();
        assert_eq!(runs.map(|n| n as usize), heads.map(|heads| heads.len()));
        assert!(again[FRAME_HEADER_BYTES..].starts_with(&shown));
        assert!(runs.is_err() || shown.len() == body.len());
    } else {
        assert!(again.len() <= FRAME_HEADER_BYTES + CONTROL_BODY_BYTES_MAX);
        assert_ne!(frame.kind(), Kind::Data);
    }
    again.len()
}
