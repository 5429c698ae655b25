//! What holds on a channel and who may open one: the first rule that fits decides.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Groups;
use super::pattern::{Pattern, Who};

/// What is promised for the messages of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// In order, exactly once into the peer's ring while both live.
    Reliable,
    /// A newer message takes the place of one that is still waiting.
    Latest,
    /// What finds no room is lost, and counted.
    Lossy(Loss),
}

/// Which message a lossy channel loses when its ring is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The one that is sent now.
    DropNew,
    /// The one that has waited longest.
    DropOld,
}

/// When a sender's memory is free again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ack {
    /// Once the message stands in the receiver's ring.
    Stored,
    /// Once the receiver's callback has returned.
    Consumed,
}

/// Which way two processes of one host talk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// Directly where they can.
    Auto,
    /// Through their relay, also at home.
    Relay,
}

/// Whether a channel may be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// Where something was decided: a rule of the file with its line, or what holds without one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The line of the rule, or none where no rule decided.
    pub line: Option<u32>,
    text: Arc<str>,
}

impl Origin {
    pub(super) fn new(line: Option<u32>, text: &str) -> Origin {
        Origin { line, text: text.into() }
    }

    /// The rule as it stands in the file, without its line.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// What holds on a channel.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ChannelRule {
    /// What is promised.
    pub class: Class,
    /// Bytes of each of its rings, a power of two.
    pub ring: u32,
    /// From 0, which goes first on a link, to 3.
    pub priority: u8,
    /// When the sender's memory is free again.
    pub ack: Ack,
    /// Which way it goes at home.
    pub path: Path,
    /// How long a sender outside the loop waits for room if it does not say; none is for ever.
    pub wait: Option<Duration>,
    /// After how long without progress sender and operator are told; none is never.
    pub stuck_after: Option<Duration>,
    /// How old a message may get before it is sent, if it does not say; none is for ever.
    pub ttl: Option<Duration>,
    /// How long `close` waits until all is acknowledged, and a relay for the rest of a dead sender.
    pub linger: Duration,
    /// Which rule said so.
    pub which: Origin,
}

impl Default for ChannelRule {
    fn default() -> ChannelRule {
        ChannelRule {
            class: Class::Reliable,
            ring: 1 << 20,
            priority: 1,
            ack: Ack::Stored,
            path: Path::Auto,
            wait: None,
            stuck_after: Some(Duration::from_secs(30)),
            ttl: None,
            linger: Duration::from_secs(5),
            which: Origin::new(None, "no [[channel]] fits, so what holds without one"),
        }
    }
}

/// Who may not do what, and which rule says so.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Denied {
    /// Who would send.
    pub src: String,
    /// To whom.
    pub dst: String,
    /// The rule that forbids it.
    pub rule: Origin,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Denied { src, dst, rule } = self;
        write!(f, "{src} may not send to {dst}: {rule}; allow it with an [[acl.rule]] before that")
    }
}

impl std::error::Error for Denied {}

/// Whom a rule is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ends {
    pub from: Pattern,
    pub to: Pattern,
}

impl Ends {
    pub(super) fn fit(&self, src: Who<'_>, dst: Who<'_>, groups: &Groups) -> bool {
        self.from.matches(src, groups) && self.to.matches(dst, groups)
    }
}

/// A `[[channel]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Channel {
    pub ends: Ends,
    /// Empty: every one.
    pub chans: Vec<u16>,
    pub rule: ChannelRule,
}

impl Channel {
    pub(super) fn fits(&self, src: Who<'_>, dst: Who<'_>, chan: u16, groups: &Groups) -> bool {
        (self.chans.is_empty() || self.chans.contains(&chan)) && self.ends.fit(src, dst, groups)
    }
}

/// An `[[acl.rule]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct AclRule {
    pub ends: Ends,
    pub action: Action,
    pub which: Origin,
}

/// `[acl]`: who may send to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Acl {
    pub rules: Vec<AclRule>,
    pub default: Action,
    pub otherwise: Origin,
    /// Who may ask a relay for its state, beside root and its own uid.
    pub admins: Vec<u32>,
}

impl Default for Acl {
    fn default() -> Acl {
        Acl {
            rules: Vec::new(),
            default: Action::Allow,
            otherwise: Origin::new(None, "no [[acl.rule]] fits, and [acl] default is \"allow\""),
            admins: Vec::new(),
        }
    }
}

impl Acl {
    /// What is decided, and by which rule.
    pub(super) fn verdict(&self, src: Who<'_>, dst: Who<'_>, groups: &Groups) -> (Action, &Origin) {
        let rule = self.rules.iter().find(|rule| rule.ends.fit(src, dst, groups));
        rule.map_or((self.default, &self.otherwise), |rule| (rule.action, &rule.which))
    }
}
