//! What a case runs on: a way to make bases, addresses, and what this row can do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringlane_api::{EventBase, Result};

/// Makes a base. Several bases of one thread can reach each other.
pub type Maker = Arc<dyn Fn() -> Result<EventBase> + Send + Sync>;

/// Forks, runs the function in the child, tells whether the child ended with `true`.
pub type InChild = fn(&mut dyn FnMut() -> bool) -> io::Result<bool>;

/// What needs the machine and therefore comes from the test binary.
#[derive(Clone, Copy, Default)]
pub struct Tools {
    /// Sends a signal to this process.
    pub raise: Option<fn(i32)>,
    /// Forks, runs the function in the child, and tells whether the child ended with `true`.
    pub in_child: Option<InChild>,
    /// Limits the number of open descriptors to so many more than are open, or lifts the limit.
    pub limit_fds: Option<fn(Option<usize>)>,
    /// Called on the case's thread when its bases are gone: what was left behind?
    pub left_behind: Option<fn() -> Vec<String>>,
    /// Lets the reactor sleep for another thread's sake (the simulator otherwise treats that as
    /// a stall).
    pub patient: Option<fn()>,
}

/// One row of the table.
#[derive(Clone)]
pub struct Rig {
    /// e.g. `tcp/u5`.
    pub row: String,
    /// `tcp`, `unix`, `shm` or `rdma`.
    pub scheme: &'static str,
    /// Addresses are paths and not hosts and ports.
    pub paths: bool,
    /// `shm` without the memory: its links go on through their sockets.
    pub without_memory: bool,
    /// Whether there is a kernel under it; otherwise time is virtual and descriptors are not.
    pub real: bool,
    /// How a base comes about.
    pub maker: Maker,
    /// What else it can do.
    pub tools: Tools,
}

/// Whether a transport's addresses are paths, where it has but one kind.
pub fn has_paths(scheme: &str) -> bool {
    ["unix", "shm"].contains(&scheme)
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Rig {
    /// A new base.
    ///
    /// # Panics
    /// Panics if there is none: the row was probed before.
    pub fn base(&self) -> EventBase {
        (self.maker)().expect("this row's base was made before")
    }

    /// Whether it is this transport.
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme == scheme
    }

    /// Whether a link of this transport is a descriptor and nothing more.
    pub fn links_are_descriptors(&self) -> bool {
        ["tcp", "unix"].contains(&self.scheme)
    }

    /// Whether addresses of this transport are hosts and ports.
    pub fn has_hosts(&self) -> bool {
        !self.paths
    }

    /// Whether bytes go through memory that two processes share, and not through the kernel.
    pub fn shares_memory(&self) -> bool {
        self.is("shm") && !self.without_memory || self.is("rdma") && self.paths
    }

    /// An address to listen on that nobody else uses.
    pub fn address(&self) -> String {
        let query = if self.without_memory { "?fallback=unix&budget=0" } else { "" };
        match self.paths {
            true => format!("{}://{}{query}", self.scheme, self.path("s").display()),
            false => format!("{}://127.0.0.1:0", self.scheme),
        }
    }

    /// An address on which nobody listens.
    pub fn nobody(&self) -> String {
        match self.paths {
            true => format!("{}://{}", self.scheme, self.path("nobody").display()),
            false => format!("{}://127.0.0.1:1", self.scheme),
        }
    }

    /// An abstract name that nobody else uses.
    pub fn abstract_name(&self) -> String {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        format!("unix://@ringlane-kit-{}-{n}", std::process::id())
    }

    /// A path that nobody else uses, in this run's directory.
    ///
    /// # Panics
    /// Panics if the directory cannot be made.
    pub fn path(&self, name: &str) -> PathBuf {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = directory();
        std::fs::create_dir_all(&dir).expect("a temporary directory can be made");
        dir.join(format!("{name}{n}"))
    }

    /// `real` on a kernel, `virtual_` in the simulator, where each byte costs more.
    pub fn scaled<T>(&self, real: T, virtual_: T) -> T {
        if self.real { real } else { virtual_ }
    }
}

/// This run's directory for sockets and files.
pub(super) fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("ringlane-kit-{}", std::process::id()))
}
