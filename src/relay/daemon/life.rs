//! Signals, reload, drain, end.

use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use crate::cluster::{Cluster, diff};
use crate::relay::lock::Lock;
use crate::{Result, Signal};

use super::{Inner, Relay};

/// How a relay ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Records that were not acknowledged when it ended; their senders still hold them.
    pub unacked: u64,
    /// Another relay has taken over.
    pub replaced: bool,
}

impl Relay {
    /// Where other relays find it.
    pub fn listening(&self) -> Vec<String> {
        self.0.listening()
    }

    /// Where its counters are shown, beside its own socket.
    pub fn showing(&self) -> Option<String> {
        self.0.showing()
    }

    /// Ends on SIGTERM and SIGINT, after what is under way was acknowledged; reads its
    /// configuration again on SIGHUP.
    pub fn obey_signals(&self, config: &Path) -> Result<()> {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let inner = Rc::downgrade(&self.0);
            self.0.base.on_signal(signal, move |base| match inner.upgrade() {
                Some(inner) if !inner.ending.get() => inner.begin_end(),
                _ => base.stop(),
            })?;
        }
        self.reload_from(config);
        let inner = Rc::downgrade(&self.0);
        self.0.base.on_signal(Signal::SIGHUP, move |_| {
            if let Some(inner) = inner.upgrade() {
                // What came of it is in the log.
                let _ = inner.reload();
            }
        })?;
        Ok(())
    }

    /// Where it reads its configuration again when an operator asks it to through its socket.
    pub fn reload_from(&self, config: &Path) {
        self.0.config.replace(Some(config.to_path_buf()));
    }

    /// Holds the lock of its host, and ends when another relay has taken over.
    pub fn hold(&self, lock: Lock) {
        self.0.lock.replace(Some(lock));
    }

    /// What was left when its base stopped.
    pub fn ended(&self) -> Ended {
        Ended { unacked: self.0.unacked(), replaced: self.0.replaced.get() }
    }
}

impl Inner {
    /// A relay that was stopped may have been replaced meanwhile: then it ends.
    pub(super) fn look_at_lock(&self) {
        let (now, last) = (self.base.now(), self.ticked.replace(self.base.now()));
        let lock = self.lock.borrow();
        let Some(lock) = lock.as_ref() else { return };
        lock.sweep();
        let late = now.saturating_duration_since(last) > super::TICK * 4;
        if late && lock.is_replaced().unwrap_or(false) {
            log::error!("another relay of this host has taken over; this one ends");
            self.replaced.set(true);
            self.base.break_now();
        }
    }

    fn unacked(&self) -> u64 {
        self.core.borrow().unacked_by_host().values().sum()
    }

    /// Takes nobody new, and ends when nothing is under way any more.
    fn begin_end(self: &Rc<Self>) {
        self.ending.set(true);
        self.stop_listening_for_processes();
        self.stop_listening_for_relays();
        self.stop_showing();
        let until = self.base.now() + self.options.drain;
        log::info!("draining for at most {} s", self.options.drain.as_secs());
        self.look_for_end(until);
    }

    fn look_for_end(self: &Rc<Self>, until: Instant) {
        let left = self.unacked();
        if left == 0 || self.base.now() >= until {
            self.part_with_all();
            return self.base.stop();
        }
        let inner = Rc::downgrade(self);
        self.base.once(super::TICK / 10, move |_| {
            if let Some(inner) = inner.upgrade() {
                inner.look_for_end(until);
            }
        });
    }

    /// Reads the configuration again. What cannot be taken changes nothing.
    pub(super) fn reload(self: &Rc<Self>) -> Result<String, String> {
        let config = self.config.borrow().clone();
        let config = config.ok_or("this relay was not told of a file that it could read")?;
        let said = self.try_reload(&config);
        match &said {
            Ok(said) => log::info!("reloaded: {said}"),
            Err(why) => log::error!("not reloaded: {why}"),
        }
        self.reloads.set(self.reloads.get() + 1);
        said
    }

    fn try_reload(self: &Rc<Self>, config: &Path) -> Result<String, String> {
        let new = Cluster::load(config).map_err(|errors| errors.to_string())?;
        let old = Rc::clone(&self.cluster.borrow());
        let diff = diff(&old, &new).map_err(|cannot| cannot.to_string())?;
        if new.host(&self.options.host).is_none() {
            return Err(format!("host `{}` is not in it any more", self.options.host));
        }
        let new = Rc::new(new);
        let learned = self.links.borrow_mut().learn(&new, self.base.now());
        learned.map_err(|error| error.to_string())?;
        self.links.borrow_mut().refit(&new);
        self.sockets.borrow_mut().refit(&new);
        self.core.borrow_mut().reconfigure(Rc::clone(&new));
        self.cluster.replace(new);
        self.kick();
        Ok(diff.to_string())
    }
}
