//! The bare machine: two words in shared memory, each written by one process and watched by the
//! other.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringlane_shm::map::{Fork, Map};

const BYTES: usize = 4096;
/// Far enough apart for processors that fetch lines in pairs.
const WORDS: [usize; 2] = [0, 256];
const END: u64 = u64::MAX;

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/{name}"))
}

fn map(file: &File) -> io::Result<Rc<Map>> {
    Map::new(file.as_fd(), BYTES, 0, &Rc::new(Fork::new()?))
}

pub fn serve(name: &str) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path(name))?;
    file.set_len(BYTES as u64)?;
    let map = map(&file)?;
    println!("ready");
    let (there, back) = (map.u64_at(WORDS[0]), map.u64_at(WORDS[1]));
    let mut seen = 0;
    while seen != END {
        let now = there.load(Ordering::Acquire);
        if now != seen {
            seen = now;
            back.store(now, Ordering::Release);
        } else {
            std::hint::spin_loop();
        }
    }
    Ok(())
}

/// Nanoseconds there and back.
pub fn drive(name: &str, window: Duration) -> io::Result<f64> {
    let file = OpenOptions::new().read(true).write(true).open(path(name))?;
    fs::remove_file(path(name))?;
    let map = map(&file)?;
    let (there, back) = (map.u64_at(WORDS[0]), map.u64_at(WORDS[1]));
    let exchange = |n: u64| {
        there.store(n, Ordering::Release);
        while back.load(Ordering::Acquire) != n {
            std::hint::spin_loop();
        }
    };
    (1..10_000).for_each(&exchange);
    let (mut n, begun) = (10_000_u64, Instant::now());
    while begun.elapsed() < window {
        (n..n + 1000).for_each(&exchange);
        n += 1000;
    }
    let taken = begun.elapsed();
    exchange(END);
    Ok(taken.as_nanos() as f64 / (n - 10_000) as f64)
}
