//! A base may be taken through a fork. A program of its own, because a forked child holds copies
//! of every descriptor of the cases that run beside it.

mod bench;

use std::io::Write;
use std::time::Duration;

use nix::libc;
use ringlane_api::reactor::{Op, Outcome};

use bench::{Bench, parts};

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

fn a_forked_child_receives_and_its_parents_sends_are_the_parents(mut bench: Bench) {
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

fn a_signal_in_a_child_is_not_the_parents(mut bench: Bench) {
    let number = libc::SIGWINCH;
    let fd = bench.sys().signal(number).expect("registered");
    in_a_child(|| {
        bench.reactor.reinit().expect("a kernel side of its own");
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGWINCH).expect("raised");
        assert_eq!(bench.sys().drain(&fd).expect("drained"), 1);
    });
    assert_eq!(bench.sys().drain(&fd).expect("drained"), 0);
}

macro_rules! forks {
    ($name:ident, $engine:expr) => {
        mod $name {
            use ringlane_reactor::Engine;

            #[test]
            fn a_forked_child_receives_and_its_parents_sends_are_the_parents() {
                if let Some(bench) = crate::bench::open($engine, None) {
                    crate::a_forked_child_receives_and_its_parents_sends_are_the_parents(bench);
                }
            }

            #[test]
            fn a_signal_in_a_child_is_not_the_parents() {
                if let Some(bench) = crate::bench::open($engine, None) {
                    crate::a_signal_in_a_child_is_not_the_parents(bench);
                }
            }
        }
    };
}

forks!(epoll, Engine::Epoll);

#[cfg(feature = "uring")]
forks!(uring_u1, Engine::Tier(1));
#[cfg(feature = "uring")]
forks!(uring_u5, Engine::Tier(5));
