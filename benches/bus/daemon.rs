//! Processes of the bench: servers and clients, none of which outlives it.
//!
//! Each one begins as this program, asks the kernel to be killed when its parent dies, and then is
//! a client or becomes the server. Dropping a [`Daemon`] kills it, too.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// A server that does not listen after so long is given up.
const START_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at something that will happen soon.
const LOOK: Duration = Duration::from_millis(5);
/// Where servers are that are not in an ordinary user's search path.
const SYSTEM_PATHS: &str = "/usr/sbin:/usr/local/sbin";

/// The first word of this program's arguments where it becomes another program.
pub const BECOME: &str = "become";

/// Where a program is.
pub fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var("PATH").unwrap_or_default() + ":" + SYSTEM_PATHS;
    paths.split(':').map(|dir| PathBuf::from(dir).join(program)).find(|path| path.is_file())
}

/// Free ports of the loopback, all different.
pub fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    // All are held until the last one is known.
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Makes the calling process die with its parent.
pub fn die_with_parent() -> io::Result<()> {
    let parent = getppid();
    set_pdeathsig(Signal::SIGKILL)?;
    // It may have died before that.
    if getppid() != parent || parent.as_raw() == 1 {
        return Err(io::Error::other("the bench has ended"));
    }
    Ok(())
}

/// What [`BECOME`] does: this process is `words[0]` from now on. Returns only what went wrong.
pub fn become_program(words: &[String]) -> io::Error {
    let Some((program, arguments)) = words.split_first() else {
        return io::Error::other("no program to become");
    };
    if let Err(error) = die_with_parent() {
        return error;
    }
    Command::new(program).args(arguments).exec()
}

/// A process, for as long as it is needed.
pub struct Daemon {
    child: Child,
    name: String,
}

impl Daemon {
    /// Starts an installed program and gives it `input` to read.
    pub fn start(program: &str, arguments: &[String], input: &str) -> io::Result<Daemon> {
        let path =
            find(program).ok_or_else(|| io::Error::other(format!("{program}: not found")))?;
        let mut words = vec![BECOME.to_string(), path.display().to_string()];
        words.extend_from_slice(arguments);
        Daemon::own(program, &words, input)
    }

    /// Starts this program again, with these arguments.
    pub fn own(name: &str, arguments: &[String], input: &str) -> io::Result<Daemon> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        Ok(Daemon { child, name: name.to_string() })
    }

    /// Waits until it listens.
    pub fn listening(mut self, port: u16) -> io::Result<Daemon> {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if self.child.try_wait()?.is_some() {
                let said = self.said();
                return Err(io::Error::other(format!("{} ended: {said}", self.name)));
            }
            if begun.elapsed() > START_WITHIN {
                return Err(io::Error::other(format!("{} does not listen", self.name)));
            }
            std::thread::sleep(LOOK);
        }
        Ok(self)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end and returns what it printed, which is short.
    pub fn ended(&mut self, within: Duration) -> io::Result<String> {
        let begun = Instant::now();
        loop {
            if self.child.try_wait()?.is_some() {
                return Ok(self.said());
            }
            if begun.elapsed() > within {
                return Err(io::Error::other(format!("{} takes too long", self.name)));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What it printed before it ended; its last line, if there is no end.
    fn said(&mut self) -> String {
        let _gone_or_not = self.child.kill();
        let out = self.child.stdout.take().map(read).unwrap_or_default();
        let wrong = self.child.stderr.take().map(read).unwrap_or_default();
        let last = wrong.lines().last().unwrap_or("").trim().to_string();
        if out.trim().is_empty() { last } else { out.trim().to_string() }
    }
}

/// What is in a pipe whose writers have ended.
fn read(pipe: impl Into<std::os::fd::OwnedFd>) -> String {
    let mut text = Vec::new();
    // What could be read before an error says enough.
    let _some = File::from(pipe.into()).take(64 << 10).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone_or_not = self.child.kill();
        let _reaped = self.child.wait();
    }
}
