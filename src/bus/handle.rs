//! The handle of a bus, and its verbs.

use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::clock::{self, Clock};
use super::core::{Core, Limits, Post, Setup, Slot};
use super::error::BusError;
use super::event::{InStatus, OutStatus, PeerEvent, RelayEvent};
use super::find;
use super::inner::Inner;
use super::memory::Memory;
use super::message::{Message, OwnedMessage, ReplyTo};
use crate::{EventBase, Turn};

/// How long closing waits for acknowledgements where nothing else is said.
pub const LINGER: Duration = Duration::from_secs(5);

/// How a process takes part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Ends the process that has the name.
    pub replace: bool,
    /// What it may hold.
    pub limits: Limits,
}

/// A process's part in the bus. The handle owns nothing, so that callbacks may capture it: the bus
/// lives until [`Bus::close`] is through or its base goes.
///
/// ```no_run
/// use ringlane::bus::Bus;
/// use ringlane::prelude::*;
///
/// let base = EventBase::new()?;
/// let bus = Bus::open(&base, "login@hostA")?;
/// bus.on_message(|m| println!("{}: {}", m.from(), m.text()));
/// bus.send("db@hostB", b"hello")?;
/// base.dispatch()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Bus(Weak<Inner>);

/// A message's way, beside the node: [`Bus::send_with`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SendOptions<'a> {
    /// The channel; 0 if nothing is said.
    pub chan: u16,
    /// It is worth nothing if it has not left after so long.
    pub ttl: Option<Duration>,
    /// Chooses the member of a group.
    pub key: Option<&'a [u8]>,
}

impl Bus {
    pub(super) fn of(inner: &Rc<Inner>) -> Bus {
        Bus(Rc::downgrade(inner))
    }

    /// Takes part as a node, through the relay of this host at its well-known socket:
    /// `/run/ringlane/HOST.sock` if that is there, else the abstract `@ringlane-UID-HOST`. A name
    /// without `@host` takes the only relay that runs. It need not run yet, if the host is named.
    ///
    /// # Errors
    /// No relay or several, where no host is named.
    pub fn open(base: &EventBase, name: &str) -> Result<Bus, BusError> {
        let socket = find::socket_of(name, own_uid())?;
        Bus::open_with(base, name, &socket, &Options::default())
    }

    /// The same through a relay whose socket is given: `unix:///run/x.sock`, `unix://@name`, or a
    /// path.
    pub fn open_at(base: &EventBase, name: &str, socket: &str) -> Result<Bus, BusError> {
        Bus::open_with(base, name, socket, &Options::default())
    }

    /// The same with options.
    pub fn open_with(
        base: &EventBase,
        name: &str,
        socket: &str,
        options: &Options,
    ) -> Result<Bus, BusError> {
        let bare = name.split('@').next().unwrap_or_default();
        if bare.is_empty() || name.matches('@').count() > 1 {
            let why = "a process is login or login@host";
            return Err(BusError::BadName { name: name.to_string(), why });
        }
        let socket = match socket.contains("://") {
            true => socket.to_string(),
            false => format!("unix://{socket}"),
        };
        base.check(&socket)?;
        let uid = own_uid();
        let setup = Setup {
            node: name.to_string(),
            epoch: clock::epoch(),
            nonce: clock::nonce()?,
            replace: options.replace,
            uid,
            memory: Memory::new().map_err(BusError::Memory)?,
            limits: options.limits,
        };
        let (listen_name, clock) = (clock::nonce()?, Clock::new(base.now()));
        let inner = Rc::new(Inner::new(Core::new(setup), socket, uid, listen_name, clock));
        inner.live(base);
        Ok(Bus::of(&inner))
    }

    pub(super) fn inner(&self) -> Result<Rc<Inner>, BusError> {
        self.0.upgrade().ok_or(BusError::Closed)
    }

    /// Asks something of the core, and has done what comes of it.
    fn ask<T>(&self, f: impl FnOnce(&mut Core) -> Result<T, BusError>) -> Result<T, BusError> {
        self.ask_at(true, f)
    }

    /// The same; `timed` where it must know the time.
    fn ask_at<T>(
        &self,
        timed: bool,
        f: impl FnOnce(&mut Core) -> Result<T, BusError>,
    ) -> Result<T, BusError> {
        let inner = self.inner()?;
        let mut core = inner.core.try_borrow_mut().map_err(|_| BusError::InCallback)?;
        if timed || core.wants_time() {
            core.set_now(inner.now());
        }
        let answer = f(&mut core);
        let (output, dirty) = (core.has_output(), core.is_dirty());
        drop(core);
        if output {
            inner.soon();
        }
        if dirty || answer.is_err() {
            inner.wires.touch_bell();
        }
        let value = answer?;
        Ok(value)
    }

    /// Called with each message. It counts as consumed when the callback has returned. Without one,
    /// messages wait for [`Bus::try_recv`].
    pub fn on_message(&self, callback: impl FnMut(&Message<'_>) + 'static) {
        if let Ok(inner) = self.inner() {
            let old = inner.callbacks.message.replace(Some(Box::new(callback)));
            drop(old);
            inner.soon();
        }
    }

    /// Asked before each message: while it says no, messages stay where they are, and count as not
    /// consumed. After it has changed its mind, [`Bus::look_again`] sets things going.
    pub fn accept_while(&self, accepts: impl Fn() -> bool + 'static) {
        if let Ok(inner) = self.inner() {
            drop(inner.callbacks.accepts.replace(Some(Box::new(accepts))));
            inner.soon();
        }
    }

    /// Looks for messages that [`Bus::accept_while`] did not want before.
    pub fn look_again(&self) {
        if let Ok(inner) = self.inner() {
            inner.soon();
        }
    }

    /// Called when something happens to a peer.
    pub fn on_peer(&self, callback: impl FnMut(&PeerEvent) + 'static) {
        if let Ok(inner) = self.inner() {
            drop(inner.callbacks.peer.replace(Some(Box::new(callback))));
        }
    }

    /// Called when something happens to the relay of this host.
    pub fn on_relay(&self, callback: impl FnMut(&RelayEvent) + 'static) {
        if let Ok(inner) = self.inner() {
            drop(inner.callbacks.relay.replace(Some(Box::new(callback))));
        }
    }

    /// Called once, with node and channel, when there is room after [`BusError::WouldBlock`].
    pub fn on_writable(&self, callback: impl FnMut(&str, u16) + 'static) {
        if let Ok(inner) = self.inner() {
            drop(inner.callbacks.writable.replace(Some(Box::new(callback))));
        }
    }

    /// Sends a message on channel 0. `Ok` means that it is accepted: it lies in a ring that
    /// outlives the relay, or waits for one. It is never waited here, and nothing is dropped in
    /// silence.
    ///
    /// # Errors
    /// [`BusError::WouldBlock`] where there is no room: it was not taken, and `on_writable` comes
    /// once. [`BusError::TooLong`] for more than a quarter of the ring: [`Bus::send_large`].
    pub fn send(&self, to: &str, bytes: &[u8]) -> Result<(), BusError> {
        self.send_with(to, &SendOptions::default(), bytes)
    }

    /// The same on another channel: channels do not wait for each other.
    pub fn send_on(&self, to: &str, chan: u16, bytes: &[u8]) -> Result<(), BusError> {
        self.send_with(to, &SendOptions { chan, ..SendOptions::default() }, bytes)
    }

    /// The same to the member of a group that `key` names.
    pub fn send_keyed(&self, group: &str, key: &[u8], bytes: &[u8]) -> Result<(), BusError> {
        self.send_with(group, &SendOptions { key: Some(key), ..SendOptions::default() }, bytes)
    }

    /// The same with options.
    pub fn send_with(
        &self,
        to: &str,
        options: &SendOptions<'_>,
        bytes: &[u8],
    ) -> Result<(), BusError> {
        let timed = options.ttl.is_some();
        self.ask_at(timed, |core| core.send(post(to, options, false), bytes))
    }

    /// Sends a message of `len` bytes that `fill` writes in place: into the ring that the relay or
    /// the neighbour reads. What it does not write is arbitrary.
    ///
    /// ```no_run
    /// # fn f(bus: &ringlane::bus::Bus) -> Result<(), ringlane::bus::BusError> {
    /// bus.send_in_place("db@hostB", &Default::default(), 16, |slot| {
    ///     slot.write(0, &7_u64.to_le_bytes());
    ///     slot.write(8, &9_u64.to_le_bytes());
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Bus::send`]. The bus cannot be used inside of `fill`: [`BusError::InCallback`].
    pub fn send_in_place(
        &self,
        to: &str,
        options: &SendOptions<'_>,
        len: usize,
        mut fill: impl FnMut(&mut Slot<'_>),
    ) -> Result<(), BusError> {
        self.ask_at(options.ttl.is_some(), |core| {
            core.send_in_place(post(to, options, false), len, &mut fill)
        })
    }

    /// Sends a message of any size in pieces: it is shown whole. While pieces wait for room, other
    /// messages on the channel would block, so give large ones a channel of their own.
    pub fn send_large(
        &self,
        to: &str,
        options: &SendOptions<'_>,
        bytes: &[u8],
    ) -> Result<(), BusError> {
        self.ask(|core| core.send(post(to, options, true), bytes))
    }

    /// Breaks off a large message that has not left whole: its receiver drops what has come.
    /// Whether there was one.
    pub fn abort_large(&self, to: &str, chan: u16) -> Result<bool, BusError> {
        self.ask(|core| core.abort_large(to, chan))
    }

    /// Sends a request; `callback` gets its answer, or why there is none, once.
    pub fn call(
        &self,
        to: &str,
        bytes: &[u8],
        within: Duration,
        callback: impl FnOnce(Result<&Message<'_>, BusError>) + 'static,
    ) -> Result<(), BusError> {
        self.call_with(to, &SendOptions::default(), bytes, within, callback)
    }

    /// The same with options.
    pub fn call_with(
        &self,
        to: &str,
        options: &SendOptions<'_>,
        bytes: &[u8],
        within: Duration,
        callback: impl FnOnce(Result<&Message<'_>, BusError>) + 'static,
    ) -> Result<(), BusError> {
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX >> 1);
        let number = self.ask(|core| core.call(post(to, options, false), bytes, within))?;
        let inner = self.inner()?;
        inner.callbacks.calls.borrow_mut().insert(number, Box::new(callback));
        // The deadline has to be waited for.
        inner.soon();
        Ok(())
    }

    /// Answers a request, now or later.
    pub fn reply(&self, to: &ReplyTo, bytes: &[u8]) -> Result<(), BusError> {
        if !to.wanted {
            return Ok(());
        }
        let options = SendOptions { chan: to.chan, ..SendOptions::default() };
        self.ask(|core| core.reply(post(&to.to, &options, false), to.number, bytes))
    }

    /// The next message, if there is one: for loops that look for themselves. It counts as
    /// consumed.
    pub fn try_recv(&self) -> Option<OwnedMessage> {
        let inner = self.0.upgrade()?;
        let message = inner.pull();
        if inner.core.try_borrow().is_ok_and(|core| core.has_output()) {
            inner.soon();
        }
        inner.wires.touch_bell();
        message
    }

    /// Closes the channel to a node when everything accepted for it is acknowledged.
    pub fn close_channel(&self, to: &str, chan: u16) {
        let _ = self.ask(|core| {
            core.close_channel(to, chan);
            Ok(())
        });
    }

    /// Ends this process's part in peace: what was accepted is sent, and `callback` gets, at the
    /// latest after `linger`, how many messages are not acknowledged.
    pub fn close(&self, linger: Duration, callback: impl FnOnce(u64) + 'static) {
        let Ok(inner) = self.inner() else { return };
        drop(inner.callbacks.closed.replace(Some(Box::new(callback))));
        let _ = self.ask(|core| {
            core.close(u64::try_from(linger.as_millis()).unwrap_or(u64::MAX >> 1));
            Ok(())
        });
        inner.soon();
    }

    /// Turns the base until everything that was accepted is acknowledged, at most for `linger`;
    /// returns how many messages are not. The bus stays open.
    ///
    /// # Errors
    /// [`BusError::InCallback`] where the base is turning.
    pub fn flush(&self, linger: Duration) -> Result<u64, BusError> {
        self.watch_acknowledgements(true);
        let left = self.turn_until(linger, |core| (core.unacknowledged() == 0).then_some(0));
        let left = left.and_then(|left| match left {
            Some(left) => Ok(left),
            None => self.ask(|core| Ok(core.unacknowledged())),
        });
        self.watch_acknowledgements(false);
        left
    }

    /// Has the loop woken for every acknowledgement, or no longer.
    pub(super) fn watch_acknowledgements(&self, on: bool) {
        let _ = self.ask(|core| {
            core.drain(on);
            Ok(())
        });
    }

    /// [`Bus::close`], and turns the base until that is through; returns how many messages are not
    /// acknowledged.
    ///
    /// # Errors
    /// [`BusError::InCallback`] where the base is turning.
    pub fn close_now(&self, linger: Duration) -> Result<u64, BusError> {
        let left = Rc::new(std::cell::Cell::new(None));
        let told = Rc::clone(&left);
        self.close(linger, move |left| told.set(Some(left)));
        let grace = linger + Duration::from_secs(1);
        self.turn_until(grace, |_| left.get())?;
        left.get().ok_or(BusError::TimedOut)
    }

    /// Turns the base until the core says so, or time is over.
    fn turn_until(
        &self,
        within: Duration,
        until: impl Fn(&mut Core) -> Option<u64>,
    ) -> Result<Option<u64>, BusError> {
        let inner = self.inner()?;
        let base = inner.base().ok_or(BusError::Closed)?;
        let over = Rc::new(std::cell::Cell::new(false));
        let told = Rc::clone(&over);
        let timer = base.timer(within, move |_| told.set(true));
        let answer = loop {
            let answer = until(&mut inner.core.borrow_mut());
            if answer.is_some() || over.get() {
                break Ok(answer);
            }
            if let Err(error) = base.turn(Turn::Wait) {
                let nested = error.io().is_none();
                break Err(if nested { BusError::InCallback } else { error.into() });
            }
        };
        timer.free();
        answer
    }

    /// Whether the relay has taken this process in.
    pub fn is_here(&self) -> bool {
        self.0.upgrade().is_some_and(|inner| inner.core.borrow().is_here())
    }

    /// Whether it was not closed.
    pub fn is_alive(&self) -> bool {
        self.0.upgrade().is_some_and(|inner| !inner.core.borrow().is_closed())
    }

    /// This process's name, without its host.
    pub fn node(&self) -> Option<Rc<str>> {
        Some(Rc::clone(self.0.upgrade()?.core.borrow().node()))
    }

    /// This instance's epoch.
    pub fn epoch(&self) -> Option<u64> {
        Some(self.0.upgrade()?.core.borrow().epoch())
    }

    /// Messages accepted and not acknowledged.
    pub fn unacknowledged(&self) -> u64 {
        self.0.upgrade().map_or(0, |inner| inner.core.borrow_mut().unacknowledged())
    }

    /// The channels that are sent on.
    pub fn out_status(&self) -> Vec<OutStatus> {
        self.0.upgrade().map_or_else(Vec::new, |inner| inner.core.borrow().out_status())
    }

    /// The channels that are received on.
    pub fn in_status(&self) -> Vec<InStatus> {
        self.0.upgrade().map_or_else(Vec::new, |inner| inner.core.borrow().in_status())
    }

    /// The base it lives in.
    pub fn base(&self) -> Option<EventBase> {
        self.0.upgrade()?.base()
    }
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[inline]
fn post<'a>(to: &'a str, options: &SendOptions<'a>, large: bool) -> Post<'a> {
    let ttl = options.ttl.map(|ttl| u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX));
    Post { to, chan: options.chan, key: options.key, ttl, large }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bus({})", self.node().as_deref().unwrap_or("closed"))
    }
}
