//! What every subject has in common: a client that sends, a server that answers, and messages
//! whose ends are known.

use std::io;
use std::time::{Duration, Instant};

/// The first word of the last message.
pub const END: u64 = u64::MAX;

/// Messages between two looks at the clock.
const LOOK: u64 = 64;

/// One end of something that carries messages both ways.
pub trait Ends {
    /// Sends a message; it may be kept back until one comes with `flush`.
    fn send(&mut self, message: &[u8], flush: bool) -> io::Result<()>;
    /// Waits for messages and shows each to `see`, until that is true of one.
    fn receive(&mut self, see: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()>;
}

/// The number at the beginning of a message.
pub fn number(message: &[u8]) -> u64 {
    message.first_chunk().map_or(END, |bytes| u64::from_le_bytes(*bytes))
}

/// Writes a message's number at both ends of it.
pub fn stamp(message: &mut [u8], n: u64) {
    let last = message.len() - 8;
    message[..8].copy_from_slice(&n.to_le_bytes());
    message[last..].copy_from_slice(&n.to_le_bytes());
}

/// Whether both ends of a message carry that number.
pub fn is_whole(message: &[u8], n: u64) -> bool {
    let last = message.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    number(message) == n && last == n
}

/// Nanoseconds of a round trip.
pub fn round_trips(ends: &mut impl Ends, size: usize, window: Duration) -> io::Result<f64> {
    let mut message = vec![0x5a; size];
    let mut exchange = |n: u64| -> io::Result<()> {
        stamp(&mut message, n);
        ends.send(&message, true)?;
        let mut whole = false;
        ends.receive(&mut |answer| {
            whole = is_whole(answer, n);
            true
        })?;
        if whole { Ok(()) } else { Err(io::Error::other("another answer came")) }
    };
    let (mut n, warm) = (0, Instant::now());
    while warm.elapsed() < window / 8 {
        exchange(n)?;
        n += 1;
    }
    let (first, begun) = (n, Instant::now());
    let taken = loop {
        for _ in 0..LOOK {
            exchange(n)?;
            n += 1;
        }
        let taken = begun.elapsed();
        if taken >= window {
            break taken;
        }
    };
    stamp(&mut message, END);
    ends.send(&message, true)?;
    Ok(taken.as_nanos() as f64 / (n - first) as f64)
}

/// Answers until the last message.
pub fn echo(ends: &mut impl Ends) -> io::Result<()> {
    let mut copy = Vec::new();
    loop {
        ends.receive(&mut |message| {
            copy.clear();
            copy.extend_from_slice(message);
            true
        })?;
        if number(&copy) == END {
            return Ok(());
        }
        ends.send(&copy, true)?;
    }
}

/// Messages per second, `batch` of them flushed at a time.
pub fn stream(ends: &mut impl Ends, size: usize, batch: u64, window: Duration) -> io::Result<f64> {
    let mut message = vec![0x5a; size];
    // Large messages are looked at more often than small ones.
    let look = batch * (LOOK * 64 / size as u64).max(1);
    let (mut n, begun) = (0_u64, Instant::now());
    while begun.elapsed() < window {
        for _ in 0..look {
            stamp(&mut message, n);
            n += 1;
            ends.send(&message, n.is_multiple_of(batch))?;
        }
    }
    stamp(&mut message, END);
    ends.send(&message, true)?;
    let mut got = None;
    ends.receive(&mut |answer| {
        got = Some(number(answer));
        true
    })?;
    let taken = begun.elapsed();
    match got {
        Some(got) if got == n => Ok(n as f64 / taken.as_secs_f64()),
        got => Err(io::Error::other(format!("{n} went, {got:?} came"))),
    }
}

/// Takes a stream; answers the last message with how many came before it. `touch`: reads every
/// byte.
pub fn sink(ends: &mut impl Ends, size: usize, touch: bool) -> io::Result<()> {
    let (mut n, mut sum, mut wrong) = (0_u64, 0_u64, false);
    ends.receive(&mut |message| {
        if number(message) == END {
            return true;
        }
        wrong |= !is_whole(message, n);
        if touch {
            sum = message
                .as_chunks()
                .0
                .iter()
                .fold(sum, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
        }
        n += 1;
        false
    })?;
    std::hint::black_box(sum);
    let mut answer = vec![0; size];
    stamp(&mut answer, if wrong { 0 } else { n });
    ends.send(&answer, true)
}
