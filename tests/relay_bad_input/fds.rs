//! Descriptors that are no rings.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{ftruncate, pipe};
use ringlane::bus::local::{FromRelay, Nonce, Place, ToRelay, encode};
use ringlane::bus::memory::Memory;
use ringlane::shm::through::{CONTROL_BYTES, Inlet, Outlet, outlet_bytes};

use super::lines::{hear, refused, registered, say};
use super::world::{World, logged};

const RING: u32 = 64 << 10;

/// A line with descriptors.
pub fn say_with(stream: &UnixStream, line: &ToRelay, fds: &[&OwnedFd]) {
    let bytes = encode(line);
    let fds: Vec<i32> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    let said = [IoSlice::new(&bytes)];
    let n = sendmsg::<()>(stream.as_raw_fd(), &said, rights, MsgFlags::empty(), None).unwrap();
    assert_eq!(n, bytes.len());
}

pub fn attach(id: u32, to: &str, ring: u32) -> ToRelay {
    let from = Place::default();
    ToRelay::Attach { id, to: to.into(), chan: 0, epoch: 1, att: 1, from, expected: 0, ring }
}

pub fn segment(ring: u32) -> ToRelay {
    let (from, nonce) = ("web".to_string(), Nonce([1; 16]));
    ToRelay::Segment { from, chan: 9, epoch: 1, nonce, att: 1, ring }
}

/// A memory file without anything that makes it a ring.
fn memfd(bytes: usize, seals: SealFlag) -> OwnedFd {
    let fd = memfd_create(c"foreign", MFdFlags::MFD_ALLOW_SEALING).unwrap();
    ftruncate(&fd, bytes as i64).unwrap();
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    fd
}

fn sealed() -> SealFlag {
    let future_write = SealFlag::from_bits_retain(0x10);
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | future_write | SealFlag::F_SEAL_SEAL
}

/// One of pages that may not be there when they are touched, if this machine has such.
fn huge(bytes: usize) -> Option<OwnedFd> {
    let flags = MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_HUGETLB;
    let fd = memfd_create(c"huge", flags).ok()?;
    ftruncate(&fd, bytes as i64).ok()?;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(sealed())).ok()?;
    Some(fd)
}

#[test]
fn a_descriptor_that_is_no_ring_is_refused_with_a_reason() {
    let world = World::new();
    let memory = Memory::new().unwrap();
    let control = memory.make_control().unwrap();
    let ring = memory.make_outlet(RING).unwrap();
    let inlet = memory.make_inlet(RING).unwrap();
    let _inlet = Inlet::new(inlet.map, RING);
    let bytes = outlet_bytes(RING);
    let open = |path: &str| OwnedFd::from(File::open(path).unwrap());
    let cases: Vec<(&str, OwnedFd, &str)> = vec![
        ("a file", open("/proc/self/exe"), "no memory file"),
        ("a directory", open("/"), "no memory file"),
        ("a device", open("/dev/null"), ""),
        ("a pipe", pipe().unwrap().0, ""),
        ("a socket", world.local().into(), ""),
        ("not sealed", memfd(bytes, SealFlag::empty()), "not sealed"),
        ("sealed in part", memfd(bytes, SealFlag::F_SEAL_SHRINK), "not sealed"),
        ("empty", memfd(0, sealed()), "0 bytes where"),
        ("too small", memfd(4096, sealed()), "4096 bytes where"),
        ("no ring in it", memfd(bytes, sealed()), "no segment of this kind"),
        ("a receiver's ring", inlet.fd, "not sealed"),
    ];
    let huge = huge(2 << 20).map(|fd| ("huge pages", fd, "no memory file"));
    if huge.is_none() {
        println!("skipped: this machine has no huge pages");
    }
    for (n, (what, fd, why)) in cases.into_iter().chain(huge).enumerate() {
        let stream = &mut registered(&world, "s0", 1 + n as u64);
        let line = match attach(1, "db", RING) {
            ToRelay::Attach { id, to, chan, att, from, expected, ring, .. } => {
                let epoch = 1 + n as u64;
                ToRelay::Attach { id, to, chan, epoch, att, from, expected, ring }
            }
            line => line,
        };
        say_with(stream, &line, &[&fd, &control.fd]);
        let found = refused(stream);
        assert!(found.contains("the ring: ") && found.contains(why), "{what}: {found}");
        logged(&found);
    }
    // A ring and no control page.
    let _outlet = Outlet::new(ring.map, RING);
    let foreign = memfd(CONTROL_BYTES, sealed());
    for page in [&foreign, &ring.fd] {
        let stream = &mut registered(&world, "s1", 1);
        say_with(stream, &attach(1, "db", RING), &[&ring.fd, page]);
        let found = refused(stream);
        assert!(found.starts_with("the "), "{found}");
    }
    // Segments to receive into.
    for (fd, why) in [(memfd(bytes, sealed()), ""), (open("/dev/zero"), ""), (ring.fd, "")] {
        let stream = &mut registered(&world, "s2", 1);
        say_with(stream, &segment(RING), &[&fd]);
        let found = refused(stream);
        assert!(found.contains("the ring: ") && found.contains(why), "{found}");
    }
    world.end();
}

#[test]
fn another_size_than_the_ring_has_is_refused() {
    let world = World::new();
    let memory = Memory::new().unwrap();
    let (ring, control) = (memory.make_outlet(RING).unwrap(), memory.make_control().unwrap());
    let _outlet = Outlet::new(ring.map, RING);
    for said in [0, 1, 4096, RING - 1, RING * 2, 1 << 31, u32::MAX] {
        let stream = &mut registered(&world, "s3", 1);
        say_with(stream, &attach(1, "db", said), &[&ring.fd, &control.fd]);
        let why = refused(stream);
        assert!(why.contains("the ring") || why.contains("limits.ring_memory"), "{said}: {why}");
        let stream = &mut registered(&world, "s4", 1);
        say_with(stream, &segment(said), &[&ring.fd]);
        let why = refused(stream);
        assert!(why.contains("the ring") || why.contains("limits.ring_memory"), "{said}: {why}");
    }
    world.end();
}

#[test]
fn more_or_fewer_descriptors_than_a_line_names_are_refused_and_closed() {
    let world = World::new();
    let null = OwnedFd::from(File::open("/dev/null").unwrap());
    let stream = &mut registered(&world, "s5", 1);
    say(stream, &attach(1, "db", RING));
    assert_eq!(refused(stream), "0 descriptors where 2 belong");
    let stream = &mut registered(&world, "s5", 1);
    say_with(stream, &attach(1, "db", RING), &[&null]);
    assert_eq!(refused(stream), "1 descriptors where 2 belong");
    let stream = &mut registered(&world, "s5", 1);
    say_with(stream, &ToRelay::Ping { id: 1 }, &[&null]);
    let why = refused(stream);
    assert_eq!(why, "1 descriptors that no line names");
    // Thousands with lines that want none, whose end never comes.
    let before = descriptors();
    for _ in 0..20 {
        let stream = registered(&world, "s6", 1);
        for _ in 0..40 {
            let bytes = [IoSlice::new(b"{")];
            let fds = [null.as_raw_fd(); 60];
            let rights = [ControlMessage::ScmRights(&fds)];
            let fd = stream.as_raw_fd();
            if sendmsg::<()>(fd, &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None).is_err() {
                break;
            }
        }
    }
    super::world::until("their descriptors are closed", || descriptors() < before + 200);
    world.end();
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_ring_of_a_name_that_is_nobodys_goes_nowhere() {
    let world = World::new();
    let memory = Memory::new().unwrap();
    let (ring, control) = (memory.make_outlet(RING).unwrap(), memory.make_control().unwrap());
    let mut outlet = Outlet::new(ring.map, RING);
    outlet.attach(control.map);
    let stream = &mut registered(&world, "s7", 1);
    say_with(stream, &attach(4, "nobody", RING), &[&ring.fd, &control.fd]);
    let line = hear(stream);
    assert!(matches!(&line, FromRelay::NoPath { id: 4, why } if why.contains("nobody")));
    say_with(stream, &segment(RING), &[&ring.fd]);
    assert!(refused(stream).contains("the ring: "));
    world.end();
}
