//! The logic of every transport that is a kernel byte stream; a family of sockets adds its names
//! and options ([`Family`]) and becomes a transport.
//!
//! ```text
//!  connect -> Dialing --connected--> Open --abort--> Closing --last op done--> Closed
//!  accept, adopt ---------------------^
//!  listen  -> Listening ----------------------------^
//! ```
//!
//! Receiving: one multishot receive per link, with a byte limit, so that no link can take more
//! than its share per arm; the limit doubles while the link uses it up and falls back at the first
//! part-filled block. A link that keeps using the largest limit up within single turns goes over
//! to bulk mode: one receive at a time into a big block, the one used last. Sending: one gathered
//! send in flight.

mod dial;
mod flow;

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use crate::address::Address;
use crate::error::{Error, Result};
use crate::evbuffer::Evbuffer;
use crate::fd::Fd;
use crate::limits;
use crate::mutant::{self, Mutant};
use crate::reactor::{Completion, Op, OpId, Outcome, SockName, Sys};
use crate::segment::{Lease, Segment};
use crate::transport::{
    Caps, Cx, LinkEvent, LinkId, LinkInfo, LinkOptions, ListenOptions, Transport,
};

/// Where an address leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To these, tried in order.
    Names(Vec<SockName>),
    /// To whatever the host name stands for.
    Host {
        /// Host name.
        host: String,
        /// Port.
        port: u16,
    },
}

/// What a family of stream sockets adds to the common logic.
pub trait Family {
    /// What addresses begin with.
    fn scheme(&self) -> &'static str;
    /// What it can do.
    fn caps(&self) -> &Caps;
    /// Reads an address.
    fn target(&self, address: &Address) -> Result<Target>;
    /// A socket for a name.
    fn socket(&self, sys: &mut dyn Sys, name: &SockName) -> io::Result<Fd>;
    /// Sets a connection's options (by parameters of its address, too).
    fn configure(
        &self,
        sys: &mut dyn Sys,
        fd: &Fd,
        address: Option<&Address>,
        options: &LinkOptions,
    ) -> io::Result<()>;
    /// Makes a listening socket.
    fn listen(
        &self,
        sys: &mut dyn Sys,
        at: &Address,
        name: &SockName,
        options: &ListenOptions,
    ) -> Result<Fd>;
    /// Removes what a closed listener left.
    fn unlisten(&self, _sys: &mut dyn Sys, _name: &SockName) {}
    /// The address of a name, if it is of this family.
    fn address_of(&self, name: &SockName) -> Option<Address>;
    /// Whether a foreign descriptor belongs to this family.
    fn takes(&self, sys: &mut dyn Sys, fd: &Fd) -> bool;
}

/// What an op was pushed for.
mod kind {
    pub const RECV: u8 = 1;
    pub const BULK: u8 = 2;
    pub const MESSAGE: u8 = 3;
    pub const SEND: u8 = 4;
    pub const ACCEPT: u8 = 5;
    pub const CONNECT: u8 = 6;
    pub const RESOLVE: u8 = 7;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Dialing,
    Open,
    Listening,
    /// Aborted; waits for its ops.
    Closing,
}

mod bit {
    /// `send` left something; say Writable after this one.
    pub const WANT_WRITABLE: u16 = 1;
    /// Half close when the send in flight is done.
    pub const FINISH: u16 = 2;
    pub const READ_OVER: u16 = 4;
    pub const WRITE_OVER: u16 = 8;
    /// Something was granted or sent: the descriptor cannot be released any more.
    pub const TOUCHED: u16 = 16;
    /// The send in flight carries descriptors or a file range.
    pub const RECEIVES_FDS: u16 = 32;
    pub const BULK: u16 = 64;
    /// This arm brought a part-filled block.
    pub const PART_FILLED: u16 = 128;
    /// A listener that waits out a shortage of descriptors.
    pub const PAUSED: u16 = 256;
}

struct Link {
    fd: Option<Fd>,
    recv: Option<OpId>,
    send: Option<OpId>,
    /// What may still come; `u64::MAX` is no limit.
    window: u64,
    lease: Option<Rc<Lease>>,
    cold: Option<Box<Cold>>,
    /// Byte limit of the next arm.
    arm: u32,
    /// Bytes this arm has brought.
    got: u32,
    /// Bytes the latest turn that brought any has brought, and which turn that was.
    burst: u32,
    turn: u32,
    generation: u16,
    bits: u16,
    state: State,
    /// Arms in a row that used the largest limit up.
    streak: u8,
}

const _: () = assert!(std::mem::size_of::<Link>() <= 80, "5,000 idle links must stay cheap");

/// What only dialing links and listeners need.
struct Cold {
    address: Option<Address>,
    names: VecDeque<SockName>,
    name: Option<SockName>,
    options: LinkOptions,
    refusals: Vec<String>,
    deadline: Option<Instant>,
    error: Option<io::Error>,
    timed_out: bool,
}

/// A transport over kernel byte streams of one family.
pub struct Stream<F> {
    family: F,
    links: Vec<Link>,
    free: Vec<u32>,
    /// Emptied gather lists, for the next sends.
    spare: Vec<Vec<Segment>>,
}

impl<F: Family> Stream<F> {
    /// A transport of this family.
    pub fn new(family: F) -> Stream<F> {
        Stream { family, links: Vec::new(), free: Vec::new(), spare: Vec::new() }
    }

    fn insert(&mut self, fd: Option<Fd>, state: State, cold: Option<Box<Cold>>) -> LinkId {
        let link = |generation| Link {
            fd,
            recv: None,
            send: None,
            window: 0,
            lease: None,
            cold,
            arm: limits::ARM_BYTES,
            got: 0,
            burst: 0,
            turn: 0,
            generation,
            bits: 0,
            state,
            streak: 0,
        };
        match self.free.pop() {
            Some(slot) => {
                let place = &mut self.links[slot as usize];
                let generation = place.generation.wrapping_add(1);
                *place = link(generation);
                LinkId { slot, generation }
            }
            None => {
                self.links.push(link(1));
                LinkId { slot: self.links.len() as u32 - 1, generation: 1 }
            }
        }
    }

    #[inline]
    fn get(&mut self, id: LinkId) -> Option<&mut Link> {
        let link = self.links.get_mut(id.slot as usize)?;
        let same = link.generation == id.generation || mutant::on(Mutant::GenerationIgnored);
        (same && link.state != State::Free).then_some(link)
    }

    /// Frees the slot of a closing link if no op names it any more.
    fn try_close(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        let sending = link.send.is_some() && !mutant::on(Mutant::ClosedBeforeSent);
        if link.state != State::Closing || link.recv.is_some() || sending {
            return;
        }
        link.state = State::Free;
        (link.fd, link.lease) = (None, None);
        let cold = link.cold.take();
        self.free.push(id.slot);
        if let Some(name) = cold.and_then(|cold| cold.name) {
            self.family.unlisten(cx.sys(), &name);
        }
        cx.emit(id, LinkEvent::Closed);
    }
}

impl<F: Family> Transport for Stream<F> {
    fn scheme(&self) -> &'static str {
        self.family.scheme()
    }

    fn caps(&self) -> &Caps {
        self.family.caps()
    }

    fn check(&self, address: &Address) -> Result<()> {
        self.family.target(address).map(|_| ())
    }

    fn listen(&mut self, cx: &mut Cx<'_>, at: &Address, options: &ListenOptions) -> Result<LinkId> {
        let name = match self.family.target(at)? {
            Target::Names(names) => names.into_iter().next(),
            Target::Host { host, port } => {
                return Err(Error::address_of(
                    "listen",
                    at.to_string(),
                    format!("`{host}` is a name; listen on an address, like 127.0.0.1:{port}"),
                ));
            }
        };
        let name = name.expect("an address has at least one name");
        let fd = self.family.listen(cx.sys(), at, &name, options)?;
        let mut cold = Cold::new(Some(at.clone()), options.link.clone());
        cold.name = Some(name);
        Ok(self.insert(Some(fd), State::Listening, Some(Box::new(cold))))
    }

    fn connect(&mut self, cx: &mut Cx<'_>, to: &Address, options: &LinkOptions) -> Result<LinkId> {
        let target = self.family.target(to)?;
        let cold = Cold::new(Some(to.clone()), options.clone());
        let id = self.insert(None, State::Dialing, Some(Box::new(cold)));
        match target {
            Target::Names(names) => {
                self.get(id).and_then(|link| link.cold.as_mut()).expect("just made").names =
                    names.into();
                self.dial_next(cx, id);
            }
            Target::Host { host, port } => {
                let op = cx.push(id, kind::RESOLVE, Op::Resolve { host, port });
                self.get(id).expect("just made").recv = Some(op);
            }
        }
        Ok(id)
    }

    fn adopt(&mut self, cx: &mut Cx<'_>, fd: Fd, options: &LinkOptions) -> Result<LinkId> {
        self.take_in(cx, &fd)?;
        self.family
            .configure(cx.sys(), &fd, None, options)
            .map_err(|error| Error::new("adopt", error))?;
        let id = self.insert(Some(fd), State::Open, None);
        if options.receive_fds {
            self.get(id).expect("just made").bits |= bit::RECEIVES_FDS;
        }
        Ok(id)
    }

    fn adopt_listener(
        &mut self,
        cx: &mut Cx<'_>,
        fd: Fd,
        options: &ListenOptions,
    ) -> Result<LinkId> {
        self.take_in(cx, &fd)?;
        let cold = Cold::new(None, options.link.clone());
        Ok(self.insert(Some(fd), State::Listening, Some(Box::new(cold))))
    }

    fn release_fd(&mut self, cx: &mut Cx<'_>, id: LinkId) -> Option<Fd> {
        let link = self.get(id)?;
        let idle = link.recv.is_none() && link.send.is_none();
        if link.state != State::Open || link.bits & bit::TOUCHED != 0 || !idle {
            return None;
        }
        let fd = link.fd.take();
        link.state = State::Closing;
        self.try_close(cx, id);
        fd
    }

    fn info(&mut self, cx: &mut Cx<'_>, id: LinkId) -> LinkInfo {
        let Some(link) = self.get(id) else { return LinkInfo::default() };
        let listening = link.state == State::Listening;
        let asked = link.cold.as_ref().and_then(|cold| cold.address.clone());
        let Some(fd) = link.fd.clone() else { return LinkInfo::default() };
        let local_name = cx.sys().local_name(&fd).ok();
        let peer_name = cx.sys().peer_name(&fd).ok();
        let address =
            |name: &Option<SockName>| name.as_ref().and_then(|name| self.family.address_of(name));
        let local = address(&local_name).or(if listening { asked } else { None });
        let credentials = match self.family.caps().credentials && !listening {
            true => cx.sys().credentials(&fd).ok(),
            false => None,
        };
        LinkInfo { local, peer: address(&peer_name), credentials, local_name, peer_name }
    }

    fn descriptor(&mut self, id: LinkId) -> Option<Fd> {
        self.get(id).and_then(|link| link.fd.clone())
    }

    fn send(&mut self, cx: &mut Cx<'_>, id: LinkId, out: &mut Evbuffer, fds: &mut Vec<Fd>) {
        self.send_front(cx, id, out, fds);
    }

    fn grant(&mut self, cx: &mut Cx<'_>, id: LinkId, amount: u64) {
        let Some(link) = self.get(id) else { return };
        link.window = amount;
        link.bits |= bit::TOUCHED;
        match link.state {
            State::Open => self.arm(cx, id),
            State::Listening => self.arm_accept(cx, id),
            _ => {}
        }
    }

    fn finish(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        link.bits |= bit::FINISH | bit::TOUCHED;
        self.finish_if_sent(cx, id);
    }

    fn abort(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        if link.state == State::Closing {
            return;
        }
        if link.state == State::Dialing
            && let Some(cold) = &mut link.cold
        {
            // The name is somebody else's: closing must not remove it.
            cold.name = None;
        }
        link.state = State::Closing;
        let ops = [link.recv, link.send];
        cx.no_timer(id);
        for op in ops.into_iter().flatten() {
            cx.cancel(op);
        }
        self.try_close(cx, id);
    }

    #[inline]
    fn complete(&mut self, cx: &mut Cx<'_>, completion: Completion) {
        let token = completion.token;
        let id = LinkId { slot: token.slot(), generation: token.generation() };
        match token.kind() {
            kind::RECV | kind::BULK | kind::MESSAGE => self.received(cx, id, completion),
            kind::SEND => self.sent(cx, id, completion),
            kind::ACCEPT => self.accepted(cx, id, completion),
            kind::CONNECT => self.connected(cx, id, completion),
            _ => self.resolved(cx, id, completion),
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        match link.state {
            State::Listening => {
                link.bits &= !bit::PAUSED;
                self.arm_accept(cx, id);
            }
            State::Dialing => self.dial_timer(cx, id),
            State::Open if mutant::on(Mutant::ConnectDeadlineKept) => {
                let late = io::Error::from(io::ErrorKind::TimedOut);
                cx.emit(id, LinkEvent::Failed(crate::reactor::Side::Both, late));
            }
            _ => {}
        }
    }
}

impl<F: Family> Stream<F> {
    /// Checks that a foreign descriptor is ours to take.
    fn take_in(&self, cx: &mut Cx<'_>, fd: &Fd) -> Result<()> {
        if self.family.takes(cx.sys(), fd) {
            return Ok(());
        }
        Err(Error::refused(
            "adopt",
            format!("the descriptor is no stream of {}://", self.family.scheme()),
        ))
    }

    // ---- listeners ---------------------------------------------------------------------------

    fn arm_accept(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        match (link.window, link.recv) {
            (0, Some(op)) => cx.cancel(op),
            (0, None) | (_, Some(_)) => {}
            (window, None) => {
                if link.bits & bit::PAUSED != 0 {
                    return;
                }
                let Some(fd) = link.fd.clone() else { return };
                let limit = u32::try_from(window).unwrap_or(u32::MAX);
                let op = cx.push(id, kind::ACCEPT, Op::Accept { fd, limit });
                self.get(id).expect("still here").recv = Some(op);
            }
        }
    }

    fn accepted(&mut self, cx: &mut Cx<'_>, id: LinkId, completion: Completion) {
        // A connection that comes after its listener went is closed by dropping it.
        let Some(link) = self.get(id) else { return };
        if !completion.more {
            link.recv = None;
        }
        let closing = link.state == State::Closing;
        let error = match completion.result {
            Ok(Outcome::Accepted(fd)) if !closing => {
                if link.window != u64::MAX {
                    link.window = link.window.saturating_sub(1);
                }
                let options = link.cold.as_ref().map(|cold| cold.options.clone());
                self.welcome(cx, id, fd, &options.unwrap_or_default());
                None
            }
            Ok(Outcome::Accepted(fd)) if mutant::on(Mutant::LateAcceptLeaked) => {
                std::mem::forget(fd);
                None
            }
            Ok(_) => None,
            Err(error) if closing || error.raw_os_error() == Some(ECANCELED) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            // EMFILE, ENFILE, ENOBUFS, ENOMEM: others must close something first.
            let link = self.get(id).expect("still here");
            link.bits |= bit::PAUSED;
            cx.timer(id, limits::ACCEPT_PAUSE);
            cx.emit(id, LinkEvent::Failed(crate::reactor::Side::Both, error));
        }
        if closing {
            self.try_close(cx, id);
        } else if completion.more || !mutant::on(Mutant::AcceptOnce) {
            self.arm_accept(cx, id);
        }
    }

    fn welcome(&mut self, cx: &mut Cx<'_>, listener: LinkId, fd: Fd, options: &LinkOptions) {
        let new = self.insert(Some(fd), State::Open, None);
        if options.receive_fds {
            self.get(new).expect("just made").bits |= bit::RECEIVES_FDS;
        }
        cx.emit(listener, LinkEvent::Accepted(new));
    }
}

impl Cold {
    fn new(address: Option<Address>, options: LinkOptions) -> Cold {
        Cold {
            address,
            names: VecDeque::new(),
            name: None,
            options,
            refusals: Vec::new(),
            deadline: None,
            error: None,
            timed_out: false,
        }
    }
}

/// errno(3): an op that was cancelled.
const ECANCELED: i32 = 125;
