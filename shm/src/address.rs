//! `shm:///run/x.sock?ring=1MiB` and `shm://@name`: the Unix socket that does the hand-over, and
//! the rings' size.

use std::time::Duration;

use ringlane_api::address::Address;
use ringlane_api::error::{Error, Result};

use crate::layout::{RING_BYTES, is_ring_size};
use crate::spin::SPIN_MAX;

/// An address, read.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Where the socket is.
    pub unix: Address,
    /// Bytes per direction.
    pub ring: u32,
    /// Who may be there beside our own user and root.
    pub uid: Option<u32>,
    /// Whoever may open the socket file may come.
    pub by_mode: bool,
    /// It carries records.
    pub records: bool,
    /// How long to look before sleeping.
    pub spin: Duration,
    /// Whether to give way before sleeping, to a peer on the same processor.
    pub gives_way: bool,
}

/// Reads an address and says what is wrong with it.
pub(crate) fn target(address: &Address) -> Result<Target> {
    address.only_parameters(&["ring", "uid", "mode", "face", "spin", "yield"])?;
    let bad = |what: String| Error::address_of("parse", address.to_string(), what);
    let ring = match address.parameter("ring") {
        None => RING_BYTES,
        Some(text) => size(text).filter(|bytes| is_ring_size(*bytes)).ok_or_else(|| {
            bad(format!(
                "parameter `ring={text}` wants a power of two from 4KiB to 64MiB, like ring=1MiB"
            ))
        })?,
    };
    let uid = match address.parameter("uid") {
        None => None,
        Some(text) => {
            let why =
                || bad(format!("parameter `uid={text}` wants a user's number, like uid=1000"));
            Some(text.parse().map_err(|_| why())?)
        }
    };
    let records = match address.parameter("face") {
        None | Some("bytes") => false,
        Some("records") => true,
        Some(text) => {
            return Err(bad(format!("parameter `face={text}` is either bytes or records")));
        }
    };
    let spin = match address.parameter("spin") {
        None => Duration::ZERO,
        Some(text) => micros(text).filter(|spin| *spin <= SPIN_MAX).ok_or_else(|| {
            bad(format!("parameter `spin={text}` wants microseconds up to 200us, like spin=20us"))
        })?,
    };
    let gives_way = match address.parameter("yield") {
        None | Some("1") => true,
        Some("0") => false,
        Some(text) => return Err(bad(format!("parameter `yield={text}` is either 0 or 1"))),
    };
    let mode = address.parameter("mode");
    if mode.is_some() && address.target().starts_with('@') {
        return Err(bad("an abstract name has no file and no mode; say uid= instead".into()));
    }
    let mode = mode.map(|mode| format!("?mode={mode}")).unwrap_or_default();
    let by_mode = !mode.is_empty();
    let unix = format!("unix://{}{mode}", address.target()).parse()?;
    Ok(Target { unix, ring, uid, by_mode, records, spin, gives_way })
}

/// `20us`.
fn micros(text: &str) -> Option<Duration> {
    text.strip_suffix("us")?.parse().ok().map(Duration::from_micros)
}

/// `4096`, `64KiB`, `1MiB`.
fn size(text: &str) -> Option<u32> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let unit = match unit {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        _ => return None,
    };
    digits.parse::<u32>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_bad_ones_named() {
        let read = |text: &str| target(&text.parse().expect("it has a scheme"));
        let good = read("shm:///run/x.sock?ring=1MiB&uid=7").expect("valid");
        assert_eq!((good.ring, good.uid), (1 << 20, Some(7)));
        assert_eq!(good.unix.to_string(), "unix:///run/x.sock");
        assert_eq!(read("shm://@x").expect("valid").ring, RING_BYTES);
        for (text, part) in [
            ("shm://@x?ring=3KiB", "ring=3KiB"),
            ("shm://@x?ring=128MiB", "ring=128MiB"),
            ("shm://@x?uid=me", "uid=me"),
            ("shm://@x?mode=666", "no mode"),
            ("shm://@x?face=stones", "face=stones"),
            ("shm://@x?spin=20", "spin=20"),
            ("shm://@x?yield=often", "yield=often"),
            ("shm://@x?spin=1000us", "spin=1000us"),
            ("shm://@x?speed=1", "`speed`"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
