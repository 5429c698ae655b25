//! The messages of a handshake.
//!
//! ```text
//!   | magic "RLNK" | kind u8 | zero u8 | len u16 | len bytes, by kind |
//! ```
//!
//! The header, the versions at the front of a HELLO, and REFUSE are the same in every version, so
//! that two relays that have none in common can say so to each other.

use super::{By, Refusal, us};
use crate::Evbuffer;
use crate::frame::code;
use crate::frame::fields::{Fields, put_name, put_text};

/// What every message begins with.
const MAGIC: [u8; 4] = *b"RLNK";

/// Bytes before a message's body.
const HEADER_BYTES: usize = 8;

/// Bytes in a message at most: a HELLO has 3 names, a REFUSE a sentence; the rest is for versions
/// to come.
pub const MESSAGE_BYTES_MAX: usize = 1024;

const HELLO: u8 = 1;
const PROOF: u8 = 2;
const REFUSE: u8 = 3;

code! {
    /// Why a relay will not have a link with another.
    Refused {
        /// For a reason that a later version has.
        Other = 0 "refused",
        /// No version is spoken by both.
        NoCommonVersion = 1 "no common version",
        /// They are of two clusters.
        WrongCluster = 2 "another cluster",
        /// The configuration has no such host.
        UnknownHost = 3 "unknown host",
        /// The one who answers is not the one who was wanted.
        WrongHost = 4 "not the host that was wanted",
        /// The proof does not fit.
        WrongSecret = 5 "wrong secret",
        /// Two relays claim to be the same host.
        DuplicateHost = 6 "two relays with one name",
        /// A relay has reached itself.
        Itself = 7 "it is itself",
        /// There are as many links, or handshakes, as are allowed.
        Busy = 8 "too many links",
        /// What came made no sense.
        Malformed = 9 "no handshake",
        /// The handshake took too long.
        TooSlow = 10 "too slow",
        /// The relay is going down.
        Draining = 11 "going down",
        /// Something else than a relay is there; it is not answered.
        NotARelay = 12 "not a relay",
        /// The certificate of TLS is another host's than the one that the HELLO names.
        WrongCertificate = 13 "wrong certificate",
    }
}

/// What a HELLO says besides the versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hello<'a> {
    pub cluster: &'a str,
    pub host: &'a str,
    /// Whom it is for.
    pub wanted: &'a str,
    pub instance: [u8; 16],
    pub nonce: [u8; 32],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message<'a> {
    /// Without `rest` if that makes no sense, which is all right in another version.
    Hello {
        min: u16,
        max: u16,
        rest: Option<Hello<'a>>,
    },
    Proof([u8; 32]),
    Refuse {
        why: Refused,
        text: &'a str,
    },
}

/// Takes the first message off the input, if all of it is there.
pub(super) fn take(input: &mut Evbuffer) -> Result<Option<Vec<u8>>, Refusal> {
    let mut header = [0; HEADER_BYTES];
    let there = input.copyout(&mut header);
    let begun = there.min(MAGIC.len());
    if header[..begun] != MAGIC[..begun] {
        let text = "what came is not a relay's; check what else uses that address";
        return Err(us(Refused::NotARelay, text));
    }
    if there < HEADER_BYTES {
        return Ok(None);
    }
    let [.., zero, low, high] = header;
    let whole = HEADER_BYTES + usize::from(u16::from_le_bytes([low, high]));
    if zero != 0 || whole > MESSAGE_BYTES_MAX {
        return Err(us(Refused::Malformed, "the header of a message makes no sense"));
    }
    if input.len() < whole {
        return Ok(None);
    }
    let mut message = vec![0; whole];
    input.remove(&mut message);
    Ok(Some(message))
}

impl<'a> Message<'a> {
    /// A whole message, as [`take`] gives it.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, Refusal> {
        let kind = bytes[MAGIC.len()];
        let mut fields = Fields(&bytes[HEADER_BYTES..]);
        let message = match kind {
            HELLO => hello(&mut fields),
            PROOF => fields.bytes().filter(|_| fields.0.is_empty()).map(Message::Proof),
            REFUSE => refuse(&mut fields),
            _ => None,
        };
        message.ok_or_else(|| {
            let text = format!("a message of kind {kind} makes no sense");
            Refusal { by: By::Us, why: Refused::Malformed, text }
        })
    }
}

fn hello<'a>(fields: &mut Fields<'a>) -> Option<Message<'a>> {
    let (min, max) = (fields.u16()?, fields.u16()?);
    let mut rest = || {
        Some(Hello {
            cluster: fields.name()?,
            host: fields.name()?,
            wanted: fields.name()?,
            instance: fields.bytes()?,
            nonce: fields.bytes()?,
        })
        // What is behind these is a later version's.
    };
    (min <= max).then(|| Message::Hello { min, max, rest: rest() })
}

fn refuse<'a>(fields: &mut Fields<'a>) -> Option<Message<'a>> {
    let why = Refused::of(fields.u8()?).unwrap_or(Refused::Other);
    Some(Message::Refuse { why, text: fields.text()? })
}

pub(super) fn put_hello(out: &mut Vec<u8>, min: u16, max: u16, hello: &Hello<'_>) {
    put(out, HELLO, |out| {
        out.extend_from_slice(&min.to_le_bytes());
        out.extend_from_slice(&max.to_le_bytes());
        put_name(out, hello.cluster);
        put_name(out, hello.host);
        put_name(out, hello.wanted);
        out.extend_from_slice(&hello.instance);
        out.extend_from_slice(&hello.nonce);
    });
}

pub(super) fn put_proof(out: &mut Vec<u8>, proof: [u8; 32]) {
    put(out, PROOF, |out| out.extend_from_slice(&proof));
}

pub(super) fn put_refuse(out: &mut Vec<u8>, why: Refused, text: &str) {
    put(out, REFUSE, |out| {
        out.push(why as u8);
        put_text(out, text);
    });
}

fn put(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[kind, 0, 0, 0]);
    body(out);
    let len = u16::try_from(out.len() - at - HEADER_BYTES).expect("names and texts are bounded");
    out[at + 6..at + HEADER_BYTES].copy_from_slice(&len.to_le_bytes());
}
