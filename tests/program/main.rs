//! The program as its users see it: started, spoken to over sockets, ended by signals.

mod bus;
mod check;
mod demo;
mod engines;
mod forward;
mod memory;
mod perf;
mod running;
mod schemes;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use nix::sys::signal::Signal;

use running::{Running, TempDir, abstract_name, complaint, output, pattern, tcp, unix, until};

fn talk(stream: &mut (impl Read + Write), bytes: &[u8]) {
    stream.write_all(bytes).expect("sent");
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("received");
    assert!(back == bytes, "other bytes came back");
}

#[test]
fn echo_sends_back_what_it_gets_at_every_place() {
    let dir = TempDir::new("echo");
    let path = format!("unix://{}/echo.sock", dir.0.display());
    let name = abstract_name("echo");
    let server = Running::start(&["echo", "tcp://127.0.0.1:0", &path, &name], 3);
    talk(&mut server.connect(), b"over tcp");
    talk(&mut unix(server.address(1)), b"over a path");
    talk(&mut unix(server.address(2)), b"over an abstract name");
    let mut stream = server.connect();
    (0..100).for_each(|n| talk(&mut stream, &pattern(1000, n)));
}

#[test]
fn echo_ends_its_direction_after_the_last_byte() {
    let server = Running::start(&["echo", "tcp://127.0.0.1:0"], 1);
    let mut stream = server.connect();
    let sent = pattern(100_000, 1);
    stream.write_all(&sent).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("received");
    assert!(back == sent);
}

#[test]
fn sigterm_lets_open_connections_end_and_then_exits_0() {
    let mut server = Running::start(&["echo", "tcp://127.0.0.1:0"], 1);
    let mut open = server.connect();
    talk(&mut open, b"before");
    server.signal(Signal::SIGTERM);
    until("the listener's end", || {
        TcpStream::connect(server.address(0).trim_start_matches("tcp://")).is_err()
    });
    talk(&mut open, b"after");
    drop(open);
    assert_eq!(server.end().code(), Some(0));
    assert!(server.errors().contains("draining"), "{}", server.errors());
}

#[test]
fn an_idle_server_ends_at_once_on_sigterm_and_sigint() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Running::start(&["echo", "tcp://127.0.0.1:0"], 1);
        server.signal(signal);
        assert_eq!(server.end().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_a_drain() {
    let mut server = Running::start(&["echo", "tcp://127.0.0.1:0", "--drain", "86400"], 1);
    let mut open = server.connect();
    talk(&mut open, b"before");
    server.signal(Signal::SIGTERM);
    until("the drain's begin", || server.errors().contains("draining"));
    server.signal(Signal::SIGINT);
    assert_eq!(server.end().code(), Some(0));
    assert!(server.errors().contains("1 connections were cut off"), "{}", server.errors());
}

#[test]
fn a_drain_is_bounded() {
    let mut server = Running::start(&["echo", "tcp://127.0.0.1:0", "--drain", "0.2"], 1);
    let mut open = server.connect();
    talk(&mut open, b"before");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn sigusr1_prints_the_counters() {
    let server = Running::start(&["echo", "tcp://127.0.0.1:0"], 1);
    let mut open = server.connect();
    talk(&mut open, b"12345");
    server.signal(Signal::SIGUSR1);
    let line = "connections now 1 total 1 refused 0, bytes 5";
    until(line, || server.errors().contains(line));
    talk(&mut open, b"still there");
}

#[test]
fn a_wrong_address_is_one_line_with_a_right_one_and_exit_code_1() {
    for wrong in [
        "127.0.0.1:80",
        "TCP://127.0.0.1:80",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:http",
        "tcp://127.0.0.1:99999",
        "tcp://",
        "unix://",
    ] {
        for arguments in [
            &["echo", wrong][..],
            &["forward", wrong, "tcp://127.0.0.1:9"],
            &["forward", "tcp://127.0.0.1:0", wrong],
        ] {
            let output = output(arguments);
            let said = complaint(&output);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.starts_with("ringlane: ") && said.contains("like "), "{said}");
        }
    }
}

#[test]
fn an_unknown_scheme_is_an_error_that_names_the_known_ones() {
    let output = output(&["echo", "udp://127.0.0.1:0"]);
    let said = complaint(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("udp") && said.contains("tcp"), "{said}");
}

#[test]
fn a_path_longer_than_a_socket_name_is_an_error() {
    let output = output(&["echo", &format!("unix:///tmp/{}", "x".repeat(200))]);
    assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
    assert_eq!(complaint(&output).lines().count(), 1);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &[][..],
        &["echo"],
        &["forward", "tcp://127.0.0.1:0"],
        &["forward", "tcp://127.0.0.1:0", "tcp://127.0.0.1:9", "tcp://127.0.0.1:0"],
        &["echo", "tcp://127.0.0.1:0", "--drain", "soon"],
        &["echo", "tcp://127.0.0.1:0", "--max-connections", "0"],
        &["--engine", "steam", "doctor"],
        &["demo", "--bytes", "many"],
    ] {
        let output = output(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", complaint(&output));
    }
}

#[test]
fn a_port_in_use_is_named() {
    let first = Running::start(&["echo", "tcp://127.0.0.1:0"], 1);
    let output = output(&["echo", first.address(0)]);
    let said = complaint(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(first.address(0)) && said.contains("in use"), "{said}");
}

#[test]
fn more_connections_than_allowed_are_closed_and_counted() {
    let server = Running::start(&["echo", "tcp://127.0.0.1:0", "--max-connections", "2"], 1);
    let mut open = [server.connect(), server.connect()];
    open.iter_mut().for_each(|stream| talk(stream, b"in"));
    let mut third = server.connect();
    let gone = third.read(&mut [0; 1]);
    assert!(matches!(gone, Ok(0) | Err(_)), "the third is not served");
    open.iter_mut().for_each(|stream| talk(stream, b"still in"));
    server.signal(Signal::SIGUSR1);
    let line = "now 2 total 3 refused 1";
    until(line, || server.errors().contains(line));
}

#[test]
fn a_crowd_that_says_nothing_keeps_nobody_from_working() {
    let server = Running::start(&["echo", "tcp://127.0.0.1:0"], 1);
    let silent: Vec<TcpStream> = (0..400).map(|_| tcp(server.address(0))).collect();
    talk(&mut server.connect(), b"but I speak");
    drop(silent);
    talk(&mut server.connect(), b"and so do I");
}

#[test]
fn a_socket_file_goes_away_with_its_server() {
    let dir = TempDir::new("leftover");
    let path = format!("unix://{}/x.sock", dir.0.display());
    let mut server = Running::start(&["echo", &path], 1);
    assert_eq!(dir.names(), ["x.sock"]);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code(), Some(0));
    assert!(dir.names().is_empty(), "{:?}", dir.names());
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let dir = TempDir::new("stale");
    let path = format!("unix://{}/x.sock", dir.0.display());
    // Again and again: the ring of a killed process holds its sockets for a moment.
    for _ in 0..20 {
        let mut killed = Running::start(&["echo", &path], 1);
        killed.signal(Signal::SIGKILL);
        killed.end();
        assert_eq!(dir.names(), ["x.sock"]);
    }
    let server = Running::start(&["echo", &path], 1);
    talk(&mut unix(server.address(0)), b"replaced");
    let second = output(&["echo", &path]);
    assert_eq!(second.status.code(), Some(1), "{}", complaint(&second));
    talk(&mut unix(server.address(0)), b"not replaced");
}
