//! Trying what is queued: the submit phase and the events' phase are the same walk.
//!
//! Fairness: a descriptor's turn is one block received and a bounded number of sends; then it
//! goes behind all others. Work is bounded by completions, and by rounds per descriptor.

use std::io;
use std::rc::Rc;

use nix::sys::epoll::EpollFlags;
use ringlane_api::reactor::{Completion, Ready};

use super::entry::{Key, Watched};
use super::flight::Lane;
use super::{Epoll, ROUNDS};
use crate::attempt::{Kit, Step};
use crate::sys;

/// Calls that one send gets before the next descriptor has its turn.
const SEND_CALLS: usize = 4;

impl Epoll {
    /// Works the queue off, at most to `end` completions.
    pub(super) fn work(&mut self, done: &mut Vec<Completion>, end: usize) {
        let mut turns = self.run.len().saturating_mul(ROUNDS);
        while turns > 0 && done.len() < end {
            turns -= 1;
            let Some(key) = self.run.pop_front() else { return };
            let Some(entry) = self.entries.get(key) else { continue };
            entry.queued = false;
            self.serve(key, done);
            let Some(entry) = self.entries.get(key) else { continue };
            let more =
                entry.readable && !entry.ins.is_empty() || entry.writable && !entry.outs.is_empty();
            if more {
                self.enqueue(key);
            }
        }
    }

    /// One descriptor's turn.
    fn serve(&mut self, key: Key, done: &mut Vec<Completion>) {
        let Some(entry) = self.entries.get(key) else { return };
        let idle_room = entry.outs.is_empty() && entry.news == Ready::WRITE;
        self.serve_outs(key, done);
        if let Err(error) = self.watch_for(key, idle_room) {
            self.fail(key, &error, done);
            return;
        }
        self.serve_ins(key, done);
        self.serve_polls(key, done);
    }

    fn serve_outs(&mut self, key: Key, done: &mut Vec<Completion>) {
        for _ in 0..SEND_CALLS {
            let Some(entry) = self.entries.get(key) else { return };
            let Some(&slot) = entry.outs.first().filter(|_| entry.writable) else { return };
            match self.attempt(slot) {
                Step::Again | Step::Queued => {}
                Step::Blocked(until) => {
                    debug_assert_eq!(until, Ready::WRITE, "sends wait for room");
                    self.entries.of(key.number).writable = false;
                }
                Step::Later => {
                    let entry = self.entries.of(key.number);
                    entry.writable = false;
                    entry.paused = true;
                    self.later.push(key);
                }
                Step::Last(result) => self.finish(slot, result, done),
                Step::More(_) => unreachable!("a send has one result"),
            }
        }
    }

    fn serve_ins(&mut self, key: Key, done: &mut Vec<Completion>) {
        let Some(entry) = self.entries.get(key) else { return };
        let Some(&slot) = entry.ins.first().filter(|_| entry.readable) else { return };
        let unix = entry.unix;
        self.flights.at(slot).pending.unix = unix == Some(true);
        let step = self.attempt(slot);
        match step {
            Step::Again | Step::Later | Step::Queued => {}
            Step::Blocked(_) => self.entries.of(key.number).readable = false,
            Step::More(outcome) => {
                self.note_drained(key, slot, unix);
                let token = self.flights.at(slot).token;
                done.push(Completion { token, result: Ok(outcome), more: true, parts: None });
            }
            Step::Last(result) => {
                self.note_drained(key, slot, unix);
                self.finish(slot, result, done);
            }
        }
    }

    /// After a read that filled less than its room: nothing is left, so the next edge will tell.
    fn note_drained(&mut self, key: Key, slot: u32, unix: Option<bool>) {
        let pending = &self.flights.at(slot).pending;
        let entry = self.entries.of(key.number);
        if !pending.drained || entry.hung_up {
            return;
        }
        if unix.is_none() {
            // The first short read asks what kind of socket it is. On a Unix one it may have
            // ended early at bytes that carry descriptors, so this one proved nothing.
            self.counters.syscalls += 1;
            let is_unix = entry.fd().is_some_and(|fd| sys::is_unix(&fd));
            entry.unix = Some(is_unix);
            if is_unix {
                return;
            }
        }
        entry.readable = false;
    }

    /// One attempt of the op in `slot`.
    pub(super) fn attempt(&mut self, slot: u32) -> Step {
        let flight = self.flights.at(slot);
        let mut short = false;
        if self.fault.short_send_every > 0 && flight.lane == Lane::Out {
            self.sends = self.sends.wrapping_add(1);
            short = self.sends.is_multiple_of(self.fault.short_send_every);
        }
        let home: &Rc<_> = &self.home;
        let (counters, busy) = (&mut self.counters, self.reported);
        flight.pending.attempt(&mut Kit { home, counters, short, busy })
    }

    /// Ends an op with its last result.
    pub(super) fn finish(
        &mut self,
        slot: u32,
        result: io::Result<ringlane_api::reactor::Outcome>,
        done: &mut Vec<Completion>,
    ) {
        self.unlist(slot);
        let flight = self.flights.take(slot);
        if flight.lane != Lane::Aside {
            self.entries.of(flight.number).remove(flight.lane, slot);
        }
        done.push(flight.pending.end(flight.token, result));
    }

    /// Has the kernel watch what somebody waits for.
    fn watch_for(&mut self, key: Key, idle_room: bool) -> io::Result<()> {
        let Some(entry) = self.entries.get(key) else { return Ok(()) };
        if entry.watched == Watched::Always {
            return Ok(());
        }
        let flights = &mut self.flights;
        let polled = entry.polls.iter().any(|&slot| flights.at(slot).wants(Ready::WRITE));
        let room = entry.wants_room(polled);
        let waits = room || !entry.ins.is_empty() || !entry.polls.is_empty();
        let wanted = match entry.watched {
            Watched::No if !waits => return Ok(()),
            Watched::No | Watched::In if room => Watched::InOut,
            Watched::No => Watched::In,
            // It was woken for room that nobody waits for: a Unix socket tells of it at each read
            // of its peer.
            Watched::InOut if idle_room && !room => Watched::In,
            Watched::In | Watched::InOut | Watched::Always => return Ok(()),
        };
        let first = [&entry.ins, &entry.outs, &entry.polls].into_iter().flatten().next();
        // Nobody to name the descriptor: it stays watched as it is.
        let Some(&first) = first else { return Ok(()) };
        let fd = flights.at(first).pending.fd().expect("a listed op names a descriptor");
        let fd = sys::os(fd)?;
        let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        flags.set(EpollFlags::EPOLLOUT, wanted == Watched::InOut);
        self.counters.syscalls += 1;
        self.counters.epoll_ctls += 1;
        let result = match entry.watched {
            Watched::No => self.watch.add(fd, flags, key.data()),
            _ => self.watch.modify(fd, flags, key.data()),
        };
        match result {
            Ok(()) => entry.watched = wanted,
            // A regular file, /dev/null and the like: always ready.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                entry.watched = Watched::Always;
                entry.readable = true;
                entry.writable = true;
                for &slot in &entry.polls {
                    let flight = self.flights.at(slot);
                    if !std::mem::replace(&mut flight.checking, true) {
                        self.checks.push(slot);
                    }
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The kernel will not watch it: whoever waits for it is told.
    fn fail(&mut self, key: Key, error: &io::Error, done: &mut Vec<Completion>) {
        loop {
            let Some(entry) = self.entries.get(key) else { return };
            let first = [&entry.ins, &entry.outs, &entry.polls].into_iter().flatten().next();
            let Some(&slot) = first else { return };
            let same = error.raw_os_error().map_or_else(
                || io::Error::new(error.kind(), error.to_string()),
                io::Error::from_raw_os_error,
            );
            self.finish(slot, Err(same), done);
        }
    }
}
