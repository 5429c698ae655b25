//! io_uring: one `io_uring_enter` per turn, nothing allocated per message.
//!
//! ```text
//!   ops.rs    push, cancel, close; whom a completion entry is for
//!   turn.rs   feed -> try -> flush -> enter -> reap -> claim
//!   recv.rs   multishot receives, bulk receives, accepts       blocks.rs  the posted blocks
//!   send.rs   silent sends and what follows where they fail
//!   ready.rs  polls, connects, ops tried when ready
//!   flight.rs the flight table      ring.rs  the bare ring      probe.rs  what the kernel has
//!   life.rs   set-up, fork, the end                             fault.rs  a liar, for tests
//! ```
//!
//! Invariant: memory and descriptors that an entry names stay in the flight table, or in a store
//! beside it, until that entry's last completion was looked at.

mod blocks;
mod fault;
mod flight;
mod life;
mod ops;
mod probe;
mod ready;
mod recv;
mod ring;
mod send;
mod turn;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlane_api::reactor::{
    Completion, Counters, EngineReport, Op, OpId, Reactor, SharedWord, Sys, Token, Wake,
};
use ringlane_api::segment::Home;
use socket2::SockAddr;

use crate::attempt::Pending;
use crate::config::Config;
use crate::resolve::Resolver;
use crate::sys::Kernel;
use crate::wake::Waker;

use blocks::Blocks;
use fault::Liar;
use flight::{Flights, Store};
use probe::Features;
use ring::{Cqe, Ring};
use send::{Gather, Sending, Unclaimed};

/// The io_uring engine.
pub(crate) struct Uring {
    config: Config,
    features: Features,
    ring: Ring,
    flights: Flights,
    blocks: Blocks,
    home: Rc<Home>,
    /// Whether a receive was ever pushed; before that no blocks are posted.
    receives: bool,
    /// Receives without a block, by `user_data`, first come first served.
    starved: VecDeque<u64>,
    sends: Store<Sending>,
    #[allow(clippy::vec_box, reason = "the kernel holds pointers into them while they are out")]
    gathers: Vec<Box<Gather>>,
    unclaimed: Unclaimed,
    names: Store<Box<SockAddr>>,
    words: Store<Rc<dyn SharedWord>>,
    attempts: Store<Pending>,
    /// Attempts for the next turn, by `user_data`.
    tries: Vec<u64>,
    /// Bulk receives that wait for a block, by `user_data`, first come first served.
    bulk: VecDeque<u64>,
    /// Attempts that no readiness announces.
    later: Vec<u64>,
    /// Scratch for the above.
    trying: Vec<u64>,
    /// Completions that no entry brings.
    early: Vec<Completion>,
    /// Scratch for a turn's completion entries.
    batch: Vec<Cqe>,
    waker: Arc<Waker>,
    /// Whether the ring polls the waker.
    listening: bool,
    /// Nothing is armed again.
    ending: bool,
    /// The last turn had something to report.
    busy: bool,
    resolver: Resolver,
    kernel: Kernel,
    fault: Option<Box<Liar>>,
    counters: Counters,
}

/// The error of an op whose end was asked for.
fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

impl Reactor for Uring {
    fn name(&self) -> &'static str {
        "uring"
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn push(&mut self, token: Token, op: Op) -> OpId {
        self.begin(token, op)
    }

    fn cancel(&mut self, op: OpId) {
        self.cancel_op(op);
    }

    fn turn(&mut self, wait: Option<Duration>, done: &mut Vec<Completion>) -> io::Result<()> {
        self.take_turn(wait, done)
    }

    fn sys(&mut self) -> &mut dyn Sys {
        &mut self.kernel
    }

    fn waits_on_words(&self) -> bool {
        self.features.futex
    }

    fn home(&self) -> &Rc<Home> {
        &self.home
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn reinit(&mut self) -> io::Result<()> {
        self.after_fork()
    }

    fn report(&self) -> EngineReport {
        let params = self.ring.params();
        let mut details = vec![
            format!("submission queue {} entries", params.sq_entries()),
            format!("completion queue {} entries", params.cq_entries()),
            format!(
                "blocks {} x {} B, {} posted, {} out",
                self.blocks.target(),
                self.home.block_bytes(),
                self.blocks.posted(),
                self.home.out()
            ),
            format!("operations in flight {}", self.flights.live()),
        ];
        details.extend(self.fault.as_ref().map(|liar| liar.report()));
        EngineReport {
            engine: "uring",
            tier: self.features.tier_name(),
            features: self.features.list(),
            fell_back: None,
            details,
        }
    }

    fn counters(&self) -> Counters {
        Counters { sqes: self.ring.numbered(), cqes: self.ring.popped(), ..self.counters }
    }
}
