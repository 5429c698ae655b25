//! ringlane with its loop: records that sleep between messages, and streams of bufferevents.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringlane::prelude::*;
use ringlane::shm::Port;

use crate::ends::{END, is_whole, number, stamp};

/// Bytes that a stream keeps in its output.
const STREAM_BYTES: usize = 1 << 20;

fn error(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

fn port(conn: &Bufferevent) -> Port {
    conn.face::<Port>().expect("the link carries records")
}

/// Answers each record; ends with the connection.
pub fn serve_records(address: &str) -> io::Result<()> {
    let base = EventBase::new().map_err(error)?;
    let accept = |conn: Bufferevent| {
        let mut copy = Vec::new();
        conn.on_read(move |conn| {
            let port = port(conn);
            let answer = |_, bytes: &[u8]| port.push(0, 0, bytes).expect("one is under way");
            port.drain(&mut copy, answer).expect("nobody scribbles");
        });
        conn.on_event(|conn, _| conn.base().expect("it runs").break_now());
        conn.enable(READ);
    };
    base.listen(address, accept).map_err(error)?;
    println!("ready");
    base.dispatch().map_err(error)
}

/// Nanoseconds of a round trip between two sleeping loops.
pub fn drive_records(address: &str, size: usize, window: Duration) -> io::Result<f64> {
    let base = EventBase::new().map_err(error)?;
    let conn = base.connect(address).map_err(error)?;
    let message = Rc::new(RefCell::new(vec![0x5a; size]));
    let (n, begun) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(None)));
    let taken = Rc::new(Cell::new(None));
    let send = Rc::clone(&message);
    conn.on_event(move |conn, event| match event {
        BevEvent::Connected => {
            stamp(&mut send.borrow_mut(), 0);
            port(conn).push(0, 0, &send.borrow()).expect("the ring is empty");
        }
        other => panic!("{other}"),
    });
    let (told, mut copy, mut from) = (Rc::clone(&taken), Vec::new(), 0);
    conn.on_read(move |conn| {
        let port = port(conn);
        let came = port.drain(&mut copy, |_, bytes| assert!(is_whole(bytes, n.get())));
        assert_eq!(came, Ok(1));
        n.set(n.get() + 1);
        if n.get() == 1000 {
            (from, _) = (n.get(), begun.set(Some(Instant::now())));
        }
        if n.get().is_multiple_of(64)
            && let Some(begun) = begun.get()
            && begun.elapsed() >= window
        {
            told.set(Some(begun.elapsed().as_nanos() as f64 / (n.get() - from) as f64));
            return conn.base().expect("it runs").stop();
        }
        stamp(&mut message.borrow_mut(), n.get());
        port.push(0, 0, &message.borrow()).expect("one is under way");
    });
    conn.enable(READ);
    base.dispatch().map_err(error)?;
    taken.get().ok_or_else(|| error("it ended early"))
}

/// Takes a stream of messages, looks at the ends of each, and answers the last with their count.
pub fn serve_stream(address: &str, size: usize) -> io::Result<()> {
    let base = EventBase::new().map_err(error)?;
    let accept = move |conn: Bufferevent| {
        let (n, wrong) = (Cell::new(0_u64), Cell::new(false));
        conn.on_read(move |conn| {
            let input = conn.input();
            while input.len() >= size {
                let mut ends = [0; 16];
                input.copyout(&mut ends[..8]);
                input.drain(size - 8);
                input.copyout(&mut ends[8..]);
                input.drain(8);
                if number(&ends) == END {
                    let mut answer = vec![0; size];
                    stamp(&mut answer, if wrong.get() { 0 } else { n.get() });
                    conn.output().add(&answer);
                } else {
                    wrong.set(wrong.get() | !is_whole(&ends, n.get()));
                    n.set(n.get() + 1);
                }
            }
        });
        conn.on_event(|conn, _| conn.base().expect("it runs").break_now());
        conn.enable(READ);
    };
    base.listen(address, accept).map_err(error)?;
    println!("ready");
    base.dispatch().map_err(error)
}

/// Messages per second through a bufferevent.
pub fn drive_stream(address: &str, size: usize, window: Duration) -> io::Result<f64> {
    let base = EventBase::new().map_err(error)?;
    let conn = base.connect(address).map_err(error)?;
    conn.set_write_watermark(STREAM_BYTES / 2, STREAM_BYTES);
    let mut message = vec![0x5a; size];
    let (n, over) = (Rc::new(Cell::new(0_u64)), Cell::new(false));
    let sent = Rc::clone(&n);
    let begun = Rc::new(Cell::new(None::<Instant>));
    let start = Rc::clone(&begun);
    let fill = move |conn: &Bufferevent| {
        let begun = start.get().unwrap_or_else(Instant::now);
        start.set(Some(begun));
        let output = conn.output();
        while !over.get() && output.len() < STREAM_BYTES {
            let more = begun.elapsed() < window;
            over.set(!more);
            stamp(&mut message, if more { sent.get() } else { END });
            sent.set(sent.get() + u64::from(more));
            output.add(&message);
        }
    };
    let fill = Rc::new(RefCell::new(fill));
    let first = Rc::clone(&fill);
    conn.on_write(move |conn| fill.borrow_mut()(conn));
    conn.on_event(move |conn, event| match event {
        BevEvent::Connected => first.borrow_mut()(conn),
        other => panic!("{other}"),
    });
    let got = Rc::new(Cell::new(0));
    let put = Rc::clone(&got);
    conn.on_read(move |conn| {
        if conn.input().len() >= size {
            let mut first = [0; 8];
            conn.input().copyout(&mut first);
            put.set(u64::from_le_bytes(first));
            conn.base().expect("it runs").stop();
        }
    });
    conn.enable(READ);
    base.dispatch().map_err(error)?;
    let taken = begun.get().ok_or_else(|| error("it never began"))?.elapsed();
    match got.get() == n.get() {
        true => Ok(n.get() as f64 / taken.as_secs_f64()),
        false => Err(error(format!("{} went, {} came", n.get(), got.get()))),
    }
}
