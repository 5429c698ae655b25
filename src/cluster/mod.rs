//! The config of a cluster: one file for all hosts, read whole, checked whole, and then only
//! asked. Who is there, who may talk to whom, and what holds on their channels.
//!
//! Invariant: a [`Cluster`] is consistent. Every name in it is the name of something in it, every
//! number is within its bounds, and nothing in it is looked for by walking but rules, of which
//! there are few.
//!
//! ```text
//!      text ─▶ toml, with the place of each value ─▶ Section: keys of one table ─▶ Cluster
//!                         └────────── Report: all that is wrong ───────────┘
//! ```
//!
//! [`docs/config.md`](https://github.com/ringlane/ringlane/blob/main/docs/config.md) has every key.

mod address;
mod build;
#[cfg(feature = "tls")]
mod certified;
#[cfg(not(feature = "tls"))]
#[path = "uncertified.rs"]
mod certified;
mod diff;
mod explain;
mod groups;
mod keys;
pub mod limits;
mod names;
mod pattern;
mod plan;
mod reader;
mod report;
mod rules;
mod ruling;
mod say;
mod secret;
mod settings;
#[cfg(test)]
mod tests;
mod units;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path as FilePath, PathBuf};

use ringlane_api::Address;
use ringlane_api::near::nearest;

pub use diff::{CannotReload, Diff, diff};
pub use explain::{Explanation, Link, Place, Unknown, Way, explain};
pub use groups::{Group, Pick};
pub use keys::{KEYS, Key, Kind};
pub use limits::{Ageing, Limits, Links};
pub use plan::HostPlan;
pub use report::{ConfigErrors, Problem};
pub use rules::{Ack, Action, ChannelRule, Class, Denied, Loss, Origin, Path};
pub use secret::Secret;
pub use units::{size, time};

use groups::Groups;
use pattern::Who;
use rules::{Acl, Channel};

/// A cluster as its file describes it. It is plain data: it may go to other threads.
///
/// ```
/// use ringlane::cluster::Cluster;
/// let cluster = Cluster::parse(
///     r#"
///     [cluster]
///     name = "demo"
///     [[host]]
///     name = "a"
///     nodes = ["login", "db"]
///     "#,
/// )?;
/// assert_eq!(cluster.node("db@a").map(|node| node.name), Some("db"));
/// assert_eq!(cluster.rule("login", "db", 0).ring, 1 << 20);
/// assert!(cluster.may("login", "db").is_ok());
/// # Ok::<(), ringlane::cluster::ConfigErrors>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Cluster {
    /// What all its relays call it.
    pub name: String,
    /// Counted up by whoever changes the file; 0 if nobody does.
    pub generation: u64,
    /// Where the secret is, if the file says so.
    pub secret_file: Option<PathBuf>,
    /// The secret, if the config was loaded from a file with one.
    pub secret: Option<Secret>,
    /// What a relay holds, at most.
    pub limits: Limits,
    /// After how long something unused goes.
    pub ageing: Ageing,
    /// How links between relays are made and watched.
    pub links: Links,
    /// Certificates, if links are to have any.
    pub tls: Option<Tls>,
    /// Where every relay shows its counters, beside its own socket.
    pub metrics: Option<Address>,
    hosts: Vec<Host>,
    host_names: HashMap<Box<str>, u32>,
    nodes: Vec<Node>,
    node_names: HashMap<Box<str>, u32>,
    groups: Groups,
    channels: Vec<Channel>,
    defaults: ChannelRule,
    acl: Acl,
    notes: Vec<Note>,
}

/// A host: one relay, and the processes around it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its place in the file, from 0. When two relays dial each other at once, the link that the
    /// lower one dialled stays.
    pub id: u32,
    /// Where other relays find its relay, the best first.
    pub relays: Vec<Address>,
    /// Where its relay listens.
    pub listen: Vec<Address>,
    /// Where its processes find its relay, if not at the usual places.
    pub socket: Option<Address>,
    /// Where its relay shows its counters, beside its own socket.
    pub metrics: Option<Address>,
    /// The line of its `[[host]]`.
    pub line: u32,
    uid: Option<u32>,
    nodes: Vec<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Node {
    name: Box<str>,
    host: u32,
    uid: Option<u32>,
    line: u32,
    /// Whether a `[[node]]` has described it.
    described: bool,
}

impl Host {
    /// Where the processes of this host look for its relay, which runs as `uid`: at the place that
    /// the config names, or at the usual ones in this order.
    ///
    /// ```
    /// use ringlane::cluster::Cluster;
    /// let text = "[cluster]\nname = \"demo\"\n[[host]]\nname = \"a\"\nnodes = [\"login\"]\n";
    /// let cluster = Cluster::parse(text)?;
    /// let places: Vec<String> =
    ///     cluster.hosts()[0].sockets(7).iter().map(ToString::to_string).collect();
    /// assert_eq!(places, ["unix:///run/ringlane/a.sock", "unix://@ringlane-7-a"]);
    /// # Ok::<(), ringlane::cluster::ConfigErrors>(())
    /// ```
    pub fn sockets(&self, uid: u32) -> Vec<Address> {
        match &self.socket {
            Some(socket) => vec![socket.clone()],
            None => address::usual(&self.name, uid).into(),
        }
    }
}

/// A node: the name of a process.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NodeRef<'a> {
    /// Its name, which no other node of the cluster has.
    pub name: &'a str,
    /// Where it runs.
    pub host: &'a Host,
    /// Whose process it must be; none is the relay's own.
    pub uid: Option<u32>,
    /// Its place in the file, from 0.
    pub id: u32,
    /// The line that names it.
    pub line: u32,
}

/// Files for TLS. A `{host}` in a name is the name of a host.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Tls {
    /// The certificate of a relay, with those that vouch for it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who vouches for all relays of the cluster.
    pub authority: PathBuf,
}

impl Tls {
    /// The files of one host.
    pub fn of(&self, host: &str) -> Tls {
        let of = |path: &FilePath| PathBuf::from(path.to_string_lossy().replace("{host}", host));
        let Tls { certificate, key, authority } = self;
        Tls { certificate: of(certificate), key: of(key), authority: of(authority) }
    }
}

/// Something that is right, and perhaps not meant.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Note {
    /// The line it is about.
    pub line: u32,
    /// What.
    pub text: String,
}

impl Cluster {
    /// Reads a config and the secret that it names. Other files are found from its folder.
    pub fn load(path: impl AsRef<FilePath>) -> Result<Cluster, ConfigErrors> {
        read(path.as_ref(), true)
    }

    /// The same without the secret, for those who have no business with it.
    pub fn load_public(path: impl AsRef<FilePath>) -> Result<Cluster, ConfigErrors> {
        read(path.as_ref(), false)
    }

    /// Reads a config from text, and no file at all.
    pub fn parse(text: &str) -> Result<Cluster, ConfigErrors> {
        build::build(text, "config", None, false)
    }

    /// All hosts, in the order of the file.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.host_names.get(name).map(|id| &self.hosts[*id as usize])
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// All nodes, in the order of the file.
    pub fn nodes(&self) -> impl Iterator<Item = NodeRef<'_>> {
        (0..self.nodes.len() as u32).map(|id| self.node_ref(id))
    }

    /// The nodes of a host, in the order of the file.
    pub fn nodes_of<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = NodeRef<'a>> {
        host.nodes.iter().map(|id| self.node_ref(*id))
    }

    /// A node by its name, `db`, or with its host, `db@b`.
    pub fn node(&self, text: &str) -> Option<NodeRef<'_>> {
        let (name, host) = text.split_once('@').map_or((text, None), |(n, h)| (n, Some(h)));
        let node = self.node_ref(*self.node_names.get(name)?);
        host.is_none_or(|host| host == node.host.name).then_some(node)
    }

    /// Why there is no such node, and which one may be meant. It looks at all names.
    pub fn no_such_node(&self, text: &str) -> String {
        let (name, host) = text.split_once('@').unwrap_or((text, ""));
        if let Some(node) = self.node(name) {
            let at = &node.host.name;
            return format!("`{name}` is on host `{at}`, and not on `{host}`; write {name}@{at}");
        }
        let near = nearest(name, self.nodes.iter().map(|node| &*node.name));
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        format!("no node of cluster `{}` is called `{name}`{hint}", self.name)
    }

    fn node_ref(&self, id: u32) -> NodeRef<'_> {
        let node = &self.nodes[id as usize];
        let host = &self.hosts[node.host as usize];
        NodeRef { name: &node.name, host, uid: node.uid.or(host.uid), id, line: node.line }
    }

    /// A group, `@dbs`; the `@` may be left out.
    pub fn group(&self, text: &str) -> Option<&Group> {
        self.groups.get(text.strip_prefix('@').unwrap_or(text))
    }

    /// All groups, in the order of the file.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// The nodes of a group, in the order of the file.
    pub fn members<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = NodeRef<'a>> {
        group.ids().iter().map(|id| self.node_ref(*id))
    }

    /// What holds on a channel. The first `[[channel]]` that fits decides.
    pub fn rule(&self, src: &str, dst: &str, chan: u16) -> &ChannelRule {
        let (src, dst) = (self.who(src), self.who(dst));
        let fits = |channel: &&Channel| channel.fits(src, dst, chan, &self.groups);
        self.channels.iter().find(fits).map_or(&self.defaults, |channel| &channel.rule)
    }

    /// Whether one node may send to another. The first `[[acl.rule]]` that fits decides.
    pub fn may(&self, src: &str, dst: &str) -> Result<(), Denied> {
        match self.verdict(src, dst) {
            (Action::Allow, _) => Ok(()),
            (Action::Deny, rule) => {
                Err(Denied { src: src.into(), dst: dst.into(), rule: rule.clone() })
            }
        }
    }

    /// The same, with the rule that decides.
    pub fn verdict(&self, src: &str, dst: &str) -> (Action, &Origin) {
        self.acl.verdict(self.who(src), self.who(dst), &self.groups)
    }

    /// Who may ask a relay for its state, beside root and the relay's own uid.
    pub fn admins(&self) -> &[u32] {
        &self.acl.admins
    }

    /// How many rules there are for channels and for access.
    pub fn rule_counts(&self) -> (usize, usize) {
        (self.channels.len(), self.acl.rules.len())
    }

    /// What holds on a channel for which there is no rule.
    pub fn defaults(&self) -> &ChannelRule {
        &self.defaults
    }

    /// What is right, and perhaps not meant.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn who<'a>(&'a self, text: &'a str) -> Who<'a> {
        match self.node(text) {
            Some(node) => Who { name: node.name, host: &node.host.name, id: Some(node.id) },
            None => {
                let (name, host) = text.split_once('@').unwrap_or((text, ""));
                Who { name, host, id: None }
            }
        }
    }
}

/// Reads a file and builds what it says.
fn read(path: &FilePath, with_secret: bool) -> Result<Cluster, ConfigErrors> {
    let file = path.display().to_string();
    let unreadable = |source| ConfigErrors::Unreadable { file: file.clone(), source };
    let mut bytes = Vec::new();
    let opened = File::open(path).map_err(unreadable)?;
    opened.take(limits::FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limits::FILE_BYTES_MAX {
        let most = size(limits::FILE_BYTES_MAX);
        return Err(unreadable(std::io::Error::other(format!("it is larger than {most}"))));
    }
    let folder = path.parent().unwrap_or(FilePath::new(""));
    let text = build::as_text(&bytes, &file)?;
    build::build(text, &file, Some(folder), with_secret)
}

/// What a fuzzer calls: whatever the bytes are, it returns.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let cluster = build::as_text(bytes, "fuzz").and_then(Cluster::parse);
    match cluster {
        Ok(cluster) => {
            let names: Vec<&str> = cluster.nodes().take(4).map(|node| node.name).collect();
            for (src, dst) in names.iter().flat_map(|src| names.iter().map(move |dst| (src, dst))) {
                let _ = cluster.may(src, dst);
                let rule = cluster.rule(src, dst, 0);
                assert!(rule.ring.is_power_of_two() && rule.priority < limits::PRIORITIES);
                assert!(explain(&cluster, src, dst, 0).is_ok_and(|said| !said.why.is_empty()));
            }
            assert!(diff(&cluster, &cluster).is_ok_and(|diff| diff.is_empty()));
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}
