//! The keys of one table, taken one by one: what is there is checked and put where a default
//! stood; what is wrong goes into the report, and the default stays.

use std::ops::{Range, RangeInclusive};
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::near::nearest;
use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::keys::{heading, names};
use super::report::Report;
use super::units::{parse_size, parse_time, size, time};

/// Text of the file, and where it stands.
pub(super) type Text<'t> = (&'t str, Range<usize>);

/// One table of the file.
pub(super) struct Section<'t> {
    table: &'t DeTable<'t>,
    kind: &'static str,
    /// The keys that it may have.
    known: Rc<[&'static str]>,
    /// Where it begins.
    pub span: Range<usize>,
}

impl<'t> Section<'t> {
    /// The whole file.
    pub(super) fn root(report: &mut Report<'_>, table: &'t DeTable<'t>) -> Section<'t> {
        Section::new(report, "", names("").collect(), table, 0..0)
    }

    /// Takes a table, and reports every key that it should not have.
    fn new(
        report: &mut Report<'_>,
        kind: &'static str,
        known: Rc<[&'static str]>,
        table: &'t DeTable<'t>,
        span: Range<usize>,
    ) -> Section<'t> {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            // A hint has its price, and nobody would see it.
            let near = if report.is_full() { None } else { nearest(name, known.iter().copied()) };
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it takes {}", known.join(", ")),
            };
            let what = format!("unknown key `{name}` in {}", heading(kind));
            report.wrong_do(key.span(), what, help);
        }
        Section { table, kind, known, span }
    }

    fn value(&self, name: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        debug_assert!(self.known.contains(&name), "{name} is in keys.rs");
        self.table.get(name)
    }

    /// Reports that a key has another type than it should.
    fn not_a(&self, report: &mut Report<'_>, name: &str, value: &Spanned<DeValue<'_>>, what: &str) {
        let is = match value.get_ref().type_str() {
            "integer" => "a whole number",
            "float" => "a number with a point",
            "string" => "text",
            "boolean" => "true or false",
            "datetime" => "a date",
            "array" => "a list",
            _ => "a table",
        };
        report.wrong(value.span(), format!("`{name}` must be {what}, and this is {is}"));
    }

    /// Reports that a key must be there.
    pub(super) fn required(&self, report: &mut Report<'_>, name: &str, example: &str) {
        // What stands there with a typo is reported already.
        let meant = |key: &Spanned<DeString<'_>>| {
            let key: &str = key.get_ref();
            !self.known.contains(&key) && nearest(key, self.known.iter().copied()) == Some(name)
        };
        if !self.table.contains_key(name) && (report.is_full() || !self.table.keys().any(meant)) {
            let what = format!("{} needs `{name}`", heading(self.kind));
            report.wrong_do(self.span.clone(), what, format!("write {name} = {example}"));
        }
    }

    /// A table in it.
    pub(super) fn table(
        &self,
        report: &mut Report<'_>,
        name: &'static str,
        default: &'t DeTable<'t>,
    ) -> Section<'t> {
        let known: Rc<[&str]> = names(name).collect();
        if let Some(value) = self.value(name) {
            match value.get_ref().as_table() {
                Some(table) => return Section::new(report, name, known, table, value.span()),
                None => self.not_a(report, name, value, &format!("a table: [{name}]")),
            }
        }
        Section { table: default, kind: name, known, span: self.span.clone() }
    }

    /// Where the first of these keys stands that is there, or else the table.
    pub(super) fn place(&self, names: &[&str]) -> Range<usize> {
        let found = names.iter().find_map(|name| self.value(name));
        found.map_or(self.span.clone(), Spanned::span)
    }

    /// Whether a list is there, and has nothing in it.
    pub(super) fn is_empty(&self, name: &str) -> bool {
        let array = self.value(name).and_then(|value| value.get_ref().as_array());
        array.is_some_and(|array| array.is_empty())
    }

    /// Whether a key is there at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The tables of an array of tables.
    pub(super) fn tables(
        &self,
        report: &mut Report<'_>,
        name: &'static str,
        kind: &'static str,
    ) -> Vec<Section<'t>> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.not_a(report, name, value, &format!("an array of tables: {}", heading(kind)));
            return Vec::new();
        };
        let known: Rc<[&str]> = names(kind).collect();
        let mut sections = Vec::with_capacity(array.len());
        for item in array.iter() {
            match item.get_ref().as_table() {
                Some(table) => {
                    let known = Rc::clone(&known);
                    sections.push(Section::new(report, kind, known, table, item.span()));
                }
                None => self.not_a(report, name, item, "a table"),
            }
        }
        sections
    }

    /// Some text.
    pub(super) fn text(&self, report: &mut Report<'_>, name: &str) -> Option<Text<'t>> {
        let value = self.value(name)?;
        match value.get_ref().as_str() {
            Some(text) => Some((text, value.span())),
            None => {
                self.not_a(report, name, value, "text in quotes");
                None
            }
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, report: &mut Report<'_>, name: &str) -> Vec<Text<'t>> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.not_a(report, name, value, "a list: [\"...\", \"...\"]");
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(array.len());
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push((text, item.span())),
                None => self.not_a(report, name, item, "a list of texts in quotes"),
            }
        }
        texts
    }

    /// A whole number, or a list of them: all are good, or there is none.
    pub(super) fn counts(
        &self,
        report: &mut Report<'_>,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Option<Vec<u64>> {
        let value = self.value(name)?;
        let one = std::slice::from_ref(value);
        let items = value.get_ref().as_array().map_or(one, |array| array);
        let take = |item: &Spanned<DeValue<'_>>| self.number(report, name, item, range.clone());
        let numbers: Vec<Option<u64>> = items.iter().map(take).collect();
        numbers.into_iter().collect()
    }

    /// A whole number.
    pub(super) fn count(
        &self,
        report: &mut Report<'_>,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        self.number(report, name, self.value(name)?, range)
    }

    /// The same, put where its default stood.
    pub(super) fn bound(&self, report: &mut Report<'_>, name: &str, to: &mut u32, most: u32) {
        if let Some(number) = self.count(report, name, 1..=u64::from(most)) {
            *to = u32::try_from(number).expect("at most `most`");
        }
    }

    fn number(
        &self,
        report: &mut Report<'_>,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.not_a(report, name, value, "a whole number");
            return None;
        };
        let number = unsigned(integer).filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = range.into_inner();
            report.wrong(value.span(), format!("`{name}` must be from {least} to {most}"));
        }
        number
    }

    /// A size, put where its default stood.
    pub(super) fn size(
        &self,
        report: &mut Report<'_>,
        name: &str,
        to: &mut u64,
        range: RangeInclusive<u64>,
    ) {
        let Some(value) = self.value(name) else { return };
        let read = match value.get_ref() {
            DeValue::String(text) => parse_size(text),
            DeValue::Integer(integer) => {
                unsigned(integer).ok_or_else(|| format!("`{integer}` is not a size"))
            }
            _ => return self.not_a(report, name, value, "a size like \"1MiB\""),
        };
        match read {
            Ok(bytes) if range.contains(&bytes) => *to = bytes,
            Ok(_) => {
                let (least, most) = (size(*range.start()), size(*range.end()));
                report.wrong(value.span(), format!("`{name}` must be from {least} to {most}"));
            }
            Err(what) => report.wrong(value.span(), what),
        }
    }

    /// A duration, put where its default stood.
    pub(super) fn time(
        &self,
        report: &mut Report<'_>,
        name: &str,
        to: &mut Duration,
        range: RangeInclusive<Duration>,
    ) {
        let Some(value) = self.value(name) else { return };
        let DeValue::String(text) = value.get_ref() else {
            return self.not_a(report, name, value, "a duration with its unit, like \"500ms\"");
        };
        match parse_time(text) {
            Ok(duration) if range.contains(&duration) => *to = duration,
            Ok(_) => {
                let (least, most) = (time(*range.start()), time(*range.end()));
                report.wrong(value.span(), format!("`{name}` must be from {least} to {most}"));
            }
            Err(what) => report.wrong(value.span(), what),
        }
    }

    /// A duration or `never`, put where its default stood.
    pub(super) fn time_or_never(
        &self,
        report: &mut Report<'_>,
        name: &str,
        to: &mut Option<Duration>,
        range: RangeInclusive<Duration>,
    ) {
        let Some(value) = self.value(name) else { return };
        if value.get_ref().as_str() == Some("never") {
            *to = None;
            return;
        }
        let mut duration = to.unwrap_or(*range.start());
        self.time(report, name, &mut duration, range);
        *to = Some(duration);
    }

    /// One of a few words, put where its default stood.
    pub(super) fn choice<T: Copy>(
        &self,
        report: &mut Report<'_>,
        name: &str,
        to: &mut T,
        words: &[(&str, T)],
    ) {
        let Some((text, span)) = self.text(report, name) else { return };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meant)) => *to = *meant,
            None => {
                let list: Vec<String> =
                    words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                let what = format!("`{name}` is {}, and not \"{text}\"", list.join(" or "));
                match nearest(text, words.iter().map(|(word, _)| *word)) {
                    Some(near) => report.wrong_do(span, what, format!("did you mean \"{near}\"?")),
                    None => report.wrong(span, what),
                }
            }
        }
    }
}

/// The number of an integer that is not negative and not too large.
fn unsigned(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
