//! `ringlane demo`, small.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::running::{Bounded, all_gone, children_of, complaint, output, program, until};

const SMALL: [&str; 9] =
    ["demo", "--only", "transports", "--bytes", "8M", "--messages", "2000", "--connections", "8"];

#[test]
fn every_byte_comes_back_on_each_engine() {
    let output = output(&SMALL);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", complaint(&output));
    assert!(said.contains("messages/s") && said.contains("all right"), "{said}");
    let way: String = said.lines().take(2).collect();
    assert!(["tcp", "unix", "shm", "rdma"].iter().all(|scheme| way.contains(scheme)), "{said}");
    assert_eq!(said.contains("--features rdma"), !cfg!(feature = "rdma"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("epoll ")), "{said}");
}

#[test]
fn an_engine_that_is_named_is_the_only_one() {
    let output = program(&SMALL).env("RINGLANE_ENGINE", "epoll").output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", complaint(&output));
    assert!(!said.lines().any(|line| line.starts_with("uring ")), "{said}");
}

#[test]
fn odd_sizes_are_no_trouble() {
    for sizes in [["0", "0", "3"], ["1", "2", "5"], ["100000", "0", "7"], ["0", "10", "3"]] {
        let [bytes, messages, connections] = sizes;
        let sizes = ["--bytes", bytes, "--messages", messages, "--connections", connections];
        let arguments = [&["demo", "--only", "transports"][..], &sizes].concat();
        let output = output(&arguments);
        assert!(output.status.success(), "{arguments:?}: {}", complaint(&output));
    }
}

#[test]
fn no_server_outlives_a_demo_that_is_interrupted_or_killed() {
    // Not SIGINT: who runs the tests in a shell's background has it ignored.
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut command = program(&["demo", "--only", "transports", "--bytes", "100G"]);
        let demo = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut demo = Bounded(demo.expect("it starts"));
        let mut children = Vec::new();
        let servers = if cfg!(feature = "rdma") { 4 } else { 3 };
        until("the servers", || {
            children = children_of(demo.0.id());
            children.len() == servers
        });
        kill(Pid::from_raw(demo.0.id() as i32), signal).expect("it is there");
        let status = demo.0.wait().expect("it is ours");
        assert!(!status.success());
        until("the servers' end", || all_gone(&children));
    }
}

#[test]
#[cfg(feature = "relay")]
fn the_bus_loses_and_doubles_nothing_across_a_killed_relay() {
    let output = output(&["demo", "--only", "bus"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", complaint(&output));
    assert!(said.contains("lost 0, duplicated 0 across the killed relay"), "{said}");
    let rows: Vec<&str> = said.lines().filter(|line| line.contains("relay, relay")).collect();
    assert_eq!(rows.len(), 4, "{said}");
}
