//! How ops end: cancelled, closed, forked, dropped.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::time::Duration;

use nix::libc;
use ringlane_api::reactor::{Op, Outcome, Ready};

use super::{Bench, errno, parts};

pub fn a_cancelled_receive_completes_once(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let (token, id) = bench.push(Op::Recv { fd: ours.clone(), limit: 100 });
    bench.quiet_turns();
    bench.reactor.cancel(id);
    let completion = bench.next(token);
    assert!(!completion.more);
    assert_eq!(errno(completion.result), Some(libc::ECANCELED));
    bench.reactor.cancel(id);
    theirs.write_all(b"kept").expect("written");
    assert!(bench.peek(token).is_none(), "one last completion");
    assert_eq!(bench.receive(&ours, 4), b"kept");
}

pub fn a_stale_cancel_does_not_hit_the_next_op(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let (token, old) = bench.push(Op::Nop);
    bench.next(token);
    let (token, _) = bench.push(Op::Recv { fd: ours, limit: 100 });
    bench.reactor.cancel(old);
    bench.quiet_turns();
    theirs.write_all(b"x").expect("written");
    assert!(matches!(bench.next(token).result, Ok(Outcome::Received(_))));
}

pub fn a_cancelled_send_gives_its_memory_back(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let (token, id) = bench.push(Op::Send { fd: ours.clone(), parts: parts(&vec![1; 4_000_000]) });
    assert!(bench.peek(token).is_none(), "nobody reads");
    bench.reactor.cancel(id);
    let completion = bench.next(token);
    assert_eq!(errno(completion.result), Some(libc::ECANCELED));
    assert_eq!(completion.parts.expect("the memory").len(), 4_000_000);
    drop(ours);
    let mut rest = Vec::new();
    theirs.read_to_end(&mut rest).expect("what had gone out");
    assert!(rest.len() < 4_000_000);
}

pub fn a_close_cancels_what_is_armed_and_ends_the_stream(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let (receive, _) = bench.push(Op::Recv { fd: ours.clone(), limit: 100 });
    let (watch, _) =
        bench.push(Op::Poll { fd: ours.clone(), ready: Ready::READ, multishot: true, edge: true });
    bench.quiet_turns();
    let (close, _) = bench.push(Op::Close { fd: ours });
    assert!(matches!(bench.next(close).result, Ok(Outcome::Done)));
    for token in [receive, watch] {
        let at = bench.seen.iter().position(|one| one.token == token);
        let completion = bench.seen.remove(at.expect("it ended before the close"));
        assert!(!completion.more && completion.result.is_err());
    }
    let mut rest = Vec::new();
    assert_eq!(theirs.read_to_end(&mut rest).expect("the end"), 0);
}

pub fn a_reused_number_gets_no_stale_event(mut bench: Bench) {
    for _ in 0..20 {
        let (ours, mut theirs) = bench.half();
        let number = ours.number();
        let (token, _) = bench.push(Op::Recv { fd: ours.clone(), limit: 100 });
        bench.quiet_turns();
        // The event is on its way when the descriptor goes; a copy keeps the old file alive.
        let copy = ours.as_os().expect("the kernel's").try_clone_to_owned().expect("a copy");
        theirs.write_all(b"old").expect("written");
        bench.run(Op::Close { fd: ours }).expect("closed");
        let (fresh, peer) = bench.half();
        bench.seen.retain(|one| one.token != token);
        let (token, id) = bench.push(Op::Recv { fd: fresh.clone(), limit: 100 });
        let (watch, _) = bench.push(Op::Poll {
            fd: fresh.clone(),
            ready: Ready::READ,
            multishot: true,
            edge: false,
        });
        theirs.write_all(b"older").expect("written");
        bench.quiet_turns();
        assert!(bench.seen.is_empty(), "{number} → {}: {:?}", fresh.number(), bench.seen);
        bench.reactor.cancel(id);
        assert_eq!(errno(bench.next(token).result), Some(libc::ECANCELED));
        bench.run(Op::Close { fd: fresh }).expect("closed");
        assert!(bench.next(watch).result.is_err());
        drop((copy, peer));
    }
}

pub fn a_dropped_reactor_leaves_no_descriptor_and_no_block(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let (other, _other_peer) = bench.half();
    bench.push(Op::Recv { fd: ours.clone(), limit: 100 });
    bench.push(Op::Send { fd: ours, parts: parts(&vec![1; 4_000_000]) });
    bench.push(Op::RecvMsg { fd: other, limit: 100 });
    bench.quiet_turns();
    let home = std::rc::Rc::clone(bench.reactor.home());
    drop(bench);
    assert_eq!(home.out(), 0);
    // The end comes only if the reactor held nothing open.
    let mut rest = Vec::new();
    let _ = theirs.read_to_end(&mut rest);
}

pub fn a_failed_wait_is_an_empty_turn(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    for byte in 0..40u8 {
        let (token, _) = bench.push(Op::Recv { fd: ours.clone(), limit: 1 });
        bench.turn();
        theirs.write_all(&[byte]).expect("written");
        let Ok(Outcome::Received(got)) = bench.next(token).result else { panic!("no byte") };
        assert_eq!(got.bytes(), [byte]);
    }
    assert!(bench.reactor.counters().enter_errors > 0, "waits did fail");
}

/// Runs `child` in a forked process and waits for its verdict.
fn in_a_child(child: impl FnOnce()) {
    // SAFETY: the child runs only the test's own code over the reactor and ends with _exit; no
    // lock of another thread is needed there (glibc makes its allocator usable after a fork).
    match unsafe { nix::unistd::fork() }.expect("a fork") {
        nix::unistd::ForkResult::Child => {
            let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            let code = i32::from(verdict.is_err());
            // SAFETY: it ends this process without running anything of the parent's.
            unsafe { libc::_exit(code) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
            for _ in 0..3000 {
                match waitpid(child, Some(WaitPidFlag::WNOHANG)).expect("our child") {
                    WaitStatus::StillAlive => std::thread::sleep(Duration::from_millis(10)),
                    WaitStatus::Exited(_, code) => return assert_eq!(code, 0, "the child's"),
                    other => panic!("the child ended with {other:?}"),
                }
            }
            let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
            panic!("the child hangs");
        }
    }
}

pub fn a_forked_child_receives_and_its_parents_sends_are_the_parents(mut bench: Bench) {
    let (ours, mut theirs) = bench.half();
    let (blocked, _reader) = bench.half();
    let (receive, _) = bench.push(Op::Recv { fd: ours.clone(), limit: 100 });
    let (send, _) = bench.push(Op::Send { fd: blocked, parts: parts(&vec![1; 4_000_000]) });
    bench.quiet_turns();
    in_a_child(|| {
        bench.reactor.reinit().expect("a kernel side of its own");
        let completion = bench.next(send);
        let error = completion.result.expect_err("it is the parent's").to_string();
        assert!(error.contains("forked"), "{error}");
        assert!(completion.parts.is_some());
        theirs.write_all(b"to the child").expect("written");
        let Ok(Outcome::Received(got)) = bench.next(receive).result else { panic!("no bytes") };
        assert_eq!(got.bytes(), b"to the child");
        bench.reactor.waker().wake();
        bench.reactor.turn(None, &mut bench.seen).expect("the waker rings here");
        let found = bench.run(Op::Resolve { host: "localhost".into(), port: 1 });
        assert!(matches!(found, Ok(Outcome::Addresses(_))), "{found:?}");
    });
    theirs.write_all(b"to the parent").expect("written");
    let Ok(Outcome::Received(got)) = bench.next(receive).result else { panic!("no bytes") };
    assert_eq!(got.bytes(), b"to the parent");
}

pub fn a_signal_in_a_child_is_not_the_parents(mut bench: Bench) {
    let number = libc::SIGWINCH;
    let fd = bench.sys().signal(number).expect("registered");
    in_a_child(|| {
        bench.reactor.reinit().expect("a kernel side of its own");
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGWINCH).expect("raised");
        assert_eq!(bench.sys().drain(&fd).expect("drained"), 1);
    });
    assert_eq!(bench.sys().drain(&fd).expect("drained"), 0);
}
