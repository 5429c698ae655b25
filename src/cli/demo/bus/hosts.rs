//! Relays and processes of the demo, as processes of their own. None outlives its handle.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cli::child::this_program;
use crate::cli::held::Held;

/// How long a process may take for anything it is asked.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Lines of stderr that are kept, for when something goes wrong.
const LINES_MAX: usize = 12;

/// A folder that goes with its handle.
pub struct Folder(PathBuf);

impl Folder {
    /// A new one, which only this user may enter.
    pub fn new() -> Result<Folder> {
        let path = std::env::temp_dir().join(format!("ringlane-demo-{}", std::process::id()));
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Folder(path))
    }

    /// Writes a file that only this user may read.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let wrote = file.and_then(|mut file| file.write_all(text.as_bytes()));
        wrote.with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Somebody else may have removed it meanwhile.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that says lines and may be told some.
pub struct Process {
    pub name: String,
    child: Child,
    lines: Receiver<String>,
    errors: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    fn start(name: &str, engine: &str, arguments: &[&str]) -> Result<Process> {
        // Signals of the terminal are for the demo, which ends what it has started.
        let held = Held::new()?;
        let mut child = Command::new(this_program()?)
            .args(["--engine", engine])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let out = child.stdout.take().expect("stdout is piped");
        let err = child.stderr.take().expect("stderr is piped");
        let (line, lines) = channel();
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&errors);
        std::thread::spawn(move || {
            for text in BufReader::new(out).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    return;
                }
            }
        });
        std::thread::spawn(move || keep(err, &kept));
        drop(held);
        Ok(Process { name: name.to_string(), child, lines, errors })
    }

    /// The relay of a host; it listens when this returns.
    pub fn relay(host: &str, engine: &str, config: &Path, socket: &str) -> Result<Process> {
        let config = config.display().to_string();
        let arguments =
            ["relay", "--config", &config, "--host", host, "--socket", socket, "--child"];
        let name = format!("relay {host}");
        let mut relay = Process::start(&name, engine, &arguments)?;
        relay.until(|line| line.starts_with("relays "))?;
        Ok(relay)
    }

    /// A process on the bus.
    pub fn agent(name: &str, engine: &str, socket: &str) -> Result<Process> {
        let mut agent = Process::start(name, engine, &["agent", name, "--socket", socket])?;
        agent.until(|line| line.starts_with("here "))?;
        Ok(agent)
    }

    /// Tells it something.
    pub fn tell(&mut self, order: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{order}").with_context(|| format!("{} hears nothing", self.name))
    }

    /// The lines up to the first that fits.
    pub fn until(&mut self, fits: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                let said = self.complaints();
                bail!("{} does not go on{said}", self.name);
            };
            if line.starts_with("error") {
                bail!("{}: {line}", self.name);
            }
            let done = fits(&line);
            lines.push(line);
            if done {
                return Ok(lines);
            }
        }
    }

    fn complaints(&self) -> String {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.iter().map(|line| format!(" [{line}]")).collect()
    }

    /// `kill -9`.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))
    }

    /// Ends it in peace; says what it complained about if it cannot.
    pub fn end(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        for _ in 0..PATIENCE.as_millis() / 5 {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}{}", self.name, self.complaints()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        bail!("{} does not end", self.name)
    }

    /// Asks it to end as an operator does.
    pub fn terminate(self) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        self.end()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, or does now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep(from: impl Read, kept: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == LINES_MAX {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}
