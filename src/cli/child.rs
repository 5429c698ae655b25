//! Servers as processes of their own, so that their CPU can be read.
//!
//! Invariant: no server outlives its [`Server`]: dropping it closes the server's stdin, which
//! ends it, and reaps it; one that does not end by itself is killed. If this process is killed
//! the pipes close just the same.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::held::Held;

/// How long a server may take to say where it listens; setting up a ring is tried for 2 s.
const START: Duration = Duration::from_secs(20);

/// How long a server may take to end by itself.
const END: Duration = Duration::from_secs(5);

/// Lines of a server's stderr that are kept.
const LINES_MAX: usize = 8;

/// What a server runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// `uring` or `epoll`.
    pub engine: String,
    /// `u1` … `u5`, or `e`.
    pub tier: String,
    /// Why nothing better.
    pub fell_back: String,
}

/// The path of this program.
pub fn this_program() -> Result<PathBuf> {
    std::env::current_exe().context("finding this program")
}

/// A server process.
pub struct Server {
    child: Child,
    name: &'static str,
    address: String,
    runs: Runs,
    errors: Arc<Mutex<VecDeque<String>>>,
}

impl Server {
    /// Starts this program again with `arguments` and waits until it says where it listens.
    pub fn start(name: &'static str, engine: &str, arguments: &[&str]) -> Result<Server> {
        let mut child = Command::new(this_program()?)
            .args(["--engine", engine])
            .args(arguments)
            .arg("--child")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the {name}"))?;
        let out = child.stdout.take().expect("stdout is piped");
        let err = child.stderr.take().expect("stderr is piped");
        let runs = Runs { engine: String::new(), tier: String::new(), fell_back: String::new() };
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&errors);
        let (line, lines) = channel();
        // These threads must not take a signal that the main thread holds back at times.
        let held = Held::new()?;
        std::thread::spawn(move || keep_lines(err, &kept));
        std::thread::spawn(move || send_lines(out, &line));
        drop(held);
        let mut server = Server { child, name, address: String::new(), runs, errors };
        server.hear(&lines)?;
        Ok(server)
    }

    /// Reads what a server started with `--child` says first: its engine, and where it listens.
    fn hear(&mut self, lines: &Receiver<String>) -> Result<()> {
        while self.address.is_empty() {
            let line = match lines.recv_timeout(START) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => bail!("the {} does not start", self.name),
                Err(RecvTimeoutError::Disconnected) => {
                    // It has ended, and its last words may still be on their way.
                    let status = self.child.wait().context("waiting for a server")?;
                    std::thread::sleep(Duration::from_millis(50));
                    let why = self.complaints().pop().unwrap_or_else(|| status.to_string());
                    let why = why.trim_start_matches("ringlane: ").to_string();
                    return Err(anyhow!("the {} does not start: {why}", self.name));
                }
            };
            let mut words = line.splitn(4, ' ');
            match words.next() {
                Some("engine") => {
                    let mut word = || words.next().unwrap_or("").to_string();
                    self.runs = Runs { engine: word(), tier: word(), fell_back: word() };
                }
                Some("listening") => self.address = words.next().unwrap_or("").to_string(),
                _ => bail!("the {} says `{line}`", self.name),
            }
        }
        Ok(())
    }

    /// What it is in the chain or the measurement.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it runs on.
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it complained about, for when something went wrong.
    pub fn complaints(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let step = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        while waited < END {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(step),
                _ => return,
            }
            waited += step;
        }
        // It may have ended by itself meanwhile; both calls are then harmless.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send_lines(from: impl Read, to: &Sender<String>) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        if to.send(line).is_err() {
            return;
        }
    }
}

fn keep_lines(from: impl Read, kept: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == LINES_MAX {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}
