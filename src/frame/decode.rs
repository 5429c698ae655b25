//! Bytes to frames.

use std::fmt;

use super::fields::Fields;
use super::{
    AckAt, Body, CONTROL_BODY_BYTES_MAX, Class, FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, Frame,
    Kind, Leave, Open, Unreachable, Waits,
};
use crate::Evbuffer;

/// The flag of a DATA frame whose first record may follow any smaller number.
pub(super) const GAPS: u8 = 1;

/// Priorities of channels.
const PRIORITIES: u8 = 4;

/// Takes frames off the front of a link's input.
///
/// ```
/// use ringlane::Evbuffer;
/// use ringlane::frame::{Decoder, Frame};
/// let (mut input, mut bytes) = (Evbuffer::new(), Vec::new());
/// Frame::Ping { id: 7 }.encode(&mut bytes);
/// let mut decoder = Decoder::new();
/// input.add(&bytes[..20]);
/// assert_eq!(decoder.next(&mut input), Ok(None));
/// input.add(&bytes[20..]);
/// assert_eq!(decoder.next(&mut input), Ok(Some(Frame::Ping { id: 7 })));
/// assert_eq!(decoder.next(&mut input), Ok(None));
/// ```
#[derive(Default, Debug)]
pub struct Decoder {
    /// Bytes of the last frame, which still stand at the front of the input.
    shown: usize,
    /// What came made no sense, and so does what comes behind it.
    failed: Option<Malformed>,
}

impl Decoder {
    /// One for a new link.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// The next frame, if all of it is there. It borrows from `input`, where its bytes stay until
    /// the next call, or [`Decoder::settle`]. After an error the link is to be closed; every
    /// further call gives the same error.
    pub fn next<'a>(&mut self, input: &'a mut Evbuffer) -> Result<Option<Frame<'a>>, Malformed> {
        self.settle(input);
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let mut header = [0; FRAME_HEADER_BYTES];
        if input.copyout(&mut header) < FRAME_HEADER_BYTES {
            return Ok(None);
        }
        let header = Header::check(header).inspect_err(|&bad| self.failed = Some(bad))?;
        if input.len() < FRAME_HEADER_BYTES + header.len {
            return Ok(None);
        }
        input.drain(FRAME_HEADER_BYTES);
        self.shown = header.len;
        if header.kind == Kind::Data {
            let body = Body::received(input, header.len);
            let gaps = header.flags & GAPS != 0;
            return Ok(Some(Frame::Data { bind: header.bind, seq: header.seq, gaps, body }));
        }
        let mut fields = Fields(input.pullup(header.len));
        let frame = match header.read(&mut fields) {
            Ok(_) if !fields.0.is_empty() => Err(header.wrong_length()),
            Ok(frame) => Ok(frame),
            Err(Field(field)) => Err(Malformed::Field { kind: header.kind, field }),
        };
        self.failed = frame.as_ref().err().copied();
        frame.map(Some)
    }

    /// Takes the last frame's bytes off the input, for one who wants to know what is left.
    pub fn settle(&mut self, input: &mut Evbuffer) {
        if self.shown > 0 {
            input.drain(std::mem::take(&mut self.shown));
        }
    }
}

/// A frame's header, whose fields go together.
#[derive(Clone, Copy)]
struct Header {
    len: usize,
    kind: Kind,
    flags: u8,
    bind: u32,
    seq: u32,
}

/// The field that is missing or has no sense.
struct Field(&'static str);

impl Header {
    /// All that can be said before the body is there.
    fn check(bytes: [u8; FRAME_HEADER_BYTES]) -> Result<Header, Malformed> {
        let [a, b, c, d, kind, flags, e, f, g, h, i, j, k, l, m, n] = bytes;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        let kind = Kind::of(kind).ok_or(Malformed::Kind(kind))?;
        let header = Header {
            len,
            kind,
            flags,
            bind: u32::from_le_bytes([g, h, i, j]),
            seq: u32::from_le_bytes([k, l, m, n]),
        };
        let most = if kind == Kind::Data { FRAME_BODY_BYTES_MAX } else { CONTROL_BODY_BYTES_MAX };
        if len > most {
            return Err(Malformed::TooLong { kind, len, most });
        }
        // Records are padded to eight bytes, and there is at least one.
        let data = kind == Kind::Data && (len == 0 || !len.is_multiple_of(8));
        if data || body_bytes(kind).is_some_and(|exact| exact != len) {
            return Err(header.wrong_length());
        }
        let known = if kind == Kind::Data { GAPS } else { 0 };
        let field = if flags & !known != 0 {
            "flags"
        } else if [e, f] != [0, 0] {
            "zero"
        } else if kind.has_bind() != (header.bind != 0) {
            "bind"
        } else if !kind.has_seq() && header.seq != 0 {
            "seq"
        } else {
            return Ok(header);
        };
        Err(Malformed::Field { kind, field })
    }

    fn wrong_length(self) -> Malformed {
        Malformed::Length { kind: self.kind, len: self.len }
    }

    /// The frame in a body that is there.
    fn read<'a>(self, from: &mut Fields<'a>) -> Result<Frame<'a>, Field> {
        let Header { bind, seq, .. } = self;
        Ok(match self.kind {
            Kind::Open => Frame::Open(open(bind, from)?),
            Kind::Resume => Frame::Resume {
                bind,
                next: seq,
                limit: from.u64().ok_or(Field("limit"))?,
                epoch: from.u64().ok_or(Field("epoch"))?,
                att: from.u32().ok_or(Field("att"))?,
                record_bytes_max: from.u32().ok_or(Field("record_bytes_max"))?,
            },
            Kind::Pending => Frame::Pending { bind, why: code(from, Waits::of, "why")? },
            Kind::Stale => Frame::Stale { bind, known: from.u64().ok_or(Field("known"))? },
            Kind::Unreach => Frame::Unreach {
                bind,
                why: code(from, Unreachable::of, "why")?,
                text: from.text().ok_or(Field("text"))?,
            },
            // The decoder has taken these; their body is not looked into here.
            Kind::Data => return Err(Field("body")),
            Kind::Skip => Frame::Skip { bind, seq, to: from.u32().ok_or(Field("to"))? },
            Kind::Ack => Frame::Ack {
                bind,
                stored: seq,
                limit: from.u64().ok_or(Field("limit"))?,
                consumed: from.u32().ok_or(Field("consumed"))?,
                expired: from.u32().ok_or(Field("expired"))?,
            },
            Kind::Fin => Frame::Fin { bind, last: seq },
            Kind::Abort => Frame::Abort { bind },
            Kind::Closed => Frame::Closed { bind },
            Kind::Gone => Frame::Gone {
                bind,
                epoch: from.u64().ok_or(Field("epoch"))?,
                first: from.u32().ok_or(Field("first"))?,
                exact: from.bool().ok_or(Field("exact"))?,
            },
            Kind::GoneOk => Frame::GoneOk { bind },
            Kind::Stuck => Frame::Stuck { bind, millis: from.u32().ok_or(Field("millis"))? },
            _ => return self.read_of_link(from),
        })
    }

    /// The same for frames that are about no binding.
    fn read_of_link<'a>(self, from: &mut Fields<'a>) -> Result<Frame<'a>, Field> {
        if self.kind == Kind::Bye {
            let why = code(from, Leave::of, "why")?;
            return Ok(Frame::Bye { why, text: from.text().ok_or(Field("text"))? });
        }
        let id = from.u64().ok_or(Field("id"))?;
        match self.kind {
            Kind::Ping => return Ok(Frame::Ping { id }),
            Kind::Pong => return Ok(Frame::Pong { id }),
            _ => {}
        }
        let src = from.name().ok_or(Field("src"))?;
        let dst = from.name().ok_or(Field("dst"))?;
        let stamps = from.stamps().ok_or(Field("stamps"))?;
        Ok(match self.kind {
            Kind::Probe => Frame::Probe { id, src, dst, stamps },
            _ => Frame::Probed { id, src, dst, stamps },
        })
    }
}

fn open<'a>(bind: u32, from: &mut Fields<'a>) -> Result<Open<'a>, Field> {
    Ok(Open {
        bind,
        src: from.name().ok_or(Field("src"))?,
        dst: from.name().ok_or(Field("dst"))?,
        chan: from.u16().ok_or(Field("chan"))?,
        class: code(from, Class::of, "class")?,
        priority: from.u8().filter(|&p| p < PRIORITIES).ok_or(Field("priority"))?,
        ack: code(from, AckAt::of, "ack")?,
        epoch: from.u64().ok_or(Field("epoch"))?,
        nonce: from.bytes().ok_or(Field("nonce"))?,
        att: from.u32().ok_or(Field("att"))?,
        linkno: from.u32().ok_or(Field("linkno"))?,
        expected: from.u64().ok_or(Field("expected"))?,
        ring: from.u32().ok_or(Field("ring"))?,
    })
}

/// A field that has few values.
fn code<T>(
    from: &mut Fields<'_>,
    of: fn(u8) -> Option<T>,
    field: &'static str,
) -> Result<T, Field> {
    from.u8().and_then(of).ok_or(Field(field))
}

/// Bytes in the body, of kinds that have always as many.
fn body_bytes(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Abort | Kind::Closed | Kind::Fin | Kind::GoneOk => Some(0),
        Kind::Pending => Some(1),
        Kind::Skip | Kind::Stuck => Some(4),
        Kind::Ping | Kind::Pong | Kind::Stale => Some(8),
        Kind::Gone => Some(13),
        Kind::Ack => Some(16),
        Kind::Resume => Some(24),
        Kind::Open | Kind::Unreach | Kind::Data | Kind::Probe | Kind::Probed | Kind::Bye => None,
    }
}

/// Why what came is no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Malformed {
    /// There is no such kind in this version.
    Kind(u8),
    /// Longer than a frame of that kind may be.
    TooLong {
        /// What it says it is.
        kind: Kind,
        /// Bytes in its body, by its header.
        len: usize,
        /// How many there may be.
        most: usize,
    },
    /// As many bytes as a frame of that kind cannot have.
    Length {
        /// What it says it is.
        kind: Kind,
        /// Bytes in its body, by its header.
        len: usize,
    },
    /// A field is missing or has a value that it cannot have.
    Field {
        /// What it says it is.
        kind: Kind,
        /// As `docs/wire.md` calls it.
        field: &'static str,
    },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Kind(byte) => write!(f, "there is no frame of kind {byte}"),
            Malformed::TooLong { kind, len, most } => {
                write!(f, "{kind} with a body of {len} bytes; at most {most} are allowed")
            }
            Malformed::Length { kind, len } => {
                write!(f, "{kind} with a body of {len} bytes, which is not what it has")
            }
            Malformed::Field { kind, field } => {
                write!(f, "the field `{field}` of {kind} is missing or makes no sense")
            }
        }
    }
}

impl std::error::Error for Malformed {}
