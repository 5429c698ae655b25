//! A peer of `shm://` that forks and dies: its child keeps the socket open, so that its end is no
//! notice; the survivor hears of it all the same, after everything that was published.
//!
//! The peer is this program again, with arguments. Beside it: a process that forks while it
//! connects, and one that listens and leaves the rest to its child.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm, fork, pause};
use ringlane::prelude::*;
use ringlane::reactor::{Config, Engine};

/// What a peer says at first.
const GREETING: &[u8] = b"alive";

/// What it publishes before it dies: more than a block, less than a ring.
const LAST_WORDS: usize = 40_000;

/// Seconds after which a process of this test that hangs is ended.
const WATCHDOG_SECONDS: u32 = 300;

/// What a survivor saw.
#[derive(Default)]
struct Seen {
    bytes: usize,
    error: Option<String>,
    eof: bool,
}

/// KERNEL 6.5: SO_PEERPIDFD.
fn peers_are_known() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.trim().parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(5))
}

impl Seen {
    fn ended(&self) -> bool {
        self.error.is_some() || self.eof
    }
}

fn base(engine: &str) -> EventBase {
    let engine = if engine == "epoll" { Engine::Epoll } else { Engine::Auto };
    let config = Config { engine, ..Config::default() };
    EventBase::with_config(&config).expect("this engine was there a moment ago")
}

/// The peer: connects or listens, publishes its last words, forks, and waits for its death.
fn peer(role: &str, engine: &str, at: &str) -> ExitCode {
    alarm::set(WATCHDOG_SECONDS);
    let base = base(engine);
    let speak = |conn: &Bufferevent| {
        conn.output().add(GREETING);
        conn.enable(READ);
        conn.on_read(|c| {
            let child = leave_a_child();
            c.output().add(&[7; LAST_WORDS]);
            let base = c.base().expect("it turns");
            // When the last words are published.
            base.once(Duration::from_millis(30), move |_| say(&format!("child {child}")));
        });
    };
    let listener = match role {
        "connects" => {
            speak(&base.connect(at).expect("the address is valid"));
            None
        }
        "inherits" => return inherit(&base, at),
        _ => Some(base.listen(at, move |conn| speak(&conn)).expect("nobody else listens there")),
    };
    say("ready");
    base.dispatch().expect("it turns");
    drop(listener);
    ExitCode::FAILURE
}

/// A process that listens, and leaves the rest to a child.
fn inherit(base: &EventBase, at: &str) -> ExitCode {
    let speak = |conn: Bufferevent| {
        conn.output().add(GREETING);
        conn.enable(READ);
        conn.on_read(|c| {
            c.input().take();
            c.output().add(&[7; LAST_WORDS]);
        });
    };
    let _listener = base.listen(at, speak).expect("nobody else listens there");
    // SAFETY: this process has this thread only.
    match unsafe { fork() }.expect("one more process") {
        ForkResult::Child => {
            alarm::set(WATCHDOG_SECONDS);
            base.reinit().expect("a kernel side of its own");
            base.dispatch().expect("it turns");
            ExitCode::FAILURE
        }
        ForkResult::Parent { child } => {
            say(&format!("child {child}"));
            // SAFETY: it ends this process and runs nothing that would close what the child uses.
            unsafe { nix::libc::_exit(0) }
        }
    }
}

fn say(what: &str) {
    println!("{what}");
    io::stdout().flush().expect("somebody listens");
}

/// A child that has everything that this process has, and does nothing.
fn leave_a_child() -> Pid {
    // SAFETY: this process has this thread only, and the child calls nothing that allocates.
    match unsafe { fork() }.expect("one more process") {
        ForkResult::Child => {
            alarm::set(WATCHDOG_SECONDS);
            loop {
                pause();
            }
        }
        ForkResult::Parent { child } => child,
    }
}

/// A peer and the child it leaves; neither outlives the test.
struct Peer {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
    orphan: Option<Pid>,
}

impl Peer {
    fn start(role: &str, engine: &str, at: &str) -> Peer {
        let program = std::env::current_exe().expect("this program has a name");
        let mut command = Command::new(program);
        command.args(["peer", role, engine, at]).stdout(Stdio::piped());
        let mut process = command.spawn().expect("it starts");
        let lines = BufReader::new(process.stdout.take().expect("it is piped"));
        Peer { process, lines, orphan: None }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it speaks");
        line.trim().to_string()
    }

    /// Reads which child it has left.
    fn left(&mut self) -> Result<Pid, String> {
        let line = self.line();
        let child = line.strip_prefix("child ").and_then(|pid| pid.parse().ok());
        let orphan = Pid::from_raw(child.ok_or("the peer has left no child")?);
        self.orphan = Some(orphan);
        Ok(orphan)
    }

    fn kill(&mut self) {
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it was killed");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(orphan) = self.orphan {
            let _ = kill(orphan, Signal::SIGKILL);
        }
    }
}

/// Notes what happens to a connection.
fn note(conn: &Bufferevent, seen: &Rc<RefCell<Seen>>) {
    let into = Rc::clone(seen);
    conn.on_read(move |c| into.borrow_mut().bytes += c.input().take().len());
    let into = Rc::clone(seen);
    conn.on_event(move |_, event| match event {
        BevEvent::Eof => into.borrow_mut().eof = true,
        BevEvent::Error { error, .. } => into.borrow_mut().error = Some(error.to_string()),
        _ => {}
    });
    conn.enable(READ);
}

fn turn(base: &EventBase, seen: &RefCell<Seen>, until: &dyn Fn(&Seen) -> bool) {
    while !until(&seen.borrow()) {
        base.once(Duration::from_millis(5), |_| {});
        base.turn(Turn::Wait).expect("it turns");
    }
}

/// The process that listened is gone, and its child serves: that is no death.
fn outlive(ours: &str, theirs: &str) -> Result<(), String> {
    let at = format!("shm://@ringlane-death-{}-heir-{ours}-{theirs}", std::process::id());
    let mut peer = Peer::start("inherits", theirs, &at);
    let heir = peer.left()?;
    peer.process.wait().expect("it ends by itself");
    let (base, seen) = (base(ours), Rc::default());
    let conn = base.connect(&at).expect("the address is valid");
    note(&conn, &seen);
    turn(&base, &seen, &|seen| seen.bytes >= GREETING.len() || seen.ended());
    conn.output().add(b"speak");
    turn(&base, &seen, &|seen| seen.bytes >= GREETING.len() + LAST_WORDS || seen.ended());
    if seen.borrow().ended() {
        return Err(format!("{:?} while the child lives", seen.borrow().error));
    }
    kill(heir, Signal::SIGKILL).expect("it is ours");
    turn(&base, &seen, &|seen| seen.ended());
    conn.free();
    Ok(())
}

fn survive(role: &str, ours: &str, theirs: &str) -> Result<(), String> {
    let at = format!("shm://@ringlane-death-{}-{role}-{ours}-{theirs}", std::process::id());
    let base = base(ours);
    let (seen, conn): (Rc<RefCell<Seen>>, Rc<RefCell<Option<Bufferevent>>>) = Default::default();
    let (notes, keep) = (Rc::clone(&seen), Rc::clone(&conn));
    let take = move |conn: Bufferevent| {
        note(&conn, &notes);
        *keep.borrow_mut() = Some(conn);
    };
    let mut peer;
    let _listener = match role {
        "connects" => {
            let listener = base.listen(&at, take).expect("nobody else listens there");
            peer = Peer::start(role, theirs, &at);
            assert_eq!(peer.line(), "ready");
            Some(listener)
        }
        _ => {
            peer = Peer::start(role, theirs, &at);
            assert_eq!(peer.line(), "ready");
            take(base.connect(&at).expect("the address is valid"));
            None
        }
    };
    turn(&base, &seen, &|seen| seen.bytes == GREETING.len());
    let conn = conn.borrow().clone().expect("it has spoken");
    conn.output().add(b"leave a child");
    for _ in 0..3 {
        base.turn(Turn::NoWait).expect("it turns");
    }
    // From here to its death nobody reads what the peer publishes.
    let orphan = peer.left()?;
    peer.kill();
    turn(&base, &seen, &|seen| seen.ended());
    let alive = kill(orphan, None).is_ok();
    let seen = seen.borrow();
    conn.free();
    match (&seen.error, seen.bytes - GREETING.len(), seen.eof, alive) {
        (Some(_), LAST_WORDS, false, true) => Ok(()),
        (error, bytes, eof, alive) => Err(format!(
            "{bytes} of {LAST_WORDS} bytes, {error:?}, clean end {eof}, its child lives {alive}"
        )),
    }
}

/// A process that forks while it is being connected: the segment it has offered is not mapped in
/// the child, which may not touch it though the answer comes to the child.
fn fork_amid_a_hand_over(engine: &str) -> Result<(), String> {
    let name = format!("ringlane-death-{}-{engine}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("the name is short");
    let listener = UnixListener::bind_addr(&address).expect("nobody else listens there");
    let base = base(engine);
    let conn = base.connect(format!("shm://@{name}")).expect("the address is valid");
    let error: Rc<RefCell<Option<String>>> = Rc::default();
    let told = Rc::clone(&error);
    conn.on_event(move |_, event| *told.borrow_mut() = Some(format!("{event:?}")));
    conn.enable(READ);
    let (mut there, mut greeting) = (None, [0; 48]);
    listener.set_nonblocking(true).expect("it is a socket");
    while there.is_none() {
        base.once(Duration::from_millis(1), |_| {});
        base.turn(Turn::Wait).expect("it turns");
        there = listener.accept().ok();
    }
    let (mut there, _) = there.expect("it was accepted above");
    there.set_nonblocking(false).expect("it is a socket");
    for _ in 0..10 {
        base.once(Duration::from_millis(1), |_| {});
        base.turn(Turn::Wait).expect("it turns");
    }
    there.read_exact(&mut greeting).expect("the greeting was sent");
    // SAFETY: this process has this thread only.
    match unsafe { fork() }.expect("one more process") {
        ForkResult::Child => {
            alarm::set(WATCHDOG_SECONDS);
            base.reinit().expect("a kernel side of its own");
            there.write_all(b"rnglane+\0\x01\0\0\0\0\0\0").expect("sent");
            while error.borrow().is_none() {
                base.once(Duration::from_millis(1), |_| {});
                base.turn(Turn::Wait).expect("it turns");
            }
            let told = error.borrow().clone().unwrap_or_default();
            let code = i32::from(!told.contains("forked"));
            // SAFETY: it ends this process without running anything of the parent's.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).expect("it is ours") {
            WaitStatus::Exited(_, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [what, role, engine, at] = &arguments[..]
        && what == "peer"
    {
        return peer(role, engine, at);
    }
    // A hang ends the test.
    alarm::set(WATCHDOG_SECONDS);
    let mut failed = false;
    for engine in ["auto", "epoll"] {
        let result = fork_amid_a_hand_over(engine);
        println!("a fork amid a hand-over, {engine}: {result:?}");
        failed |= result.is_err();
    }
    if !peers_are_known() {
        println!("skipped: this kernel does not know the process behind a socket (6.5)");
        return if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    for role in ["connects", "listens"] {
        for (ours, theirs) in [("auto", "auto"), ("auto", "epoll"), ("epoll", "auto")] {
            let result = survive(role, ours, theirs);
            println!("the peer {role}, engines {ours} and {theirs}: {result:?}");
            failed |= result.is_err();
        }
    }
    for (ours, theirs) in [("auto", "auto"), ("epoll", "epoll")] {
        let result = outlive(ours, theirs);
        println!("the listening process ends, engines {ours} and {theirs}: {result:?}");
        failed |= result.is_err();
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
