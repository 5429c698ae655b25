//! What `ringlane perf` prints.

use super::load::{Kind, Sample};
use crate::cli::text;

/// What one block of the table is about: a kind and a size in bytes.
pub type Cell = (Kind, usize);

/// One transport's samples, by cell and round.
pub struct Row {
    name: String,
    runs: String,
    samples: Vec<Vec<Option<Sample>>>,
}

const HEAD: [&str; 9] = [
    "",
    "engine",
    "messages/s",
    "GB/s",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "client CPU us/message",
    "server CPU us/message",
];

/// Medians of one row in one cell.
#[derive(Clone, Debug)]
struct Medians {
    rate: f64,
    latency: [f64; 3],
    cpu: [Option<f64>; 2],
}

impl Row {
    /// A row without samples.
    pub fn new(name: String, runs: String) -> Row {
        Row { name, runs, samples: Vec::new() }
    }

    /// Adds a round's sample of cell number `at`; `None` where it cannot do that.
    pub fn add(&mut self, at: usize, sample: Option<Sample>) {
        if self.samples.len() <= at {
            self.samples.resize_with(at + 1, Vec::new);
        }
        self.samples[at].push(sample);
    }

    fn medians(&self, at: usize) -> Option<Medians> {
        let samples: Vec<&Sample> = self.samples.get(at)?.iter().flatten().collect();
        if samples.is_empty() {
            return None;
        }
        let of = |value: &dyn Fn(&Sample) -> Option<f64>| {
            median(samples.iter().filter_map(|sample| value(sample)).collect())
        };
        Some(Medians {
            rate: of(&|sample| Some(sample.rate))?,
            latency: [0, 1, 2].map(|at| of(&|sample| Some(sample.latency[at])).unwrap_or(0.0)),
            cpu: [0, 1].map(|at| of(&|sample| sample.cpu[at])),
        })
    }

    fn cells(&self, at: usize, (kind, size): Cell) -> [String; 9] {
        let mut cells = [const { String::new() }; 9].map(|_| "-".to_string());
        (cells[0], cells[1]) = (self.name.clone(), self.runs.clone());
        let Some(medians) = self.medians(at) else { return cells };
        cells[2] = format!("{:.0}", medians.rate);
        cells[3] = format!("{:.3}", medians.rate * size as f64 / 1e9);
        if kind == Kind::RoundTrip {
            for (cell, latency) in cells[4..7].iter_mut().zip(medians.latency) {
                *cell = format!("{latency:.1}");
            }
        }
        for (cell, cpu) in cells[7..].iter_mut().zip(medians.cpu) {
            if let Some(cpu) = cpu {
                *cell = format!("{cpu:.2}");
            }
        }
        cells
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn size_of(bytes: usize) -> String {
    match bytes {
        n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{} MiB", n >> 20),
        n if n >= 1 << 10 && n % (1 << 10) == 0 => format!("{} KiB", n >> 10),
        n => format!("{n} B"),
    }
}

/// The whole of it: a block per cell.
pub fn print(cells: &[Cell], rows: &[Row]) -> String {
    let block = |(at, &cell): (usize, &Cell)| {
        let kind = match cell.0 {
            Kind::RoundTrip => "round trip",
            Kind::Stream => "stream",
        };
        let mut lines = vec![HEAD.map(String::from)];
        lines[0][0] = format!("{kind}, {}", size_of(cell.1));
        lines.extend(rows.iter().map(|row| row.cells(at, cell)));
        text::columns(&lines, 2)
    };
    let blocks: Vec<String> = cells.iter().enumerate().map(block).collect();
    blocks.join("\n\n")
}

/// Which of ours to take for what, by these figures.
pub fn advice(cells: &[Cell], rows: &[Row]) -> String {
    let mut lines = Vec::new();
    for (at, &(kind, size)) in cells.iter().enumerate() {
        let ours = rows.iter().filter(|row| row.name.contains("://"));
        let figures = ours.filter_map(|row| Some((&row.name, row.medians(at)?)));
        let worth = |medians: &Medians| match kind {
            Kind::RoundTrip => -medians.latency[0],
            Kind::Stream => medians.rate,
        };
        let best = figures.max_by(|a, b| worth(&a.1).total_cmp(&worth(&b.1)));
        let Some((name, medians)) = best else { continue };
        let size = size_of(size);
        lines.push(match kind {
            Kind::RoundTrip => {
                let p50 = medians.latency[0];
                format!("quickest answer at {size}: {name} ({p50:.1} us)")
            }
            Kind::Stream => {
                format!("most messages of {size} one way: {name} ({:.0} a second)", medians.rate)
            }
        });
    }
    lines.push(
        "Figures of this machine, now, on idle cores; only their ratios mean something elsewhere."
            .into(),
    );
    format!("\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rate: f64) -> Sample {
        Sample { rate, latency: [1e6 / rate; 3], cpu: [Some(1.0), None] }
    }

    #[test]
    fn the_table_shows_medians_and_names_the_best_of_ours() {
        let cells = [(Kind::RoundTrip, 64), (Kind::Stream, 65536)];
        let mut rows: Vec<Row> = ["a://", "b://", "pipe"]
            .map(|name| Row::new(name.into(), "uring u5".into()))
            .into_iter()
            .collect();
        for (row, rates) in rows.iter_mut().zip([[9.0, 10.0, 11.0], [20.0, 20.0, 1.0], [99.0; 3]]) {
            for rate in rates {
                row.add(0, Some(sample(rate)));
                row.add(1, (row.name != "pipe").then(|| sample(1000.0 - rate)));
            }
        }
        let text = print(&cells, &rows);
        assert!(text.contains("round trip, 64 B") && text.contains("stream, 64 KiB"), "{text}");
        let a = text.lines().find(|line| line.starts_with("a://")).expect("a line");
        assert_eq!(a.split_whitespace().nth(3), Some("10"), "{a}");
        let pipe = text.lines().rfind(|line| line.starts_with("pipe")).expect("a line");
        assert!(pipe.ends_with("-  -  -") || pipe.trim_end().ends_with('-'), "{pipe}");
        let advice = advice(&cells, &rows);
        assert!(advice.contains("quickest answer at 64 B: b://"), "{advice}");
        assert!(advice.contains("most messages of 64 KiB one way: a://"), "{advice}");
    }
}
