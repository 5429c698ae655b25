//! Host names, looked up off the loop.
//!
//! `getaddrinfo` waits for the network, so it runs on threads that live as long as there is work.
//! Invariant: at most [`THREADS_MAX`] of them, whoever asks how often; a name server that does
//! not answer holds the queue, never the loop.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringlane_api::reactor::{OpId, Wake};

/// Look-ups at a time.
const THREADS_MAX: usize = 4;

/// Who asked, and what was found.
pub(crate) type Answer = (OpId, io::Result<Vec<SocketAddr>>);

struct Question {
    id: OpId,
    host: String,
    port: u16,
}

#[derive(Default)]
struct Desk {
    questions: VecDeque<Question>,
    answers: Vec<Answer>,
    threads: usize,
}

struct Shared {
    desk: Mutex<Desk>,
    /// SYNC: answered. Set behind each answer, so that a loop without answers takes no lock.
    answered: AtomicBool,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing panics while it is held; a poisoned desk is still in order.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks names up on threads of its own.
pub(crate) struct Resolver {
    shared: Arc<Shared>,
    waker: Arc<dyn Wake>,
}

impl Resolver {
    /// A resolver that wakes its loop when an answer is there.
    pub(crate) fn new(waker: Arc<dyn Wake>) -> Resolver {
        let shared = Shared { desk: Mutex::default(), answered: AtomicBool::new(false) };
        Resolver { shared: Arc::new(shared), waker }
    }

    /// Asks. The answer comes out of [`Resolver::answers`].
    pub(crate) fn ask(&mut self, id: OpId, host: String, port: u16) {
        let mut desk = self.shared.desk();
        // A literal needs no thread.
        if let Ok(literal) = host.parse::<IpAddr>() {
            desk.answers.push((id, Ok(vec![SocketAddr::new(literal, port)])));
            self.shared.answered.store(true, Ordering::Release);
            return;
        }
        desk.questions.push_back(Question { id, host, port });
        if desk.threads >= THREADS_MAX {
            return;
        }
        let (shared, waker) = (Arc::clone(&self.shared), Arc::clone(&self.waker));
        let thread = std::thread::Builder::new().name("ringlane-resolve".into());
        match thread.spawn(move || work(&shared, &*waker)) {
            Ok(_) => desk.threads += 1,
            // Another thread will come to it; without any it fails as the spawn did.
            Err(_) if desk.threads > 0 => {}
            Err(error) => {
                desk.questions.pop_back();
                desk.answers.push((id, Err(error)));
                self.shared.answered.store(true, Ordering::Release);
            }
        }
    }

    /// Withdraws a question that nobody has begun with.
    pub(crate) fn withdraw(&mut self, id: OpId) {
        self.shared.desk().questions.retain(|question| question.id != id);
    }

    /// Whether there are answers to take.
    pub(crate) fn has_answers(&self) -> bool {
        self.shared.answered.load(Ordering::Acquire)
    }

    /// Takes the answers that are there.
    pub(crate) fn answers(&mut self) -> Vec<Answer> {
        if !self.shared.answered.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.shared.desk().answers)
    }

    /// In a forked child: the threads stayed with the parent, one of them perhaps with the lock.
    pub(crate) fn after_fork(&mut self) {
        let fresh = Resolver::new(Arc::clone(&self.waker));
        // Dropping the old one would take that lock.
        std::mem::forget(std::mem::replace(self, fresh));
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // The threads end with the name they are at.
        self.shared.desk().questions.clear();
    }
}

fn work(shared: &Shared, waker: &dyn Wake) {
    loop {
        let question = {
            let mut desk = shared.desk();
            match desk.questions.pop_front() {
                Some(question) => question,
                None => {
                    desk.threads -= 1;
                    return;
                }
            }
        };
        let answer = look_up(&question.host, question.port);
        shared.desk().answers.push((question.id, answer));
        shared.answered.store(true, Ordering::Release);
        waker.wake();
    }
}

fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    if found.is_empty() {
        let what = format!("`{host}` stands for no address");
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    Ok(found)
}
