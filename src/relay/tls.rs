//! TLS 1.3 under a relay link: both ends show a certificate of the cluster's own authority, in
//! which the name of their host stands.
//!
//! ```text
//!   Bufferevent of the link      handshake and frames, in the clear
//!        Tls, a filter           records of TLS
//!   Bufferevent under it         tcp://, unix://
//! ```
//!
//! An address `tls+tcp://host:port` is this over `tcp://host:port` ([`under`]). The proof of the
//! secret follows inside: TLS says which host it is, [`handshake`](super::handshake) that it is a
//! relay of this cluster, and [`Tls::is`] that the two say the same.
//!
//! Invariant: until the handshake of TLS is done nothing is handed up and nothing written leaves;
//! what waits, waits in the buffers of the two bufferevents, where their watermarks see it.

mod machine;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::{Bufferevent, Error, Evbuffer, EventBase, Filter, Result};
use machine::Machine;

/// What a client and a server say they want to speak inside, so that neither takes something else
/// for a relay.
const ALPN: &[u8] = b"ringlane-relay";

/// The address under a TLS one, and nothing for others.
///
/// ```
/// use ringlane::relay::tls::under;
/// assert_eq!(under("tls+tcp://10.0.0.1:7000"), Some("tcp://10.0.0.1:7000"));
/// assert_eq!(under("tcp://10.0.0.1:7000"), None);
/// ```
pub fn under(address: &str) -> Option<&str> {
    address.strip_prefix("tls+")
}

/// Whether a certificate can name `host`, which has to be a DNS name: letters, digits, `-`, `.`
/// and `_`.
///
/// ```
/// use ringlane::relay::tls::is_host_name;
/// assert!(is_host_name("a") && is_host_name("db-1.example.org"));
/// assert!(!is_host_name("db@b"));
/// ```
pub fn is_host_name(host: &str) -> bool {
    matches!(ServerName::try_from(host), Ok(ServerName::DnsName(_)))
}

/// What a relay needs for TLS, the same for all of its links.
#[derive(Clone)]
pub struct Credentials {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// From three texts in PEM: the authorities whose certificates are trusted, our own
    /// certificate and those between it and an authority, and its private key.
    pub fn from_pem(authorities: &[u8], chain: &[u8], key: &[u8]) -> Result<Credentials> {
        let mut roots = RootCertStore::empty();
        for authority in certificates("authorities", authorities)? {
            roots.add(authority).map_err(|error| bad("authorities", error))?;
        }
        let chain = certificates("certificate", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad("key", error))?;
        let provider = Arc::new(default_provider());
        let roots = Arc::new(roots);

        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| bad("versions", error))?
            .with_client_cert_verifier(verifier.map_err(|error| bad("authorities", error))?)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| bad("certificate and key", error))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // A link lives long: nothing is resumed, and a stolen ticket opens nothing.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});

        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| bad("versions", error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| bad("certificate and key", error))?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Credentials { client: Arc::new(client), server: Arc::new(server) })
    }

    /// A filter for a connection that we have dialled to reach `host`.
    pub fn dialler(&self, host: &str) -> Result<Tls> {
        let name = ServerName::try_from(host.to_string()).map_err(|_| {
            let what = "no certificate can name that host; TLS wants names as DNS has them";
            Error::refused("tls", format!("{host}: {what}"))
        })?;
        let made = ClientConnection::new(self.client.clone(), name);
        Ok(Tls::over(made.map_err(|error| bad("connection", error))?.into()))
    }

    /// A filter for a connection that came in.
    pub fn acceptor(&self) -> Result<Tls> {
        let made = ServerConnection::new(self.server.clone());
        Ok(Tls::over(made.map_err(|error| bad("connection", error))?.into()))
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| bad(what, error))?;
    if found.is_empty() {
        return Err(bad(what, "there is no certificate in the file; it has to be PEM"));
    }
    Ok(found)
}

fn bad(what: &'static str, error: impl fmt::Display) -> Error {
    Error::refused("tls", format!("{what}: {error}"))
}

/// The filter of one link; its clones are the same link, so that the owner keeps one to ask.
#[derive(Clone)]
pub struct Tls(Rc<RefCell<Machine>>);

impl Tls {
    fn over(connection: rustls::Connection) -> Tls {
        Tls(Rc::new(RefCell::new(Machine::new(connection))))
    }

    /// Puts it over a connection. What is written to the bufferevent that this gives leaves when
    /// the handshake is done.
    pub fn put_over(&self, base: &EventBase, connection: Bufferevent) -> Bufferevent {
        base.filter(connection, self.clone())
    }

    /// Whether the other end has shown a certificate that is trusted.
    pub fn is_up(&self) -> bool {
        self.0.borrow().is_up()
    }

    /// Whether the other end's certificate is trusted and names `host`. The name that a relay
    /// claims in its HELLO has to pass this.
    pub fn is(&self, host: &str) -> bool {
        self.0.borrow().is(host)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", if self.is_up() { "up" } else { "not up" })
    }
}

impl Filter for Tls {
    fn input(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, end: bool) -> io::Result<()> {
        self.0.borrow_mut().input(from, to, end)
    }

    fn output(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, end: bool) -> io::Result<()> {
        self.0.borrow_mut().output(from, to, end)
    }

    fn has_output(&self) -> bool {
        self.0.borrow().has_output()
    }
}
