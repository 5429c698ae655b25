//! Every step of the protocol behind which a process may die.
//!
//! With the feature `crash-points` a test arms one of them on its thread; the code that comes by
//! calls what was armed, which kills the process. Without it `here` is nothing. The points are
//! named in this list and nowhere else, and a test demands that each is reached.
//!
//! ```text
//!   connector   Connected  SegmentMade  HelloSent  WelcomeRead  Opened
//!   acceptor    Accepted   HelloRead    Mapped     WelcomeSent  Opened
//!   producer    Written  Published  Finished      Reserved  Filled  Committed
//!   consumer    WordLoaded  Copied  Released      Borrowed
//!   through     ControlMade  RunTaken  BoundMarked  SentMarked  AckedMarked  RunWritten
//!               Shown  Frozen  UnreadCopied  HandedOver
//!   relay       OpenSaid  OpenHeard  StoredLooked  ResumeHeard  Appended  AckSaid  AckHeard
//!   both        BellTaken  Rung  Announced  Resting  Woken  Blocked  Ending
//! ```

/// A step that was just made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// The connector's socket is connected.
    Connected,
    /// Its segment is made and mapped; nobody knows.
    SegmentMade,
    /// Its HELLO and the segment have left.
    HelloSent,
    /// The acceptor's answer was read; it is not acted upon yet.
    WelcomeRead,
    /// A connection was accepted.
    Accepted,
    /// A HELLO was read; nothing of it is checked.
    HelloRead,
    /// The connector's segment is checked and mapped.
    Mapped,
    /// The acceptor's answer has left, or a byte that rings the peer.
    WelcomeSent,
    /// The rings are open on this side.
    Opened,
    /// Bytes are in the ring and not published.
    Written,
    /// The publish word is stored; nobody is rung.
    Published,
    /// The end is said; nobody is rung.
    Finished,
    /// A record's place is reserved.
    Reserved,
    /// A record's payload is written in part or whole; it has no header.
    Filled,
    /// A record is whole and not published.
    Committed,
    /// The peer's publish word was loaded; nothing behind it was read.
    WordLoaded,
    /// Bytes were copied out and not given back.
    Copied,
    /// Room was given back; nobody is rung.
    Released,
    /// A record was borrowed.
    Borrowed,
    /// The peer's announcement was taken; it is not rung.
    BellTaken,
    /// The peer was rung, or the byte that does it is on its way.
    Rung,
    /// Sleep is announced; the second look is not taken.
    Announced,
    /// The second look found nothing; the loop is going to sleep.
    Resting,
    /// The peer has rung.
    Woken,
    /// The ring was full: this side waits for room.
    Blocked,
    /// The link is aborted: everything is said, the socket is open.
    Ending,
    /// A control page says what is acknowledged; no relay has it.
    ControlMade,
    /// A run of records was copied out of a sender's ring.
    RunTaken,
    /// The receiver's epoch is marked; nothing was sent to it.
    BoundMarked,
    /// Records are marked as sent; they are not submitted.
    SentMarked,
    /// Records are marked as acknowledged; their sender is not rung.
    AckedMarked,
    /// A run of records is in a receiver's ring and not published.
    RunWritten,
    /// A record's callback has returned; it is not consumed.
    Shown,
    /// A receiver's ring is frozen; nothing is copied.
    Frozen,
    /// What was unread lies in a fresh segment, whose words say nothing.
    UnreadCopied,
    /// Its words are stored; no relay has it.
    HandedOver,
    /// A relay has asked to send on a channel.
    OpenSaid,
    /// A channel is bound to the link that it was asked for on; nothing is answered.
    OpenHeard,
    /// The publish word was looked at; where to go on is not said.
    StoredLooked,
    /// It was heard where to go on; nothing is marked.
    ResumeHeard,
    /// A run of records stands in a link's output.
    Appended,
    /// An acknowledgement stands in a link's output.
    AckSaid,
    /// An acknowledgement was heard; it is not marked.
    AckHeard,
}

impl Point {
    /// All that a link comes by.
    pub const ALL: [Point; 26] = [
        Point::Connected,
        Point::SegmentMade,
        Point::HelloSent,
        Point::WelcomeRead,
        Point::Accepted,
        Point::HelloRead,
        Point::Mapped,
        Point::WelcomeSent,
        Point::Opened,
        Point::Written,
        Point::Published,
        Point::Finished,
        Point::Reserved,
        Point::Filled,
        Point::Committed,
        Point::WordLoaded,
        Point::Copied,
        Point::Released,
        Point::Borrowed,
        Point::BellTaken,
        Point::Rung,
        Point::Announced,
        Point::Resting,
        Point::Woken,
        Point::Blocked,
        Point::Ending,
    ];

    /// Those of rings that go through a relay, which no link comes by.
    pub const THROUGH: [Point; 10] = [
        Point::ControlMade,
        Point::RunTaken,
        Point::BoundMarked,
        Point::SentMarked,
        Point::AckedMarked,
        Point::RunWritten,
        Point::Shown,
        Point::Frozen,
        Point::UnreadCopied,
        Point::HandedOver,
    ];

    /// Those of a relay's own.
    pub const RELAY: [Point; 7] = [
        Point::OpenSaid,
        Point::OpenHeard,
        Point::StoredLooked,
        Point::ResumeHeard,
        Point::Appended,
        Point::AckSaid,
        Point::AckHeard,
    ];
}

const _: () = assert!(Point::ALL[Point::ALL.len() - 1] as usize + 1 == Point::ALL.len(), "all");
const _: () = assert!(Point::THROUGH[0] as usize == Point::ALL.len(), "each in one of two lists");

#[cfg(feature = "crash-points")]
use armed::pass;
#[cfg(feature = "crash-points")]
pub use armed::{arm, watch};
#[cfg(not(feature = "crash-points"))]
use harmless::pass;

/// Says that a step was made.
#[inline(always)]
pub fn here(point: Point) {
    pass(point);
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::cell::{Cell, RefCell};

    use super::Point;

    /// Where, how often before, and what then.
    type Armed = (Point, u32, fn());

    /// What is called at every point.
    type Watch = Box<dyn FnMut(Point)>;

    thread_local! {
        static ARMED: Cell<Option<Armed>> = const { Cell::new(None) };
        static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
    }

    /// Calls `then` when this thread has come by `point` for the `nth` time, from 1.
    pub fn arm(point: Point, nth: u32, then: fn()) {
        ARMED.set(Some((point, nth, then)));
    }

    /// Calls `each` for every point that this thread comes by, in place of what was called before.
    /// A watch that unwinds is not called again.
    pub fn watch(each: Option<Box<dyn FnMut(Point)>>) {
        WATCH.set(each);
    }

    pub(super) fn pass(point: Point) {
        match ARMED.get() {
            Some((armed, 1, then)) if armed == point => {
                ARMED.set(None);
                then();
            }
            Some((armed, left, then)) if armed == point => ARMED.set(Some((armed, left - 1, then))),
            _ => {}
        }
        if let Some(mut watch) = WATCH.take() {
            watch(point);
            WATCH.set(Some(watch));
        }
    }
}

#[cfg(not(feature = "crash-points"))]
mod harmless {
    #[inline(always)]
    pub(super) fn pass(_: super::Point) {}
}
