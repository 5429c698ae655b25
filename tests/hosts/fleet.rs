//! The relays and processes of a cluster: started, told, listened to, killed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ledger::{now, seconds};
use crate::net::Net;

/// What takes longer than this does not happen any more.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is run; a copy of it, so that a build meanwhile changes nothing.
const RINGLANE: &str = env!("CARGO_BIN_EXE_ringlane");

/// A process and what it has said.
pub struct Running {
    child: Child,
    said: Arc<(Mutex<Vec<String>>, Condvar)>,
    what: String,
}

impl Running {
    fn start(command: &mut Command, what: &str, log: &Path) -> Running {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let said = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let (tell, out) = (Arc::clone(&said), child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                tell.0.lock().unwrap().push(line);
                tell.1.notify_all();
            }
        });
        let mut log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let errors = child.stderr.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                let _ = writeln!(log, "{:.3} {line}", seconds(now()));
            }
        });
        Running { child, said, what: what.into() }
    }

    pub fn order(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}")
            .unwrap_or_else(|error| panic!("{} on {line}: {error}", self.what));
    }

    /// How many lines it has said.
    pub fn lines(&self) -> usize {
        self.said.0.lock().unwrap().len()
    }

    /// The first line behind `from` that begins so.
    pub fn wait_for(&self, from: usize, begins: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.said.0.lock().unwrap();
        loop {
            if let Some(line) = lines[from..].iter().find(|line| line.starts_with(begins)) {
                return line.clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last = &lines[lines.len().saturating_sub(20)..];
                panic!(
                    "{} does not say `{begins}`; its last words:\n{}",
                    self.what,
                    last.join("\n")
                );
            }
            lines = self.said.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end; whether it was one with success.
    pub fn end(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < until, "{} does not end", self.what);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resident memory in KiB.
    pub fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process on the bus.
pub struct Agent {
    pub name: String,
    pub host: usize,
    pub run: Running,
    /// Its log.
    pub log: PathBuf,
    instances: usize,
}

/// A cluster that runs.
pub struct Fleet {
    pub agents: Vec<Agent>,
    pub relays: Vec<Running>,
    pub net: Net,
    folder: PathBuf,
}

impl Fleet {
    /// Starts hosts with their nodes. `more` is added to the configuration.
    pub fn start(hosts: &[(&str, &[&str])], more: &str) -> Fleet {
        let unique = format!("ringlane-hosts-{}-{}", std::process::id(), hosts.len());
        // A full disk's or a slow one's troubles are not what is tested.
        let memory = PathBuf::from("/dev/shm");
        let folder = if memory.is_dir() { memory } else { std::env::temp_dir() }.join(unique);
        fs::create_dir_all(&folder).unwrap();
        let names: Vec<&str> = hosts.iter().map(|(name, _)| *name).collect();
        let net = Net::new(&names, &folder);
        let mut config = String::from("[cluster]\nname = \"hosts\"\nsecret_file = \"secret\"\n");
        for (at, (name, nodes)) in hosts.iter().enumerate() {
            let address = net.address(at);
            config += &format!(
                "[[host]]\nname = \"{name}\"\nrelay = [\"tcp://{address}:7000\"]\n\
                 nodes = {nodes:?}\n"
            );
        }
        fs::write(folder.join("cluster.toml"), config + more).unwrap();
        let secret = folder.join("secret");
        fs::write(&secret, "a secret of at least thirty-two bytes, for a test\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        fs::copy(RINGLANE, folder.join("ringlane")).unwrap();
        let mut fleet = Fleet { agents: Vec::new(), relays: Vec::new(), net, folder };
        for host in 0..hosts.len() {
            let relay = fleet.relay(host, false);
            relay.wait_for(0, "relays ");
            fleet.relays.push(relay);
        }
        for (host, (_, nodes)) in hosts.iter().enumerate() {
            for node in *nodes {
                let (run, log) = fleet.agent(node, host, 0);
                let name = (*node).to_string();
                fleet.agents.push(Agent { name, host, run, log, instances: 1 });
            }
        }
        for agent in &fleet.agents {
            agent.run.wait_for(0, "here ");
        }
        fleet
    }

    /// One more relay of a host.
    pub fn relay(&self, host: usize, takeover: bool) -> Running {
        let (name, config) = (self.net.name(host), self.folder.join("cluster.toml"));
        let mut command = self.net.on(host, self.folder.join("ringlane"));
        command
            .args(["-v", "relay", "--host", name, "--socket", &socket(name), "--config"])
            .arg(config);
        if takeover {
            command.arg("--takeover");
        }
        let what = format!("relay {name}");
        Running::start(&mut command, &what, &self.folder.join(format!("relay-{name}.err")))
    }

    fn agent(&self, name: &str, host: usize, instance: usize) -> (Running, PathBuf) {
        let log = self.folder.join(format!("{name}.{instance}.log"));
        let mut command = self.net.on(host, self.folder.join("ringlane"));
        command.args(["agent", name, "--socket", &socket(self.net.name(host)), "--log"]).arg(&log);
        (Running::start(&mut command, name, &self.folder.join(format!("{name}.err"))), log)
    }

    /// Starts a process anew that was killed.
    pub fn again(&mut self, at: usize) {
        let (name, host) = (self.agents[at].name.clone(), self.agents[at].host);
        let (run, log) = self.agent(&name, host, self.agents[at].instances);
        let agent = &mut self.agents[at];
        (agent.run, agent.log) = (run, log);
        agent.instances += 1;
    }

    /// How often relays of a host have said that.
    pub fn count_errors(&self, host: usize, what: &str) -> usize {
        let path = self.folder.join(format!("relay-{}.err", self.net.name(host)));
        fs::read_to_string(path).unwrap_or_default().matches(what).count()
    }

    /// Waits until they have said it more than so often.
    pub fn wait_for_error(&self, host: usize, what: &str, often: usize) {
        let until = Instant::now() + PATIENCE;
        while self.count_errors(host, what) <= often {
            assert!(Instant::now() < until, "no relay of host {host} says: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What relays and processes wrote on stderr, to be printed when something is wrong.
    pub fn errors(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(&self.folder).unwrap().flatten() {
            if entry.path().extension().is_some_and(|ending| ending == "err") {
                let said = fs::read_to_string(entry.path()).unwrap_or_default();
                let lines: Vec<&str> = said.lines().collect();
                let last = lines[lines.len().saturating_sub(40)..].join("\n");
                text += &format!("-- {}\n{last}\n", entry.path().display());
            }
        }
        text
    }
}

fn socket(host: &str) -> String {
    format!("@relay-{host}")
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.errors());
        }
        self.agents.clear();
        self.relays.clear();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
