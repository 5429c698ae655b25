//! The epoll engine of a build without it: refuses, and says so.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlane_api::reactor::{
    Completion, Counters, EngineReport, Op, OpId, Reactor, Sys, Token, Wake,
};
use ringlane_api::segment::Home;

use crate::config::Config;

/// An engine that cannot be made.
pub(crate) struct Epoll(Infallible);

impl Epoll {
    /// Refuses.
    pub(crate) fn new(_: &Config, _: Option<String>) -> io::Result<Epoll> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this build has no `epoll` feature"))
    }
}

impl Reactor for Epoll {
    fn name(&self) -> &'static str {
        match self.0 {}
    }
    fn now(&self) -> Instant {
        match self.0 {}
    }
    fn push(&mut self, _: Token, _: Op) -> OpId {
        match self.0 {}
    }
    fn cancel(&mut self, _: OpId) {
        match self.0 {}
    }
    fn turn(&mut self, _: Option<Duration>, _: &mut Vec<Completion>) -> io::Result<()> {
        match self.0 {}
    }
    fn sys(&mut self) -> &mut dyn Sys {
        match self.0 {}
    }
    fn home(&self) -> &Rc<Home> {
        match self.0 {}
    }
    fn waker(&self) -> Arc<dyn Wake> {
        match self.0 {}
    }
    fn reinit(&mut self) -> io::Result<()> {
        match self.0 {}
    }
    fn report(&self) -> EngineReport {
        match self.0 {}
    }
    fn counters(&self) -> Counters {
        match self.0 {}
    }
}
