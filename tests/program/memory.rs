//! `shm://` as its users meet it: names that are taken or stale, and processes that are killed.

use std::io::{Read, Write};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::running::{Running, TempDir, complaint, output, pattern, until};
use crate::talk;

/// A proxy from TCP to that address, so that a plain socket speaks to what is there.
fn door(to: &str) -> Running {
    Running::start(&["forward", "tcp://127.0.0.1:0", to], 1)
}

fn name(test: &str) -> String {
    format!("shm://@ringlane-test-{}-{test}", std::process::id())
}

/// Maps of memory files in a process.
fn memory_files(pid: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it is ours");
    maps.lines().filter(|line| line.contains("/memfd:ringlane")).count()
}

#[test]
fn a_second_listener_is_refused_and_the_first_goes_on() {
    let dir = TempDir::new("shm-twice");
    for address in [format!("shm://{}/x.sock", dir.0.display()), name("twice")] {
        let server = Running::start(&["echo", &address], 1);
        let second = output(&["echo", &address]);
        assert_eq!(second.status.code(), Some(1), "{}", complaint(&second));
        let said = complaint(&second);
        assert!(said.contains("in use") && said.contains(&address), "{said}");
        talk(&mut door(server.address(0)).connect(), b"still there");
    }
}

#[test]
fn the_socket_file_of_a_killed_listener_is_replaced() {
    let dir = TempDir::new("shm-stale");
    let address = format!("shm://{}/x.sock", dir.0.display());
    for _ in 0..5 {
        let mut server = Running::start(&["echo", &address], 1);
        talk(&mut door(&address).connect(), b"here");
        server.signal(Signal::SIGKILL);
        server.end();
        assert_eq!(dir.names(), ["x.sock"]);
    }
    let mut server = Running::start(&["echo", &address], 1);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code(), Some(0));
    assert!(dir.names().is_empty(), "{:?}", dir.names());
}

#[test]
fn a_target_that_is_killed_costs_its_own_clients_only() {
    let (first, second) = (name("killed"), name("spared"));
    let mut killed = Running::start(&["echo", &first], 1);
    let spared = Running::start(&["echo", &second], 1);
    let routes = ["forward", "tcp://127.0.0.1:0", &first, "tcp://127.0.0.1:0", spared.address(0)];
    let proxy = Running::start(&routes, 2);
    let mut other = crate::tcp(proxy.address(1));
    talk(&mut other, b"before");
    let mut client = proxy.connect();
    let mut reader = client.try_clone().expect("cloned");
    let reading = std::thread::spawn(move || {
        let mut piece = vec![0; 1 << 16];
        while let Ok(1..) = reader.read(&mut piece) {}
    });
    let all = pattern(1 << 20, 4);
    client.write_all(&all).expect("sent");
    killed.signal(Signal::SIGKILL);
    // It hears of it: by an error, not by waiting for ever.
    client.set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    until("the news", || client.write_all(&all).is_err());
    reading.join().expect("the reader has heard, too");
    talk(&mut other, b"after");
    killed.end();
    proxy.signal(Signal::SIGUSR1);
    let line = "connections now 0 total 1 refused 0 failed 1";
    until(line, || proxy.errors().contains(line));
    drop(other);
    until("its memory to be gone", || memory_files(proxy.pid()) == 0);
}

#[test]
fn a_client_that_is_killed_leaves_no_memory_at_the_server() {
    let address = name("client");
    let server = Running::start(&["echo", &address], 1);
    for _ in 0..5 {
        let mut proxy = door(&address);
        let mut client = proxy.connect();
        client.write_all(&pattern(100_000, 5)).expect("sent");
        until("a link", || memory_files(server.pid()) > 0);
        proxy.signal(Signal::SIGKILL);
        proxy.end();
        until("its memory to be gone", || memory_files(server.pid()) == 0);
    }
    talk(&mut door(&address).connect(), b"and on");
}

#[test]
fn who_listens_with_another_transport_is_told_apart() {
    let plain = format!("unix://@ringlane-test-{}-plain", std::process::id());
    let server = Running::start(&["echo", &plain], 1);
    let rings = server.address(0).replace("unix://", "shm://");
    let out = output(&["perf", &rings, "--connect", "--seconds", "0.05", "--rounds", "1"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(complaint(&out).contains("no shm:// listener answers"), "{}", complaint(&out));
}
