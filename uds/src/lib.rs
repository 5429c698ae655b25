//! The `unix://` transport: `unix:///run/x.sock` and, in the abstract name space, `unix://@name`.
//!
//! Parameter: `mode=660`, the file mode of a listener's socket (octal). A socket file that nobody
//! listens on is replaced, one that somebody listens on is not; a listener removes its own file
//! when it closes. Pipes, FIFOs and ttys that are adopted become links of this transport, too.

#![forbid(unsafe_code)]

use std::io;
use std::path::Path;

use ringlane_api::address::Address;
use ringlane_api::error::{Error, Result};
use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::reactor::{Family as Domain, Occupant, SockName, SockOption, Sys};
use ringlane_api::stream::{Family, Stream, Target};
use ringlane_api::transport::{Caps, LinkOptions, ListenOptions, Transport};

/// unix(7): `sun_path` has 108 bytes, the last of which ends the path.
const PATH_BYTES_MAX: usize = 107;

/// The transport, for `EventBase::with`.
///
/// ```
/// assert_eq!(ringlane_uds::transport().scheme(), "unix");
/// ```
pub fn transport() -> Box<dyn Transport> {
    Box::new(Stream::new(Unix))
}

/// Names and options of Unix sockets, for a transport whose links are introduced by them.
#[derive(Clone, Copy, Debug)]
pub struct Unix;

impl Family for Unix {
    fn scheme(&self) -> &'static str {
        "unix"
    }

    fn caps(&self) -> &Caps {
        &Caps {
            fd_passing: true,
            credentials: true,
            half_close: true,
            send_file: true,
            adopt: true,
            host_names: false,
        }
    }

    fn target(&self, address: &Address) -> Result<Target> {
        address.only_parameters(&["mode"])?;
        mode_of(address)?;
        let bad = |what: String| Err(Error::address_of("parse", address.to_string(), what));
        let text = address.target();
        let (name, bytes) = match text.strip_prefix('@') {
            Some("") => return bad("no name behind `@`; write it like unix://@name".into()),
            Some(name) => (SockName::Abstract(name.as_bytes().to_vec()), name.len()),
            None if text.starts_with('/') => (SockName::Path(text.into()), text.len()),
            None => {
                return bad(format!(
                    "path `{text}` is relative; write it like unix:///run/{text} or unix://@{text}"
                ));
            }
        };
        if bytes > PATH_BYTES_MAX {
            return bad(format!(
                "the path has {bytes} bytes, a Unix socket's has at most {PATH_BYTES_MAX}; \
                 write it like unix:///run/x.sock"
            ));
        }
        Ok(Target::Names(vec![name]))
    }

    fn socket(&self, sys: &mut dyn Sys, _name: &SockName) -> io::Result<Fd> {
        sys.socket(Domain::Unix)
    }

    fn configure(
        &self,
        sys: &mut dyn Sys,
        fd: &Fd,
        _address: Option<&Address>,
        options: &LinkOptions,
    ) -> io::Result<()> {
        if fd.kind() != FdKind::Socket {
            return Ok(());
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
        if let SockName::Path(path) = name {
            make_room(sys, at, path)?;
        }
        let failed = |error: io::Error| {
            let hint = match (error.kind(), name) {
                (io::ErrorKind::AddrInUse, _) => "somebody listens there already",
                (io::ErrorKind::NotFound, _) => "its directory does not exist",
                (io::ErrorKind::PermissionDenied, _) => "its directory may not be written to",
                _ => return Error::new("listen", error).at(at),
            };
            Error::new("listen", error).at(at).because(hint)
        };
        let fd = sys.socket(Domain::Unix).map_err(failed)?;
        self.configure(sys, &fd, Some(at), &options.link).map_err(failed)?;
        sys.bind(&fd, name).map_err(failed)?;
        // The mode is set before listen(2): nobody connects with the wrong one.
        if let (SockName::Path(path), Some(mode)) = (name, mode_of(at)?) {
            sys.chmod(path, mode).map_err(failed)?;
        }
        sys.listen(&fd, options.backlog).map_err(failed)?;
        Ok(fd)
    }

    /// The file goes with its listener, unless somebody listens on it now: another process that
    /// has replaced it, or the parent of a forked child.
    fn unlisten(&self, sys: &mut dyn Sys, name: &SockName) {
        if let SockName::Path(path) = name
            && matches!(sys.occupant(path), Ok(Occupant::Stale))
            && let Err(error) = sys.unlink(path)
        {
            log_left(path, &error);
        }
    }

    fn address_of(&self, name: &SockName) -> Option<Address> {
        match name {
            SockName::Path(path) => Some(Address::new("unix", path.to_str()?)),
            SockName::Abstract(name) => {
                Some(Address::new("unix", &format!("@{}", String::from_utf8_lossy(name))))
            }
            _ => None,
        }
    }

    fn takes(&self, sys: &mut dyn Sys, fd: &Fd) -> bool {
        match fd.kind() {
            FdKind::Pollable => true,
            FdKind::File => false,
            FdKind::Socket => !matches!(sys.local_name(fd), Ok(SockName::Inet(_)) | Err(_)),
        }
    }
}

fn log_left(path: &Path, error: &io::Error) {
    log::warn!("the socket file {} is left behind: {error}", path.display());
}

/// Removes a stale socket file; refuses where somebody listens or something else stands.
fn make_room(sys: &mut dyn Sys, at: &Address, path: &Path) -> Result<()> {
    let refused = |what: &str| Err(Error::address_of("listen", at.to_string(), what.into()));
    match sys.occupant(path) {
        Ok(Occupant::Nobody) => Ok(()),
        Ok(Occupant::Listening) => {
            Err(Error::new("listen", io::Error::from(io::ErrorKind::AddrInUse))
                .at(at)
                .because("somebody listens there already (`ss -lxp` says who)"))
        }
        Ok(Occupant::NotASocket) => {
            refused("something that is not a socket stands there; it is not touched")
        }
        Ok(Occupant::Stale) => {
            sys.unlink(path).map_err(|error| Error::new("replace the stale socket", error).at(at))
        }
        Err(error) => Err(Error::new("listen", error).at(at)),
    }
}

/// The `mode` parameter.
fn mode_of(address: &Address) -> Result<Option<u32>> {
    let Some(text) = address.parameter("mode") else { return Ok(None) };
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(Some(mode)),
        _ => Err(Error::address_of(
            "parse",
            address.to_string(),
            format!("parameter `mode={text}` wants an octal file mode, like mode=660"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<Target> {
        Unix.target(&text.parse().expect("it has a scheme"))
    }

    #[test]
    fn paths_and_abstract_names_are_told_apart() {
        let path = SockName::Path("/run/x.sock".into());
        assert_eq!(
            target("unix:///run/x.sock?mode=660").expect("valid"),
            Target::Names(vec![path])
        );
        let name = SockName::Abstract(b"x".to_vec());
        assert_eq!(target("unix://@x").expect("valid"), Target::Names(vec![name]));
    }

    #[test]
    fn a_bad_address_names_the_part_and_shows_a_right_one() {
        let long = format!("unix:///{}", "x".repeat(120));
        for (text, part) in [
            ("unix://x.sock", "`x.sock` is relative"),
            ("unix://@", "behind `@`"),
            (long.as_str(), "121 bytes"),
            ("unix:///x?mode=999", "mode=999"),
            ("unix:///x?uid=0", "`uid`"),
        ] {
            let error = target(text).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
