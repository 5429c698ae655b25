//! A build without the relay.

use anyhow::Result;

use crate::cli::serve::say;

/// Says what is missing.
pub fn run(_engine: &str) -> Result<()> {
    say("this build has no relay: build with --features relay to see the bus");
    Ok(())
}
