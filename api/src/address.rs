//! `scheme://where?key=value&…`: the one way to name an end, whatever carries the bytes.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A parsed address. What stands behind `://` is the transport's to read.
///
/// ```
/// use ringlane_api::Address;
/// let address: Address = "unix:///run/x.sock?mode=660".parse()?;
/// assert_eq!(address.scheme(), "unix");
/// assert_eq!(address.target(), "/run/x.sock");
/// assert_eq!(address.parameter("mode"), Some("660"));
/// # Ok::<(), ringlane_api::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    scheme: String,
    target: String,
    parameters: Vec<(String, String)>,
}

impl Address {
    /// Puts an address together.
    pub fn new(scheme: &str, target: &str) -> Address {
        Address { scheme: scheme.into(), target: target.into(), parameters: Vec::new() }
    }

    /// What stands before `://`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What stands between `://` and `?`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The value of a parameter.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All parameters in order.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Refuses any parameter that is not in `known`, naming those that are, and one that stands
    /// there twice.
    pub fn only_parameters(&self, known: &[&str]) -> Result<(), Error> {
        for (at, (key, _)) in self.parameters().enumerate() {
            if self.parameters().take(at).any(|(before, _)| before == key) {
                let what = format!("parameter `{key}` stands twice; write it once");
                return Err(Error::bad_address(self.to_string(), what));
            }
            if !known.contains(&key) {
                let list = if known.is_empty() { "none".into() } else { known.join(", ") };
                return Err(Error::bad_address(
                    self.to_string(),
                    format!("unknown parameter `{key}`; {}:// takes: {list}", self.scheme),
                ));
            }
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        let bad = |what: String| Error::bad_address(text.to_string(), what);
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(bad(
                "no scheme; write it like tcp://127.0.0.1:8080 or unix:///run/x.sock".into()
            ));
        };
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '+';
        if scheme.is_empty() || !scheme.chars().all(letter) {
            return Err(bad(format!(
                "scheme `{scheme}` is not lower-case letters; write it like tcp://127.0.0.1:8080"
            )));
        }
        let (target, query) = rest.split_once('?').unwrap_or((rest, ""));
        if target.is_empty() {
            return Err(bad(format!(
                "nothing stands behind `{scheme}://`; write it like tcp://127.0.0.1:8080 or \
                 unix:///run/x.sock"
            )));
        }
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                    parameters.push((key.to_string(), value.to_string()));
                }
                _ => {
                    return Err(bad(format!(
                        "parameter `{pair}` is not key=value; write it like \
                         unix:///run/x.sock?mode=660"
                    )));
                }
            }
        }
        Ok(Address { scheme: scheme.into(), target: target.into(), parameters })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.target)?;
        for (i, (key, value)) in self.parameters.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_was_written() {
        for text in ["tcp://[::1]:80", "unix://@name", "unix:///a/b?mode=600&x=y"] {
            assert_eq!(text.parse::<Address>().expect("valid").to_string(), text);
        }
    }

    #[test]
    fn a_bad_address_names_the_part_and_shows_a_right_one() {
        for (text, part) in [
            ("127.0.0.1:80", "no scheme"),
            ("TCP://x:1", "`TCP`"),
            ("tcp://", "behind `tcp://`"),
            ("tcp://h:1?mode", "`mode`"),
        ] {
            let error = text.parse::<Address>().expect_err("invalid").to_string();
            assert!(error.contains(part) && error.contains("like"), "{error}");
        }
    }
}
