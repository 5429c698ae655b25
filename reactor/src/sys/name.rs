//! Names of sockets, between our words and the kernel's.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use ringlane_api::reactor::SockName;
use socket2::SockAddr;

/// Bytes in the path of a Unix socket: sun_path has 108, and the last one is a zero.
pub(crate) const PATH_BYTES_MAX: usize = 107;

/// The kernel's form of a name.
pub(crate) fn to_kernel(name: &SockName) -> io::Result<SockAddr> {
    match name {
        SockName::Inet(address) => Ok(SockAddr::from(*address)),
        SockName::Path(path) if super::fits(path) => SockAddr::unix(path),
        SockName::Path(path) => Err(refused("path", path.as_os_str().as_bytes())),
        SockName::Abstract(name) if name.is_empty() || name.len() > PATH_BYTES_MAX => {
            Err(refused("abstract name", name))
        }
        SockName::Abstract(name) => {
            let mut bytes = [0u8; PATH_BYTES_MAX + 1];
            bytes[1..=name.len()].copy_from_slice(name);
            SockAddr::unix(OsStr::from_bytes(&bytes[..=name.len()]))
        }
        SockName::Unnamed => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a socket without a name cannot be bound or connected to",
        )),
    }
}

fn refused(what: &str, bytes: &[u8]) -> io::Error {
    let text = if bytes.is_empty() {
        format!("the {what} of a Unix socket is empty")
    } else if bytes.len() > PATH_BYTES_MAX {
        format!(
            "the {what} of a Unix socket has {} bytes; the limit is {PATH_BYTES_MAX} bytes",
            bytes.len()
        )
    } else {
        format!("the {what} of a Unix socket has a zero byte in it")
    };
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Our form of a name the kernel told.
pub(crate) fn from_kernel(name: &SockAddr) -> io::Result<SockName> {
    if let Some(address) = name.as_socket() {
        return Ok(SockName::Inet(address));
    }
    if !name.is_unix() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("a socket of address family {}", name.family()),
        ));
    }
    Ok(match (name.as_pathname(), name.as_abstract_namespace()) {
        (Some(path), _) => SockName::Path(path.to_path_buf()),
        (None, Some(name)) => SockName::Abstract(name.to_vec()),
        (None, None) => SockName::Unnamed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_too_long_is_refused_with_the_limit() {
        let name = SockName::Path("x".repeat(108).into());
        let error = to_kernel(&name).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("107 bytes"), "{error}");
        let name = SockName::Path("x".repeat(107).into());
        assert_eq!(from_kernel(&to_kernel(&name).expect("fits")).expect("ours"), name);
    }

    #[test]
    fn an_abstract_name_comes_back_as_it_was_given() {
        let name = SockName::Abstract(b"ringlane\0x".to_vec());
        assert_eq!(from_kernel(&to_kernel(&name).expect("fits")).expect("ours"), name);
        assert!(to_kernel(&SockName::Abstract(vec![b'x'; 108])).is_err());
    }
}
