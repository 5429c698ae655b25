//! Polls over an edge-triggered registration.
//!
//! An event tells every poll it concerns. A level poll that has reported, and a poll that is new
//! on a descriptor that was registered before, is then asked about directly: one poll(2) for all
//! of them before the next wait, until the condition is gone. From then on the next edge tells.

use ringlane_api::reactor::{Completion, Op, Outcome, Ready};

use super::Epoll;
use super::entry::Key;
use super::flight::Flight;
use crate::sys;

impl Flight {
    /// What a poll waits for.
    fn asks(&self) -> Ready {
        match &self.pending.op {
            Op::Poll { ready, .. } => *ready | Ready::HANGUP,
            _ => Ready::NONE,
        }
    }

    /// Whether this is a poll for `ready`.
    pub(super) fn wants(&self, ready: Ready) -> bool {
        self.asks().intersects(ready)
    }
}

impl Epoll {
    /// Tells the polls of one descriptor the news.
    pub(super) fn serve_polls(&mut self, key: Key, done: &mut Vec<Completion>) {
        let Some(entry) = self.entries.get(key) else { return };
        let news = std::mem::replace(&mut entry.news, Ready::NONE);
        if news.is_none() {
            return;
        }
        let mut at = 0;
        while let Some(&slot) = self.entries.of(key.number).polls.get(at) {
            let flight = self.flights.at(slot);
            let found = flight.asks() & news;
            // One that is asked about anyway is told by the answer.
            let quiet = found.is_none() || flight.checking;
            if quiet || self.tell(slot, found, done) {
                at += 1;
            }
        }
    }

    /// Completes a poll once; whether it is still armed.
    fn tell(&mut self, slot: u32, found: Ready, done: &mut Vec<Completion>) -> bool {
        let flight = self.flights.at(slot);
        let Op::Poll { multishot, edge, .. } = flight.pending.op else {
            unreachable!("only polls stand in that list")
        };
        if !multishot {
            self.finish(slot, Ok(Outcome::Ready(found)), done);
            return false;
        }
        if !edge && !flight.checking {
            flight.checking = true;
            self.checks.push(slot);
        }
        let (token, result) = (flight.token, Ok(Outcome::Ready(found)));
        done.push(Completion { token, result, more: true, parts: None });
        true
    }

    /// Asks about the polls whose condition may still hold.
    pub(super) fn recheck(&mut self, done: &mut Vec<Completion>, end: usize) {
        if self.checks.is_empty() || done.len() >= end {
            return;
        }
        let mut checks = std::mem::take(&mut self.checks);
        self.asked.clear();
        for &slot in &checks {
            let flight = self.flights.at(slot);
            let mut events = 0;
            if flight.wants(Ready::READ) {
                events |= libc::POLLIN | libc::POLLRDHUP;
            }
            if flight.wants(Ready::WRITE) {
                events |= libc::POLLOUT;
            }
            self.asked.push(libc::pollfd { fd: flight.number, events, revents: 0 });
        }
        self.counters.syscalls += 1;
        if sys::poll_now(&mut self.asked).is_err() {
            // Out of memory: nothing is known, so everything is asked again.
            self.checks = checks;
            return;
        }
        let mut at = 0;
        checks.retain(|&slot| {
            let found = found(self.asked[at].revents);
            at += 1;
            let flight = self.flights.at(slot);
            let found = found & flight.asks();
            let Op::Poll { multishot, edge, .. } = flight.pending.op else {
                unreachable!("only polls are asked about")
            };
            if found.is_none() {
                flight.checking = false;
                return false;
            }
            if done.len() >= end {
                return true;
            }
            if edge {
                flight.checking = false;
            }
            self.tell(slot, found, done) && multishot && !edge
        });
        debug_assert!(self.checks.is_empty(), "telling a checked poll adds no check");
        self.checks = checks;
    }

    /// An op ends that may be a poll listed for a check.
    pub(super) fn unlist(&mut self, slot: u32) {
        if self.flights.at(slot).checking {
            self.checks.retain(|&other| other != slot);
        }
    }
}

fn found(revents: libc::c_short) -> Ready {
    let mut found = Ready::NONE;
    if revents & (libc::POLLIN | libc::POLLRDHUP) != 0 {
        found |= Ready::READ;
    }
    if revents & libc::POLLOUT != 0 {
        found |= Ready::WRITE;
    }
    if revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 {
        found |= Ready::HANGUP;
    }
    found
}
