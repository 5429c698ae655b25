//! A liar between the reactor and the kernel, on the real ring.
//!
//! It bends what the ring reports in ways the kernel may report it: transfers cut short, receives
//! that find no block, multishots that end for no reason, completions that come late and out of
//! order, an `io_uring_enter` that fails. Invariants: no byte, block or descriptor is lost or
//! doubled by it; completions of one operation keep their order; a failed skip-success send is
//! never held back, because its silence means success. Everything follows from the seed.

use std::collections::VecDeque;
use std::io;

use crate::config::Fault;

use super::ring::Cqe;

/// What the reactor knows about a completion entry's operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// Not to be touched: skip-success sends, wakes, cancel requests.
    Plain,
    /// May come late.
    Patient,
    /// A multishot receive.
    Recv,
    /// A multishot accept.
    Accept,
}

/// How a receive is armed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arm {
    /// As it was asked for.
    Straight,
    /// With at most so many bytes per completion.
    Cut(u32),
    /// Not at all: it is said to have found no block.
    NoBlocks,
}

/// A multishot that is being cancelled behind the reactor's back.
struct Seized {
    user_data: u64,
    held: Vec<Cqe>,
    no_blocks: bool,
}

/// The liar.
pub(super) struct Liar {
    plan: Fault,
    waits: u64,
    sends: u64,
    state: u64,
    turn: u64,
    made: Vec<Cqe>,
    late: VecDeque<(u64, Cqe)>,
    seized: Vec<Seized>,
    counts: [u64; 6],
}

const KINDS: [&str; 6] =
    ["short receives", "short sends", "no blocks", "ended multishots", "late", "failed enters"];
const SHORT_RECV: usize = 0;
const SHORT_SEND: usize = 1;
const NO_BLOCKS: usize = 2;
const ENDED: usize = 3;
const LATE: usize = 4;
const ENTER: usize = 5;

/// Turns that a completion is held back at most.
const LATE_TURNS_MAX: u64 = 4;

impl Liar {
    pub fn new(plan: Fault) -> Liar {
        Liar {
            state: plan.seed,
            plan,
            waits: 0,
            sends: 0,
            turn: 0,
            made: Vec::new(),
            late: VecDeque::new(),
            seized: Vec::new(),
            counts: [0; 6],
        }
    }

    /// SplitMix64: every seed gives a full-length sequence.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn chance(&mut self, per_mille: u16, kind: usize) -> bool {
        let hit = per_mille > 0 && self.next() % 1000 < u64::from(per_mille);
        self.counts[kind] += u64::from(hit);
        hit
    }

    /// The error of an `io_uring_enter` that is not called.
    pub fn enter_error(&mut self) -> Option<io::Error> {
        self.turn += 1;
        self.waits += 1;
        if every(self.plan.wait_every, self.waits) {
            self.counts[ENTER] += 1;
            return Some(io::Error::from_raw_os_error(self.plan.wait_errno));
        }
        if !self.chance(self.plan.enter_per_mille, ENTER) {
            return None;
        }
        let errors = [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM];
        Some(io::Error::from_raw_os_error(errors[self.next() as usize % errors.len()]))
    }

    /// How the receive `user_data` of at most `limit` bytes is armed.
    pub fn arm_recv(&mut self, user_data: u64, limit: u32) -> Arm {
        if self.chance(self.plan.no_blocks_per_mille, NO_BLOCKS) {
            self.made.push(Cqe { user_data, result: -libc::ENOBUFS, flags: 0 });
            return Arm::NoBlocks;
        }
        if self.chance(self.plan.short_per_mille, SHORT_RECV) {
            return Arm::Cut(1 + (self.next() % u64::from(limit.clamp(1, 4096))) as u32);
        }
        Arm::Straight
    }

    /// To how many bytes a send of `bytes` is cut.
    pub fn cut_send(&mut self, bytes: u32) -> Option<u32> {
        self.sends += 1;
        if bytes > 1 && every(self.plan.short_send_every, self.sends) {
            self.counts[SHORT_SEND] += 1;
            return Some(1);
        }
        let cut = bytes > 1 && self.chance(self.plan.short_per_mille, SHORT_SEND);
        cut.then(|| 1 + (self.next() % u64::from(bytes - 1)) as u32)
    }

    /// Whether it owes the reactor completions that no wait would bring.
    pub fn owes(&self) -> bool {
        !self.made.is_empty() || !self.late.is_empty()
    }

    /// Bends what the ring reported. Appends to `cancel` what must be cancelled behind the
    /// reactor's back.
    pub fn bend(
        &mut self,
        cqes: &mut Vec<Cqe>,
        mut class: impl FnMut(u64) -> Class,
        cancel: &mut Vec<u64>,
    ) {
        let fresh = std::mem::take(cqes);
        cqes.append(&mut self.made);
        for cqe in fresh {
            self.bend_one(cqe, class(cqe.user_data), cqes, cancel);
        }
        let turn = self.turn;
        self.late.retain(|&(due, cqe)| {
            let now = due <= turn;
            if now {
                cqes.push(cqe);
            }
            !now
        });
    }

    fn bend_one(&mut self, cqe: Cqe, class: Class, out: &mut Vec<Cqe>, cancel: &mut Vec<u64>) {
        let named = |seized: &Seized| seized.user_data == cqe.user_data;
        if let Some(at) = self.seized.iter().position(named) {
            self.seized[at].held.push(cqe);
            if !cqe.more() {
                out.extend(end_of(self.seized.swap_remove(at)));
            }
            return;
        }
        let multishot = matches!(class, Class::Recv | Class::Accept) && cqe.more();
        let behind = self.late.iter().rev().find(|(_, held)| held.user_data == cqe.user_data);
        let behind = behind.map(|&(due, _)| due);
        if behind.is_none() && multishot && self.chance(self.plan.ended_per_mille, ENDED) {
            let no_blocks = class == Class::Recv && self.next() & 1 == 0;
            self.seized.push(Seized { user_data: cqe.user_data, held: vec![cqe], no_blocks });
            cancel.push(cqe.user_data);
            return;
        }
        let holds = class != Class::Plain && self.chance(self.plan.late_per_mille, LATE);
        if holds || behind.is_some() {
            let due = self.turn + 1 + self.next() % LATE_TURNS_MAX;
            self.late.push_back((due.max(behind.unwrap_or(0)), cqe));
        } else {
            out.push(cqe);
        }
    }

    /// Everything it still holds, for the end.
    pub fn confess(&mut self) -> Vec<Cqe> {
        let mut all = std::mem::take(&mut self.made);
        all.extend(self.late.drain(..).map(|(_, cqe)| cqe));
        all.extend(self.seized.drain(..).flat_map(|seized| seized.held));
        all
    }

    /// How often it lied, by kind.
    pub fn report(&self) -> String {
        let parts: Vec<String> =
            KINDS.iter().zip(self.counts).map(|(kind, n)| format!("{kind} {n}")).collect();
        format!("faults injected (seed {}): {}", self.plan.seed, parts.join(", "))
    }
}

/// Whether the `count`-th time is one of every `nth`; 0 is never.
fn every(nth: u32, count: u64) -> bool {
    nth > 0 && count.is_multiple_of(u64::from(nth))
}

/// What the reactor is told of a multishot whose last entry has come.
fn end_of(seized: Seized) -> Vec<Cqe> {
    let Seized { user_data, mut held, no_blocks } = seized;
    if held.last().is_some_and(|last| last.result == -libc::ECANCELED) {
        held.pop();
        if no_blocks {
            held.push(Cqe { user_data, result: -libc::ENOBUFS, flags: 0 });
        } else if let Some(last) = held.last_mut() {
            *last = last.ended();
        }
    }
    held
}
