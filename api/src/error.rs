//! The error of the public API: what was tried, on which address, and why it failed.

use std::fmt;
use std::io;

/// What a verb of the public API fails with.
///
/// ```
/// let error = "nonsense".parse::<ringlane_api::Address>().unwrap_err();
/// assert_eq!(error.operation(), "parse");
/// assert_eq!(error.address(), Some("nonsense"));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Error {
    operation: &'static str,
    address: Option<String>,
    what: Option<String>,
    source: Option<io::Error>,
}

/// What a verb of the public API gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An operation that the kernel refused.
    pub fn new(operation: &'static str, source: io::Error) -> Error {
        Error { operation, address: None, what: None, source: Some(source) }
    }

    /// An operation that we refuse, and why.
    pub fn refused(operation: &'static str, what: impl Into<String>) -> Error {
        Error { operation, address: None, what: Some(what.into()), source: None }
    }

    /// An address that makes no sense.
    pub fn address_of(operation: &'static str, address: String, what: String) -> Error {
        Error { operation, address: Some(address), what: Some(what), source: None }
    }

    /// An address that cannot be parsed.
    pub fn bad_address(address: String, what: String) -> Error {
        Error::address_of("parse", address, what)
    }

    /// The same error, with the address it happened on.
    #[must_use]
    pub fn at(mut self, address: impl ToString) -> Error {
        self.address = Some(address.to_string());
        self
    }

    /// The same error, with a sentence that says more or what to do.
    #[must_use]
    pub fn because(mut self, what: impl Into<String>) -> Error {
        self.what = Some(what.into());
        self
    }

    /// What was tried: `listen`, `connect`, `send`, …
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// On which address.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// The kernel's reason.
    pub fn io(&self) -> Option<&io::Error> {
        self.source.as_ref()
    }

    /// The kind of the kernel's reason; `InvalidInput` where it was not the kernel.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.as_ref().map_or(io::ErrorKind::InvalidInput, io::Error::kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        if let Some(address) = &self.address {
            write!(f, " {address}")?;
        }
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        if let Some(what) = &self.what {
            write!(f, ": {what}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}
