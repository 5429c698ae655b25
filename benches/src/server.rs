//! Server processes: which there are, how they are started on a core, asked, and stopped.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::peer::Role;
use crate::pin::Cpu;

/// A server that has not answered for so long is given up.
const ANSWER_MS: u16 = 10_000;

/// What the bytes go over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// 127.0.0.1
    Tcp,
    /// A path in the temporary directory.
    Unix,
}

/// Where the twins' programs are.
#[derive(Debug)]
pub struct Programs {
    /// Compiled from C when the harness starts; or why it was not.
    pub libevent: Result<PathBuf, String>,
    /// The epoll twin.
    pub epoll: PathBuf,
    /// The tokio twin.
    pub tokio: PathBuf,
    /// Ours.
    pub ringlane: PathBuf,
}

impl Programs {
    /// The command of the server `name`, or why there is none. Names: `libevent`, `epoll`,
    /// `epoll-64k`, `tokio`, `ringlane`, `ringlane-ENGINE`.
    pub fn command(&self, name: &str, role: Role, address: &str) -> Result<Vec<String>, String> {
        let (program, options): (&Path, Vec<String>) = match name {
            "libevent" => (self.libevent.as_deref().map_err(Clone::clone)?, vec![]),
            "epoll" => (&self.epoll, vec![]),
            "epoll-64k" => (&self.epoll, vec!["--buffer".into(), "64".into()]),
            "tokio" => (&self.tokio, vec![]),
            _ => {
                let engine = match name.strip_prefix("ringlane") {
                    Some("") => "auto",
                    Some(rest) => rest.trim_start_matches('-'),
                    None => return Err(format!("no server is called {name}")),
                };
                (&self.ringlane, vec!["--engine".into(), engine.into()])
            }
        };
        let role = if role == Role::Echo { "echo" } else { "sink" };
        let mut command = vec![program.display().to_string(), role.into(), address.into()];
        command.extend(options);
        Ok(command)
    }
}

/// Compiles the C twin into `dir`, unless it was since its source last changed.
pub fn compile_libevent(source: &Path, dir: &Path) -> Result<PathBuf, String> {
    let program = dir.join("libevent_echo");
    let age = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
    if let (Ok(built), Ok(written)) = (age(&program), age(source))
        && built > written
    {
        return Ok(program);
    }
    let said = Command::new("cc")
        .args(["-O2", "-o"])
        .args([&program, source])
        .arg("-levent_core")
        .output()
        .map_err(|error| format!("cc: {error}; apt-get install gcc libevent-dev"))?;
    if said.status.success() {
        return Ok(program);
    }
    let text = String::from_utf8_lossy(&said.stderr);
    let first = text.lines().next().unwrap_or("").to_string();
    Err(format!("does not compile ({first}); apt-get install libevent-dev"))
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pid: u32,
    out: BufReader<ChildStdout>,
    /// What it listens on.
    pub address: String,
}

impl Server {
    /// Starts `name` on the caller's core and with the caller's priority; `under` is put before
    /// the command, for a program that counts.
    pub fn start(
        programs: &Programs,
        name: &str,
        role: Role,
        via: Via,
        under: &[String],
    ) -> io::Result<Server> {
        let command =
            programs.command(name, role, &fresh_address(via)).map_err(io::Error::other)?;
        let command: Vec<String> = under.iter().cloned().chain(command).collect();
        let mut child =
            Command::new(&command[0]).args(&command[1..]).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().expect("stdout was piped a line above");
        let pid = child.id();
        let mut server = Server { child, pid, out: BufReader::new(out), address: String::new() };
        server.address = server.line()?;
        if !under.is_empty() {
            server.pid = only_child(server.pid)?;
        }
        Ok(server)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its on-CPU time.
    pub fn cpu(&self) -> Cpu {
        Cpu::of(self.pid)
    }

    /// Asks for its own counters.
    pub fn counters(&mut self) -> io::Result<BTreeMap<String, u64>> {
        self.signal(Signal::SIGUSR1)?;
        let line = self.line()?;
        let Some(pairs) = line.strip_prefix("counters ") else {
            return Err(io::Error::other(format!("not counters: {line}")));
        };
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            Some((key.to_string(), value.parse().ok()?))
        };
        Ok(pairs.split_whitespace().filter_map(pair).collect())
    }

    /// SIGTERM; true if it then ended by itself with success. For a counting program around it,
    /// that program's end is waited for.
    pub fn stop(mut self) -> io::Result<bool> {
        self.signal(Signal::SIGTERM)?;
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(u64::from(ANSWER_MS)) {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(false)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.pid as i32), signal)?)
    }

    fn line(&mut self) -> io::Result<String> {
        if self.out.buffer().is_empty() {
            let mut fds = [PollFd::new(self.out.get_ref().as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(ANSWER_MS))? == 0 {
                return Err(io::Error::other("the server says nothing"));
            }
        }
        let mut line = String::new();
        if self.out.read_line(&mut line)? == 0 {
            return Err(io::Error::other("the server ended"));
        }
        Ok(line.trim_end().to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone_or_not = kill(Pid::from_raw(self.pid as i32), Signal::SIGKILL);
            let _gone_or_not = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

fn fresh_address(via: Via) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    match via {
        Via::Tcp => "tcp://127.0.0.1:0".into(),
        Via::Unix => {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let dir = std::env::temp_dir();
            format!("unix://{}/versus-{}-{n}.sock", dir.display(), std::process::id())
        }
    }
}

fn only_child(pid: u32) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let first = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
    first.ok_or_else(|| io::Error::other("the counting program has no child"))
}
