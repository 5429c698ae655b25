//! Memory files, words to sleep on, counters, pidfds.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use ringlane_api::fd::Fd;
use ringlane_api::reactor::{Op, OpId, Outcome, Place, Ready, SharedWord, Token};

use crate::bench::{Bench, errno};

#[derive(Debug)]
struct Word(AtomicU32);

impl SharedWord for Word {
    fn word(&self) -> &AtomicU32 {
        &self.0
    }
    fn place(&self) -> Place {
        Place { file: 0, offset: 0 }
    }
}

fn word(value: u32) -> Rc<Word> {
    Rc::new(Word(AtomicU32::new(value)))
}

/// Waits on the word, or says that this engine cannot and refuses as it should.
fn wait(bench: &mut Bench, word: &Rc<Word>, expected: u32) -> Option<(Token, OpId)> {
    let op = Op::FutexWait { word: Rc::clone(word) as Rc<dyn SharedWord>, expected };
    let (token, id) = bench.push(op);
    if bench.reactor.waits_on_words() {
        return Some((token, id));
    }
    let refused = bench.next(token).result.expect_err("it says that it cannot");
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    assert_eq!(Rc::strong_count(word), 1);
    None
}

pub fn a_word_that_differs_lets_nobody_sleep(mut bench: Bench) {
    let word = word(5);
    let Some((token, _)) = wait(&mut bench, &word, 4) else { return };
    assert!(matches!(bench.next(token).result, Ok(Outcome::Done)));
    assert_eq!(Rc::strong_count(&word), 1, "the op lets go of it at its end");
}

pub fn a_rung_word_ends_the_wait_and_one_that_was_rung_before_does_not(mut bench: Bench) {
    let word = word(1);
    assert_eq!(bench.sys().futex_wake(&*word).expect("nobody is there"), 0);
    let Some((token, _)) = wait(&mut bench, &word, 1) else { return };
    assert!(bench.peek(token).is_none(), "it sleeps");
    word.0.store(0, Ordering::SeqCst);
    assert!(bench.peek(token).is_none(), "a changed word alone wakes nobody");
    assert_eq!(bench.sys().futex_wake(&*word).expect("woken"), 1);
    assert!(matches!(bench.next(token).result, Ok(Outcome::Done)));
}

pub fn a_cancelled_wait_lets_go_of_its_word(mut bench: Bench) {
    let word = word(1);
    let Some((token, id)) = wait(&mut bench, &word, 1) else { return };
    assert!(bench.peek(token).is_none());
    assert_eq!(Rc::strong_count(&word), 2);
    bench.reactor.cancel(id);
    let completion = bench.next(token);
    assert!(!completion.more);
    assert_eq!(errno(completion.result), Some(nix::libc::ECANCELED));
    assert_eq!(Rc::strong_count(&word), 1);
    assert_eq!(bench.sys().futex_wake(&*word).expect("a call"), 0, "nobody is left behind");
}

pub fn a_dropped_reactor_lets_go_of_its_words(mut bench: Bench) {
    let word = word(1);
    if wait(&mut bench, &word, 1).is_none() {
        return;
    }
    bench.turn();
    drop(bench);
    assert_eq!(Rc::strong_count(&word), 1);
}

pub fn a_memory_file_has_its_size_and_its_seals_for_ever(mut bench: Bench) {
    let fd = bench.sys().memory(12_288).expect("memory");
    let found = bench.sys().memory_of(&fd).expect("a look");
    assert!(found.sealed && found.plain && found.bytes == 12_288, "{found:?}");
    let os = fd.as_os().expect("the kernel's").try_clone_to_owned().expect("a copy");
    for size in [0, 4096, 1 << 20] {
        let refused = nix::unistd::ftruncate(&os, size).expect_err("it is sealed");
        assert_eq!(refused, nix::errno::Errno::EPERM);
    }
    // All of it is there: who touches it meets no page that cannot be had any more.
    let blocks = std::fs::File::from(os).metadata().expect("a look").blocks();
    assert!(blocks * 512 >= 12_288, "{blocks} blocks of 512 bytes");
    let other = bench.sys().memory(4096).expect("memory");
    assert_ne!(bench.sys().memory_of(&other).expect("a look").id, found.id);
}

pub fn what_is_no_sealed_memory_is_told(mut bench: Bench) {
    let path = std::env::temp_dir().join(crate::bench::unique());
    let file = std::fs::File::create(&path).expect("a file");
    std::fs::remove_file(&path).expect("removed");
    let file = bench.sys().adopt(file.into()).expect("taken in");
    assert!(!bench.sys().memory_of(&file).expect("a look").sealed);
    let (ours, _theirs) = bench.half();
    assert!(!bench.sys().memory_of(&ours).expect("a look").sealed);
}

pub fn a_rung_counter_is_news_each_time(mut bench: Bench) {
    let event = bench.sys().event().expect("a counter");
    let op = Op::Poll { fd: event.clone(), ready: Ready::READ, multishot: true, edge: true };
    let (token, _) = bench.push(op);
    assert!(bench.peek(token).is_none());
    for _ in 0..3 {
        bench.sys().ring(&event).expect("rung");
        let completion = bench.next(token);
        assert!(matches!(completion.result, Ok(Outcome::Ready(Ready::READ))));
        assert!(bench.peek(token).is_none(), "and it is news once");
    }
}

/// A stranger fills the counter and makes writing to it wait: whoever rings it does not, and
/// whoever polls it hears of each ring. What is no counter is told.
pub fn a_counter_in_a_strangers_hands_is_rung_without_waiting(mut bench: Bench) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let event = bench.sys().event().expect("a counter");
    let stranger = event.as_os().expect("the kernel's").try_clone_to_owned().expect("a copy");
    fcntl(&stranger, FcntlArg::F_SETFL(OFlag::empty())).expect("it may wait from now on");
    let op = Op::Poll { fd: event.clone(), ready: Ready::READ, multishot: true, edge: true };
    let (token, _) = bench.push(op);
    for fill in [false, true] {
        if fill {
            let full = (u64::MAX - 101).to_ne_bytes();
            nix::unistd::write(&stranger, &full).expect("there is room for it");
            bench.next(token);
        }
        // More often than answers are kept for.
        for _ in 0..100 {
            match bench.sys().ring_shared(&event) {
                Ok(()) => {}
                // No asynchronous reads here: a kernel without them, or seccomp.
                Err(error) => return assert_eq!(error.kind(), std::io::ErrorKind::Unsupported),
            }
            let completion = bench.next(token);
            let Ok(Outcome::Ready(ready)) = completion.result else { panic!("{completion:?}") };
            assert!(ready.contains(Ready::READ));
        }
    }
    let file = bench.sys().memory(4096).expect("memory");
    let refused = bench.sys().ring_shared(&file).expect_err("it is no counter");
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
}

pub fn the_pidfd_of_a_living_peer_is_quiet(mut bench: Bench) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    // The socket's peer is this process: its own pidfd is not readable.
    let ours = bench.sys().adopt(OwnedFd::from(ours)).expect("taken in");
    let pidfd: Fd = match bench.sys().pidfd(&ours) {
        Ok(pidfd) => pidfd,
        // KERNEL 6.5: SO_PEERPIDFD.
        Err(error) => return assert_eq!(error.raw_os_error(), Some(nix::libc::ENOPROTOOPT)),
    };
    let op = Op::Poll { fd: pidfd, ready: Ready::READ, multishot: false, edge: false };
    let (token, id) = bench.push(op);
    assert!(bench.peek(token).is_none(), "we live");
    bench.reactor.cancel(id);
    assert_eq!(errno(bench.next(token).result), Some(nix::libc::ECANCELED));
    drop(theirs);
}
