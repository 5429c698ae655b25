//! The generator: one thread, edge-triggered epoll, every connection's bytes known in advance.
//!
//! The invariant: a turn gives each ready connection one receive and one send, so the generator
//! adds no unfairness of its own; and a run ends only when every byte is accounted for.

use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::link::{Kind, Link, Pattern};
use crate::pin::{Cpu, machine_busy_ns, own_cpu_ns};

/// Bytes that one receive asks for.
const SCRATCH_BYTES: usize = 256 * 1024;
/// After so many connects the generator rests, so that a server on the same core can accept.
const CONNECTS_PER_REST: usize = 64;
/// A run in which nothing moves for so long has failed.
const STALL: Duration = Duration::from_secs(10);
/// How far apart the streams of two connections start in the pattern.
const BASE_STEP: u64 = 7919;

/// Connections that do the same thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    /// How many.
    pub conns: usize,
    /// Bytes per message.
    pub size: usize,
    /// Messages on their way at a time.
    pub depth: usize,
    /// Echo or stream.
    pub kind: Kind,
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After warming up and measuring for so long.
    Time {
        /// Not measured.
        warm: Duration,
        /// Measured.
        measure: Duration,
    },
    /// When so many messages are back in all.
    Messages(u64),
}

/// What one group did in the measured window.
#[derive(Debug)]
pub struct Tally {
    /// Messages, with fractions: a window may end within one.
    pub messages: f64,
    /// Bytes echoed, or for a stream bytes that the server's kernel took.
    pub bytes: u64,
    /// Latency in ns.
    pub latency: Histogram<u64>,
}

/// What a run did.
#[derive(Debug)]
pub struct Outcome {
    /// One per group.
    pub groups: Vec<Tally>,
    /// Length of the window.
    pub wall: Duration,
    /// On-CPU time of all threads of the server in the window.
    pub server_ns: u64,
    /// On-CPU time of the generator's thread in the window.
    pub own_ns: u64,
    /// Time that the cores were not idle in the window, whoever used them.
    pub machine_ns: u64,
}

impl Outcome {
    /// Messages of all groups.
    pub fn messages(&self) -> f64 {
        self.groups.iter().map(|tally| tally.messages).sum()
    }
}

/// The clocks at one end of a window.
struct Reading {
    at: Instant,
    server: u64,
    own: u64,
    machine: u64,
}

impl Reading {
    fn now(server: &Cpu) -> io::Result<Reading> {
        Ok(Reading {
            at: Instant::now(),
            server: server.ns()?,
            own: own_cpu_ns()?,
            machine: machine_busy_ns()?,
        })
    }
}

/// Connects once, as the address says.
pub fn connect(address: &str) -> io::Result<OwnedFd> {
    if let Some(target) = address.strip_prefix("tcp://") {
        let stream = TcpStream::connect(target)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        return Ok(stream.into());
    }
    let path = address.strip_prefix("unix://").ok_or_else(|| io::Error::other("address"))?;
    // A Unix connect fails with EAGAIN when the backlog is full, instead of waiting.
    let began = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_nonblocking(true)?;
                return Ok(stream.into());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && began.elapsed() < STALL => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The generator with its connections.
pub struct Load {
    links: Vec<(usize, Link)>,
    groups: Vec<Group>,
    epoll: Epoll,
    pattern: Pattern,
    scratch: Vec<u8>,
    ready: Vec<usize>,
    bytes: Vec<u64>,
    latency: Vec<Histogram<u64>>,
    is_tcp: bool,
}

impl Load {
    /// Opens all connections of `groups` to `address`.
    pub fn open(address: &str, groups: &[Group]) -> io::Result<Load> {
        let longest = groups.iter().map(|group| group.size).max().unwrap_or(0);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut links: Vec<(usize, Link)> = Vec::new();
        for (g, group) in groups.iter().enumerate() {
            for _ in 0..group.conns {
                let i = links.len();
                let fd = connect(address)?;
                let link = Link::new(fd, group.kind, group.size, i as u64 * BASE_STEP);
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                epoll.add(&link, EpollEvent::new(flags, i as u64))?;
                links.push((g, link));
                if i % CONNECTS_PER_REST == CONNECTS_PER_REST - 1 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
        Ok(Load {
            links,
            groups: groups.to_vec(),
            epoll,
            pattern: Pattern::new(longest.max(SCRATCH_BYTES)),
            scratch: vec![0; SCRATCH_BYTES],
            ready: Vec::new(),
            bytes: vec![0; groups.len()],
            latency: groups.iter().map(|_| empty_histogram()).collect(),
            is_tcp: address.starts_with("tcp://"),
        })
    }

    /// Drives the connections `until` then, and until every byte is accounted for. `server` is
    /// read at both ends of the measured window.
    pub fn run(mut self, until: Until, server: &Cpu) -> io::Result<Outcome> {
        for i in 0..self.links.len() {
            let (g, link) = &mut self.links[i];
            if link.kind() == Kind::Echo {
                link.ask(self.groups[*g].depth);
            }
            link.queued = true;
            self.ready.push(i);
        }
        let outcome = match until {
            Until::Time { warm, measure } => {
                let start = Instant::now();
                self.drive(|_| start.elapsed() < warm)?;
                self.forget();
                let before = Reading::now(server)?;
                self.drive(|_| before.at.elapsed() < measure)?;
                self.tally(&before, &Reading::now(server)?)
            }
            Until::Messages(n) => {
                let before = Reading::now(server)?;
                let sizes: Vec<u64> = self.groups.iter().map(|g| g.size as u64).collect();
                self.drive(|bytes| bytes.iter().zip(&sizes).map(|(b, s)| b / s).sum::<u64>() < n)?;
                self.drain()?;
                self.tally(&before, &Reading::now(server)?)
            }
        };
        self.drain()?;
        self.close()?;
        Ok(outcome)
    }

    fn forget(&mut self) {
        self.bytes.fill(0);
        self.latency.iter_mut().for_each(Histogram::reset);
    }

    fn tally(&self, before: &Reading, after: &Reading) -> Outcome {
        let groups = self.groups.iter().zip(&self.bytes).zip(&self.latency);
        let groups = groups
            .map(|((group, &bytes), latency)| Tally {
                messages: bytes as f64 / group.size as f64,
                bytes,
                latency: latency.clone(),
            })
            .collect();
        Outcome {
            groups,
            wall: after.at - before.at,
            server_ns: after.server - before.server,
            own_ns: after.own - before.own,
            machine_ns: after.machine - before.machine,
        }
    }

    /// Turns while `goes_on(bytes per group)`.
    fn drive(&mut self, goes_on: impl Fn(&[u64]) -> bool) -> io::Result<()> {
        let mut moved = Instant::now();
        while goes_on(&self.bytes) {
            if self.turn(true)? {
                moved = Instant::now();
            } else if moved.elapsed() > STALL {
                return Err(io::Error::other("nothing moved for 10 s"));
            }
        }
        Ok(())
    }

    /// Waits until every echo is back; asks for no more.
    fn drain(&mut self) -> io::Result<()> {
        let mut moved = Instant::now();
        while !self.links.iter().all(|(_, link)| link.settled()) {
            if self.turn(false)? {
                moved = Instant::now();
            } else if moved.elapsed() > STALL {
                let owing = self.links.iter().filter(|(_, link)| !link.settled()).count();
                return Err(io::Error::other(format!("{owing} connections miss bytes")));
            }
        }
        Ok(())
    }

    /// One turn over what is ready; whether any byte moved.
    fn turn(&mut self, more: bool) -> io::Result<bool> {
        let mut events = [EpollEvent::empty(); 1024];
        let wait = if self.ready.is_empty() { 100u8 } else { 0 };
        let n = match self.epoll.wait(&mut events, EpollTimeout::from(wait)) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        for event in &events[..n] {
            let i = event.data() as usize;
            let link = &mut self.links[i].1;
            let flags = event.events();
            let ended = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
            link.mark(
                ended || flags.contains(EpollFlags::EPOLLIN),
                flags.contains(EpollFlags::EPOLLOUT),
            );
            if !link.queued {
                link.queued = true;
                self.ready.push(i);
            }
        }
        let mut any = false;
        let mut work = std::mem::take(&mut self.ready);
        for i in work.drain(..) {
            let (g, link) = &mut self.links[i];
            let latency = &mut self.latency[*g];
            let mut done = |ns: u64| latency.saturating_record(ns);
            let step = link.step(&self.pattern, &mut self.scratch, more, &mut done)?;
            self.bytes[*g] += match link.kind() {
                Kind::Echo => step.received,
                Kind::Stream => step.sent,
            };
            any |= step.received + step.sent > 0;
            link.queued = step.again;
            if step.again {
                self.ready.push(i);
            }
        }
        if self.ready.is_empty() {
            self.ready = work;
        }
        Ok(any)
    }

    /// Ends every connection in order; a sink says how many bytes it got.
    fn close(self) -> io::Result<()> {
        for (_, link) in self.links {
            let (kind, sent) = (link.kind(), link.sent());
            if kind == Kind::Echo {
                continue;
            }
            let got = half_close(link.into_fd(), self.is_tcp)?;
            if got != sent {
                let text = format!("the sink got {got} bytes of {sent}");
                return Err(io::Error::other(text));
            }
        }
        Ok(())
    }
}

fn half_close(fd: OwnedFd, is_tcp: bool) -> io::Result<u64> {
    let mut answer = [0; 8];
    if is_tcp {
        let mut stream = TcpStream::from(fd);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(STALL))?;
        stream.shutdown(Shutdown::Write)?;
        stream.read_exact(&mut answer)?;
    } else {
        let mut stream = UnixStream::from(fd);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(STALL))?;
        stream.shutdown(Shutdown::Write)?;
        stream.read_exact(&mut answer)?;
    }
    Ok(u64::from_le_bytes(answer))
}

fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("1 ns to 60 s at 3 digits is valid")
}
