//! What is measured beside what, and what was promised.

use std::io;
use std::time::Duration;

use crate::ends::{echo, round_trips, sink, stream};
use crate::ice::Ice;
use crate::ring::Records;
use crate::unix::Socket;
use crate::{line, loops};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// Client and server share one.
    One,
    /// One each.
    Two,
}

impl Cores {
    pub fn words(self) -> &'static str {
        match self {
            Cores::One => "one core",
            Cores::Two => "two cores",
        }
    }
}

#[derive(Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

pub struct Promise {
    pub ours: &'static str,
    pub peer: &'static str,
    pub bound: Bound,
    /// Where the two cores are far from each other, if that makes a difference.
    pub far: Option<Bound>,
}

pub struct Cell {
    pub name: &'static str,
    pub what: &'static str,
    pub unit: &'static str,
    pub cores: Cores,
    pub subjects: &'static [&'static str],
    pub promises: &'static [Promise],
}

const fn at_most(ours: &'static str, peer: &'static str, most: f64) -> Promise {
    Promise { ours, peer, bound: Bound::AtMost(most), far: None }
}

const fn at_least(ours: &'static str, peer: &'static str, least: f64) -> Promise {
    Promise { ours, peer, bound: Bound::AtLeast(least), far: None }
}

/// One that says something else for cores that are far apart.
const fn or_far(promise: Promise, least: f64) -> Promise {
    Promise { far: Some(Bound::AtLeast(least)), ..promise }
}

const LARGE: usize = 64 << 10;

/// The cells. A subject's name says what its server does, so that one word starts it.
pub const CELLS: &[Cell] = &[
    Cell {
        name: "rtt-64-spin",
        what: "64 B there and back, both sides looking all the time",
        unit: "ns",
        cores: Cores::Two,
        subjects: &["line", "iceoryx2-rtt", "records-rtt"],
        promises: &[
            at_most("records-rtt", "line", 3.5),
            at_most("records-rtt", "iceoryx2-rtt", 0.3),
        ],
    },
    Cell {
        name: "rtt-64-sleep",
        what: "64 B there and back through loops that sleep when nothing is there",
        unit: "ns",
        cores: Cores::One,
        subjects: &["unix-rtt", "iceoryx2-event", "records-loop", "records-asleep"],
        promises: &[
            at_most("records-loop", "unix-rtt", 0.9),
            at_most("records-loop", "iceoryx2-event", 0.55),
        ],
    },
    Cell {
        name: "stream-64",
        what: "64 B one way",
        unit: "/s",
        cores: Cores::Two,
        subjects: &[
            "unix-each",
            "unix-by-64",
            "iceoryx2-stream",
            "records-each",
            "records-by-64",
            "records-in-place",
        ],
        promises: &[
            or_far(at_least("records-each", "unix-each", 12.0), 6.0),
            or_far(at_least("records-each", "iceoryx2-stream", 4.0), 1.3),
            at_least("records-by-64", "unix-by-64", 1.0),
        ],
    },
    Cell {
        name: "stream-64k",
        what: "64 KiB one way, every byte written and read",
        unit: "/s",
        cores: Cores::Two,
        subjects: &["unix-64k", "iceoryx2-64k", "records-64k"],
        promises: &[
            at_least("records-64k", "unix-64k", 2.0),
            at_least("records-64k", "iceoryx2-64k", 1.3),
        ],
    },
    Cell {
        name: "bufferevents-64k",
        what: "64 KiB messages one way through bufferevents",
        unit: "/s",
        cores: Cores::Two,
        subjects: &["bev-unix", "bev-shm", "bev-shm-1m"],
        promises: &[at_least("bev-shm-1m", "bev-unix", 1.5)],
    },
];

fn unknown(subject: &str) -> io::Error {
    io::Error::other(format!("no subject is called {subject}"))
}

/// The server of a subject.
pub fn serve(subject: &str, name: &str) -> io::Result<()> {
    match subject {
        "line" => line::serve(name),
        "unix-rtt" => echo(&mut Socket::listen(name, 64)?),
        "unix-each" | "unix-by-64" => sink(&mut Socket::listen(name, 64)?, 64, false),
        "unix-64k" => sink(&mut Socket::listen(name, LARGE)?, LARGE, true),
        "iceoryx2-rtt" => echo(&mut Ice::new(name, true, 64, false)?),
        "iceoryx2-event" => echo(&mut Ice::new(name, true, 64, true)?),
        "iceoryx2-stream" => sink(&mut Ice::new(name, true, 64, false)?, 64, false),
        "iceoryx2-64k" => sink(&mut Ice::new(name, true, LARGE, false)?, LARGE, true),
        "records-rtt" => echo(&mut Records::listen(name)?),
        "records-each" | "records-by-64" => sink(&mut Records::listen(name)?.patient(), 64, false),
        "records-in-place" => sink(&mut Records::listen(name)?.patient().in_place(), 64, false),
        "records-64k" => sink(&mut Records::listen(name)?, LARGE, true),
        "records-loop" => loops::serve_records(&records(name)),
        "records-asleep" => loops::serve_records(&format!("{}&yield=0", records(name))),
        "bev-unix" | "bev-shm" | "bev-shm-1m" => loops::serve_stream(&bev(subject, name), LARGE),
        _ => Err(unknown(subject)),
    }
}

/// The client of a subject, and what it measured.
pub fn drive(subject: &str, name: &str, window: Duration) -> io::Result<f64> {
    match subject {
        "line" => line::drive(name, window),
        "unix-rtt" => round_trips(&mut Socket::connect(name, 64)?, 64, window),
        "unix-each" => stream(&mut Socket::connect(name, 64)?, 64, 1, window),
        "unix-by-64" => stream(&mut Socket::connect(name, 64)?, 64, 64, window),
        "unix-64k" => stream(&mut Socket::connect(name, LARGE)?, LARGE, 1, window),
        "iceoryx2-rtt" => round_trips(&mut Ice::new(name, false, 64, false)?, 64, window),
        "iceoryx2-event" => round_trips(&mut Ice::new(name, false, 64, true)?, 64, window),
        "iceoryx2-stream" => stream(&mut Ice::new(name, false, 64, false)?, 64, 1, window),
        "iceoryx2-64k" => stream(&mut Ice::new(name, false, LARGE, false)?, LARGE, 1, window),
        "records-rtt" => round_trips(&mut Records::connect(name)?, 64, window),
        "records-each" => stream(&mut Records::connect(name)?, 64, 1, window),
        "records-by-64" => stream(&mut Records::connect(name)?, 64, 64, window),
        "records-in-place" => stream(&mut Records::connect(name)?.in_place(), 64, 64, window),
        "records-64k" => stream(&mut Records::connect(name)?, LARGE, 1, window),
        "records-loop" => loops::drive_records(&records(name), 64, window),
        "records-asleep" => loops::drive_records(&format!("{}&yield=0", records(name)), 64, window),
        "bev-unix" | "bev-shm" | "bev-shm-1m" => {
            loops::drive_stream(&bev(subject, name), LARGE, window)
        }
        _ => Err(unknown(subject)),
    }
}

fn records(name: &str) -> String {
    format!("shm://@{name}?face=records")
}

fn bev(subject: &str, name: &str) -> String {
    match subject {
        "bev-unix" => format!("unix://@{name}"),
        "bev-shm" => format!("shm://@{name}"),
        _ => format!("shm://@{name}?ring=1MiB"),
    }
}
