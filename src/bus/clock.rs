//! What tells one run of a process from another, and the time as processes of a host share it.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::core::Millis;
use super::error::BusError;
use super::local::Nonce;

/// Turns the time of a base's turns into milliseconds of the host's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
    origin_ms: Millis,
}

impl Clock {
    /// `now` is the base's.
    pub fn new(now: Instant) -> Clock {
        Clock { origin: now, origin_ms: monotonic().as_millis() as Millis }
    }

    pub fn at(&self, now: Instant) -> Millis {
        self.origin_ms + now.saturating_duration_since(self.origin).as_millis() as Millis
    }
}

/// Microseconds since 1970: when this process's part on the bus begins.
pub(super) fn epoch() -> u64 {
    read(ClockId::CLOCK_REALTIME).as_micros() as u64
}

/// The time that threads outside of a loop wait by.
pub(super) fn monotonic() -> Duration {
    read(ClockId::CLOCK_MONOTONIC)
}

fn read(clock: ClockId) -> Duration {
    // It fails for clocks only that the kernel does not have.
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

/// 128 random bits.
pub(super) fn nonce() -> Result<Nonce, BusError> {
    let mut bytes = [0; 16];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| BusError::Memory(std::io::Error::other(error.to_string())))?;
    Ok(Nonce(bytes))
}
