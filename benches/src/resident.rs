//! Resident memory per idle connection, and what one message on each of them leaves behind.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::load::connect;
use crate::peer::Role;
use crate::report::verdict;
use crate::server::{Programs, Server, Via};

/// Connections opened before one message proves that the server accepted them all.
const PER_PROOF: usize = 100;
const MESSAGE_BYTES: usize = 1024;
/// What ringlane promises, in bytes.
const IDLE_BYTES_MAX: f64 = 400.0;

/// Prints bytes per idle connection at `conns` of each server; returns the promises missed.
pub fn print(servers: &[String], programs: &Programs, conns: usize) -> io::Result<usize> {
    println!("\nresident bytes per idle TCP connection, {conns} connections");
    println!("  {:<16}{:>12}{:>24}{:>10}", "server", "idle", "after 1 KiB at once", "before");
    let mut missed = 0;
    for name in servers {
        match once(name, programs, conns) {
            Ok((before, idle, used)) => {
                let per = |now: u64| (now as f64 - before as f64) * 1024.0 / conns as f64;
                let ours = name.starts_with("ringlane");
                let holds = per(idle) <= IDLE_BYTES_MAX;
                missed += usize::from(ours && !holds);
                let check = format!("   <= {IDLE_BYTES_MAX}  {}", verdict(holds));
                let check = if ours { check.as_str() } else { "" };
                println!(
                    "  {name:<16}{:>10.0} B{:>22.0} B{before:>7} kB{check}",
                    per(idle),
                    per(used)
                );
            }
            Err(error) => println!("  {name:<16}no figures: {error}"),
        }
    }
    Ok(missed)
}

fn once(name: &str, programs: &Programs, conns: usize) -> io::Result<(u64, u64, u64)> {
    let server = Server::start(programs, name, Role::Echo, Via::Tcp, &[])?;
    // What is made on the first use is no cost of a connection.
    let mut first = open(&server)?;
    echo(&mut first, 1)?;
    let before = resident_kb(server.pid())?;
    let mut links = Vec::with_capacity(conns);
    while links.len() < conns {
        links.push(open(&server)?);
        if links.len() % PER_PROOF == 0 || links.len() == conns {
            // Connections are accepted in order: an echo on the last one proves them all.
            let mut proof = open(&server)?;
            echo(&mut proof, 1)?;
        }
    }
    std::thread::sleep(Duration::from_millis(200));
    let idle = resident_kb(server.pid())?;
    // Stopped while the messages come, so that it finds them all at once.
    server.signal(Signal::SIGSTOP)?;
    for link in &mut links {
        link.write_all(&[7; MESSAGE_BYTES])?;
    }
    server.signal(Signal::SIGCONT)?;
    for link in &mut links {
        answer(link, MESSAGE_BYTES)?;
    }
    std::thread::sleep(Duration::from_millis(200));
    let used = resident_kb(server.pid())?;
    drop(links);
    if !server.stop()? {
        return Err(io::Error::other("it did not end well on SIGTERM"));
    }
    Ok((before, idle, used))
}

fn open(server: &Server) -> io::Result<TcpStream> {
    let fd: OwnedFd = connect(&server.address)?;
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

fn echo(stream: &mut TcpStream, len: usize) -> io::Result<()> {
    stream.write_all(&vec![7; len])?;
    answer(stream, len)
}

fn answer(stream: &mut TcpStream, len: usize) -> io::Result<()> {
    let mut got = vec![0; len];
    stream.read_exact(&mut got)?;
    if got.iter().all(|&byte| byte == 7) {
        return Ok(());
    }
    Err(io::Error::other("wrong bytes came back"))
}

fn resident_kb(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| io::Error::other("no VmRSS"))
}
