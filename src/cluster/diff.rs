//! What a reload changes, and what it may not: whoever holds a name goes on holding it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::rules::{AclRule, Channel};
use super::say::list;
use super::{Cluster, Host};

/// What is different in a newer config, one line each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Diff {
    /// The older generation and the newer one.
    pub generations: (u64, u64),
    /// For the log, in the order of the file.
    pub lines: Vec<String>,
    /// Nodes that are in the newer config only.
    pub nodes_added: Vec<String>,
    /// Nodes that are in the older config only.
    pub nodes_removed: Vec<String>,
    /// Hosts that are in the newer config only.
    pub hosts_added: Vec<String>,
    /// Hosts that are in the older config only.
    pub hosts_removed: Vec<String>,
}

impl Diff {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = self.generations;
        match self.lines.as_slice() {
            [] => write!(f, "generation {old} -> {new}: nothing is different"),
            lines => write!(f, "generation {old} -> {new}:\n  {}", lines.join("\n  ")),
        }
    }
}

/// Why a newer config cannot take the place of the one that a relay runs with.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CannotReload {
    /// Each says what to do instead.
    pub reasons: Vec<String>,
}

impl fmt::Display for CannotReload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the config stays as it was: {}", self.reasons.join("; "))
    }
}

impl std::error::Error for CannotReload {}

/// What `new` changes for a relay that runs with `old`, unless it changes what cannot be changed
/// while processes hold names and links are open.
///
/// ```
/// use ringlane::cluster::{Cluster, diff};
/// let text = "[cluster]\nname = \"demo\"\n[[host]]\nname = \"a\"\nnodes = [\"login\"]\n";
/// let old = Cluster::parse(text)?;
/// let new = Cluster::parse(&text.replace("\"login\"", "\"login\", \"web\""))?;
/// assert_eq!(diff(&old, &new).expect("it may").nodes_added, ["web"]);
/// let other = Cluster::parse(&text.replace("demo", "other"))?;
/// assert!(diff(&old, &other).is_err());
/// # Ok::<(), ringlane::cluster::ConfigErrors>(())
/// ```
pub fn diff(old: &Cluster, new: &Cluster) -> Result<Diff, CannotReload> {
    let mut found = Diff { generations: (old.generation, new.generation), ..Diff::default() };
    let mut reasons = identities(old, new);
    hosts(old, new, &mut found);
    nodes(old, new, &mut found);
    groups(old, new, &mut found.lines);
    rules(old, new, &mut found.lines);
    numbers(old, new, &mut found.lines);
    let (before, now) = found.generations;
    if now < before {
        reasons
            .push(format!("its generation is {now}, and {before} runs: the file is an older one"));
    } else if now == before && now > 0 && !found.is_empty() {
        let next = now + 1;
        reasons.push(format!("it is another generation {now}: write generation = {next}"));
    }
    if reasons.is_empty() { Ok(found) } else { Err(CannotReload { reasons }) }
}

/// Which names would mean somebody else than before.
fn identities(old: &Cluster, new: &Cluster) -> Vec<String> {
    let mut reasons = Vec::new();
    if old.name != new.name {
        let (old, new) = (&old.name, &new.name);
        reasons.push(format!(
            "the cluster is called {old}, and would be called {new}: stop all relays to rename it"
        ));
    }
    let kept = |cluster: &Cluster, other: &Cluster| {
        let names = cluster.hosts().iter().map(|host| host.name.clone());
        names.filter(|name| other.host(name).is_some()).collect::<Vec<_>>()
    };
    if kept(old, new) != kept(new, old) {
        reasons.push(
            "the order of the hosts decides which link stays when two relays dial each \
                      other: keep it, and add new ones anywhere between"
                .into(),
        );
    }
    let relays = |host: &Host| host.relays.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut places: HashMap<String, &str> = HashMap::new();
    for host in old.hosts() {
        places.extend(relays(host).into_iter().map(|address| (address, host.name.as_str())));
    }
    for host in new.hosts() {
        for address in relays(host) {
            if let Some(before) = places.get(&address).filter(|before| **before != host.name) {
                let now = &host.name;
                reasons.push(format!(
                    "{address} was the relay of {before}, and would be that of {now}: take it \
                     away in one generation and give it in the next"
                ));
            }
        }
    }
    let moved = new.nodes().filter_map(|node| {
        let before = &old.node(node.name)?.host.name;
        (*before != node.host.name).then_some((node.name, before, &node.host.name))
    });
    const SHOWN: usize = 10;
    for (node, before, now) in moved.take(SHOWN) {
        reasons.push(format!(
            "node {node} would move from {before} to {now}: take it away in one generation and \
             add it in the next"
        ));
    }
    reasons
}

fn hosts(old: &Cluster, new: &Cluster, found: &mut Diff) {
    for host in new.hosts() {
        let Some(before) = old.host(&host.name) else {
            found.lines.push(format!("host {} is new", host.name));
            found.hosts_added.push(host.name.clone());
            continue;
        };
        let shown = |addresses: &[ringlane_api::Address]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let one = |address: &Option<ringlane_api::Address>| {
            address.as_ref().map_or("the usual".into(), ToString::to_string)
        };
        let start = " (when its relay starts next)";
        for (what, before, now, when) in [
            ("relay", shown(&before.relays), shown(&host.relays), ""),
            ("listen", shown(&before.listen), shown(&host.listen), start),
            ("socket", one(&before.socket), one(&host.socket), start),
            ("metrics", one(&before.metrics), one(&host.metrics), start),
        ] {
            if before != now {
                let name = &host.name;
                found.lines.push(format!("host {name}: {what} {before} -> {now}{when}"));
            }
        }
    }
    for host in old.hosts().iter().filter(|host| new.host(&host.name).is_none()) {
        found.lines.push(format!("host {} is gone", host.name));
        found.hosts_removed.push(host.name.clone());
    }
}

fn nodes(old: &Cluster, new: &Cluster, found: &mut Diff) {
    let missing = |of: &Cluster, other: &Cluster| {
        let names = of.nodes().map(|node| node.name);
        names.filter(|name| other.node(name).is_none()).map(String::from).collect::<Vec<_>>()
    };
    (found.nodes_added, found.nodes_removed) = (missing(new, old), missing(old, new));
    for (names, what) in [(&found.nodes_added, "added"), (&found.nodes_removed, "gone")] {
        if !names.is_empty() {
            let shown = list(names.iter().map(String::as_str));
            found.lines.push(format!("{} nodes {what}: {shown}", names.len()));
        }
    }
    let uids: Vec<String> = new
        .nodes()
        .filter_map(|node| {
            let before = old.node(node.name)?.uid;
            let shown = |uid: Option<u32>| uid.map_or("the relay's".into(), |uid| uid.to_string());
            let (old, now) = (shown(before), shown(node.uid));
            (before != node.uid).then(|| format!("{} {old} -> {now}", node.name))
        })
        .collect();
    if !uids.is_empty() {
        let shown = list(uids.iter().map(String::as_str));
        found.lines.push(format!("uid of {} nodes, when they register next: {shown}", uids.len()));
    }
}

fn groups(old: &Cluster, new: &Cluster, lines: &mut Vec<String>) {
    let all = |cluster: &Cluster| -> BTreeMap<String, String> {
        let said = |group| {
            let names: Vec<&str> = cluster.members(group).map(|node| node.name).collect();
            let (count, shown) = (names.len(), list(names.iter().copied()));
            format!("{} of {count}: {shown}", group.pick)
        };
        cluster.groups().map(|group| (group.name.clone(), said(group))).collect()
    };
    let (old, new) = (all(old), all(new));
    for (name, now) in &new {
        match old.get(name) {
            None => lines.push(format!("group @{name} is new: {now}")),
            Some(before) if before != now => {
                lines.push(format!("group @{name}: {before} -> {now}"));
            }
            Some(_) => {}
        }
    }
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    lines.extend(gone.map(|name| format!("group @{name} is gone")));
}

fn rules(old: &Cluster, new: &Cluster, lines: &mut Vec<String>) {
    let channel = |channel: &Channel| format!("{}: {}", channel.rule.which.text(), channel.rule);
    let acl = |rule: &AclRule| rule.which.text().to_string();
    let shown = |cluster: &Cluster| {
        let channels: Vec<String> = cluster.channels.iter().map(channel).collect();
        let acl: Vec<String> = cluster.acl.rules.iter().map(acl).collect();
        (channels, acl)
    };
    let ((old_channels, old_acl), (new_channels, new_acl)) = (shown(old), shown(new));
    for (before, now, what) in
        [(old_channels, new_channels, "[[channel]]"), (old_acl, new_acl, "[[acl.rule]]")]
    {
        let at = lines.len();
        let missing = |of: &[String], other: &[String], sign: &str| {
            let missing = of.iter().filter(|rule| !other.contains(rule));
            missing.map(|rule| format!("{sign} {rule}")).collect::<Vec<_>>()
        };
        lines.extend(missing(&before, &now, "-"));
        lines.extend(missing(&now, &before, "+"));
        if lines.len() == at && before != now {
            lines.push(format!("the order of {what} is another one"));
        }
    }
    if old.acl.default != new.acl.default {
        lines.push(format!("access: {}", new.acl.otherwise));
    }
    if old.acl.admins != new.acl.admins {
        lines.push(format!("admins: {:?} -> {:?}", old.acl.admins, new.acl.admins));
    }
}

fn numbers(old: &Cluster, new: &Cluster, lines: &mut Vec<String>) {
    if old.secret != new.secret || old.secret_file != new.secret_file {
        lines.push("the secret is another one: open links stay, new ones need it".into());
    }
    for (before, now) in old.settings().into_iter().zip(new.settings()) {
        let (table, key, now) = now;
        let (_, _, before) = before;
        if before != now {
            lines.push(format!("[{table}] {key}: {before} -> {now}"));
        }
    }
}
