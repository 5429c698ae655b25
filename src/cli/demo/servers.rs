//! The servers of the demo: an echo server behind proxies, so that the bytes go over every
//! transport of this build.
//!
//! ```text
//!   client -> tcp -> forward -> shm -> forward -> unix -> echo
//! ```

use anyhow::Result;

use crate::cli::child::{Runs, Server};
use crate::cli::proc;

/// Links of a chain, at least: a build with fewer transports goes over them again.
const LINKS_MIN: usize = 3;

/// Where the servers listen, the client's end first; `number` tells chains of one process apart.
fn addresses(number: usize) -> Vec<String> {
    let unique = format!("ringlane-demo-{}-{number}", std::process::id());
    let mut all = ringlane::local_addresses(&unique);
    for again in 1..LINKS_MIN {
        if all.len() < LINKS_MIN {
            let more = ringlane::local_addresses(&format!("{unique}-{again}"));
            all.extend(more.into_iter().take(LINKS_MIN - all.len()));
        }
    }
    all
}

/// The way of the bytes in words, and what is not on it.
pub fn way() -> Vec<String> {
    let scheme = |address: &String| address.split("://").next().unwrap_or_default().to_string();
    let schemes: Vec<String> = addresses(0).iter().map(scheme).collect();
    let mut lines =
        vec![format!("client -> {} -> echo, and back", schemes.join(" -> forward -> "))];
    for known in ringlane::KNOWN.iter().filter(|known| !schemes.iter().any(|s| s == known.scheme)) {
        lines.push(format!(
            "not over {}://, which this build has not; build with --features {}",
            known.scheme, known.feature
        ));
    }
    lines
}

/// The echo server and the proxies in front of it.
pub struct Chain {
    // The client's end first, and dropped in this order.
    servers: Vec<Server>,
}

impl Chain {
    /// Starts all of them on `engine`.
    pub fn start(engine: &str, number: usize) -> Result<Chain> {
        let mut chain = Chain { servers: Vec::new() };
        for at in addresses(number).iter().rev() {
            let server = match chain.servers.first() {
                None => Server::start("echo", engine, &["echo", at])?,
                Some(next) => Server::start("proxy", engine, &["forward", at, next.address()])?,
            };
            chain.servers.insert(0, server);
        }
        Ok(chain)
    }

    /// Where the client goes.
    pub fn address(&self) -> &str {
        self.servers[0].address()
    }

    /// What each server runs on.
    pub fn runs(&self) -> impl Iterator<Item = &Runs> {
        self.servers.iter().map(Server::runs)
    }

    /// CPU time of all of them so far, in milliseconds.
    pub fn cpu_ms(&self) -> u64 {
        self.servers.iter().filter_map(|server| proc::cpu_ms(server.pid())).sum()
    }

    /// The largest peak of resident memory among them, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let peaks = self.servers.iter().filter_map(|server| proc::peak_kib(server.pid()));
        peaks.max().unwrap_or(0)
    }

    /// What the servers complained about, for when something went wrong.
    pub fn complaints(&self) -> Vec<String> {
        let all = self.servers.iter().flat_map(|server| {
            server.complaints().into_iter().map(|line| format!("{}: {line}", server.name()))
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_has_links_of_every_transport_and_no_address_twice() {
        let addresses = addresses(7);
        assert!(addresses.len() >= LINKS_MIN, "{addresses:?}");
        let named: Vec<_> = addresses.iter().filter(|address| address.contains('@')).collect();
        let unique: std::collections::BTreeSet<_> = named.iter().collect();
        assert_eq!(unique.len(), named.len(), "{addresses:?}");
        let way = way();
        for known in ringlane::KNOWN {
            assert!(way.iter().any(|line| line.contains(known.scheme)), "{way:?}");
        }
    }
}
