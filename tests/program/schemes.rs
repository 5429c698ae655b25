//! One program text over every transport: by its argument, and through chains of proxies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ringlane::prelude::*;
use ringlane::{BevEvent, READ};

use crate::running::{Running, complaint, output, pattern, tcp};

/// What goes through the chain; `RINGLANE_CHAIN_BYTES` sets another size.
const CHAIN_BYTES: usize = 64 << 20;

/// Bytes that are made and summed at a time.
const BLOCK: usize = 64 * 1024;

/// Where to listen for each transport of this build.
fn addresses(test: &str) -> Vec<String> {
    ringlane::local_addresses(&format!("ringlane-test-{}-{test}", std::process::id()))
}

/// The bytes of one block of the stream, from its number.
fn fill(number: usize, block: &mut [u8]) {
    let mut state = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for chunk in block.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// Adds a block to a checksum in which order matters.
fn sum(before: u64, block: &[u8]) -> u64 {
    let word = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    let add = |sum: u64, chunk| (sum ^ word(chunk)).rotate_left(23).wrapping_mul(0x0100_0000_01B3);
    block.chunks(8).fold(before, add)
}

/// Writes that many bytes of the stream; their checksum.
fn send(stream: &mut TcpStream, bytes: usize) -> u64 {
    let (mut block, mut total) = (vec![0; BLOCK], 0);
    for number in 0..bytes.div_ceil(BLOCK) {
        let part = &mut block[..BLOCK.min(bytes - number * BLOCK)];
        fill(number, part);
        total = sum(total, part);
        stream.write_all(part).expect("sent");
    }
    total
}

/// Reads that many bytes, and nothing behind them but the end; their checksum.
fn receive_all(stream: &mut TcpStream, bytes: usize) -> u64 {
    let (mut block, mut total) = (vec![0; BLOCK], 0);
    for number in 0..bytes.div_ceil(BLOCK) {
        let part = &mut block[..BLOCK.min(bytes - number * BLOCK)];
        stream.read_exact(part).expect("received");
        total = sum(total, part);
    }
    assert_eq!(stream.read(&mut block).expect("the end"), 0, "bytes behind the last one");
    total
}

#[test]
fn one_stream_goes_through_proxies_over_every_transport_and_ends_there() {
    let wish = std::env::var("RINGLANE_CHAIN_BYTES").ok();
    let bytes = wish.map_or(CHAIN_BYTES, |text| text.parse().expect("a number of bytes"));
    // A last block that is not full, too.
    let (forth, back) = (bytes + 13, bytes / 16 + 5);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = format!("tcp://{}", listener.local_addr().expect("an address"));
    // client -> tcp -> forward -> shm -> forward -> unix -> forward [-> rdma -> forward] -> tcp
    let (mut proxies, mut to): (Vec<Running>, String) = (Vec::new(), target);
    for from in addresses("chain").iter().rev() {
        proxies.push(Running::start(&["forward", from, &to], 1));
        to = proxies[proxies.len() - 1].address(0).to_string();
    }
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        // Its end has come, and ours goes on.
        let got = receive_all(&mut stream, forth);
        let sent = send(&mut stream, back);
        (got, sent)
    });
    let begun = Instant::now();
    let mut client = tcp(&to);
    let mut writer = client.try_clone().expect("cloned");
    let sent = send(&mut writer, forth);
    writer.shutdown(Shutdown::Write).expect("half closed");
    let got = receive_all(&mut client, back);
    let seconds = begun.elapsed().as_secs_f64();
    let (target_got, target_sent) = served.join().expect("the target agrees");
    assert_eq!((sent, got), (target_got, target_sent), "other bytes came");
    let all = addresses("chain").len() + 1;
    let rate = (forth + back) as f64 / seconds / 1e6;
    println!(
        "{forth} bytes forth and {back} back over {all} links: {seconds:.2} s, {rate:.0} MB/s"
    );
}

/// The example as a child process.
struct Example(Child, String);

impl Example {
    fn start(program: &PathBuf, address: &str) -> Example {
        let child = Command::new(program).arg(address).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("the example starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let address = line.strip_prefix("listening ").expect("where it listens").trim().to_string();
        Example(child, address)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // Both fail harmlessly if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The example `echo` of this build. Cargo makes the examples only when it makes all targets; it
/// is asked, and where there is no cargo what is there is taken.
fn example() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_BIN_EXE_ringlane"));
    let folder = folder.parent().expect("the folder of the program");
    let on = |name, on: bool| on.then_some(name);
    let features: Vec<&str> = [
        on("uring", cfg!(feature = "uring")),
        on("epoll", cfg!(feature = "epoll")),
        on("tcp", cfg!(feature = "tcp")),
        on("uds", cfg!(feature = "uds")),
        on("shm", cfg!(feature = "shm")),
        on("rdma", cfg!(feature = "rdma")),
        on("program", cfg!(feature = "program")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "-q", "-p", "ringlane", "--offline", "--locked", "--example", "echo"]);
    cargo.args(["--no-default-features", "--features", &features.join(",")]);
    cargo.args(folder.ends_with("release").then_some("--release"));
    // Its complaints tell nobody anything if the example is there.
    let _ = cargo.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let program = folder.join("examples/echo");
    program.exists().then_some(program)
}

#[test]
fn the_example_runs_over_each_transport_by_its_argument_alone() {
    let Some(program) = example() else {
        eprintln!("skipped: the example is not built, and cargo does not run here");
        return;
    };
    let addresses = addresses("example");
    assert!(addresses.len() >= if cfg!(feature = "rdma") { 4 } else { 3 }, "{addresses:?}");
    for address in addresses {
        let server = Example::start(&program, &address);
        let base = EventBase::new().expect("a base");
        let conn = base.connect(&server.1).expect("the address is valid");
        let want = pattern(300_000, 9);
        conn.output().add(&want);
        conn.finish();
        conn.on_event(|conn, event| match event {
            BevEvent::Connected => {}
            BevEvent::Eof => conn.base().expect("it turns").stop(),
            other => panic!("a healthy link: {other:?}"),
        });
        conn.set_read_watermark(want.len(), usize::MAX);
        conn.enable(READ);
        base.once(std::time::Duration::from_secs(60), |_| panic!("hung"));
        base.dispatch().expect("it turns");
        assert!(conn.input().to_vec() == want, "{address}: other bytes came back");
    }
}

#[test]
fn what_is_not_built_in_is_an_error_that_says_how_to_get_it() {
    if cfg!(feature = "rdma") {
        eprintln!("skipped: everything is built in");
        return;
    }
    let out = output(&["forward", "tcp://127.0.0.1:0", "rdma://127.0.0.1:7471"]);
    assert_eq!(out.status.code(), Some(1));
    let want = "ringlane: open rdma://127.0.0.1:7471: this build has no rdma; build with \
                --features rdma (it has tcp://, unix://, shm://)";
    assert_eq!(complaint(&out), want);
}

#[test]
fn a_slip_of_the_fingers_is_pointed_out() {
    let said = complaint(&output(&["echo", "smh://@x"]));
    assert!(said.contains("no transport for `smh://`; there is tcp://"), "{said}");
    assert!(said.ends_with("; did you mean shm://?"), "{said}");
}
