//! Why a message goes the way it goes: from the config alone, without asking anybody.

use std::fmt;

use serde::Serialize;

use super::say::{list, or_never};
use super::{Ack, Action, ChannelRule, Class, Cluster, Group, Loss, NodeRef, Path, size, time};

/// A piece of a message that is too large to be whole in a ring.
const PIECE_BYTES: u64 = 64 << 10;

/// How a channel goes, and which lines of the config say so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// Who sends.
    pub src: Place,
    /// Who receives.
    pub dst: Place,
    /// The number of the channel.
    pub chan: u16,
    /// Whether it may be opened.
    pub allowed: bool,
    /// The rule that says so.
    pub access: String,
    /// Its line, if it has one.
    pub access_line: Option<u32>,
    /// Whether answers may come back.
    pub reply_allowed: bool,
    /// Which way it goes.
    pub way: Way,
    /// Why it goes that way.
    pub why: String,
    /// What a message passes, in order.
    pub hops: Vec<String>,
    /// The link between relays, if it passes one.
    pub link: Option<Link>,
    /// The rule that decides about the channel.
    pub rule: String,
    /// Its line, if it has one.
    pub rule_line: Option<u32>,
    /// `reliable`, `latest` or `lossy`.
    pub class: String,
    /// What that promises.
    pub promise: String,
    /// Bytes of each ring.
    pub ring: u64,
    /// Bytes of the largest message that is whole in a ring.
    pub whole: u64,
    /// From 0, which goes first on a link, to 3.
    pub priority: u8,
    /// `stored` or `consumed`.
    pub ack: String,
    /// What a sender meets when its ring is full.
    pub on_full: String,
    /// After how long without progress sender and operator are told.
    pub stuck_after: String,
    /// How old a message may get before it is sent.
    pub ttl: String,
    /// How long `close` waits.
    pub linger: String,
}

/// A node, and where it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Place {
    /// Its name.
    pub node: String,
    /// Its host.
    pub host: String,
    /// Whose process it must be; none is the relay's own.
    pub uid: Option<u32>,
}

/// Which way a channel goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Through a ring that both processes have.
    Direct,
    /// Through the relay of their host.
    Relay,
    /// Through the relays of both hosts and the link between them.
    Remote,
}

/// The link between two relays.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Link {
    /// The host that dials for this channel.
    pub from: String,
    /// The host that is dialled.
    pub to: String,
    /// Where it is dialled, in this order.
    pub addresses: Vec<String>,
    /// Whose dialling wins if both dial.
    pub kept: String,
    /// Whether it is encrypted at every address.
    pub tls: bool,
}

/// A name that is not in the config.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Unknown {
    what: String,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Unknown {}

/// Explains the channel `chan` from `src` to `dst`.
///
/// ```
/// use ringlane::cluster::{Cluster, Way, explain};
/// let text = "[cluster]\nname = \"demo\"\n[[host]]\nname = \"a\"\nnodes = [\"login\", \"db\"]\n";
/// let cluster = Cluster::parse(text)?;
/// let said = explain(&cluster, "login", "db@a", 0).expect("both are there");
/// assert_eq!((said.way, said.allowed), (Way::Direct, true));
/// assert!(explain(&cluster, "login", "bd", 0).unwrap_err().to_string().contains("`db`?"));
/// # Ok::<(), ringlane::cluster::ConfigErrors>(())
/// ```
pub fn explain(cluster: &Cluster, src: &str, dst: &str, chan: u16) -> Result<Explanation, Unknown> {
    let (src, dst) = (find(cluster, src)?, find(cluster, dst)?);
    let rule = cluster.rule(src.name, dst.name, chan);
    let (action, access) = cluster.verdict(src.name, dst.name);
    let (way, why) = way(&src, &dst, rule);
    let place = |node: &NodeRef<'_>| Place {
        node: node.name.into(),
        host: node.host.name.clone(),
        uid: node.uid,
    };
    let ring = u64::from(rule.ring);
    Ok(Explanation {
        src: place(&src),
        dst: place(&dst),
        chan,
        allowed: action == Action::Allow,
        access: access.text().into(),
        access_line: access.line,
        reply_allowed: cluster.may(dst.name, src.name).is_ok(),
        way,
        why,
        hops: hops(&src, &dst, way, rule),
        link: (way == Way::Remote).then(|| link(&src, &dst)),
        rule: rule.which.text().into(),
        rule_line: rule.which.line,
        class: rule.class.to_string(),
        promise: promise(rule).into(),
        ring,
        whole: ring / 4,
        priority: rule.priority,
        ack: rule.ack.to_string(),
        on_full: rule.on_full(),
        stuck_after: or_never(rule.stuck_after),
        ttl: or_never(rule.ttl),
        linger: time(rule.linger),
    })
}

fn find<'a>(cluster: &'a Cluster, text: &str) -> Result<NodeRef<'a>, Unknown> {
    let group = text.starts_with('@').then(|| cluster.group(text)).flatten();
    match (cluster.node(text), group) {
        (Some(node), _) => Ok(node),
        (None, Some(group)) => Err(Unknown { what: of_group(cluster, group) }),
        (None, None) => Err(Unknown { what: cluster.no_such_node(text) }),
    }
}

/// A group is no node, but its members are.
fn of_group(cluster: &Cluster, group: &Group) -> String {
    let names: Vec<&str> = cluster.members(group).map(|node| node.name).collect();
    let (name, pick, members) = (&group.name, group.pick, list(names.iter().copied()));
    format!("@{name} is a group (pick = \"{pick}\"); ask for one of its members: {members}")
}

fn way(src: &NodeRef<'_>, dst: &NodeRef<'_>, rule: &ChannelRule) -> (Way, String) {
    let (at, there) = (&src.host.name, &dst.host.name);
    if at != there {
        let why = format!("{} is on host {there}, {} on host {at}", dst.name, src.name);
        return (Way::Remote, why);
    }
    match rule.path {
        Path::Auto => {
            let why =
                format!("both are on host {at}: its relay introduces them, and is not in the way");
            (Way::Direct, why)
        }
        Path::Relay => {
            let why = format!("both are on host {at}, and `path` is \"relay\" ({})", rule.which);
            (Way::Relay, why)
        }
    }
}

fn hops(src: &NodeRef<'_>, dst: &NodeRef<'_>, way: Way, rule: &ChannelRule) -> Vec<String> {
    let end = |node: &NodeRef<'_>| format!("{}@{}", node.name, node.host.name);
    let ring = || format!("ring of {}", size(u64::from(rule.ring)));
    let relay = |node: &NodeRef<'_>| format!("relay {}", node.host.name);
    let mut hops = vec![end(src), ring()];
    match way {
        Way::Direct => {}
        Way::Relay => hops.extend([relay(src), ring()]),
        Way::Remote => {
            let first = dst.host.relays.first();
            let link = first.map_or("no address".into(), ToString::to_string);
            hops.extend([relay(src), link, relay(dst), ring()]);
        }
    }
    hops.push(end(dst));
    hops
}

fn link(src: &NodeRef<'_>, dst: &NodeRef<'_>) -> Link {
    let lower = if src.host.id < dst.host.id { src } else { dst };
    let addresses = &dst.host.relays;
    Link {
        from: src.host.name.clone(),
        to: dst.host.name.clone(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        kept: lower.host.name.clone(),
        tls: addresses.iter().all(|address| address.scheme().starts_with("tls+")),
    }
}

fn promise(rule: &ChannelRule) -> &'static str {
    match (rule.class, rule.ack) {
        (Class::Reliable, Ack::Stored) => "in order, exactly once into the peer's ring",
        (Class::Reliable, Ack::Consumed) => "in order, and held until the peer is through with it",
        (Class::Latest, _) => "a newer message takes the place of one that waits",
        (Class::Lossy(Loss::DropNew), _) => "what finds no room is lost and counted",
        (Class::Lossy(Loss::DropOld), _) => "the oldest makes room, is lost and counted",
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |place: &Place| format!("{}@{}", place.node, place.host);
        let way = match self.way {
            Way::Direct => "direct",
            Way::Relay => "through the relay",
            Way::Remote => "through two relays",
        };
        writeln!(f, "{} -> {}, channel {}: {way}", end(&self.src), end(&self.dst), self.chan)?;
        let mut row = |name: &str, text: String| writeln!(f, "  {name:<11} {text}");
        row("way", self.hops.join(" | "))?;
        row("why", self.why.clone())?;
        if let Some(Link { from, to, addresses, kept, tls }) = &self.link {
            let tls = if *tls { ", with TLS" } else { "" };
            let places = addresses.join(", then ");
            row("link", format!("{from} dials {to} when needed, at {places}{tls}"))?;
            row("", format!("one for all channels of the two; the one that {kept} dialled stays"))?;
        }
        let verdict = if self.allowed { "allowed" } else { "DENIED" };
        row("access", format!("{verdict}: {}", with_line(&self.access, self.access_line)))?;
        if self.allowed && !self.reply_allowed {
            row("", "answers are denied: `call` will have none".into())?;
        }
        row("rule", with_line(&self.rule, self.rule_line))?;
        row("class", format!("{}: {}", self.class, self.promise))?;
        let (ring, whole, piece) = (size(self.ring), size(self.whole), size(PIECE_BYTES));
        row(
            "ring",
            format!("{ring}; up to {whole} a message is whole in it, else in {piece} pieces"),
        )?;
        row("priority", format!("{} (0 goes first on a link, 3 last)", self.priority))?;
        row("ack", self.ack.clone())?;
        row("on_full", self.on_full.clone())?;
        let (stuck, ttl, linger) = (&self.stuck_after, &self.ttl, &self.linger);
        write!(f, "  {:<11} stuck_after {stuck}, ttl {ttl}, linger {linger}", "times")
    }
}

fn with_line(text: &str, line: Option<u32>) -> String {
    line.map_or(text.into(), |line| format!("{text}, line {line}"))
}
