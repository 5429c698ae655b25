//! The second notice of a peer's death. The first is the end of its socket; a peer that forked
//! leaves that open in its child. The kernel knows the process behind the other end (socket(7)
//! SO_PEERPIDFD) and tells when it has ended. All that it published was there before.
//!
//! For the acceptor that is the process that connected, and nobody else has its rings. For the
//! connector it is the process that listened, which need not be the one that accepts: a child of
//! it may. So the acceptor says whether it is that one.

use std::io;

use ringlane_api::reactor::{Op, Ready};
use ringlane_api::transport::{Cx, LinkId};

use crate::link::{State, bit};
use crate::table::Shm;
use crate::transport::DEATH;

/// errno of a process that is gone and of which nothing is left.
const ESRCH: i32 = 3;

impl Shm {
    /// Waits for the end of the process at the other end of a link's socket. Where the kernel
    /// cannot say which that is (before 6.5, or no descriptor is to be had) the socket must do.
    pub(crate) fn await_death(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(inner) = self.get(id).and_then(|link| link.inner) else { return };
        let Some(socket) = self.uds.descriptor(inner) else { return };
        let process = match cx.sys().pidfd(&socket) {
            Ok(process) => process,
            Err(error) => return self.unwatched(id, &error),
        };
        let op = Op::Poll { fd: process, ready: Ready::READ, multishot: false, edge: false };
        let op = cx.push(id, DEATH, op);
        if let Some(link) = self.get(id) {
            link.death = Some(op);
        }
    }

    fn unwatched(&mut self, id: LinkId, error: &io::Error) {
        if error.raw_os_error() == Some(ESRCH) {
            return self.gone(id);
        }
        log::debug!("shm: the peer's process cannot be watched, its socket must do: {error}");
    }

    /// The wait is over: `ended` says whether the process is.
    pub(crate) fn died(&mut self, cx: &mut Cx<'_>, id: LinkId, ended: bool) {
        let Some(link) = self.get(id) else { return };
        link.death = None;
        match link.state {
            State::Closing => self.try_close(cx, id),
            _ if ended => self.gone(id),
            _ => {}
        }
    }

    /// The peer is gone: what it has published is read, then the link is over.
    pub(crate) fn gone(&mut self, id: LinkId) {
        if let Some(link) = self.get(id).filter(|link| link.state == State::Open) {
            link.bits |= bit::GONE;
            self.wake(id);
        }
    }
}
