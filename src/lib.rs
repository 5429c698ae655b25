//! An io_uring transport with a libevent-shaped API, Linux only. One [`EventBase`] with
//! [`Event`], [`Bufferevent`], [`Evbuffer`] and [`Listener`]; one interface over `tcp://`,
//! `unix://` and `shm://`, so that a program swaps its transport by changing an address. io_uring
//! is the default engine, epoll the automatic fallback.
//!
//! A server:
//!
//! ```no_run
//! use ringlane::prelude::*;
//!
//! fn main() -> ringlane::Result<()> {
//!     let base = EventBase::new()?;
//!     base.listen("tcp://127.0.0.1:7000", |conn| {
//!         conn.on_read(|c| c.output().append(c.input())); // echo, no copy
//!         conn.on_event(|c, e| if e.is_end() { c.free() });
//!         conn.enable(READ);
//!     })?;
//!     base.on_signal(Signal::SIGTERM, |b| b.stop())?;
//!     base.dispatch()
//! }
//! ```

#![forbid(unsafe_code)]

#[cfg(feature = "bus")]
pub mod bus;
#[cfg(feature = "relay")]
pub mod cluster;
#[cfg(feature = "program")]
pub mod forward;
#[cfg(feature = "relay")]
pub mod frame;
mod registry;
#[cfg(feature = "relay")]
pub mod relay;

#[cfg(feature = "program")]
pub use registry::about;
#[cfg(all(feature = "program", feature = "shm"))]
#[doc(hidden)]
pub use registry::map;
#[cfg(feature = "shm")]
pub use registry::shm;
pub use registry::{KNOWN, local_addresses};
pub use ringlane_api::{
    Address, BaseStats, BevEvent, Buffer, Bufferevent, Direction, Eol, Error, Evbuffer, Event,
    EventBase, Filter, Handler, Known, LinkInfo, LinkOptions, ListenOptions, Listener, READ,
    Remote, Result, Side, Signal, Source, Turn, WRITE, What,
};
pub use ringlane_api::{evbuffer, fd, limits, transport};

/// Engines: which there are, how one is chosen.
pub mod reactor {
    pub use ringlane_api::reactor::{Counters, EngineReport, Feature, Reactor, SockName};
    pub use ringlane_reactor::{Config, Engine, Fault, best, probe};
}

/// What a program needs: `use ringlane::prelude::*`.
pub mod prelude {
    pub use crate::New;
    pub use crate::{
        BevEvent, Bufferevent, Eol, Error, Evbuffer, Event, EventBase, Handler, LinkOptions,
        ListenOptions, Listener, READ, Result, Side, Signal, Turn, WRITE, What,
    };
}

/// Makes an [`EventBase`] with the engines and the transports of this build. A trait, because the
/// base's own crate knows neither.
pub trait New: Sized {
    /// A base over the engine that the environment variable `RINGLANE_ENGINE` names (`auto`,
    /// `uring`, `epoll`, `u1` … `u5`), or over the best there is.
    ///
    /// ```
    /// use ringlane::prelude::*;
    /// let base = EventBase::new()?;
    /// assert!(["uring", "epoll"].contains(&base.report().engine));
    /// # Ok::<(), ringlane::Error>(())
    /// ```
    fn new() -> Result<Self>;

    /// A base over the engine that `config` asks for.
    ///
    /// ```
    /// use ringlane::prelude::*;
    /// use ringlane::reactor::{Config, Engine};
    /// # if cfg!(feature = "epoll") {
    /// let base = EventBase::with_config(&Config { engine: Engine::Epoll, ..Config::default() })?;
    /// assert_eq!(base.report().engine, "epoll");
    /// # }
    /// # Ok::<(), ringlane::Error>(())
    /// ```
    fn with_config(config: &reactor::Config) -> Result<Self>;
}

impl New for EventBase {
    fn new() -> Result<EventBase> {
        EventBase::with_config(&reactor::Config::from_env()?)
    }

    fn with_config(config: &reactor::Config) -> Result<EventBase> {
        let base = EventBase::with(reactor::best(config)?, registry::transports());
        base.know(KNOWN);
        Ok(base)
    }
}
