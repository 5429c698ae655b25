use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATH: &str = "RINGLANE_TEST_LOCK";
const NOW: u64 = 1_795_757_921;

/// A path of this test alone.
fn path(test: &str) -> PathBuf {
    env::temp_dir().join(format!("ringlane-{}-{test}.lock", std::process::id()))
}

/// A process that holds the lock and, line by line, says whether it is still its own.
struct Other {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Other {
    fn start(path: &Path) -> Other {
        let this = "relay::lock::tests::a_process_that_is_told_to_holds_the_lock";
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args([this, "--exact", "--nocapture"])
            .env(PATH, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut other = Other { child, stdin, stdout };
        other.wait_for("lock: taken");
        other
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("it is there");
    }

    fn says_mine(&mut self) -> bool {
        self.stdin.write_all(b"?\n").expect("it reads");
        self.wait_for("lock: mine ").ends_with("true")
    }

    fn wait_for(&mut self, start: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.stdout.read_line(&mut line).expect("text"), 0, "it ended");
            // The harness has begun a line of its own.
            if let Some(at) = line.find(start) {
                return line[at..].trim_end().to_string();
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_process_that_is_told_to_holds_the_lock() {
    let Some(path) = env::var_os(PATH) else { return };
    let lock = Lock::take(Path::new(&path), NOW).expect("it is free");
    println!("lock: taken");
    for _ in io::stdin().lines() {
        println!("lock: mine {}", lock.is_mine());
    }
}

#[test]
fn a_second_start_is_refused_and_names_the_holder() {
    let path = path("second");
    let other = Other::start(&path);
    let Err(refused) = Lock::take(&path, NOW + 1) else { panic!("there is but one") };
    let text = refused.to_string();
    let Refused::Held { holder, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(holder, Some(Holder { pid: other.pid(), since: NOW }));
    let said = format!("pid {} has the lock {}", other.pid(), path.display());
    assert!(text.starts_with(&said), "{text}");
    assert!(text.contains("since 2026-11-27 05:38:41 UTC; stop it, or start with --takeover"));
    drop(other);
    drop(Lock::take(&path, NOW).expect("it is free"));
}

#[test]
fn the_kernel_frees_the_lock_of_a_killed_process() {
    let path = path("killed");
    for _ in 0..3 {
        let mut other = Other::start(&path);
        assert!(other.says_mine());
        drop(other);
        let lock = Lock::take(&path, NOW).expect("the dead hold nothing");
        assert!(lock.is_mine());
        drop(lock);
        assert!(!path.exists(), "it is left behind");
    }
}

#[test]
fn a_stopped_process_keeps_the_lock_until_somebody_takes_over() {
    let path = path("stopped");
    let mut other = Other::start(&path);
    other.signal(Signal::SIGSTOP);
    assert!(matches!(Lock::take(&path, NOW), Err(Refused::Held { .. })));
    let lock = Lock::take_over(&path, NOW + 9).expect("nobody is asked");
    other.signal(Signal::SIGCONT);
    assert!(!other.says_mine(), "it was replaced");
    drop(other);
    assert!(lock.is_mine(), "the end of the other changes nothing");
    let Err(Refused::Held { holder, .. }) = Lock::take(&path, NOW) else { panic!("it is held") };
    assert_eq!(holder, Some(Holder { pid: std::process::id(), since: NOW + 9 }));
    drop(lock);
    assert!(!path.exists(), "it is left behind");
}

#[test]
fn to_take_over_where_nobody_is_is_to_take() {
    let path = path("nobody");
    let lock = Lock::take_over(&path, NOW).expect("it is free");
    assert!(lock.is_mine() && Lock::take(&path, NOW).is_err());
    let next = Lock::take_over(&path, NOW).expect("nobody is asked");
    assert!(next.is_mine() && !lock.is_mine());
    drop(lock);
    assert!(next.is_mine() && path.exists(), "who was replaced removes nothing");
}

#[test]
fn a_link_or_a_missing_folder_is_an_error_that_says_what_to_do() {
    let (path, target) = (path("link"), path("target"));
    std::os::unix::fs::symlink(&target, &path).expect("a link");
    assert!(matches!(Lock::take(&path, NOW), Err(Refused::Failed { .. })));
    fs::remove_file(&path).expect("it is there");
    assert!(!target.exists(), "the link was followed");
    let Err(refused) = Lock::take(&path.join("a.lock"), NOW) else { panic!("no such folder") };
    assert!(refused.to_string().ends_with("make its folder"), "{refused}");
}

#[test]
fn dates_are_those_of_the_calendar() {
    let dates = [
        (0, "1970-01-01 00:00:00 UTC"),
        (951_782_400, "2000-02-29 00:00:00 UTC"),
        (4_102_444_799, "2099-12-31 23:59:59 UTC"),
        (4_107_542_400, "2100-03-01 00:00:00 UTC"),
    ];
    for (second, date) in dates {
        assert_eq!(Utc(second).to_string(), date);
    }
}
