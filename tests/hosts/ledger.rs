//! What was accepted and what was consumed, by the logs of the processes: nothing lost, nothing
//! twice, in order; and for how long nothing came.
//!
//! Invariant: everything is judged as it is read, so what is kept does not grow with the messages.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::time::{ClockId, clock_gettime};

const RECORD: usize = 48;

const PAGE: i64 = 4095;

/// The clock that logs are written by, in nanoseconds.
pub fn now() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos() as u64
}

/// A time of that clock, as it is printed.
pub fn seconds(time: u64) -> f64 {
    time as f64 / 1e9
}

/// What an instance of a process consumed of one sender.
#[derive(Clone, Default)]
pub struct Heard {
    pub epoch: u64,
    /// Numbers of the sender's: the first and the last of this epoch.
    pub first: u64,
    pub last: u64,
    /// The last number in the stream, which begins with one.
    pub seq: u32,
    pub at: u64,
    pub count: u64,
    /// Earlier epochs: first and last number of each.
    pub before: Vec<(u64, u64, u64)>,
    /// The longest time without a message since the last cause was gone.
    gap: u64,
}

/// The log of one instance of a process.
pub struct Log {
    pub name: String,
    file: File,
    rest: Vec<u8>,
    read: u64,
    pub heard: BTreeMap<String, Heard>,
    /// The last number accepted, by receiver.
    pub accepted: BTreeMap<String, u64>,
    /// Since when gaps are measured, if they are.
    since: Option<u64>,
    pub wrong: Vec<String>,
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

impl Log {
    pub fn open(name: &str, path: &Path) -> Log {
        Log {
            name: name.into(),
            file: OpenOptions::new().read(true).write(true).open(path).unwrap(),
            rest: Vec::new(),
            read: 0,
            heard: BTreeMap::new(),
            accepted: BTreeMap::new(),
            since: None,
            wrong: Vec::new(),
        }
    }

    /// Reads what is new.
    pub fn read(&mut self) {
        let mut bytes = std::mem::take(&mut self.rest);
        let read = self.file.read_to_end(&mut bytes).unwrap();
        let old = self.read as i64;
        self.read += read as u64;
        // What was read needs no room any more; not every file system can give it back.
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if read > 0 {
            let _ = fallocate(&self.file, hole, old & !PAGE, (old & PAGE) + read as i64);
        }
        let records = bytes.chunks_exact(RECORD);
        self.rest = records.remainder().to_vec();
        for record in records {
            self.judge(record);
        }
    }

    fn judge(&mut self, record: &[u8]) {
        let (number, epoch, at) = (word(record), word(&record[8..]), word(&record[16..]));
        let seq = u32::from_le_bytes(record[24..28].try_into().unwrap());
        let name = record[31..].split(|byte| *byte == 0).next().unwrap();
        let peer = String::from_utf8_lossy(name).into_owned();
        if record[30] == b'>' {
            self.accepted.insert(peer, number);
            return;
        }
        let one = self.heard.entry(peer.clone()).or_default();
        if one.epoch == epoch {
            if (number, seq) != (one.last + 1, one.seq + 1) {
                let (after, last_seq) = (one.last, one.seq);
                self.wrong.push(format!(
                    "{peer} to {}: number {number} ({seq}) after {after} ({last_seq})",
                    self.name
                ));
            }
        } else {
            if seq != 1 {
                self.wrong.push(format!("{peer} to {}: a stream begins with {seq}", self.name));
            }
            if one.before.iter().any(|(before, ..)| *before == epoch) {
                self.wrong.push(format!("{peer} to {}: an epoch comes back", self.name));
            }
            if one.epoch != 0 {
                one.before.push((one.epoch, one.first, one.last));
            }
            (one.epoch, one.first) = (epoch, number);
        }
        if let Some(since) = self.since.filter(|since| *since < at) {
            one.gap = one.gap.max(at - one.at.max(since));
        }
        (one.last, one.seq, one.at) = (number, seq, at);
        one.count += 1;
    }

    /// From now on gaps are measured.
    pub fn measure(&mut self, since: u64) {
        self.read();
        self.since = Some(since);
        self.heard.values_mut().for_each(|one| one.gap = 0);
    }

    /// Whether something has come of all these since gaps are measured.
    pub fn came(&self, peers: &[String]) -> bool {
        let since = self.since.unwrap_or(0);
        peers.iter().all(|peer| self.heard.get(peer).is_some_and(|one| one.at > since))
    }

    /// The longest gap of each sender in nanoseconds; gaps are not measured any more.
    pub fn gaps(&mut self) -> Vec<(String, u64)> {
        self.read();
        self.since = None;
        self.heard.iter().map(|(peer, one)| (peer.clone(), one.gap)).collect()
    }
}
