//! The time, as the machine wants it: the loop's, and two clocks that were read once.

use std::io;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::relay::core::Now;
use crate::{Error, EventBase, Result};

/// Two clocks, and when they were read.
pub struct Clock {
    read: Instant,
    mono: Duration,
    unix: Duration,
}

fn read(clock: ClockId) -> Result<Duration> {
    let time = clock_gettime(clock).map_err(io::Error::from);
    time.map(Duration::from).map_err(|error| Error::new("read the clock", error))
}

impl Clock {
    pub fn new(base: &EventBase) -> Result<Clock> {
        let mono = read(ClockId::CLOCK_MONOTONIC)?;
        Ok(Clock { read: base.now(), mono, unix: read(ClockId::CLOCK_REALTIME)? })
    }

    pub fn now(&self, base: &EventBase) -> Now {
        let instant = base.now();
        let since = instant.saturating_duration_since(self.read);
        let mono_ms = u64::try_from((self.mono + since).as_millis()).unwrap_or(u64::MAX);
        let unix_us = u64::try_from((self.unix + since).as_micros()).unwrap_or(u64::MAX);
        Now { instant, mono_ms, unix_us }
    }
}
