//! Names: ports, paths, abstract names and hosts.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ringlane_api::reactor::{Family, Occupant, SockName};

use super::desc::{DescId, What};
use super::world::State;

/// errno values, as Linux numbers them.
pub(super) mod errno {
    pub const EBADF: i32 = 9;
    pub const EAGAIN: i32 = 11;
    pub const ENOMEM: i32 = 12;
    pub const EACCES: i32 = 13;
    pub const EINVAL: i32 = 22;
    pub const EMFILE: i32 = 24;
    pub const EPIPE: i32 = 32;
    pub const ENOENT: i32 = 2;
    pub const ENOTSOCK: i32 = 88;
    pub const EOPNOTSUPP: i32 = 95;
    pub const EADDRINUSE: i32 = 98;
    pub const EADDRNOTAVAIL: i32 = 99;
    pub const ECONNRESET: i32 = 104;
    pub const EISCONN: i32 = 106;
    pub const ENOTCONN: i32 = 107;
    pub const ETIMEDOUT: i32 = 110;
    pub const ECONNREFUSED: i32 = 111;
    pub const ECANCELED: i32 = 125;
}

/// An `io::Error` of an errno.
pub(super) fn os(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// Longest path that fits into a Unix socket address, with its closing zero.
const SUN_PATH_BYTES: usize = 108;

/// The first port given out for port 0.
const FIRST_PORT: u16 = 40_000;

/// What stands at a virtual path.
struct Node {
    /// Who is bound there; a closed one leaves the file behind.
    owner: Option<DescId>,
    mode: u32,
}

/// Every name in use.
pub(super) struct Names {
    ports: BTreeMap<u16, Vec<(IpAddr, DescId, bool)>>,
    paths: BTreeMap<PathBuf, Node>,
    abstracts: BTreeMap<Vec<u8>, DescId>,
    pub hosts: HashMap<String, Vec<IpAddr>>,
    next_port: u16,
    turn: usize,
}

impl Names {
    pub fn new() -> Names {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let refuses = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        let silent = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let hosts = HashMap::from([
            ("localhost".to_string(), vec![local]),
            ("multi.test".to_string(), vec![refuses, local]),
            ("slow.test".to_string(), vec![silent, local]),
        ]);
        Names {
            ports: BTreeMap::new(),
            paths: BTreeMap::new(),
            abstracts: BTreeMap::new(),
            hosts,
            next_port: FIRST_PORT,
            turn: 0,
        }
    }

    /// A port that nobody has.
    pub fn free_port(&mut self) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.ports.contains_key(&port) {
                return port;
            }
        }
    }

    fn take_port(&mut self, at: SocketAddr, id: DescId, shared: bool) -> io::Result<SocketAddr> {
        let ours = at.ip().is_unspecified() || is_loopback(at.ip());
        if !ours {
            return Err(os(errno::EADDRNOTAVAIL));
        }
        let port = if at.port() == 0 { self.free_port() } else { at.port() };
        let holders = self.ports.entry(port).or_default();
        let clash = holders.iter().any(|(ip, _, other_shares)| {
            ip.is_ipv4() == at.is_ipv4()
                && (*ip == at.ip() || ip.is_unspecified() || at.ip().is_unspecified())
                && !(shared && *other_shares)
        });
        if clash {
            return Err(os(errno::EADDRINUSE));
        }
        holders.push((at.ip(), id, shared));
        Ok(SocketAddr::new(at.ip(), port))
    }

    /// Everybody who would answer at an address.
    fn holders(&self, to: SocketAddr) -> Vec<DescId> {
        let answers = |ip: &IpAddr| *ip == to.ip() || ip.is_unspecified();
        let found = self.ports.get(&to.port()).into_iter().flatten();
        found.filter(|(ip, ..)| answers(ip)).map(|(_, id, _)| *id).collect()
    }

    /// A description is gone; a socket file stays behind, as on disk.
    pub fn forget(&mut self, id: DescId) {
        for holders in self.ports.values_mut() {
            holders.retain(|(_, holder, _)| *holder != id);
        }
        self.ports.retain(|_, holders| !holders.is_empty());
        self.abstracts.retain(|_, holder| *holder != id);
        for node in self.paths.values_mut() {
            if node.owner == Some(id) {
                node.owner = None;
            }
        }
    }
}

/// Whether packets to `ip` come back to this machine.
fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6 == Ipv6Addr::LOCALHOST,
    }
}

impl State {
    /// bind(2).
    pub fn bind(&mut self, id: DescId, name: &SockName) -> io::Result<()> {
        let Some(fresh) = self.table.fresh(id) else { return Err(os(errno::EINVAL)) };
        let shared = fresh.options.reuse_port;
        let family = fresh.family;
        let taken = match name {
            SockName::Inet(at) => {
                if at.is_ipv4() != (family == Family::Inet4) || family == Family::Unix {
                    return Err(os(errno::EINVAL));
                }
                SockName::Inet(self.names.take_port(*at, id, shared)?)
            }
            SockName::Path(path) => {
                self.bind_path(path, id)?;
                name.clone()
            }
            SockName::Abstract(bytes) => {
                if self.names.abstracts.contains_key(bytes) {
                    return Err(os(errno::EADDRINUSE));
                }
                self.names.abstracts.insert(bytes.clone(), id);
                name.clone()
            }
            SockName::Unnamed => return Err(os(errno::EINVAL)),
        };
        if let Some(fresh) = self.table.fresh(id) {
            fresh.name = Some(taken);
        }
        Ok(())
    }

    fn bind_path(&mut self, path: &Path, id: DescId) -> io::Result<()> {
        if path.as_os_str().len() >= SUN_PATH_BYTES {
            return Err(os(errno::EINVAL));
        }
        if path.starts_with("/nonexistent") {
            return Err(os(errno::ENOENT));
        }
        if path.starts_with("/forbidden") {
            return Err(os(errno::EACCES));
        }
        // A real file in the way counts too: cases lay one there with std alone.
        if self.names.paths.contains_key(path) || path.exists() {
            return Err(os(errno::EADDRINUSE));
        }
        self.names.paths.insert(path.into(), Node { owner: Some(id), mode: 0o777 });
        Ok(())
    }

    /// Who listens at `to`, or the errno a connect would get.
    pub fn find_listener(&mut self, to: &SockName) -> Result<DescId, i32> {
        let candidates = match to {
            SockName::Inet(at) => self.names.holders(*at),
            SockName::Path(path) => {
                if path.as_os_str().len() >= SUN_PATH_BYTES {
                    return Err(errno::EINVAL);
                }
                match self.names.paths.get(path) {
                    None => return Err(errno::ENOENT),
                    Some(node) if node.mode & 0o222 == 0 => return Err(errno::EACCES),
                    Some(node) => node.owner.into_iter().collect(),
                }
            }
            SockName::Abstract(name) => {
                self.names.abstracts.get(name).copied().into_iter().collect()
            }
            SockName::Unnamed => return Err(errno::EINVAL),
        };
        let table = &mut self.table;
        let listening: Vec<DescId> =
            candidates.into_iter().filter(|id| table.listener(*id).is_some()).collect();
        if listening.is_empty() {
            return Err(errno::ECONNREFUSED);
        }
        self.names.turn += 1;
        Ok(listening[self.names.turn % listening.len()])
    }

    /// Whether an address swallows what is sent to it.
    pub fn is_silent(to: &SockName) -> bool {
        match to {
            SockName::Inet(at) => !is_loopback(at.ip()) && !at.ip().is_unspecified(),
            _ => false,
        }
    }

    pub fn occupant(&mut self, path: &Path) -> Occupant {
        let Some(node) = self.names.paths.get(path) else {
            let real = path.symlink_metadata().is_ok();
            return if real { Occupant::NotASocket } else { Occupant::Nobody };
        };
        let owner = node.owner.and_then(|id| self.table.descs.get(&id));
        match owner.map(|desc| &desc.what) {
            Some(What::Listener(_)) => Occupant::Listening,
            _ => Occupant::Stale,
        }
    }

    pub fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.names.paths.remove(path).map(|_| ()).ok_or_else(|| os(errno::ENOENT))
    }

    pub fn chmod(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let node = self.names.paths.get_mut(path).ok_or_else(|| os(errno::ENOENT))?;
        node.mode = mode;
        Ok(())
    }

    /// What a host name stands for.
    pub fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let found = self.names.hosts.get(host);
        let addresses: Vec<SocketAddr> =
            found.into_iter().flatten().map(|ip| SocketAddr::new(*ip, port)).collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such host in this world"));
        }
        Ok(addresses)
    }
}
