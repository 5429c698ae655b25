//! One link: what it has in the table, and its open rings.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;

use ringlane_api::fd::Fd;
use ringlane_api::reactor::{OpId, Place, SharedWord};
use ringlane_api::segment::Lease;
use ringlane_api::transport::LinkId;

use crate::address::Target;
use crate::bell::Bell;
use crate::budget::Share;
use crate::layout::{Header, announce};
use crate::map::Map;
use crate::port::{Rings, Used};
use crate::ring::{Consumer, Producer};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Free,
    Listening,
    /// Connects its socket, then waits for the acceptor's answer.
    Dialing,
    /// Accepted; waits for the connector's segment.
    Greeting,
    Open,
    /// Open without memory: its bytes go through the socket.
    Plain,
    /// Over, and told so; waits to be aborted.
    Broken,
    /// Aborted; waits for its op and its socket.
    Closing,
}

pub(crate) mod bit {
    /// On the list of links that are looked at before each wait.
    pub const HOT: u16 = 1;
    /// `send` left something; say Writable when there is room.
    pub const BLOCKED: u16 = 2;
    /// Say that nothing more comes when everything is published.
    pub const FINISH: u16 = 4;
    pub const READ_OVER: u16 = 8;
    pub const WRITE_OVER: u16 = 16;
    /// The peer is gone; what it published is still there.
    pub const GONE: u16 = 32;
    /// Something is on its way through the socket: an answer, or a byte that rings.
    pub const SPEAKING: u16 = 64;
    /// Something was given back or ended: the peer is to be rung though nothing was published.
    pub const TELL: u16 = 128;
    /// The last sweep found something that nobody had rung for.
    pub const SUSPECT: u16 = 256;
    /// It counts among the open links.
    pub const COUNTED: u16 = 1024;
    /// It fails when its rings are looked at next: the peer has scribbled.
    pub const DISTRUSTED: u16 = 512;
    /// A record found no room; say Writable when there is some.
    pub const WANTS_ROOM: u16 = 2048;
    /// The peer's sleep was seen when its port published: it is to be rung.
    pub const MUST_RING: u16 = 4096;
}

pub(crate) struct Link {
    pub generation: u16,
    pub state: State,
    pub bits: u16,
    /// Its Unix socket, on the transport inside.
    pub inner: Option<LinkId>,
    /// The wait on our announce word.
    pub wait: Option<OpId>,
    /// The wait for the end of the peer's process.
    pub death: Option<OpId>,
    pub window: u64,
    /// Bytes that are in the ring and not yet told as sent. Before the link is open, and on a plain
    /// one, bytes of the hand-over that the socket has not told as sent.
    pub unsaid: usize,
    pub lease: Option<Rc<Lease>>,
    pub open: Option<Box<Open>>,
    pub cold: Option<Box<Cold>>,
}

impl Link {
    /// What it waits for in the kernel.
    pub fn ops(&self) -> impl Iterator<Item = OpId> + use<> {
        self.wait.into_iter().chain(self.death)
    }

    /// Whether it was accepted and is not open: amid its hand-over, or refused.
    pub fn is_guest(&self) -> bool {
        let accepted = self.cold.as_ref().is_some_and(|cold| cold.listener.is_some());
        accepted && matches!(self.state, State::Greeting | State::Broken)
    }
}

/// What only listeners and links need that are not open yet.
pub(crate) struct Cold {
    pub target: Target,
    pub listener: Option<LinkId>,
    /// What came on the socket so far.
    pub got: Vec<u8>,
    pub fds: Vec<Fd>,
    /// The connector's segment.
    pub offered: Option<Offer>,
    /// The connector has said that it is to be had without a segment.
    pub asked_plain: bool,
    /// A parent of this process began to listen.
    pub inherited: bool,
    /// A listener's connections that came last, those amid their hand-over among them.
    pub guests: VecDeque<LinkId>,
    /// A listener's connections that are not open and not gone. It closes after them.
    pub present: usize,
}

impl Cold {
    pub fn new(target: Target, listener: Option<LinkId>) -> Box<Cold> {
        Box::new(Cold {
            target,
            listener,
            got: Vec::new(),
            fds: Vec::new(),
            offered: None,
            asked_plain: false,
            inherited: false,
            guests: VecDeque::new(),
            present: 0,
        })
    }
}

/// A segment that both ends have, or are about to.
pub(crate) struct Offer {
    pub header: Header,
    pub map: Rc<Map>,
    /// What of the budget it takes.
    pub share: Share,
}

/// The rings of an open link, and the bells beside them.
pub(crate) struct Open {
    pub rings: Rc<Rings>,
    pub mine: Bell,
    pub my_word: Rc<dyn SharedWord>,
    pub their_word: Rc<dyn SharedWord>,
    /// Whether we, and they, wait on the word; otherwise a byte on the socket rings.
    pub waits: [bool; 2],
}

/// What the two ends have agreed on.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// 0 for the connector's end.
    pub side: usize,
    pub waits: [bool; 2],
    pub records: bool,
}

impl Open {
    pub fn new(offer: Offer, terms: Terms, user: (LinkId, Used)) -> Box<Open> {
        let Offer { header, map, share } = offer;
        let word = |side: usize| -> Rc<dyn SharedWord> {
            Rc::new(Word { map: Rc::clone(&map), at: announce(side) })
        };
        let Terms { side, waits, records } = terms;
        let other = 1 - side;
        let tx = Producer::new(Rc::clone(&map), header.lane(side));
        let rx = Consumer::new(Rc::clone(&map), header.lane(other));
        let theirs = Bell::new(Rc::clone(&map), announce(other));
        Box::new(Open {
            rings: Rings::new((tx, rx), theirs, records, user, share),
            mine: Bell::new(Rc::clone(&map), announce(side)),
            my_word: word(side),
            their_word: word(other),
            waits,
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.rings.end();
    }
}

/// An announce word, for the kernel.
#[derive(Debug)]
struct Word {
    map: Rc<Map>,
    at: usize,
}

impl SharedWord for Word {
    fn word(&self) -> &AtomicU32 {
        self.map.u32_at(self.at)
    }
    fn place(&self) -> Place {
        Place { file: self.map.file(), offset: self.at as u64 }
    }
}
