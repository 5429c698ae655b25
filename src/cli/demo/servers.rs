//! The servers of the demo.
//!
//! ```text
//!   client -> tcp -> forward -> unix -> forward -> tcp -> echo
//! ```

use anyhow::Result;

use crate::cli::child::{Runs, Server};
use crate::cli::proc;

/// The echo server and the two proxies in front of it.
pub struct Chain {
    // Dropped in this order: the client's end first.
    servers: [Server; 3],
}

impl Chain {
    /// Starts all three on `engine`; `number` tells chains of one process apart.
    pub fn start(engine: &str, number: usize) -> Result<Chain> {
        let echo = Server::start("echo", engine, &["echo", "tcp://127.0.0.1:0"])?;
        // An abstract name leaves nothing behind in the file system.
        let name = format!("unix://@ringlane-demo-{}-{number}", std::process::id());
        let inner = Server::start("proxy", engine, &["forward", &name, echo.address()])?;
        let outer = ["forward", "tcp://127.0.0.1:0", inner.address()];
        let outer = Server::start("proxy", engine, &outer)?;
        Ok(Chain { servers: [outer, inner, echo] })
    }

    /// Where the client goes.
    pub fn address(&self) -> &str {
        self.servers[0].address()
    }

    /// What each server runs on.
    pub fn runs(&self) -> impl Iterator<Item = &Runs> {
        self.servers.iter().map(Server::runs)
    }

    /// CPU time of all three so far, in milliseconds.
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
