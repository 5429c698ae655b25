//! The link that introduces: of either of two families, as one transport inside.

use std::io;

use ringlane_api::address::Address;
use ringlane_api::error::Result;
use ringlane_api::fd::Fd;
use ringlane_api::reactor::{SockName, Sys};
use ringlane_api::stream::{Family, Target};
use ringlane_api::transport::{Caps, LinkOptions, ListenOptions};

use super::SCHEME;

/// Both families; an address or a name says which one is meant.
pub(crate) struct Below<T, U> {
    pub(crate) tcp: T,
    pub(crate) unix: U,
}

impl<T: Family, U: Family> Below<T, U> {
    fn of(&self, address: &Address) -> &dyn Family {
        if address.scheme() == self.unix.scheme() { &self.unix } else { &self.tcp }
    }

    fn named(&self, name: &SockName) -> &dyn Family {
        if matches!(name, SockName::Inet(_)) { &self.tcp } else { &self.unix }
    }
}

impl<T: Family, U: Family> Family for Below<T, U> {
    fn scheme(&self) -> &'static str {
        SCHEME
    }

    fn caps(&self) -> &Caps {
        self.unix.caps()
    }

    fn target(&self, address: &Address) -> Result<Target> {
        self.of(address).target(address)
    }

    fn socket(&self, sys: &mut dyn Sys, name: &SockName) -> io::Result<Fd> {
        self.named(name).socket(sys, name)
    }

    fn configure(
        &self,
        sys: &mut dyn Sys,
        fd: &Fd,
        address: Option<&Address>,
        options: &LinkOptions,
    ) -> io::Result<()> {
        let family = address.map_or(&self.tcp as &dyn Family, |address| self.of(address));
        family.configure(sys, fd, address, options)
    }

    fn listen(
        &self,
        sys: &mut dyn Sys,
        at: &Address,
        name: &SockName,
        options: &ListenOptions,
    ) -> Result<Fd> {
        self.of(at).listen(sys, at, name, options)
    }

    fn unlisten(&self, sys: &mut dyn Sys, name: &SockName) {
        self.named(name).unlisten(sys, name);
    }

    fn address_of(&self, name: &SockName) -> Option<Address> {
        self.named(name).address_of(name)
    }

    fn takes(&self, _sys: &mut dyn Sys, _fd: &Fd) -> bool {
        false
    }
}
