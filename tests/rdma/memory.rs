//! Strangers at a listener whose links share memory: what they pass is looked at, and what they
//! write is theirs alone.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use ringlane::prelude::*;
use ringlane::{BevEvent, LinkOptions, READ};

use super::{Server, both, echo, nameless, until};

/// Bytes of a link's segment: two pages, and two rings.
const BYTES: u64 = 2 * 4096 + 2 * (64 << 10);

/// The page of the counters.
const COUNTERS: u64 = 4096;

/// Why a hello is refused: "it does not take our memory".
const MEMORY: u8 = 2;

fn memory(bytes: u64, sealed: bool) -> File {
    let fd = memfd_create(c"stranger", MFdFlags::MFD_ALLOW_SEALING).expect("a memory file");
    let file = File::from(fd);
    file.set_len(bytes).expect("room");
    if sealed {
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("sealed");
    }
    file
}

fn bell() -> OwnedFd {
    EventFd::new().expect("a counter").into()
}

fn copy(file: &File) -> OwnedFd {
    file.try_clone().expect("a copy").into()
}

fn id(file: &File) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&file.metadata().expect("a look"))
}

fn hello(memory: u64, flags: u8) -> Vec<u8> {
    let mut bytes = b"RLrdma\0\x01".to_vec();
    [2_u32, 8192, 16].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes.extend([flags, 0, 0, 0]);
    bytes.extend(memory.to_le_bytes());
    bytes
}

/// A stranger on the Unix socket behind a listener.
struct Stranger {
    conn: Bufferevent,
    heard: Rc<RefCell<Vec<u8>>>,
    over: Rc<Cell<bool>>,
}

impl Stranger {
    fn knock(base: &EventBase, server: &Server) -> Stranger {
        let place = server.address.strip_prefix("rdma://").expect("an rdma address");
        let options = LinkOptions { receive_fds: true, ..LinkOptions::default() };
        let conn = base.connect_with(format!("unix://{place}"), &options).expect("valid");
        let (heard, over) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
        let (into, end) = (Rc::clone(&heard), Rc::clone(&over));
        conn.on_read(move |c| into.borrow_mut().extend(c.input().take()));
        conn.on_event(move |_, event| {
            if !matches!(event, BevEvent::Connected) {
                end.set(true);
            }
        });
        conn.enable(READ);
        Stranger { conn, heard, over }
    }

    fn says(&self, hello: &[u8], fds: Vec<OwnedFd>) {
        self.conn.send_fds(fds).expect("they go with the first byte");
        self.conn.output().add(hello);
    }
}

#[test]
fn what_is_passed_is_looked_at_before_it_is_taken() {
    let server = Server::start(&["echo", &both()[1]]);
    let base = EventBase::new().expect("a base");
    let good = memory(BYTES, true);
    let loose = memory(BYTES, false);
    let small = memory(BYTES - 4096, true);
    let plain = nameless();
    plain.set_len(BYTES).expect("room");
    let passed: Vec<(&str, u64, Vec<OwnedFd>)> = vec![
        ("nothing", id(&good), vec![]),
        ("no bell", id(&good), vec![copy(&good)]),
        ("three", id(&good), vec![copy(&good), bell(), bell()]),
        ("the other way round", id(&good), vec![bell(), copy(&good)]),
        ("not sealed", id(&loose), vec![copy(&loose), bell()]),
        ("too small", id(&small), vec![copy(&small), bell()]),
        ("a file of the disk", id(&plain), vec![copy(&plain), bell()]),
        ("a file for a bell", id(&good), vec![copy(&good), copy(&plain)]),
        ("not what was told", id(&good) + 1, vec![copy(&good), bell()]),
    ];
    for (what, told, fds) in passed {
        let stranger = Stranger::knock(&base, &server);
        match fds.is_empty() {
            true => stranger.conn.output().add(&hello(told, 8)),
            false => stranger.says(&hello(told, 8), fds),
        }
        until(&base, what, || stranger.over.get());
        let heard = stranger.heard.borrow().clone();
        assert_eq!((heard.len(), heard[20], heard[21]), (32, 4, MEMORY), "{what}");
        stranger.conn.free();
    }
    // Somebody who means the other kind of address.
    let stranger = Stranger::knock(&base, &server);
    stranger.conn.output().add(&hello(0, 0));
    until(&base, "the end", || stranger.over.get());
    stranger.conn.free();
    echo(&base, &server.address, 10_000);
    server.was_healthy();
}

/// The whole memory, over and over, with the bell ringing: the link of who does it ends, everybody
/// else is served meanwhile.
#[test]
fn a_peer_that_scribbles_over_everything_ends_its_own_link() {
    let server = Server::start(&["echo", &both()[1]]);
    let base = EventBase::new().expect("a base");
    let mut random = 7_u64;
    let mut draw = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random >> 16
    };
    for round in 0..20 {
        let file = memory(BYTES, true);
        let mine = EventFd::new().expect("a counter");
        let mine = OwnedFd::from(mine);
        let stranger = Stranger::knock(&base, &server);
        let passed = vec![copy(&file), mine.try_clone().expect("a copy")];
        stranger.says(&hello(id(&file), 8), passed);
        until(&base, "its hello", || stranger.heard.borrow().len() >= 32);
        let its_bell = stranger.conn.take_fds().pop().expect("a bell comes back");
        let mut tries = 0;
        while !stranger.over.get() {
            for _ in 0..500 {
                let at = if draw() % 4 == 0 { draw() % (BYTES / 8) * 8 } else { COUNTERS };
                let at = at + draw() % 24 * 64 * u64::from(at == COUNTERS);
                let word = draw() << (draw() % 40);
                file.write_all_at(&word.to_le_bytes(), at).expect("it may be written");
            }
            nix::unistd::write(&its_bell, &1_u64.to_ne_bytes()).expect("rung");
            base.turn(ringlane::Turn::NoWait).expect("a turn works");
            tries += 1;
            assert!(tries < 100_000, "round {round}: it puts up with everything");
        }
        stranger.conn.free();
        echo(&base, &server.address, 10_000);
    }
}

/// A bell that is filled, and whose writer would have to wait, holds nobody up.
#[test]
fn a_bell_that_was_spoiled_holds_nobody_up() {
    use nix::fcntl::OFlag;
    let server = Server::start(&["echo", &both()[1]]);
    let base = EventBase::new().expect("a base");
    let file = memory(BYTES, true);
    let mine = bell();
    fcntl(&mine, FcntlArg::F_SETFL(OFlag::empty())).expect("who writes may wait");
    nix::unistd::write(&mine, &(u64::MAX - 1).to_ne_bytes()).expect("it is full");
    let stranger = Stranger::knock(&base, &server);
    stranger.says(&hello(id(&file), 8), vec![copy(&file), mine]);
    until(&base, "its hello", || stranger.heard.borrow().len() >= 32);
    // Asleep over a full ring, it says, and what is read makes room: it has to be rung.
    let frame: Vec<u8> = [0_u32, 2, 2, 0, 2].iter().flat_map(|word| word.to_le_bytes()).collect();
    let its_bell = stranger.conn.take_fds().pop().expect("a bell comes back");
    for n in 1..50_u64 {
        file.write_all_at(&3_u32.to_le_bytes(), COUNTERS + 1024).expect("announced");
        file.write_all_at(&frame, 8192 + (n - 1) * 20).expect("written");
        file.write_all_at(&(n * 20).to_le_bytes(), COUNTERS).expect("published");
        nix::unistd::write(&its_bell, &1_u64.to_ne_bytes()).expect("rung");
        echo(&base, &server.address, 100);
        let mut word = [0; 4];
        file.read_exact_at(&mut word, COUNTERS + 1024).expect("read");
        assert_eq!(word, [0; 4], "its announcement {n} was taken");
    }
    assert!(!stranger.over.get(), "it did nothing that ends a link");
    stranger.conn.free();
}
