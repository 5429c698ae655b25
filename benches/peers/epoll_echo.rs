//! The hand-written epoll twin: level-triggered, one hot buffer for all connections, receive and
//! send at once. `epoll_echo echo|sink ADDRESS [--buffer KIB]` (256 by default, 64 for fairness).
//!
//! The invariant: two receives-or-sends per message and no epoll_ctl, as long as the peer reads.
//! A send that falls short puts the rest aside, and the connection is not read until it is gone.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv, send};
use ringlane_benches::peer::{Args, Role, Socket, raise_files, say};

const EVENTS_MAX: usize = 1024;

struct Link {
    fd: OwnedFd,
    aside: Vec<u8>,
    aside_sent: usize,
    received: u64,
}

#[derive(Default)]
struct Counters {
    recv: u64,
    send: u64,
    wait: u64,
    ctl: u64,
    bytes: u64,
}

struct Twin {
    role: Role,
    epoll: Epoll,
    links: Vec<Option<Link>>,
    hot: Vec<u8>,
    counters: Counters,
}

fn main() -> io::Result<()> {
    let args = Args::from_env()?;
    let kib: usize = match args.option("--buffer") {
        Some(text) => text.parse().map_err(io::Error::other)?,
        None => 256,
    };
    raise_files();
    let (socket, real) = Socket::bind(&args.address)?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGUSR1);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let mut twin = Twin {
        role: args.role,
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        links: Vec::new(),
        hot: vec![0; kib * 1024],
        counters: Counters::default(),
    };
    twin.watch(socket.fd().as_raw_fd(), socket.fd())?;
    twin.watch(signals.as_fd().as_raw_fd(), signals.as_fd())?;
    say(&real)?;
    twin.serve(&socket, &signals)?;
    if let Some(path) = real.strip_prefix("unix://") {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

impl Twin {
    fn watch(&mut self, key: RawFd, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.counters.ctl += 1;
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, key as u64))?)
    }

    fn serve(&mut self, socket: &Socket, signals: &SignalFd) -> io::Result<()> {
        let listening = socket.fd().as_raw_fd();
        let signalled = signals.as_fd().as_raw_fd();
        let mut events = vec![EpollEvent::empty(); EVENTS_MAX];
        loop {
            self.counters.wait += 1;
            let n = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for event in &events[..n] {
                let fd = event.data() as RawFd;
                if fd == listening {
                    self.accept(socket)?;
                } else if fd == signalled {
                    while let Some(signal) = signals.read_signal()? {
                        if signal.ssi_signo != Signal::SIGUSR1 as u32 {
                            return Ok(());
                        }
                        self.report()?;
                    }
                } else {
                    self.step(fd, event.events())?;
                }
            }
        }
    }

    fn report(&self) -> io::Result<()> {
        let Counters { recv, send, wait, ctl, bytes } = self.counters;
        say(&format!("counters recv={recv} send={send} wait={wait} ctl={ctl} bytes={bytes}"))
    }

    fn accept(&mut self, socket: &Socket) -> io::Result<()> {
        loop {
            let fd = match socket.accept() {
                Ok(fd) => fd,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let slot = fd.as_raw_fd() as usize;
            if self.links.len() <= slot {
                self.links.resize_with(slot + 1, || None);
            }
            self.counters.ctl += 1;
            self.epoll.add(&fd, EpollEvent::new(EpollFlags::EPOLLIN, slot as u64))?;
            let aside = Vec::new();
            let link = Link { fd, aside, aside_sent: 0, received: 0 };
            self.links[slot] = Some(link);
        }
    }

    fn step(&mut self, fd: RawFd, ready: EpollFlags) -> io::Result<()> {
        let slot = fd as usize;
        let Some(mut link) = self.links[slot].take() else { return Ok(()) };
        let goes_on = if link.aside.is_empty() {
            self.receive(&mut link)
        } else if ready.intersects(EpollFlags::EPOLLERR) {
            Err(Errno::ECONNRESET)
        } else {
            self.continue_send(&mut link)
        };
        // A reset ends this connection and no other; dropping the link closes it.
        if goes_on.unwrap_or(false) {
            self.links[slot] = Some(link);
        }
        Ok(())
    }

    fn receive(&mut self, link: &mut Link) -> Result<bool, Errno> {
        let fd = link.fd.as_raw_fd();
        self.counters.recv += 1;
        let n = match recv(fd, &mut self.hot, MsgFlags::empty()) {
            Err(Errno::EAGAIN) => return Ok(true),
            other => other?,
        };
        self.counters.bytes += n as u64;
        link.received += n as u64;
        match self.role {
            Role::Sink if n == 0 => {
                send(fd, &link.received.to_le_bytes(), MsgFlags::MSG_NOSIGNAL)?;
                Ok(false)
            }
            Role::Sink => Ok(true),
            Role::Echo if n == 0 => Ok(false),
            Role::Echo => self.send_back(link, n),
        }
    }

    fn send_back(&mut self, link: &mut Link, n: usize) -> Result<bool, Errno> {
        self.counters.send += 1;
        let sent = match send(link.fd.as_raw_fd(), &self.hot[..n], MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EAGAIN) => 0,
            other => other?,
        };
        if sent < n {
            link.aside.extend_from_slice(&self.hot[sent..n]);
            link.aside_sent = 0;
            self.want(link, EpollFlags::EPOLLOUT)?;
        }
        Ok(true)
    }

    fn continue_send(&mut self, link: &mut Link) -> Result<bool, Errno> {
        self.counters.send += 1;
        let rest = &link.aside[link.aside_sent..];
        link.aside_sent += match send(link.fd.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EAGAIN) => 0,
            other => other?,
        };
        if link.aside_sent == link.aside.len() {
            link.aside.clear();
            self.want(link, EpollFlags::EPOLLIN)?;
        }
        Ok(true)
    }

    fn want(&mut self, link: &Link, what: EpollFlags) -> Result<(), Errno> {
        self.counters.ctl += 1;
        let mut event = EpollEvent::new(what, link.fd.as_raw_fd() as u64);
        self.epoll.modify(&link.fd, &mut event)
    }
}
