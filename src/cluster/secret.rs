//! What the relays of a cluster know and nobody else: read from a file that nobody else may read.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::limits::{SECRET_BYTES_MAX, SECRET_BYTES_MIN};

/// The secret of a cluster. It never prints itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes some bytes as a secret, as they come from a file: line breaks at the end are none of
    /// it.
    ///
    /// ```
    /// use ringlane::cluster::Secret;
    /// assert_eq!(Secret::new(b"0123456789abcdef\n")?.bytes(), b"0123456789abcdef");
    /// assert!(Secret::new(b"short").is_err());
    /// # Ok::<(), String>(())
    /// ```
    pub fn new(bytes: &[u8]) -> Result<Secret, String> {
        let end = bytes.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |at| at + 1);
        let bytes = &bytes[..end];
        match bytes.len() {
            SECRET_BYTES_MIN..=SECRET_BYTES_MAX => Ok(Secret(bytes.to_vec())),
            length => Err(format!(
                "it has {length} bytes, and needs {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}"
            )),
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a secret of {} bytes", self.0.len())
    }
}

/// A command that makes one.
pub(super) fn how_to_make(path: &Path) -> String {
    let path = path.display();
    format!("make one with: (umask 077; head -c 32 /dev/urandom | base64 > {path})")
}

/// What is wrong with a secret's file, and what to do about it.
type Wrong = (String, Option<String>);

/// Reads a secret, if its file is one that nobody else can have read or written.
pub(super) fn read(path: &Path) -> Result<Secret, Wrong> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => Some(how_to_make(path)),
            std::io::ErrorKind::PermissionDenied => {
                Some("the relay's own user, or root, must be able to read it".into())
            }
            _ => None,
        };
        (format!("cannot read {shown}: {error}"), help)
    };
    // A fifo must not hold the reader up.
    let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = file.map_err(unreadable)?;
    // Of the open file, so that it is the one that is read.
    let about = file.metadata().map_err(unreadable)?;
    check(path, about.is_file(), about.mode(), about.uid(), geteuid().as_raw())?;
    let mut bytes = Vec::new();
    let most = SECRET_BYTES_MAX as u64 + 3;
    file.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
    Secret::new(&bytes).map_err(|what| (format!("{shown}: {what}"), Some(how_to_make(path))))
}

/// Whether a file with these properties keeps a secret.
pub(super) fn check(
    path: &Path,
    is_file: bool,
    mode: u32,
    owner: u32,
    own: u32,
) -> Result<(), Wrong> {
    let shown = path.display();
    if !is_file {
        return Err((format!("{shown} is not a regular file"), Some(how_to_make(path))));
    }
    if mode & 0o077 != 0 {
        let what = format!("{shown} is open to others (mode {:03o})", mode & 0o777);
        return Err((what, Some(format!("close it with: chmod 600 {shown}"))));
    }
    if owner != 0 && owner != own {
        let what = format!("{shown} belongs to uid {owner}, who could read and change it");
        return Err((what, Some(format!("give it to the relay with: chown {own} {shown}"))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_file_of_the_relay_or_of_root_keeps_a_secret() {
        let check = |is_file, mode, owner| check(Path::new("s"), is_file, mode, owner, 1000);
        assert_eq!(check(true, 0o600, 1000), Ok(()));
        assert_eq!(check(true, 0o400, 0), Ok(()));
        for mode in [0o640, 0o604, 0o660, 0o601] {
            let (what, help) = check(true, 0o100_000 | mode, 0).expect_err("open");
            assert!(what.contains(&format!("mode {mode:03o}")), "{what}");
            assert_eq!(help.as_deref(), Some("close it with: chmod 600 s"));
        }
        let (what, help) = check(true, 0o600, 7).expect_err("foreign");
        assert!(what.contains("uid 7") && help.is_some_and(|help| help.contains("chown 1000 s")));
        assert!(check(false, 0o600, 0).expect_err("a folder").0.contains("not a regular file"));
    }

    #[test]
    fn a_secret_has_enough_bytes_and_does_not_print_them() {
        let secret = Secret::new(b"0123456789abcdef\r\n\n").expect("enough");
        assert_eq!(secret.bytes(), b"0123456789abcdef");
        assert_eq!(format!("{secret:?}"), "a secret of 16 bytes");
        assert!(Secret::new(b"0123456789abcde\n").is_err() && Secret::new(b"\n\n").is_err());
        assert!(Secret::new(&[7; SECRET_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn what_cannot_be_read_says_how_to_make_one() {
        let (what, help) = read(Path::new("/nonexistent/demo.secret")).expect_err("not there");
        assert!(what.contains("/nonexistent/demo.secret"), "{what}");
        assert!(help.is_some_and(|help| help.contains("umask 077")));
        assert!(read(Path::new("/")).is_err());
        assert!(read(Path::new("/dev/null")).expect_err("no file").0.contains("regular"));
    }
}
