//! Who is meant in rules and groups: `db`, `db@hostB`, `login.*`, `*@hostB`, `@group`, `*`.

use super::{Group, Groups};

/// A node as patterns see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    pub name: &'a str,
    /// Empty if the name is not in the config.
    pub host: &'a str,
    pub id: Option<u32>,
}

/// A pattern as it was written. It matches names, hosts, or members of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pattern {
    text: Box<str>,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Pattern {
        Pattern { text: text.into() }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The group that is meant.
    pub(super) fn group(&self) -> Option<&str> {
        self.text.strip_prefix('@')
    }

    /// Node and host; the host is `*` where none is written.
    pub(super) fn parts(&self) -> (&str, &str) {
        self.text.split_once('@').unwrap_or((&self.text, "*"))
    }

    pub(super) fn is_all(&self) -> bool {
        matches!(&*self.text, "*" | "*@*")
    }

    pub(super) fn has_star(&self) -> bool {
        self.text.contains('*')
    }

    pub(super) fn matches(&self, who: Who<'_>, groups: &Groups) -> bool {
        if let Some(name) = self.group() {
            let member = |group: &Group| who.id.is_some_and(|id| group.has(id));
            return groups.get(name).is_some_and(member);
        }
        let (name, host) = self.parts();
        glob(name, who.name) && glob(host, who.host)
    }
}

/// Whether a text is what a pattern says; `*` stands for any run of characters, also for none.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Behind the last star, and where in the text that star's run ends for now.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((behind, end)) = star {
            star = Some((behind, end + 1));
            (p, t) = (behind, end + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text, is) in [
            ("*", "", true),
            ("*", "db", true),
            ("db", "db", true),
            ("db", "db1", false),
            ("db*", "db", true),
            ("login.*", "login.7", true),
            ("login.*", "login", false),
            ("*.log", "a.log", true),
            ("*.log", "a.logs", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), is, "{pattern} {text}");
        }
        // Linear in each, not exponential in the stars.
        assert!(!glob(&"*a".repeat(32), &"a".repeat(31)));
    }

    #[test]
    fn a_host_may_stand_behind_the_name() {
        let matches = |pattern: &str, name, host| {
            Pattern::new(pattern).matches(Who { name, host, id: None }, &Groups::default())
        };
        assert!(matches("db@b", "db", "b") && !matches("db@b", "db", "a"));
        assert!(matches("*@b", "db", "b") && matches("db*", "db1", "anywhere"));
        assert!(!matches("@none", "db", "b"));
    }
}
