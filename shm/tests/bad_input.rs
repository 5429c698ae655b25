//! What is passed off as a segment or as an answer, on both engines: each is refused with its
//! reason, who sent it is sent away, and a link beside it goes on.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use ringlane_api::{BevEvent, Bufferevent, EventBase, Listener, READ, Turn};
use ringlane_reactor::{Config, Engine, best};
use ringlane_shm::layout::{HEADER_BYTES, Header, PAGE, RING_BYTES_MIN};
use ringlane_shm::map::{Fork, Map};

/// What the acceptor says to a HELLO.
const WELCOME: u8 = 0;
const NO_HEADER: u8 = 2;
const NO_MEMORY: u8 = 3;
const NO_MAP: u8 = 4;
const NO_FEATURE: u8 = 8;

fn engines() -> impl Iterator<Item = EventBase> {
    [Engine::Uring, Engine::Epoll].into_iter().filter_map(|engine| {
        let reactor = best(&Config { engine, ..Config::default() });
        let skipped = reactor.inspect_err(|error| println!("skipped {engine:?}: {error}"));
        Some(EventBase::with(skipped.ok()?, vec![ringlane_shm::transport()]))
    })
}

fn name() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("ringlane-bad-input-{}-{n}", std::process::id())
}

/// Ends the program if a test hangs.
struct Watchdog(Arc<AtomicBool>);

impl Watchdog {
    fn new() -> Watchdog {
        let over = Arc::new(AtomicBool::new(false));
        let (seen, of) = (Arc::clone(&over), std::thread::current().name().unwrap().to_string());
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(120));
            if !seen.load(Ordering::Relaxed) {
                println!("{of} hangs");
                std::process::exit(1);
            }
        });
        Watchdog(over)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn socket_at(name: &str) -> UnixStream {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
}

/// A listener that echoes, and a link to it that must not notice anything.
struct House {
    base: EventBase,
    name: String,
    listener: Listener,
    friend: Bufferevent,
    answers: Rc<Cell<usize>>,
}

impl House {
    fn new(base: EventBase) -> House {
        let name = name();
        let serve = |conn: Bufferevent| {
            conn.on_read(|c| c.output().append(c.input()));
            conn.on_event(|c, event| {
                if event.is_end() {
                    c.free();
                }
            });
            conn.enable(READ);
        };
        let listener = base.listen(format!("shm://@{name}"), serve).unwrap();
        let friend = base.connect(format!("shm://@{name}?ring=4KiB")).unwrap();
        let answers = Rc::new(Cell::new(0));
        let count = Rc::clone(&answers);
        friend.on_read(move |c| count.set(count.get() + c.input().take().len()));
        friend.on_event(|_, event| assert!(!event.is_end(), "the friend's link ended: {event:?}"));
        friend.enable(READ);
        let house = House { base, name, listener, friend, answers };
        house.is_quiet();
        house
    }

    /// The friend's bytes come back, and a new friend is served, too.
    fn is_quiet(&self) {
        let wanted = self.answers.get() + 5000;
        self.friend.output().add(&[1; 5000]);
        while self.answers.get() < wanted {
            self.base.turn(Turn::Wait).unwrap();
        }
        let links = self.base.stats().links;
        let other = self.base.connect(format!("shm://@{}", self.name)).unwrap();
        other.output().add(b"!");
        let served = Rc::new(Cell::new(false));
        let set = Rc::clone(&served);
        other.on_read(move |_| set.set(true));
        other.enable(READ);
        while !served.get() {
            self.base.turn(Turn::Wait).unwrap();
        }
        other.free();
        // A link's end is no callback, and a turn that waits may see it before it waits.
        while self.base.stats().links > links {
            self.base.turn(Turn::NoWait).unwrap();
        }
    }

    /// Turns while a stranger's socket is read, until it has got so many bytes or its end.
    fn read(&self, socket: &mut UnixStream, enough: usize) -> Vec<u8> {
        socket.set_nonblocking(true).unwrap();
        let (mut got, mut room) = (Vec::new(), [0; 64]);
        while got.len() < enough {
            self.base.turn(Turn::NoWait).unwrap();
            match socket.read(&mut room) {
                Ok(0) => break,
                Ok(n) => got.extend_from_slice(&room[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}"),
            }
        }
        got
    }

    /// What is answered to a HELLO with these descriptors; a refused one is sent away after it.
    fn answer(&self, hello: &[u8], fds: &[&OwnedFd]) -> u8 {
        let mut socket = socket_at(&self.name);
        send(&socket, hello, fds);
        let said = self.read(&mut socket, 16);
        assert_eq!((said.len(), &said[..8]), (16, &b"rnglane+"[..]), "{said:?}");
        if said[8] != WELCOME {
            assert_eq!(self.read(&mut socket, 1), [0; 0], "it hangs up");
        }
        said[8]
    }

    fn close(self) {
        self.listener.free();
        self.friend.on_event(|_, _| {});
        self.friend.abort();
        self.base.dispatch().unwrap();
    }
}

fn send(socket: &UnixStream, bytes: &[u8], fds: &[&OwnedFd]) {
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::empty(), None)
        .unwrap();
}

const ALL: SealFlag =
    SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

fn bytes() -> u64 {
    Header::new(RING_BYTES_MIN, 0).segment_bytes()
}

/// A memory file of a size, before it is sealed, and its header with its own id.
fn unsealed(size: u64) -> (OwnedFd, Header) {
    let fd = memfd_create(c"bad", MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC).unwrap();
    let file = File::from(fd.try_clone().unwrap());
    file.set_len(size).unwrap();
    let id = nix::sys::stat::fstat(&fd).unwrap().st_ino;
    let header = Header::new(RING_BYTES_MIN, id);
    std::os::unix::fs::FileExt::write_all_at(&file, &header.encode(), 0).unwrap();
    (fd, header)
}

fn seal(fd: &OwnedFd, seals: SealFlag) {
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
}

/// A segment as it should be.
fn segment() -> (OwnedFd, Header) {
    let (fd, header) = unsealed(bytes());
    seal(&fd, ALL);
    (fd, header)
}

fn hello(header: &[u8; HEADER_BYTES]) -> Vec<u8> {
    [&header[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat()
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What somebody may pass off as a segment, with what it is refused for.
fn not_segments() -> Vec<(&'static str, OwnedFd, u8)> {
    let mut all = Vec::new();
    let size = |size| {
        let (fd, _) = unsealed(size);
        seal(&fd, ALL);
        fd
    };
    all.push(("too short", size(bytes() - PAGE as u64), NO_MEMORY));
    all.push(("too long", size(bytes() + 1), NO_MEMORY));
    all.push(("empty", memfd_create(c"bad", MFdFlags::MFD_ALLOW_SEALING).unwrap(), NO_MEMORY));
    for missing in [SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW, SealFlag::F_SEAL_SEAL] {
        let (fd, _) = unsealed(bytes());
        seal(&fd, ALL.difference(missing));
        all.push(("partly sealed", fd, NO_MEMORY));
    }
    all.push(("not sealed", unsealed(bytes()).0, NO_MEMORY));
    for more in [SealFlag::F_SEAL_WRITE, SealFlag::F_SEAL_FUTURE_WRITE] {
        let (fd, _) = unsealed(bytes());
        seal(&fd, more);
        seal(&fd, ALL);
        all.push(("not to be written", fd, NO_MAP));
    }
    let (sealed, _) = segment();
    let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
    all.push(("open for reading only", File::open(path).unwrap().into(), NO_MAP));
    let file = std::env::temp_dir().join(name());
    File::create(&file).unwrap().set_len(bytes()).unwrap();
    let regular = File::options().read(true).write(true).open(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    all.push(("a regular file", regular.into(), NO_MEMORY));
    all.push(("a folder", File::open("/").unwrap().into(), NO_MEMORY));
    all.push((
        "a device",
        File::options().write(true).open("/dev/null").unwrap().into(),
        NO_MEMORY,
    ));
    let (read, write) = nix::unistd::pipe().unwrap();
    all.push(("a pipe", read, NO_MEMORY));
    all.push(("a pipe", write, NO_MEMORY));
    all.push(("a socket", UnixStream::pair().unwrap().0.into(), NO_MEMORY));
    match memfd_create(c"bad", MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_HUGETLB) {
        Ok(fd) => {
            File::from(fd.try_clone().unwrap()).set_len(2 << 20).unwrap();
            seal(&fd, ALL);
            all.push(("huge pages", fd, NO_MEMORY));
        }
        Err(error) => println!("skipped: no huge pages here: {error}"),
    }
    all
}

#[test]
fn what_is_no_segment_is_refused() {
    let _watchdog = Watchdog::new();
    for base in engines() {
        let house = House::new(base);
        let before = open_fds();
        for (what, fd, code) in not_segments() {
            let id = nix::sys::stat::fstat(&fd).unwrap().st_ino;
            let header = Header::new(RING_BYTES_MIN, id);
            let said = house.answer(&hello(&header.encode()), &[&fd]);
            assert_eq!(said, code, "{what}");
        }
        house.is_quiet();
        // A test beside this one may have a descriptor more; it cannot have them all.
        assert!(open_fds() < before + 10, "descriptors of strangers are kept");
        house.close();
    }
}

#[test]
fn a_header_that_lies_is_refused() {
    let _watchdog = Watchdog::new();
    for base in engines() {
        let house = House::new(base);
        let (fd, good) = segment();
        let (_, stranger) = segment();
        assert_eq!(house.answer(&hello(&stranger.encode()), &[&fd]), NO_HEADER, "another's id");
        let larger = Header { cap: 2 * good.cap, ..good };
        assert_eq!(house.answer(&hello(&larger.encode()), &[&fd]), NO_MEMORY, "larger");
        let modern = Header { features: 4, ..good };
        assert_eq!(house.answer(&hello(&modern.encode()), &[&fd]), NO_FEATURE);
        for at in [0, 7, 8, 12, 24] {
            let mut bytes = good.encode();
            bytes[at] ^= 0x80;
            assert_eq!(house.answer(&hello(&bytes), &[&fd]), NO_HEADER, "byte {at}");
        }
        // It changed after it was told.
        let map =
            Map::new(fd.as_fd(), bytes() as usize, 0, &Rc::new(Fork::new().unwrap())).unwrap();
        for at in 0..HEADER_BYTES {
            let mut bytes = good.encode();
            bytes[at] ^= 1;
            map.write(0, &bytes);
            assert_eq!(house.answer(&hello(&good.encode()), &[&fd]), NO_HEADER, "byte {at}");
        }
        punch(&fd, 0, PAGE);
        assert_eq!(house.answer(&hello(&good.encode()), &[&fd]), NO_HEADER, "a hole");
        map.write(0, &good.encode());
        assert_eq!(house.answer(&hello(&good.encode()), &[&fd]), WELCOME, "as it was");
        house.is_quiet();
        house.close();
    }
}

#[test]
fn a_segment_comes_with_one_descriptor() {
    let _watchdog = Watchdog::new();
    for base in engines() {
        let house = House::new(base);
        let (fd, header) = segment();
        let hello = hello(&header.encode());
        let before = open_fds();
        assert_eq!(house.answer(&hello, &[]), NO_MEMORY);
        for n in [2, 4, 60] {
            assert_eq!(house.answer(&hello, &vec![&fd; n]), NO_MEMORY, "{n} descriptors");
        }
        // In pieces, each with a descriptor.
        let mut socket = socket_at(&house.name);
        for piece in hello.chunks(8) {
            send(&socket, piece, &[&fd, &fd, &fd]);
            house.base.turn(Turn::NoWait).unwrap();
        }
        assert_eq!(house.read(&mut socket, 16)[8], NO_MEMORY);
        drop(socket);
        house.is_quiet();
        assert!(open_fds() < before + 10, "surplus descriptors are kept");
        // And a good one, byte by byte.
        let mut socket = socket_at(&house.name);
        send(&socket, &hello[..1], &[&fd]);
        for byte in &hello[1..] {
            house.base.turn(Turn::NoWait).unwrap();
            socket.write_all(&[*byte]).unwrap();
        }
        assert_eq!(house.read(&mut socket, 16)[8], WELCOME);
        drop(socket);
        house.close();
    }
}

fn punch(fd: &OwnedFd, at: usize, len: usize) {
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(fd, hole, at as i64, len as i64).unwrap();
}

#[test]
fn a_segment_that_is_punched_while_in_use_costs_its_own_link() {
    let _watchdog = Watchdog::new();
    for base in engines() {
        let house = House::new(base);
        let (fd, header) = segment();
        assert!(nix::unistd::ftruncate(&fd, 0).is_err(), "seals keep its size");
        let mut socket = socket_at(&house.name);
        send(&socket, &hello(&header.encode()), &[&fd]);
        assert_eq!(house.read(&mut socket, 16)[8], WELCOME);
        let map =
            Map::new(fd.as_fd(), bytes() as usize, 0, &Rc::new(Fork::new().unwrap())).unwrap();
        let mut out = ringlane_shm::ring::Producer::new(map, header.lane(0));
        out.write(b"some bytes").unwrap();
        out.publish();
        socket.write_all(&[1]).unwrap();
        house.is_quiet();
        // The echo is there; then all of it turns to zeros.
        punch(&fd, 0, bytes() as usize);
        socket.write_all(&[1]).unwrap();
        assert_eq!(house.read(&mut socket, 1000).len() % 1000, 0, "it hangs up");
        house.is_quiet();
        house.close();
    }
}

#[test]
fn junk_before_and_after_a_hello_costs_its_own_link_at_most() {
    let _watchdog = Watchdog::new();
    for base in engines() {
        let house = House::new(base);
        let (fd, header) = segment();
        let hello = hello(&header.encode());
        // Half of one, and gone.
        let socket = socket_at(&house.name);
        send(&socket, &hello[..20], &[&fd]);
        house.base.turn(Turn::NoWait).unwrap();
        drop(socket);
        house.is_quiet();
        for begins_well in [false, true] {
            let mut socket = socket_at(&house.name);
            if begins_well {
                send(&socket, &hello, &[&fd]);
                assert_eq!(house.read(&mut socket, 16)[8], WELCOME);
            }
            socket.set_nonblocking(true).unwrap();
            let (junk, mut sent) = (vec![0x55; 1 << 16], 0);
            while sent < 1 << 20 {
                house.base.turn(Turn::NoWait).unwrap();
                match socket.write(&junk) {
                    Ok(n) => sent += n,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
            // Whose link is open has rung a great many times.
            assert_eq!(sent >= 1 << 20, begins_well, "{sent} bytes of junk were taken");
            house.is_quiet();
        }
        house.close();
    }
}

/// What a connector hears that meets such an acceptor.
fn dial(base: &EventBase, mut acceptor: impl FnMut(&mut UnixStream) -> bool) -> String {
    let name = name();
    let at = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&at).unwrap();
    let client = base.connect(format!("shm://@{name}?ring=4KiB")).unwrap();
    let heard = Rc::new(RefCell::new(None));
    let set = Rc::clone(&heard);
    client.on_event(move |c, event| match event {
        BevEvent::Connected => c.output().add(b"anybody there?"),
        event => {
            set.borrow_mut().get_or_insert(format!("{event:?}"));
            c.free();
        }
    });
    client.enable(READ);
    base.turn(Turn::NoWait).unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut stays = acceptor(&mut socket);
    let mut held = Some(socket);
    while heard.borrow().is_none() {
        if !stays {
            held = None;
        }
        base.turn(Turn::NoWait).unwrap();
        stays &= held.is_some();
    }
    base.dispatch().unwrap();
    heard.take().unwrap()
}

#[test]
fn an_acceptor_that_answers_nonsense_is_an_error_that_says_what() {
    let _watchdog = Watchdog::new();
    let says = |answer: &'static [u8], stays: bool| {
        move |socket: &mut UnixStream| {
            socket.write_all(answer).unwrap();
            stays
        }
    };
    for base in engines() {
        for (answer, part) in [
            (&b"rnglane+\x01\0\0\0\0\0\0\0"[..], "uid= or mode="),
            (b"rnglane+\x02\0\0\0\0\0\0\0", "another version"),
            (b"rnglane+\x03\0\0\0\0\0\0\0", "not sealed"),
            (b"rnglane+\x04\0\0\0\0\0\0\0", "could not map"),
            (b"rnglane+\x05\0\0\0\0\0\0\0", "budget="),
            (b"rnglane+\x08\0\0\0\0\0\0\0", "older version"),
            (b"rnglane+\x09\0\0\0\0\0\0\0", "face=records on both"),
            (b"rnglane+\xff\0\0\0\0\0\0\0", "refused"),
            (b"rnglane-\0\0\0\0\0\0\0\0", "no shm:// listener"),
            (&[0; 16], "no shm:// listener"),
            (&[0xff; 4096], "no shm:// listener"),
        ] {
            let heard = dial(&base, says(answer, true));
            assert!(heard.contains(part), "{heard}");
        }
        for answer in [&b""[..], b"rng", b"rnglane+\0\0\0\0\0\0\0"] {
            let heard = dial(&base, says(answer, false));
            // As it is before or after our HELLO.
            assert!(heard.contains("reset") || heard.contains("pipe"), "{heard}");
        }
        // An open link whose socket goes: what was published is read, then it is an error.
        let heard = dial(&base, says(b"rnglane+\0\0\0\0\0\0\0\0", false));
        assert!(heard.starts_with("Error"), "{heard}");
    }
}

#[test]
fn an_acceptor_that_is_silent_is_waited_for_until_the_deadline() {
    let _watchdog = Watchdog::new();
    for base in engines() {
        let heard = dial(&base, |_| true);
        assert!(heard.contains("does not answer"), "{heard}");
    }
}
