//! Frames to bytes.

use super::decode::GAPS;
use super::fields::{put_name, put_text};
use super::{
    FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, Frame, Kind, Open, STAMPS_MAX, Stamps, is_name,
};
use crate::Evbuffer;

impl Frame<'_> {
    /// Appends the frame to `out`, which grows at most.
    ///
    /// # Panics
    /// Panics if a name is not [`is_name`] or a body is too long: both are checked where they
    /// come from.
    ///
    /// ```
    /// use ringlane::frame::Frame;
    /// let mut out = Vec::new();
    /// Frame::Fin { bind: 2, last: 9 }.encode(&mut out);
    /// assert_eq!(out, [0, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0]);
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        let at = out.len();
        let (seq, flags) = (self.seq(), self.flags());
        out.extend_from_slice(&header(self.kind(), flags, self.bind(), seq, 0));
        self.put_body(out);
        let len = out.len() - at - FRAME_HEADER_BYTES;
        assert!(len <= FRAME_BODY_BYTES_MAX, "a body of {len} bytes is sent in several frames");
        let len = u32::try_from(len).expect("it was bounded");
        out[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// The same, to the end of a buffer.
    pub fn encode_to(&self, out: &mut Evbuffer) {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        out.add(&bytes);
    }

    fn seq(&self) -> u32 {
        match *self {
            Frame::Resume { next: seq, .. }
            | Frame::Data { seq, .. }
            | Frame::Skip { seq, .. }
            | Frame::Ack { stored: seq, .. }
            | Frame::Fin { last: seq, .. } => seq,
            _ => 0,
        }
    }

    fn flags(&self) -> u8 {
        match self {
            Frame::Data { gaps: true, .. } => GAPS,
            _ => 0,
        }
    }

    fn put_body(&self, out: &mut Vec<u8>) {
        let mut put = |field: &[u8]| out.extend_from_slice(field);
        match *self {
            Frame::Resume { limit, epoch, att, record_bytes_max, .. } => {
                put(&limit.to_le_bytes());
                put(&epoch.to_le_bytes());
                put(&att.to_le_bytes());
                put(&record_bytes_max.to_le_bytes());
            }
            Frame::Pending { why, .. } => put(&[why as u8]),
            Frame::Stale { known, .. } => put(&known.to_le_bytes()),
            Frame::Data { ref body, .. } => body.slices().for_each(put),
            Frame::Skip { to, .. } => put(&to.to_le_bytes()),
            Frame::Ack { limit, consumed, expired, .. } => {
                put(&limit.to_le_bytes());
                put(&consumed.to_le_bytes());
                put(&expired.to_le_bytes());
            }
            Frame::Gone { epoch, first, exact, .. } => {
                put(&epoch.to_le_bytes());
                put(&first.to_le_bytes());
                put(&[u8::from(exact)]);
            }
            Frame::Stuck { millis, .. } => put(&millis.to_le_bytes()),
            Frame::Ping { id } | Frame::Pong { id } => put(&id.to_le_bytes()),
            Frame::Open(ref open) => put_open(out, open),
            Frame::Unreach { why, text, .. } => {
                out.push(why as u8);
                put_text(out, text);
            }
            Frame::Probe { id, src, dst, stamps } | Frame::Probed { id, src, dst, stamps } => {
                put(&id.to_le_bytes());
                put_name(out, src);
                put_name(out, dst);
                out.push(stamps.count);
                out.extend_from_slice(stamps.bytes);
            }
            Frame::Bye { why, text } => {
                out.push(why as u8);
                put_text(out, text);
            }
            Frame::Fin { .. }
            | Frame::Abort { .. }
            | Frame::Closed { .. }
            | Frame::GoneOk { .. } => {}
        }
    }
}

fn put_open(out: &mut Vec<u8>, open: &Open<'_>) {
    put_name(out, open.src);
    put_name(out, open.dst);
    let mut put = |field: &[u8]| out.extend_from_slice(field);
    put(&open.chan.to_le_bytes());
    put(&[open.class as u8, open.priority, open.ack as u8]);
    put(&open.epoch.to_le_bytes());
    put(&open.nonce);
    put(&open.att.to_le_bytes());
    put(&open.linkno.to_le_bytes());
    put(&open.expected.to_le_bytes());
    put(&open.ring.to_le_bytes());
}

fn header(kind: Kind, flags: u8, bind: u32, seq: u32, len: u32) -> [u8; FRAME_HEADER_BYTES] {
    let ([a, b, c, d], [e, f, g, h]) = (len.to_le_bytes(), bind.to_le_bytes());
    let [i, j, k, l] = seq.to_le_bytes();
    [a, b, c, d, kind as u8, flags, 0, 0, e, f, g, h, i, j, k, l]
}

/// The header of a DATA frame whose records, `len` bytes, are appended by whoever has them: for
/// records that are not to be copied.
///
/// ```
/// use ringlane::Evbuffer;
/// use ringlane::frame::{Body, Decoder, Frame, data_header};
/// let mut link = Evbuffer::new();
/// link.add(&data_header(1, 5, false, 8));
/// link.add_reference([0; 8]);
/// let body = Body::new(&[0; 8]);
/// let data = Frame::Data { bind: 1, seq: 5, gaps: false, body };
/// assert_eq!(Decoder::new().next(&mut link), Ok(Some(data)));
/// ```
pub fn data_header(bind: u32, seq: u32, gaps: bool, len: u32) -> [u8; FRAME_HEADER_BYTES] {
    debug_assert!(len > 0 && len.is_multiple_of(8) && len as usize <= FRAME_BODY_BYTES_MAX);
    header(Kind::Data, if gaps { GAPS } else { 0 }, bind, seq, len)
}

/// A DATA frame under way: its header's place is kept, and records are appended behind it.
///
/// ```
/// use ringlane::frame::DataStart;
/// let mut out = Vec::new();
/// let start = DataStart::new(&mut out);
/// out.extend_from_slice(&[0; 8]); // a record without payload
/// assert_eq!(start.end(&mut out, 1, 5, false), 8);
/// assert_eq!(out[..4], [8, 0, 0, 0]);
/// ```
#[must_use = "its header has to be written"]
#[derive(Debug)]
pub struct DataStart(usize);

impl DataStart {
    /// Keeps the header's place at the end of `out`.
    pub fn new(out: &mut Vec<u8>) -> DataStart {
        let at = out.len();
        out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        DataStart(at)
    }

    /// Writes the header; says how many bytes of records there are. Without any there is no frame:
    /// the place is given back.
    pub fn end(self, out: &mut Vec<u8>, bind: u32, seq: u32, gaps: bool) -> usize {
        let len = out.len() - self.0 - FRAME_HEADER_BYTES;
        if len == 0 {
            out.truncate(self.0);
            return 0;
        }
        assert!(len <= FRAME_BODY_BYTES_MAX, "a body of {len} bytes is sent in several frames");
        let header = data_header(bind, seq, gaps, u32::try_from(len).expect("it was bounded"));
        out[self.0..self.0 + FRAME_HEADER_BYTES].copy_from_slice(&header);
        len
    }
}

/// Stamps that a station of a probe puts together: those it got and its own.
#[derive(Clone, Default, Debug)]
pub struct StampList {
    bytes: Vec<u8>,
    count: u8,
}

impl StampList {
    /// An empty one.
    pub fn new() -> StampList {
        StampList::default()
    }

    /// What was received, to add to.
    pub fn of(stamps: Stamps<'_>) -> StampList {
        StampList { bytes: stamps.bytes.to_vec(), count: stamps.count }
    }

    /// Adds a station and the nanoseconds it took. `false` if [`STAMPS_MAX`] are there or `hop` is
    /// no name: the probe then goes on without.
    pub fn push(&mut self, hop: &str, nanos: u64) -> bool {
        if usize::from(self.count) == STAMPS_MAX || !is_name(hop) {
            return false;
        }
        put_name(&mut self.bytes, hop);
        self.bytes.extend_from_slice(&nanos.to_le_bytes());
        self.count += 1;
        true
    }

    /// For a frame.
    pub fn stamps(&self) -> Stamps<'_> {
        Stamps { bytes: &self.bytes, count: self.count }
    }
}
