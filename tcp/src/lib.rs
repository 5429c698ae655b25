//! The `tcp://` transport: `tcp://127.0.0.1:80`, `tcp://[::1]:80`, `tcp://host.name:80`.
//!
//! Parameters: `nodelay=0|1` (default 1, tcp(7) TCP_NODELAY), `keepalive=SECONDS` (idle time
//! before the first probe), `user_timeout=MILLISECONDS` (TCP_USER_TIMEOUT), `reuse_port=1`
//! (SO_REUSEPORT, listeners).

#![forbid(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use ringlane_api::address::Address;
use ringlane_api::error::{Error, Result};
use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::reactor::{Family as Domain, SockName, SockOption, Sys};
use ringlane_api::stream::{Family, Stream, Target};
use ringlane_api::transport::{Caps, LinkOptions, ListenOptions, Transport};

const PARAMETERS: &[&str] = &["nodelay", "keepalive", "user_timeout", "reuse_port"];

/// Probes after `keepalive=SECONDS`: one every so often, so many until the peer counts as dead.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_COUNT: u32 = 3;

/// The transport, for `EventBase::with`.
///
/// ```
/// assert_eq!(ringlane_tcp::transport().scheme(), "tcp");
/// ```
pub fn transport() -> Box<dyn Transport> {
    Box::new(Stream::new(Tcp))
}

/// Names and options of TCP, for a transport whose links are introduced by it.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

impl Family for Tcp {
    fn scheme(&self) -> &'static str {
        "tcp"
    }

    fn caps(&self) -> &Caps {
        &Caps {
            fd_passing: false,
            credentials: false,
            half_close: true,
            send_file: true,
            adopt: true,
            host_names: true,
        }
    }

    fn target(&self, address: &Address) -> Result<Target> {
        address.only_parameters(PARAMETERS)?;
        Settings::of(address)?;
        let text = address.target();
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Target::Names(vec![SockName::Inet(addr)]));
        }
        let bad = |what: String| {
            Err(Error::address_of(
                "parse",
                address.to_string(),
                format!("{what}; write it like tcp://127.0.0.1:8080 or tcp://[::1]:8080"),
            ))
        };
        if text.starts_with('[') {
            return bad(format!("`{text}` is not an IPv6 address in brackets with a port"));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return bad("no port".into());
        };
        let Ok(number) = port.parse::<u16>() else {
            return bad(format!("port `{port}` is not a number from 0 to 65535"));
        };
        if host.is_empty() {
            return bad("no host before the port".into());
        }
        let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.contains(':') {
            return bad(format!("host `{host}` looks like IPv6, which stands in brackets"));
        }
        if !host.chars().all(letter) {
            return bad(format!("host `{host}` has a character that no host name has"));
        }
        if host.chars().all(|c| c.is_ascii_digit() || c == '.') {
            return bad(format!("host `{host}` is not an IPv4 address"));
        }
        if host == "*" {
            return bad("write 0.0.0.0 for every interface".into());
        }
        Ok(Target::Host { host: host.into(), port: number })
    }

    fn socket(&self, sys: &mut dyn Sys, name: &SockName) -> io::Result<Fd> {
        match name {
            SockName::Inet(SocketAddr::V4(_)) => sys.socket(Domain::Inet4),
            SockName::Inet(SocketAddr::V6(_)) => sys.socket(Domain::Inet6),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }

    fn configure(
        &self,
        sys: &mut dyn Sys,
        fd: &Fd,
        address: Option<&Address>,
        options: &LinkOptions,
    ) -> io::Result<()> {
        let settings = address.map(Settings::of).transpose().map_err(io::Error::from)?;
        let settings = settings.unwrap_or_default();
        if settings.no_delay.unwrap_or(options.no_delay) {
            sys.set(fd, SockOption::NoDelay(true))?;
        }
        let keepalive = settings.keepalive.map(|idle| (idle, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT));
        if let Some((idle, interval, count)) = keepalive.or(options.keepalive) {
            sys.set(fd, SockOption::Keepalive { idle, interval, count })?;
        }
        if let Some(timeout) = settings.user_timeout.or(options.user_timeout) {
            sys.set(fd, SockOption::UserTimeout(timeout))?;
        }
        if let Some(bytes) = options.send_buffer {
            sys.set(fd, SockOption::SendBuffer(bytes))?;
        }
        if let Some(bytes) = options.receive_buffer {
            sys.set(fd, SockOption::ReceiveBuffer(bytes))?;
        }
        Ok(())
    }

    fn listen(
        &self,
        sys: &mut dyn Sys,
        at: &Address,
        name: &SockName,
        options: &ListenOptions,
    ) -> Result<Fd> {
        let settings = Settings::of(at)?;
        let failed = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => Some(format!(
                    "somebody listens there already (`ss -ltnp 'sport = :{}'` says who)",
                    port_of(name)
                )),
                io::ErrorKind::PermissionDenied if port_of(name) < 1024 => Some(
                    "ports below 1024 need CAP_NET_BIND_SERVICE; take a higher one, or port 0 \
                     for any"
                        .into(),
                ),
                io::ErrorKind::AddrNotAvailable => {
                    Some("no interface of this host has that address".into())
                }
                _ => None,
            };
            let error = Error::new("listen", error).at(at);
            match hint {
                Some(hint) => error.because(hint),
                None => error,
            }
        };
        let fd = self.socket(sys, name).map_err(failed)?;
        let mut set = |option| sys.set(&fd, option);
        set(SockOption::ReuseAddress(true)).map_err(failed)?;
        if options.reuse_port || settings.reuse_port {
            set(SockOption::ReusePort(true)).map_err(failed)?;
        }
        if matches!(name, SockName::Inet(SocketAddr::V6(_))) {
            set(SockOption::V6Only(true)).map_err(failed)?;
        }
        // Accepted sockets inherit the options, so none is set per connection.
        self.configure(sys, &fd, Some(at), &options.link).map_err(failed)?;
        sys.bind(&fd, name).map_err(failed)?;
        sys.listen(&fd, options.backlog).map_err(failed)?;
        Ok(fd)
    }

    fn address_of(&self, name: &SockName) -> Option<Address> {
        match name {
            SockName::Inet(addr) => Some(Address::new("tcp", &addr.to_string())),
            _ => None,
        }
    }

    fn takes(&self, sys: &mut dyn Sys, fd: &Fd) -> bool {
        fd.kind() == FdKind::Socket && matches!(sys.local_name(fd), Ok(SockName::Inet(_)))
    }
}

fn port_of(name: &SockName) -> u16 {
    match name {
        SockName::Inet(addr) => addr.port(),
        _ => 0,
    }
}

/// An address's parameters.
#[derive(Default)]
struct Settings {
    no_delay: Option<bool>,
    keepalive: Option<Duration>,
    user_timeout: Option<Duration>,
    reuse_port: bool,
}

impl Settings {
    fn of(address: &Address) -> Result<Settings> {
        let bad = |key: &str, value: &str, wants: &str| {
            Error::address_of(
                "parse",
                address.to_string(),
                format!("parameter `{key}={value}` wants {wants}"),
            )
        };
        let switch = |key: &str| match address.parameter(key) {
            None => Ok(None),
            Some("1") => Ok(Some(true)),
            Some("0") => Ok(Some(false)),
            Some(other) => Err(bad(key, other, "0 or 1")),
        };
        let number = |key: &str, wants: &str| match address.parameter(key) {
            None => Ok(None),
            Some(text) => match text.parse::<u32>() {
                Ok(n) if n > 0 => Ok(Some(u64::from(n))),
                _ => Err(bad(key, text, wants)),
            },
        };
        Ok(Settings {
            no_delay: switch("nodelay")?,
            keepalive: number("keepalive", "seconds, like keepalive=60")?.map(Duration::from_secs),
            user_timeout: number("user_timeout", "milliseconds, like user_timeout=5000")?
                .map(Duration::from_millis),
            reuse_port: switch("reuse_port")?.unwrap_or(false),
        })
    }
}

/// Any free port on the IPv4 loopback.
///
/// ```
/// assert_eq!(ringlane_tcp::loopback().to_string(), "tcp://127.0.0.1:0");
/// ```
pub fn loopback() -> Address {
    Address::new("tcp", &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).to_string())
}

/// Any free port on the IPv6 loopback.
///
/// ```
/// assert_eq!(ringlane_tcp::loopback6().to_string(), "tcp://[::1]:0");
/// ```
pub fn loopback6() -> Address {
    Address::new("tcp", &SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<Target> {
        Tcp.target(&text.parse().expect("it has a scheme"))
    }

    #[test]
    fn literals_and_host_names_are_told_apart() {
        let v4 = SockName::Inet("127.0.0.1:80".parse().expect("valid"));
        assert_eq!(target("tcp://127.0.0.1:80").expect("valid"), Target::Names(vec![v4]));
        assert!(matches!(target("tcp://[::1]:0"), Ok(Target::Names(_))));
        let host = Target::Host { host: "db.internal".into(), port: 5432 };
        assert_eq!(target("tcp://db.internal:5432?keepalive=60").expect("valid"), host);
    }

    #[test]
    fn a_bad_address_names_the_part_that_is_wrong() {
        for (text, part) in [
            ("tcp://localhost", "no port"),
            ("tcp://localhost:http", "port `http`"),
            ("tcp://localhost:70000", "port `70000`"),
            ("tcp://:80", "no host"),
            ("tcp://::1:80", "brackets"),
            ("tcp://1.2.3:80", "`1.2.3`"),
            ("tcp://a b:80", "`a b`"),
            ("tcp://h:1?color=red", "`color`"),
            ("tcp://h:1?keepalive=soon", "seconds"),
            ("tcp://h:1?nodelay=yes", "0 or 1"),
        ] {
            let error = target(text).expect_err(text).to_string();
            assert!(error.contains(part) && error.contains(text), "{error}");
        }
    }
}
