//! What went on between two looks.

use std::collections::HashMap;
use std::time::Duration;

use crate::cli::bus::seen::{Channel, Seen};

/// Per second.
#[derive(Clone, Default, Debug)]
pub struct Rates {
    /// Records sent to links, and their bytes.
    pub sent: f64,
    pub sent_bytes: f64,
    /// Records stored for processes, and their bytes.
    pub stored: f64,
    pub stored_bytes: f64,
    /// Records of each channel, by its place in [`Seen`].
    pub channels: Vec<f64>,
}

/// What a channel is known by from look to look.
fn key(one: &Channel) -> (&str, &str, &str, u16, u64) {
    (&one.direction, &one.src, &one.dst, one.chan, one.epoch)
}

impl Rates {
    /// Nothing, if there was no look before.
    pub fn between(last: Option<(&Seen, Duration)>, now: &Seen) -> Rates {
        let mut rates = Rates { channels: vec![0.0; now.relay.channels.len()], ..Rates::default() };
        let Some((last, between)) = last.filter(|(last, between)| {
            // Another relay counts from 0 again.
            last.relay.incarnation == now.relay.incarnation && !between.is_zero()
        }) else {
            return rates;
        };
        let seconds = between.as_secs_f64();
        let per_second = |was: u64, is: u64| is.saturating_sub(was) as f64 / seconds;
        let (was, is) = (&last.relay.counts, &now.relay.counts);
        rates.sent = per_second(was.sent, is.sent);
        rates.sent_bytes = per_second(was.sent_bytes, is.sent_bytes);
        rates.stored = per_second(was.stored, is.stored);
        rates.stored_bytes = per_second(was.stored_bytes, is.stored_bytes);
        let before: HashMap<_, u32> =
            last.relay.channels.iter().map(|one| (key(one), one.stored)).collect();
        for (one, rate) in now.relay.channels.iter().zip(&mut rates.channels) {
            let was = before.get(&key(one)).copied().unwrap_or(0);
            let moved = one.stored.wrapping_sub(was);
            // Sequence numbers wrap; one that has gone back is another stream.
            *rate = if moved > u32::MAX / 2 { 0.0 } else { f64::from(moved) / seconds };
        }
        rates
    }
}
