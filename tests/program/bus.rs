//! The verbs of the bus, with real relays: two hosts on this machine, whose relays find each other
//! over abstract sockets, so that nothing is left behind and nobody has to be root.

mod metrics;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::running::{Bounded, TempDir, complaint, output, program, until};

/// A cluster of two hosts: `login` and `web` at home, `db` and `audit` abroad.
struct Cluster {
    dir: TempDir,
    config: String,
    /// The names of the hosts, which no other test has.
    home: String,
    abroad: String,
    relays: Vec<Bounded>,
}

impl Cluster {
    /// With both relays, once they listen.
    fn start(test: &str) -> Cluster {
        let mut cluster = Cluster::new(test);
        for host in [cluster.home.clone(), cluster.abroad.clone()] {
            let relay = cluster.relay(&host);
            cluster.relays.push(relay);
        }
        cluster
    }

    /// Without relays.
    fn new(test: &str) -> Cluster {
        let dir = TempDir::new(&format!("bus-{test}"));
        let tag = format!("t{}{test}", std::process::id());
        let (home, abroad, uid) = (format!("{tag}a"), format!("{tag}b"), geteuid());
        let host = |name: &str, more: &str, nodes: &str| {
            format!(
                "[[host]]\nname = \"{name}\"\nrelay = [\"unix://@ringlane-test-{name}\"]\n\
                 socket = \"unix://@ringlane-{uid}-{name}\"\n{more}nodes = [{nodes}]\n"
            )
        };
        let text = format!(
            "[cluster]\nname = \"test\"\nsecret_file = \"secret\"\n{}{}",
            host(&home, "metrics = \"tcp://127.0.0.1:0\"\n", "\"login\", \"web\""),
            host(&abroad, "", "\"db\", \"audit\"")
        );
        let secret = dir.0.join("secret");
        fs::write(&secret, b"0123456789abcdef0123456789abcdef\n").expect("a secret");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("it is ours");
        let config = dir.0.join("cluster.toml");
        fs::write(&config, text).expect("a config");
        Cluster { config: config.display().to_string(), dir, home, abroad, relays: Vec::new() }
    }

    /// The relay of a host, once it answers.
    fn relay(&self, host: &str) -> Bounded {
        let mut command = program(&["relay", "--config", &self.config, "--host", host]);
        let file = |what| File::create(self.dir.0.join(format!("{host}.{what}"))).expect("a file");
        let child = command.stdout(file("out")).stderr(file("err")).spawn();
        let relay = Bounded(child.expect("the program starts"));
        until("the relay's answer", || output(&["status", "--host", host]).status.success());
        relay
    }

    /// A verb that goes on, whose output lands in `name.out`.
    fn running(&self, name: &str, arguments: &[&str]) -> Bounded {
        let file = |what| File::create(self.dir.0.join(format!("{name}.{what}"))).expect("a file");
        let child = program(arguments).stdout(file("out")).stderr(file("err")).spawn();
        Bounded(child.expect("the program starts"))
    }

    /// `recv` as a node abroad, once its relay knows it.
    fn receiver(&self, node: &str, more: &[&str]) -> Bounded {
        let arguments = [&["recv", node, "--host", &self.abroad], more].concat();
        let receiver = self.running(node, &arguments);
        until("the receiver's registration", || {
            let said = text(&output(&["status", "--host", &self.abroad]));
            said.lines().any(|line| line.trim_start().starts_with(&format!("{node} ")))
        });
        receiver
    }

    /// What a verb that goes on has printed so far.
    fn printed(&self, name: &str) -> String {
        fs::read_to_string(self.dir.0.join(format!("{name}.out"))).expect("it was made")
    }

    /// A verb at home.
    fn at_home(&self, arguments: &[&str]) -> Output {
        output(&[arguments, &["--host", &self.home]].concat())
    }

    /// The same with stdin.
    fn fed(&self, arguments: &[&str], stdin: &[u8]) -> Output {
        let arguments = [arguments, &["--host", &self.home]].concat();
        let mut command = program(&arguments);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child.stdin.take().expect("piped").write_all(stdin).expect("it reads");
        child.wait_with_output().expect("it is ours")
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Exit code 0 and no complaint; what it printed.
fn well(output: &Output) -> String {
    let said = text(output);
    assert_eq!((output.status.code(), complaint(output).as_str()), (Some(0), ""), "{said}");
    said
}

/// Exit code 1; what it complained about.
fn badly(output: &Output) -> String {
    let said = complaint(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

fn signal(child: &Bounded, signal: Signal) {
    kill(Pid::from_raw(child.0.id() as i32), signal).expect("it is there");
}

fn end(child: &mut Bounded) -> Option<i32> {
    let mut status = None;
    until("the program's end", || {
        status = child.0.try_wait().expect("it is ours");
        status.is_some()
    });
    status.expect("it has ended").code()
}

#[test]
fn messages_go_abroad_and_send_ends_when_they_are_there() {
    let cluster = Cluster::start("send");
    let mut receiver = cluster.receiver("db", &["--count", "1003"]);
    well(&cluster.at_home(&["send", "db", "one word", "--as", "login"]));
    let lines: String = (0..1000).map(|n| format!("{n}\n")).collect();
    well(&cluster.fed(&["send", "db", "--as", "login"], lines.as_bytes()));
    well(&cluster.fed(&["send", "db", "-", "--as", "web"], b"no end of a line"));
    well(&cluster.fed(&["send", "db", "--whole", "--as", "web"], b"two\nlines"));
    assert_eq!(end(&mut receiver), Some(0));
    let numbers: String = (0..1000).map(|n| format!("login: {n}\n")).collect();
    let rest = "web: no end of a line\nweb: two\nlines\n";
    assert_eq!(cluster.printed("db"), format!("login: one word\n{numbers}{rest}"));
}

#[test]
fn neighbours_and_large_messages_are_served_as_well() {
    let cluster = Cluster::start("large");
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    let mut receiver = cluster.receiver("db", &["--raw", "--count", "1"]);
    well(&cluster.fed(&["send", "db", "--whole", "--large", "--as", "login"], &large));
    assert_eq!(end(&mut receiver), Some(0));
    assert!(cluster.printed("db").as_bytes() == large, "other bytes came");
    let mut neighbour =
        cluster.running("web", &["recv", "web", "--host", &cluster.home, "--plain", "-c", "1"]);
    well(&cluster.at_home(&["send", "web", "next door", "--as", "login"]));
    assert_eq!(end(&mut neighbour), Some(0));
    assert_eq!(cluster.printed("web"), "next door\n");
}

#[test]
fn what_is_not_acknowledged_is_exit_code_1_and_says_what_is_waited_for() {
    let cluster = Cluster::start("unacked");
    let said = badly(&cluster.at_home(&["send", "db", "x", "--as", "login", "--linger", "0.5"]));
    assert!(said.contains("1 of 1 messages are not acknowledged"), "{said}");
    let said = badly(&cluster.at_home(&["call", "db", "x", "--as", "login", "--deadline", "0.5"]));
    assert!(said.contains("no answer from db in 0.5 s"), "{said}");
}

#[test]
fn a_wrong_name_is_an_error_with_the_nearest_one() {
    let cluster = Cluster::start("names");
    for arguments in [
        &["send", "bd", "x", "--as", "login"][..],
        &["call", "bd", "x", "--as", "login"],
        &["ping", "bd"],
        &["explain", "login", "bd"],
        &["recv", "bd"],
    ] {
        let said = badly(&cluster.at_home(arguments));
        assert!(said.contains("did you mean `db`?"), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let said = badly(&cluster.at_home(&["recv", "db"]));
    assert!(said.contains(&cluster.abroad), "{said}");
    let said = badly(&cluster.at_home(&["send", "login", "x", "--as", "login"]));
    assert!(said.contains("itself"), "{said}");
}

#[test]
fn without_a_relay_every_verb_says_how_to_start_one() {
    let cluster = Cluster::new("none");
    for verb in [
        &["status"][..],
        &["top", "-n", "1"],
        &["ping", "db"],
        &["explain", "login", "db"],
        &["send", "db", "x", "--as", "login"],
        &["call", "db", "x", "--as", "login"],
        &["recv", "login"],
    ] {
        let said = badly(&cluster.at_home(verb));
        assert!(said.contains(&format!("no relay of host {}", cluster.home)), "{verb:?}: {said}");
        let nobody = [verb, &["--socket", "@ringlane-test-nobody"]].concat();
        let said = badly(&output(&nobody));
        assert!(said.contains("ringlane relay --config FILE --host"), "{verb:?}: {said}");
    }
}

#[test]
fn a_request_is_answered_by_a_command_or_by_itself() {
    let cluster = Cluster::start("call");
    let mut receiver = cluster.receiver("db", &["--reply", "tr a-z A-Z; exit 0"]);
    let call = ["call", "db", "please shout", "--as", "login"];
    assert_eq!(well(&cluster.at_home(&call)), "PLEASE SHOUT\n");
    assert_eq!(well(&cluster.at_home(&[&call[..], &["--raw"]].concat())), "PLEASE SHOUT");
    signal(&receiver, Signal::SIGTERM);
    assert_eq!(end(&mut receiver), Some(0));
    assert_eq!(cluster.printed("db"), "login: please shout\nlogin: please shout\n");
    let _echo = cluster.receiver("audit", &["--echo", "--quiet"]);
    assert_eq!(well(&cluster.fed(&["call", "audit", "--as", "web"], b"the same\n")), "the same\n");
    let _fails = cluster.receiver("db", &["--reply", "exit 3"]);
    badly(&cluster.at_home(&["call", "db", "x", "--as", "login", "--deadline", "0.5"]));
    let errors = fs::read_to_string(cluster.dir.0.join("db.err")).expect("it was made");
    assert!(errors.contains("exit status: 3"), "{errors}");
}

#[test]
fn a_receiver_prints_json_and_what_it_was_asked_for_only() {
    let cluster = Cluster::start("json");
    let mut receiver = cluster.receiver("db", &["--json", "--from", "login", "--count", "2"]);
    well(&cluster.at_home(&["send", "db", "not me", "--as", "web"]));
    well(&cluster.fed(&["send", "db", "--as", "login", "--chan", "3"], b"text\n\xff\x00\n"));
    assert_eq!(end(&mut receiver), Some(0));
    let said = cluster.printed("db");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    for part in ["\"from\":\"login\"", "\"chan\":3", "\"seq\":1", "\"text\":\"text\""] {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
    assert!(lines[1].contains("\"hex\":\"ff00\""), "{}", lines[1]);
}

#[test]
fn a_name_belongs_to_who_has_it_unless_somebody_says_replace() {
    let cluster = Cluster::start("replace");
    let mut first = cluster.receiver("db", &[]);
    let second = output(&["recv", "db", "--host", &cluster.abroad]);
    let said = badly(&second);
    assert!(said.contains(&format!("process {}", first.0.id())), "{said}");
    assert!(said.contains("--replace"), "{said}");
    let mut second =
        cluster.running("second", &["recv", "db", "--host", &cluster.abroad, "--replace"]);
    assert_eq!(end(&mut first), Some(1), "it was told that it is replaced");
    signal(&second, Signal::SIGINT);
    assert_eq!(end(&mut second), Some(0));
}

#[test]
fn a_ping_is_split_by_what_takes_the_time() {
    let cluster = Cluster::start("ping");
    let _receiver = cluster.receiver("db", &[]);
    let said = well(&cluster.at_home(&["ping", "db", "-c", "3", "-i", "0.01"]));
    for part in ["1: ", " = relay ", " + link ", " + process db ", "3 pings, 3 answers, 0 % lost"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let said = badly(&cluster.at_home(&["ping", "audit", "-c", "1"]));
    assert!(said.contains("no process is there as `audit`"), "{said}");
    let said = badly(&cluster.at_home(&["ping", "web", "-c", "1"]));
    assert!(said.contains("no process has registered as `web`"), "{said}");
}

#[test]
fn status_top_and_explain_show_what_is_there() {
    let cluster = Cluster::start("status");
    let _receiver = cluster.receiver("db", &[]);
    well(&cluster.at_home(&["send", "db", "x", "--as", "login"]));
    let said = well(&cluster.at_home(&["status"]));
    for part in [
        &format!("relay of host {}, cluster test", cluster.home),
        "processes: none",
        "other hosts: 1",
        " up ",
        "ring memory",
        "1 records",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let said = well(&cluster.at_home(&["status", "--json"]));
    assert!(said.starts_with('{') && said.contains("\"incarnation\""), "{said}");
    let said = well(&cluster.at_home(&["top", "-n", "2", "-i", "0.1"]));
    assert_eq!(said.matches("relay of host").count(), 2, "{said}");
    let said = well(&cluster.at_home(&["explain", "login", "db"]));
    for part in ["through two relays", "now, seen from host", "no process is there as login"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let without = well(&output(&["explain", "login", "db", "--config", &cluster.config]));
    assert!(said.starts_with(&without), "{said}\n{without}");
}

#[test]
fn perf_measures_between_two_names() {
    let cluster = Cluster::start("perf");
    let names = [format!("login@{}", cluster.home), format!("db@{}", cluster.abroad)];
    let arguments =
        ["perf", &names[0], &names[1], "--size", "64,1K", "--seconds", "0.05", "--rounds", "1"];
    let said = well(&output(&arguments));
    for part in ["through relays", "P99.9", "64 B", "1 KiB"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let said = badly(&output(&["perf", &names[0], "db@nowhere"]));
    assert!(said.contains("--connect"), "{said}");
}

#[test]
fn messages_wait_for_a_relay_that_was_killed_and_come_once() {
    let mut cluster = Cluster::start("killed");
    let mut receiver = cluster.receiver("db", &["--plain", "--count", "200"]);
    let arguments = ["send", "db", "--as", "login", "--host", &cluster.home, "--linger", "30"];
    let mut command = program(&arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut sender = Bounded(command.spawn().expect("the program starts"));
    let mut stdin = sender.0.stdin.take().expect("piped");
    for n in 0..200 {
        writeln!(stdin, "{n}").expect("it reads");
        if n == 100 {
            until("the first messages", || !cluster.printed("db").is_empty());
            // Dropping it is kill -9.
            drop(cluster.relays.remove(0));
            let again = cluster.relay(&cluster.home);
            cluster.relays.push(again);
        }
    }
    drop(stdin);
    assert_eq!((end(&mut sender), end(&mut receiver)), (Some(0), Some(0)));
    let numbers: String = (0..200).map(|n| format!("{n}\n")).collect();
    assert_eq!(cluster.printed("db"), numbers);
}
