//! What this kernel has, found by trying. Nothing else asks, and nobody looks at a version.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use io_uring::types::CancelBuilder;
use io_uring::{Probe, opcode, types};
use ringlane_api::reactor::Feature;
use ringlane_api::segment::Home;

use crate::config::{Config, Engine};

use super::blocks::{Blocks, GROUP};
use super::recv::limit_bytes;
use super::ring::{Cqe, Ring, map_page, unmap_page};

/// `IOU_PBUF_RING_INC` of linux/io_uring.h.
const BUF_RING_INCREMENTAL: u16 = 2;

/// What the kernel has, and how much of it is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    pub futex: bool,
    batching: bool,
    pub no_iowait: bool,
    pub byte_limit: bool,
    tier: u8,
}

static FOUND: OnceLock<Features> = OnceLock::new();

/// How long the kernel may take for a trial that needs no waiting at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long it may take to report an end before it is taken to have forgotten it. A mistake costs
/// speed only.
const END_PATIENCE: Duration = Duration::from_millis(100);

/// `user_data` of a trial's receive, and of the request that cancels it.
const RECV: u64 = 1;
const CANCEL: u64 = 2;

impl Features {
    /// Tries the kernel once per process, and masks what `config` does not want.
    pub fn find(config: &Config) -> io::Result<Features> {
        let found = match FOUND.get() {
            Some(found) => *found,
            None => *FOUND.get_or_init({
                let found = try_all()?;
                move || found
            }),
        };
        found.masked(config)
    }

    fn masked(mut self, config: &Config) -> io::Result<Features> {
        if let Engine::Tier(tier) = config.engine {
            if tier > self.tier {
                let what = format!("tier u{tier} was asked for; this kernel gives u{}", self.tier);
                return Err(io::Error::new(io::ErrorKind::Unsupported, what));
            }
            self.tier = tier.max(1);
            self.futex &= self.tier >= 2;
            self.batching &= self.tier >= 3;
            self.no_iowait &= self.tier >= 4;
            self.byte_limit &= self.tier >= 5;
        }
        self.byte_limit &= !config.no_byte_limit;
        Ok(self)
    }

    /// `u1` to `u5`.
    pub fn tier_name(&self) -> &'static str {
        ["u1", "u1", "u2", "u3", "u4", "u5"][usize::from(self.tier.min(5))]
    }

    /// For the report.
    pub fn list(&self) -> Vec<Feature> {
        let feature = |name, present, note| Feature { name, present, note };
        vec![
            feature(
                "deferred completions",
                true,
                "6.1: completions run inside the loop's own system call",
            ),
            feature("provided buffers", true, "5.19: connections share their receive blocks"),
            feature(
                "multishot accept and receive",
                true,
                "6.0: one entry per connection instead of one per message",
            ),
            feature("futex operations", self.futex, "6.7: shared memory wakes the loop"),
            feature(
                "bundles, incremental buffers, minimal wait",
                self.batching,
                "6.12: fewer entries per byte",
            ),
            feature("no iowait", self.no_iowait, "6.15: a waiting loop does not look like I/O"),
            feature(
                "multishot byte limit",
                self.byte_limit,
                "6.17: fair and cheap; without it a receive is armed per message",
            ),
        ]
    }
}

fn try_all() -> io::Result<Features> {
    let mut ring = Ring::new(8, 16)?;
    let mut opcodes = Probe::new();
    ring.raw().submitter().register_probe(&mut opcodes)?;
    let params = ring.params();
    if !params.is_feature_ext_arg() || !params.is_feature_skip_cqe_on_success() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let futex = opcodes.is_supported(opcode::FutexWait::CODE);
    let batching = params.is_feature_recvsend_bundle() && params.is_feature_min_timeout();
    let no_iowait = params.is_feature_no_iowait();
    let batching = batching && has_incremental_buffers(&ring);
    let home = Home::new(4096, 4);
    let mut blocks = Blocks::new(&ring, home, 2, 2)?;
    let tried = try_receives(&mut ring, &mut blocks)
        .and_then(|limit| Ok(limit && keeps_ends(&mut ring, &mut blocks)?));
    blocks.unregister(&ring);
    let byte_limit = tried?;
    let ladder = [futex, batching, no_iowait, byte_limit];
    let tier = 1 + ladder.iter().take_while(|&&has| has).count() as u8;
    Ok(Features { futex, batching, no_iowait, byte_limit, tier })
}

fn has_incremental_buffers(ring: &Ring) -> bool {
    let Ok(page) = map_page() else { return false };
    let submitter = ring.raw().submitter();
    let group = GROUP + 1;
    let at = page.as_ptr() as u64;
    // SAFETY: the page is mapped until the group is unregistered, or leaked where that fails.
    // KERNEL 6.12: incremental consumption.
    let made =
        unsafe { submitter.register_buf_ring_with_flags(at, 4, group, BUF_RING_INCREMENTAL) };
    if made.is_err() || submitter.unregister_buf_ring(group).is_ok() {
        unmap_page(page);
    }
    made.is_ok()
}

/// Receives two bytes: one under a byte limit, where there is one, the other without; then cancels
/// by descriptor. Says whether the limit works, and fails where the rest does not.
fn try_receives(ring: &mut Ring, blocks: &mut Blocks) -> io::Result<bool> {
    let (ours, mut theirs) = UnixStream::pair()?;
    let fd = types::Fd(ours.as_raw_fd());
    theirs.write_all(b"ab")?;
    blocks.refill();
    let mut limited = opcode::RecvMulti::new(fd, GROUP).len(1).build().user_data(RECV);
    limit_bytes(&mut limited, 1);
    ring.push(&limited);
    let first = next(ring)?;
    drop(first.block().map(|id| blocks.taken(id)));
    let byte_limit = first.result == 1 && !first.more();
    if first.more() {
        // The field was not looked at: let it end before anything is freed.
        return end_receive(ring, blocks, fd).map(|()| false);
    }
    blocks.refill();
    ring.push(&opcode::RecvMulti::new(fd, GROUP).build().user_data(RECV));
    let second = next(ring)?;
    drop(second.block().map(|id| blocks.taken(id)));
    if second.result <= 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if second.more() {
        end_receive(ring, blocks, fd)?;
    }
    Ok(byte_limit)
}

/// Whether a multishot receive reports the end of a stream that follows its last byte at once.
/// Where both wake the receive before it runs, kernels from 6.17 on may forget the second.
fn keeps_ends(ring: &mut Ring, blocks: &mut Blocks) -> io::Result<bool> {
    let (ours, mut theirs) = UnixStream::pair()?;
    let fd = types::Fd(ours.as_raw_fd());
    blocks.refill();
    let mut entry = opcode::RecvMulti::new(fd, GROUP).len(8).build().user_data(RECV);
    limit_bytes(&mut entry, 64);
    ring.push(&entry);
    ring.enter(0, None)?;
    theirs.write_all(b"end")?;
    theirs.shutdown(Shutdown::Write)?;
    let mut armed = true;
    while armed {
        let Some(cqe) = next_within(ring, END_PATIENCE)? else { break };
        drop(cqe.block().map(|id| blocks.taken(id)));
        armed = cqe.more();
    }
    if armed {
        end_receive(ring, blocks, fd)?;
    }
    Ok(!armed)
}

/// Ends what is armed on `fd`.
fn end_receive(ring: &mut Ring, blocks: &mut Blocks, fd: types::Fd) -> io::Result<()> {
    let all = CancelBuilder::fd(fd).all();
    ring.push(&opcode::AsyncCancel2::new(all).build().user_data(CANCEL));
    let (mut ended, mut answered) = (false, false);
    while !ended || !answered {
        let cqe = next(ring)?;
        drop(cqe.block().map(|id| blocks.taken(id)));
        answered |= cqe.user_data == CANCEL;
        ended |= cqe.user_data == RECV && !cqe.more();
        if cqe.user_data == CANCEL && cqe.result < 0 {
            return Err(io::Error::from_raw_os_error(-cqe.result));
        }
    }
    Ok(())
}

/// The next completion of a trial that must have one.
fn next(ring: &mut Ring) -> io::Result<Cqe> {
    next_within(ring, PATIENCE)?.ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// The next completion of a trial, if it comes in about this time.
fn next_within(ring: &mut Ring, patience: Duration) -> io::Result<Option<Cqe>> {
    let mut one = Vec::with_capacity(1);
    for _ in 0..8 {
        ring.pop_into(&mut one, 1);
        if one.len() == 1 {
            return Ok(one.pop());
        }
        match ring.enter(1, Some(patience)) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => break,
            Err(error) => return Err(error),
        }
    }
    ring.pop_into(&mut one, 1);
    Ok(one.pop())
}
