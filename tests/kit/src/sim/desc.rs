//! What stands behind a virtual descriptor number.
//!
//! ```text
//!   number --fds--> DescId --descs--> Desc { refs, What }
//! ```
//!
//! Several numbers may name one description (passed descriptors). A description's id is never
//! used again, so that what is still on the wire for a closed socket finds nobody.

use std::collections::{BTreeMap, VecDeque};

use ringlane_api::fd::Fd;
use ringlane_api::reactor::{Family, SockName};

/// The name of an open description.
pub(super) type DescId = usize;

/// An open description.
pub(super) struct Desc {
    /// Numbers, queues and messages that hold it.
    pub refs: u32,
    /// What it is.
    pub what: What,
}

/// What a description is.
pub(super) enum What {
    /// A socket that was made and not yet used.
    Fresh(Fresh),
    /// A listening socket.
    Listener(Listener),
    /// A connected stream.
    End(Box<End>),
    /// A signal descriptor.
    Signal { number: i32, pending: u64 },
    /// A counter that is rung and never read.
    Event { rung: u64 },
    /// A process: somebody else's, as far as the one that asks can tell.
    Process { ended: bool },
}

/// Options that sockets carry and hand on to what they accept.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub reuse_port: bool,
    pub reset_on_close: bool,
    pub send_bytes: usize,
    pub receive_bytes: usize,
}

/// A socket before `listen` or `connect`.
pub(super) struct Fresh {
    pub family: Family,
    pub name: Option<SockName>,
    pub options: Options,
    /// Set once a connect was refused; reported by that connect.
    pub connecting: Option<i32>,
}

/// A listening socket.
pub(super) struct Listener {
    pub family: Family,
    pub name: SockName,
    pub backlog: usize,
    pub queue: VecDeque<DescId>,
    pub options: Options,
    /// Connections that were ever queued, for edge-triggered polls.
    pub arrivals: u64,
}

/// Bytes that arrived together, with the descriptors on their first byte.
pub(super) struct Chunk {
    pub bytes: Vec<u8>,
    pub taken: usize,
    pub fds: Vec<Passed>,
}

/// A descriptor inside a message.
pub(super) enum Passed {
    /// One of ours: it holds a reference to its description.
    Virtual(DescId),
    /// A real one (a regular file).
    Real(Fd),
}

/// One end of a connection.
pub(super) struct End {
    pub family: Family,
    pub peer: Option<DescId>,
    pub local: SockName,
    pub remote: SockName,
    pub options: Options,
    pub rx: VecDeque<Chunk>,
    pub rx_bytes: usize,
    /// Bytes on their way to this end.
    pub flying: usize,
    /// When the last thing on its way to this end arrives.
    pub last_arrival: u64,
    /// The peer ended its direction.
    pub eof: bool,
    /// The connection was reset.
    pub reset: bool,
    pub shut_read: bool,
    pub shut_write: bool,
    /// When the connecting side learns that it is connected.
    pub open_at: u64,
    /// Grows when something arrives; for edge-triggered polls.
    pub read_news: u64,
    /// Grows when room arises; for edge-triggered polls.
    pub write_news: u64,
    /// A write found no room since the last news.
    pub starved: bool,
}

impl End {
    pub fn new(family: Family, local: SockName, remote: SockName, options: Options) -> End {
        End {
            family,
            peer: None,
            local,
            remote,
            options,
            rx: VecDeque::new(),
            rx_bytes: 0,
            flying: 0,
            last_arrival: 0,
            eof: false,
            reset: false,
            shut_read: false,
            shut_write: false,
            open_at: 0,
            read_news: 0,
            write_news: 1,
            starved: false,
        }
    }

    /// Whether a receive would answer at once.
    pub fn readable(&self) -> bool {
        self.rx_bytes > 0 || self.eof || self.reset || self.shut_read
    }
}

/// Numbers and descriptions.
pub(super) struct Table {
    pub fds: Vec<Option<DescId>>,
    pub fd_max: usize,
    pub descs: BTreeMap<DescId, Desc>,
    next: DescId,
}

/// The first number given out: 0 to 2 are taken in every process.
const FIRST_NUMBER: usize = 3;

impl Table {
    pub fn new(fd_max: usize) -> Table {
        Table { fds: vec![None; FIRST_NUMBER], fd_max, descs: BTreeMap::new(), next: 1 }
    }

    /// Adds a description that nobody holds yet.
    pub fn add(&mut self, what: What) -> DescId {
        let id = self.next;
        self.next += 1;
        self.descs.insert(id, Desc { refs: 0, what });
        id
    }

    /// Gives `id` the lowest free number, or `None` if there are no more.
    pub fn number(&mut self, id: DescId) -> Option<i32> {
        let free = self.fds.iter().skip(FIRST_NUMBER).position(Option::is_none);
        let number = free.map_or(self.fds.len(), |at| at + FIRST_NUMBER);
        if number >= self.fd_max {
            return None;
        }
        if number == self.fds.len() {
            self.fds.push(None);
        }
        self.fds[number] = Some(id);
        self.hold(id);
        Some(number as i32)
    }

    /// Whether `n` more numbers can be given out.
    pub fn has_room(&self, n: usize) -> bool {
        self.open() + FIRST_NUMBER + n <= self.fd_max
    }

    /// Numbers in use.
    pub fn open(&self) -> usize {
        self.fds.iter().flatten().count()
    }

    pub fn hold(&mut self, id: DescId) {
        if let Some(desc) = self.descs.get_mut(&id) {
            desc.refs += 1;
        }
    }

    pub fn id(&self, number: i32) -> Option<DescId> {
        self.fds.get(usize::try_from(number).ok()?).copied().flatten()
    }

    pub fn end(&mut self, id: DescId) -> Option<&mut End> {
        match self.descs.get_mut(&id) {
            Some(Desc { what: What::End(end), .. }) => Some(end),
            _ => None,
        }
    }

    pub fn listener(&mut self, id: DescId) -> Option<&mut Listener> {
        match self.descs.get_mut(&id) {
            Some(Desc { what: What::Listener(listener), .. }) => Some(listener),
            _ => None,
        }
    }

    pub fn fresh(&mut self, id: DescId) -> Option<&mut Fresh> {
        match self.descs.get_mut(&id) {
            Some(Desc { what: What::Fresh(fresh), .. }) => Some(fresh),
            _ => None,
        }
    }
}
