//! Which relay is meant: the one that is named, or the only one that runs here.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use anyhow::{Result, bail};
use clap::Args;
use nix::unistd::geteuid;

use super::ask;

/// The folder of relays that the system runs.
const RUN: &str = "/run/ringlane";

/// How the sockets of other relays begin; the user follows, and the host.
const ABSTRACT: &str = "@ringlane-";

/// Relays that may run for one host: the one, and those that took over (`--takeover`).
const NUMBERS: u32 = 9;

/// Which relay.
#[derive(Args, Debug, Clone, Default)]
pub struct At {
    /// The relay's socket, /run/x.sock or @name. Default: the relay that runs here; if there are
    /// several, say which.
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// The relay of this host of the cluster.
    #[arg(long, value_name = "NAME", conflicts_with = "socket")]
    host: Option<String>,
}

/// A relay's socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its host, as far as the name tells.
    pub host: Option<String>,
    /// `/run/x.sock` or `@name`: of the first relay of the host.
    pub usual: String,
    /// Of the one that took over last; 1 if nobody did.
    pub number: u32,
}

impl Place {
    fn given(socket: &str) -> Place {
        let usual = socket.trim_start_matches("unix://").to_string();
        Place { host: None, usual, number: 1 }
    }

    /// The socket of the relay that has taken over last.
    pub fn socket(&self) -> String {
        match self.number {
            1 => self.usual.clone(),
            number => format!("{}.{number}", self.usual),
        }
    }

    /// As an address, for those who look for its successors themselves.
    pub fn address(&self) -> String {
        format!("unix://{}", self.usual)
    }
}

impl At {
    /// The relay that is meant.
    pub fn relay(&self) -> Result<Place> {
        self.relay_for(None)
    }

    /// The relay that a node's process belongs to.
    pub fn relay_of(&self, node: &str) -> Result<Place> {
        self.relay_for(Some(node))
    }

    fn relay_for(&self, node: Option<&str>) -> Result<Place> {
        if let Some(socket) = &self.socket {
            return Ok(Place::given(socket));
        }
        let found = found();
        if let Some(host) = &self.host {
            return of_host(host, &found);
        }
        if let Some((_, host)) = node.and_then(|node| node.split_once('@'))
            && !host.is_empty()
        {
            return of_host(host, &found);
        }
        match &found[..] {
            [one] => Ok(one.clone()),
            [] => bail!(
                "no relay runs here (none in {RUN}, no socket {ABSTRACT}UID-HOST); start one: \
                 ringlane relay --config FILE --host NAME; or say --socket"
            ),
            several => match node.map(|node| living_with(node, several)) {
                Some(Ok(at)) if at.len() == 1 => Ok(at[0].clone()),
                // Other clusters have such a node, too.
                Some(Ok(at)) if at.len() > 1 => {
                    bail!("several relays here have that node; say --host: {}", list(&at))
                }
                Some(Err(why)) => bail!("{why}"),
                _ => bail!("several relays run here; say --host: {}", list(several)),
            },
        }
    }
}

fn list(places: &[Place]) -> String {
    let one =
        |place: &Place| format!("{} ({})", place.host.as_deref().unwrap_or("?"), place.socket());
    places.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Of several relays those on whose host a node lives; or why no relay knows it.
fn living_with(node: &str, places: &[Place]) -> Result<Vec<Place>, String> {
    let (mut at, mut unknown, mut why) = (Vec::new(), 0, String::new());
    for place in places {
        match ask::host_of(place, node) {
            Some(Ok(host)) if place.host.as_ref() == Some(&host) => at.push(place.clone()),
            Some(Ok(_)) | None => {}
            Some(Err(said)) => (unknown, why) = (unknown + 1, said),
        }
    }
    if unknown == places.len() { Err(why) } else { Ok(at) }
}

fn of_host(host: &str, found: &[Place]) -> Result<Place> {
    let mut fits = found.iter().filter(|place| place.host.as_deref() == Some(host));
    match (fits.next(), fits.next()) {
        (Some(one), None) => Ok(one.clone()),
        (Some(one), Some(other)) => bail!(
            "host {host} has several relays here, of several users; say --socket {} or --socket {}",
            one.socket(),
            other.socket()
        ),
        (None, _) if found.is_empty() => bail!(
            "no relay of host {host} runs here; start it: ringlane relay --config FILE --host \
             {host}"
        ),
        (None, _) => bail!("no relay of host {host} runs here; there are {}", list(found)),
    }
}

/// The relays that have a socket at the usual places: those of the system, then those of this user,
/// or for root those of everybody.
fn found() -> Vec<Place> {
    let mut sockets = Vec::new();
    for entry in fs::read_dir(RUN).into_iter().flatten().flatten() {
        sockets.push(format!("{RUN}/{}", entry.file_name().to_string_lossy()));
    }
    let names = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let names = names.lines().filter_map(|line| line.split_whitespace().nth(7));
    sockets.extend(names.filter(|name| name.starts_with(ABSTRACT)).map(str::to_string));
    let mut found = sorted(&sockets, geteuid().as_raw());
    // A file may be left of a relay that is not any more.
    found.retain(|place| match ask::knock(&place.socket()) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    });
    found
}

/// Which of these sockets are relays' that `uid` may mean, one for each host and user.
fn sorted(sockets: &[String], uid: u32) -> Vec<Place> {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    for socket in sockets {
        let Some((host, usual, number)) = read(socket, uid) else { continue };
        let place = Place { host: Some(host), usual: usual.clone(), number };
        let known = places.entry(usual).or_insert_with(|| place.clone());
        known.number = known.number.max(number);
    }
    places.into_values().collect()
}

/// The user whose relay has a name that anybody could take.
pub fn owner(socket: &str) -> Option<u32> {
    socket.strip_prefix(ABSTRACT)?.split_once('-')?.0.parse().ok()
}

/// Host, usual name and number of a relay's socket.
fn read(socket: &str, uid: u32) -> Option<(String, String, u32)> {
    let (usual, number) = match socket.rsplit_once('.') {
        Some((usual, digit)) => match digit.parse() {
            Ok(number @ 2..=NUMBERS) => (usual, number),
            _ => (socket, 1),
        },
        None => (socket, 1),
    };
    let host = match usual.strip_prefix(ABSTRACT) {
        Some(rest) => {
            let (user, host) = rest.split_once('-')?;
            let user: u32 = user.parse().ok()?;
            (uid == 0 || uid == user || user == 0).then_some(host)?
        }
        None => usual.strip_prefix(RUN)?.strip_prefix('/')?.strip_suffix(".sock")?,
    };
    Some((host.to_string(), usual.to_string(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(sockets: &[&str], uid: u32) -> Vec<(String, String)> {
        let sockets: Vec<String> = sockets.iter().map(|name| name.to_string()).collect();
        let of = |place: Place| (place.host.clone().unwrap_or_default(), place.socket());
        sorted(&sockets, uid).into_iter().map(of).collect()
    }

    #[test]
    fn relays_are_known_by_the_names_of_their_sockets() {
        let sockets = [
            "/run/ringlane/a.sock",
            "/run/ringlane/leftover",
            "@ringlane-7-b",
            "@ringlane-8-c",
            "@ringlane-lock-7-b.1",
            "@ringlane-bus-0011",
        ];
        let pair = |host: &str, socket: &str| (host.to_string(), socket.to_string());
        let (a, b, c) = ("/run/ringlane/a.sock", "@ringlane-7-b", "@ringlane-8-c");
        assert_eq!(places(&sockets, 7), [pair("a", a), pair("b", b)]);
        assert_eq!(places(&sockets, 0), [pair("a", a), pair("b", b), pair("c", c)]);
    }

    #[test]
    fn the_one_that_took_over_last_is_asked() {
        let sockets = ["@ringlane-7-a.3", "@ringlane-7-a", "@ringlane-7-a.2"];
        assert_eq!(places(&sockets, 7), [("a".into(), "@ringlane-7-a.3".into())]);
        assert_eq!(sorted(&["@ringlane-7-a.2".into()], 7)[0].address(), "unix://@ringlane-7-a");
    }

    #[test]
    fn a_host_without_a_relay_is_an_error_that_names_those_there_are() {
        let found = sorted(&["@ringlane-7-a".into()], 7);
        let said = of_host("b", &found).expect_err("no b").to_string();
        assert!(said.contains("host b") && said.contains("a (@ringlane-7-a)"), "{said}");
        let said = of_host("b", &[]).expect_err("none at all").to_string();
        assert!(said.contains("--config FILE --host b"), "{said}");
    }
}
