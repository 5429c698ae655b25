//! The descriptor limit: raised once at the start, and what it allows.

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors left for everything that is not a connection: ring, listeners, signals, stdio.
const OTHER_DESCRIPTORS: u64 = 64;

/// Raises the soft limit to the hard one and says what it is. Returns how many connections of
/// `per_connection` descriptors fit.
pub fn raise(per_connection: u64) -> Result<usize> {
    let (connections, what) = raise_quietly(per_connection)?;
    eprintln!("ringlane: {what}");
    Ok(connections)
}

/// The same for who has nobody to tell it to; what there would be to say comes with it.
pub fn raise_quietly(per_connection: u64) -> Result<(usize, String)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("descriptor limit")?;
    let mut limit = soft;
    if soft < hard {
        match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => limit = hard,
            Err(error) => eprintln!("ringlane: descriptor limit stays {soft}: {error}"),
        }
    }
    let connections = limit.saturating_sub(OTHER_DESCRIPTORS) / per_connection;
    let connections = usize::try_from(connections.clamp(1, u64::from(u32::MAX)))?;
    let plural = if connections == 1 { "" } else { "s" };
    let room = format!("room for {connections} connection{plural}");
    let what = if limit == soft {
        format!("descriptor limit {soft}: {room}")
    } else {
        format!("descriptor limit raised from {soft} to {limit}: {room}")
    };
    Ok((connections, what))
}
