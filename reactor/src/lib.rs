//! The only door to the kernel: io_uring, epoll, and the calls that are answered at once.
//!
//! ```text
//!   best(&Config) --auto--> uring::Uring::new --refused--> epoll::Epoll::new  (one warning)
//!                 --uN----> uring::Uring::new --refused--> an error that says the same
//!                 --epoll-> epoll::Epoll::new
//! ```
//!
//! Backends are chosen here and named nowhere else.
//!
//! A program in Rust ignores `SIGPIPE` unless it says otherwise; one in another language should,
//! because writes to pipes and sendfile(2) cannot be told not to raise it.

#![deny(unsafe_code)]
// Each engine uses its part of what they share; only a build with both uses all of it.
#![cfg_attr(not(all(feature = "uring", feature = "epoll")), allow(dead_code, unused_imports))]

mod attempt;
pub mod config;
mod refusal;
mod resolve;
#[allow(unsafe_code)]
mod sys;
mod wake;

#[cfg(feature = "epoll")]
mod epoll;
#[cfg(not(feature = "epoll"))]
#[path = "epoll_absent.rs"]
mod epoll;
#[cfg(feature = "uring")]
#[allow(unsafe_code)]
mod uring;
#[cfg(not(feature = "uring"))]
#[path = "uring_absent.rs"]
mod uring;

use ringlane_api::reactor::{EngineReport, Reactor};
use ringlane_api::{Error, Result};

pub use config::{Config, Engine, Fault};

/// The engine that `config` asks for; the best one there is for [`Engine::Auto`].
///
/// ```
/// use ringlane_reactor::{Config, best};
/// let reactor = best(&Config::default())?;
/// assert!(["uring", "epoll"].contains(&reactor.name()));
/// # Ok::<(), ringlane_api::Error>(())
/// ```
pub fn best(config: &Config) -> Result<Box<dyn Reactor>> {
    let refused = match config.engine {
        Engine::Epoll => return epoll(config, None),
        Engine::Uring | Engine::Tier(_) | Engine::Auto => match uring::Uring::new(config) {
            Ok(engine) => return Ok(Box::new(engine)),
            Err(error) => error,
        },
    };
    let cause = refusal::cause(&refused);
    if config.engine != Engine::Auto {
        return Err(Error::new("open engine", refused).at(config.engine).because(cause));
    }
    log::warn!("{cause}; falling back to epoll");
    epoll(config, Some(cause))
}

/// What [`best`] would take, and why.
pub fn probe(config: &Config) -> EngineReport {
    match best(config) {
        Ok(engine) => engine.report(),
        Err(error) => EngineReport {
            engine: "none",
            tier: "-",
            fell_back: Some(error.to_string()),
            ..EngineReport::default()
        },
    }
}

fn epoll(config: &Config, fell_back: Option<String>) -> Result<Box<dyn Reactor>> {
    match epoll::Epoll::new(config, fell_back) {
        Ok(engine) => Ok(Box::new(engine)),
        Err(error) => Err(Error::new("open engine", error).at(Engine::Epoll)),
    }
}
