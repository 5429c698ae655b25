//! How an engine begins, crosses a fork, and ends.
//!
//! Invariants: memory that the kernel may still write to is never freed: either everything armed
//! was cancelled and its last completion seen, or it is leaked. A forked child never touches the
//! parent's ring.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use io_uring::opcode;
use io_uring::types::CancelBuilder;
use ringlane_api::reactor::{Counters, Op, Outcome, Ready, Wake, forked};
use ringlane_api::segment::Home;

use crate::config::Config;
use crate::resolve::Resolver;
use crate::sys::Kernel;
use crate::wake::Waker;

use super::blocks::Blocks;
use super::fault::Liar;
use super::flight::{ARMED, CANCEL, CANCELLED, Flights, Kind, NONE, PARKED, Store};
use super::probe::Features;
use super::recv::own;
use super::ring::Ring;
use super::send::Unclaimed;
use super::{Uring, cancelled};

/// Entries below which a ring is not worth having.
const SQ_ENTRIES_MIN: u32 = 64;

/// First pause after `ENOMEM`; doubled each time.
const PAUSE: Duration = Duration::from_millis(4);
/// The longest of them.
const PAUSE_MAX: Duration = Duration::from_millis(128);

/// Rounds of cancelling at the end, and how long one waits: two seconds in all.
const END_ROUNDS: usize = 100;
const END_WAIT: Duration = Duration::from_millis(20);

impl Uring {
    /// Sets the engine up, or says what the kernel said.
    pub(crate) fn new(config: &Config) -> io::Result<Uring> {
        let features = patiently(config, |_| Features::find(config))?;
        let home = Home::new(config.block_bytes, config.home_blocks_max);
        let (ring, blocks) = set_up(config, &features, &home)?;
        let waker = Arc::new(Waker::new()?);
        let resolver = Resolver::new(Arc::clone(&waker) as Arc<dyn Wake>);
        let mut engine = Uring {
            config: config.clone(),
            features,
            ring,
            flights: Flights::new(),
            blocks,
            home,
            receives: false,
            starved: VecDeque::new(),
            sends: Store::new(),
            gathers: Vec::new(),
            unclaimed: Unclaimed::default(),
            names: Store::new(),
            words: Store::new(),
            attempts: Store::new(),
            tries: Vec::new(),
            bulk: VecDeque::new(),
            later: Vec::new(),
            trying: Vec::new(),
            early: Vec::new(),
            batch: Vec::new(),
            waker,
            listening: false,
            ending: false,
            busy: false,
            resolver,
            kernel: Kernel::new(),
            fault: config.fault.map(|plan| Box::new(Liar::new(plan))),
            counters: Counters::default(),
        };
        engine.listen_to_waker();
        Ok(engine)
    }

    /// In a forked child: a ring of its own, and everything that receives is armed on it.
    pub(super) fn after_fork(&mut self) -> io::Result<()> {
        if !self.ring.forked() {
            return Ok(());
        }
        self.close_copies();
        let (ring, blocks) = set_up(&self.config, &self.features, &self.home)?;
        self.blocks.reclaim_after_fork();
        self.blocks = blocks;
        self.ring = ring;
        self.unclaimed.clear();
        self.starved.clear();
        self.tries.clear();
        self.bulk.clear();
        self.later.clear();
        self.batch.clear();
        self.waker.after_fork()?;
        self.resolver.after_fork();
        self.kernel.after_fork()?;
        self.listen_to_waker();
        for slot in 0..self.flights.slots() {
            self.carry_over(slot);
        }
        for slot in 0..self.flights.slots() {
            let number = match self.flights.at(slot) {
                flight if flight.kind == Kind::Close => flight.number(),
                _ => continue,
            };
            if self.flights.lone_close(number) == Some(slot) {
                let completion = self.end(slot, Ok(Outcome::Done));
                self.early.push(completion);
            }
        }
        Ok(())
    }

    /// What was in flight in the parent: armed again, or told that it belongs to the parent.
    fn carry_over(&mut self, slot: u32) {
        let flight = self.flights.at(slot);
        let was_cancelled = flight.has(CANCELLED);
        flight.clear(ARMED | PARKED);
        let (kind, place) = (flight.kind, flight.a);
        let error = if was_cancelled { cancelled() } else { forked() };
        let completion = match kind {
            Kind::Free | Kind::Close => return,
            Kind::Recv if !was_cancelled => return self.arm_recv(slot),
            Kind::Accept if !was_cancelled => return self.arm_accept(slot),
            Kind::Poll if !was_cancelled => return self.arm_poll(slot),
            Kind::Attempt if !was_cancelled && receives(&self.attempts.get(place).op) => {
                return self.wait_for(slot, Ready::READ);
            }
            Kind::Attempt => self.end_attempt(slot, Err(error)),
            Kind::Send => self.end_send(slot, Err(error)),
            Kind::Futex => self.end_futex(slot, Err(error)),
            Kind::Connect => {
                self.names.remove(place);
                self.end(slot, Err(error))
            }
            Kind::Recv | Kind::Accept | Kind::Poll | Kind::Resolve => self.end(slot, Err(error)),
        };
        self.early.push(completion);
    }

    /// In a child, connections that were held back are the parent's; our copies are closed.
    fn close_copies(&mut self) {
        for slot in 0..self.flights.slots() {
            let flight = self.flights.at(slot);
            if flight.kind == Kind::Accept && flight.b != NONE {
                drop(own(std::mem::replace(&mut flight.b, NONE) as i32));
            }
        }
        let held = self.fault.as_mut().map(|liar| liar.confess()).unwrap_or_default();
        for cqe in held {
            let slot = self.flights.find(cqe.user_data);
            let accept = slot.is_some_and(|slot| self.flights.at(slot).kind == Kind::Accept);
            if accept && cqe.result >= 0 {
                drop(own(cqe.result));
            }
        }
    }

    /// Cancels everything and reaps until nothing is armed. `false`: the kernel did not let go.
    fn quiesce(&mut self) -> bool {
        self.ending = true;
        let mut ignored = Vec::new();
        if let Some(mut liar) = self.fault.take() {
            for cqe in liar.confess() {
                self.dispatch(cqe, &mut ignored);
            }
        }
        for slot in 0..self.flights.slots() {
            if self.flights.at(slot).kind != Kind::Free {
                self.flights.at(slot).set(CANCELLED);
            }
        }
        let (mut rounds, mut behind) = (0, usize::MAX);
        while rounds < END_ROUNDS {
            let flushed = self.ring.flush();
            if flushed && self.is_quiet() {
                return true;
            }
            // While a small queue takes in a long backlog, time is not running out.
            let before = std::mem::replace(&mut behind, self.ring.backlog());
            rounds += usize::from(flushed || behind >= before);
            if flushed {
                // KERNEL 5.19: cancel whatever there is. Behind all other entries.
                let any = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
                self.ring.push(&any.user_data(CANCEL | u64::from(NONE)));
            }
            // An error is a short round; there are enough of them.
            let _ = self.ring.enter(u32::from(flushed), Some(END_WAIT));
            self.reap(&mut ignored);
            ignored.clear();
        }
        self.is_quiet()
    }

    fn is_quiet(&mut self) -> bool {
        let armed = (0..self.flights.slots()).any(|slot| {
            let flight = self.flights.at(slot);
            flight.kind != Kind::Free && flight.has(ARMED)
        });
        !armed && !self.listening
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.ring.forked() {
            self.close_copies();
            self.blocks.reclaim_after_fork();
        } else if self.quiesce() {
            self.blocks.unregister(&self.ring);
        } else {
            // Leaked, because the kernel may still read or write it.
            log::error!("io_uring did not let go of its operations; their memory is leaked");
            self.sends.drain().for_each(std::mem::forget);
            self.names.drain().for_each(std::mem::forget);
            self.words.drain().for_each(std::mem::forget);
        }
    }
}

/// Whether an op that is tried when ready waits for bytes.
fn receives(op: &Op) -> bool {
    matches!(op, Op::Recv { .. } | Op::RecvBulk { .. } | Op::RecvMsg { .. })
}

/// A ring with its blocks; smaller than asked for where memory is short.
fn set_up(config: &Config, features: &Features, home: &Rc<Home>) -> io::Result<(Ring, Blocks)> {
    let (mut ring, blocks) = patiently(config, |shrink| {
        let sq_entries = (config.sq_entries >> shrink).max(1);
        let cq_entries = (config.cq_entries >> shrink).max(sq_entries);
        let ring = Ring::new(sq_entries, cq_entries)?;
        let most = config.ring_blocks_max.max(config.ring_blocks);
        let blocks = Blocks::new(&ring, Rc::clone(home), config.ring_blocks, most)?;
        Ok((ring, blocks))
    })?;
    if !features.no_iowait {
        ring.without_no_iowait();
    }
    Ok((ring, blocks))
}

/// Tries again while memory is short, then with halved sizes. The memory-lock budget of a dead
/// process comes back with a delay.
fn patiently<T>(config: &Config, mut make: impl FnMut(u32) -> io::Result<T>) -> io::Result<T> {
    let (mut shrink, mut pause, mut paused) = (0, PAUSE, Duration::ZERO);
    loop {
        match make(shrink) {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                if paused < config.setup_retry {
                    std::thread::sleep(pause);
                    paused += pause;
                    pause = (pause * 2).min(PAUSE_MAX);
                } else if config.sq_entries >> (shrink + 1) >= SQ_ENTRIES_MIN {
                    shrink += 1;
                } else {
                    return Err(error);
                }
            }
            other => return other,
        }
    }
}
