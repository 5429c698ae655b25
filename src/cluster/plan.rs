//! What the relay of one host would do: where it listens, whom it dials, who may come to it.

use std::fmt;

use ringlane_api::Address;

use super::address::usual;
use super::say::list;
use super::{Cluster, Host, NodeRef, Tls};

/// The config as one relay sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HostPlan<'a> {
    /// The host.
    pub host: &'a Host,
    /// Where other relays may connect.
    pub listens: Vec<&'a Address>,
    /// The other hosts, and where their relays are dialled.
    pub dials: Vec<&'a Host>,
    /// Where counters are shown, beside its own socket.
    pub metrics: Option<&'a Address>,
    /// Its certificate and what belongs to it.
    pub tls: Option<Tls>,
    /// Whose processes may register under which name.
    pub nodes: Vec<NodeRef<'a>>,
}

impl Cluster {
    /// What the relay of a host would do.
    ///
    /// ```
    /// use ringlane::cluster::Cluster;
    /// let text = "[cluster]\nname = \"demo\"\n[[host]]\nname = \"a\"\nnodes = [\"login\"]\n";
    /// let cluster = Cluster::parse(text)?;
    /// let plan = cluster.plan("a").expect("it is there");
    /// assert_eq!(plan.nodes[0].name, "login");
    /// assert!(plan.to_string().contains("@ringlane-UID-a"));
    /// # Ok::<(), ringlane::cluster::ConfigErrors>(())
    /// ```
    pub fn plan(&self, host: &str) -> Option<HostPlan<'_>> {
        let host = self.host(host)?;
        // One relay has nobody to listen for.
        let alone = self.hosts().len() == 1;
        let others = self.hosts().iter().filter(|other| other.id != host.id);
        Some(HostPlan {
            host,
            listens: host.listen.iter().filter(|_| !alone).collect(),
            dials: others.collect(),
            metrics: host.metrics.as_ref().or(self.metrics.as_ref()),
            tls: self.tls.as_ref().map(|tls| tls.of(&host.name)),
            nodes: self.nodes_of(host).collect(),
        })
    }
}

impl fmt::Display for HostPlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        let name = &self.host.name;
        writeln!(f, "the relay of host {name}, line {}", self.host.line)?;
        let mut row = |name: &str, text: String| writeln!(f, "  {name:<11} {text}");
        let [folder, abstract_name] = usual(name, "UID");
        let usual = format!("{folder}, or {abstract_name}");
        row("processes", self.host.socket.as_ref().map_or(usual, ToString::to_string))?;
        let shown = |addresses: Vec<String>, none: &str| match addresses.as_slice() {
            [] => none.to_string(),
            some => some.join(", "),
        };
        let listens = self.listens.iter().map(ToString::to_string).collect();
        row("listens at", shown(listens, "nothing: there is no other relay"))?;
        for (at, other) in self.dials.iter().take(SHOWN).enumerate() {
            let places: Vec<String> = other.relays.iter().map(ToString::to_string).collect();
            let name = if at == 0 { "dials" } else { "" };
            row(name, format!("{} at {}", other.name, places.join(", then ")))?;
        }
        if self.dials.len() > SHOWN {
            row("", format!("and {} more", self.dials.len() - SHOWN))?;
        }
        let metrics = self.metrics.map(|address| format!(" and at {address}"));
        row("metrics", format!("on its own socket{}", metrics.unwrap_or_default()))?;
        if let Some(Tls { certificate, key, authority }) = &self.tls {
            let (certificate, key) = (certificate.display(), key.display());
            let authority = authority.display();
            row("tls", format!("{certificate} with {key}, vouched for by {authority}"))?;
        }
        let node = |node: &NodeRef<'_>| match node.uid {
            Some(uid) => format!("{} (uid {uid})", node.name),
            None => format!("{} (its own uid)", node.name),
        };
        let nodes: Vec<String> = self.nodes.iter().map(node).collect();
        let nodes = if nodes.is_empty() { "none".into() } else { list(nodes.iter().map(|n| &**n)) };
        write!(f, "  {:<11} {nodes}", "registers")
    }
}
