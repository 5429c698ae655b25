//! A peer that writes over everything in the segment, at any moment, while bytes flow.

use std::cell::{Cell, RefCell};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Stdio;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use ringlane_api::{BevEvent, Bufferevent, EventBase, READ, Turn};
use ringlane_reactor::{Config, Engine, best};
use ringlane_shm::layout::{Header, PAGE, announce};
use ringlane_shm::map::Map;
use ringlane_shm::record::{Records, Refused};
use ringlane_shm::ring::{Consumer, Producer, Published, Scribbled};

use crate::kit::{self, Dice, SMALL};
use crate::records;
use crate::talk::{MIXED, Talk, talk, talk_accepted};

/// How long an ordinary run takes, seconds, over streams and over records each.
const SECONDS: u64 = 3;

/// Our side and one whose peer is hostile; the bytes it always has to say.
const CHATTER: usize = 6000;

/// How long our end waits for a sign of life. A peer may leave its rings as if it were there, and
/// a kernel may forget to tell a multishot receive that a Unix socket was closed right behind more
/// than a hundred small sends; see docs/kernel.md.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a hostile peer stays on one link at most.
const STAY: Duration = Duration::from_millis(40);

/// Somewhere where it might hurt.
fn place(dice: &mut Dice) -> usize {
    let lane = SMALL.lane(dice.below(2) as usize);
    match dice.below(8) {
        0 | 1 => lane.word,
        2 | 3 => lane.head,
        4 => lane.state,
        5 => announce(dice.below(2) as usize),
        6 => lane.ring + dice.below(u64::from(lane.cap)) as usize,
        _ => dice.below(SMALL.segment_bytes()) as usize,
    }
}

/// Something that a stranger might write there: random, extreme, or nearly right.
fn scribble(dice: &mut Dice, map: &Map, fd: &OwnedFd) {
    let at = place(dice) & !7;
    let now = map.u64_at(at).load(Ordering::Relaxed);
    let (cap, position) = (u64::from(SMALL.cap), (1 << 31) - 1);
    let value = match dice.below(16) {
        0 => 0,
        1 => u64::MAX,
        2 => dice.roll(),
        3 => 1 << dice.below(64),
        4 => now ^ 1 << dice.below(64),
        5 => now.wrapping_add(dice.below(64)),
        6 => now.wrapping_sub(dice.below(64)),
        7 => now.wrapping_add(cap),
        8 => now.wrapping_add(cap - 8 + dice.below(16)),
        9 => now.wrapping_sub(cap),
        10 => now & !position | position,
        11 => dice.below(2 * cap),
        // Another counter's value.
        12 => map.u64_at(place(dice) & !7).load(Ordering::Relaxed),
        // A record's header whose length is nearly right.
        13 => (cap - dice.below(24)) | dice.below(4) << 32,
        14 => dice.below(cap) | (0x7fff << 32),
        _ => return many(dice, map, fd),
    };
    map.u64_at(at).store(value, Ordering::Relaxed);
}

/// A page at once: noise, ones, or a hole.
fn many(dice: &mut Dice, map: &Map, fd: &OwnedFd) {
    let pages = SMALL.segment_bytes() / PAGE as u64;
    let at = dice.below(pages) as usize * PAGE;
    match dice.below(4) {
        0 => {
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(fd, hole, at as i64, PAGE as i64).expect("holes may be punched");
        }
        1 => map.write(at, &[255; PAGE]),
        _ => (0..PAGE).step_by(8).for_each(|i| map.write(at + i, &dice.roll().to_le_bytes())),
    }
}

/// Scribbles with pauses of up to so many microseconds, until it is told to stop.
fn scribble_on(fd: &OwnedFd, seed: u64, pause: u64, stop: &AtomicBool) {
    let (map, mut dice) = (records::map(fd), Dice(seed));
    while !stop.load(Ordering::Relaxed) {
        scribble(&mut dice, &map, fd);
        if pause > 0 {
            std::thread::sleep(Duration::from_micros(dice.below(pause)));
        }
    }
}

/// The hostile side of an open link: it keeps bytes flowing, rings, and scribbles.
fn play(mut socket: UnixStream, fd: &OwnedFd, side: usize, dice: &mut Dice) {
    socket.set_nonblocking(true).expect("it is a socket");
    let (stop, seed, pause) = (AtomicBool::new(false), dice.roll() | 1, [0, 50, 500, 5000]);
    let pause = pause[dice.below(4) as usize];
    std::thread::scope(|scope| {
        scope.spawn(|| scribble_on(fd, seed, pause, &stop));
        let map = records::map(fd);
        let mut out = Producer::new(Rc::clone(&map), SMALL.lane(side));
        let mut inn = Consumer::new(Rc::clone(&map), SMALL.lane(1 - side));
        let (end, mut room) = (Instant::now() + STAY, [0; 5000]);
        while Instant::now() < end {
            // It rings on the socket, whatever was said about words: that always wakes.
            let rung = socket.write(&[1]);
            let heard = socket.read(&mut room);
            let gone = |error: &std::io::Error| error.kind() != std::io::ErrorKind::WouldBlock;
            if matches!(heard, Ok(0)) || heard.is_err_and(|e| gone(&e)) || rung.is_err() {
                break;
            }
            let n = dice.below(5000) as usize;
            if out.write(&room[..n]).is_err() {
                let word = Published::of(map.u64_at(SMALL.lane(side).word).load(Ordering::Relaxed));
                if let Ok(other) = Producer::resume(Rc::clone(&map), SMALL.lane(side), word) {
                    out = other;
                }
            }
            out.publish();
            if inn.available(1).is_ok() {
                inn.read(&mut room);
                inn.release();
            }
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn hello(socket: &UnixStream) -> OwnedFd {
    let config = Config { engine: Engine::Epoll, ..Config::default() };
    let mut reactor = best(&config).expect("epoll is everywhere");
    let fd = reactor.sys().memory(SMALL.segment_bytes()).expect("there is memory");
    let id = reactor.sys().memory_of(&fd).expect("it is one").id;
    let fd = fd.into_os().unwrap_or_else(|_| panic!("it is a descriptor"));
    let mut bytes = Header::new(SMALL.cap, id).encode().to_vec();
    records::map(&fd).write(0, &bytes);
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    let (fds, parts) = ([fd.as_raw_fd()], [IoSlice::new(&bytes)]);
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).expect("it goes");
    fd
}

fn welcome(mut socket: &UnixStream) -> Option<OwnedFd> {
    let mut bytes = [0; 64];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut room = nix::cmsg_space!([std::os::fd::RawFd; 2]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let got = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut room), flags).ok()?;
    let fds = got.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    })?;
    socket.write_all(b"rnglane+\0\x01\0\0\0\0\0\0").ok()?;
    Some(own(fds))
}

/// A descriptor by number that has just come, once for all.
fn own(number: i32) -> OwnedFd {
    let path = format!("/proc/self/fd/{number}");
    let file = std::fs::File::options().read(true).write(true).open(path).expect("it is memory");
    nix::unistd::close(number).expect("it was open");
    file.into()
}

/// A hostile child: `connector` or `acceptor` and a name, or `ring` for the segment at its input.
pub fn child(arguments: &[&str]) {
    let (role, rest) = arguments.split_first().expect("a role");
    let mut dice = Dice(0xbad);
    if *role == "ring" {
        let fd = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().expect("memory");
        return scribble_on(&fd, 3, 0, &AtomicBool::new(false));
    }
    let name = SocketAddr::from_abstract_name(rest[0]).expect("a name");
    if *role == "connector" {
        loop {
            // It may have hung up on the last one and be about to listen still.
            let mut socket = UnixStream::connect_addr(&name).expect("somebody listens");
            let fd = hello(&socket);
            if socket.read_exact(&mut [0; 16]).is_ok() {
                play(socket, &fd, 0, &mut dice);
            }
        }
    }
    let listener = UnixListener::bind_addr(&name).expect("nobody else listens");
    println!("ready");
    loop {
        let (socket, _) = listener.accept().expect("it is a listener");
        if let Some(fd) = welcome(&socket) {
            play(socket, &fd, 1, &mut dice);
        }
    }
}

/// Our end of a link with a hostile peer: always something to say, and everything is taken.
fn victim(conn: &Bufferevent, ends: &Rc<Cell<u64>>) {
    conn.output().add(&[7; CHATTER]);
    conn.on_write(|conn| conn.output().add(&[7; CHATTER]));
    conn.on_read(|conn| _ = conn.input().take());
    let ends = Rc::clone(ends);
    conn.set_timeouts(Some(PATIENCE), None);
    conn.on_event(move |conn, event| {
        if !matches!(event, BevEvent::Connected) {
            ends.set(ends.get() + 1);
            conn.abort();
        }
    });
    conn.enable(READ);
}

/// Two ends of an honest link of the same base, checked byte for byte.
fn innocents(base: &EventBase, n: usize) -> [Rc<RefCell<Talk>>; 2] {
    let talks = [Talk::new(0, MIXED, u64::MAX), Talk::new(1, MIXED, u64::MAX)];
    let (accepted, address) = (Rc::clone(&talks[1]), kit::address("innocent", n));
    let listener = base.listen(&address, move |conn| talk_accepted(&conn, &accepted));
    let listener = listener.expect("nobody else listens there");
    talk(&base.connect(&address).expect("it is an address"), &talks[0]);
    while !talks.iter().all(|talk| talk.borrow().open) {
        base.turn(Turn::Wait).expect("it turns");
    }
    listener.free();
    talks
}

/// A hostile child in that role against our engine, for so long; how many links it ended.
fn besiege(engine: Engine, role: &str, n: usize, time: Duration) -> (u64, u64) {
    kit::watch(format!("scribbling {role}, {engine:?}"), 60 + time.as_secs());
    let base = kit::base(engine);
    let fds = kit::open_fds();
    let talks = innocents(&base, n);
    let (name, ends) =
        (format!("ringlane-peers-{}-hostile-{n}", std::process::id()), Rc::default());
    let address = format!("shm://@{name}?ring=4KiB");
    let tick = base.every(Duration::from_millis(5), |_| {});
    let accepts = role == "connector";
    let listener = accepts.then(|| {
        let ends = Rc::clone(&ends);
        base.listen(&address, move |conn| victim(&conn, &ends)).expect("a free name")
    });
    let (mut child, mut told) = kit::child(&["scribble", role, &name], Stdio::null());
    if !accepts {
        assert_eq!(kit::line(&mut told), "ready");
    }
    let begun = Instant::now();
    let mut dialed = 0;
    while begun.elapsed() < time {
        // The ones that were accepted come by themselves.
        if !accepts && ends.get() == dialed {
            victim(&base.connect(&address).expect("it is an address"), &ends);
            dialed += 1;
        }
        base.turn(Turn::Wait).expect("it turns");
        assert!(talks.iter().all(|talk| talk.borrow().end.is_none()), "an innocent link ended");
        assert!(child.try_wait().expect("it is ours").is_none(), "the hostile child died of it");
    }
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    drop(told);
    listener.inspect(ringlane_api::Listener::free);
    talks[0].borrow_mut().stop();
    while base.stats().links > 0 || kit::open_fds() > fds {
        base.turn(Turn::Wait).expect("it turns");
    }
    tick.free();
    assert_eq!(kit::segments(), [0; 0], "maps of links that are over");
    let bytes = talks.iter().map(|talk| talk.borrow().received).sum();
    (ends.get(), bytes)
}

pub fn over_streams() {
    let engines = kit::engines();
    let time = Duration::from_secs(kit::bound("RINGLANE_SCRIBBLE_SECONDS", SECONDS));
    for (n, engine) in engines.iter().enumerate() {
        for (m, role) in ["connector", "acceptor"].into_iter().enumerate() {
            let (ends, bytes) =
                besiege(*engine, role, 2 * n + m, time / (2 * engines.len() as u32));
            println!(
                "  {role}, {}: {ends} links ended, {bytes} bytes beside them undisturbed",
                kit::name(*engine)
            );
            assert!(ends > 0 && bytes > 0, "nothing happened");
        }
    }
}

/// One step of an innocent side; `Err` is what it may come to.
fn step(
    dice: &mut Dice,
    out: &mut Producer,
    inn: &mut Records,
    private: &mut Vec<u8>,
) -> Result<(), Scribbled> {
    let message = [9; 3000];
    let len = dice.below(1100) as usize;
    let pushed = |result: Result<(), Refused>| match result {
        Err(Refused::Scribbled) => Err(Scribbled),
        _ => Ok(()),
    };
    match dice.below(8) {
        0 => pushed(out.push(1, 2, &message[..len]))?,
        1 => pushed(out.push_pieces(1, 2, &message).map(drop))?,
        2 => pushed(out.reserve(len as u32).map(|mut place| {
            place.write(len / 2, &message[..len - len / 2]);
            place.commit(3, 4);
        }))?,
        3 => _ = out.room(len as u32)?,
        4 | 5 => {
            let each = |header: ringlane_shm::record::RecordHeader, bytes: &[u8]| {
                assert_eq!(header.len as usize, bytes.len());
            };
            inn.drain(private, each)?;
        }
        6 => {
            while let Some(record) = inn.borrow()? {
                assert_eq!(record.payload.to_vec().len(), record.header.len as usize);
                assert_eq!(record.payload.get_u64(record.payload.len()), None);
                inn.give_back(record);
            }
        }
        _ => {
            let mut room = [0; 3000];
            assert!(inn.ring().available(1)? <= SMALL.cap);
            inn.ring().read(&mut room[..len]);
            inn.ring().release();
        }
    }
    let before = out.published();
    if out.is_dirty() && dice.below(4) == 0 {
        // Frozen by a scribble, as it looks.
        let _ = out.publish_unless_frozen(before);
    }
    out.publish();
    Ok(())
}

pub fn over_records() {
    let time = Duration::from_secs(kit::bound("RINGLANE_SCRIBBLE_SECONDS", SECONDS));
    kit::watch("scribbling over records", 60 + time.as_secs());
    let fd = records::memory();
    let stdin = Stdio::from(fd.try_clone().expect("a descriptor"));
    let (mut child, _told) = kit::child(&["scribble", "ring"], stdin);
    let (begun, mut dice) = (Instant::now(), Dice(17));
    let (mut links, mut steps) = (0, 0_u64);
    let (map, mut private) = (records::map(&fd), vec![1; 3000]);
    while begun.elapsed() < time {
        // Both ends of one ring are ours, and everything between them is scribbled over.
        let mut out = Producer::new(Rc::clone(&map), SMALL.lane(0));
        let mut inn = Records::new(Consumer::new(Rc::clone(&map), SMALL.lane(0)));
        let most = dice.below(5000);
        let lived =
            (0..most).take_while(|_| step(&mut dice, &mut out, &mut inn, &mut private).is_ok());
        let lived = lived.count() as u64;
        steps += lived;
        links += u64::from(lived < most);
    }
    assert!(child.try_wait().expect("it is ours").is_none(), "the hostile child died of it");
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    println!("  {links} rings given up in {steps} steps");
    assert!(links > 0, "the scribbler was never found out");
}
