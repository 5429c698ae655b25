//! How a link ends.

use ringlane_api::reactor::Side;
use ringlane_api::transport::LinkEvent;

use super::{Fault, Link, Phase, Scope, Word};

impl Link {
    /// Ends our direction after everything that was taken.
    pub fn finish(&mut self, scope: &mut Scope<'_>) {
        if self.finish == Word::Unsaid && matches!(self.phase, Phase::Waiting | Phase::Open) {
            self.finish = Word::Wanted;
            self.write_over = true;
            self.flush(scope);
        }
    }

    /// Ends it now; `Closed` follows when the peer's device has our goodbye and ours has let go of
    /// everything. What was taken before goes out first.
    pub fn abort(&mut self, scope: &mut Scope<'_>) {
        match self.phase {
            Phase::Open if !self.peer_gone => {
                self.phase = Phase::Leaving;
                self.goodbye = Word::Wanted;
                self.held.clear();
                self.flush(scope);
            }
            Phase::Waiting | Phase::Open | Phase::Broken => self.drain(scope),
            Phase::Leaving | Phase::Draining | Phase::Closed => {}
        }
        self.settle(scope);
    }

    /// The goodbye was not taken in its time.
    pub fn lingered(&mut self, scope: &mut Scope<'_>) {
        if self.phase == Phase::Leaving {
            self.drain(scope);
        }
        self.settle(scope);
    }

    /// The peer is lost for a reason from outside. Called after everything that had completed was
    /// handled.
    pub fn peer_lost(&mut self, scope: &mut Scope<'_>, fault: Fault) {
        self.broke(scope, fault);
        self.settle(scope);
    }

    /// The device is gone, and with it the completions that would still come.
    pub fn device_gone(&mut self, scope: &mut Scope<'_>) {
        self.posted = 0;
        self.in_flight.clear();
        self.broke(scope, Fault::DeviceGone);
        self.settle(scope);
    }

    /// The queue pair does not work any more, or must not.
    pub(super) fn broke(&mut self, scope: &mut Scope<'_>, fault: Fault) {
        match self.phase {
            Phase::Waiting | Phase::Open => {
                // After the peer's goodbye its silence is no news.
                let fault = if self.peer_gone { Fault::Reset } else { fault };
                self.fault = Some(fault);
                self.phase = Phase::Broken;
                self.fail_pair(scope);
                let all_read = self.held.is_empty() && !self.peer_finished && !self.read_over;
                if all_read && !self.write_over {
                    (self.read_over, self.write_over) = (true, true);
                    let failed = LinkEvent::Failed(Side::Both, fault.error());
                    return scope.events.push(failed);
                }
                self.fail_write(scope, fault.error());
                self.deliver(scope);
            }
            Phase::Leaving => self.drain(scope),
            Phase::Broken | Phase::Draining | Phase::Closed => {}
        }
    }

    /// Takes the device's hands off: everything posted completes, as flushed.
    pub(super) fn drain(&mut self, scope: &mut Scope<'_>) {
        self.phase = Phase::Draining;
        self.held.clear();
        self.fail_pair(scope);
    }

    fn fail_pair(&mut self, scope: &mut Scope<'_>) {
        // A device that is gone says no here; there is nothing left to fail then.
        if scope.verbs.fail_pair(self.pair).is_err() {
            self.posted = 0;
            self.in_flight.clear();
        }
    }

    /// Frees what a draining link had when the last of it is back.
    pub(super) fn settle(&mut self, scope: &mut Scope<'_>) {
        if self.phase != Phase::Draining || self.posted > 0 || !self.in_flight.is_empty() {
            return;
        }
        self.phase = Phase::Closed;
        let pair = scope.verbs.destroy_pair(self.pair);
        debug_assert_eq!(pair, Ok(()), "everything was polled");
        let region = scope.verbs.deregister(self.region);
        debug_assert_eq!(region, Ok(()), "no work names it");
        scope.events.push(LinkEvent::Closed);
    }
}
