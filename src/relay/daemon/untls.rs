//! A build without TLS.

use std::rc::Rc;

use crate::{Bufferevent, Error, Result};

use super::Inner;

/// What vouches for the other end of a link: nothing here.
pub enum Shield {}

impl Shield {
    pub fn vouches_for(&self, _host: &str) -> bool {
        match *self {}
    }
}

/// Certificates: none here.
#[derive(Default)]
pub struct Certificates;

impl Certificates {
    pub fn forget(&mut self) {}
}

fn missing() -> Error {
    Error::refused("tls", "this build has no TLS; build with --features tls")
}

impl Inner {
    pub(super) fn dial_tls(
        self: &Rc<Self>,
        bev: Bufferevent,
        _host: &str,
    ) -> Result<(Bufferevent, Option<Shield>)> {
        bev.abort();
        Err(missing())
    }

    pub(super) fn accept_tls(
        self: &Rc<Self>,
        bev: Bufferevent,
    ) -> Result<(Bufferevent, Option<Shield>)> {
        bev.abort();
        Err(missing())
    }
}
