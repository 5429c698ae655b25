//! Strangers at the door: what is no hand-over is refused, and nobody else is disturbed.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::{BevEvent, EventBase, READ, Turn};
use ringlane_reactor::{Config, Engine, best};
use ringlane_shm::layout::Header;

fn base() -> EventBase {
    let config = Config { engine: Engine::Epoll, ..Config::default() };
    EventBase::with(best(&config).unwrap(), vec![ringlane_shm::transport()])
}

fn path(name: &str) -> String {
    let file = format!("ringlane-shm-{}-{name}", std::process::id());
    std::env::temp_dir().join(file).to_str().unwrap().to_string()
}

fn echo(base: &EventBase, at: &str) -> ringlane_api::Listener {
    let serve = |conn: ringlane_api::Bufferevent| {
        conn.on_read(|c| {
            c.output().append(c.input());
        });
        conn.on_event(|c, event| {
            if event.is_end() {
                c.free();
            }
        });
        conn.enable(READ);
    };
    base.listen(at, serve).unwrap()
}

/// A good client's byte comes back.
fn still_serves(base: &EventBase, at: &str) {
    let client = base.connect(at).unwrap();
    client.output().add(b"!");
    let back = Rc::new(Cell::new(false));
    let set = Rc::clone(&back);
    client.on_read(move |_| set.set(true));
    client.enable(READ);
    while !back.get() {
        base.turn(Turn::Wait).unwrap();
    }
    client.free();
}

/// What the server answers to `bytes`, and that it hangs up then.
fn answer(base: &EventBase, file: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stranger = UnixStream::connect(file).unwrap();
    stranger.write_all(bytes).unwrap();
    stranger.set_nonblocking(true).unwrap();
    let (mut got, mut room) = (Vec::new(), [0; 64]);
    loop {
        base.turn(Turn::NoWait).unwrap();
        match stranger.read(&mut room) {
            Ok(0) => return got,
            Ok(n) => got.extend_from_slice(&room[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return got,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_is_no_hand_over_is_refused_and_others_are_served() {
    let (base, file) = (base(), path("refused"));
    let at = format!("shm://{file}");
    let listener = echo(&base, &at);
    let mut hello = Header::new(65536, 7).encode().to_vec();
    hello.extend([0; 8]);
    // It has a feature that nobody has heard of.
    let mut modern = hello.clone();
    modern[35] = 128;
    for (bytes, code) in [(vec![b'x'; 48], 2), (vec![0; 4096], 2), (modern, 8), (hello, 3)] {
        let said = answer(&base, &file, &bytes);
        assert_eq!((said.len(), said[8]), (16, code), "{said:?}");
        still_serves(&base, &at);
    }
    listener.free();
}

#[test]
fn who_says_nothing_is_sent_away_and_nobody_waits_for_him() {
    let (base, file) = (base(), path("silent"));
    let at = format!("shm://{file}");
    let listener = echo(&base, &at);
    let mut silent = UnixStream::connect(&file).unwrap();
    still_serves(&base, &at);
    silent.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut room = [0; 8];
    loop {
        base.turn(Turn::Wait).unwrap();
        match silent.read(&mut room) {
            Ok(0) => break,
            Ok(_) => panic!("nothing was asked"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    listener.free();
}

#[test]
fn a_socket_where_somebody_else_listens_is_an_error() {
    let (base, file) = (base(), path("other"));
    let listener = std::os::unix::net::UnixListener::bind(&file).unwrap();
    let client = base.connect(format!("shm://{file}")).unwrap();
    let why = Rc::new(Cell::new(None));
    let set = Rc::clone(&why);
    client.on_event(move |c, event| {
        if let BevEvent::Error { error, .. } = event {
            set.set(Some(error.to_string()));
        }
        c.free();
    });
    // The connect leaves with a turn.
    base.turn(Turn::NoWait).unwrap();
    let (mut other, _) = listener.accept().unwrap_or_else(|error| panic!("{error}"));
    other.write_all(b"220 mail.example ESMTP, at your service\r\n").unwrap();
    base.dispatch().unwrap();
    let why = why.take().expect("it was told");
    assert!(why.contains("no shm:// listener"), "{why}");
    std::fs::remove_file(&file).unwrap();
}
