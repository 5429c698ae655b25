//! Random bits that tell one instance or introduction from another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 128 random bits, in hexadecimal: which instance of a process, which introduction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce(pub [u8; 16]);

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> String {
        nonce.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Nonce {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Nonce, &'static str> {
        let what = "32 hexadecimal digits";
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(what);
        }
        let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16);
        let mut bytes = [0; 16];
        for (at, into) in bytes.iter_mut().enumerate() {
            *into = byte(at).map_err(|_| what)?;
        }
        Ok(Nonce(bytes))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_its_hexadecimal_digits() {
        let nonce = Nonce(std::array::from_fn(|at| at as u8 * 17));
        let text = String::from(nonce);
        assert_eq!(Nonce::try_from(text), Ok(nonce));
        for bad in ["", "00", "zz112233445566778899aabbccddeeff", "0011223344556677889900"] {
            assert!(Nonce::try_from(bad.to_string()).is_err(), "{bad}");
        }
    }
}
