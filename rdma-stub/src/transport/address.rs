//! `rdma://host:port`, `rdma:///run/x.sock`, `rdma://@name`: where the link is that introduces, and
//! on what terms.

use ringlane_api::address::Address;
use ringlane_api::error::{Error, Result};

use super::SCHEME;

/// An address, read.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Where the link is that introduces.
    pub(super) below: Address,
    /// It is a Unix socket's, and packets travel in shared memory.
    pub(super) local: bool,
    /// What the link that introduces is called, and whether bytes may go over it as they are.
    pub(super) kind: &'static str,
    pub(super) falls_back: bool,
    /// Who may be there beside our own user and root.
    pub(super) uid: Option<u32>,
    /// Whoever may open the socket file may come.
    pub(super) by_mode: bool,
}

/// Whether packets travel in shared memory.
fn is_local(address: &Address) -> bool {
    address.target().starts_with(['/', '@'])
}

/// Reads an address and says what is wrong with it.
pub(super) fn terms(address: &Address) -> Result<Terms> {
    let local = is_local(address);
    let kind = if local { "unix" } else { "tcp" };
    let bad = |what: String| Error::address_of("parse", address.to_string(), what);
    let falls_back = match address.parameter("fallback") {
        None => false,
        Some(text) if text == kind => true,
        Some(text) => {
            return Err(bad(format!(
                "parameter `fallback={text}`: its links are introduced by {kind}; \
                 write fallback={kind}"
            )));
        }
    };
    let mut uid = None;
    let mut ours = vec!["fallback"];
    if local {
        address.only_parameters(&["fallback", "uid", "mode"])?;
        ours.push("uid");
        if let Some(text) = address.parameter("uid") {
            let why =
                || bad(format!("parameter `uid={text}` wants a user's number, like uid=1000"));
            uid = Some(text.parse().map_err(|_| why())?);
        }
        if address.parameter("mode").is_some() && address.target().starts_with('@') {
            return Err(bad("an abstract name has no file and no mode; say uid= instead".into()));
        }
    }
    let by_mode = local && address.parameter("mode").is_some();
    let rest: Vec<String> = address
        .parameters()
        .filter(|(key, _)| !ours.contains(key))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let query = if rest.is_empty() { String::new() } else { format!("?{}", rest.join("&")) };
    let below = format!("{kind}://{}{query}", address.target()).parse()?;
    Ok(Terms { below, local, kind, falls_back, uid, by_mode })
}

/// The name of an end of the link that introduces, as ours.
pub(super) fn above(below: &Address) -> Address {
    Address::new(SCHEME, below.target())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Terms> {
        terms(&text.parse().expect("it has a scheme"))
    }

    #[test]
    fn parameters_are_read_and_bad_ones_named() {
        let tcp = read("rdma://[::1]:7?fallback=tcp&nodelay=0").expect("valid");
        assert_eq!((tcp.local, tcp.falls_back), (false, true));
        assert_eq!(tcp.below.to_string(), "tcp://[::1]:7?nodelay=0");
        let unix = read("rdma:///run/x.sock?mode=660&uid=7&fallback=unix").expect("valid");
        assert_eq!((unix.local, unix.falls_back, unix.uid), (true, true, Some(7)));
        assert!(unix.by_mode);
        assert_eq!(unix.below.to_string(), "unix:///run/x.sock?mode=660");
        assert!(!read("rdma://@x").expect("valid").falls_back);
        for (text, part) in [
            ("rdma://@x?fallback=tcp", "write fallback=unix"),
            ("rdma://h:1?fallback=unix", "write fallback=tcp"),
            ("rdma://h:1?fallback=shm", "write fallback=tcp"),
            ("rdma://@x?uid=me", "uid=me"),
            ("rdma://@x?mode=666", "no mode"),
            ("rdma://@x?speed=1", "`speed`"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
