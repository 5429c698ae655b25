//! What the base keeps of one bufferevent: a compact slot, and what is rare in a box beside it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::bufferevent::{BevEvent, Bufferevent, Filter, Handler};
use crate::error::Error;
use crate::evbuffer::Evbuffer;
use crate::fd::Fd;
use crate::limits;
use crate::mutant::{self, Mutant};
use crate::reactor::Side;
use crate::slab::Key;
use crate::transport::LinkId;
use crate::wheel::TimerId;

/// A read or write callback.
pub(crate) type PlainCallback = Box<dyn FnMut(&Bufferevent)>;
/// An event callback.
pub(crate) type EventCallback = Box<dyn FnMut(&Bufferevent, &BevEvent)>;

/// What a bufferevent stands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Under {
    /// Nothing any more.
    Nothing,
    /// A link of a transport.
    Link { transport: u8, link: LinkId },
    /// Another bufferevent, through a filter.
    Filter { below: Key },
}

/// A bufferevent's state, one bit each.
pub(crate) mod flag {
    pub const CONNECTED: u32 = 1;
    pub const READ_ON: u32 = 1 << 1;
    pub const WRITE_ON: u32 = 1 << 2;
    /// The peer has ended its direction, or ours to read broke.
    pub const READ_OVER: u32 = 1 << 3;
    /// Our direction broke or is finished.
    pub const WRITE_OVER: u32 = 1 << 4;
    /// The user asked for a half close.
    pub const FINISH: u32 = 1 << 5;
    /// The transport was told of it.
    pub const FINISHED: u32 = 1 << 6;
    /// The user let go; the slot lives on until the link is closed.
    pub const FREED: u32 = 1 << 7;
    /// In the dirty list.
    pub const DIRTY: u32 = 1 << 8;
    /// In a ready queue.
    pub const QUEUED: u32 = 1 << 9;
    /// The transport left something in the output; it will say Writable.
    pub const BLOCKED: u32 = 1 << 10;
    /// Granted without limit.
    pub const GRANT_FULL: u32 = 1 << 11;
    /// Granted a window (`More::window`).
    pub const GRANT_SOME: u32 = 1 << 12;
    /// Not granted because answering made our own output grow over its high watermark.
    pub const OUT_PAUSED: u32 = 1 << 13;
    /// Counted among what keeps `dispatch` going.
    pub const COUNTED: u32 = 1 << 14;
    /// Abort was asked of the transport.
    pub const ABORTED: u32 = 1 << 15;
    pub const PENDING_CONNECTED: u32 = 1 << 16;
    pub const PENDING_READ: u32 = 1 << 17;
    pub const PENDING_WRITE: u32 = 1 << 18;
    pub const PENDING_EVENT: u32 = 1 << 19;
    /// A filter above has work for this one, or this one is a filter with work.
    pub const PENDING_FILTER: u32 = 1 << 20;
    /// What came while reading was off is held below the user.
    pub const HELD: u32 = 1 << 21;
    /// Flush asked for before the end of the turn.
    pub const PENDING_ANY: u32 =
        PENDING_CONNECTED | PENDING_READ | PENDING_WRITE | PENDING_EVENT | PENDING_FILTER;
}

/// The slot of one bufferevent.
pub(crate) struct Bev {
    pub input: Evbuffer,
    pub output: Evbuffer,
    pub on_read: Option<PlainCallback>,
    pub on_write: Option<PlainCallback>,
    pub on_event: Option<EventCallback>,
    /// Bytes the transport has taken and not yet released.
    pub in_flight: u64,
    pub more: Option<Box<More>>,
    pub under: Under,
    pub flags: u32,
    pub priority: u8,
}

/// What few bufferevents need.
#[derive(Default)]
pub(crate) struct More {
    pub handler: Option<Box<dyn Handler>>,
    pub read_low: usize,
    pub read_high: usize,
    pub write_low: usize,
    pub write_high: Option<usize>,
    /// Bytes still granted, when granted a window.
    pub window: u64,
    pub read_timeout: Option<Timeout>,
    pub write_timeout: Option<Timeout>,
    pub linger: Option<Timeout>,
    pub events: VecDeque<BevEvent>,
    pub fds_in: Vec<Fd>,
    pub fds_out: Vec<Fd>,
    /// Arrived while reading was off.
    pub held: Evbuffer,
    pub held_end: Option<HeldEnd>,
    pub filter: Option<Box<dyn Filter>>,
    /// The filter that stands on this one.
    pub above: Option<Key>,
}

/// How reading ended while it was off.
pub(crate) enum HeldEnd {
    Eof,
    Failed(Error),
}

/// A time limit on progress: one timer that looks at when progress was last made.
#[derive(Clone, Copy)]
pub(crate) struct Timeout {
    pub after: Duration,
    pub progress: Instant,
    pub timer: Option<TimerId>,
}

impl Bev {
    pub fn new(under: Under) -> Bev {
        Bev {
            input: Evbuffer::new(),
            output: Evbuffer::new(),
            on_read: None,
            on_write: None,
            on_event: None,
            in_flight: 0,
            more: None,
            under,
            flags: flag::WRITE_ON,
            priority: 0,
        }
    }

    #[inline]
    pub fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    #[inline]
    pub fn set(&mut self, flags: u32) {
        self.flags |= flags;
    }

    #[inline]
    pub fn clear(&mut self, flags: u32) {
        self.flags &= !flags;
    }

    pub fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Written and not yet released by the transport.
    #[inline]
    pub fn output_len(&self) -> usize {
        self.output.len() + self.in_flight as usize
    }

    pub fn read_low(&self) -> usize {
        self.more.as_ref().map_or(0, |more| more.read_low)
    }

    pub fn write_low(&self) -> usize {
        self.more.as_ref().map_or(0, |more| more.write_low)
    }

    pub fn write_high(&self) -> usize {
        let set = self.more.as_ref().and_then(|more| more.write_high);
        set.unwrap_or(limits::OUTPUT_HIGH_BYTES)
    }

    pub fn wants_written(&self) -> bool {
        self.on_write.is_some()
            || self.more.as_ref().is_some_and(|more| more.handler.is_some() || more.above.is_some())
    }

    /// What the transport may still deliver: nothing, without limit, or so many bytes.
    pub fn window(&mut self) -> u64 {
        let open = self.has(flag::READ_ON)
            && self.has(flag::CONNECTED)
            && !self.has(flag::READ_OVER | flag::FREED | flag::HELD);
        if !open {
            return 0;
        }
        if self.has(flag::OUT_PAUSED) {
            // What can no longer be sent must not keep the peer's end from being seen.
            let kept = mutant::on(Mutant::WatermarkPauseKept);
            let long = self.output_len() > self.write_high() / 2 && !self.has(flag::WRITE_OVER);
            if long || kept {
                return 0;
            }
            self.clear(flag::OUT_PAUSED);
        }
        match self.more.as_ref().map_or(0, |more| more.read_high) {
            0 => u64::MAX,
            high => high.saturating_sub(self.input.len()) as u64,
        }
    }

    /// Whether it gives `dispatch` a reason to go on.
    pub fn alive(&self) -> bool {
        match self.under {
            Under::Nothing => self.has(flag::PENDING_ANY) && !self.has(flag::FREED),
            _ if self.has(flag::FREED) => true,
            _ => {
                !self.has(flag::CONNECTED) && !self.has(flag::WRITE_OVER)
                    || self.has(flag::READ_ON) && !self.has(flag::READ_OVER)
                    || self.still_sends()
                    || self.has(flag::PENDING_ANY)
            }
        }
    }

    /// Whether bytes wait that can still leave; behind a half close none can.
    fn still_sends(&self) -> bool {
        let waits = !self.output.is_empty() && !self.has(flag::FINISHED);
        (waits || self.in_flight > 0) && !self.has(flag::WRITE_OVER)
    }

    /// Queues an event for the user.
    pub fn say(&mut self, event: BevEvent) {
        self.more().events.push_back(event);
        self.set(flag::PENDING_EVENT);
    }

    /// Notes progress for the time limit of a side.
    #[inline]
    pub fn progress(&mut self, side: Side, now: Instant) {
        let Some(more) = &mut self.more else { return };
        let limit = match side {
            Side::Read => &mut more.read_timeout,
            _ => &mut more.write_timeout,
        };
        if let Some(limit) = limit {
            limit.progress = now;
        }
        if let Some(linger) = &mut more.linger {
            linger.progress = now;
        }
    }
}
