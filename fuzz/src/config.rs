//! The configuration: whatever the bytes are, it is a cluster or a list of what is wrong.

/// Reads the bytes as a configuration.
pub fn run(data: &[u8]) {
    ringlane::cluster::fuzz(data);
}
