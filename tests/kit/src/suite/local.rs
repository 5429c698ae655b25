//! What only sockets of one machine can: paths, abstract names, descriptors, credentials.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use ringlane_api::{LinkOptions, ListenOptions, READ};

use super::stage::{Stage, Tap};
use super::{Outcome, Rig, cases, skip};

cases! {
    "a stale socket file is replaced" => stale,
    "the socket of a living server is left alone" => living,
    "a file that is no socket is left alone" => no_socket,
    "a path that is too long is refused before anything is tried" => too_long,
    "a directory that is not there is an error that names the path" => no_directory,
    "a socket gets the permissions it was asked for" => permissions,
    "abstract names carry bytes and leave nothing behind" => abstract_names,
    "descriptors travel with their bytes" => descriptors,
    "credentials name the peer's process" => credentials,
    "an accepted connection is given away and taken up again" => given_away,
    "a connection that has begun is not given away" => not_given_away,
    "a listening descriptor from outside is taken up" => listening_descriptor,
    "a connected descriptor from outside is taken up" => connected_descriptor,
}

const ONLY_UNIX: &str = "only Unix sockets have paths";
const ONLY_REAL: &str = "virtual sockets are no descriptors";
const ONLY_DESCRIPTORS: &str = "a link of this transport is more than a descriptor";

/// Why this row does not take up descriptors.
fn takes_no_descriptors(rig: &Rig) -> Option<Outcome> {
    match (rig.real, rig.links_are_descriptors()) {
        (false, _) => Some(skip(ONLY_REAL)),
        (_, false) => Some(skip(ONLY_DESCRIPTORS)),
        _ => None,
    }
}

fn serves(stage: &Stage, at: &str) {
    let client = stage.base.connect(at).expect("the address is valid");
    client.output().add(b"x");
    let tap = Tap::on(&client);
    stage.until("the byte is back", || tap.len() == 1 || tap.ended());
    assert_eq!(tap.len(), 1, "{:?}", tap.errors());
    client.free();
}

fn echo_at(stage: &Stage, at: &str) -> ringlane_api::Result<ringlane_api::Listener> {
    stage.base.listen(at, |conn| {
        conn.on_read(|c| {
            c.output().append(c.input());
        });
        conn.on_event(|c, event| {
            if event.is_end() {
                c.free();
            }
        });
        conn.enable(READ);
    })
}

fn stale(rig: &Rig) -> Outcome {
    if !rig.is("unix") || !rig.real {
        return skip(if rig.real { ONLY_UNIX } else { "a virtual server removes its file" });
    }
    let stage = Stage::new(rig);
    let path = rig.path("stale");
    // std does not remove the file of a listener that is dropped.
    drop(UnixListener::bind(&path).expect("the path is free"));
    assert!(path.exists());
    let at = format!("unix://{}", path.display());
    let server = echo_at(&stage, &at).expect("nobody listens there any more");
    serves(&stage, &at);
    server.free();
    Outcome::Pass
}

fn living(rig: &Rig) -> Outcome {
    if !rig.is("unix") {
        return skip(ONLY_UNIX);
    }
    let stage = Stage::new(rig);
    let server = stage.echo();
    let at = server.address().to_string();
    let error = echo_at(&stage, &at).map(|_| ()).expect_err("somebody listens there");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
    serves(&stage, &at);
    Outcome::Pass
}

fn no_socket(rig: &Rig) -> Outcome {
    if !rig.is("unix") {
        return skip(ONLY_UNIX);
    }
    let stage = Stage::new(rig);
    let path = rig.path("precious");
    fs::write(&path, b"precious").expect("a temporary file can be made");
    let at = format!("unix://{}", path.display());
    let error = echo_at(&stage, &at).map(|_| ()).expect_err("a file is in the way").to_string();
    assert!(error.contains(&at), "{error}");
    assert_eq!(fs::read(&path).expect("it is still there"), b"precious");
    Outcome::Pass
}

fn too_long(rig: &Rig) -> Outcome {
    if !rig.is("unix") {
        return skip(ONLY_UNIX);
    }
    let stage = Stage::new(rig);
    let at = format!("unix:///tmp/{}", "x".repeat(200));
    for error in [
        stage.base.listen(&at, |_| {}).map(|_| ()).expect_err("it does not fit"),
        stage.base.connect(&at).map(|_| ()).expect_err("it does not fit"),
    ] {
        let text = error.to_string();
        assert!(text.contains(&at) && text.contains("107"), "{text}");
    }
    Outcome::Pass
}

fn no_directory(rig: &Rig) -> Outcome {
    if !rig.is("unix") {
        return skip(ONLY_UNIX);
    }
    let stage = Stage::new(rig);
    let at = "unix:///nonexistent/ringlane/x.sock";
    let error = echo_at(&stage, at).map(|_| ()).expect_err("there is no such directory");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(at), "{error}");
    Outcome::Pass
}

fn permissions(rig: &Rig) -> Outcome {
    if !rig.is("unix") {
        return skip(ONLY_UNIX);
    }
    let stage = Stage::new(rig);
    let path = rig.path("mode");
    let server = echo_at(&stage, &format!("unix://{}?mode=600", path.display()));
    let server = server.expect("the path is free");
    if rig.real {
        let mode = fs::metadata(&path).expect("the socket is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    serves(&stage, &format!("unix://{}", path.display()));
    server.free();
    let bad = echo_at(&stage, &format!("unix://{}?mode=9", path.display()));
    let text = bad.map(|_| ()).expect_err("no such mode").to_string();
    assert!(text.contains("mode"), "{text}");
    Outcome::Pass
}

fn abstract_names(rig: &Rig) -> Outcome {
    if !rig.is("unix") {
        return skip("only Unix sockets have abstract names");
    }
    let stage = Stage::new(rig);
    let at = rig.abstract_name();
    let server = echo_at(&stage, &at).expect("the name is ours alone");
    assert_eq!(server.address().to_string(), at);
    serves(&stage, &at);
    let error = echo_at(&stage, &at).map(|_| ()).expect_err("it is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
    server.free();
    stage.until("it is closed", || {
        let stats = stage.base.stats();
        stats.listeners == 0 && stats.links == 0
    });
    echo_at(&stage, &at).expect("the name is free again");
    serves(&stage, &at);
    Outcome::Pass
}

fn descriptors(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let receive = LinkOptions { receive_fds: true, ..LinkOptions::default() };
    let options = ListenOptions { link: receive, ..ListenOptions::default() };
    let taken = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let into = std::rc::Rc::clone(&taken);
    let listening = stage.base.listen_with(rig.address(), &options, move |conn| {
        let into = std::rc::Rc::clone(&into);
        conn.on_read(move |c| into.borrow_mut().push((c.input().take(), c.take_fds())));
        conn.enable(READ);
    });
    let file = |text: &str| -> OwnedFd {
        let path = rig.path("passed");
        fs::write(&path, text).expect("a temporary file can be made");
        File::open(&path).expect("it was just made").into()
    };
    let server = match listening {
        Ok(server) => server,
        Err(error) if !rig.is("unix") => return skip(format!("not on this transport: {error}")),
        Err(error) => panic!("{error}"),
    };
    let client = stage.connect(&server);
    let tap = Tap::on(&client);
    stage.until("it is connected", || tap.connected() == 1);
    let sent = client.send_fds(vec![file("one"), file("two")]);
    if !rig.is("unix") {
        let text = sent.expect_err("tcp carries no descriptors").to_string();
        return skip(format!("refused as it should be: {text}"));
    }
    sent.expect("Unix sockets carry descriptors");
    client.output().add(b"two files");
    client.output().add(b", then none");
    let bytes =
        || taken.borrow().iter().map(|(bytes, _): &(Vec<u8>, _)| bytes.len()).sum::<usize>();
    stage.until("the bytes have come", || bytes() == 20);
    let fds: Vec<OwnedFd> = taken.borrow_mut().drain(..).flat_map(|(_, fds)| fds).collect();
    let texts: Vec<String> = fds
        .into_iter()
        .map(|fd| std::io::read_to_string(File::from(fd)).expect("it is a text file"))
        .collect();
    assert_eq!(texts, ["one", "two"]);
    // A large message with a descriptor in its middle.
    client.output().add(&[1; 300_000]);
    client.send_fds(vec![file("three")]).expect("Unix sockets carry descriptors");
    client.output().add(&[2; 300_000]);
    stage.until("the bytes have come", || bytes() == 600_000);
    let fds = taken.borrow().iter().map(|(_, fds)| fds.len()).sum::<usize>();
    assert_eq!(fds, 1);
    Outcome::Pass
}

fn credentials(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, _), (client, _)) = stage.link();
    // Who crosses hosts is nobody's neighbour.
    if rig.has_hosts() {
        assert!(server.credentials().is_none() && client.credentials().is_none());
        return Outcome::Pass;
    }
    let found = server.credentials().expect("Unix sockets know their peer");
    assert_eq!(found.pid, std::process::id() as i32);
    Outcome::Pass
}

fn given_away(rig: &Rig) -> Outcome {
    if !rig.real {
        return skip(ONLY_REAL);
    }
    if !rig.links_are_descriptors() {
        return skip("a link of this transport is more than a descriptor");
    }
    let (front, back) = (Stage::new(rig), Stage::new(rig));
    let given = std::rc::Rc::new(std::cell::RefCell::new(None));
    let into = std::rc::Rc::clone(&given);
    let server = front.listen(move |conn| {
        into.replace(conn.release_fd());
    });
    let client = front.connect(&server);
    client.output().add(b"for whom?");
    let tap = Tap::on(&client);
    front.until("it is given away", || given.borrow().is_some());
    let fd = given.take().expect("it was just there");
    let conn = back.base.from_fd(fd).expect("a connection becomes a bufferevent");
    conn.on_read(|c| {
        c.output().append(c.input());
    });
    conn.enable(READ);
    while tap.len() < 9 {
        front.idle(1);
        back.idle(1);
    }
    assert_eq!(tap.bytes(), b"for whom?");
    client.free();
    front.until("nothing is left in front", || front.base.stats().links == 0);
    Outcome::Pass
}

fn not_given_away(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let ((server, at_server), (client, _)) = stage.link();
    client.output().add(b"begun");
    stage.until("the bytes have come", || at_server.len() == 5);
    assert!(server.release_fd().is_none());
    assert!(server.is_alive());
    client.output().add(b" and on");
    stage.until("the bytes have come", || at_server.len() == 12);
    Outcome::Pass
}

fn listening_descriptor(rig: &Rig) -> Outcome {
    if let Some(skip) = takes_no_descriptors(rig) {
        return skip;
    }
    let stage = Stage::new(rig);
    let (fd, at): (OwnedFd, String) = if rig.is("unix") {
        let path = rig.path("given");
        let listener = UnixListener::bind(&path).expect("the path is free");
        (listener.into(), format!("unix://{}", path.display()))
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let at = listener.local_addr().expect("it is bound");
        (listener.into(), format!("tcp://{at}"))
    };
    let options = ListenOptions::default();
    let server = stage.base.listen_on(fd, &options, |conn| {
        conn.on_read(|c| {
            c.output().append(c.input());
        });
        conn.enable(READ);
    });
    let server = server.expect("a listening descriptor becomes a listener");
    assert_eq!(server.address().to_string(), at);
    serves(&stage, &at);
    Outcome::Pass
}

fn connected_descriptor(rig: &Rig) -> Outcome {
    if let Some(skip) = takes_no_descriptors(rig) {
        return skip;
    }
    let stage = Stage::new(rig);
    let (ours, mut theirs): (OwnedFd, Box<dyn ReadWrite>) = if rig.is("unix") {
        let (ours, theirs) = UnixStream::pair().expect("a pair can be made");
        (ours.into(), Box::new(theirs))
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let at = listener.local_addr().expect("it is bound");
        let theirs = std::net::TcpStream::connect(at).expect("it listens");
        (listener.accept().expect("somebody connected").0.into(), Box::new(theirs))
    };
    let conn = stage.base.from_fd(ours).expect("a socket becomes a bufferevent");
    let tap = Tap::on(&conn);
    assert!(conn.is_connected());
    theirs.write_all(b"in").expect("the socket has room");
    stage.until("the bytes have come", || tap.bytes() == b"in");
    conn.output().add(b"out");
    conn.finish();
    stage.until("it is sent", || conn.output().is_empty());
    stage.idle(5);
    let mut got = String::new();
    theirs.read_to_string(&mut got).expect("the socket can be read");
    assert_eq!(got, "out");
    Outcome::Pass
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}
