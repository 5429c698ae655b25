//! `ringlane perf`.

use crate::running::{Running, complaint, output};

fn lines(out: &std::process::Output) -> Vec<String> {
    String::from_utf8_lossy(&out.stdout).lines().map(String::from).collect()
}

/// The number in that column of the first line that begins with `name` behind the line `block`.
fn figure(lines: &[String], block: &str, name: &str, column: usize) -> Option<f64> {
    let behind = lines.iter().skip_while(|line| !line.starts_with(block));
    let line = behind.skip(1).find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(column)?.parse().ok()
}

const QUICK: [&str; 4] = ["--seconds", "0.05", "--rounds", "1"];

#[test]
fn perf_measures_round_trips_and_streams_of_each_size() {
    let out = output(&[&["perf", "tcp://127.0.0.1:0", "--size", "64,1MiB"], &QUICK[..]].concat());
    assert!(out.status.success(), "{}", complaint(&out));
    let lines = lines(&out);
    for block in ["round trip, 64 B", "round trip, 1 MiB", "stream, 64 B", "stream, 1 MiB"] {
        // Name, engine, tier, rate, GB/s, three latencies, two CPU times.
        assert!(figure(&lines, block, "tcp://", 3).is_some_and(|rate| rate > 0.0), "{lines:?}");
        assert!(figure(&lines, block, "tcp://", 9).is_some_and(|cpu| cpu > 0.0), "{lines:?}");
    }
    assert!(figure(&lines, "round trip, 64 B", "tcp://", 5).is_some_and(|p50| p50 > 0.0));
}

#[test]
fn perf_compares_every_transport_with_what_else_there_is() {
    let out = output(&[&["perf", "--compare", "--connections", "2"], &QUICK[..]].concat());
    assert!(out.status.success(), "{}", complaint(&out));
    let lines = lines(&out);
    for name in ["tcp://", "unix://", "pipe", "fifo", "mqueue"] {
        let rate = figure(&lines, "round trip, 64 B", name, 3);
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
    let out = output(&[&["perf", address, "--connect", "--cores", "any"], &QUICK[..]].concat());
    assert!(out.status.success(), "{}", complaint(&out));
    let lines = lines(&out);
    assert!(figure(&lines, "round trip, 64 KiB", "tcp://", 3).is_some_and(|rate| rate > 0.0));
    assert!(!lines.iter().any(|line| line.starts_with("stream")), "an echo server is no sink");
}

#[test]
fn perf_says_what_is_wrong() {
    for (arguments, words) in [
        (&["perf", "tcp://127.0.0.1:1", "--connect"][..], "refused"),
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
