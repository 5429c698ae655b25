//! A process's part in the bus for threads outside the loop, blocking and async.
//!
//! ```text
//!   thread:  send --job--> [jobs] ==errand==> loop: Bus::send, again when there is room
//!            ticket <------------ accepted, or why not
//!            recv  <------ [inbox] <========= loop: on_message, while there is room
//! ```
//!
//! What a mailbox has not taken stays in the rings, so that a thread that is slow holds its senders
//! up, and nobody else.

mod ticket;
mod work;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use event_listener::{Event, Listener};

use self::ticket::{Answer, Holder, Ticket};
pub(super) use self::work::Mail;
use super::clock;
use super::error::BusError;
use super::handle::{Bus, LINGER, SendOptions};
use super::message::{OwnedMessage, ReplyTo};
use crate::Remote;

/// Messages that are taken out of rings and wait for a thread.
const INBOX_MAX: usize = 1024;

/// Bytes of them.
const INBOX_BYTES_MAX: usize = 8 << 20;

/// How long a call from async code waits where the caller's runtime knows no better.
const WITHIN_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a thread wants done on the loop.
#[derive(Debug)]
enum Verb {
    Send { large: bool },
    Call { within: Duration },
    Reply { to: ReplyTo },
    Flush,
    Close { linger: Duration },
}

/// It, with its message.
#[derive(Debug)]
struct Job {
    verb: Verb,
    to: String,
    chan: u16,
    ttl: Option<Duration>,
    key: Option<Vec<u8>>,
    bytes: Vec<u8>,
    ticket: Arc<Ticket>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    inbox: VecDeque<OwnedMessage>,
    inbox_bytes: usize,
    /// The loop is to be told when there is room in the inbox.
    held: bool,
    /// Something was sent, and perhaps not acknowledged.
    sent: bool,
    closed: bool,
}

impl State {
    fn has_room(&self) -> bool {
        self.inbox.len() < INBOX_MAX && self.inbox_bytes < INBOX_BYTES_MAX
    }
}

/// What threads and the loop share.
struct Shared {
    state: Mutex<State>,
    arrived: Event,
    remote: Remote,
    /// Which bus, on the loop's thread.
    id: u64,
    thread: ThreadId,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panicking thread cannot leave a queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the loop look at jobs and inbox.
    fn wake(&self) {
        let id = self.id;
        let _ = self.remote.run(move |_| work::run(id));
    }
}

/// See the module text. Cloning gives another handle; the drop of the last one waits, for
/// [`LINGER`] at most, until everything is acknowledged, unless that happens on the loop's thread.
///
/// ```no_run
/// use std::time::Duration;
/// use ringlane::bus::Bus;
/// use ringlane::prelude::*;
///
/// let base = EventBase::new()?;
/// let mailbox = Bus::open(&base, "login@hostA")?.mailbox()?;
/// let worker = std::thread::spawn(move || {
///     mailbox.send("db@hostB", b"hello", Duration::from_secs(1))?;
///     let answer = mailbox.recv(Duration::from_secs(1))?;
///     println!("{}: {}", answer.from(), answer.text());
///     Ok::<(), ringlane::bus::BusError>(())
/// });
/// base.dispatch()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Mailbox {
    shared: Arc<Shared>,
    _last: Arc<Last>,
}

/// Dropped with the last handle.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        if thread::current().id() != self.0.thread && self.0.state().sent {
            let _ = flush(&self.0, LINGER);
        }
    }
}

impl Bus {
    /// A mailbox for other threads. It takes every message from now on: the callback of
    /// [`Bus::on_message`] is replaced, and all mailboxes of a bus share one inbox.
    pub fn mailbox(&self) -> Result<Mailbox, BusError> {
        let shared = work::shared_of(self)?;
        Ok(Mailbox { _last: Arc::new(Last(Arc::clone(&shared))), shared })
    }
}

impl Mailbox {
    /// Sends a message; waits at most so long until it is accepted.
    ///
    /// # Errors
    /// [`BusError::TimedOut`] where there was no room in time: it was not taken.
    pub fn send(&self, to: &str, bytes: &[u8], within: Duration) -> Result<(), BusError> {
        self.send_with(to, &SendOptions::default(), bytes, within)
    }

    /// The same with options.
    pub fn send_with(
        &self,
        to: &str,
        options: &SendOptions<'_>,
        bytes: &[u8],
        within: Duration,
    ) -> Result<(), BusError> {
        self.post(Verb::Send { large: false }, to, options, bytes).wait(within).map(drop)
    }

    /// Sends a message of any size in pieces.
    pub fn send_large(
        &self,
        to: &str,
        options: &SendOptions<'_>,
        bytes: &[u8],
        within: Duration,
    ) -> Result<(), BusError> {
        self.post(Verb::Send { large: true }, to, options, bytes).wait(within).map(drop)
    }

    /// Sends a message, when there is room. Dropped before, it was not taken.
    pub async fn send_async(
        &self,
        to: &str,
        options: &SendOptions<'_>,
        bytes: &[u8],
    ) -> Result<(), BusError> {
        self.post(Verb::Send { large: false }, to, options, bytes).await_it().await.map(drop)
    }

    /// Sends a request and waits for its answer.
    pub fn call(&self, to: &str, bytes: &[u8], within: Duration) -> Result<OwnedMessage, BusError> {
        let job = self.post(Verb::Call { within }, to, &SendOptions::default(), bytes);
        job.wait(within).and_then(answer_of)
    }

    /// The same for async code.
    pub async fn call_async(
        &self,
        to: &str,
        bytes: &[u8],
        within: Option<Duration>,
    ) -> Result<OwnedMessage, BusError> {
        let within = within.unwrap_or(WITHIN_MAX);
        let job = self.post(Verb::Call { within }, to, &SendOptions::default(), bytes);
        job.await_it().await.and_then(answer_of)
    }

    /// Answers a request.
    pub fn reply(&self, to: &ReplyTo, bytes: &[u8], within: Duration) -> Result<(), BusError> {
        let verb = Verb::Reply { to: to.clone() };
        let options = SendOptions { chan: to.chan, ..SendOptions::default() };
        self.post(verb, &to.to, &options, bytes).wait(within).map(drop)
    }

    /// The same for async code.
    pub async fn reply_async(&self, to: &ReplyTo, bytes: &[u8]) -> Result<(), BusError> {
        let verb = Verb::Reply { to: to.clone() };
        let options = SendOptions { chan: to.chan, ..SendOptions::default() };
        self.post(verb, &to.to, &options, bytes).await_it().await.map(drop)
    }

    /// The next message, if there is one.
    pub fn try_recv(&self) -> Option<OwnedMessage> {
        let mut state = self.shared.state();
        let message = state.inbox.pop_front()?;
        state.inbox_bytes -= message.bytes().len();
        let wake = state.held && state.has_room();
        state.held &= !wake;
        drop(state);
        if wake {
            self.shared.wake();
        }
        Some(message)
    }

    /// The next message; waits at most so long.
    pub fn recv(&self, within: Duration) -> Result<OwnedMessage, BusError> {
        let until = clock::monotonic() + within;
        loop {
            let listener = self.shared.arrived.listen();
            if let Some(message) = self.try_recv() {
                return Ok(message);
            }
            self.check()?;
            let left = until.saturating_sub(clock::monotonic());
            if left.is_zero() {
                return Err(BusError::TimedOut);
            }
            listener.wait_timeout(left);
        }
    }

    /// The next message, for async code.
    pub async fn recv_async(&self) -> Result<OwnedMessage, BusError> {
        loop {
            let listener = self.shared.arrived.listen();
            if let Some(message) = self.try_recv() {
                return Ok(message);
            }
            self.check()?;
            listener.await;
        }
    }

    fn check(&self) -> Result<(), BusError> {
        if self.shared.state().closed { Err(BusError::Closed) } else { Ok(()) }
    }

    /// Waits until everything that this process has sent is acknowledged.
    ///
    /// # Errors
    /// [`BusError::TimedOut`] where it was not in time; [`BusError::InCallback`] on the loop's
    /// thread.
    pub fn flush(&self, within: Duration) -> Result<(), BusError> {
        if thread::current().id() == self.shared.thread {
            return Err(BusError::InCallback);
        }
        flush(&self.shared, within)
    }

    /// Ends the process's part in peace, at the latest after `linger`; see [`Bus::close`].
    pub fn close(&self, linger: Duration) -> Result<(), BusError> {
        let job = self.post(Verb::Close { linger }, "", &SendOptions::default(), &[]);
        job.wait(linger + Duration::from_secs(1)).map(drop)
    }

    fn post(&self, verb: Verb, to: &str, options: &SendOptions<'_>, bytes: &[u8]) -> Holder {
        let SendOptions { chan, ttl, key } = *options;
        let (to, key, bytes) = (to.to_string(), key.map(<[u8]>::to_vec), bytes.to_vec());
        post(&self.shared, |ticket| Job { verb, to, chan, ttl, key, bytes, ticket })
    }
}

fn post(shared: &Arc<Shared>, job: impl FnOnce(Arc<Ticket>) -> Job) -> Holder {
    let ticket = Arc::new(Ticket::default());
    let job = job(Arc::clone(&ticket));
    let mut state = shared.state();
    if state.closed {
        drop(state);
        ticket.done(Err(BusError::Closed));
    } else {
        state.sent = !matches!(job.verb, Verb::Flush | Verb::Close { .. });
        state.jobs.push_back(job);
        let first = state.jobs.len() == 1;
        drop(state);
        if first {
            shared.wake();
        }
    }
    Holder::new(ticket)
}

fn flush(shared: &Arc<Shared>, within: Duration) -> Result<(), BusError> {
    let job = post(shared, |ticket| Job {
        verb: Verb::Flush,
        to: String::new(),
        chan: 0,
        ttl: None,
        key: None,
        bytes: Vec::new(),
        ticket,
    });
    job.wait(within).map(drop)
}

fn answer_of(answer: Answer) -> Result<OwnedMessage, BusError> {
    answer.ok_or(BusError::Closed)
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({} messages)", self.shared.state().inbox.len())
    }
}
