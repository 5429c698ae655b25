//! Two relays on threads of their own, and what they log.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, mpsc};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use ringlane::cluster::Cluster;
use ringlane::prelude::*;
use ringlane::relay::daemon::{Options, Relay};
use ringlane::relay::handshake::Identity;

use super::pair::Pairs;

/// What only relays of the cluster know.
pub const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// After so long a test is hung, not slow.
pub const PATIENCE: Duration = Duration::from_secs(120);

const CALM: &str = "[link]\nhandshake = \"60s\"\ndead_after = \"60s\"";

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        LOG.lock().unwrap().push(format!("{}: {}", record.level(), record.args()));
    }
    fn flush(&self) {}
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let step = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    while !holds() {
        assert!(waited < PATIENCE, "it never came: {what}");
        sleep(step);
        waited += step;
    }
}

/// Waits until a relay has logged it.
pub fn logged(what: &str) {
    until(what, || LOG.lock().unwrap().iter().any(|line| line.contains(what)));
}

/// Relays of hosts a and b; of host c there is none. Processes web, cache, victim and chatty on a,
/// db on b. Nodes s0 to s9 on a and c0, c1 on c are for strangers.
pub struct World {
    pub name: String,
    pub ports: [u16; 3],
    pub sockets: [String; 2],
    pub pairs: Pairs,
    relays: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    dir: PathBuf,
}

/// The file of a world.
pub fn config(dir: &Path) -> PathBuf {
    dir.join("cluster.toml")
}

/// Ports that are free now.
fn ports() -> [u16; 3] {
    let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|one| one.local_addr().unwrap().port())
}

impl World {
    pub fn new() -> World {
        World::with("tcp", "", |_| {})
    }

    /// One whose configuration has more in it, and whose folder was furnished.
    pub fn with(scheme: &str, more: &str, furnish: impl FnOnce(&Path)) -> World {
        static TIMES: AtomicU32 = AtomicU32::new(0);
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            log::set_logger(&Keep).unwrap();
            log::set_max_level(log::LevelFilter::Info);
        });
        let times = TIMES.fetch_add(1, Ordering::Relaxed);
        let name = format!("bad-{}-{times}", std::process::id());
        let dir = std::env::temp_dir().join(format!("ringlane-{name}"));
        fs::create_dir_all(&dir).unwrap();
        let secret = dir.join("the.secret");
        fs::write(&secret, SECRET).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        furnish(&dir);
        let ports = ports();
        let [a, b, c] = ports.map(|port| format!("{scheme}://127.0.0.1:{port}"));
        let strangers: Vec<String> = (0..10).map(|n| format!("\"s{n}\"")).collect();
        let strangers = strangers.join(", ");
        // The machine may be busy: nobody is shown out for that.
        let calm = if more.contains("[link]") { "" } else { CALM };
        let text = format!(
            r#"
[cluster]
name = "{name}"
secret_file = "the.secret"
[[host]]
name = "a"
relay = ["{a}"]
nodes = ["web", "cache", "victim", "chatty", {strangers}]
[[host]]
name = "b"
relay = ["{b}"]
nodes = ["db"]
[[host]]
name = "c"
relay = ["{c}"]
nodes = ["c0", "c1"]
[[channel]]
from = "*"
to = "*"
path = "relay"
ring = "64KiB"
{calm}
{more}
"#
        );
        let config = config(&dir);
        fs::write(&config, text).unwrap();
        let sockets = ["a", "b"].map(|host| format!("unix://@ringlane-{name}-{host}"));
        let over = Arc::new(AtomicBool::new(false));
        let relays = ["a", "b"].into_iter().zip(&sockets);
        let relays = relays.map(|(host, at)| start(&config, host, at, &over)).collect();
        let pairs = Pairs::start(&sockets);
        let world = World { name, ports, sockets, pairs, relays, over, dir };
        world.goes_on();
        world
    }

    /// Changes the text of its configuration.
    pub fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let file = config(&self.dir);
        fs::write(&file, change(fs::read_to_string(&file).unwrap())).unwrap();
    }

    /// A connection to the socket of host a.
    pub fn local(&self) -> UnixStream {
        let name = self.sockets[0].trim_start_matches("unix://@");
        let stream =
            UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Who says it is the relay of a host, with the cluster's secret.
    pub fn identity(&self, host: &str) -> Identity {
        static TIMES: AtomicU32 = AtomicU32::new(0);
        let mut instance = [0xff; 16];
        let later = TIMES.fetch_add(1, Ordering::Relaxed);
        instance[4..8].copy_from_slice(&later.to_be_bytes());
        Identity::new(&self.name, host, instance, SECRET)
    }

    /// The good pairs get on.
    #[track_caller]
    pub fn goes_on(&self) {
        let before = self.pairs.got();
        until("the good pairs get on", || {
            assert!(!self.relays.iter().any(JoinHandle::is_finished), "a relay has panicked");
            self.pairs.got().iter().zip(before).all(|(now, before)| *now >= before + 30)
        });
    }

    /// The good pairs get on and end: nothing of theirs was lost, nothing came twice.
    pub fn end(self) {
        self.goes_on();
        self.pairs.end();
        self.over.store(true, Ordering::Relaxed);
        for relay in self.relays {
            relay.join().expect("a relay panics over nothing that it is told");
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn start(config: &Path, host: &str, socket: &str, over: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (ready, started) = mpsc::channel();
    let (config, over) = (config.to_path_buf(), Arc::clone(over));
    let options = Options {
        host: host.to_string(),
        socket: socket.to_string(),
        uid: nix::unistd::geteuid().as_raw(),
        pid: std::process::id(),
        drain: Duration::from_secs(1),
    };
    let relay = spawn(move || {
        let base = EventBase::new().unwrap();
        let cluster = Cluster::load(&config).expect("the configuration is right");
        let relay = Relay::start(&base, cluster, options).expect("it starts");
        relay.reload_from(&config);
        base.every(Duration::from_millis(20), move |timer| {
            if over.load(Ordering::Relaxed) {
                timer.base().unwrap().stop();
            }
        });
        ready.send(()).unwrap();
        base.dispatch().unwrap();
    });
    started.recv_timeout(PATIENCE).expect("the relay listens");
    relay
}

/// Chance that can be had again.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut x = self.0;
        x ^= x >> 33;
        x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
        x ^ (x >> 33)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.roll() as u8).collect()
    }
}
