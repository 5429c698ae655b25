//! What a reactor is told when it is made.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ringlane_api::{Error, Result, limits};

/// The variable that names the engine.
const VARIABLE: &str = "RINGLANE_ENGINE";

/// Which engine to take. Naming one insists on it.
///
/// ```
/// use ringlane_reactor::Engine;
/// assert_eq!("u3".parse::<Engine>()?, Engine::Tier(3));
/// assert!("kqueue".parse::<Engine>().unwrap_err().to_string().contains("epoll"));
/// # Ok::<(), ringlane_api::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Engine {
    /// io_uring where the kernel lets us, else epoll.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// epoll.
    Epoll,
    /// io_uring with the features of this tier (1 to 5) and no later ones, or an error.
    Tier(u8),
}

impl FromStr for Engine {
    type Err = Error;

    fn from_str(text: &str) -> Result<Engine> {
        match text {
            "auto" => Ok(Engine::Auto),
            "uring" => Ok(Engine::Uring),
            "epoll" => Ok(Engine::Epoll),
            "u1" => Ok(Engine::Tier(1)),
            "u2" => Ok(Engine::Tier(2)),
            "u3" => Ok(Engine::Tier(3)),
            "u4" => Ok(Engine::Tier(4)),
            "u5" => Ok(Engine::Tier(5)),
            other => Err(Error::refused(
                "choose engine",
                format!("`{other}` is none of auto, uring, epoll, u1, u2, u3, u4, u5"),
            )),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Engine::Auto => f.write_str("auto"),
            Engine::Uring => f.write_str("uring"),
            Engine::Epoll => f.write_str("epoll"),
            Engine::Tier(tier) => write!(f, "u{tier}"),
        }
    }
}

/// Faults that an engine plays to itself, for tests: the same ones at the same places in every
/// run. All zero plays none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fault {
    /// Every so many-th wait fails (io_uring_enter, epoll_wait); 0 for none.
    pub wait_every: u32,
    /// With this errno.
    pub wait_errno: i32,
    /// Every so many-th send takes one byte only; 0 for none.
    pub short_send_every: u32,
    /// Where the sequence behind the chances below starts. Only uring plays them.
    pub seed: u64,
    /// Of a thousand waits, so many fail (`EINTR`, `EAGAIN`, `EBUSY`, `ENOMEM`).
    pub enter_per_mille: u16,
    /// Of a thousand sends and receives, so many are cut short.
    pub short_per_mille: u16,
    /// Of a thousand armed receives, so many find no block.
    pub no_blocks_per_mille: u16,
    /// Of a thousand completions of a multishot, so many end it.
    pub ended_per_mille: u16,
    /// Of a thousand completions, so many come some turns late, behind others.
    pub late_per_mille: u16,
}

impl Fault {
    /// No fault at all; the rest of a constant plan.
    pub const NONE: Fault = Fault {
        wait_every: 0,
        wait_errno: 0,
        short_send_every: 0,
        seed: 0,
        enter_per_mille: 0,
        short_per_mille: 0,
        no_blocks_per_mille: 0,
        ended_per_mille: 0,
        late_per_mille: 0,
    };
}

/// What a reactor is told when it is made. The default is right for a server.
///
/// ```
/// use ringlane_reactor::{Config, Engine};
/// let config = Config { engine: Engine::Epoll, ..Config::default() };
/// assert_eq!(config.block_bytes, 16 * 1024);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Which engine.
    pub engine: Engine,
    /// Entries of the submission queue; what does not fit waits in a backlog.
    pub sq_entries: u32,
    /// Entries of the completion queue.
    pub cq_entries: u32,
    /// Blocks posted for receiving at first.
    pub ring_blocks: usize,
    /// Blocks posted at most.
    pub ring_blocks_max: usize,
    /// Bytes in a received block.
    pub block_bytes: usize,
    /// Blocks kept when idle.
    pub home_blocks_max: usize,
    /// How long the set-up of a ring is tried again on `ENOMEM`.
    pub setup_retry: Duration,
    /// Do without the byte limit of a multishot receive although the kernel has it.
    pub no_byte_limit: bool,
    /// Faults to play, for tests.
    pub fault: Option<Fault>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            engine: Engine::Auto,
            sq_entries: 1024,
            cq_entries: 4096,
            ring_blocks: limits::RING_BLOCKS,
            ring_blocks_max: limits::RING_BLOCKS_MAX,
            block_bytes: limits::BLOCK_BYTES,
            home_blocks_max: limits::HOME_BLOCKS_MAX,
            setup_retry: limits::SETUP_RETRY,
            no_byte_limit: false,
            fault: None,
        }
    }
}

impl Config {
    /// The default with what the environment says: `RINGLANE_ENGINE` is one of `auto`, `uring`,
    /// `epoll`, `u1` to `u5`. This is the only place that reads it.
    pub fn from_env() -> Result<Config> {
        let mut config = Config::default();
        match std::env::var(VARIABLE) {
            Ok(name) if name.is_empty() => {}
            Ok(name) => config.engine = name.parse().map_err(|error: Error| error.at(VARIABLE))?,
            Err(std::env::VarError::NotPresent) => {}
            Err(error) => {
                return Err(Error::refused("choose engine", error.to_string()).at(VARIABLE));
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_prints_as_it_is_written() {
        for name in ["auto", "uring", "epoll", "u1", "u2", "u3", "u4", "u5"] {
            assert_eq!(name.parse::<Engine>().expect("valid").to_string(), name);
        }
    }

    #[test]
    fn an_unknown_engine_is_refused_with_the_valid_names() {
        let error = "u6".parse::<Engine>().expect_err("unknown").to_string();
        assert!(error.contains("`u6`") && error.contains("auto, uring, epoll, u1"), "{error}");
    }
}
