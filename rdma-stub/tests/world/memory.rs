//! Two wires of shared memory over one file.

use std::fs::{File, OpenOptions, remove_file};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringlane_rdma_stub::limits::{MESSAGE_BYTES, RING_BYTES};
use ringlane_rdma_stub::soft::MemoryWire;
use ringlane_rdma_stub::verbs::Port;
use ringlane_shm::layout::Header;
use ringlane_shm::map::Map;

pub fn header() -> Header {
    Header::new(RING_BYTES, 1)
}

/// A file that two wires map, without a name.
pub fn file() -> File {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("ringlane-wire-{}-{n}", std::process::id()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).open(&path).expect("a file");
    remove_file(&path).expect("its name goes");
    file.set_len(header().segment_bytes()).expect("room");
    file
}

/// A file's memory becomes a port; side 0 made it.
pub fn join(wire: &mut MemoryWire, file: &File, side: usize) -> Port {
    let guard = wire.guard().expect("a page");
    let bytes = header().segment_bytes() as usize;
    let map: Rc<Map> = Map::new(file.as_fd(), bytes, 1, &guard).expect("a map");
    wire.add(&map, header(), side)
}

/// Two wires and the port of each.
pub fn pair() -> (MemoryWire, MemoryWire, Port, Port) {
    let file = file();
    let (mut a, mut b) = (MemoryWire::new(MESSAGE_BYTES), MemoryWire::new(MESSAGE_BYTES));
    let (here, there) = (join(&mut a, &file, 0), join(&mut b, &file, 1));
    (a, b, here, there)
}
