//! The built program as a child process, and sockets that give up instead of hanging.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// After so long a test is hung, not slow.
const WATCHDOG: Duration = Duration::from_secs(60);

/// The program with these arguments.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlane"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn output(arguments: &[&str]) -> Output {
    program(arguments).output().expect("the program starts")
}

/// What it said on stderr, without what it says about limits and, on a machine without io_uring,
/// about that.
pub fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let usual = ["descriptor limit", "falling back"];
    let said = text.lines().filter(|line| !usual.iter().any(|word| line.contains(word)));
    said.collect::<Vec<_>>().join("\n")
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let step = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    while !holds() {
        assert!(waited < WATCHDOG, "hung: {what}");
        sleep(step);
        waited += step;
    }
}

/// A process that does not outlive a test that fails.
pub struct Bounded(pub Child);

impl Drop for Bounded {
    fn drop(&mut self) {
        // Both fail harmlessly if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that runs until dropped.
pub struct Running {
    child: Child,
    addresses: Vec<String>,
    errors: Arc<Mutex<String>>,
}

impl Running {
    /// Starts it and waits until it has said that it listens at `places` places.
    pub fn start(arguments: &[&str], places: usize) -> Running {
        Running::start_command(program(arguments), places)
    }

    /// The same, for a command made elsewhere.
    pub fn start_command(mut command: Command, places: usize) -> Running {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut err = child.stderr.take().expect("piped");
        let errors = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&errors);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = err.read(&mut piece) {
                kept.lock().expect("sane").push_str(&String::from_utf8_lossy(&piece[..n]));
            }
        });
        let mut addresses = Vec::new();
        while addresses.len() < places {
            let line = lines.next().expect("a line before the end").expect("readable");
            let rest = line.strip_prefix("listening ").expect("where it listens");
            addresses.push(rest.split(' ').next().expect("an address").to_string());
        }
        Running { child, addresses, errors }
    }

    /// Where it listens, by the order of its arguments.
    pub fn address(&self, place: usize) -> &str {
        &self.addresses[place]
    }

    /// A connection to its first tcp:// place.
    pub fn connect(&self) -> TcpStream {
        tcp(self.address(0))
    }

    /// What it said on stderr so far.
    pub fn errors(&self) -> String {
        self.errors.lock().expect("sane").clone()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("it is there");
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        let mut status = None;
        until("the program's end", || {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail harmlessly if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to a tcp:// address that fails instead of hanging.
pub fn tcp(address: &str) -> TcpStream {
    let place = address.strip_prefix("tcp://").expect("a tcp address");
    let stream = TcpStream::connect(place).expect("it listens");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
    stream.set_write_timeout(Some(WATCHDOG)).expect("a timeout");
    stream
}

/// A connection to a Unix address, abstract or not, that fails instead of hanging.
pub fn unix(address: &str) -> UnixStream {
    let place = address.strip_prefix("unix://").expect("a unix address");
    let stream = match place.strip_prefix('@') {
        Some(name) => {
            let name = SocketAddr::from_abstract_name(name).expect("a short name");
            UnixStream::connect_addr(&name)
        }
        None => UnixStream::connect(place),
    };
    let stream = stream.expect("it listens");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
    stream.set_write_timeout(Some(WATCHDOG)).expect("a timeout");
    stream
}

/// An abstract Unix address of this test alone.
pub fn abstract_name(test: &str) -> String {
    format!("unix://@ringlane-test-{}-{test}", std::process::id())
}

/// A directory that goes away with the test.
pub struct TempDir(pub PathBuf);

impl TempDir {
    /// A new one.
    pub fn new(test: &str) -> TempDir {
        let path = std::env::temp_dir().join(format!("ringlane-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        TempDir(path)
    }

    /// What is in it.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("it is there");
        entries.map(|e| e.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bytes that are not all alike.
pub fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..len).map(next).collect()
}

/// Processes that `pid` has started and that have not ended.
pub fn children_of(pid: u32) -> Vec<u32> {
    let is_child = |candidate: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{candidate}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after.split_whitespace().nth(1) == Some(pid.to_string().as_str())
    };
    processes().into_iter().filter(is_child).collect()
}

fn processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether none of these processes runs any more.
pub fn all_gone(pids: &[u32]) -> bool {
    // A dead orphan may wait for somebody to reap it; it is gone all the same.
    pids.iter().all(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
    })
}
