//! Every key that a config may have. What is not in this list is an error, and `docs/config.md`
//! shows this list: a test compares them.

/// A key, as the documentation shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// The table it stands in, without brackets; empty for the file itself.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What holds without it, or that it must be given.
    pub default: &'static str,
    /// A value.
    pub example: &'static str,
}

/// What a key holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// Some text, or one of a few words.
    Text,
    /// A list of texts.
    Texts,
    /// A whole number.
    Count,
    /// A whole number, or a list of them.
    Counts,
    /// Bytes, with a unit.
    Size,
    /// A duration with its unit, or `never` where that makes sense.
    Time,
}

impl Kind {
    /// What the documentation calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Texts => "list of texts",
            Kind::Count => "number",
            Kind::Counts => "number or list",
            Kind::Size => "size",
            Kind::Time => "duration",
        }
    }
}

/// Tables that may stand there once.
pub(super) const ONCE: [&str; 8] =
    ["cluster", "defaults", "acl", "limits", "ageing", "link", "tls", "metrics"];

/// Tables of which there may be many.
pub(super) const MANY: [&str; 4] = ["host", "node", "group", "channel"];

/// A table as it is written.
pub(super) fn heading(table: &str) -> String {
    match table {
        "" => "the file".into(),
        "acl.rule" => "[[acl.rule]]".into(),
        table if MANY.contains(&table) => format!("[[{table}]]"),
        table => format!("[{table}]"),
    }
}

/// The names that a table may have.
pub(super) fn names(table: &str) -> impl Iterator<Item = &'static str> {
    let tables = ONCE.iter().chain(&MANY).copied().filter(move |_| table.is_empty());
    let inner = ["rule"].into_iter().filter(move |_| table == "acl");
    tables.chain(inner).chain(KEYS.iter().filter(move |key| key.table == table).map(|key| key.name))
}

const fn key(
    table: &'static str,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    example: &'static str,
) -> Key {
    Key { table, name, kind, default, example }
}

use Kind::{Count, Counts, Size, Text, Texts, Time};

/// Every key, by tables.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("cluster", "name", Text, "required", "\"demo\""),
    key("cluster", "secret_file", Text, "required with two hosts", "\"demo.secret\""),
    key("cluster", "generation", Count, "0", "7"),

    key("host", "name", Text, "required", "\"a\""),
    key("host", "relay", Texts, "required with two hosts", "[\"tcp://10.0.0.1:7000\"]"),
    key("host", "listen", Texts, "what `relay` says", "[\"tcp://0.0.0.0:7000\"]"),
    key("host", "nodes", Texts, "none", "[\"login\", \"web\"]"),
    key("host", "uid", Count, "the relay's own", "1000"),
    key("host", "socket", Text, "/run/ringlane/HOST.sock or @ringlane-UID-HOST",
        "\"unix:///run/bus/a.sock\""),
    key("host", "metrics", Text, "what `[metrics]` says", "\"tcp://10.0.0.1:9464\""),

    key("node", "name", Text, "required", "\"db\""),
    key("node", "host", Text, "the host that lists it", "\"b\""),
    key("node", "uid", Count, "what its host says", "70"),

    key("group", "name", Text, "required", "\"dbs\""),
    key("group", "members", Texts, "required", "[\"db\", \"db.*\"]"),
    key("group", "pick", Text, "\"any\"", "\"hash\""),

    key("channel", "from", Text, "\"*\"", "\"login*\""),
    key("channel", "to", Text, "\"*\"", "\"db@b\""),
    key("channel", "chan", Counts, "every one", "[1, 2]"),
    key("channel", "class", Text, "what `[defaults]` says", "\"lossy\""),
    key("channel", "ring", Size, "what `[defaults]` says", "\"4MiB\""),
    key("channel", "priority", Count, "what `[defaults]` says", "0"),
    key("channel", "ack", Text, "what `[defaults]` says", "\"stored\""),
    key("channel", "path", Text, "what `[defaults]` says", "\"relay\""),
    key("channel", "on_full", Text, "what `[defaults]` says", "\"drop-old\""),
    key("channel", "stuck_after", Time, "what `[defaults]` says", "\"10s\""),
    key("channel", "ttl", Time, "what `[defaults]` says", "\"2s\""),
    key("channel", "linger", Time, "what `[defaults]` says", "\"1s\""),

    key("defaults", "class", Text, "\"reliable\"", "\"reliable\""),
    key("defaults", "ring", Size, "\"1MiB\"", "\"256KiB\""),
    key("defaults", "priority", Count, "1", "2"),
    key("defaults", "ack", Text, "\"stored\"", "\"consumed\""),
    key("defaults", "path", Text, "\"auto\"", "\"auto\""),
    key("defaults", "on_full", Text, "\"block\"", "\"block:1s\""),
    key("defaults", "stuck_after", Time, "\"30s\"", "\"never\""),
    key("defaults", "ttl", Time, "\"never\"", "\"never\""),
    key("defaults", "linger", Time, "\"5s\"", "\"5s\""),

    key("acl", "default", Text, "\"allow\"", "\"deny\""),
    key("acl", "admins", Counts, "root and the relay's own", "[1000]"),
    key("acl.rule", "from", Text, "\"*\"", "\"web\""),
    key("acl.rule", "to", Text, "\"*\"", "\"db@b\""),
    key("acl.rule", "action", Text, "required", "\"allow\""),

    key("limits", "processes", Count, "4096", "1000"),
    key("limits", "processes_per_uid", Count, "2048", "500"),
    key("limits", "channels", Count, "65536", "10000"),
    key("limits", "channels_per_process", Count, "8192", "100"),
    key("limits", "ring_memory", Size, "\"8GiB\"", "\"2GiB\""),
    key("limits", "ring_memory_per_uid", Size, "\"4GiB\"", "\"1GiB\""),
    key("limits", "routes", Count, "262144", "100000"),
    key("limits", "links", Count, "1024", "64"),
    key("limits", "link_buffer", Size, "\"4MiB\"", "\"1MiB\""),
    key("limits", "relay_memory", Size, "\"256MiB\"", "\"64MiB\""),
    key("limits", "message", Size, "\"16MiB\"", "\"1MiB\""),
    key("limits", "reassembly", Size, "\"32MiB\"", "\"64MiB\""),
    key("limits", "reassembly_per_uid", Size, "\"256MiB\"", "\"128MiB\""),
    key("limits", "handshakes", Count, "256", "64"),
    key("limits", "handshakes_per_peer", Count, "16", "4"),
    key("limits", "admins", Count, "64", "8"),

    key("ageing", "tick", Time, "\"100ms\"", "\"50ms\""),
    key("ageing", "idle_link", Time, "\"5min\"", "\"1h\""),
    key("ageing", "idle_channel", Time, "\"10min\"", "\"1h\""),
    key("ageing", "idle_route", Time, "\"1h\"", "\"30min\""),

    key("link", "ping", Time, "\"1s\"", "\"500ms\""),
    key("link", "dead_after", Time, "\"3s\"", "\"2s\""),
    key("link", "handshake", Time, "\"5s\"", "\"2s\""),
    key("link", "redial", Time, "\"100ms\"", "\"50ms\""),
    key("link", "redial_for", Time, "\"30s\"", "\"10s\""),
    key("link", "redial_max", Time, "\"2s\"", "\"1s\""),

    key("tls", "certificate", Text, "required", "\"{host}.pem\""),
    key("tls", "key", Text, "required", "\"{host}.key\""),
    key("tls", "authority", Text, "required", "\"ca.pem\""),

    key("metrics", "listen", Text, "on the relay's socket only", "\"tcp://127.0.0.1:9464\""),
];
