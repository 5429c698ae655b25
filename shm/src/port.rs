//! The record face of a link: messages with their boundaries, written and read in place.
//!
//! ```text
//!   shm://@name?face=records     on both ends; conn.face::<Port>() when connected
//!
//!   push, reserve .. commit      written; seen at the end of the turn, or at `publish`
//!   on_read -> drain, borrow     what is there; comes again while something is left
//!   Refused::Full -> on_write    there is room again
//! ```
//!
//! A port is a handle: the user's and the transport's hold the same rings. The transport publishes,
//! rings the peer and tells ends, as for a stream of bytes; a loop that would rather poll than
//! sleep calls [`Port::publish`] and [`Port::drain`] without turning its base, and turns it now and
//! then to hear of the link's end.
//!
//! **Attached rings.** A pair that shares more memory than the link's own needs no bells beside
//! those of the link: see [`Attached`].

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::rc::Rc;

use ringlane_api::transport::LinkId;

use crate::bell::{Bell, News};
use crate::budget::Share;
use crate::record::{Borrowed, RecordHeader, Records, Refused, Reservation};
use crate::ring::{Consumer, Producer, Scribbled};
use crate::through::Flow;

/// Rings beside those of a link whose peer is the same, so that the link's bells serve them, too:
/// [`Port::attach`] makes them part of the link. They are treated as its own: what was written is
/// published and the peer rung once per turn, at its end; before the loop sleeps, and after it has
/// announced that, it looks whether they have something to do; when they have, `on_read` comes.
///
/// The methods are called amid the transport's work. They may look at rings and call
/// [`Port::touch`], and call nothing else of a port or a base.
pub trait Attached {
    /// The turn ends: publishes what was written. Whether there was anything, so that the peer must
    /// be rung if it sleeps.
    fn publish(&self) -> bool;

    /// Whether room was given back since it was asked last, or anything else that is news only to
    /// a peer that [waits for it](Attached::wants_room).
    fn gave(&self) -> bool;

    /// Whether there is something to do: what the peer has published, room that was waited for.
    /// `on_read` comes in each turn in which it is so, and the loop does not sleep.
    fn news(&self) -> bool;

    /// Whether room would be news to this side.
    fn wants_room(&self) -> bool;

    /// Whether the peer was last seen on the processor that this thread runs on, so that it is
    /// given way to before this side sleeps. Rings that do not know say no.
    fn is_near(&self) -> bool {
        false
    }
}

/// Links whose ports were used since the transport looked last.
pub(crate) type Used = Rc<RefCell<Vec<LinkId>>>;

/// Both rings of an open link, and what a port tells its transport.
pub(crate) struct Rings {
    pub tx: RefCell<Producer>,
    pub rx: RefCell<Consumer>,
    /// The peer's bell.
    pub theirs: Bell,
    /// The user may hold these rings, which carry records.
    pub records: bool,
    id: LinkId,
    used: Used,
    /// It is on that list.
    listed: Cell<bool>,
    /// A record found no room: tell when there is some.
    wants_room: Cell<bool>,
    /// Room was given back.
    gave: Cell<bool>,
    /// The peer sleeps and is to be rung.
    must_ring: Cell<bool>,
    /// The peer has scribbled.
    distrusted: Cell<bool>,
    over: Cell<bool>,
    attached: RefCell<Vec<Rc<dyn Attached>>>,
    /// What of the budget they take, for as long as anybody holds them.
    _share: Share,
}

/// What a port's user has left for the transport to do.
pub(crate) struct Errands {
    pub wants_room: bool,
    pub gave: bool,
    pub must_ring: bool,
    pub distrusted: bool,
}

impl Rings {
    pub fn new(
        (tx, rx): (Producer, Consumer),
        theirs: Bell,
        records: bool,
        (id, used): (LinkId, Used),
        share: Share,
    ) -> Rc<Rings> {
        Rc::new(Rings {
            tx: RefCell::new(tx),
            rx: RefCell::new(rx),
            theirs,
            records,
            id,
            used,
            listed: Cell::new(false),
            wants_room: Cell::new(false),
            gave: Cell::new(false),
            must_ring: Cell::new(false),
            distrusted: Cell::new(false),
            over: Cell::new(false),
            attached: RefCell::new(Vec::new()),
            _share: share,
        })
    }

    /// Takes what is to be done.
    pub fn errands(&self) -> Errands {
        self.listed.set(false);
        Errands {
            wants_room: self.wants_room.take(),
            gave: self.gave.take(),
            must_ring: self.must_ring.take(),
            distrusted: self.distrusted.get(),
        }
    }

    /// The link has ended: a port that is still held writes no more.
    pub fn end(&self) {
        self.over.set(true);
        self.attached.take();
    }

    /// Whether one of the rings beside ours says yes. All of them are asked.
    pub fn any_attached(&self, ask: impl Fn(&dyn Attached) -> bool) -> bool {
        let (mut at, mut any) = (0, false);
        loop {
            // Not held while it is asked: it may be the last holder of anything.
            let Some(one) = self.attached.borrow().get(at).cloned() else { return any };
            any |= ask(&*one);
            at += 1;
        }
    }

    #[inline]
    fn touch(&self) {
        if !self.listed.replace(true) {
            self.used.borrow_mut().push(self.id);
        }
    }

    fn scribbled(&self) -> Scribbled {
        self.distrusted.set(true);
        self.touch();
        Scribbled
    }
}

/// The record face of an open link, see the module text. `conn.face::<Port>()` gives it for a link
/// whose address says `face=records`.
#[derive(Clone)]
pub struct Port(pub(crate) Rc<Rings>);

impl Port {
    /// Bytes that one record may have: a quarter of the ring, without its header.
    pub fn record_bytes_max(&self) -> u32 {
        self.0.tx.borrow().record_bytes_max()
    }

    /// Whether the link is still there. What the peer published before it ended can be read all
    /// the same.
    pub fn is_open(&self) -> bool {
        !self.0.over.get()
    }

    /// Writes a record. The peer sees it at the end of this turn of the loop, or at
    /// [`Port::publish`].
    ///
    /// # Errors
    /// [`Refused::Full`] where there is no room: nothing is written, and `on_write` comes when
    /// there is some. [`Refused::TooLong`], [`Refused::Closed`], [`Refused::Scribbled`].
    #[inline]
    pub fn push(&self, kind: u16, channel: u16, payload: &[u8]) -> Result<(), Refused> {
        self.open()?;
        let pushed = self.0.tx.borrow_mut().push(kind, channel, payload);
        self.note(pushed)
    }

    /// Writes as much of a message as there is room for, in records that say that more follow
    /// ([`MORE`](crate::record::MORE)); returns how many of its bytes. Call again with the rest
    /// after `on_write`.
    pub fn push_pieces(&self, kind: u16, channel: u16, message: &[u8]) -> Result<usize, Refused> {
        self.open()?;
        let taken = self.0.tx.borrow_mut().push_pieces(kind, channel, message);
        if taken.as_ref().is_ok_and(|taken| *taken < message.len()) {
            self.0.wants_room.set(true);
        }
        self.note(taken)
    }

    /// Room for a record of `len` bytes, to be written in place; see [`Port::push`] for errors.
    #[inline]
    pub fn reserve(&self, len: u32) -> Result<Slot<'_>, Refused> {
        self.open()?;
        let reservation = Reservation::of(self.0.tx.borrow_mut(), len);
        Ok(Slot { rings: &self.0, reservation: self.note(reservation)? })
    }

    fn open(&self) -> Result<(), Refused> {
        if self.0.over.get() { Err(Refused::Closed) } else { Ok(()) }
    }

    /// Tells the transport what became of a try to write.
    #[inline]
    fn note<T>(&self, tried: Result<T, Refused>) -> Result<T, Refused> {
        match &tried {
            Ok(_) => self.0.touch(),
            Err(Refused::Full) => {
                self.0.wants_room.set(true);
                self.0.touch();
            }
            Err(Refused::Scribbled) => {
                let _ = self.0.scribbled();
            }
            Err(_) => {}
        }
        tried
    }

    /// Lets a peer that is awake see now what was written. One that sleeps is rung at the end of
    /// the turn, so turn the base.
    #[inline]
    pub fn publish(&self) {
        if self.0.over.get() {
            return;
        }
        let published = self.0.tx.borrow_mut().publish();
        if self.0.any_attached(|rings| rings.publish()) | published {
            self.ring(News::Bytes);
        }
    }

    /// Makes rings beside the link's own part of it, until it ends or they are
    /// [let go](Port::detach). The loop looks at them in this turn.
    pub fn attach(&self, rings: Rc<dyn Attached>) {
        if self.is_open() {
            self.0.attached.borrow_mut().push(rings);
            self.0.touch();
        }
    }

    /// Lets attached rings go.
    pub fn detach(&self, rings: &Rc<dyn Attached>) {
        self.0.attached.borrow_mut().retain(|one| !Rc::ptr_eq(one, rings));
    }

    /// Has the link looked at before the loop sleeps: something was done to attached rings.
    #[inline]
    pub fn touch(&self) {
        if self.is_open() {
            self.0.touch();
        }
    }

    #[inline]
    fn ring(&self, news: News) {
        if self.0.theirs.must_ring(news) {
            self.0.must_ring.set(true);
            self.0.touch();
        }
    }

    /// Copies the records that are there into `private`, at once, and shows them to `each`, one
    /// after the other; returns how many it was: of more than 64 KiB the first ones. What a peer
    /// may change meanwhile is not looked at, so this is the way to read from one that is not
    /// trusted, and the fast way to read small records.
    ///
    /// # Errors
    /// The peer wrote nonsense; the link fails at the end of the turn.
    #[inline]
    pub fn drain(
        &self,
        private: &mut Vec<u8>,
        each: impl FnMut(RecordHeader, &[u8]),
    ) -> Result<usize, Scribbled> {
        let drained = Records::new(&mut *self.0.rx.borrow_mut()).drain(private, each);
        match drained {
            Ok(0) => {}
            Ok(_) => self.gave_back(),
            Err(Scribbled) => return Err(self.0.scribbled()),
        }
        drained
    }

    /// Copies the records that are there into `private`, many at once, and shows them with their
    /// numbers, `most` at most; each is given back when `each` has returned, so that the peer can
    /// tell how many were seen to the end. Returns how many were shown.
    ///
    /// # Errors
    /// The peer wrote nonsense; the link fails at the end of the turn.
    pub fn walk(
        &self,
        private: &mut Vec<u8>,
        most: u32,
        each: impl FnMut(u32, RecordHeader, &[u8]) -> Flow,
    ) -> Result<u32, Scribbled> {
        let walked = Records::new(&mut *self.0.rx.borrow_mut()).walk(private, most, each);
        match walked {
            Ok(0) => {}
            Ok(_) => self.gave_back(),
            Err(Scribbled) => return Err(self.0.scribbled()),
        }
        walked
    }

    /// The next record, in place: its payload may change until it is given back, if the peer wants
    /// to. `None` where there is none now.
    ///
    /// # Errors
    /// The peer wrote nonsense; the link fails at the end of the turn.
    #[inline]
    pub fn borrow(&self) -> Result<Option<Borrowed>, Scribbled> {
        let next = Records::new(&mut *self.0.rx.borrow_mut()).borrow();
        next.map_err(|Scribbled| self.0.scribbled())
    }

    /// Gives a record, and all that were borrowed before it, back to their writer. It sees that
    /// after an eighth of the ring, or when [`Port::borrow`] finds nothing more, or at the end of
    /// the turn.
    #[inline]
    pub fn give_back(&self, record: Borrowed) {
        Records::new(&mut *self.0.rx.borrow_mut()).give_back(record);
        self.gave_back();
    }

    #[inline]
    fn gave_back(&self) {
        self.0.gave.set(true);
        self.0.touch();
    }

    /// Lets the peer see now what was given back, so that what it [sees](Port::consumed) is exact.
    #[inline]
    pub fn settle(&self) {
        if self.0.rx.borrow_mut().settle() {
            self.gave_back();
        }
    }

    /// The number of the last record that the peer has given back, of those that were pushed here,
    /// counted from 1; exact if it [settles](Port::settle). It can be asked when the link is over.
    ///
    /// # Errors
    /// The peer wrote nonsense.
    pub fn consumed(&self) -> Result<u32, Scribbled> {
        let consumed = self.0.tx.borrow().consumed();
        consumed.map(|at| at.seq).map_err(|Scribbled| self.0.scribbled())
    }

    /// Records that were pushed and that the peer has not given back, as private copies with their
    /// numbers, as far as they can be told from what it may have written over them. For when the
    /// link is over.
    pub fn unread(&self) -> Vec<(u32, RecordHeader, Vec<u8>)> {
        let mut tx = self.0.tx.borrow_mut();
        tx.publish();
        let Ok(at) = tx.consumed() else { return Vec::new() };
        let mut records = Records::new(tx.behind(at));
        let next = || records.borrow().ok().flatten();
        std::iter::from_fn(next)
            .map(|record| (record.seq, record.header, record.payload.to_vec()))
            .collect()
    }

    /// Sequence numbers of the last record that was read, and of the last one that is known to be
    /// there.
    pub fn seqs(&self) -> (u32, u32) {
        let rx = self.0.rx.borrow();
        (rx.seq(), rx.published_seq())
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({:?}, {})", self.0.id, if self.is_open() { "open" } else { "over" })
    }
}

/// Room for a record that is being written. Dropping it takes the room back.
#[derive(Debug)]
#[must_use = "dropping it takes the room back"]
pub struct Slot<'a> {
    rings: &'a Rings,
    reservation: Reservation<RefMut<'a, Producer>>,
}

impl fmt::Debug for Rings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rings({:?})", self.id)
    }
}

impl Slot<'_> {
    /// Bytes of the payload.
    pub fn len(&self) -> usize {
        self.reservation.len()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.reservation.is_empty()
    }

    /// Writes into the payload.
    ///
    /// # Panics
    /// Panics where the bytes do not lie inside it.
    #[inline]
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.reservation.write(at, bytes);
    }

    /// Makes it a record.
    #[inline]
    pub fn commit(self, kind: u16, channel: u16) {
        self.reservation.commit(kind, channel);
        self.rings.touch();
    }
}
