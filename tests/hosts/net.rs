//! Hosts: network namespaces around one bridge.
//!
//! Invariant: nothing outlives this process. The bridge is in a namespace of its own, each host's
//! namespace is that of a child which ends with our end of its stdin, and whoever enters a
//! namespace dies with who sent him in.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use nix::unistd::{getgid, getuid};

/// A network.
pub struct Net {
    hosts: Vec<Host>,
}

struct Host {
    name: String,
    holder: Child,
}

/// How a host is cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Its cable is pulled.
    Cable(usize),
    /// Packets between two hosts are dropped.
    Between(usize, usize),
}

/// Leaves the machine's network, as root or as root of a user namespace; or says why not.
pub fn move_out() -> Result<(), String> {
    if Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_err() {
        return Err("no ip (iproute2)".into());
    }
    let (uid, gid) = (getuid(), getgid());
    if uid.is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| format!("no namespaces for this user: {errno}"))?;
    let maps = [
        ("setgroups", "deny".into()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ];
    for (map, text) in maps {
        let path = format!("/proc/self/{map}");
        fs::write(&path, text).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

pub fn has_nft() -> bool {
    Command::new("nft").arg("-v").stdout(Stdio::null()).status().is_ok()
}

/// `hosts hold FOLDER`: a namespace until stdin ends; then the folder goes, too.
pub fn hold(folder: &str) -> ExitCode {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("unshare: {errno}");
        return ExitCode::FAILURE;
    }
    println!("held");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let _ = fs::remove_dir_all(folder);
    ExitCode::SUCCESS
}

/// `hosts enter PID PROGRAM ...`: the program in the namespace of a process.
pub fn enter(pid: &str, program: &str, args: &[&str]) -> ExitCode {
    let into = || -> Result<(), String> {
        let space = File::open(format!("/proc/{pid}/ns/net")).map_err(|error| error.to_string())?;
        setns(space, CloneFlags::CLONE_NEWNET).map_err(|errno| format!("setns: {errno}"))?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| errno.to_string())
    };
    let error = match into() {
        Ok(()) => Command::new(program).args(args).exec().to_string(),
        Err(error) => error,
    };
    eprintln!("{program} in the namespace of {pid}: {error}");
    ExitCode::FAILURE
}

fn ourselves() -> Command {
    Command::new("/proc/self/exe")
}

fn must(command: &mut Command) {
    let out = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {}: {said}", out.status);
}

fn ip(text: &str) {
    must(Command::new("ip").args(text.split_whitespace()));
}

impl Net {
    /// Hosts with addresses 10.77.0.1 and so on. The folder goes when they do.
    pub fn new(names: &[&str], folder: &Path) -> Net {
        ip("link add name br0 type bridge");
        ip("link set br0 up");
        let mut net = Net { hosts: Vec::new() };
        for name in names {
            let mut holder = ourselves()
                .arg("hold")
                .arg(folder)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                // Ctrl-C is for the others: it is the end of stdin that ends it.
                .process_group(0)
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "held\n", "a namespace for host {name}");
            net.hosts.push(Host { name: (*name).into(), holder });
        }
        for host in 0..names.len() {
            net.plug(host);
        }
        net
    }

    fn plug(&self, host: usize) {
        let (pid, mac) = (self.hosts[host].holder.id(), mac_of(host));
        // One of the cluster before: the kernel takes its time to remove the space that had it.
        let before = Command::new("ip").args(["link", "del", &format!("port{host}")]).output();
        assert!(before.is_ok(), "{before:?}");
        ip(&format!("link add name port{host} type veth peer name eth0 address {mac} netns {pid}"));
        ip(&format!("link set port{host} master br0 up"));
        self.ip(host, "link set lo up");
        self.ip(host, &format!("addr add {}/24 dev eth0", self.address(host)));
        self.ip(host, "link set eth0 up");
        // The kernel asks once a second who has an address: that is not what is measured here.
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            let (to, its) = (self.address(other), mac_of(other));
            self.ip(host, &format!("neigh replace {to} lladdr {its} dev eth0 nud permanent"));
        }
        if has_nft() {
            let chain = |name: &str, hook: &str| {
                format!("add chain inet hosts {name} {{ type filter hook {hook} priority 0; }}\n")
            };
            let chains = ["cut", "loss"].map(|name| chain(name, "input")).concat();
            self.nft(host, &format!("add table inet hosts\n{chains}"));
        }
    }

    pub fn address(&self, host: usize) -> String {
        format!("10.77.0.{}", host + 1)
    }

    pub fn name(&self, host: usize) -> &str {
        &self.hosts[host].name
    }

    /// A command that runs on a host, and dies with this process.
    pub fn on(&self, host: usize, program: impl AsRef<OsStr>) -> Command {
        let mut command = ourselves();
        command.arg("enter").arg(self.hosts[host].holder.id().to_string()).arg(program);
        command
    }

    fn ip(&self, host: usize, text: &str) {
        must(self.on(host, "ip").args(text.split_whitespace()));
    }

    fn nft(&self, host: usize, text: &str) {
        let mut command = self.on(host, "nft");
        let mut nft = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft: {text}");
    }

    pub fn cut(&self, cut: Cut) {
        match cut {
            Cut::Cable(host) => ip(&format!("link set port{host} down")),
            Cut::Between(a, b) => {
                for (here, there) in [(a, b), (b, a)] {
                    let from = self.address(there);
                    self.nft(here, &format!("add rule inet hosts cut ip saddr {from} drop\n"));
                }
            }
        }
    }

    pub fn heal(&self, cut: Cut) {
        match cut {
            Cut::Cable(host) => ip(&format!("link set port{host} up")),
            Cut::Between(a, b) => {
                for host in [a, b] {
                    self.nft(host, "flush chain inet hosts cut\n");
                }
            }
        }
    }

    /// So many of a hundred packets that come to any host do not.
    pub fn lose(&self, percent: u32) {
        for host in 0..self.hosts.len() {
            let rule = format!("numgen random mod 100 < {percent} drop");
            self.nft(host, &format!("add rule inet hosts loss iifname \"eth0\" {rule}\n"));
        }
    }
}

fn mac_of(host: usize) -> String {
    format!("02:00:00:00:77:{:02x}", host + 1)
}

impl Drop for Net {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            drop(host.holder.stdin.take());
            let _ = host.holder.wait();
        }
        let _ = Command::new("ip").args(["link", "del", "br0"]).status();
    }
}
