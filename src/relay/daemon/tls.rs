//! TLS under links: certificates of the cluster's configuration.

use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

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

/// How long certificates that were read are taken for what the files say: a renewed one is used
/// without a restart, and a crowd of strangers has no file read more than once in this time.
const FRESH: Duration = Duration::from_secs(1);

/// Our certificates, as they were read last.
#[derive(Default)]
pub struct Certificates(Option<(Instant, Result<Credentials, String>)>);

impl Certificates {
    /// They are read again for the next link.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    fn get(
        &mut self,
        now: Instant,
        read: impl FnOnce() -> Result<Credentials>,
    ) -> Result<Credentials> {
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < FRESH;
        if self.0.as_ref().is_none_or(|(at, _)| !fresh(at)) {
            let credentials = read().map_err(|error| error.to_string());
            if let Err(why) = &credentials {
                log::error!("no link has TLS: {why}");
            }
            self.0 = Some((now, credentials));
        }
        let (_, known) = self.0.as_ref().expect("it was put there above");
        known.clone().map_err(|why| Error::refused("tls", why))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        let what = format!("{}: {error}; see [tls] in the configuration", path.display());
        Error::refused("read a certificate", what)
    })
}

impl Inner {
    fn credentials(&self) -> Result<Credentials> {
        let cluster = Rc::clone(&self.cluster.borrow());
        let Some(tls) = &cluster.tls else {
            return Err(Error::refused("tls", "an address says tls+ and there is no [tls]"));
        };
        let files = tls.of(&self.options.host);
        self.links.borrow_mut().certificates.get(self.base.now(), || {
            Credentials::from_pem(
                &read(&files.authority)?,
                &read(&files.certificate)?,
                &read(&files.key)?,
            )
        })
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
