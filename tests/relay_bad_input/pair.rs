//! Those who do nothing wrong.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use ringlane::bus::Bus;
use ringlane::prelude::*;

use super::world::until;

/// What is counted of them.
#[derive(Default)]
struct Counts {
    sent: [AtomicU64; 2],
    got: [AtomicU64; 2],
    /// Numbers of the records that the victim has seen, which come from a stranger.
    seen: Mutex<Vec<u64>>,
    flaw: Mutex<Option<String>>,
    quiet: AtomicBool,
    over: AtomicBool,
}

/// web sends numbers to db, abroad, and to cache, at home: a thousand a second. chatty sends to c0,
/// and victim hears c0.
pub struct Pairs {
    counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

impl Pairs {
    pub fn start(sockets: &[String; 2]) -> Pairs {
        let counts = Arc::new(Counts::default());
        let (own, sockets) = (Arc::clone(&counts), sockets.clone());
        Pairs { counts, thread: spawn(move || talk(&own, &sockets)) }
    }

    pub fn got(&self) -> [u64; 2] {
        if let Some(flaw) = &*self.counts.flaw.lock().unwrap() {
            panic!("{flaw}");
        }
        assert!(!self.thread.is_finished(), "the good processes have panicked");
        [0, 1].map(|at| self.counts.got[at].load(Ordering::Relaxed))
    }

    /// What the victim has seen so far.
    pub fn seen(&self) -> Vec<u64> {
        self.counts.seen.lock().unwrap().clone()
    }

    pub fn end(self) {
        self.counts.quiet.store(true, Ordering::Relaxed);
        until("everything that was sent", || {
            let sent = [0, 1].map(|at| self.counts.sent[at].load(Ordering::Relaxed));
            self.got() == sent
        });
        self.counts.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the good processes panic over nothing");
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
}

fn talk(counts: &Arc<Counts>, sockets: &[String; 2]) {
    let base = EventBase::new().unwrap();
    let open = |node: &str, at: usize| Bus::open_at(&base, node, &sockets[at]).unwrap();
    let receivers = [("db", 1), ("cache", 0)].map(|(node, at)| open(node, at));
    for (at, bus) in receivers.iter().enumerate() {
        let counts = Arc::clone(counts);
        bus.on_message(move |m| {
            // Strangers send to cache, too.
            if m.from() != "web" {
                return;
            }
            let due = counts.got[at].fetch_add(1, Ordering::Relaxed);
            if number(m.bytes()) != due {
                let flaw = format!(
                    "pair {at}: {} came where {due} was due; record {} of epoch {}, {} bytes",
                    number(m.bytes()),
                    m.seq(),
                    m.epoch(),
                    m.bytes().len()
                );
                counts.flaw.lock().unwrap().get_or_insert(flaw);
            }
        });
    }
    let victim = open("victim", 0);
    let seen = Arc::clone(counts);
    victim.on_message(move |m| seen.seen.lock().unwrap().push(number(m.bytes())));
    let (web, chatty) = (open("web", 0), open("chatty", 0));
    let said = Rc::new(Cell::new(0_u64));
    let own = Arc::clone(counts);
    base.every(Duration::from_millis(1), move |timer| {
        if own.over.load(Ordering::Relaxed) {
            return timer.base().unwrap().stop();
        }
        if own.quiet.load(Ordering::Relaxed) {
            return;
        }
        for (at, to) in ["db", "cache"].into_iter().enumerate() {
            let next = own.sent[at].load(Ordering::Relaxed);
            if web.send(to, &next.to_le_bytes()).is_ok() {
                own.sent[at].store(next + 1, Ordering::Relaxed);
            }
        }
        said.set(said.get() + 1);
        if said.get().is_multiple_of(10) {
            // To nobody, or to a stranger: what becomes of it is not asked.
            let _ = chatty.send("c0", &[7; 100]);
        }
    });
    base.dispatch().unwrap();
}
