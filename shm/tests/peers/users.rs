//! Another user at the door.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use ringlane_api::{EventBase, READ, Turn};
use ringlane_reactor::Engine;

use crate::kit;

/// Nobody.
const OTHER: u32 = 65534;

/// What the other user hears who dials an address that our base serves.
fn dialed(base: &EventBase, program: &str, address: &str) -> String {
    let mut child = Command::new(program)
        .args(["child", "dial", address])
        .uid(OTHER)
        .gid(OTHER)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it may run there");
    let tick = base.every(Duration::from_millis(5), |_| {});
    while child.try_wait().expect("it is ours").is_none() {
        base.turn(Turn::Wait).expect("it turns");
    }
    tick.free();
    let said = child.wait_with_output().expect("it is ours");
    String::from_utf8(said.stdout).expect("it is text")
}

/// A child that says what it hears at an address.
pub fn child(arguments: &[&str]) {
    let base = kit::base(Engine::Epoll);
    let conn = base.connect(arguments[0]).expect("it is an address");
    conn.on_event(|conn, event| {
        println!("{event:?}");
        conn.free();
    });
    conn.enable(READ);
    base.dispatch().expect("it turns");
}

pub fn another_one_is_told_why_not() {
    if !nix::unistd::geteuid().is_root() {
        return println!("  skipped: only root can be another user");
    }
    kit::watch("another user", 60);
    // Where that user can run it, and reach a socket.
    let folder = std::env::temp_dir().join(format!("ringlane-peers-{}", std::process::id()));
    fs::create_dir(&folder).expect("a new folder");
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("it is ours");
    let program = folder.join("peers").display().to_string();
    fs::copy(std::env::current_exe().expect("it has a name"), &program).expect("there is room");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("it is ours");
    let file = folder.join("socket").display().to_string();
    let name = format!("@ringlane-peers-{}-users", std::process::id());
    for engine in kit::engines() {
        let base = kit::base(engine);
        for (at, dials, hears) in [
            (format!("shm://{name}"), format!("shm://{name}"), "may not connect there"),
            (format!("shm://{name}?uid={}", OTHER - 1), format!("shm://{name}"), "may not connect"),
            (format!("shm://{name}?uid={OTHER}"), format!("shm://{name}"), "Connected"),
            (format!("shm://{file}"), format!("shm://{file}"), "ermission denied"),
            (format!("shm://{file}?mode=600"), format!("shm://{file}"), "ermission denied"),
            (format!("shm://{file}?mode=666"), format!("shm://{file}"), "Connected"),
        ] {
            let fds = kit::open_fds();
            let listener = base.listen(&at, |conn| {
                conn.on_event(|conn, _| conn.free());
                conn.enable(READ);
            });
            let listener = listener.expect("nobody else listens there");
            let said = dialed(&base, &program, &dials);
            assert!(said.contains(hears), "{at}: {said}");
            listener.free();
            base.dispatch().expect("it turns");
            assert_eq!((kit::open_fds(), kit::segments().len()), (fds, 0), "{at}");
        }
    }
    fs::remove_dir_all(&folder).expect("it is ours");
}
