//! What is wrong with a config, shown as a compiler shows it: place, line, caret, and what to do.

use std::fmt;
use std::io;
use std::ops::Range;

use super::limits;

/// One thing that is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it, if that is not said yet.
    pub help: Option<String>,
    shown: String,
    /// Where the caret begins in what is shown, and how wide it is.
    caret: (usize, usize),
}

/// Why a config was not taken. It prints all that is wrong with it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigErrors {
    /// The file itself could not be read.
    Unreadable {
        /// Which one.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// It was read, and this is wrong.
    Wrong {
        /// Which one, or `config` for a text without a file.
        file: String,
        /// In the order of their lines.
        problems: Vec<Problem>,
        /// How many more there are.
        more: usize,
    },
}

impl ConfigErrors {
    /// What is wrong with it, in the order of the lines.
    pub fn problems(&self) -> &[Problem] {
        match self {
            ConfigErrors::Unreadable { .. } => &[],
            ConfigErrors::Wrong { problems, .. } => problems,
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigErrors::Unreadable { file, source } => write!(f, "cannot read {file}: {source}"),
            ConfigErrors::Wrong { file, problems, more } => {
                for problem in problems {
                    problem.print(f, file)?;
                }
                let count = problems.len() + more;
                let errors = if count == 1 { "error" } else { "errors" };
                write!(f, "{count} {errors} in {file}")?;
                if *more > 0 {
                    write!(f, ", the first {} are shown", problems.len())?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigErrors {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigErrors::Unreadable { source, .. } => Some(source),
            ConfigErrors::Wrong { .. } => None,
        }
    }
}

impl Problem {
    fn print(&self, f: &mut fmt::Formatter<'_>, file: &str) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let (before, width) = self.caret;
        writeln!(f, "{file}:{}:{}: {}", self.line, self.column, self.what)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.shown)?;
        writeln!(f, "{margin} | {}{}", " ".repeat(before), "^".repeat(width))?;
        if let Some(help) = &self.help {
            writeln!(f, "{margin} = {help}")?;
        }
        writeln!(f)
    }
}

/// What is wrong so far with a text, and where its lines begin.
pub(super) struct Report<'t> {
    text: &'t str,
    starts: Vec<usize>,
    problems: Vec<(usize, Problem)>,
    more: usize,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Report<'t> {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Report { text, starts, problems: Vec::new(), more: 0 }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether what else is wrong is only counted.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() >= limits::PROBLEMS_MAX
    }

    /// The line of an offset, from 1.
    pub(super) fn line(&self, at: usize) -> u32 {
        self.starts.partition_point(|start| *start <= at) as u32
    }

    pub(super) fn wrong(&mut self, span: Range<usize>, what: impl Into<String>) {
        self.add(span, what.into(), None);
    }

    pub(super) fn wrong_do(
        &mut self,
        span: Range<usize>,
        what: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(span, what.into(), Some(help.into()));
    }

    fn add(&mut self, span: Range<usize>, what: String, help: Option<String>) {
        if self.is_full() {
            self.more += 1;
            return;
        }
        let start = floor(self.text, span.start);
        let line = self.starts.partition_point(|at| *at <= start).max(1);
        let first = self.starts[line - 1];
        let rest = &self.text[first..];
        let whole = rest.lines().next().unwrap_or_default();
        let inside = (start - first).min(whole.len());
        let before = whole[..floor(whole, inside)].chars().count();
        let end = floor(self.text, span.end.max(start)).min(first + whole.len());
        let width = self.text.get(start..end).map_or(0, |marked| marked.chars().count());
        let (shown, caret) = window(whole, before, width.max(1));
        let (what, help) = (tame(&what), help.map(|help| tame(&help)));
        let problem = Problem { line, column: before + 1, what, help, shown, caret };
        self.problems.push((start, problem));
    }

    /// All of it.
    pub(super) fn into_errors(mut self, file: &str) -> ConfigErrors {
        // Stable: what was found first at a place is said first.
        self.problems.sort_by_key(|(at, _)| *at);
        let problems = self.problems.into_iter().map(|(_, problem)| problem).collect();
        ConfigErrors::Wrong { file: file.into(), problems, more: self.more }
    }
}

/// The nearest offset at or before `at` that is between two characters.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// What was said about a text, which may be long and may hold what a terminal would obey.
fn tame(said: &str) -> String {
    const MOST: usize = 600;
    let visible = said.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut tame: String = visible.take(MOST).collect();
    if said.chars().nth(MOST).is_some() {
        tame.push_str("...");
    }
    tame
}

/// The part of a line around a place, fit for a terminal: a line may be as long as the file, and
/// hold what a terminal would obey.
fn window(line: &str, before: usize, width: usize) -> (String, (usize, usize)) {
    const COLUMNS: usize = 90;
    const LEFT: usize = 40;
    let visible = |c: char| if c == '\t' || c.is_control() { ' ' } else { c };
    let from = if before + width < COLUMNS { 0 } else { before.saturating_sub(LEFT) };
    let mut rest = line.chars().skip(from).map(visible);
    let mut shown: String = if from > 0 { "...".into() } else { String::new() };
    let dots = shown.len();
    shown.extend(rest.by_ref().take(COLUMNS));
    if rest.next().is_some() {
        shown.push_str("...");
    }
    let start = before - from + dots;
    (shown, (start, width.min(COLUMNS.saturating_sub(start)).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, span: Range<usize>) -> String {
        let mut report = Report::new(text);
        report.wrong_do(span, "it is wrong", "do it right");
        report.into_errors("a.toml").to_string()
    }

    #[test]
    fn a_problem_shows_its_line_with_a_caret_under_it() {
        let want = "a.toml:2:5: it is wrong\n  |\n2 | b = two\n  |     ^^^\n  = do it right\n\n\
                    1 error in a.toml";
        assert_eq!(said("a = 1\nb = two\nc = 3\n", 10..13), want);
    }

    #[test]
    fn columns_are_characters_and_a_span_may_be_empty_or_outside() {
        assert!(said("é = x", 5..6).starts_with("a.toml:1:5: "), "{}", said("é = x", 5..6));
        assert!(said("a\n", 2..2).starts_with("a.toml:2:1: "));
        assert!(said("", 7..9).starts_with("a.toml:1:1: "));
        assert!(said("é", 1..9).starts_with("a.toml:1:1: "));
        assert!(said("ab\ncd", 1..5).contains("1 | ab\n  |  ^\n"));
    }

    #[test]
    fn a_line_as_long_as_a_file_is_shown_around_the_place() {
        let text = format!("{}WRONG{}", "x".repeat(5000), "y".repeat(5000));
        let said = said(&text, 5000..5005);
        assert!(said.lines().all(|line| line.len() < 110), "{said}");
        let lines: Vec<&str> = said.lines().collect();
        let caret = lines[3].find('^').expect("a caret");
        assert_eq!(&lines[2][caret..caret + 5], "WRONG");
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        assert!(!said("\u{1b}[2J\ta", 0..1).contains('\u{1b}'));
    }

    #[test]
    fn more_than_can_be_read_is_counted() {
        let mut report = Report::new("x");
        (0..limits::PROBLEMS_MAX + 7).for_each(|_| report.wrong(0..1, "wrong"));
        let errors = report.into_errors("a.toml");
        assert_eq!(errors.problems().len(), limits::PROBLEMS_MAX);
        assert!(errors.to_string().ends_with("107 errors in a.toml, the first 100 are shown"));
    }
}
