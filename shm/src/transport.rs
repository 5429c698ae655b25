//! The transport: its table of links, and the Unix sockets inside.
//!
//! ```text
//!  connect -> Dialing --WELCOME--> Open --abort--> Closing --wait and socket gone--> Closed
//!  accept  -> Greeting --HELLO------^
//! ```
//!
//! A link's memory is unmapped after the wait on its word is reaped: the op holds the map. In a
//! forked child no ring is touched: [`Fork`] is asked first.

use std::any::Any;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::address::Address;
use ringlane_api::error::{Error, Result};
use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::fd::Fd;
use ringlane_api::reactor::{Completion, Side};
use ringlane_api::transport::{
    Armed, Caps, Cx, LinkId, LinkInfo, LinkOptions, ListenOptions, Transport,
};

use crate::address::target;
use crate::crash::{self, Point};
use crate::flow::has_work;
use crate::limits::{HANDOVER, SWEEP, SWEEP_LINKS};
use crate::link::{Cold, State, bit};
use crate::port::Port;
use crate::spin::Patience;
use crate::table::{Counts, Shm};

/// The kind of a wait on an announce word.
pub(crate) const WAIT: u8 = 1;

/// The kind of a wait for the end of the peer's process.
pub(crate) const DEATH: u8 = 2;

/// Whose timer the sweep is.
pub(crate) const SWEEPER: LinkId = LinkId { slot: u32::MAX, generation: 0 };

/// The transport, for `EventBase::with`.
///
/// ```
/// assert_eq!(ringlane_shm::transport().scheme(), "shm");
/// ```
pub fn transport() -> Box<dyn Transport> {
    Box::new(Shm {
        uds: ringlane_uds::transport(),
        events: Vec::new(),
        links: Vec::new(),
        free: Vec::new(),
        owners: Vec::new(),
        hot: Vec::new(),
        used: Rc::default(),
        spin: Duration::ZERO,
        gives_way: true,
        spins: Patience::default(),
        ways: Patience::default(),
        fork: None,
        sweeping: false,
        swept: 0,
        opens: 0,
        counts: Counts::default(),
    })
}

impl Shm {
    /// Keeps the sweep going.
    pub(crate) fn watch_over(&mut self, cx: &mut Cx<'_>) {
        if !std::mem::replace(&mut self.sweeping, true) {
            let looks = self.links.len().div_ceil(SWEEP_LINKS).max(1);
            cx.timer(SWEEPER, SWEEP / looks as u32);
        }
    }

    /// The safety net: a link that was asleep over something to do at two sweeps in a row, and
    /// all the time between them, had its wake lost. Each look goes on where the last one stopped.
    fn sweep(&mut self, cx: &mut Cx<'_>) {
        self.sweeping = false;
        let from = if self.swept < self.links.len() { self.swept } else { 0 };
        self.swept = self.links.len().min(from + SWEEP_LINKS);
        for slot in from..self.swept {
            let link = &mut self.links[slot];
            if link.state != State::Open {
                continue;
            }
            let id = LinkId { slot: slot as u32, generation: link.generation };
            let asleep = link.bits & bit::HOT == 0;
            let missed = asleep && has_work(link) != Ok(false);
            let twice = missed && link.bits & bit::SUSPECT != 0;
            link.bits = if missed { link.bits | bit::SUSPECT } else { link.bits & !bit::SUSPECT };
            if twice {
                self.counts.rescues += 1;
                log::warn!(
                    "shm: {} links so far were not rung; a wake is lost",
                    self.counts.rescues
                );
                self.wake(id);
            }
        }
        if self.opens > 0 {
            self.watch_over(cx);
        }
    }

    /// The deadline of a hand-over.
    fn late(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        match self.get(id).map(|link| link.state) {
            Some(State::Dialing) => {
                let what = "whoever listens there does not answer; is it shm://?";
                let error = io::Error::new(io::ErrorKind::TimedOut, what);
                self.break_off(cx, id, Side::Both, error);
            }
            Some(State::Greeting | State::Broken) => self.abort(cx, id),
            Some(State::Closing) => {
                if let Some(inner) = self.get(id).and_then(|link| link.inner) {
                    self.inside(cx, |uds, cx| uds.abort(cx, inner));
                }
            }
            _ => {}
        }
    }

    fn refuse_descriptor<R>() -> Result<R> {
        Err(Error::refused("adopt", "a descriptor is no link of shm://; it needs a hand-over"))
    }
}

fn named(address: Option<Address>) -> Option<Address> {
    address.map(|unix| Address::new("shm", unix.target()))
}

impl Transport for Shm {
    fn scheme(&self) -> &'static str {
        "shm"
    }

    fn caps(&self) -> &Caps {
        &Caps {
            fd_passing: false,
            credentials: true,
            half_close: true,
            send_file: false,
            adopt: false,
            host_names: false,
        }
    }

    fn check(&self, address: &Address) -> Result<()> {
        self.uds.check(&target(address)?.unix).map_err(|error| error.at(address))
    }

    fn listen(&mut self, cx: &mut Cx<'_>, at: &Address, options: &ListenOptions) -> Result<LinkId> {
        let target = target(at)?;
        let unix = target.unix.clone();
        let mut options = options.clone();
        options.link.receive_fds = true;
        let inner = self.inside(cx, |uds, cx| uds.listen(cx, &unix, &options));
        let inner = inner.map_err(|error| error.at(at))?;
        // From now on a forked child can tell; without, its connectors may take us for it.
        let _ = self.guard();
        let id = self.insert(State::Listening, Some(Cold::new(target, None)));
        self.bind(id, inner);
        Ok(id)
    }

    fn connect(&mut self, cx: &mut Cx<'_>, to: &Address, options: &LinkOptions) -> Result<LinkId> {
        let target = target(to)?;
        let unix = target.unix.clone();
        let inner = self.inside(cx, |uds, cx| uds.connect(cx, &unix, options));
        let inner = inner.map_err(|error| error.at(to))?;
        let id = self.insert(State::Dialing, Some(Cold::new(target, None)));
        self.bind(id, inner);
        Ok(id)
    }

    fn adopt(&mut self, _cx: &mut Cx<'_>, _fd: Fd, _options: &LinkOptions) -> Result<LinkId> {
        Shm::refuse_descriptor()
    }

    fn adopt_listener(
        &mut self,
        _cx: &mut Cx<'_>,
        _fd: Fd,
        _options: &ListenOptions,
    ) -> Result<LinkId> {
        Shm::refuse_descriptor()
    }

    fn release_fd(&mut self, _cx: &mut Cx<'_>, _link: LinkId) -> Option<Fd> {
        None
    }

    fn face(&mut self, id: LinkId) -> Option<Box<dyn Any>> {
        let rings = &self.get(id)?.open.as_ref()?.rings;
        rings.records.then(|| Box::new(Port(Rc::clone(rings))) as Box<dyn Any>)
    }

    fn info(&mut self, cx: &mut Cx<'_>, id: LinkId) -> LinkInfo {
        let Some(inner) = self.get(id).and_then(|link| link.inner) else {
            return LinkInfo::default();
        };
        let listener = self.get(id).filter(|link| link.state == State::Listening);
        let at = listener.and_then(|link| link.cold.as_ref()).map(|cold| cold.target.to_connect());
        let info = self.inside(cx, |uds, cx| uds.info(cx, inner));
        LinkInfo { local: at.or(named(info.local)), peer: named(info.peer), ..info }
    }

    fn send(&mut self, cx: &mut Cx<'_>, id: LinkId, out: &mut Evbuffer, fds: &mut Vec<Fd>) {
        if !fds.is_empty() {
            log::warn!("shm: descriptors do not go through rings; they are dropped");
            fds.clear();
        }
        self.check_fork(cx);
        match self.plain(id) {
            Some(inner) => self.inside(cx, |uds, cx| uds.send(cx, inner, out, fds)),
            None => self.write(cx, id, out),
        }
    }

    fn grant(&mut self, cx: &mut Cx<'_>, id: LinkId, amount: u64) {
        let Some(link) = self.get(id) else { return };
        link.window = amount;
        match (link.state, link.inner) {
            (State::Listening | State::Plain, Some(inner)) => {
                self.inside(cx, |uds, cx| uds.grant(cx, inner, amount));
            }
            (State::Open, _) if amount > 0 => self.heat(id),
            _ => {}
        }
    }

    fn finish(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        if let Some(inner) = self.plain(id) {
            return self.inside(cx, |uds, cx| uds.finish(cx, inner));
        }
        if let Some(link) = self.get(id) {
            link.bits |= bit::FINISH;
        }
        self.heat(id);
    }

    fn abort(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        self.check_fork(cx);
        let Some(link) = self.get(id) else { return };
        if link.state == State::Closing {
            return;
        }
        // An end is said by who was heard to the end; to a peer whose socket broke it would look
        // as if all was well.
        if link.bits & bit::GONE == 0 {
            link.bits |= bit::FINISH;
        }
        // What was taken is the peer's, and so is the news that no more comes.
        self.publish(cx, id);
        crash::here(Point::Ending);
        let Some(link) = self.get(id) else { return };
        let listens = link.state == State::Listening;
        let speaks = link.bits & (bit::SPEAKING | bit::GONE) == bit::SPEAKING;
        let speaks = speaks && link.state == State::Open;
        link.state = State::Closing;
        let (ops, inner) = (link.ops(), link.inner);
        ops.for_each(|op| cx.cancel(op));
        if speaks {
            cx.timer(id, HANDOVER);
        } else if let Some(inner) = inner {
            cx.no_timer(id);
            self.inside(cx, |uds, cx| uds.abort(cx, inner));
        }
        if listens {
            self.forget_guests(cx, id);
        }
        self.try_close(cx, id);
    }

    fn complete(&mut self, cx: &mut Cx<'_>, completion: Completion) {
        self.check_fork(cx);
        let token = completion.token;
        if token.is_inner() {
            self.inside(cx, |uds, cx| uds.complete(cx, completion.of_inner()));
            return self.news(cx);
        }
        let id = LinkId { slot: token.slot(), generation: token.generation() };
        match token.kind() {
            DEATH => self.died(cx, id, completion.result.is_ok()),
            _ => self.woken(cx, id),
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        self.check_fork(cx);
        match id == SWEEPER {
            true => self.sweep(cx),
            false => self.late(cx, id),
        }
        self.news(cx);
    }

    fn inner_timer(&mut self, cx: &mut Cx<'_>, link: LinkId) {
        self.inside(cx, |uds, cx| uds.timer(cx, link));
        self.news(cx);
    }

    fn arm(&mut self, cx: &mut Cx<'_>, idle: bool) -> Armed {
        self.run_errands();
        if self.hot.is_empty() && self.events.is_empty() {
            return Armed::Quiet;
        }
        self.check_fork(cx);
        self.news(cx);
        self.serve_hot(cx, idle)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counts { sleeps, rings, rescues } = self.counts;
        vec![("sleeps", sleeps), ("rings", rings), ("rescues", rescues)]
    }

    fn forked(&mut self, cx: &mut Cx<'_>) {
        self.check_fork(cx);
    }
}

impl Shm {
    /// The wait on our word is over.
    fn woken(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        link.wait = None;
        match link.state {
            State::Closing => self.try_close(cx, id),
            _ => {
                self.rung(id);
                self.peek(cx, id);
            }
        }
    }

    /// A listener goes, and with it those who have not said what they want.
    fn forget_guests(&mut self, cx: &mut Cx<'_>, listener: LinkId) {
        for slot in 0..self.links.len() as u32 {
            let link = &self.links[slot as usize];
            let waits = matches!(link.state, State::Greeting | State::Broken);
            let guest = link.cold.as_ref().is_some_and(|cold| cold.listener == Some(listener));
            let id = LinkId { slot, generation: link.generation };
            if waits && guest {
                self.abort(cx, id);
            }
        }
    }
}
