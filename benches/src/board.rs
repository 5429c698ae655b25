//! Figures of subjects that were measured in the same rounds: kept, printed, and held against what
//! was promised. Knows nothing about how they were got, so any bench or program can fill one.
//!
//! ```text
//!             figure a      figure b
//!   round 0   x y z         x y z         put(round, subject, figure, value)
//!   round 1   x y -         x y z         a gap is a run without a figure
//!                 |
//!                 v
//!   ratio(figure a, x, y): x/y inside each round that has both, then the median of these
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::stats::{Spread, spread};
use crate::table::Bound;

/// Something that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name in tables and csv.
    pub name: &'static str,
    /// What its values are in, once they are multiplied by `scale`.
    pub unit: &'static str,
    /// From what is stored to what is printed.
    pub scale: f64,
    /// Digits behind the point.
    pub digits: usize,
}

/// A promise: `ours` over `peer`.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// In which figure.
    pub figure: &'static str,
    /// Which of ours.
    pub ours: &'static str,
    /// Beside whom.
    pub peer: &'static str,
    /// How much.
    pub bound: Bound,
    /// What was seen before there was a promise.
    pub before: Option<f64>,
}

/// What came of the promises.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Verdicts {
    /// Kept.
    pub met: usize,
    /// Broken.
    pub missed: usize,
    /// Without a figure on either side.
    pub open: usize,
}

/// The values of some rounds.
#[derive(Default, Debug)]
pub struct Board {
    values: BTreeMap<(&'static str, &'static str), BTreeMap<usize, f64>>,
}

impl Board {
    /// Keeps a value.
    pub fn put(&mut self, round: usize, subject: &'static str, figure: &'static str, value: f64) {
        self.values.entry((figure, subject)).or_default().insert(round, value);
    }

    /// The spread of a subject's values.
    pub fn values(&self, figure: &'static str, subject: &'static str) -> Option<Spread> {
        let values: Vec<f64> = self.values.get(&(figure, subject))?.values().copied().collect();
        spread(&values)
    }

    /// The spread of `ours` over `peer`, taken inside each round that has both.
    pub fn ratio(
        &self,
        figure: &'static str,
        ours: &'static str,
        peer: &'static str,
    ) -> Option<Spread> {
        let ours = self.values.get(&(figure, ours))?;
        let peer = self.values.get(&(figure, peer))?;
        let inside = |(round, ours): (&usize, &f64)| Some(ours / peer.get(round)?);
        let ratios: Vec<f64> = ours.iter().filter_map(inside).collect();
        spread(&ratios)
    }

    /// A line per subject, the median of each figure with its spread, and how many rounds gave
    /// one. What nobody has a value of is left out.
    pub fn figures(&self, subjects: &[&'static str], figures: &[Figure]) -> String {
        let has = |name: &'static str| subjects.iter().any(|s| self.values(name, s).is_some());
        let figures: Vec<&Figure> = figures.iter().filter(|figure| has(figure.name)).collect();
        let mut text = format!("  {:<10}", "");
        for figure in &figures {
            let head = format!("{} {}", figure.name, figure.unit);
            // Writing to a String does not fail.
            let _ = write!(text, "{head:>28}");
        }
        text.push('\n');
        for subject in subjects {
            let row: Vec<Option<Spread>> =
                figures.iter().map(|figure| self.values(figure.name, subject)).collect();
            if row.iter().all(Option::is_none) {
                continue;
            }
            let _ = write!(text, "  {subject:<10}");
            for (figure, value) in figures.iter().zip(row) {
                let _ = write!(text, "{:>28}", value.map_or("-".into(), |s| cell(figure, s)));
            }
            text.push('\n');
        }
        text
    }

    /// A line per subject with its ratio to `reference`, figure by figure.
    pub fn ratios(
        &self,
        reference: &'static str,
        subjects: &[&'static str],
        figures: &[Figure],
    ) -> String {
        let mut text = String::new();
        for figure in figures {
            for subject in subjects.iter().filter(|subject| **subject != reference) {
                if let Some(got) = self.ratio(figure.name, subject, reference) {
                    let pair = format!("{subject} / {reference}");
                    let _ = writeln!(text, "  {pair:<18}{:<16}{}", figure.name, around(got));
                }
            }
        }
        text
    }

    /// A line per promise: the ratio, what it should be, and whether it is.
    pub fn targets(&self, targets: &[Target]) -> (String, Verdicts) {
        let mut text = format!(
            "  {:<15}{:<15}{:<26}{:>9}{:>9}  {}\n",
            "cell", "ratio", "median (min..max)", "target", "before", "verdict"
        );
        let mut verdicts = Verdicts::default();
        for target in targets {
            let got = self.ratio(target.figure, target.ours, target.peer);
            let (seen, verdict) = match got {
                Some(got) if target.bound.holds(got.median) => {
                    verdicts.met += 1;
                    (around(got), "met")
                }
                Some(got) => {
                    verdicts.missed += 1;
                    (around(got), "MISSED")
                }
                None => {
                    verdicts.open += 1;
                    ("-".into(), self.lacks(target))
                }
            };
            let bound = match target.bound {
                Bound::AtMost(most) => format!("<= {most:.2}"),
                Bound::AtLeast(least) => format!(">= {least:.2}"),
            };
            let pair = format!("{} / {}", target.ours, target.peer);
            let before = target.before.map_or(String::new(), |before| format!("[{before:.2}]"));
            let figure = target.figure;
            let _ = writeln!(
                text,
                "  {figure:<15}{pair:<15}{seen:<26}{bound:>9}{before:>9}  {verdict}"
            );
        }
        (text, verdicts)
    }

    fn lacks(&self, target: &Target) -> &'static str {
        let has = |subject| self.values.contains_key(&(target.figure, subject));
        match (has(target.ours), has(target.peer)) {
            (false, true) => "open: ours has no figure",
            (true, false) => "open: the peer has no figure",
            (true, true) => "open: never in one round",
            (false, false) => "open: neither has a figure",
        }
    }
}

fn cell(figure: &Figure, s: Spread) -> String {
    let (scale, digits) = (figure.scale, figure.digits);
    let [median, min, max] = [s.median, s.min, s.max].map(|value| value * scale);
    format!("{median:.digits$} ({min:.digits$}..{max:.digits$})")
}

fn around(s: Spread) -> String {
    format!("{:>7.3} ({:.3}..{:.3})", s.median, s.min, s.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &[Target] = &[
        Target {
            figure: "rtt",
            ours: "a",
            peer: "b",
            bound: Bound::AtMost(0.5),
            before: Some(0.36),
        },
        Target { figure: "rate", ours: "a", peer: "b", bound: Bound::AtLeast(5.0), before: None },
        Target { figure: "rate", ours: "c", peer: "b", bound: Bound::AtLeast(5.0), before: None },
    ];

    #[test]
    fn a_round_in_which_one_of_both_has_no_figure_is_in_no_ratio() {
        let mut board = Board::default();
        for (round, value) in [(0, 1.0), (1, 100.0), (2, 3.0)] {
            board.put(round, "a", "rtt", value);
        }
        for (round, value) in [(0, 2.0), (2, 4.0), (3, 1.0)] {
            board.put(round, "b", "rtt", value);
        }
        let got = board.ratio("rtt", "a", "b").expect("two rounds have both");
        assert_eq!(got, Spread { median: 0.625, min: 0.5, max: 0.75 });
        assert_eq!(board.ratio("rtt", "a", "c"), None);
    }

    #[test]
    fn a_promise_is_met_or_missed_or_open_and_says_so() {
        let mut board = Board::default();
        for (subject, figure, value) in
            [("a", "rtt", 40.0), ("b", "rtt", 100.0), ("a", "rate", 4.0), ("b", "rate", 1.0)]
        {
            board.put(0, subject, figure, value);
        }
        let (text, verdicts) = board.targets(TARGETS);
        assert_eq!(verdicts, Verdicts { met: 1, missed: 1, open: 1 }, "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("[0.36]") && lines[1].ends_with("met"), "{text}");
        assert!(lines[2].contains(">= 5.00") && lines[2].ends_with("MISSED"), "{text}");
        assert!(lines[3].ends_with("open: ours has no figure"), "{text}");
    }

    #[test]
    fn a_figure_that_nobody_has_takes_no_column() {
        let mut board = Board::default();
        board.put(0, "a", "rtt", 2000.0);
        let figure = |name| Figure { name, unit: "us", scale: 1e-3, digits: 1 };
        let text = board.figures(&["a", "b"], &[figure("rtt"), figure("rate")]);
        assert!(text.contains("2.0 (2.0..2.0)") && !text.contains("rate"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
