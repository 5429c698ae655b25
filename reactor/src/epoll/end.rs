//! How ops end other than by their result: cancelled, closed under, forked away.

use std::io;

use ringlane_api::reactor::{Completion, Op, Outcome, forked};

use super::Epoll;
use super::entry::Watched;
use super::flight::Lane;
use crate::attempt::Step;

fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

impl Epoll {
    /// What needs no trying: cancels, completions that are due, look-ups, connects whose pause is
    /// over.
    pub(super) fn settle(&mut self, done: &mut Vec<Completion>, end: usize) {
        while done.len() < end
            && let Some(id) = self.cancels.pop_front()
        {
            let Some(flight) = self.flights.get(id) else { continue };
            match flight.pending.op {
                // A close is not taken back.
                Op::Close { .. } => continue,
                Op::Resolve { .. } => self.resolver.withdraw(id),
                _ => {}
            }
            self.finish(id.slot, Err(cancelled()), done);
        }
        while done.len() < end
            && let Some(completion) = self.due.pop_front()
        {
            done.push(completion);
        }
        self.answers(done, end);
        while let Some(key) = self.later.pop() {
            if let Some(entry) = self.entries.get(key) {
                entry.writable = true;
                entry.paused = false;
                self.enqueue(key);
            }
        }
    }

    /// Takes in what look-ups found.
    pub(super) fn answers(&mut self, done: &mut Vec<Completion>, end: usize) {
        if !self.resolver.has_answers() {
            return;
        }
        for (id, answer) in self.resolver.answers() {
            // One that was cancelled meanwhile has ended.
            if self.flights.get(id).is_none() {
                continue;
            }
            let token = self.flights.take(id.slot).token;
            let completion = Completion::last(token, answer.map(Outcome::Addresses));
            if done.len() < end {
                done.push(completion);
            } else {
                self.due.push_back(completion);
            }
        }
    }

    /// Closes what was asked to close.
    pub(super) fn close(&mut self, done: &mut Vec<Completion>, end: usize) {
        while done.len() < end
            && let Some(id) = self.closing.pop_front()
        {
            let flight = self.flights.take(id.slot);
            let Op::Close { fd } = flight.pending.op else {
                unreachable!("only closes stand in that queue")
            };
            if let Some((key, _)) = self.entries.find(&fd) {
                self.end_all(key.number, done);
                let entry = self.entries.of(key.number);
                if matches!(entry.watched, Watched::In | Watched::InOut)
                    && let Some(os) = fd.as_os()
                {
                    // A copy of it may live on (a forked child, a peer it was passed to), and
                    // its registration with it, where nobody could reach it any more.
                    self.counters.syscalls += 1;
                    self.counters.epoll_ctls += 1;
                    let _ = self.watch.delete(os);
                }
                entry.unbind();
            }
            drop(fd);
            done.push(Completion::last(flight.token, Ok(Outcome::Done)));
        }
    }

    /// Ends everything asked of a descriptor. A send that was pushed with the close gets its one
    /// chance; then all is cancelled.
    fn end_all(&mut self, number: i32, done: &mut Vec<Completion>) {
        while let Some(&slot) = self.entries.of(number).outs.first() {
            let result = match self.attempt(slot) {
                Step::Last(result) => result,
                _ => Err(cancelled()),
            };
            self.finish(slot, result, done);
        }
        for lane in [Lane::In, Lane::Poll] {
            while let Some(&slot) = self.entries.of(number).lane(lane).first() {
                self.finish(slot, Err(cancelled()), done);
            }
        }
    }

    /// In a forked child, with a new epoll instance: sends, connects and look-ups were the
    /// parent's; everything else is registered again.
    pub(super) fn start_over(&mut self) {
        let lost = self.flights.slots(|flight| {
            flight.lane == Lane::Out || matches!(flight.pending.op, Op::Resolve { .. })
        });
        for slot in lost {
            let flight = self.flights.take(slot);
            if flight.lane == Lane::Out {
                self.entries.of(flight.number).remove(Lane::Out, slot);
            }
            self.due.push_back(flight.pending.end(flight.token, Err(forked())));
        }
        self.later.clear();
        self.entries.all().for_each(super::entry::Entry::forget);
        let busy: Vec<_> = self.entries.busy().map(|(key, _)| key).collect();
        for key in busy {
            self.enqueue(key);
        }
    }
}
