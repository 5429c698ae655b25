//! The demo's table.

use super::load::Measured;
use crate::cli::child::Runs;
use crate::cli::text;

/// One run.
pub struct Row {
    /// What the client and the servers ran on, the client first.
    pub runs: Vec<Runs>,
    /// What came out.
    pub measured: Measured,
    /// The largest peak of a server's memory, KiB.
    pub peak_kib: u64,
}

const HEAD: [&str; 8] = [
    "engine",
    "tier",
    "messages/s",
    "p50 us",
    "p99 us",
    "GB/s",
    "server CPU us/message",
    "server peak MiB",
];

impl Row {
    /// The engine by name, or how many processes run on which.
    fn engine(&self) -> String {
        self.of_all(|runs| &runs.engine)
    }

    fn of_all<'a>(&'a self, part: impl Fn(&'a Runs) -> &'a str) -> String {
        let mut names: Vec<(&str, usize)> = Vec::new();
        for name in self.runs.iter().map(part) {
            match names.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => names.push((name, 1)),
            }
        }
        match names[..] {
            [(name, _)] => name.to_string(),
            _ => {
                let each = names.iter().map(|(name, count)| format!("{count} {name}"));
                each.collect::<Vec<_>>().join(" + ")
            }
        }
    }

    fn cells(&self) -> [String; 8] {
        let m = &self.measured;
        let micros = |time: std::time::Duration| format!("{:.0}", time.as_secs_f64() * 1e6);
        [
            self.engine(),
            self.of_all(|runs| &runs.tier),
            format!("{:.0}", m.messages_per_second),
            micros(m.p50),
            micros(m.p99),
            format!("{:.2}", m.gigabytes_per_second),
            format!("{:.2}", m.cpu_per_message.as_secs_f64() * 1e6),
            format!("{:.1}", self.peak_kib as f64 / 1024.0),
        ]
    }

    /// Whether some process fell back, and why: one line per reason.
    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = Vec::new();
        for runs in self.runs.iter().filter(|runs| !runs.fell_back.is_empty()) {
            let count = self.runs.iter().filter(|other| other.fell_back == runs.fell_back).count();
            let all = self.runs.len();
            let note =
                format!("fell back to {} ({count} of {all}): {}", runs.engine, runs.fell_back);
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        notes
    }
}

/// The table and what there is to say about it.
pub fn print(rows: &[Row]) -> String {
    let mut cells = vec![HEAD.map(String::from)];
    cells.extend(rows.iter().map(Row::cells));
    let mut lines = vec![text::columns(&cells, 2)];
    for row in rows {
        lines.extend(row.notes().into_iter().map(|note| format!("{}: {note}", row.engine())));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_row_says_what_fell_back() {
        let runs = |engine: &str, why: &str| Runs {
            engine: engine.into(),
            tier: "x".into(),
            fell_back: why.into(),
        };
        let measured = Measured {
            messages_per_second: 1234.0,
            p50: Duration::from_micros(10),
            p99: Duration::from_micros(20),
            gigabytes_per_second: 1.5,
            cpu_per_message: Duration::from_micros(3),
            bytes: 0,
        };
        let rows = vec![runs("uring", ""), runs("epoll", "memlock"), runs("epoll", "memlock")];
        let text = print(&[Row { runs: rows, measured, peak_kib: 2048 }]);
        assert!(text.contains("1 uring + 2 epoll: fell back to epoll (2 of 3): memlock"), "{text}");
        assert!(text.contains("1234"), "{text}");
    }
}
