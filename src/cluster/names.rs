//! Who is there: hosts, nodes, groups; and the check that whoever is spoken of is one of them.

use std::collections::HashMap;
use std::ops::Range;

use ringlane_api::near::nearest;

use super::address::For;
use super::certified::can_be_certified;
use super::keys::heading;
use super::limits::{
    ADDRESSES_MAX, GLOBS_MAX, GROUPS_MAX, HINT_LOOKS_MAX, HOSTS_MAX, NAME_BYTES_MAX, NODES_MAX,
};
use super::pattern::{Pattern, Who};
use super::reader::{Section, Text};
use super::report::Report;
use super::settings;
use super::{Cluster, Group, Host, Node, Note, Pick};

/// Whether a text can be a name; a report says why not.
pub(super) fn is_name(report: &mut Report<'_>, what: &str, text: &str, span: Range<usize>) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let good = first && text.len() <= NAME_BYTES_MAX && text.bytes().all(inner);
    if !good {
        let what = format!("`{text}` cannot be the name of a {what}");
        let help = format!(
            "a name has 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` or `-`, and begins with a \
             letter or digit"
        );
        report.wrong_do(span, what, help);
    }
    good
}

/// What names a cluster has so far, and what is wrong with them.
pub(super) struct Names<'r, 't> {
    pub report: &'r mut Report<'t>,
    pub cluster: &'r mut Cluster,
    /// Nodes that were looked at for hints and notes.
    looks: usize,
    globs: usize,
}

impl<'r, 't> Names<'r, 't> {
    pub(super) fn new(report: &'r mut Report<'t>, cluster: &'r mut Cluster) -> Names<'r, 't> {
        Names { report, cluster, looks: 0, globs: 0 }
    }

    /// Whether there may be one more; the first one too many is reported.
    pub(super) fn room(
        &mut self,
        count: usize,
        most: usize,
        what: &str,
        span: &Range<usize>,
    ) -> bool {
        if count == most {
            self.report.wrong(span.clone(), format!("more than {most} {what}"));
        }
        count < most
    }

    /// Every `[[host]]`.
    pub(super) fn hosts(&mut self, root: &Section<'_>) {
        let sections = root.tables(self.report, "host", "host");
        if sections.is_empty() {
            let help = "write [[host]], under it name = \"a\" and nodes = [\"login\", \"db\"]";
            self.report.wrong_do(0..0, "there is no host", help);
        }
        let linked = sections.len() > 1;
        let mut places = HashMap::new();
        for (count, section) in sections.iter().enumerate() {
            if self.room(count, HOSTS_MAX, "hosts", &section.span) {
                self.host(section, linked, &mut places);
            }
        }
    }

    fn host(&mut self, section: &Section<'_>, linked: bool, places: &mut HashMap<String, u32>) {
        let line = self.report.line(section.span.start);
        section.required(self.report, "name", "\"a\"");
        if linked {
            section.required(self.report, "relay", "[\"tcp://10.0.0.1:7000\"]");
            if section.is_empty("relay") {
                let what = "without an address no other relay could dial this one";
                self.report.wrong(section.place(&["relay"]), what);
            }
        }
        let relays = self.addresses(section, "relay", For::Dialling);
        for (address, span) in &relays {
            if let Some(before) = places.insert(address.to_string(), line) {
                let what = format!("`{address}` is a relay of the host in line {before}, too");
                self.report.wrong(span.clone(), what);
            }
        }
        let relays: Vec<_> = relays.into_iter().map(|(address, _)| address).collect();
        let listen = self.addresses(section, "listen", For::Listening);
        let mut listen: Vec<_> = listen.into_iter().map(|(address, _)| address).collect();
        if !section.has("listen") {
            listen = relays.clone();
        }
        let socket = section.text(self.report, "socket");
        let socket = socket
            .and_then(|(text, span)| settings::address(self.report, text, span, For::Processes));
        let metrics = settings::metrics(self.report, section, "metrics");
        let uid = self.uid(section);
        // Without a name its nodes are still there, so that what speaks of them is not wrong, too.
        let id = self.cluster.hosts.len() as u32;
        let name = self.host_name(section, id, line);
        let host = Host { name, id, relays, listen, socket, metrics, line, uid, nodes: Vec::new() };
        self.cluster.hosts.push(host);
        for (name, span) in section.texts(self.report, "nodes") {
            if is_name(self.report, "node", name, span.clone()) {
                self.node(name, id, span);
            }
        }
    }

    fn host_name(&mut self, section: &Section<'_>, id: u32, line: u32) -> String {
        let Some((name, span)) = section.text(self.report, "name") else { return String::new() };
        if !is_name(self.report, "host", name, span.clone()) {
            return String::new();
        }
        if self.cluster.tls.is_some() && !can_be_certified(name) {
            let what = format!("no certificate can name host `{name}`");
            self.report.wrong_do(span.clone(), what, "give it a name as DNS has them, for [tls]");
        }
        if let Some(before) = self.cluster.host_names.get(name) {
            let before = self.cluster.hosts[*before as usize].line;
            let what = format!("there is a host `{name}` in line {before} already");
            self.report.wrong_do(span, what, format!("give the one in line {line} another name"));
        } else {
            self.cluster.host_names.insert(name.into(), id);
        }
        name.into()
    }

    fn addresses(
        &mut self,
        section: &Section<'_>,
        key: &str,
        what_for: For,
    ) -> Vec<(ringlane_api::Address, Range<usize>)> {
        let mut found = Vec::new();
        for (count, (text, span)) in section.texts(self.report, key).into_iter().enumerate() {
            if self.room(count, ADDRESSES_MAX, "addresses", &span)
                && let Some(address) = settings::address(self.report, text, span.clone(), what_for)
            {
                self.tls(&address, &span);
                found.push((address, span));
            }
        }
        found
    }

    /// An address with TLS needs certificates; one without, beside some, may be an oversight.
    fn tls(&mut self, address: &ringlane_api::Address, span: &Range<usize>) {
        let tls = address.scheme().starts_with("tls+");
        if tls && self.cluster.tls.is_none() {
            let help = "write [tls], under it certificate, key and authority";
            self.report.wrong_do(span.clone(), "tls+tcp:// needs certificates", help);
        } else if !tls && self.cluster.tls.is_some() && address.scheme() == "tcp" {
            let target = address.target();
            let text = format!("tcp://{target} goes without TLS; tls+tcp://{target} uses [tls]");
            self.note(span.start, text);
        }
    }

    fn uid(&mut self, section: &Section<'_>) -> Option<u32> {
        // The last one is no user, but what stands for none.
        let uid = section.count(self.report, "uid", 0..=u64::from(u32::MAX - 1))?;
        u32::try_from(uid).ok()
    }

    fn node(&mut self, name: &str, host: u32, span: Range<usize>) -> Option<u32> {
        let line = self.report.line(span.start);
        if let Some(before) = self.cluster.node_names.get(name) {
            let before = &self.cluster.nodes[*before as usize];
            let (at, there) = (&self.cluster.hosts[before.host as usize].name, before.line);
            let what = format!("there is a node `{name}` on host `{at}` in line {there} already");
            let help = "the name of a node is its own in the whole cluster; call one of them \
                        something else";
            self.report.wrong_do(span, what, help);
            return None;
        }
        let id = self.cluster.nodes.len();
        if !self.room(id, NODES_MAX, "nodes", &span) {
            return None;
        }
        let node = Node { name: name.into(), host, uid: None, line, described: false };
        self.cluster.nodes.push(node);
        self.cluster.node_names.insert(name.into(), id as u32);
        self.cluster.hosts[host as usize].nodes.push(id as u32);
        Some(id as u32)
    }

    /// Every `[[node]]`: it describes one that a host lists, or adds one.
    pub(super) fn nodes(&mut self, root: &Section<'_>) {
        for section in root.tables(self.report, "node", "node") {
            section.required(self.report, "name", "\"db\"");
            let uid = self.uid(&section);
            let host = section.text(self.report, "host");
            let Some((name, span)) = section.text(self.report, "name") else { continue };
            if !is_name(self.report, "node", name, span.clone()) {
                continue;
            }
            let host = match host {
                None => None,
                Some(host) => match self.host_of(host) {
                    Some(id) => Some(id),
                    None => continue,
                },
            };
            if let Some(id) = self.described(name, host, span) {
                let node = &mut self.cluster.nodes[id as usize];
                (node.uid, node.described) = (uid, true);
            }
        }
    }

    fn host_of(&mut self, (name, span): Text<'_>) -> Option<u32> {
        let id = self.cluster.host_names.get(name).copied();
        if id.is_none() {
            let most = if self.report.is_full() { 0 } else { HOSTS_MAX };
            let names = self.cluster.hosts.iter().take(most).map(|host| host.name.as_str());
            let near = nearest(name, names).map(|near| format!("did you mean `{near}`?"));
            let help = near.unwrap_or_else(|| "hosts are named under [[host]]".into());
            self.report.wrong_do(span, format!("there is no host `{name}`"), help);
        }
        id
    }

    /// The node that a `[[node]]` is about.
    fn described(&mut self, name: &str, host: Option<u32>, span: Range<usize>) -> Option<u32> {
        let listed = self.cluster.node_names.get(name).copied();
        match (listed, host) {
            (None, None) => {
                let help = "write its host here, or list it under `nodes` of a [[host]]";
                self.report.wrong_do(span, format!("no host has a node `{name}`"), help);
                None
            }
            (None, Some(host)) => self.node(name, host, span),
            (Some(id), host) => {
                let node = &self.cluster.nodes[id as usize];
                if !node.described && host.is_none_or(|host| host == node.host) {
                    return Some(id);
                }
                self.node(name, node.host, span)
            }
        }
    }

    /// Every `[[group]]`.
    pub(super) fn groups(&mut self, root: &Section<'_>) {
        let sections = root.tables(self.report, "group", "group");
        for (count, section) in sections.iter().enumerate() {
            if self.room(count, GROUPS_MAX, "groups", &section.span)
                && let Some(group) = self.group(section)
            {
                self.cluster.groups.add(group);
            }
        }
    }

    fn group(&mut self, section: &Section<'_>) -> Option<Group> {
        section.required(self.report, "name", "\"dbs\"");
        section.required(self.report, "members", "[\"db\", \"db.*\"]");
        let mut pick = Pick::Any;
        let picks = [("any", Pick::Any), ("all", Pick::All), ("hash", Pick::Hash)];
        section.choice(self.report, "pick", &mut pick, &picks);
        let members = section.texts(self.report, "members");
        let (name, span) = section.text(self.report, "name")?;
        if !is_name(self.report, "group", name, span.clone()) {
            return None;
        }
        if let Some(before) = self.cluster.groups.get(name) {
            let what = format!("there is a group `{name}` in line {} already", before.line);
            self.report.wrong_do(span, what, "call one of them something else");
            return None;
        }
        let mut group = Group::new(name, pick, self.report.line(section.span.start));
        if section.is_empty("members") {
            self.report.wrong(section.place(&["members"]), format!("`@{name}` has no members"));
        }
        for (member, span) in members {
            self.member(&mut group, member, span);
        }
        Some(group)
    }

    fn member(&mut self, group: &mut Group, text: &str, span: Range<usize>) {
        if text.starts_with('@') {
            let help = "list its members";
            return self.report.wrong_do(span, "a group has nodes, and no groups", help);
        }
        let Some(pattern) = self.pattern(text, span.clone()) else { return };
        if !pattern.has_star() {
            let known = self.cluster.node(text).map(|node| node.id);
            return known.into_iter().for_each(|id| group.add(id));
        }
        self.globs += 1;
        if !self.room(self.globs - 1, GLOBS_MAX, "members with `*`", &span) {
            return;
        }
        let before = group.count();
        for node in self.cluster.nodes() {
            let who = Who { name: node.name, host: &node.host.name, id: Some(node.id) };
            if pattern.matches(who, &self.cluster.groups) {
                group.add(node.id);
            }
        }
        if group.count() == before {
            self.note(span.start, format!("`{text}` adds nobody to group `{}`", group.name));
        }
    }

    /// Whom a rule is about. A name that nobody has is reported.
    pub(super) fn whom(&mut self, section: &Section<'_>, key: &str) -> Option<Pattern> {
        match section.text(self.report, key) {
            Some((text, span)) => self.pattern(text, span),
            None => Some(Pattern::new("*")),
        }
    }

    fn pattern(&mut self, text: &str, span: Range<usize>) -> Option<Pattern> {
        let pattern = Pattern::new(text);
        if let Some(group) = pattern.group() {
            if self.cluster.groups.get(group).is_some() {
                return Some(pattern);
            }
            let names = self.cluster.groups.iter().map(|group| group.name.as_str());
            let near = nearest(group, names).map(|near| format!("did you mean `@{near}`?"));
            let help = near.unwrap_or_else(|| "groups are named under [[group]]".into());
            self.report.wrong_do(span, format!("there is no group `@{group}`"), help);
            return None;
        }
        let (name, host) = pattern.parts();
        for part in [name, host].into_iter().filter(|part| *part != "*") {
            let stars: String = part.chars().map(|c| if c == '*' { 'x' } else { c }).collect();
            if !is_name(self.report, "node, or what stands for some", &stars, span.clone()) {
                return None;
            }
        }
        if !host.contains('*') {
            self.host_of((host, span.clone()))?;
        }
        if !name.contains('*') && (host.contains('*') || self.cluster.node(text).is_none()) {
            self.named(name, host, span)?;
        }
        Some(pattern)
    }

    /// Whether there is a node of this name, on this host if one is meant.
    fn named(&mut self, name: &str, host: &str, span: Range<usize>) -> Option<()> {
        if let Some(node) = self.cluster.node(name) {
            if host.contains('*') {
                return Some(());
            }
            let at = &node.host.name;
            let what = format!("node `{name}` is on host `{at}`, and not on `{host}`");
            self.report.wrong_do(span, what, format!("write {name} or {name}@{at}"));
            return None;
        }
        let mut near = None;
        if self.may_look() {
            near = nearest(name, self.cluster.nodes.iter().map(|node| &*node.name));
        }
        let near = near.map(|near| format!("did you mean `{near}`?"));
        let help = near.unwrap_or_else(|| "nodes are named under `nodes` of a [[host]]".into());
        self.report.wrong_do(span, format!("there is no node `{name}`"), help);
        None
    }

    /// Whether all nodes may be looked at once more.
    pub(super) fn may_look(&mut self) -> bool {
        self.looks += self.cluster.nodes.len();
        self.looks <= HINT_LOOKS_MAX && !self.report.is_full()
    }

    pub(super) fn note(&mut self, at: usize, text: String) {
        let line = self.report.line(at);
        self.cluster.notes.push(Note { line, text });
    }

    /// How a rule is called in explanations.
    pub(super) fn called(kind: &str, from: &Pattern, to: &Pattern, rest: &str) -> String {
        format!("{} from {} to {}{rest}", heading(kind), from.text(), to.text())
    }
}
