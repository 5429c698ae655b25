//! What the program does when the kernel refuses io_uring. Needs strace; without it the tests say
//! so and pass.

use std::process::{Command, Stdio};

use crate::running::{Running, output, program, until};
use crate::talk;

/// The program under strace with `inject`, or `None` if strace cannot work here.
fn under_strace(inject: &str, arguments: &[&str]) -> Option<Command> {
    let inject = format!("inject={inject}");
    // -D: the child is the program and not strace, so that its end is the program's.
    let quiet = ["-D", "-f", "-qqq", "-o", "/dev/null", "-e", "signal=none", "-e", &inject];
    let works = Command::new("strace").args(quiet).arg("true").stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("skipped: strace does not work here");
        return None;
    }
    let mut command = Command::new("strace");
    command.args(quiet).arg(env!("CARGO_BIN_EXE_ringlane")).args(arguments);
    command.stdin(Stdio::null());
    Some(command)
}

#[test]
fn a_refused_ring_means_epoll_and_one_line_that_says_why() {
    for errno in ["EPERM", "ENOSYS", "EINVAL", "ENOMEM"] {
        let inject = format!("io_uring_setup:error={errno}");
        let arguments = ["--engine", "auto", "echo", "tcp://127.0.0.1:0"];
        let Some(command) = under_strace(&inject, &arguments) else { return };
        let server = Running::start_command(command, 1);
        talk(&mut server.connect(), b"over epoll");
        until("the line", || server.errors().contains("io_uring"));
        let errors = server.errors();
        let said: Vec<_> = errors.lines().filter(|line| line.contains("io_uring")).collect();
        assert_eq!(said.len(), 1, "{errno}: {errors}");
    }
}

#[test]
fn who_insists_on_a_refused_ring_gets_an_error() {
    for errno in ["EPERM", "ENOSYS", "EINVAL", "ENOMEM"] {
        let inject = format!("io_uring_setup:error={errno}");
        let arguments = ["--engine", "uring", "echo", "tcp://127.0.0.1:0"];
        let Some(mut command) = under_strace(&inject, &arguments) else { return };
        let output = command.output().expect("strace starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errno}: {said}");
        assert!(said.lines().count() == 1 && said.starts_with("ringlane: "), "{errno}: {said}");
    }
}

#[test]
fn every_engine_can_be_asked_for_by_its_name() {
    for engine in ["epoll", "auto"] {
        let server = Running::start(&["--engine", engine, "echo", "tcp://127.0.0.1:0"], 1);
        talk(&mut server.connect(), b"here");
    }
}

#[test]
fn the_environment_chooses_the_engine_and_a_wrong_one_is_an_error() {
    let mut doctor = program(&["doctor", "--json"]);
    let said = doctor.env("RINGLANE_ENGINE", "epoll").output().expect("it starts").stdout;
    let json: serde_json::Value = serde_json::from_slice(&said).expect("JSON");
    assert_eq!(json["engine"], "epoll");
    let mut wrong = program(&["doctor"]);
    let output = wrong.env("RINGLANE_ENGINE", "steam").output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("steam"));
}

#[test]
fn the_doctor_tells_people_and_machines() {
    let people = output(&["doctor"]);
    assert!(people.status.success());
    let said = String::from_utf8_lossy(&people.stdout);
    for word in ["kernel", "engine", "memlock", "seccomp", "somaxconn", "transports", "what to do"]
    {
        assert!(said.contains(word), "{word}: {said}");
    }
    let machines = output(&["doctor", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&machines.stdout).expect("JSON");
    assert!(json["features"].is_array() && json["advice"].is_array(), "{json}");
    assert!(json["nofile"]["soft"].is_number(), "{json}");
}

#[test]
fn the_doctor_tries_every_transport_and_names_the_feature_of_what_is_missing() {
    for engine in ["auto", "epoll"] {
        let machines = output(&["--engine", engine, "doctor", "--json"]);
        let json: serde_json::Value = serde_json::from_slice(&machines.stdout).expect("JSON");
        let transports = json["transports"].as_array().expect("a list");
        let schemes = ["tcp", "shm", "unix", "rdma"];
        assert_eq!(transports.len(), schemes.len(), "{json}");
        for (transport, scheme) in transports.iter().zip(schemes) {
            let here = scheme != "rdma" || cfg!(feature = "rdma");
            assert_eq!(transport["scheme"], scheme);
            assert_eq!(transport["built_in"], here, "{json}");
            assert!(transport["failure"].is_null(), "{json}");
            assert!(transport["notes"].is_array(), "{json}");
        }
    }
    let said = String::from_utf8_lossy(&output(&["doctor"]).stdout).into_owned();
    assert_eq!(said.contains("--features rdma"), !cfg!(feature = "rdma"), "{said}");
    assert!(said.contains("works: a byte went there and back"), "{said}");
}

#[test]
fn the_doctor_says_what_is_wrong_with_shared_memory() {
    let Some(mut command) = under_strace("memfd_create:error=EPERM", &["doctor"]) else { return };
    let said =
        String::from_utf8_lossy(&command.output().expect("strace starts").stdout).into_owned();
    assert!(said.contains("shm://   DOES NOT WORK: "), "{said}");
    assert!(said.contains("shm:// gets no memory: ") && said.contains("or take unix://"), "{said}");
}
