//! What a relay tells of itself, read back from its JSON, and how figures are written.

use std::collections::BTreeMap;

use ringlane::bus::local::Terms;
use serde::Deserialize;

/// Everything at one moment.
#[derive(Deserialize, Clone, Debug)]
pub struct Seen {
    pub relay: Relay,
    pub routes: Vec<Route>,
    /// Names in the routing table.
    pub names: u64,
    pub socket: String,
    pub listening: Vec<String>,
    pub metrics: Option<String>,
    /// Microseconds since 1970.
    pub now: u64,
    pub generation: u64,
    pub limits: BTreeMap<String, u64>,
    pub ending: bool,
    pub reloads: u64,
}

#[derive(Deserialize, Clone, Debug)]
pub struct Relay {
    pub host: String,
    pub cluster: String,
    pub pid: u32,
    /// Microseconds since 1970 when it began.
    pub incarnation: u64,
    pub processes: Vec<Process>,
    pub channels: Vec<Channel>,
    pub links: Vec<Link>,
    pub table: Table,
    pub ring_bytes: u64,
    pub counts: Counts,
}

#[derive(Deserialize, Clone, Debug)]
pub struct Process {
    pub node: String,
    pub pid: u32,
    pub uid: u32,
    pub since: u64,
    pub sends: u64,
    pub receives: u64,
}

#[derive(Deserialize, Clone, Debug)]
pub struct Channel {
    pub direction: String,
    pub src: String,
    pub dst: String,
    pub chan: u16,
    pub epoch: u64,
    pub state: String,
    pub terms: Terms,
    pub written: u32,
    pub stored: u32,
    pub consumed: u32,
    pub credit: u64,
    pub idle_ms: u64,
}

#[derive(Deserialize, Clone, Debug)]
pub struct Link {
    pub host: String,
    pub sends: u64,
    pub receives: u64,
    pub waiting: u64,
}

#[derive(Deserialize, Clone, Debug)]
pub struct Table {
    pub entries: u64,
    pub entries_max: u64,
    pub evicted: u64,
    pub expired: u64,
    pub received: u64,
}

#[derive(Deserialize, Clone, Debug)]
pub struct Counts {
    pub sent: u64,
    pub sent_bytes: u64,
    pub stored: u64,
    pub stored_bytes: u64,
    pub expired: u64,
    pub conflated: u64,
    pub resumed: u64,
    pub gone: u64,
    pub broken: u64,
    pub refused: u64,
    pub stray: u64,
}

/// What is known of another host.
#[derive(Deserialize, Clone, Debug)]
pub struct Route {
    pub host: String,
    pub state: String,
    pub address: Option<String>,
    pub dialled_by: String,
    pub rtt_us: Option<u64>,
    pub unacked: u64,
    pub idle_ms: Option<u64>,
    pub tries: u32,
    pub why: Option<String>,
}

impl Channel {
    /// Records that were published and are not in the receiver's ring; of those that come in, that
    /// are not consumed.
    pub fn waiting(&self) -> u32 {
        let done = if self.direction == "out" { self.stored } else { self.consumed };
        let waiting = self.written.wrapping_sub(done);
        // The two are read one after the other, and may pass.
        if waiting > u32::MAX / 2 { 0 } else { waiting }
    }

    /// The class as the configuration writes it.
    pub fn class(&self) -> String {
        match serde_json::to_value(self.terms.class) {
            Ok(serde_json::Value::String(text)) => text,
            _ => String::new(),
        }
    }
}

impl Route {
    /// How it stands, and why not better.
    pub fn stand(&self) -> String {
        match (&self.why, self.state.as_str()) {
            (_, "up") | (None, _) => self.state.clone(),
            (Some(why), _) => format!("{} ({why}, {} tries)", self.state, self.tries),
        }
    }
}

/// Bytes as one reads them: three digits and a unit.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 10.0 && value.fract() > 0.0 { 1 } else { 0 };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A time as one reads it, from nanoseconds.
pub fn span(nanos: u64) -> String {
    let nanos_f = nanos as f64;
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} us", nanos_f / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanos_f / 1e6),
        1_000_000_000..120_000_000_000 => format!("{:.0} s", nanos_f / 1e9),
        120_000_000_000..7_200_000_000_000 => format!("{:.0} min", nanos_f / 6e10),
        7_200_000_000_000..172_800_000_000_000 => format!("{:.0} h", nanos_f / 3.6e12),
        _ => format!("{:.0} d", nanos_f / 8.64e13),
    }
}

/// The same from milliseconds, in which tenths mean nothing.
pub fn span_ms(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { span(ms.saturating_mul(1_000_000)) }
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!([bytes(0), bytes(1023), bytes(1024)], ["0 B", "1023 B", "1 KiB"]);
        assert_eq!(
            [bytes(1536), bytes(300 << 20), bytes(1 << 40)],
            ["1.5 KiB", "300 MiB", "1 TiB"]
        );
        assert_eq!([span(950), span(12_345), span(5_000_000_000)], ["950 ns", "12.3 us", "5 s"]);
        assert_eq!([span_ms(20), span_ms(600_000)], ["20 ms", "10 min"]);
        assert_eq!([grouped(7), grouped(1234), grouped(1_234_567)], ["7", "1,234", "1,234,567"]);
    }
}
