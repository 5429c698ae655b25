//! `ringlane perf`.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::running::{
    Bounded, Running, TempDir, all_gone, children_of, complaint, output, program, until,
};

fn lines(out: &std::process::Output) -> Vec<String> {
    String::from_utf8_lossy(&out.stdout).lines().map(String::from).collect()
}

/// The number in that column of the first line that begins with `name` behind the line `block`.
fn figure(lines: &[String], block: &str, name: &str, column: usize) -> Option<f64> {
    let behind = lines.iter().skip_while(|line| !line.starts_with(block));
    let line = behind.skip(1).find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(column)?.parse().ok()
}

#[cfg(not(feature = "rdma"))]
const OURS: &[&str] = &["tcp://", "unix://", "shm://"];
#[cfg(feature = "rdma")]
const OURS: &[&str] = &["tcp://", "unix://", "shm://", "rdma://"];

/// On any core: tests that run side by side would all be on the same two.
const QUICK: [&str; 6] = ["--seconds", "0.05", "--rounds", "1", "--cores", "any"];

/// Runs it, several times if need be: where everybody wants the processor, a server may get none
/// of it in a window.
fn measured(arguments: &[&str], holds: impl Fn(&[String]) -> bool) {
    for again in 0.. {
        let out = output(&[arguments, &QUICK[..]].concat());
        assert!(out.status.success(), "{arguments:?}: {} {}", out.status, complaint(&out));
        let lines = lines(&out);
        if holds(&lines) {
            return;
        }
        assert!(again < 20, "{lines:?}");
    }
}

#[test]
fn perf_measures_every_transport_by_its_address() {
    for address in ringlane::local_addresses(&format!("perf-test-{}", std::process::id())) {
        let scheme = format!("{}://", address.split("://").next().expect("a scheme"));
        measured(&["perf", &address, "--size", "1K"], |lines| {
            // Name, engine, tier, rate, GB/s, three latencies, two CPU times.
            let stream = figure(lines, "stream, 1 KiB", &scheme, 3);
            (3..10).all(|column| {
                figure(lines, "round trip, 1 KiB", &scheme, column).is_some_and(|n| n > 0.0)
            }) && stream.is_some_and(|rate| rate > 0.0)
        });
    }
}

#[test]
fn perf_measures_round_trips_and_streams_of_each_size() {
    measured(&["perf", "tcp://127.0.0.1:0", "--size", "64,1MiB"], |lines| {
        let blocks = ["round trip, 64 B", "round trip, 1 MiB", "stream, 64 B", "stream, 1 MiB"];
        blocks.iter().all(|block| {
            let figure = |column| figure(lines, block, "tcp://", column);
            [3, 9].iter().all(|column| figure(*column).is_some_and(|n| n > 0.0))
        })
    });
}

#[test]
fn perf_compares_every_transport_with_what_else_there_is() {
    let out = output(&[&["perf", "--compare", "--connections", "2"], &QUICK[..]].concat());
    assert!(out.status.success(), "{} {}", out.status, complaint(&out));
    let lines = lines(&out);
    for name in OURS.iter().chain(&["pipe", "fifo", "mqueue", "sem+shm_open", "sem+mmap"]) {
        let rate = figure(&lines, "round trip, 64 B", name, 3);
        assert!(rate.is_some_and(|rate| rate > 0.0), "{name}: {lines:?}");
    }
    for name in ["sem+shm_open", "sem+mmap", "fifo"] {
        let rate = figure(&lines, "stream, 64 KiB", name, 3);
        assert!(rate.is_some_and(|rate| rate > 0.0), "{name}: {lines:?}");
    }
    // No queue takes 64 KiB here.
    assert!(figure(&lines, "stream, 64 KiB", "mqueue", 3).is_none(), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("quickest answer at 64 B: ")), "{lines:?}");
}

#[test]
fn perf_uses_a_server_that_runs_already() {
    let server = Running::start(&["echo", "tcp://127.0.0.1:0"], 1);
    let address = server.address(0);
    let out = output(&[&["perf", address, "--connect"], &QUICK[..]].concat());
    assert!(out.status.success(), "{} {}", out.status, complaint(&out));
    let lines = lines(&out);
    assert!(figure(&lines, "round trip, 64 KiB", "tcp://", 3).is_some_and(|rate| rate > 0.0));
    assert!(!lines.iter().any(|line| line.starts_with("stream")), "an echo server is no sink");
}

#[test]
fn perf_says_what_is_wrong() {
    for (arguments, words) in [
        (&["perf", "tcp://127.0.0.1:1", "--connect"][..], "refused"),
        (
            &["perf", "shm://@nobody-is-there", "--connect"],
            "64 B: connect shm://@nobody-is-there: ",
        ),
        (&["perf", "nosuch://x"], "no transport for `nosuch://`"),
        (&["perf", "unix:///no/such/folder/x"], "its directory does not exist"),
    ] {
        let out = output(arguments);
        assert_eq!(out.status.code(), Some(1), "{arguments:?}");
        assert!(complaint(&out).contains(words), "{}", complaint(&out));
    }
    assert_eq!(output(&["perf", "tcp://127.0.0.1:0", "--size", "0"]).status.code(), Some(2));
    assert_eq!(output(&["perf"]).status.code(), Some(2));
}

/// What is left behind with the process's number in its name.
fn left_behind(pid: u32, folder: &std::path::Path) -> Vec<String> {
    let name = format!("ringlane-perf-{pid}");
    let folders = [std::path::Path::new("/dev/shm"), std::path::Path::new("/dev/mqueue"), folder];
    let names = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let names = names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|found| found.contains(&name)).collect()
}

/// Interrupts it after so long: among servers, rings, or one of the references.
fn interrupt_after(number: u64) {
    let folder = TempDir::new(&format!("perf-{number}"));
    let mut command = program(&["perf", "--compare", "--size", "64"]);
    command.args(["--seconds", "0.001", "--rounds", "1000", "--cores", "any"]);
    command.env("TMPDIR", &folder.0).stdout(Stdio::null()).stderr(Stdio::null());
    let mut perf = Bounded(command.spawn().expect("it starts"));
    sleep(Duration::from_millis(300 + 83 * number));
    let children = children_of(perf.0.id());
    let signal = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP][number as usize % 3];
    kill(Pid::from_raw(perf.0.id() as i32), signal).expect("it is there");
    let mut status = None;
    until("its end", || {
        status = perf.0.try_wait().expect("it is ours");
        status.is_some()
    });
    assert!(!status.expect("it has ended").success());
    assert_eq!(left_behind(perf.0.id(), &folder.0), Vec::<String>::new(), "{number}");
    until("the end of the others", || all_gone(&children));
}

#[test]
fn perf_that_is_interrupted_leaves_no_name_and_no_process() {
    let threads: Vec<_> = (0..4)
        .map(|first| {
            std::thread::spawn(move || (0..5).for_each(|n| interrupt_after(first + 4 * n)))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("nothing was left"));
}

#[test]
fn perf_says_when_the_server_goes_away() {
    let mut server = Running::start(&["echo", "tcp://127.0.0.1:0"], 1);
    let mut command = program(&["perf", server.address(0), "--connect", "--seconds", "30"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let perf = command.spawn().expect("it starts");
    until("its connection", || {
        server.signal(Signal::SIGUSR1);
        server.errors().contains("connections now 1")
    });
    server.signal(Signal::SIGKILL);
    server.end();
    let out = perf.wait_with_output().expect("it is ours");
    assert_eq!(out.status.code(), Some(1));
    assert!(complaint(&out).contains("the connection ended"), "{}", complaint(&out));
}
