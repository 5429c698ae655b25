//! Connecting: every address in turn, each for a bounded time.

use std::io;
use std::time::Duration;

use super::{ECANCELED, Family, State, Stream, bit, kind};
use crate::mutant::{self, Mutant};
use crate::reactor::{Completion, Op, Outcome, Side, SockName};
use crate::transport::{Cx, LinkEvent, LinkId};

/// Between two tries of a Unix socket whose backlog is full.
const BACKLOG_RETRY: Duration = Duration::from_millis(10);

impl<F: Family> Stream<F> {
    pub(super) fn resolved(&mut self, cx: &mut Cx<'_>, id: LinkId, completion: Completion) {
        let Some(link) = self.get(id) else { return };
        link.recv = None;
        if link.state == State::Closing {
            return self.try_close(cx, id);
        }
        let cold = link.cold.as_mut().expect("a dialing link has its cold part");
        match completion.result {
            Ok(Outcome::Addresses(found)) => {
                cold.names = found.into_iter().map(SockName::Inet).collect();
                if mutant::on(Mutant::FirstAddressOnly) {
                    cold.names.truncate(1);
                }
                self.dial_next(cx, id);
            }
            Ok(_) => {}
            Err(error) => {
                let what = io::Error::new(error.kind(), format!("name look-up failed: {error}"));
                cx.emit(id, LinkEvent::Failed(Side::Both, what));
            }
        }
    }

    /// Tries the next address; the last error is told when there is none.
    pub(super) fn dial_next(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        loop {
            let link = self.get(id).expect("the caller has it");
            link.fd = None;
            let cold = link.cold.as_mut().expect("a dialing link has its cold part");
            let Some(name) = cold.names.pop_front() else {
                let error = cold.last_word();
                // A timer carries it, so that nothing is emitted before `connect` has returned.
                cold.error = Some(error);
                cx.timer(id, Duration::ZERO);
                return;
            };
            let (address, options) = (cold.address.clone(), cold.options.clone());
            let made = self.family.socket(cx.sys(), &name).and_then(|fd| {
                self.family.configure(cx.sys(), &fd, address.as_ref(), &options)?;
                Ok(fd)
            });
            let link = self.get(id).expect("the caller has it");
            let cold = link.cold.as_mut().expect("a dialing link has its cold part");
            cold.timed_out = false;
            match made {
                Ok(fd) => {
                    link.fd = Some(fd);
                    cold.deadline = Some(crate::timeout::at(cx.now(), options.connect_timeout));
                    cold.name = Some(name);
                    return self.dial(cx, id);
                }
                Err(error) => cold.refused(&name, error),
            }
        }
    }

    fn dial(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let link = self.get(id).expect("the caller has it");
        let cold = link.cold.as_mut().expect("a dialing link has its cold part");
        let (Some(fd), Some(to)) = (link.fd.clone(), cold.name.clone()) else { return };
        let left =
            cold.deadline.map_or(Duration::ZERO, |at| at.saturating_duration_since(cx.now()));
        cx.timer(id, left);
        let op = cx.push(id, kind::CONNECT, Op::Connect { fd, to });
        self.get(id).expect("the caller has it").send = Some(op);
    }

    pub(super) fn connected(&mut self, cx: &mut Cx<'_>, id: LinkId, completion: Completion) {
        let Some(link) = self.get(id) else { return };
        link.send = None;
        if link.state == State::Closing {
            if let Some(cold) = &mut link.cold {
                cold.name = None;
            }
            return self.try_close(cx, id);
        }
        if !mutant::on(Mutant::ConnectDeadlineKept) {
            cx.no_timer(id);
        }
        let error = match completion.result {
            Ok(_) => {
                link.state = State::Open;
                let receives = link.cold.as_ref().is_some_and(|cold| cold.options.receive_fds);
                link.bits |= if receives { bit::RECEIVES_FDS } else { 0 };
                link.cold = None;
                cx.emit(id, LinkEvent::Connected);
                return self.arm(cx, id);
            }
            Err(error) => error,
        };
        let cold = link.cold.as_mut().expect("a dialing link has its cold part");
        let late = cold.deadline.is_some_and(|deadline| cx.now() >= deadline);
        if error.kind() == io::ErrorKind::WouldBlock && !late {
            // unix(7): the listener's backlog is full.
            return cx.timer(id, BACKLOG_RETRY);
        }
        let name = cold.name.take().expect("it was being dialed");
        let full = error.kind() == io::ErrorKind::WouldBlock;
        let error = match cold.timed_out || error.raw_os_error() == Some(ECANCELED) {
            true => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {:?}", cold.options.connect_timeout),
            ),
            false if full => io::Error::new(
                io::ErrorKind::TimedOut,
                "its backlog stayed full: whoever listens there does not accept",
            ),
            false => error,
        };
        cold.refused(&name, error);
        self.dial_next(cx, id);
    }

    /// The deadline of an attempt, the retry of a full backlog, or an error that waited.
    pub(super) fn dial_timer(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let link = self.get(id).expect("the caller has it");
        let cold = link.cold.as_mut().expect("a dialing link has its cold part");
        // While an address is being tried, the error is the one before's.
        if cold.name.is_none()
            && let Some(error) = cold.error.take()
        {
            return cx.emit(id, LinkEvent::Failed(Side::Both, error));
        }
        match link.send {
            Some(op) => {
                cold.timed_out = true;
                cx.cancel(op);
            }
            None => self.dial(cx, id),
        }
    }
}

impl super::Cold {
    fn refused(&mut self, name: &SockName, error: io::Error) {
        self.refusals.push(format!("{name}: {error}"));
        self.error = Some(error);
    }

    /// One error for all addresses: the last one's kind, and what each said.
    fn last_word(&mut self) -> io::Error {
        match (self.error.take(), self.refusals.len()) {
            (Some(error), 0 | 1) => error,
            (Some(error), _) => io::Error::new(error.kind(), self.refusals.join("; ")),
            (None, _) => io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
        }
    }
}
