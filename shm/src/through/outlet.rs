//! The sender's end of a ring that a relay reads.

use std::collections::VecDeque;

use super::layout::{self, BOUND, Kind, LET_GO, SENT};
use super::{Published, Scribbled, follow, is_reserved};
use crate::crash::{self, Point};
use crate::layout::Lane;
use crate::map::Map;
use crate::record::{RECORD_HEADER_BYTES, RecordHeader, Records, Refused, Reservation};
use crate::ring::{Consumer, Producer, is_near};
use crate::sync::{Ordering, Shared};

/// Bytes of payload that one record of an outlet may have, where a quarter of its ring is more;
/// longer messages go in pieces, so that a frame of a relay, 1 MiB, holds any record.
pub const RECORD_BYTES_MAX: u32 = (1 << 20) - RECORD_HEADER_BYTES;

/// Control pages of earlier attachments that are kept mapped, to read what relays that were let go
/// may still say of what has left.
pub const PAGES_MAX: usize = 64;

/// The sender's end. See the [module](super) for what lies where.
///
/// Without a relay it takes records until the ring is full.
///
/// ```no_run
/// use std::rc::Rc;
///
/// use ringlane_shm::map::Map;
/// use ringlane_shm::record::Refused;
/// use ringlane_shm::through::Outlet;
///
/// fn begin(segment: Rc<Map>, control: Rc<Map>) -> Result<Outlet, Refused> {
///     let mut outlet = Outlet::new(segment, 64 << 10);
///     outlet.push(1, 7, b"accepted before there is a relay")?;
///     outlet.publish();
///     let from = outlet.attach(control);
///     assert_eq!((from.seq, outlet.written()), (0, 1));
///     Ok(outlet)
/// }
/// ```
#[derive(Debug)]
pub struct Outlet {
    map: Shared<Map>,
    lane: Lane,
    ring: Producer,
    /// What was published last.
    published: Published,
    /// The largest `acked` seen.
    freed: Published,
    control: Option<Shared<Map>>,
    /// Those of earlier attachments, the last one at the back.
    earlier: VecDeque<Shared<Map>>,
    /// The largest `sent` seen.
    sent: u32,
    /// The last `bound` of the pages that are no longer kept.
    bound: u64,
}

impl Outlet {
    /// Makes a fresh map an outlet whose ring has `cap` bytes.
    ///
    /// # Panics
    /// Panics if a ring may not have that size, or the map has not
    /// [`outlet_bytes`](super::outlet_bytes).
    pub fn new(map: Shared<Map>, cap: u32) -> Outlet {
        layout::found(&map, Kind::Outlet, cap);
        Outlet::laid(map, layout::outlet(cap))
    }

    /// The same with its counters where `lane` says.
    pub(crate) fn laid(map: Shared<Map>, lane: Lane) -> Outlet {
        Outlet::laid_at(map, lane, Published::default())
    }

    /// The same where everything up to `start` was written and acknowledged.
    pub(crate) fn laid_at(map: Shared<Map>, lane: Lane, start: Published) -> Outlet {
        let mut ring = Producer::told(Shared::clone(&map), lane, start, start.pos);
        ring.record_bytes_max = ring.record_bytes_max.min(RECORD_BYTES_MAX);
        Outlet {
            map,
            lane,
            ring,
            published: start,
            freed: start,
            control: None,
            earlier: VecDeque::new(),
            sent: start.seq,
            bound: 0,
        }
    }

    /// Begins an attachment: from now on `control`, a fresh map of
    /// [`CONTROL_BYTES`](super::CONTROL_BYTES), says what is acknowledged. Returns from where on
    /// the ring holds records, which the new relay must be told.
    ///
    /// # Panics
    /// Panics if the map has another size.
    pub fn attach(&mut self, control: Shared<Map>) -> Published {
        layout::found(&control, Kind::Control, self.lane.cap);
        self.attach_laid(control)
    }

    /// Ends the attachment: the relay that sees this process hang up is to know that it has not
    /// died, and that its rings go to another one.
    pub fn let_go(&self) {
        if let Some(control) = &self.control {
            // SYNC: control.let_go. With the load in `OutletReader::is_let_go`.
            control.u32_at(LET_GO).store(1, Ordering::Release);
        }
    }

    pub(crate) fn attach_laid(&mut self, control: Shared<Map>) -> Published {
        // What it says at the last moment is true; what it says later is not believed. Nor is a
        // page that was scribbled on.
        let _ = self.look();
        let _ = self.sent();
        control.u64_at(self.lane.head).store(self.freed.word(), Ordering::Relaxed);
        // SYNC: control.acked. With the load in `Outlet::look`, for who maps the page.
        control.u32_at(SENT).store(self.freed.seq, Ordering::Release);
        crash::here(Point::ControlMade);
        if let Some(earlier) = self.control.replace(control) {
            self.earlier.push_back(earlier);
        }
        if self.earlier.len() > PAGES_MAX
            && let Some(oldest) = self.earlier.pop_front()
        {
            self.bound = newest(self.bound, bound_of(&oldest));
        }
        self.freed
    }

    /// Writes a record. It is seen after [`Outlet::publish`]; its number is [`Outlet::written`].
    ///
    /// # Errors
    /// As of [`Producer::push`]; [`Refused::Full`] until the receiver has acknowledged more.
    ///
    /// # Panics
    /// Panics if the kind is one that rings themselves use.
    #[inline]
    pub fn push(&mut self, kind: u16, channel: u16, payload: &[u8]) -> Result<(), Refused> {
        assert!(!is_reserved(kind), "kind {kind:#x} is for rings themselves");
        match self.ring.push(kind, channel, payload) {
            Err(Refused::Full) if self.look()? => self.ring.push(kind, channel, payload),
            pushed => pushed,
        }
    }

    /// Room for a payload of `len` bytes, to be written in place. The kind that it is committed
    /// with must not be one that rings themselves use.
    pub fn reserve(&mut self, len: u32) -> Result<Reservation<&mut Producer>, Refused> {
        if self.ring.find_place(len) == Err(Refused::Full) {
            self.look()?;
        }
        self.ring.reserve(len)
    }

    /// Writes as much of a message as there is room for, in pieces that say that more follow;
    /// returns how many of its bytes. Call again with the rest.
    ///
    /// # Panics
    /// Panics if the kind is one that rings themselves use.
    pub fn push_pieces(
        &mut self,
        kind: u16,
        channel: u16,
        message: &[u8],
    ) -> Result<usize, Refused> {
        assert!(!is_reserved(kind), "kind {kind:#x} is for rings themselves");
        let taken = self.ring.push_pieces(kind, channel, message)?;
        if taken == message.len() || !self.look()? {
            return Ok(taken);
        }
        Ok(taken + self.ring.push_pieces(kind, channel, &message[taken..])?)
    }

    /// Lets the relay see everything that was written: that is when it is accepted. Returns whether
    /// there was anything.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let published = self.ring.publish();
        if published {
            self.published = self.ring.published();
        }
        published
    }

    /// Whether something was written and not published.
    pub fn is_dirty(&self) -> bool {
        self.ring.is_dirty()
    }

    /// The number of the last record that was written, published or not.
    pub fn written(&self) -> u32 {
        self.ring.published().seq
    }

    /// Up to which record the receiver has them, and where that one ends: the largest that was
    /// seen, after another look.
    ///
    /// # Errors
    /// The relay wrote nonsense into its control page. Attach another one.
    pub fn acked(&mut self) -> Result<Published, Scribbled> {
        self.look()?;
        Ok(self.freed)
    }

    /// The same without a look: from here on the ring holds records.
    pub fn from(&self) -> Published {
        self.freed
    }

    /// Bytes that are written and not acknowledged, filler and all.
    pub fn held(&self) -> u32 {
        self.ring.held()
    }

    /// Whether the relay was last seen on the processor that this thread runs on.
    pub fn is_near(&self) -> bool {
        self.control.as_ref().is_some_and(|control| is_near(control, self.lane))
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> u32 {
        self.lane.cap
    }

    /// Bytes a record's payload may have.
    pub fn record_bytes_max(&self) -> u32 {
        self.ring.record_bytes_max()
    }

    /// Looks at what is acknowledged. Returns whether that is more than before.
    fn look(&mut self) -> Result<bool, Scribbled> {
        let Some(control) = &self.control else { return Ok(false) };
        // SYNC: control.acked. With the store in `OutletReader::mark_acked`.
        let word = control.u64_at(self.lane.head).load(Ordering::Acquire);
        let moved = follow(&mut self.freed, word, self.published)?;
        if moved {
            self.ring.free_to(self.freed.pos);
        }
        Ok(moved)
    }

    /// The number of the last record that may have left this host, of all attachments.
    ///
    /// # Errors
    /// The relay wrote nonsense into its control page.
    pub fn sent(&mut self) -> Result<u32, Scribbled> {
        let (freed, published) = (self.freed.seq, self.published.seq);
        let ahead = |seq: u32| seq.wrapping_sub(freed);
        let most = ahead(published);
        // One that is behind what is acknowledged says nothing.
        let mut largest = if ahead(self.sent) <= most { ahead(self.sent) } else { 0 };
        for (i, page) in self.earlier.iter().chain(&self.control).enumerate() {
            // SYNC: control.sent. With the store in `OutletReader::mark_sent`.
            let said = ahead(page.u32_at(SENT).load(Ordering::Acquire));
            let current = i == self.earlier.len();
            match said {
                _ if said <= most => largest = largest.max(said),
                _ if current && said < 1 << 31 => return Err(Scribbled),
                _ => {}
            }
        }
        self.sent = freed.wrapping_add(largest);
        Ok(self.sent)
    }

    /// The epoch of the receiver to which a relay has bound the ring last; 0 if none has.
    pub fn bound(&self) -> u64 {
        let pages = self.earlier.iter().chain(&self.control);
        pages.fold(self.bound, |bound, page| newest(bound, bound_of(page)))
    }

    /// The published records behind number `after` that are still held, as private copies: what a
    /// receiver that is gone has not taken. What was written is published by this.
    pub fn undelivered(&mut self, after: u32) -> Undelivered {
        self.publish();
        let (map, own) = (Shared::clone(&self.map), Shared::clone(&self.map));
        let ring = Consumer::from(map, own, self.lane, self.freed);
        let skip = after.wrapping_sub(self.freed.seq);
        let skip = if skip < 1 << 31 { skip } else { 0 };
        Undelivered { records: Records::new(ring), skip }
    }
}

fn bound_of(page: &Map) -> u64 {
    // SYNC: control.bound. With the store in `OutletReader::mark_bound`.
    page.u64_at(BOUND).load(Ordering::Acquire)
}

fn newest(before: u64, after: u64) -> u64 {
    if after == 0 { before } else { after }
}

/// Records that are still held; see [`Outlet::undelivered`].
#[derive(Debug)]
pub struct Undelivered {
    records: Records,
    skip: u32,
}

impl Iterator for Undelivered {
    /// Number, header and payload.
    type Item = (u32, RecordHeader, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // The ring is this process's own: nobody else writes there.
            let record = self.records.borrow().ok()??;
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            return Some((record.seq, record.header, record.payload.to_vec()));
        }
    }
}

const _: () = assert!(RECORD_HEADER_BYTES == 8, "records are counted in eights");
