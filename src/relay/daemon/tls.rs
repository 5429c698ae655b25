//! TLS under links: certificates of the cluster's configuration.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use crate::relay::tls::{Credentials, Tls};
use crate::{Bufferevent, Error, Result};

use super::Inner;

/// What vouches for the other end of a link: its certificate.
pub struct Shield(Tls);

impl Shield {
    /// Whether the other end may call itself so.
    pub fn vouches_for(&self, host: &str) -> bool {
        self.0.is(host)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        let what = format!("{}: {error}; see [tls] in the configuration", path.display());
        Error::refused("read a certificate", what)
    })
}

impl Inner {
    /// Our certificate, read anew for each link, so that a renewed one is taken without a restart.
    fn credentials(&self) -> Result<Credentials> {
        let cluster = Rc::clone(&self.cluster.borrow());
        let Some(tls) = &cluster.tls else {
            return Err(Error::refused("tls", "an address says tls+ and there is no [tls]"));
        };
        let files = tls.of(&self.options.host);
        Credentials::from_pem(
            &read(&files.authority)?,
            &read(&files.certificate)?,
            &read(&files.key)?,
        )
    }

    pub(super) fn dial_tls(
        self: &Rc<Self>,
        bev: Bufferevent,
        host: &str,
    ) -> Result<(Bufferevent, Option<Shield>)> {
        let made = self.credentials().and_then(|credentials| credentials.dialler(host));
        self.put_over(bev, made)
    }

    pub(super) fn accept_tls(
        self: &Rc<Self>,
        bev: Bufferevent,
    ) -> Result<(Bufferevent, Option<Shield>)> {
        let made = self.credentials().and_then(|credentials| credentials.acceptor());
        self.put_over(bev, made)
    }

    fn put_over(
        &self,
        bev: Bufferevent,
        made: Result<Tls>,
    ) -> Result<(Bufferevent, Option<Shield>)> {
        match made {
            Ok(tls) => Ok((tls.put_over(&self.base, bev), Some(Shield(tls)))),
            Err(error) => {
                bev.abort();
                Err(error)
            }
        }
    }
}
