//! What the Rust twins have in common: the command line, the listening socket, the two lines they
//! print. `NAME echo|sink ADDRESS [OPTION…]`; the first line on stdout is the address that the
//! generator connects to; a `counters k=v …` line follows each SIGUSR1.

use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{Backlog, listen};

/// Connections that may wait to be accepted: more than a cell opens between two rests.
const BACKLOG: i32 = 4096;

/// What a twin does with the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Sends them back.
    Echo,
    /// Drops them, and answers the end of the stream with their number (u64, little endian).
    Sink,
}

/// The command line of a twin.
#[derive(Debug)]
pub struct Args {
    /// Echo or sink.
    pub role: Role,
    /// Where to listen: `tcp://127.0.0.1:0` or `unix:///path`.
    pub address: String,
    /// What follows.
    pub rest: Vec<String>,
}

impl Args {
    /// Reads the command line.
    pub fn from_env() -> io::Result<Args> {
        let mut args = std::env::args().skip(1);
        let role = match args.next().as_deref() {
            Some("echo") => Role::Echo,
            Some("sink") => Role::Sink,
            _ => return Err(io::Error::other("usage: NAME echo|sink ADDRESS [OPTION…]")),
        };
        let address = args.next().ok_or_else(|| io::Error::other("no address"))?;
        Ok(Args { role, address, rest: args.collect() })
    }

    /// The value that follows the option `name`.
    pub fn option(&self, name: &str) -> Option<&str> {
        let at = self.rest.iter().position(|arg| arg == name)?;
        self.rest.get(at + 1).map(String::as_str)
    }
}

/// A listening socket, non-blocking.
#[derive(Debug)]
pub enum Socket {
    /// `tcp://`
    Tcp(TcpListener),
    /// `unix://`
    Unix(UnixListener),
}

impl Socket {
    /// Binds, listens, and returns the real address.
    pub fn bind(address: &str) -> io::Result<(Socket, String)> {
        let backlog = Backlog::new(BACKLOG)?;
        if let Some(target) = address.strip_prefix("tcp://") {
            let socket = TcpListener::bind(target)?;
            socket.set_nonblocking(true)?;
            listen(&socket, backlog)?;
            let real = format!("tcp://{}", socket.local_addr()?);
            return Ok((Socket::Tcp(socket), real));
        }
        if let Some(path) = address.strip_prefix("unix://") {
            let _gone_or_not = fs::remove_file(path);
            let socket = UnixListener::bind(path)?;
            socket.set_nonblocking(true)?;
            listen(&socket, backlog)?;
            return Ok((Socket::Unix(socket), address.to_string()));
        }
        Err(io::Error::other("address: tcp://127.0.0.1:0 or unix:///path"))
    }

    /// Accepts one connection: non-blocking, TCP_NODELAY.
    pub fn accept(&self) -> io::Result<OwnedFd> {
        match self {
            Socket::Tcp(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            }
        }
    }

    /// The descriptor.
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Raises the soft descriptor limit to the hard one.
pub fn raise_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Refused only if the limits changed in between; the cell then says what it lacks.
        let _best_effort = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Prints one line for the harness to read.
pub fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
