//! What rules hold, in words: the same in `check`, `explain`, the log of a reload, and JSON.

use std::fmt;
use std::time::Duration;

use super::{Ack, ChannelRule, Class, Cluster, Loss, Path, Pick, size, time};

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Reliable => "reliable",
            Class::Latest => "latest",
            Class::Lossy(_) => "lossy",
        })
    }
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ack::Stored => "stored",
            Ack::Consumed => "consumed",
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Path::Auto => "auto",
            Path::Relay => "relay",
        })
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pick::Any => "any",
            Pick::All => "all",
            Pick::Hash => "hash",
        })
    }
}

/// A duration, or `never`.
pub(super) fn or_never(duration: Option<Duration>) -> String {
    duration.map_or("never".into(), time)
}

impl ChannelRule {
    /// What a sender meets when its ring is full, as `on_full` says it.
    pub fn on_full(&self) -> String {
        match (self.class, self.wait) {
            (Class::Lossy(Loss::DropNew), _) => "drop-new".into(),
            (Class::Lossy(Loss::DropOld), _) => "drop-old".into(),
            (Class::Latest, _) => "replace".into(),
            (Class::Reliable, None) => "block".into(),
            (Class::Reliable, Some(wait)) => format!("block:{}", time(wait)),
        }
    }

    /// Every setting with its name, as the file would say it.
    pub(super) fn settings(&self) -> [(&'static str, String); 9] {
        [
            ("class", self.class.to_string()),
            ("ring", size(u64::from(self.ring))),
            ("priority", self.priority.to_string()),
            ("ack", self.ack.to_string()),
            ("path", self.path.to_string()),
            ("on_full", self.on_full()),
            ("stuck_after", or_never(self.stuck_after)),
            ("ttl", or_never(self.ttl)),
            ("linger", time(self.linger)),
        ]
    }
}

/// What holds, without the rule that says so.
impl fmt::Display for ChannelRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.settings().map(|(name, value)| format!("{name} {value}"));
        f.write_str(&settings.join(", "))
    }
}

/// Some names, and how many there are if not all are shown.
pub(super) fn list<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let more = names.len().saturating_sub(SHOWN);
    let mut text = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Table, key, and the value as the file would say it.
type Setting = (&'static str, &'static str, String);

impl Cluster {
    /// Every setting that stands in one place for the whole cluster. Two clusters have the same
    /// ones in the same order.
    pub fn settings(&self) -> Vec<(&'static str, &'static str, String)> {
        let defaults = self.defaults.settings().map(|(key, value)| ("defaults", key, value));
        let mut settings = Vec::from(defaults);
        settings.extend(self.limits());
        let (ageing, links) = (&self.ageing, &self.links);
        settings.extend([
            ("ageing", "tick", time(ageing.tick)),
            ("ageing", "idle_link", time(ageing.idle_link)),
            ("ageing", "idle_channel", time(ageing.idle_channel)),
            ("ageing", "idle_route", time(ageing.idle_route)),
            ("link", "ping", time(links.ping)),
            ("link", "dead_after", time(links.dead_after)),
            ("link", "handshake", time(links.handshake)),
            ("link", "redial", time(links.redial)),
            ("link", "redial_for", time(links.redial_for)),
            ("link", "redial_max", time(links.redial_max)),
        ]);
        let tls = |file: fn(&super::Tls) -> &std::path::Path| {
            self.tls.as_ref().map_or("none".into(), |tls| file(tls).display().to_string())
        };
        let metrics = self.metrics.as_ref();
        settings.extend([
            ("tls", "certificate", tls(|tls| &tls.certificate)),
            ("tls", "key", tls(|tls| &tls.key)),
            ("tls", "authority", tls(|tls| &tls.authority)),
            ("metrics", "listen", metrics.map_or("none".into(), ToString::to_string)),
        ]);
        settings
    }

    /// The settings that are not what they would be without a word in the file.
    pub fn unusual(&self) -> Vec<(&'static str, &'static str, String)> {
        let usual = Cluster::default().settings();
        let both = self.settings().into_iter().zip(usual);
        both.filter(|(here, usual)| here != usual).map(|(here, _)| here).collect()
    }

    fn limits(&self) -> [Setting; 16] {
        let limits = &self.limits;
        let of = |key, value| ("limits", key, value);
        [
            of("processes", limits.processes.to_string()),
            of("processes_per_uid", limits.processes_per_uid.to_string()),
            of("channels", limits.channels.to_string()),
            of("channels_per_process", limits.channels_per_process.to_string()),
            of("ring_memory", size(limits.ring_memory)),
            of("ring_memory_per_uid", size(limits.ring_memory_per_uid)),
            of("routes", limits.routes.to_string()),
            of("links", limits.links.to_string()),
            of("link_buffer", size(limits.link_buffer)),
            of("relay_memory", size(limits.relay_memory)),
            of("message", size(limits.message)),
            of("reassembly", size(limits.reassembly)),
            of("reassembly_per_uid", size(limits.reassembly_per_uid)),
            of("handshakes", limits.handshakes.to_string()),
            of("handshakes_per_peer", limits.handshakes_per_peer.to_string()),
            of("admins", limits.admins.to_string()),
        ]
    }
}
