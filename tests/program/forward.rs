//! `ringlane forward` between real clients and real servers.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;

use crate::running::{Running, abstract_name, pattern, tcp, until};
use crate::talk;

/// A server for `clients` connections, each served by `serve` on a thread.
fn target(
    clients: usize,
    serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static,
) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp://{}", listener.local_addr().expect("an address"));
    let thread = std::thread::spawn(move || {
        let serving: Vec<_> = (0..clients)
            .map(|_| {
                let (stream, _) = listener.accept().expect("a client");
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream))
            })
            .collect();
        serving.into_iter().for_each(|thread| thread.join().expect("served"));
    });
    (address, thread)
}

#[test]
fn a_chain_of_proxies_carries_both_directions_and_their_ends() {
    let (address, served) = target(1, |mut stream| {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("received");
        assert!(got == pattern(3_000_000, 1), "the target got other bytes");
        stream.write_all(&pattern(5_000_000, 2)).expect("sent");
    });
    let name = abstract_name("chain");
    let chain = ["forward", &name, &address, "tcp://127.0.0.1:0", &name];
    let proxy = Running::start(&chain, 2);
    let mut client = tcp(proxy.address(1));
    client.write_all(&pattern(3_000_000, 1)).expect("sent");
    client.shutdown(Shutdown::Write).expect("half closed");
    let mut back = Vec::new();
    client.read_to_end(&mut back).expect("received");
    assert!(back == pattern(5_000_000, 2), "the client got other bytes");
    served.join().expect("the target agrees");
    proxy.signal(Signal::SIGUSR1);
    let line = "now 0 total 1 refused 0 failed 0 idle 0, bytes forth 3000000 back 5000000";
    until(line, || proxy.errors().matches(line).count() == 2);
}

#[test]
fn the_target_may_end_first_and_still_receive() {
    let (address, served) = target(1, |mut stream| {
        stream.write_all(b"greeting").expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("received");
        assert_eq!(got, b"long after");
    });
    let proxy = Running::start(&["forward", "tcp://127.0.0.1:0", &address], 1);
    let mut client = proxy.connect();
    let mut got = Vec::new();
    client.read_to_end(&mut got).expect("received");
    assert_eq!(got, b"greeting");
    client.write_all(b"long after").expect("sent");
    drop(client);
    served.join().expect("the target agrees");
}

#[test]
fn an_upload_is_not_held_up_by_a_download_that_nobody_reads() {
    const BYTES: usize = 16 << 20;
    let (address, served) = target(1, |stream| {
        let mut reader = stream.try_clone().expect("cloned");
        let reading = std::thread::spawn(move || {
            let mut got = vec![0; BYTES];
            reader.read_exact(&mut got).expect("received");
        });
        let mut writer = stream;
        writer.write_all(&vec![7; BYTES]).expect("sent");
        reading.join().expect("the upload arrived");
    });
    let proxy = Running::start(&["forward", "tcp://127.0.0.1:0", &address], 1);
    let mut client = proxy.connect();
    // Nothing is read until everything is written.
    client.write_all(&vec![9; BYTES]).expect("sent");
    let mut back = Vec::new();
    client.read_to_end(&mut back).expect("received");
    assert_eq!(back.len(), BYTES);
    drop(client);
    served.join().expect("the target agrees");
}

#[test]
fn a_target_out_of_reach_closes_that_client_only() {
    let echo = Running::start(&["echo", "tcp://127.0.0.1:0"], 1);
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let dead = format!("tcp://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    let routes = ["forward", "tcp://127.0.0.1:0", echo.address(0), "tcp://127.0.0.1:0", &dead];
    let proxy = Running::start(&routes, 2);
    let mut good = proxy.connect();
    talk(&mut good, b"before");
    for _ in 0..20 {
        let gone = tcp(proxy.address(1)).read(&mut [0; 1]);
        assert!(matches!(gone, Ok(0) | Err(_)), "nobody is there");
    }
    talk(&mut good, b"after");
    until("a line about it", || proxy.errors().contains("a client is closed: connect"));
    let lines = proxy.errors().lines().filter(|line| line.contains("is closed")).count();
    assert!(lines < 20, "the lines are limited in number");
    proxy.signal(Signal::SIGUSR1);
    let line = "now 0 total 20 refused 0 failed 20";
    until(line, || proxy.errors().contains(line));
}

#[test]
fn a_reset_is_carried_and_the_others_go_on() {
    let (address, served) = target(1, |mut stream| {
        let mut got = [0; 3];
        stream.read_exact(&mut got).expect("received");
        // The end comes as an error or as an end; it does come.
        while let Ok(1..) = stream.read(&mut [0; 64]) {}
    });
    let echo = Running::start(&["echo", "tcp://127.0.0.1:0"], 1);
    let routes = ["forward", "tcp://127.0.0.1:0", &address, "tcp://127.0.0.1:0", echo.address(0)];
    let proxy = Running::start(&routes, 2);
    let mut other = tcp(proxy.address(1));
    talk(&mut other, b"before");
    let mut client = proxy.connect();
    client.write_all(b"abc").expect("sent");
    // Closing with unread bytes resets a TCP connection.
    let mut through = tcp(proxy.address(1));
    through.write_all(&pattern(100_000, 3)).expect("sent");
    until("bytes to be there unread", || through.peek(&mut [0; 1]).is_ok_and(|n| n == 1));
    drop(through);
    drop(client);
    served.join().expect("the target saw the end");
    talk(&mut other, b"after");
}

#[test]
fn clients_beyond_the_limit_are_closed_and_counted() {
    let echo = Running::start(&["echo", "tcp://127.0.0.1:0"], 1);
    let limited = ["forward", "tcp://127.0.0.1:0", echo.address(0), "--max-connections", "1"];
    let proxy = Running::start(&limited, 1);
    let mut first = proxy.connect();
    talk(&mut first, b"in");
    let gone = proxy.connect().read(&mut [0; 1]);
    assert!(matches!(gone, Ok(0) | Err(_)), "the second is not served");
    talk(&mut first, b"still in");
    drop(first);
    until("room again", || {
        let mut next = proxy.connect();
        next.write_all(b"x").is_ok() && next.read(&mut [0; 1]).is_ok_and(|n| n == 1)
    });
    proxy.signal(Signal::SIGUSR1);
    until("the count", || proxy.errors().contains(" refused "));
    assert!(!proxy.errors().contains("refused 0"), "{}", proxy.errors());
}

#[test]
fn silence_ends_a_connection_after_the_idle_timeout_and_talk_does_not() {
    let echo = Running::start(&["echo", "tcp://127.0.0.1:0"], 1);
    let idle = ["forward", "tcp://127.0.0.1:0", echo.address(0), "--idle-timeout", "1"];
    let proxy = Running::start(&idle, 1);
    let mut silent = proxy.connect();
    let mut busy = proxy.connect();
    busy.set_nodelay(true).expect("an option");
    silent.set_nonblocking(true).expect("an option");
    let mut ended = false;
    until("the silent one's end", || {
        talk(&mut busy, b"tick");
        ended = match silent.read(&mut [0; 1]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        ended
    });
    talk(&mut busy, b"tock");
}

#[test]
fn stalled_clients_cost_little_memory_and_hold_up_nobody() {
    const BYTES: usize = 32 << 20;
    const STALLED: usize = 20;
    let (address, served) = target(STALLED + 1, |mut stream| {
        let piece = vec![5; 64 * 1024];
        // Clients that go away in mid-download end it with an error.
        for _ in 0..BYTES / piece.len() {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let proxy = Running::start(&["forward", "tcp://127.0.0.1:0", &address], 1);
    let mut stalled: Vec<TcpStream> = (0..STALLED).map(|_| proxy.connect()).collect();
    for client in &mut stalled {
        client.read_exact(&mut [0; 1024]).expect("the download has begun");
    }
    let mut client = proxy.connect();
    let mut piece = vec![0; 1 << 16];
    let mut got = 0;
    loop {
        match client.read(&mut piece).expect("received") {
            0 => break,
            n => got += n,
        }
    }
    assert_eq!(got, BYTES);
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("there");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    assert!(peak < 32 * 1024, "{peak} KiB resident at most");
    drop(stalled);
    served.join().expect("the target is through");
}
