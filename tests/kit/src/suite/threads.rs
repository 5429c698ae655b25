//! Other threads, other bases, other processes.

use std::rc::Rc;
use std::sync::mpsc::channel;
use std::thread;

use ringlane_api::{EventBase, READ, Turn};

use super::stage::{Stage, Tap, cell};
use super::{Outcome, Rig, cases, skip};

cases! {
    "another thread's errands run on the loop's thread, in order" => errands,
    "a remote handle outlives its base and says so" => orphan,
    "another thread can stop the loop" => remote_stop,
    "two bases in two threads do not disturb each other" => two_threads,
    "two bases in one thread talk to each other" => two_bases,
    "a forked child goes on with a base of its own" => forked,
    "a killed peer is an end" => killed_peer,
}

thread_local! {
    static SEEN: std::cell::RefCell<Vec<u32>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn errands(rig: &Rig) -> Outcome {
    be_patient(rig);
    let stage = Stage::new(rig);
    let _keeps_it_going = stage.echo();
    let remote = stage.base.remote();
    let home = thread::current().id();
    let sender = thread::spawn(move || {
        for n in 0..1_000 {
            let errand = move |base: &EventBase| {
                assert_eq!(thread::current().id(), home);
                SEEN.with_borrow_mut(|seen| seen.push(n));
                if n == 999 {
                    base.stop();
                }
            };
            remote.run(errand).expect("the base is there");
            if n % 100 == 0 {
                thread::yield_now();
            }
        }
    });
    stage.base.dispatch().expect("the last errand stops it");
    sender.join().expect("the sender does not panic");
    SEEN.with_borrow(|seen| assert!(seen.iter().copied().eq(0..1_000), "out of order"));
    Outcome::Pass
}

fn be_patient(rig: &Rig) {
    if let Some(patient) = rig.tools.patient {
        patient();
    }
}

fn orphan(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let remote = stage.base.remote();
    remote.run(|_| {}).expect("the base is there");
    drop(stage);
    let error = remote.run(|_| {}).expect_err("the base is gone");
    assert!(!error.to_string().is_empty());
    assert!(remote.stop().is_err());
    Outcome::Pass
}

fn remote_stop(rig: &Rig) -> Outcome {
    be_patient(rig);
    let stage = Stage::new(rig);
    let _keeps_it_going = stage.echo();
    let remote = stage.base.remote();
    let stopper = thread::spawn(move || remote.stop());
    stage.base.dispatch().expect("the other thread stops it");
    stopper.join().expect("no panic").expect("the base is there");
    Outcome::Pass
}

fn play(rig: &Rig) -> usize {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let client = stage.connect(&server);
    let bytes = super::Pattern::new(6).bytes(0, 500_000);
    client.output().add(&bytes);
    let tap = Tap::on(&client);
    stage.until("the bytes are back", || tap.len() == bytes.len() || tap.ended());
    usize::from(tap.bytes() == bytes)
}

fn two_threads(rig: &Rig) -> Outcome {
    let (other, mine) = (rig.clone(), rig.clone());
    let twin = thread::spawn(move || (0..5).map(|_| play(&other)).sum::<usize>());
    let here = (0..5).map(|_| play(&mine)).sum::<usize>();
    let there = twin.join().expect("the twin does not panic");
    assert_eq!((here, there), (5, 5));
    if !rig.real {
        return Outcome::Pass;
    }
    // And with each other.
    let (tell, told) = channel();
    let server_rig = rig.clone();
    let server = thread::spawn(move || {
        let stage = Stage::new(&server_rig);
        let listener = stage.echo();
        let told = (listener.address().to_string(), stage.base.remote());
        tell.send(told).expect("the other side waits");
        stage.base.dispatch().expect("it is stopped");
    });
    let (at, remote) = told.recv().expect("the server listens");
    let stage = Stage::new(rig);
    let client = stage.base.connect(&at).expect("the address is valid");
    client.output().add(&[9; 200_000]);
    let tap = Tap::on(&client);
    stage.until("the bytes are back", || tap.len() == 200_000 || tap.ended());
    assert_eq!(tap.len(), 200_000);
    remote.stop().expect("the server is there");
    server.join().expect("the server does not panic");
    Outcome::Pass
}

fn two_bases(rig: &Rig) -> Outcome {
    let (near, far) = (Stage::new(rig), Stage::new(rig));
    let server = far.echo();
    let client = near.base.connect(server.address().to_string()).expect("the address is valid");
    let bytes = super::Pattern::new(7).bytes(0, 300_000);
    client.output().add(&bytes);
    let tap = Tap::on(&client);
    while tap.len() < bytes.len() && !tap.ended() {
        near.base.turn(Turn::NoWait).expect("a turn works");
        far.base.turn(Turn::NoWait).expect("a turn works");
    }
    assert!(tap.bytes() == bytes);
    // One of them goes; the other notices and stays sound.
    drop(far);
    near.until("the end is told", || tap.ended());
    Outcome::Pass
}

fn forked(rig: &Rig) -> Outcome {
    let Some(in_child) = rig.tools.in_child else { return skip("no fork in this row") };
    let stage = Stage::new(rig);
    let server = stage.echo();
    let client = stage.connect(&server);
    client.output().add(b"before");
    let tap = Tap::on(&client);
    stage.until("the bytes are back", || tap.len() == 6);
    // Of two processes that wait on one listener the kernel wakes one, so the parent steps aside.
    server.disable();
    stage.idle(5);
    // A pair is of Unix sockets, which not every build takes.
    let pair = stage.base.schemes().contains(&"unix").then(|| {
        let (here, there) = stage.base.pair().expect("a pair can be made");
        there.on_read(|c| c.output().append(c.input()));
        there.enable(READ);
        let at_here = Tap::on(&here);
        (here, there, at_here)
    });
    stage.idle(5);
    let well = in_child(&mut || {
        stage.base.reinit().expect("the child gets a kernel side of its own");
        // A receive that was armed before the fork is armed again, and the inherited listener
        // serves.
        pair.iter().for_each(|(here, ..)| here.output().add(b"armed again"));
        server.enable();
        let dial = stage.connect(&server);
        dial.output().add(b"in the child");
        let at_dial = Tap::on(&dial);
        let fired = cell(false);
        let set = Rc::clone(&fired);
        stage.base.once(std::time::Duration::from_millis(5), move |_| set.set(true));
        let at_here = |len: usize| pair.iter().all(|(.., at_here)| at_here.len() == len);
        let all = || at_dial.len() == 12 && at_here(11) && fired.get();
        stage.until("the child's bytes are back", all);
        let again = |at_here: &Tap| at_here.bytes() == b"armed again";
        at_dial.bytes() == b"in the child" && pair.iter().all(|(.., at_here)| again(at_here))
    });
    assert!(well.expect("the child can be waited for"), "the child failed");
    server.enable();
    client.output().add(b" after");
    stage.until("the parent goes on", || tap.len() == 12);
    Outcome::Pass
}

fn killed_peer(rig: &Rig) -> Outcome {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};
    if !rig.real || !rig.is("unix") {
        return skip("a peer process gets its end of a Unix socket pair");
    }
    let stage = Stage::new(rig);
    let (ours, theirs) = UnixStream::pair().expect("a pair can be made");
    let theirs: OwnedFd = theirs.into();
    let copy = theirs.try_clone().expect("a descriptor is left");
    let started = Command::new("cat").stdin(Stdio::from(theirs)).stdout(Stdio::from(copy)).spawn();
    let Ok(mut peer) = started else { return skip("there is no `cat` here") };
    let conn = stage.base.from_fd(ours).expect("a socket becomes a bufferevent");
    conn.output().add(b"meow");
    let tap = Tap::on(&conn);
    stage.until("the peer answers", || tap.len() == 4);
    peer.kill().expect("it is our child");
    peer.wait().expect("it is our child");
    stage.until("the end is told", || tap.ended());
    Outcome::Pass
}
