//! The rules of a file: whom they are about, what they say, and whether they ever decide.

use std::collections::HashSet;
use std::ops::Range;

use toml::de::DeTable;

use super::limits::RULES_MAX;
use super::names::Names;
use super::pattern::Who;
use super::reader::Section;
use super::rules::{AclRule, Action, Channel, Ends, Origin};
use super::settings;

const ACTIONS: [(&str, Action); 2] = [("allow", Action::Allow), ("deny", Action::Deny)];

impl<'r, 't> Names<'r, 't> {
    /// `[defaults]`, every `[[channel]]`, and `[acl]`.
    pub(super) fn rules<'s>(&mut self, root: &Section<'s>, empty: &'s DeTable<'s>) {
        let defaults = root.table(self.report, "defaults", empty);
        settings::channel(self.report, &defaults, &mut self.cluster.defaults);
        let channels = root.tables(self.report, "channel", "channel");
        for (count, section) in channels.iter().enumerate() {
            if self.room(count, RULES_MAX, "rules for channels", &section.span) {
                self.channel(section);
            }
        }
        let acl = root.table(self.report, "acl", empty);
        self.acl(&acl);
    }

    fn channel(&mut self, section: &Section<'_>) {
        let mut rule = self.cluster.defaults.clone();
        settings::channel(self.report, section, &mut rule);
        let chans = section.counts(self.report, "chan", 0..=u64::from(u16::MAX));
        let whole: Vec<u16> = chans.iter().flatten().filter_map(|c| (*c).try_into().ok()).collect();
        if chans.is_some_and(|chans| chans.is_empty()) {
            let help = "leave `chan` out for every one";
            self.report.wrong_do(section.place(&["chan"]), "no channel is named", help);
        }
        let (from, to) = (self.whom(section, "from"), self.whom(section, "to"));
        if let (Some(from), Some(to)) = (from, to) {
            let rest = match whole.as_slice() {
                [] => String::new(),
                [one] => format!(" chan {one}"),
                many => format!(" chan {many:?}"),
            };
            let line = self.report.line(section.span.start);
            let called = Self::called("channel", &from, &to, &rest);
            rule.which = Origin::new(Some(line), &called);
            let ends = Ends { from, to };
            self.unreachable(&ends, whole.is_empty(), &section.span);
            self.cluster.channels.push(Channel { ends, chans: whole, rule });
        }
    }

    /// Notes a rule that never decides, because one before it takes everything.
    fn unreachable(&mut self, ends: &Ends, every: bool, span: &Range<usize>) {
        let takes = |before: &&Channel| {
            let all = before.ends.from.is_all() && before.ends.to.is_all();
            before.chans.is_empty() && (all || (every && before.ends == *ends))
        };
        if let Some(before) = self.cluster.channels.iter().find(takes) {
            let text = format!("never decides: {} comes first", before.rule.which);
            self.note(span.start, text);
        }
    }

    fn acl(&mut self, section: &Section<'_>) {
        let default = &mut self.cluster.acl.default;
        section.choice(self.report, "default", default, &ACTIONS);
        if section.has("default") {
            let word = if *default == Action::Deny { "deny" } else { "allow" };
            let line = self.report.line(section.place(&["default"]).start);
            let text = format!("no [[acl.rule]] fits, and [acl] default is \"{word}\"");
            self.cluster.acl.otherwise = Origin::new(Some(line), &text);
        }
        let admins = section.counts(self.report, "admins", 0..=u64::from(u32::MAX - 1));
        let admins = admins.into_iter().flatten().filter_map(|uid| uid.try_into().ok());
        self.cluster.acl.admins = admins.collect();
        let rules = section.tables(self.report, "rule", "acl.rule");
        for (count, section) in rules.iter().enumerate() {
            if !self.room(count, RULES_MAX, "rules for access", &section.span) {
                continue;
            }
            section.required(self.report, "action", "\"allow\"");
            let mut action = Action::Allow;
            section.choice(self.report, "action", &mut action, &ACTIONS);
            let (from, to) = (self.whom(section, "from"), self.whom(section, "to"));
            if let (Some(from), Some(to)) = (from, to) {
                let word = if action == Action::Deny { " denies" } else { " allows" };
                let line = self.report.line(section.span.start);
                let which = Origin::new(Some(line), &Self::called("acl.rule", &from, &to, word));
                self.cluster.acl.rules.push(AclRule { ends: Ends { from, to }, action, which });
            }
        }
    }

    /// Notes what fits together and nobody: patterns with `*` that match no node.
    pub(super) fn look_back(&mut self) {
        let channels = self.cluster.channels.iter().map(|c| (&c.ends, c.rule.which.line));
        let acl = self.cluster.acl.rules.iter().map(|rule| (&rule.ends, rule.which.line));
        let patterns: Vec<_> = channels
            .chain(acl)
            .flat_map(|(ends, line)| [(ends.from.clone(), line), (ends.to.clone(), line)])
            .filter(|(pattern, _)| pattern.has_star() && !pattern.is_all())
            .collect();
        let mut seen = HashSet::new();
        for (pattern, line) in patterns {
            if !seen.insert(pattern.text().to_string()) || !self.may_look() {
                continue;
            }
            let groups = &self.cluster.groups;
            let met = self.cluster.nodes().any(|node| {
                let who = Who { name: node.name, host: &node.host.name, id: Some(node.id) };
                pattern.matches(who, groups)
            });
            if !met {
                let text = format!("`{}` is nobody's name so far", pattern.text());
                self.cluster.notes.push(super::Note { line: line.unwrap_or(1), text });
            }
        }
        self.cluster.notes.sort_by_key(|note| note.line);
    }
}
