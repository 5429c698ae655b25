//! Lines between a process and its relay: what is read is written as something that is read as the
//! same again, and a line has no end inside.

use ringlane::bus::local::{FromRelay, ToRelay, decode, encode};

/// Reads the bytes as a line of either side.
pub fn run(data: &[u8]) {
    if let Ok(line) = decode::<ToRelay>(data) {
        let bytes = encode(&line);
        assert_eq!(bytes.iter().position(|byte| *byte == b'\n'), Some(bytes.len() - 1));
        assert_eq!(decode(&bytes), Ok(line));
    }
    if let Ok(line) = decode::<FromRelay>(data) {
        let bytes = encode(&line);
        assert_eq!(bytes.iter().position(|byte| *byte == b'\n'), Some(bytes.len() - 1));
        assert_eq!(decode(&bytes), Ok(line));
    }
}
