//! The table of the bus.

use std::collections::BTreeMap;

use super::story::{Heard, Pair};
use crate::cli::text;

/// One direction between two processes.
pub struct Row {
    from: String,
    to: String,
    sent: u64,
    rate: Option<f64>,
    calm: Heard,
    last: Heard,
}

const HEAD: [&str; 9] =
    ["from", "to", "way", "messages", "64 B messages/s", "p50 us", "p99 us", "lost", "duplicated"];

/// What was measured, a row for each direction.
pub fn rows(
    pairs: &[(&str, &str)],
    sent: &BTreeMap<Pair, u64>,
    calm: &BTreeMap<Pair, Heard>,
    last: &BTreeMap<Pair, Heard>,
    rates: &[(&str, &str, f64)],
) -> Vec<Row> {
    let row = |(from, to): &(&str, &str)| {
        let pair = (from.to_string(), to.to_string());
        let rate = rates.iter().find(|rate| (rate.0, rate.1) == (*from, *to));
        Row {
            sent: sent.get(&pair).copied().unwrap_or(0),
            rate: rate.map(|rate| rate.2),
            calm: calm.get(&pair).cloned().unwrap_or_default(),
            last: last.get(&pair).cloned().unwrap_or_default(),
            from: pair.0,
            to: pair.1,
        }
    };
    pairs.iter().map(row).collect()
}

impl Row {
    /// Messages that did not come, and those that came again.
    fn wrong(&self) -> (u64, u64) {
        (self.last.lost, self.last.doubled)
    }

    fn cells(&self) -> [String; 9] {
        let a = |name: &str| ["login", "web"].contains(&name);
        let way = if a(&self.from) == a(&self.to) { "direct" } else { "relay, relay" };
        let (lost, doubled) = self.wrong();
        [
            self.from.clone(),
            self.to.clone(),
            way.to_string(),
            self.sent.to_string(),
            self.rate.map_or_else(String::new, |rate| format!("{rate:.0}")),
            self.calm.p50_us.to_string(),
            self.calm.p99_us.to_string(),
            lost.to_string(),
            doubled.to_string(),
        ]
    }
}

/// As text.
pub fn print(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(String::from)];
    lines.extend(rows.iter().map(Row::cells));
    text::columns(&lines, 3)
}

/// All that was lost, and all that came twice.
pub fn wrong(rows: &[Row]) -> (u64, u64) {
    let wrong = rows.iter().map(Row::wrong);
    wrong.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
}
