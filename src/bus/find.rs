//! Where the relay of this host listens.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::error::BusError;

/// The folder of relays that the system runs.
const RUN: &str = "/run/ringlane";

/// The address of the relay's socket for a node's name.
pub(super) fn socket_of(node: &str, uid: u32) -> Result<String, BusError> {
    match node.split_once('@') {
        Some((_, host)) => Ok(socket_of_host(host, uid)),
        None => only_one(node, there(uid)),
    }
}

/// Where the relay of a host listens, whether it runs or not.
///
/// ```
/// let address = ringlane::bus::socket_of_host("a", 1000);
/// assert!(["unix:///run/ringlane/a.sock", "unix://@ringlane-1000-a"].contains(&&*address));
/// ```
pub fn socket_of_host(host: &str, uid: u32) -> String {
    let path = format!("{RUN}/{host}.sock");
    if Path::new(&path).exists() {
        format!("unix://{path}")
    } else {
        format!("unix://@ringlane-{uid}-{host}")
    }
}

/// The sockets of relays that there are now.
fn there(uid: u32) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(RUN).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".sock") {
            found.insert(format!("unix://{RUN}/{name}"));
        }
    }
    let prefix = format!("@ringlane-{uid}-");
    let names = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    for name in names.lines().filter_map(|line| line.split_whitespace().nth(7)) {
        // Those of successors are known by the first one.
        if name.starts_with(&prefix) && !name.contains('.') {
            found.insert(format!("unix://{name}"));
        }
    }
    found
}

fn only_one(node: &str, found: BTreeSet<String>) -> Result<String, BusError> {
    let list: Vec<&str> = found.iter().map(String::as_str).collect();
    let why = match list[..] {
        [one] => return Ok(one.to_string()),
        [] => format!(
            "no relay's socket was found, neither in {RUN} nor @ringlane-UID-HOST; start one with \
             `ringlane relay`, open \"{node}@HOST\" to wait for it, or say where with open_at"
        ),
        _ => format!(
            "several relays run here ({}); open \"{node}@HOST\", or say which with open_at",
            list.join(", ")
        ),
    };
    Err(BusError::NoRelay { why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_relay_is_found_and_otherwise_the_error_says_what_to_do() {
        let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        assert_eq!(
            only_one("web", set(&["unix://@ringlane-0-a"])).ok().as_deref(),
            Some("unix://@ringlane-0-a")
        );
        for found in [set(&[]), set(&["unix://@ringlane-0-a", "unix://@ringlane-0-b"])] {
            let said = only_one("web", found).expect_err("not one").to_string();
            assert!(said.contains("web@HOST") && said.contains("open_at"), "{said}");
        }
    }
}
