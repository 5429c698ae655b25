//! How ops end: cancelled, closed, dropped.

use std::io::{Read, Write};

use nix::libc;
use ringlane_api::reactor::{Op, Outcome, Ready};

use crate::bench::{Bench, errno, parts};

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

pub fn a_descriptor_dropped_without_a_close_is_forgotten(mut bench: Bench) {
    for _ in 0..10 {
        let (ours, mut theirs) = bench.half();
        let (token, id) = bench.push(Op::Recv { fd: ours.clone(), limit: 100 });
        bench.quiet_turns();
        bench.reactor.cancel(id);
        bench.next(token);
        let copy = ours.as_os().expect("the kernel's").try_clone_to_owned().expect("a copy");
        drop(ours);
        theirs.write_all(b"to nobody").expect("written");
        bench.quiet_turns();
        theirs.write_all(b"to nobody").expect("written");
        bench.quiet_turns();
        assert!(bench.seen.is_empty());
        // The copy is the same open file under another number.
        let again = bench.sys().adopt(copy).expect("taken in");
        assert_eq!(bench.receive(&again, 18), b"to nobodyto nobody");
    }
}

pub fn a_number_taken_over_from_a_living_copy_gets_no_stale_event(mut bench: Bench) {
    let (ours, mut old) = bench.half();
    let (token, id) = bench.push(Op::Recv { fd: ours.clone(), limit: 100 });
    bench.quiet_turns();
    bench.reactor.cancel(id);
    bench.next(token);
    let copy = ours.as_os().expect("the kernel's").try_clone_to_owned().expect("a copy");
    // Another open file takes the number over, whoever else opens files meanwhile.
    let (fresh, _peer) = bench.half();
    let mut number = ours.into_os().expect("the only holder");
    let fresh = fresh.into_os().expect("the only holder");
    nix::unistd::dup2(&fresh, &mut number).expect("taken over");
    let ours = bench.sys().adopt(number).expect("taken in");
    let (watch, _) =
        bench.push(Op::Poll { fd: ours, ready: Ready::READ, multishot: true, edge: true });
    bench.quiet_turns();
    old.write_all(b"for the copy").expect("written");
    bench.quiet_turns();
    assert!(bench.peek(watch).is_none());
    drop((copy, fresh));
}

pub fn a_descriptor_given_away_and_taken_in_again_goes_on(mut bench: Bench) {
    let (mut ours, mut theirs) = bench.half();
    for _ in 0..5 {
        theirs.write_all(b"abc").expect("written");
        assert_eq!(bench.receive(&ours, 3), b"abc");
        let fd = ours.into_os().expect("the only holder");
        ours = bench.sys().adopt(fd).expect("taken in");
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
