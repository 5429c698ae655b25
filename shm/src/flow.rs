//! Bytes in and out of open rings.
//!
//! `send` only writes; publishing, reading and ringing happen in `arm`, once per turn, for the
//! links on the hot list. A link leaves the list when the loop is going to sleep and nothing is
//! there: it announces, looks once more, and waits to be rung.

use std::io;
use std::rc::Rc;

use ringlane_api::evbuffer::Evbuffer;
use ringlane_api::limits;
use ringlane_api::reactor::{Op, Side};
use ringlane_api::segment::{Lease, Segment};
use ringlane_api::transport::{Cx, LinkEvent, LinkId};

use crate::bell::News;
use crate::crash::{self, Point};
use crate::link::{Link, State, bit};
use crate::ring;
use crate::table::Shm;
use crate::transport::WAIT;

/// Bytes one link may receive per look, before others have their turn.
const LOOK_BYTES: usize = limits::ARM_BYTES_MAX as usize;

/// Room for which a blocked writer is told, in parts of the ring.
const ROOM_PART: u32 = 4;

/// A writer waits for room: of bytes, or of records.
const WAITS_FOR_ROOM: u16 = bit::BLOCKED | bit::WANTS_ROOM;

/// Bytes of a file that are read at a time.
const FILE_BYTES: usize = limits::BLOCK_BYTES;

fn scribbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the peer wrote nonsense into the shared rings")
}

impl Shm {
    /// Copies from the front of `out` into the ring what fits.
    pub(crate) fn write(&mut self, cx: &mut Cx<'_>, id: LinkId, out: &mut Evbuffer) {
        let Some(link) = self.get(id).filter(|link| link.state == State::Open) else { return };
        if link.bits & bit::WRITE_OVER != 0 {
            return;
        }
        if link.open.as_ref().is_some_and(|open| open.rings.records) {
            let what = "this link carries records; write them to its port";
            let error = io::Error::new(io::ErrorKind::InvalidInput, what);
            return self.break_off(cx, id, Side::Write, error);
        }
        if link.bits & bit::GONE != 0 {
            link.bits |= bit::WRITE_OVER;
            let error = io::ErrorKind::BrokenPipe.into();
            return cx.emit(id, LinkEvent::Failed(Side::Write, error));
        }
        while let Some(mut segment) = out.pop_front() {
            let wrote = match segment.file() {
                None => self.write_bytes(id, segment.bytes()),
                Some(_) => self.write_file(cx, id, &segment),
            };
            match wrote {
                Ok(n) if n == segment.len() => cx.release(segment),
                Ok(n) => {
                    segment.advance(n);
                    out.push_front(segment);
                    let Some(link) = self.get(id) else { return };
                    if n == 0 {
                        link.bits |= bit::BLOCKED;
                        crash::here(Point::Blocked);
                        break;
                    }
                }
                Err(error) => {
                    cx.release(segment);
                    self.break_off(cx, id, Side::Write, error);
                    return;
                }
            }
        }
        self.heat(id);
    }

    fn write_bytes(&mut self, id: LinkId, bytes: &[u8]) -> io::Result<usize> {
        let Some(link) = self.get(id) else { return Ok(0) };
        let Some(open) = &mut link.open else { return Ok(0) };
        let n = open.rings.tx.borrow_mut().write(bytes).map_err(|_| scribbled())?;
        link.unsaid += n;
        Ok(n)
    }

    /// A file range is read into the ring by way of a block.
    fn write_file(&mut self, cx: &mut Cx<'_>, id: LinkId, segment: &Segment) -> io::Result<usize> {
        let Some((file, offset, len)) = segment.file() else { return Ok(0) };
        let Some(open) = self.get(id).and_then(|link| link.open.as_mut()) else { return Ok(0) };
        let room = open.rings.tx.borrow_mut().room(FILE_BYTES as u32);
        let room = room.map_err(|_| scribbled())?;
        let n = (len.min(room) as usize).min(FILE_BYTES);
        if n == 0 {
            return Ok(0);
        }
        let mut bytes = [0; FILE_BYTES];
        match cx.sys().read_at(file, offset, &mut bytes[..n])? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ended early")),
            got => self.write_bytes(id, &bytes[..got]),
        }
    }

    /// One look at every hot link; returns whether anything came of it. Those that have nothing
    /// left go to sleep if the loop is `idle`.
    pub(crate) fn round(&mut self, cx: &mut Cx<'_>, idle: bool) -> bool {
        let mut hot = std::mem::take(&mut self.hot);
        let mut moved = false;
        hot.retain(|id| {
            let keep = self.serve(cx, *id, idle, &mut moved);
            if !keep && let Some(link) = self.get(*id) {
                link.bits &= !bit::HOT;
            }
            keep
        });
        // What the looks have heated meanwhile, too.
        let more = std::mem::replace(&mut self.hot, hot);
        self.hot.extend(more);
        self.news(cx);
        moved
    }

    /// One look at a hot link: take what is there, tell what was sent, publish, ring. Returns
    /// whether it is to be looked at again before the loop may sleep.
    fn serve(&mut self, cx: &mut Cx<'_>, id: LinkId, idle: bool, any: &mut bool) -> bool {
        let Some(link) = self.get(id) else { return false };
        if link.state != State::Open || link.open.is_none() {
            return false;
        }
        if link.bits & bit::DISTRUSTED != 0 {
            self.break_off(cx, id, Side::Both, scribbled());
            *any = true;
            return false;
        }
        let moved = self.look(cx, id);
        *any |= moved;
        let Some(link) = self.get(id).filter(|link| link.state == State::Open) else {
            return false;
        };
        let sent = std::mem::take(&mut link.unsaid);
        if sent > 0 {
            cx.emit(id, LinkEvent::Sent(sent));
        }
        self.publish(cx, id);
        if moved || !idle {
            return true;
        }
        self.rest(cx, id)
    }

    /// What users of ports have left to do.
    pub(crate) fn run_errands(&mut self) {
        let used = Rc::clone(&self.used);
        for id in used.borrow_mut().drain(..) {
            let Some(link) = self.get(id) else { continue };
            let Some(open) = &link.open else { continue };
            let errands = open.rings.errands();
            if let Ok(mut rx) = open.rings.rx.try_borrow_mut() {
                rx.settle();
            }
            for (wanted, bit) in [
                (errands.wants_room, bit::WANTS_ROOM),
                (errands.gave, bit::TELL),
                (errands.must_ring, bit::MUST_RING),
                (errands.distrusted, bit::DISTRUSTED),
            ] {
                link.bits |= if wanted { bit } else { 0 };
            }
            self.heat(id);
        }
    }

    /// Makes visible what was written, and rings the peer if it sleeps.
    pub(crate) fn publish(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        let Some(open) = &link.open else { return };
        let room = link.bits & bit::TELL != 0;
        let must_ring = link.bits & bit::MUST_RING != 0;
        link.bits &= !(bit::TELL | bit::MUST_RING);
        // Not while a record is being written there: a user who frees a link amid that.
        let Ok(mut tx) = open.rings.tx.try_borrow_mut() else { return };
        let rings = Rc::clone(&open.rings);
        let mut bytes = tx.publish();
        if link.bits & (bit::FINISH | bit::WRITE_OVER) == bit::FINISH {
            link.bits |= bit::WRITE_OVER;
            tx.finish();
            bytes = true;
        }
        drop(tx);
        bytes |= rings.any_attached(|rings| rings.publish());
        let room = room | rings.any_attached(|rings| rings.gave());
        let Some(link) = self.get(id) else { return };
        let Some(open) = &link.open else { return };
        if link.bits & bit::GONE != 0 {
            return;
        }
        let news = if bytes { News::Bytes } else { News::Room };
        let asleep = (bytes || room) && open.rings.theirs.must_ring(news);
        if asleep || must_ring {
            self.ring(cx, id);
        }
    }

    /// Rings the peer.
    fn ring(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.get(id) else { return };
        let Some(open) = &link.open else { return };
        if open.waits[1] {
            // It fails for an address that is none only; ours is mapped.
            let _ = cx.sys().futex_wake(&*open.their_word);
        } else if link.bits & bit::SPEAKING == 0 {
            link.bits |= bit::SPEAKING;
            let Some(inner) = link.inner else { return };
            let mut byte = Evbuffer::new();
            byte.add(&[1]);
            self.inside(cx, |uds, cx| uds.send(cx, inner, &mut byte, &mut Vec::new()));
        }
        self.counts.rings += 1;
        crash::here(Point::Rung);
    }

    /// Looks at once where somebody has rung, so that callbacks run in this turn.
    pub(crate) fn peek(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let open = |link: &mut Link| link.state == State::Open && link.open.is_some();
        if self.get(id).is_some_and(|link| open(link) && link.bits & bit::DISTRUSTED == 0) {
            self.look(cx, id);
        }
    }

    /// Takes what is there, as the window allows; tells ends and room. Returns whether anything
    /// came of it.
    fn look(&mut self, cx: &mut Cx<'_>, id: LinkId) -> bool {
        let records = |link: &mut Link| link.open.as_ref().is_some_and(|o| o.rings.records);
        let took = match self.get(id).is_some_and(records) {
            true => self.tell_records(cx, id),
            false => self.take(cx, id),
        };
        match took.and_then(|took| Ok(took | self.find_room(cx, id)?)) {
            Ok(moved) => moved,
            Err(ring::Scribbled) => {
                self.break_off(cx, id, Side::Both, scribbled());
                false
            }
        }
    }

    fn take(&mut self, cx: &mut Cx<'_>, id: LinkId) -> Result<bool, ring::Scribbled> {
        let Some(link) = self.get(id) else { return Ok(false) };
        let Some(open) = &mut link.open else { return Ok(false) };
        if link.window == 0 || link.bits & bit::READ_OVER != 0 {
            return Ok(false);
        }
        // The state first: what was published before the end is seen behind it.
        let mut rx = open.rings.rx.borrow_mut();
        let (over, gone) = (rx.state() == ring::State::Fin, link.bits & bit::GONE != 0);
        let there = rx.available(u32::MAX)?;
        drop(rx);
        let window = usize::try_from(link.window).unwrap_or(usize::MAX);
        let mut left = (there as usize).min(window).min(LOOK_BYTES);
        let all = left == there as usize;
        let took = left > 0;
        if link.window != u64::MAX {
            link.window -= left as u64;
        }
        let lease = link.lease.get_or_insert_with(|| Lease::new(limits::LEASE_BLOCKS_MAX));
        let lease = Rc::clone(lease);
        while left > 0 {
            let home = match left >= limits::BULK_BLOCK_BYTES / 4 && cx.bulk_home().may_take() {
                true => Rc::clone(cx.bulk_home()),
                false => Rc::clone(cx.home()),
            };
            let Some(open) = self.get(id).and_then(|link| link.open.as_mut()) else { break };
            let mut block = home.take();
            let most = left.min(home.block_bytes());
            let n = open.rings.rx.borrow_mut().read(&mut block.bytes_mut()[..most]);
            left -= n;
            let mut segment = Segment::from_block(block, n);
            segment.charge(&lease);
            cx.emit(id, LinkEvent::Received(segment));
        }
        let Some(link) = self.get(id) else { return Ok(took) };
        let Some(open) = &mut link.open else { return Ok(took) };
        if open.rings.rx.borrow_mut().release() {
            link.bits |= bit::TELL;
        }
        if all && (over || gone) {
            self.tell_end(cx, id, over);
            return Ok(true);
        }
        Ok(took)
    }

    /// Nothing more comes: said by the peer, or it is gone.
    fn tell_end(&mut self, cx: &mut Cx<'_>, id: LinkId, said: bool) {
        let Some(link) = self.get(id) else { return };
        link.bits |= bit::READ_OVER;
        let lost = || LinkEvent::Failed(Side::Read, io::ErrorKind::ConnectionReset.into());
        cx.emit(id, if said { LinkEvent::Eof } else { lost() });
    }

    /// Says that there are records, or that no more come.
    fn tell_records(&mut self, cx: &mut Cx<'_>, id: LinkId) -> Result<bool, ring::Scribbled> {
        let Some(link) = self.get(id) else { return Ok(false) };
        let Some(open) = &link.open else { return Ok(false) };
        if link.window == 0 || link.bits & bit::READ_OVER != 0 {
            return Ok(false);
        }
        let mut rx = open.rings.rx.borrow_mut();
        // The state first, as in `take`.
        let (over, gone) = (rx.state() == ring::State::Fin, link.bits & bit::GONE != 0);
        let there = rx.available(1)? > 0;
        drop(rx);
        let news = open.rings.any_attached(|rings| rings.news());
        if there || news {
            cx.emit(id, LinkEvent::Readable);
        }
        if !there && (over || gone) {
            self.tell_end(cx, id, over);
        }
        Ok(there || news || over || gone)
    }

    fn find_room(&mut self, cx: &mut Cx<'_>, id: LinkId) -> Result<bool, ring::Scribbled> {
        let Some(link) = self.get(id) else { return Ok(false) };
        let waits = link.bits & WAITS_FOR_ROOM != 0;
        if !waits || !has_room(link)? && link.bits & bit::GONE == 0 {
            return Ok(false);
        }
        link.bits &= !WAITS_FOR_ROOM;
        cx.emit(id, LinkEvent::Writable);
        Ok(true)
    }

    /// Announces sleep, looks once more, and waits. Returns whether something turned up instead.
    fn rest(&mut self, cx: &mut Cx<'_>, id: LinkId) -> bool {
        let Some(link) = self.get(id) else { return false };
        let Some(open) = &link.open else { return false };
        let wants_room = open.rings.any_attached(|rings| rings.wants_room());
        let value = open.mine.announce(wants_room || link.bits & WAITS_FOR_ROOM != 0);
        match has_work(link) {
            Ok(false) => {}
            Ok(true) => {
                link.open.as_ref().expect("it was there above").mine.retract();
                return true;
            }
            Err(ring::Scribbled) => {
                link.bits |= bit::DISTRUSTED;
                return true;
            }
        }
        let open = link.open.as_ref().expect("it was there above");
        if open.waits[0] && link.wait.is_none() {
            let op = Op::FutexWait { word: Rc::clone(&open.my_word), expected: value };
            let op = cx.push(id, WAIT, op);
            self.get(id).expect("it was there above").wait = Some(op);
        }
        crash::here(Point::Resting);
        false
    }
}

fn has_room(link: &mut Link) -> Result<bool, ring::Scribbled> {
    let Some(open) = &mut link.open else { return Ok(false) };
    // While a record is being written there is no question of room.
    let Ok(mut tx) = open.rings.tx.try_borrow_mut() else { return Ok(false) };
    let wanted = tx.capacity() / ROOM_PART;
    Ok(tx.room(wanted)? >= wanted)
}

/// Whether a look would find something.
pub(crate) fn has_work(link: &mut Link) -> Result<bool, ring::Scribbled> {
    let reads = link.window > 0 && link.bits & bit::READ_OVER == 0;
    let gone = link.bits & bit::GONE != 0;
    if link.bits & WAITS_FOR_ROOM != 0 && (gone || has_room(link)?) {
        return Ok(true);
    }
    let Some(open) = &link.open else { return Ok(false) };
    let mut rx = open.rings.rx.borrow_mut();
    let there = gone || rx.state() == ring::State::Fin || rx.available(1)? > 0;
    Ok(reads && (there || open.rings.any_attached(|rings| rings.news())))
}
