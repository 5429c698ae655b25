//! Readiness, wakes and the like.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use ringlane_api::fd::Fd;
use ringlane_api::reactor::{Op, Outcome, Ready, Token};

use crate::bench::{Bench, errno, parts};

fn poll(fd: &Fd, ready: Ready, multishot: bool, edge: bool) -> Op {
    Op::Poll { fd: fd.clone(), ready, multishot, edge }
}

fn ready(bench: &mut Bench, token: Token) -> (Ready, bool) {
    let completion = bench.next(token);
    match completion.result {
        Ok(Outcome::Ready(ready)) => (ready, completion.more),
        other => panic!("{other:?}"),
    }
}

pub fn a_one_shot_poll_reports_once(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let (token, _) = bench.push(poll(&ours, Ready::READ, false, false));
    assert!(bench.peek(token).is_none(), "nothing to read yet");
    theirs.write_all(b"x").expect("written");
    assert_eq!(ready(&mut bench, token), (Ready::READ, false));
    assert!(bench.peek(token).is_none());
    // It still holds, so the next one reports at once although no new edge comes.
    let (token, _) = bench.push(poll(&ours, Ready::READ, false, false));
    assert_eq!(ready(&mut bench, token), (Ready::READ, false));
    let (token, _) = bench.push(poll(&ours, Ready::WRITE, false, false));
    assert_eq!(ready(&mut bench, token), (Ready::WRITE, false));
    let (token, _) = bench.push(poll(&ours, Ready::READ, false, false));
    assert_eq!(ready(&mut bench, token), (Ready::READ, false));
}

pub fn a_level_poll_reports_while_it_holds(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let (token, id) = bench.push(poll(&ours, Ready::READ, true, false));
    theirs.write_all(b"xy").expect("written");
    for _ in 0..4 {
        assert_eq!(ready(&mut bench, token), (Ready::READ, true));
    }
    let mut reader = std::os::unix::net::UnixStream::from(
        ours.as_os().expect("the kernel's").try_clone_to_owned().expect("a copy"),
    );
    let mut room = [0; 16];
    assert_eq!(reader.read(&mut room).expect("bytes"), 2);
    bench.quiet_turns();
    bench.seen.clear();
    assert!(bench.peek(token).is_none(), "it holds no more");
    theirs.write_all(b"z").expect("written");
    assert_eq!(ready(&mut bench, token), (Ready::READ, true));
    bench.reactor.cancel(id);
    loop {
        let completion = bench.next(token);
        if !completion.more {
            assert_eq!(errno(completion.result), Some(nix::libc::ECANCELED));
            break;
        }
    }
    assert!(bench.peek(token).is_none());
}

pub fn an_edge_poll_reports_news_only(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let (token, _) = bench.push(poll(&ours, Ready::READ, true, true));
    assert!(bench.peek(token).is_none());
    theirs.write_all(b"x").expect("written");
    assert_eq!(ready(&mut bench, token), (Ready::READ, true));
    assert!(bench.peek(token).is_none(), "no news");
    theirs.write_all(b"y").expect("written");
    assert_eq!(ready(&mut bench, token), (Ready::READ, true));
}

pub fn an_edge_poll_tells_what_holds_already_once(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    theirs.write_all(b"xy").expect("written");
    let (token, id) = bench.push(poll(&ours, Ready::READ, true, true));
    assert_eq!(ready(&mut bench, token), (Ready::READ, true));
    assert!(bench.peek(token).is_none(), "no news");
    bench.reactor.cancel(id);
    bench.next(token);
    // The descriptor is known by now, and still readable.
    assert_eq!(bench.receive(&ours, 1), b"x");
    let (token, _) = bench.push(poll(&ours, Ready::READ, true, true));
    assert_eq!(ready(&mut bench, token), (Ready::READ, true));
    assert!(bench.peek(token).is_none(), "no news");
}

pub fn a_level_poll_for_room_waits_while_there_is_none(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let mut filler = std::os::unix::net::UnixStream::from(
        ours.as_os().expect("the kernel's").try_clone_to_owned().expect("a copy"),
    );
    let mut filled = 0;
    while let Ok(n) = filler.write(&[0; 65_536]) {
        filled += n;
    }
    let (token, _) = bench.push(poll(&ours, Ready::WRITE, true, false));
    assert!(bench.peek(token).is_none(), "it is full");
    let mut room = vec![0; filled];
    theirs.read_exact(&mut room).expect("what was filled in");
    for _ in 0..3 {
        assert_eq!(ready(&mut bench, token), (Ready::WRITE, true));
    }
}

pub fn a_hangup_is_reported_unasked(mut bench: Bench) {
    let (ours, theirs) = bench.half();
    let (token, _) = bench.push(poll(&ours, Ready::WRITE, true, true));
    assert_eq!(ready(&mut bench, token), (Ready::WRITE, true));
    drop(theirs);
    let (found, _) = ready(&mut bench, token);
    assert!(found.contains(Ready::HANGUP), "{found:?}");
}

pub fn several_polls_and_a_receive_share_a_descriptor(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let (one, _) = bench.push(poll(&ours, Ready::READ, false, false));
    let (two, _) = bench.push(poll(&ours, Ready::READ, true, true));
    theirs.write_all(b"x").expect("written");
    assert_eq!(ready(&mut bench, one), (Ready::READ, false));
    assert_eq!(ready(&mut bench, two), (Ready::READ, true));
    assert_eq!(bench.receive(&ours, 1), b"x");
    let (receive, _) = bench.push(Op::Recv { fd: ours, limit: 100 });
    bench.quiet_turns();
    theirs.write_all(b"y").expect("written");
    assert_eq!(ready(&mut bench, two), (Ready::READ, true));
    assert!(matches!(bench.next(receive).result, Ok(Outcome::Received(_))));
}

pub fn a_regular_file_is_always_ready(mut bench: Bench) {
    let path = std::env::current_exe().expect("a path");
    let file = std::fs::File::open(path).expect("readable");
    let file = bench.sys().adopt(OwnedFd::from(file)).expect("taken in");
    let (token, _) = bench.push(poll(&file, Ready::READ, false, false));
    assert_eq!(ready(&mut bench, token), (Ready::READ, false));
    let (token, _) = bench.push(poll(&file, Ready::READ | Ready::WRITE, true, false));
    for _ in 0..3 {
        assert_eq!(ready(&mut bench, token), (Ready::READ | Ready::WRITE, true));
    }
}

pub fn a_wake_from_another_thread_ends_an_endless_wait(mut bench: Bench) {
    for round in 0..50u64 {
        let waker = bench.reactor.waker();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(round * 40));
            waker.wake();
        });
        // Without a bound: a lost wake hangs, and the watchdog of the suite ends it.
        bench.reactor.turn(None, &mut bench.seen).expect("a turn");
        thread.join().expect("it woke");
        bench.quiet_turns();
    }
}

pub fn a_wake_before_the_turn_is_not_lost(mut bench: Bench) {
    for _ in 0..10 {
        bench.reactor.waker().wake();
        bench.reactor.turn(None, &mut bench.seen).expect("a turn");
    }
}

pub fn a_nop_completes(mut bench: Bench) {
    assert!(matches!(bench.run(Op::Nop), Ok(Outcome::Done)));
}

pub fn work_that_never_ends_does_not_keep_events_out(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let (token, _) = bench.push(Op::Recv { fd: ours, limit: 100 });
    bench.quiet_turns();
    theirs.write_all(b"x").expect("written");
    for _ in 0..20 {
        bench.push(Op::Nop);
        bench.turn();
    }
    assert!(bench.seen.iter().any(|one| one.token == token));
}

pub fn a_turn_is_bounded_and_a_firehose_starves_nobody(mut bench: Bench) {
    let (ours, mut firehose) = bench.half();
    let stop = std::thread::spawn(move || {
        let bytes = vec![1; 64 * 1024];
        while firehose.write_all(&bytes).is_ok() {}
    });
    let (a, b) = bench.pair();
    let (flood, _) = bench.push(Op::Recv { fd: ours.clone(), limit: u32::MAX });
    for _ in 0..20 {
        bench.run(Op::Send { fd: a.clone(), parts: parts(b"trickle") }).expect("sent");
        assert_eq!(bench.receive(&b, 7), b"trickle");
        let before = bench.seen.len();
        bench.turn();
        let turn = bench.seen.len() - before;
        assert!(turn <= ringlane_api::limits::TURN_COMPLETIONS_MAX + 64, "{turn} in one turn");
        bench.seen.retain(|one| one.token != flood);
    }
    bench.run(Op::Close { fd: ours }).expect("closed");
    bench.seen.clear();
    drop(bench);
    stop.join().expect("its peer is gone");
}
