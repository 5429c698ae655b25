//! `shm:///run/x.sock?ring=1MiB` and `shm://@name`: the Unix socket that does the hand-over, the
//! rings' size, and what may be had of this process.

use std::time::Duration;

use ringlane_api::address::Address;
use ringlane_api::error::{Error, Result};

use crate::layout::{RING_BYTES, is_ring_size};
use crate::limits::{BUDGET_BYTES, SEGMENT_BYTES_MIN, STRANGER_BUDGET_BYTES, segment_bytes};
use crate::spin::SPIN_MAX;

/// Parameters there are.
const KNOWN: &[&str] =
    &["ring", "uid", "mode", "budget", "uid_budget", "fallback", "face", "spin", "yield"];

/// unix(7): `sun_path` has 108 bytes, the last of which ends the path.
const PATH_BYTES_MAX: usize = 107;

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
    /// Bytes that this process may share.
    pub budget: u64,
    /// Bytes of them for links with one user at the other end, where the address says so.
    pub uid_budget: Option<u64>,
    /// Goes on through the socket where no memory can be had.
    pub fallback: bool,
    /// It carries records.
    pub records: bool,
    /// How long to look before sleeping.
    pub spin: Duration,
    /// Whether to give way before sleeping, to a peer on the same processor.
    pub gives_way: bool,
}

impl Target {
    /// What one user may have of the budget; `trusted` is our own and root.
    pub fn budget_of(&self, trusted: bool) -> u64 {
        let stranger = STRANGER_BUDGET_BYTES.min(self.budget);
        self.uid_budget.unwrap_or(if trusted { self.budget } else { stranger })
    }

    /// Where to connect to this listener, with what the connector has to say, too.
    pub fn to_connect(&self) -> Address {
        let mut text = format!("shm://{}", self.unix.target());
        let mut say = |parameter: &str| {
            text.push(if text.contains('?') { '&' } else { '?' });
            text.push_str(parameter);
        };
        if self.ring != RING_BYTES {
            say(&format!("ring={}", self.ring));
        }
        if self.fallback {
            say("fallback=unix");
        }
        if self.records {
            say("face=records");
        }
        text.parse().expect("it is made of parts of an address")
    }
}

/// Reads an address and says what is wrong with it.
pub(crate) fn target(address: &Address) -> Result<Target> {
    address.only_parameters(KNOWN)?;
    let bad = |what: String| Error::address_of("parse", address.to_string(), what);
    let wants = |key: &str, text: &str, what: &str| bad(format!("parameter `{key}={text}` {what}"));
    let place = place(address.target()).map_err(bad)?;
    let ring = match address.parameter("ring") {
        None => RING_BYTES,
        Some(text) => {
            let right = |bytes: &u32| is_ring_size(*bytes);
            let ring = size(text).and_then(|bytes| u32::try_from(bytes).ok()).filter(right);
            let what = "wants a power of two from 4KiB to 64MiB, like ring=1MiB";
            ring.ok_or_else(|| wants("ring", text, what))?
        }
    };
    let bytes = |key: &str| match address.parameter(key) {
        None => Ok(None),
        Some(text) => size(text).map(Some).ok_or_else(|| {
            wants(key, text, &format!("wants a number of bytes, like {key}=256MiB"))
        }),
    };
    let budget = bytes("budget")?.unwrap_or(BUDGET_BYTES);
    let uid_budget = bytes("uid_budget")?;
    let uid = match address.parameter("uid") {
        None => None,
        Some(text) => {
            let why = |_| wants("uid", text, "wants a user's number, like uid=1000");
            Some(text.parse().map_err(why)?)
        }
    };
    let fallback = match address.parameter("fallback") {
        None => false,
        Some("unix") => true,
        Some(text) => {
            let what = "wants the one fallback there is, like fallback=unix";
            return Err(wants("fallback", text, what));
        }
    };
    let by_mode = address.parameter("mode").is_some();
    let mode = match address.parameter("mode") {
        None => String::new(),
        Some(text) => {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
            mode.ok_or_else(|| wants("mode", text, "wants an octal file mode, like mode=660"))?;
            format!("?mode={text}")
        }
    };
    let unix = format!("unix://{place}{mode}").parse()?;
    let Habits { records, spin, gives_way } = habits(address, &wants)?;
    let target =
        Target { unix, ring, uid, by_mode, budget, uid_budget, fallback, records, spin, gives_way };
    match misfit(&target) {
        Some(what) => Err(bad(what)),
        None => Ok(target),
    }
}

/// How a link is used, and what it does before it sleeps.
struct Habits {
    records: bool,
    spin: Duration,
    gives_way: bool,
}

fn habits(address: &Address, wants: &dyn Fn(&str, &str, &str) -> Error) -> Result<Habits> {
    let records = match address.parameter("face") {
        None | Some("bytes") => false,
        Some("records") => true,
        Some(text) => return Err(wants("face", text, "is face=bytes or face=records")),
    };
    let spin = match address.parameter("spin") {
        None => Duration::ZERO,
        Some(text) => {
            let spin = micros(text).filter(|spin| *spin <= SPIN_MAX);
            let what = "wants microseconds up to 200us, like spin=20us";
            spin.ok_or_else(|| wants("spin", text, what))?
        }
    };
    let gives_way = match address.parameter("yield") {
        None | Some("1") => true,
        Some("0") => false,
        Some(text) => return Err(wants("yield", text, "is yield=1 or yield=0")),
    };
    Ok(Habits { records, spin, gives_way })
}

/// `20us`.
fn micros(text: &str) -> Option<Duration> {
    text.strip_suffix("us")?.parse().ok().map(Duration::from_micros)
}

/// What of an address does not go together.
fn misfit(target: &Target) -> Option<String> {
    let Target { ring, budget, uid_budget, .. } = target;
    if target.by_mode && target.unix.target().starts_with('@') {
        let what = "parameter `mode` does not go with an abstract name, which has no file; say who \
                    may come, like uid=1000";
        return Some(what.into());
    }
    if let Some(of_user) = uid_budget
        && of_user > budget
    {
        return Some(format!(
            "parameter `uid_budget` asks for more than all users together have, budget={budget}; \
             raise that or write a smaller one, like uid_budget={}",
            budget / 4
        ));
    }
    if target.records && target.fallback {
        let what = "parameter `fallback` does not go with face=records: there are no records \
                    without shared memory";
        return Some(what.into());
    }
    let (smallest, wanted) = (SEGMENT_BYTES_MIN, segment_bytes(*ring));
    let less = uid_budget.unwrap_or(*budget).min(*budget);
    if less < wanted && !target.fallback {
        return Some(format!(
            "no link of ring={ring} fits into a budget of {less} bytes: it takes {wanted}, the \
             smallest one {smallest}; raise it, like budget=256MiB, or say fallback=unix"
        ));
    }
    None
}

/// Checks where the socket is to be.
fn place(text: &str) -> std::result::Result<&str, String> {
    let bytes = match text.strip_prefix('@') {
        Some("") => return Err("no name behind `@`; write it like shm://@name".into()),
        Some(name) => name.len(),
        None if text.starts_with('/') => text.len(),
        None => {
            return Err(format!(
                "path `{text}` is relative; write it like shm:///run/{text} or shm://@{text}"
            ));
        }
    };
    if bytes > PATH_BYTES_MAX {
        return Err(format!(
            "the path has {bytes} bytes, that of a Unix socket has at most {PATH_BYTES_MAX}; write \
             it like shm:///run/x.sock"
        ));
    }
    Ok(text)
}

/// `4096`, `64KiB`, `1MiB`, `2GiB`.
fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let unit = match unit {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Target> {
        target(&text.parse().expect("it has a scheme"))
    }

    #[test]
    fn parameters_are_read() {
        let good = read("shm:///run/x.sock?ring=1MiB&uid=7").expect("valid");
        assert_eq!((good.ring, good.uid), (1 << 20, Some(7)));
        assert_eq!(good.unix.to_string(), "unix:///run/x.sock");
        assert_eq!((good.budget, good.fallback), (BUDGET_BYTES, false));
        assert_eq!(good.to_connect().to_string(), "shm:///run/x.sock?ring=1048576");
        assert_eq!(read("shm://@x").expect("valid").ring, RING_BYTES);
        let good = read("shm://@x?budget=2GiB&uid_budget=64MiB&fallback=unix").expect("valid");
        assert_eq!((good.budget, good.budget_of(true)), (2 << 30, 64 << 20));
        assert_eq!(good.to_connect().to_string(), "shm://@x?fallback=unix");
        let none = read("shm://@x?budget=0&fallback=unix").expect("never any memory");
        assert_eq!((none.budget_of(true), none.budget_of(false)), (0, 0));
        let usual = read("shm:///x?mode=666").expect("valid");
        assert_eq!(usual.budget_of(true), BUDGET_BYTES);
        assert_eq!(usual.budget_of(false), STRANGER_BUDGET_BYTES);
    }

    #[test]
    fn a_bad_address_names_the_part_and_shows_a_right_one() {
        let long = format!("shm:///{}", "x".repeat(120));
        for (text, part, right) in [
            ("shm://x.sock", "`x.sock` is relative", "shm:///run/x.sock"),
            ("shm://@", "behind `@`", "shm://@name"),
            (long.as_str(), "121 bytes", "shm:///run/x.sock"),
            ("shm://@x?ring=3KiB", "`ring=3KiB`", "ring=1MiB"),
            ("shm://@x?ring=2KiB", "`ring=2KiB`", "ring=1MiB"),
            ("shm://@x?ring=128MiB", "`ring=128MiB`", "ring=1MiB"),
            ("shm://@x?ring=4GiB", "`ring=4GiB`", "ring=1MiB"),
            ("shm://@x?ring=-1", "`ring=-1`", "ring=1MiB"),
            ("shm://@x?ring=1MB", "`ring=1MB`", "ring=1MiB"),
            ("shm://@x?ring=99999999999999999999", "`ring=9", "ring=1MiB"),
            ("shm://@x?uid=me", "`uid=me`", "uid=1000"),
            ("shm://@x?uid=-1", "`uid=-1`", "uid=1000"),
            ("shm:///x?mode=999", "`mode=999`", "mode=660"),
            ("shm:///x?mode=1777", "`mode=1777`", "mode=660"),
            ("shm://@x?mode=666", "`mode`", "uid=1000"),
            ("shm://@x?budget=much", "`budget=much`", "budget=256MiB"),
            ("shm://@x?uid_budget=1GB", "`uid_budget=1GB`", "uid_budget=256MiB"),
            ("shm://@x?budget=1MiB&uid_budget=2MiB", "`uid_budget`", "uid_budget=262144"),
            ("shm://@x?ring=1MiB&budget=1MiB", "takes 2105344", "budget=256MiB"),
            ("shm://@x?uid_budget=0", "budget of 0 bytes", "fallback=unix"),
            ("shm://@x?fallback=tcp", "`fallback=tcp`", "fallback=unix"),
            ("shm://@x?speed=1", "`speed`", "ring, uid, mode, budget, uid_budget, fallback"),
            ("shm://@x?face=stones", "`face=stones`", "face=records"),
            ("shm://@x?spin=20", "`spin=20`", "spin=20us"),
            ("shm://@x?spin=1000us", "`spin=1000us`", "spin=20us"),
            ("shm://@x?yield=often", "`yield=often`", "yield=0"),
            ("shm://@x?face=records&fallback=unix", "`fallback`", "face=records"),
            ("shm://@x?ring=4KiB&ring=8KiB", "`ring` stands twice", "once"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(part) && error.contains(right), "{error}");
        }
    }
}
