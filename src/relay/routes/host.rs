//! One host: the machine behind its link.

use std::rc::Rc;
use std::time::{Duration, Instant};

use ringlane_api::wheel::TimerId;

use super::{Closing, Common, HostId, LinkId, Loss, Peer, Policy, Route, RouteOut, State};

/// The first pause of the back-off; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// After a loss the host with the higher name waits so long, since the other dials, too.
const HIGHER_WAITS: Duration = Duration::from_millis(50);

/// Round trips that a dial may take, by the round trip of the last link.
const DIAL_ROUND_TRIPS: u32 = 8;

/// Round trips that a link on which another is on trial may take to answer.
const TRIAL_ROUND_TRIPS: u32 = 4;

pub(super) struct Host {
    pub id: HostId,
    pub name: Rc<str>,
    addresses: Vec<Rc<str>>,
    /// The address to be dialled next.
    at: usize,
    pub up: Option<Link>,
    /// A link that would replace `up`, and until when `up` may answer.
    spare: Option<(Link, Instant)>,
    dial: Option<Dial>,
    /// When to dial, if not at once.
    next_dial: Option<Instant>,
    last_dial: Option<Instant>,
    trouble: Option<Trouble>,
    pub unacked: u64,
    pub last_use: Option<Instant>,
    linkno: u32,
    rtt: Option<Duration>,
    last_loss: Option<Loss>,
    pub timer: Option<(TimerId, Instant)>,
}

/// A link whose handshake is through.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub id: LinkId,
    /// This side dialled it.
    dialled: bool,
    peer: Peer,
    since: Instant,
    heard: Instant,
    next_ping: Instant,
    /// The last ping that is not answered.
    ping: Option<(u64, Instant)>,
}

struct Dial {
    id: LinkId,
    deadline: Instant,
}

/// No link, and one is wanted.
#[derive(Clone, Copy)]
struct Trouble {
    since: Instant,
    tries: u32,
    /// Pauses of the back-off so far.
    pauses: u32,
}

impl Trouble {
    fn new(now: Instant) -> Trouble {
        Trouble { since: now, tries: 0, pauses: 0 }
    }
}

impl Link {
    fn new(id: LinkId, dialled: bool, peer: Peer, now: Instant) -> Link {
        Link { id, dialled, peer, since: now, heard: now, next_ping: now, ping: None }
    }
}

impl Host {
    pub fn new(id: HostId, name: &str, addresses: &[&str]) -> Host {
        Host {
            id,
            name: name.into(),
            addresses: addresses.iter().map(|&address| address.into()).collect(),
            at: 0,
            up: None,
            spare: None,
            dial: None,
            next_dial: None,
            last_dial: None,
            trouble: None,
            unacked: 0,
            last_use: None,
            linkno: 0,
            rtt: None,
            last_loss: None,
            timer: None,
        }
    }

    pub fn set_addresses(&mut self, addresses: &[&str]) {
        self.addresses = addresses.iter().map(|&address| address.into()).collect();
        self.at = 0;
    }

    pub fn retire(&mut self, out: &mut Vec<RouteOut>) {
        let links = [
            self.dial.take().map(|dial| dial.id),
            self.spare.take().map(|(link, _)| link.id),
            self.up.take().map(|link| link.id),
        ];
        let close = |link| RouteOut::Close { link, why: Closing::Retired };
        out.extend(links.into_iter().flatten().map(close));
        self.addresses.clear();
        (self.next_dial, self.trouble, self.last_use, self.unacked) = (None, None, None, 0);
    }

    pub fn want(&mut self, common: &mut Common, now: Instant, out: &mut Vec<RouteOut>) {
        self.last_use = Some(now);
        if self.up.is_none() && self.dial.is_none() && self.next_dial.is_none() {
            self.trouble = Some(Trouble::new(now));
            self.dial_now(common, now, out);
        }
    }

    pub fn reached(&mut self, common: &mut Common, link: LinkId, now: Instant) {
        if let Some(dial) = self.dial.as_mut().filter(|dial| dial.id == link) {
            dial.deadline = now + common.policy.handshake_max;
        }
    }

    pub fn connected(
        &mut self,
        common: &mut Common,
        link: LinkId,
        peer: Peer,
        now: Instant,
        out: &mut Vec<RouteOut>,
    ) {
        if self.dial.take_if(|dial| dial.id == link).is_some() {
            self.arrive(common, Link::new(link, true, peer, now), now, out);
        }
    }

    pub fn accepted(
        &mut self,
        common: &mut Common,
        peer: Peer,
        now: Instant,
        out: &mut Vec<RouteOut>,
    ) -> LinkId {
        let id = common.next_link(self.id);
        self.arrive(common, Link::new(id, false, peer, now), now, out);
        id
    }

    /// Which of the links stays, now that there is one more?
    fn arrive(&mut self, common: &mut Common, new: Link, now: Instant, out: &mut Vec<RouteOut>) {
        let Some(old) = self.up else { return self.take(common, new, now, out) };
        let (instance, known) = (new.peer.instance, old.peer.instance);
        if instance < known {
            out.push(RouteOut::Close { link: new.id, why: Closing::Superseded });
        } else if instance > known || new.dialled == old.dialled || self.prefers(common, &new) {
            // Nobody dials who believes in a link of his own, so the older one is none any more.
            let why = if instance > known { Closing::Superseded } else { Closing::Duplicate };
            out.push(RouteOut::Close { link: old.id, why });
            self.take(common, new, now, out);
        } else if new.dialled {
            // The old one came while this was on the way: it is young, and both prefer it.
            out.push(RouteOut::Close { link: new.id, why: Closing::Duplicate });
        } else {
            self.try_out(common, new, now, out);
        }
    }

    /// Whether the link was dialled by the host with the lower name.
    fn prefers(&self, common: &Common, link: &Link) -> bool {
        link.dialled == (*common.me < *self.name)
    }

    /// The link in use must answer, else the new one replaces it.
    fn try_out(&mut self, common: &mut Common, new: Link, now: Instant, out: &mut Vec<RouteOut>) {
        let answer = self.rtt.unwrap_or_default() * TRIAL_ROUND_TRIPS;
        let until = now + common.policy.trial.max(answer);
        if let Some((older, _)) = self.spare.replace((new, until)) {
            out.push(RouteOut::Close { link: older.id, why: Closing::Duplicate });
        }
        self.ping(common, now, out);
    }

    /// From now on this is the link.
    fn take(&mut self, common: &mut Common, link: Link, now: Instant, out: &mut Vec<RouteOut>) {
        let fitting = self.prefers(common, &link);
        if let Some(dial) = self.dial.take_if(|_| fitting) {
            out.push(RouteOut::Close { link: dial.id, why: Closing::Duplicate });
        }
        if let Some((spare, _)) = self.spare.take() {
            out.push(RouteOut::Close { link: spare.id, why: Closing::Duplicate });
        }
        self.linkno = common.next_linkno();
        self.next_dial = None;
        self.last_use = Some(now);
        self.up = Some(link);
        out.push(RouteOut::Use { link: link.id, linkno: self.linkno });
    }

    pub fn lost(
        &mut self,
        common: &mut Common,
        link: LinkId,
        loss: Loss,
        now: Instant,
        out: &mut Vec<RouteOut>,
    ) {
        if self.dial.take_if(|dial| dial.id == link).is_some() {
            self.dial_failed(common, loss, now);
        } else if self.spare.take_if(|(spare, _)| spare.id == link).is_none()
            && self.up.is_some_and(|up| up.id == link)
        {
            self.link_lost(common, loss, now, out);
        }
    }

    /// The link in use is gone.
    fn link_lost(
        &mut self,
        common: &mut Common,
        loss: Loss,
        now: Instant,
        out: &mut Vec<RouteOut>,
    ) {
        let link = self.up.take().expect("only a link in use is lost");
        self.last_loss = Some(loss);
        if let Some((spare, _)) = self.spare.take() {
            return self.take(common, spare, now, out);
        }
        let lasted = now.saturating_duration_since(link.since) >= common.policy.dead_after;
        // A link that does not last ends no trouble.
        self.trouble = self.trouble.filter(|_| !lasted);
        if loss == Loss::Idle && self.unacked == 0 {
            return self.rest();
        }
        let pause = match loss {
            Loss::Duplicate => common.policy.again_every,
            _ if *common.me > *self.name => HIGHER_WAITS,
            _ => Duration::ZERO,
        };
        self.dial_again(common, loss, now + pause, now);
    }

    fn dial_failed(&mut self, common: &mut Common, loss: Loss, now: Instant) {
        self.last_loss = Some(loss);
        self.at += 1;
        if let Some(trouble) = &mut self.trouble {
            trouble.tries += 1;
        }
        self.dial_again(common, loss, now, now);
    }

    /// Says when to dial after something went wrong: not before `first`.
    fn dial_again(&mut self, common: &mut Common, loss: Loss, first: Instant, now: Instant) {
        if self.up.is_some() || self.dial.is_some() {
            return;
        }
        if !self.wanted(&common.policy, now) {
            return self.rest();
        }
        let policy = common.policy;
        let trouble = self.trouble.get_or_insert(Trouble::new(now));
        let soon = now.saturating_duration_since(trouble.since) < policy.again_for;
        self.next_dial = Some(if soon && loss != Loss::Refused {
            self.last_dial.map_or(first, |last| first.max(last + policy.again_every))
        } else {
            let doubled = BACKOFF_MIN * (1 << trouble.pauses.min(16));
            let refused = loss == Loss::Refused;
            let pause = if refused { policy.backoff_max } else { doubled.min(policy.backoff_max) };
            trouble.pauses += 1;
            now + common.jitter(pause)
        });
    }

    fn dial_now(&mut self, common: &mut Common, now: Instant, out: &mut Vec<RouteOut>) {
        self.next_dial = None;
        if self.addresses.is_empty() {
            return;
        }
        self.at %= self.addresses.len();
        let policy = &common.policy;
        let patient = self.trouble.is_some_and(|trouble| trouble.pauses > 0);
        let within = match self.rtt {
            _ if patient => policy.handshake_max,
            Some(rtt) => (rtt * DIAL_ROUND_TRIPS).max(policy.dial_min).min(policy.dial_max),
            // What was swallowed is soon tried again; who is far has more time then.
            None => {
                let tries = self.trouble.map_or(0, |trouble| trouble.tries.min(8));
                (policy.dial_min * (1 << tries)).min(policy.dial_max)
            }
        };
        let id = common.next_link(self.id);
        self.dial = Some(Dial { id, deadline: now + within });
        self.last_dial = Some(now);
        out.push(RouteOut::Dial { link: id, address: self.addresses[self.at].clone() });
    }

    /// Nobody wants a link.
    fn rest(&mut self) {
        (self.trouble, self.next_dial) = (None, None);
    }

    fn wanted(&self, policy: &Policy, now: Instant) -> bool {
        let used = |last| now.saturating_duration_since(last) < policy.idle_max;
        self.unacked > 0 || self.last_use.is_some_and(used)
    }

    pub fn heard(&mut self, link: LinkId, now: Instant) {
        let spare = self.spare.as_mut().map(|(spare, _)| spare);
        for known in self.up.as_mut().into_iter().chain(spare) {
            if known.id == link {
                known.heard = now;
            }
        }
    }

    pub fn pong(&mut self, link: LinkId, id: u64, now: Instant) {
        self.heard(link, now);
        let Some(up) = self.up.as_mut().filter(|up| up.id == link) else { return };
        if let Some((_, sent)) = up.ping.take_if(|(sent, _)| *sent == id) {
            let trip = now.saturating_duration_since(sent);
            self.rtt = Some(self.rtt.map_or(trip, |known| (known * 7 + trip) / 8));
        }
    }

    fn ping(&mut self, common: &mut Common, now: Instant, out: &mut Vec<RouteOut>) {
        let Some(up) = self.up.as_mut() else { return };
        let id = common.next_ping();
        up.ping = Some((id, now));
        up.next_ping = now + common.policy.ping_every;
        out.push(RouteOut::Ping { link: up.id, id });
    }

    /// Does what is due.
    pub fn step(&mut self, common: &mut Common, now: Instant, out: &mut Vec<RouteOut>) {
        if let Some(dial) = self.dial.take_if(|dial| dial.deadline <= now) {
            out.push(RouteOut::Close { link: dial.id, why: Closing::Late });
            self.dial_failed(common, Loss::Broken, now);
        }
        self.judge(now, out);
        if let Some(up) = self.up {
            let spare_is_due = self.spare.as_ref().is_some_and(|(_, until)| *until <= now);
            if now.saturating_duration_since(up.heard) >= common.policy.dead_after || spare_is_due {
                out.push(RouteOut::Close { link: up.id, why: Closing::Dead });
                self.link_lost(common, Loss::Broken, now, out);
            } else if !self.wanted(&common.policy, now) {
                self.close_idle(out);
            } else if up.next_ping <= now {
                self.ping(common, now, out);
            }
        }
        if self.next_dial.is_some_and(|at| at <= now) {
            match self.wanted(&common.policy, now) {
                true => self.dial_now(common, now, out),
                false => self.rest(),
            }
        }
    }

    /// Did the link in use answer, while another is on trial?
    fn judge(&mut self, now: Instant, out: &mut Vec<RouteOut>) {
        let heard = self.up.map(|up| up.heard);
        let answered = |spare: &Link| heard.is_some_and(|heard| heard > spare.since);
        if let Some((spare, _)) =
            self.spare.take_if(|(spare, until)| *until <= now && answered(spare))
        {
            out.push(RouteOut::Close { link: spare.id, why: Closing::Duplicate });
        }
    }

    fn close_idle(&mut self, out: &mut Vec<RouteOut>) {
        let spare = self.spare.take().map(|(spare, _)| spare);
        for link in self.up.take().into_iter().chain(spare) {
            out.push(RouteOut::Close { link: link.id, why: Closing::Idle });
        }
        self.rest();
    }

    /// When something is due next.
    pub fn deadline(&self, policy: &Policy) -> Option<Instant> {
        let idle = self.last_use.filter(|_| self.unacked == 0).map(|last| last + policy.idle_max);
        let up = self.up.map(|up| up.next_ping.min(up.heard + policy.dead_after));
        let dial = self.dial.as_ref().map(|dial| dial.deadline);
        let spare = self.spare.as_ref().map(|(_, until)| *until);
        let idle = idle.filter(|_| self.up.is_some());
        [up, idle, dial, spare, self.next_dial].into_iter().flatten().min()
    }

    pub fn state(&self) -> State {
        match (&self.up, &self.dial, self.next_dial) {
            (Some(_), ..) => State::Up,
            (None, Some(_), _) => State::Dialling,
            (None, None, None) => State::Idle,
            _ if self.trouble.is_some_and(|trouble| trouble.pauses > 0) => State::Backoff,
            _ => State::Down,
        }
    }

    pub fn route(&self) -> Route<'_> {
        let next = self.addresses.get(self.at % self.addresses.len().max(1));
        Route {
            host: self.id,
            name: &self.name,
            addresses: &self.addresses,
            address: next.map(|address| &**address),
            state: self.state(),
            link: self.up.map(|up| up.id),
            dialled: self.up.is_some_and(|up| up.dialled),
            peer: self.up.map(|up| up.peer),
            rtt: self.rtt,
            unacked: self.unacked,
            last_use: self.last_use,
            linkno: self.linkno,
            tries: self.trouble.filter(|_| self.up.is_none()).map_or(0, |trouble| trouble.tries),
            last_loss: self.last_loss,
        }
    }
}
