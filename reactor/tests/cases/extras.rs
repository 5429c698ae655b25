//! Descriptors, files, names, signals: what goes beside the bytes.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::reactor::{Occupant, Op, Outcome, Ready};
use ringlane_api::segment::Segment;

use crate::bench::{Bench, parts, pattern, unique};

fn file(bytes: &[u8]) -> File {
    let path = std::env::temp_dir().join(format!("ringlane-file-{}", unique()));
    let mut file =
        File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
    std::fs::remove_file(&path).expect("it has no name any more");
    file.write_all(bytes).expect("written");
    file.rewind().expect("seekable");
    file
}

pub fn descriptors_arrive_with_the_bytes_they_were_sent_with(mut bench: Bench) {
    let (a, b) = bench.pair();
    let mut wrapped = Vec::new();
    for text in [&b"one"[..], b"two"] {
        wrapped.push(Fd::from_os(OwnedFd::from(file(text)), FdKind::File));
    }
    let sent =
        bench.run(Op::SendMsg { fd: a.clone(), parts: parts(b"here you are"), fds: wrapped });
    assert!(matches!(sent, Ok(Outcome::Sent(_))), "{sent:?}");
    bench.run(Op::Send { fd: a.clone(), parts: parts(b"and more") }).expect("sent");
    let (mut bytes, mut got) = (Vec::new(), Vec::new());
    while bytes.len() < 20 {
        let message = bench.run(Op::RecvMsg { fd: b.clone(), limit: 1000 });
        let Ok(Outcome::Message(message)) = message else { panic!("{message:?}") };
        assert!(!message.truncated);
        bytes.extend_from_slice(message.segment.bytes());
        got.extend(message.fds);
    }
    assert_eq!(bytes, b"here you areand more");
    let mut texts = Vec::new();
    for fd in got {
        assert_eq!(fd.kind(), FdKind::File);
        let mut text = String::new();
        let mut file = File::from(fd.into_os().expect("the only holder"));
        file.read_to_string(&mut text).expect("readable");
        texts.push(text);
    }
    assert_eq!(texts, ["one", "two"]);
    drop(a);
    assert!(matches!(bench.run(Op::RecvMsg { fd: b, limit: 10 }), Ok(Outcome::Eof)));
}

pub fn bytes_behind_unwanted_descriptors_still_arrive(mut bench: Bench) {
    let (a, b) = bench.pair();
    for round in 0..5 {
        // All of it waits before anything is read, so that no later arrival helps.
        for _ in 0..2 {
            let fds = vec![Fd::from_os(OwnedFd::from(file(b"x")), FdKind::File)];
            let op = Op::SendMsg { fd: a.clone(), parts: parts(b"with"), fds };
            bench.run(op).expect("sent");
        }
        bench.run(Op::Send { fd: a.clone(), parts: parts(b"without") }).expect("sent");
        let (token, id) = bench.push(Op::Recv { fd: b.clone(), limit: 1_000_000 });
        let mut got = 0;
        while got < 15 {
            let Ok(Outcome::Received(segment)) = bench.next(token).result else {
                panic!("no bytes in round {round}")
            };
            got += segment.len();
        }
        assert_eq!(got, 15);
        bench.reactor.cancel(id);
        assert!(!bench.next(token).more);
    }
}

pub fn a_file_range_is_sent_whole(mut bench: Bench) {
    let bytes = pattern(3_000_000);
    let file = bench.sys().adopt(OwnedFd::from(file(&bytes))).expect("taken in");
    let (ours, mut theirs) = bench.half();
    let expected = bytes[1000..2_900_000].to_vec();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        theirs.read_exact(&mut got).expect("bytes in time");
        assert!(got == expected);
    });
    let range = Segment::from_file(file, 1000, 2_899_000);
    let sent = bench.run(Op::SendFile { fd: ours, range });
    let Ok(Outcome::Sent(memory)) = sent else { panic!("{sent:?}") };
    assert_eq!(memory.len(), 2_899_000);
    reader.join().expect("it read everything");
}

pub fn a_file_that_ends_early_is_an_error(mut bench: Bench) {
    let file = bench.sys().adopt(OwnedFd::from(file(b"short"))).expect("taken in");
    let (ours, _theirs) = bench.half();
    let range = Segment::from_file(file, 0, 100);
    let (token, _) = bench.push(Op::SendFile { fd: ours, range });
    let completion = bench.next(token);
    let error = completion.result.expect_err("it is too short");
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(completion.parts.expect("the range").len(), 100);
}

pub fn a_file_is_read_at_a_place(mut bench: Bench) {
    let file = bench.sys().adopt(OwnedFd::from(file(b"0123456789"))).expect("taken in");
    let mut room = [0; 6];
    assert_eq!(bench.sys().read_at(&file, 2, &mut room).expect("read"), 6);
    assert_eq!(&room, b"234567");
    assert_eq!(bench.sys().read_at(&file, 8, &mut room).expect("read"), 2);
}

pub fn a_directory_is_not_taken_in(mut bench: Bench) {
    let directory = File::open(std::env::temp_dir()).expect("a directory");
    assert!(bench.sys().adopt(OwnedFd::from(directory)).is_err());
}

pub fn the_occupant_of_a_path_is_told(mut bench: Bench) {
    let path = std::env::temp_dir().join(format!("ringlane-occupant-{}", unique()));
    assert_eq!(bench.sys().occupant(&path).expect("told"), Occupant::Nobody);
    let listener = UnixListener::bind(&path).expect("bound");
    assert_eq!(bench.sys().occupant(&path).expect("told"), Occupant::Listening);
    drop(listener);
    assert_eq!(bench.sys().occupant(&path).expect("told"), Occupant::Stale);
    bench.sys().chmod(&path, 0o600).expect("changed");
    bench.sys().unlink(&path).expect("removed");
    std::fs::write(&path, b"text").expect("written");
    assert_eq!(bench.sys().occupant(&path).expect("told"), Occupant::NotASocket);
    bench.sys().unlink(&path).expect("removed");
}

pub fn the_peer_of_a_pair_is_ourselves(mut bench: Bench) {
    let (a, _b) = bench.pair();
    let peer = bench.sys().credentials(&a).expect("told");
    assert_eq!(peer.pid, std::process::id() as i32);
}

pub fn localhost_is_resolved_off_the_loop(mut bench: Bench) {
    let found = bench.run(Op::Resolve { host: "localhost".into(), port: 80 });
    let Ok(Outcome::Addresses(all)) = found else { panic!("{found:?}") };
    assert!(!all.is_empty() && all.iter().all(|a| a.ip().is_loopback() && a.port() == 80));
    let found = bench.run(Op::Resolve { host: "::1".into(), port: 81 });
    let Ok(Outcome::Addresses(all)) = found else { panic!("{found:?}") };
    assert_eq!(all, ["[::1]:81".parse().expect("an address")]);
    let found = bench.run(Op::Resolve { host: "no such host".into(), port: 1 });
    assert!(found.is_err(), "{found:?}");
}

pub fn a_signal_makes_its_descriptor_readable(mut bench: Bench) {
    let fd = bench.sys().signal(nix::libc::SIGUSR2).expect("registered");
    let poll = Op::Poll { fd: fd.clone(), ready: Ready::READ, multishot: true, edge: false };
    let (token, _) = bench.push(poll);
    for _ in 0..3 {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGUSR2).expect("raised");
        let completion = bench.next(token);
        assert!(matches!(completion.result, Ok(Outcome::Ready(_))) && completion.more);
        // Cases run side by side, and each of them that waits for this signal gets it.
        assert!(bench.sys().drain(&fd).expect("drained") >= 1);
        bench.seen.clear();
    }
    assert!(bench.sys().signal(nix::libc::SIGKILL).is_err());
}
