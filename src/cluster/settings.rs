//! The tables that hold numbers and files, and speak of no names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringlane_api::Address;

use super::address::{self, For};
use super::limits::{RING_BYTES_MAX, RING_BYTES_MIN};
use super::names::is_name;
use super::reader::Section;
use super::report::Report;
use super::rules::{Ack, ChannelRule, Class, Loss, Path as Way};
use super::units::{parse_time, size, time};
use super::{Ageing, Cluster, Limits, Links, Tls};

/// The shortest and the longest duration that anything may have.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// More of anything that is counted would not fit into memory.
const MANY: u32 = 16 << 20;
const MEMORY: u64 = 1 << 44;

/// `[cluster]`.
pub(super) fn head(
    report: &mut Report<'_>,
    section: &Section<'_>,
    cluster: &mut Cluster,
    folder: Option<&Path>,
) {
    section.required(report, "name", "\"demo\"");
    if let Some((name, span)) = section.text(report, "name")
        && is_name(report, "cluster", name, span)
    {
        cluster.name = name.into();
    }
    cluster.generation =
        section.count(report, "generation", 0..=i64::MAX as u64).unwrap_or_default();
    cluster.secret_file = file(report, section, "secret_file", folder);
}

/// A file, found from the folder of the config.
fn file(
    report: &mut Report<'_>,
    section: &Section<'_>,
    key: &str,
    folder: Option<&Path>,
) -> Option<PathBuf> {
    let (text, span) = section.text(report, key)?;
    if text.is_empty() || text.contains('\0') {
        report.wrong(span, format!("`{key}` must name a file"));
        return None;
    }
    Some(folder.unwrap_or(Path::new("")).join(text))
}

/// `[limits]`.
pub(super) fn limits(report: &mut Report<'_>, section: &Section<'_>, to: &mut Limits) {
    for (key, to) in [
        ("processes", &mut to.processes),
        ("processes_per_uid", &mut to.processes_per_uid),
        ("channels", &mut to.channels),
        ("channels_per_process", &mut to.channels_per_process),
        ("routes", &mut to.routes),
        ("links", &mut to.links),
        ("handshakes", &mut to.handshakes),
        ("handshakes_per_peer", &mut to.handshakes_per_peer),
        ("admins", &mut to.admins),
    ] {
        section.bound(report, key, to, MANY);
    }
    const KIB: u64 = 1 << 10;
    const GIB: u64 = 1 << 30;
    for (key, to, range) in [
        ("ring_memory", &mut to.ring_memory, RING_BYTES_MIN..=MEMORY),
        ("ring_memory_per_uid", &mut to.ring_memory_per_uid, RING_BYTES_MIN..=MEMORY),
        ("link_buffer", &mut to.link_buffer, 128 * KIB..=GIB),
        ("relay_memory", &mut to.relay_memory, 1024 * KIB..=MEMORY),
        ("message", &mut to.message, KIB..=GIB),
        ("reassembly", &mut to.reassembly, KIB..=MEMORY),
        ("reassembly_per_uid", &mut to.reassembly_per_uid, KIB..=MEMORY),
    ] {
        section.size(report, key, to, range);
    }
    for (small, large, less, more) in [
        ("link_buffer", "relay_memory", to.link_buffer, to.relay_memory),
        ("message", "reassembly", to.message, to.reassembly),
        ("reassembly", "reassembly_per_uid", to.reassembly, to.reassembly_per_uid),
    ] {
        if less > more {
            let (less, more) = (size(less), size(more));
            let what = format!("`{small}` is {less}, more than `{large}`, which is {more}");
            report.wrong(section.place(&[small, large]), what);
        }
    }
}

/// `[ageing]`.
pub(super) fn ageing(report: &mut Report<'_>, section: &Section<'_>, to: &mut Ageing) {
    let tick = Duration::from_millis(10)..=Duration::from_secs(10);
    section.time(report, "tick", &mut to.tick, tick);
    let least = to.tick;
    for (key, to) in [
        ("idle_link", &mut to.idle_link),
        ("idle_channel", &mut to.idle_channel),
        ("idle_route", &mut to.idle_route),
    ] {
        section.time(report, key, to, least..=LONGEST);
    }
}

/// `[link]`.
pub(super) fn links(report: &mut Report<'_>, section: &Section<'_>, to: &mut Links) {
    for (key, to) in [
        ("ping", &mut to.ping),
        ("dead_after", &mut to.dead_after),
        ("handshake", &mut to.handshake),
        ("redial", &mut to.redial),
        ("redial_for", &mut to.redial_for),
        ("redial_max", &mut to.redial_max),
    ] {
        section.time(report, key, to, SHORTEST..=LONGEST);
    }
    for (small, large, less, more) in [
        ("ping", "dead_after", to.ping, to.dead_after),
        ("redial", "redial_max", to.redial, to.redial_max),
    ] {
        if less > more {
            let (less, more) = (time(less), time(more));
            let what = format!("`{small}` is {less}, more than `{large}`, which is {more}");
            report.wrong(section.place(&[small, large]), what);
        }
    }
}

/// Where counters are shown.
pub(super) fn metrics(
    report: &mut Report<'_>,
    section: &Section<'_>,
    key: &str,
) -> Option<Address> {
    let (text, span) = section.text(report, key)?;
    self::address(report, text, span, For::Metrics)
}

/// An address, or a report of what is wrong with it.
pub(super) fn address(
    report: &mut Report<'_>,
    text: &str,
    span: std::ops::Range<usize>,
    what_for: For,
) -> Option<Address> {
    match address::read(text, what_for) {
        Ok(address) => return Some(address),
        Err((what, Some(help))) => report.wrong_do(span, what, help),
        Err((what, None)) => report.wrong(span, what),
    }
    None
}

/// `[tls]`.
pub(super) fn tls(report: &mut Report<'_>, section: &Section<'_>, folder: Option<&Path>) -> Tls {
    section.required(report, "certificate", "\"{host}.pem\"");
    section.required(report, "key", "\"{host}.key\"");
    section.required(report, "authority", "\"ca.pem\"");
    let certificate = file(report, section, "certificate", folder);
    let key = file(report, section, "key", folder);
    let authority = file(report, section, "authority", folder);
    // What is missing is reported; that there is a table is enough for who asks for one.
    let (certificate, key) = (certificate.unwrap_or_default(), key.unwrap_or_default());
    Tls { certificate, key, authority: authority.unwrap_or_default() }
}

/// The keys of a channel, over what holds without them.
pub(super) fn channel(report: &mut Report<'_>, section: &Section<'_>, to: &mut ChannelRule) {
    class(report, section, to);
    let mut ring = u64::from(to.ring);
    section.size(report, "ring", &mut ring, RING_BYTES_MIN..=RING_BYTES_MAX);
    if ring.is_power_of_two() {
        to.ring = u32::try_from(ring).expect("at most RING_BYTES_MAX");
    } else {
        let near = size(ring.next_power_of_two());
        let what = format!("`ring` is {}, which is no power of two", size(ring));
        report.wrong_do(section.place(&["ring"]), what, format!("write \"{near}\""));
    }
    if let Some(priority) = section.count(report, "priority", 0..=3) {
        to.priority = u8::try_from(priority).expect("at most 3");
    }
    let ways = [("auto", Way::Auto), ("relay", Way::Relay)];
    section.choice(report, "path", &mut to.path, &ways);
    section.time_or_never(report, "stuck_after", &mut to.stuck_after, SHORTEST..=LONGEST);
    section.time_or_never(report, "ttl", &mut to.ttl, SHORTEST..=LONGEST);
    section.time(report, "linger", &mut to.linger, Duration::ZERO..=LONGEST);
}

/// What is promised, and what of it fits together.
fn class(report: &mut Report<'_>, section: &Section<'_>, to: &mut ChannelRule) {
    let before = to.class;
    let lossy = match before {
        Class::Lossy(_) => before,
        _ => Class::Lossy(Loss::DropNew),
    };
    let classes = [("reliable", Class::Reliable), ("latest", Class::Latest), ("lossy", lossy)];
    section.choice(report, "class", &mut to.class, &classes);
    if let Some((text, span)) = section.text(report, "on_full")
        && let Err((what, help)) = on_full(text, to)
    {
        report.wrong_do(span, what, help);
    }
    let acks = [("stored", Ack::Stored), ("consumed", Ack::Consumed)];
    section.choice(report, "ack", &mut to.ack, &acks);
    if to.ack == Ack::Consumed && to.class != Class::Reliable {
        if section.has("ack") {
            let what = "only a reliable channel has `ack = \"consumed\"`";
            let help = "write class = \"reliable\", or leave `ack` out";
            report.wrong_do(section.place(&["ack"]), what, help);
        }
        to.ack = Ack::Stored;
    }
}

/// What a sender does when its ring is full.
fn on_full(text: &str, to: &mut ChannelRule) -> Result<(), (String, &'static str)> {
    let loss = match text {
        "drop-new" => Some(Loss::DropNew),
        "drop-old" => Some(Loss::DropOld),
        _ => None,
    };
    match (to.class, loss) {
        (Class::Lossy(_), Some(loss)) => to.class = Class::Lossy(loss),
        (_, Some(_)) => {
            let help = "write class = \"lossy\", or \"block\" here";
            return Err((format!("only a lossy channel may \"{text}\""), help));
        }
        (Class::Lossy(_) | Class::Latest, None) if text.starts_with("block") => {
            let help = "write \"drop-new\" or \"drop-old\" for a lossy channel, nothing for latest";
            return Err(("only a reliable channel waits".into(), help));
        }
        (_, None) if text == "block" => to.wait = None,
        (_, None) => {
            let help = "write \"block\", \"block:1s\", \"drop-new\" or \"drop-old\"";
            let Some(limit) = text.strip_prefix("block:") else {
                return Err((format!("`on_full` cannot be \"{text}\""), help));
            };
            to.wait = Some(parse_time(limit).map_err(|what| (what, help))?);
        }
    }
    Ok(())
}
