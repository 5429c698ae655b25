//! Addresses of relays: which there may be, and how a right one looks.

use ringlane_api::Address;
use ringlane_api::near::nearest;

/// What a link between relays may go over.
const LINKS: [&str; 4] = ["tcp", "unix", "rdma", "tls+tcp"];

/// For what an address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum For {
    /// Others dial it.
    Dialling,
    /// A relay listens there.
    Listening,
    /// A relay shows its counters there.
    Metrics,
    /// The processes of a host find their relay there.
    Processes,
}

impl For {
    fn schemes(self) -> &'static [&'static str] {
        match self {
            For::Dialling | For::Listening => &LINKS,
            For::Metrics => &["tcp", "unix"],
            For::Processes => &["unix"],
        }
    }
}

/// What is wrong, and what to do about it.
type Wrong = (String, Option<String>);

/// Reads an address, and checks what can be checked without a network.
pub(super) fn read(text: &str, what_for: For) -> Result<Address, Wrong> {
    let address: Address = text.parse().map_err(|error| (format!("{error}"), None))?;
    let schemes = what_for.schemes();
    let scheme = address.scheme();
    if !schemes.contains(&scheme) {
        let list: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
        let near = nearest(scheme, schemes.iter().copied());
        let help = near.map(|near| format!("did you mean {near}://?"));
        return Err((format!("`{scheme}://` is none of {}", list.join(", ")), help));
    }
    let target = address.target();
    if scheme == "tcp" || scheme == "tls+tcp" {
        let help = || Some(format!("write it like {scheme}://10.0.0.1:7000"));
        let (host, port) = target.rsplit_once(':').unwrap_or((target, ""));
        let port: Option<u16> = port.parse().ok();
        let bare = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if bare {
            let help = format!("write it like {scheme}://[::1]:7000");
            return Err((format!("`{text}` has an IPv6 address without brackets"), Some(help)));
        }
        if host.is_empty() || port.is_none() {
            return Err((format!("`{text}` is not {scheme}://HOST:PORT"), help()));
        }
        if port == Some(0) && what_for == For::Dialling {
            let what = format!("`{text}` has port 0, a new one each time: nobody could dial it");
            return Err((what, help()));
        }
        let any = ["0.0.0.0", "[::]"].contains(&host);
        if any && what_for == For::Dialling {
            let what = format!("`{text}` is every address of a host: nobody could dial it");
            let help = "write the address that others dial here, and this one under `listen`";
            return Err((what, Some(help.into())));
        }
    }
    Ok(address)
}

/// Where the relay of a host is found if nobody says otherwise: in a folder that an administrator
/// has made for it, or under an abstract name.
pub(super) fn usual(host: &str, uid: impl std::fmt::Display) -> [Address; 2] {
    let folder = format!("/run/ringlane/{host}.sock");
    let name = format!("@ringlane-{uid}-{host}");
    [Address::new("unix", &folder), Address::new("unix", &name)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_nobody_could_dial_is_refused_and_may_be_listened_at() {
        for text in ["tcp://0.0.0.0:7000", "tcp://[::]:7000", "tcp://10.0.0.1:0"] {
            assert!(read(text, For::Dialling).is_err(), "{text}");
            assert!(read(text, For::Listening).is_ok(), "{text}");
        }
        for text in ["tcp://h:7000", "tls+tcp://h:7000", "unix:///run/x", "rdma://h:7000"] {
            assert!(read(text, For::Dialling).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_wrong_address_says_how_a_right_one_looks() {
        for (text, part) in [
            ("10.0.0.1:7000", "tcp://127.0.0.1:8080"),
            ("tcp://10.0.0.1", "tcp://10.0.0.1:7000"),
            ("tcp://:7000", "tcp://10.0.0.1:7000"),
            ("tcp://h:99999", "tcp://10.0.0.1:7000"),
            ("tcp://fe80::1:7000", "tcp://[::1]:7000"),
            ("tcq://h:1", "did you mean tcp://?"),
            ("shm://@x", "tcp://, unix://, rdma://, tls+tcp://"),
        ] {
            let (what, help) = read(text, For::Dialling).expect_err("wrong");
            assert!(format!("{what} {help:?}").contains(part), "{what} {help:?}");
        }
        assert!(read("tcp://127.0.0.1:1", For::Processes).is_err());
        assert!(read("rdma://127.0.0.1:1", For::Metrics).is_err());
    }
}
