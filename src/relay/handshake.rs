//! Who is there: the messages on a link before its first frame, sans IO.
//!
//! ```text
//!   dialler                                     acceptor
//!      HELLO{versions, cluster, host, wanted, instance, nonce} -->
//!      <-- HELLO{versions, cluster, host, wanted, instance, nonce}
//!      PROOF{HMAC(secret, "dialler", both hellos)} -->             [the owner admits or refuses]
//!      <-- PROOF{HMAC(secret, "acceptor", both hellos)}
//!      frames <--> frames                       at any point instead: REFUSE{why, text}
//! ```
//!
//! Invariant: nobody is told anything that depends on the secret before he has proved that he
//! knows it, the dialler first; and both proofs cover every byte of both hellos, so that neither a
//! version nor a name can be changed on the way, a proof serves once, and none can be turned round.
//!
//! [`Handshake`] is fed with what came ([`Handshake::on_bytes`]) and appends what is to be sent.
//! Time is the owner's: [`Lobby`](super::lobby::Lobby) has deadlines and caps.

mod message;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::ops::RangeInclusive;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::Evbuffer;
use crate::frame::is_name;
use message::{Hello, Message, put_hello, put_proof, put_refuse};
pub use message::{MESSAGE_BYTES_MAX, Refused};

/// The versions of frames and handshake that this build speaks.
pub const VERSIONS: RangeInclusive<u16> = 1..=1;

/// Who a relay is, the same for all of its links.
#[derive(Clone)]
pub struct Identity {
    cluster: String,
    host: String,
    instance: [u8; 16],
    secret: Vec<u8>,
    versions: RangeInclusive<u16>,
}

impl Identity {
    /// The relay `host` of `cluster`, whose relays share `secret`. `instance` is fresh for every
    /// start: two relays that claim one name are told apart by it.
    ///
    /// # Panics
    /// Panics if a name is not [`is_name`] or the secret is empty; the configuration has checked
    /// both.
    ///
    /// ```
    /// use ringlane::relay::handshake::{Identity, random};
    /// let me = Identity::new("demo", "a", random()?, b"a shared secret");
    /// assert_eq!(me.host(), "a");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(cluster: &str, host: &str, instance: [u8; 16], secret: &[u8]) -> Identity {
        assert!(is_name(cluster) && is_name(host), "names are checked where they come from");
        assert!(!secret.is_empty(), "secrets are checked where they come from");
        let (cluster, host) = (cluster.to_string(), host.to_string());
        Identity { cluster, host, instance, secret: secret.to_vec(), versions: VERSIONS }
    }

    /// The same, as one who speaks other versions: for tests of what happens then.
    #[must_use]
    pub fn speaking(mut self, versions: RangeInclusive<u16>) -> Identity {
        assert!(!versions.is_empty(), "a relay speaks one version at least");
        self.versions = versions;
        self
    }

    /// Its host's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn hello(&self, wanted: &str, nonce: [u8; 32]) -> Vec<u8> {
        let mut out = Vec::new();
        let (min, max) = (*self.versions.start(), *self.versions.end());
        let Identity { cluster, host, instance, .. } = self;
        let instance = *instance;
        put_hello(&mut out, min, max, &Hello { cluster, host, wanted, instance, nonce });
        out
    }

    /// The proof of one role, not yet finished.
    fn mac(&self, role: Role, dialler: &[u8], acceptor: &[u8]) -> Hmac<Sha256> {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.secret);
        let mut mac = mac.expect("a key may have any length");
        mac.update(match role {
            Role::Dialler => b"ringlane relay link: dialler\0",
            Role::Acceptor => b"ringlane relay link: acceptor",
        });
        // Each says its own length.
        mac.update(dialler);
        mac.update(acceptor);
        mac
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} of {}, versions {:?})", self.host, self.cluster, self.versions)
    }
}

/// Random bytes from the kernel: nonces and instances.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Who the other side is, once it has proved that it knows the secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its host's name.
    pub host: String,
    /// Which start of that host's relay.
    pub instance: [u8; 16],
    /// The version that both speak.
    pub version: u16,
}

/// Who refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// We did; the other side is told, if it is a relay at all.
    Us,
    /// The other side did, and says so. Nobody has proved anything by then.
    Peer,
}

/// Why there will be no link. What has been appended to the output is sent, then the connection is
/// closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Who refused.
    pub by: By,
    /// Why.
    pub why: Refused,
    /// For the log: what does not fit, and what to do.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            By::Us => write!(f, "{}: {}", self.why, self.text),
            By::Peer => write!(f, "the other relay refuses: {}: {}", self.why, self.text),
        }
    }
}

impl std::error::Error for Refusal {}

/// Where a handshake is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// More has to come.
    Wait,
    /// The dialler: the link is up; what is left in the input is frames. The acceptor: the peer is
    /// who he says; [`Handshake::admit`] or [`Handshake::refuse`] him.
    Known(Peer),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Dialler,
    Acceptor,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    /// The other's HELLO has to come.
    Hello,
    /// Its PROOF.
    Proof(Peer),
    /// The owner's word, with the proof to be sent.
    Admission([u8; 32]),
    /// It is up, or refused.
    Over,
}

/// One side of a handshake.
///
/// ```
/// use ringlane::Evbuffer;
/// use ringlane::relay::handshake::{Handshake, Identity, Step};
/// let a = Identity::new("demo", "a", [1; 16], b"a shared secret");
/// let b = Identity::new("demo", "b", [2; 16], b"a shared secret");
/// let hosts = |host: &str| ["a", "b"].contains(&host);
/// let (mut to_b, mut to_a) = (Vec::new(), Vec::new());
///
/// let mut dialler = Handshake::dial(&a, "b", [3; 32], &mut to_b);
/// let mut acceptor = Handshake::accept([4; 32]);
/// let mut step = |machine: &mut Handshake, me, from: &mut Vec<u8>, to: &mut Vec<u8>| {
///     let mut input = Evbuffer::from(&std::mem::take(from)[..]);
///     machine.on_bytes(me, hosts, &mut input, to)
/// };
/// assert_eq!(step(&mut acceptor, &b, &mut to_b, &mut to_a), Ok(Step::Wait)); // hello for hello
/// assert_eq!(step(&mut dialler, &a, &mut to_a, &mut to_b), Ok(Step::Wait)); // and a proof
/// let Ok(Step::Known(peer)) = step(&mut acceptor, &b, &mut to_b, &mut to_a) else { panic!() };
/// assert_eq!(peer.host, "a");
/// acceptor.admit(&mut to_a);
/// let Ok(Step::Known(peer)) = step(&mut dialler, &a, &mut to_a, &mut to_b) else { panic!() };
/// assert_eq!((peer.host.as_str(), peer.version), ("b", 1));
/// ```
#[derive(Debug)]
pub struct Handshake {
    role: Role,
    state: State,
    nonce: [u8; 32],
    /// The dialler's: whom he wants.
    wanted: String,
    /// Our hello as it was sent, the other's as it was received.
    ours: Vec<u8>,
    theirs: Vec<u8>,
}

impl Handshake {
    /// Dials the relay `wanted`. `nonce` is random and used once.
    pub fn dial(me: &Identity, wanted: &str, nonce: [u8; 32], out: &mut Vec<u8>) -> Handshake {
        let ours = me.hello(wanted, nonce);
        out.extend_from_slice(&ours);
        Handshake { wanted: wanted.to_string(), ours, ..Handshake::new(Role::Dialler, nonce) }
    }

    /// Waits for one who dials. `nonce` is random and used once.
    pub fn accept(nonce: [u8; 32]) -> Handshake {
        Handshake::new(Role::Acceptor, nonce)
    }

    fn new(role: Role, nonce: [u8; 32]) -> Handshake {
        let (wanted, ours, theirs) = (String::new(), Vec::new(), Vec::new());
        Handshake { role, state: State::Hello, nonce, wanted, ours, theirs }
    }

    /// Takes the messages that are there. `is_host` knows the hosts of the cluster. After an error
    /// the output is sent and the connection closed. What is left in the input of a link that is
    /// not up is less than a message, [`MESSAGE_BYTES_MAX`] bytes.
    pub fn on_bytes(
        &mut self,
        me: &Identity,
        is_host: impl Fn(&str) -> bool,
        input: &mut Evbuffer,
        out: &mut Vec<u8>,
    ) -> Result<Step, Refusal> {
        while matches!(self.state, State::Hello | State::Proof(_)) {
            let went = match message::take(input) {
                Ok(None) => return Ok(Step::Wait),
                Ok(Some(bytes)) => self.on_message(me, &is_host, &bytes, input, out),
                Err(bad) => Err(bad),
            };
            match went {
                Ok(None) => {}
                Ok(Some(peer)) => return Ok(Step::Known(peer)),
                Err(refusal) => {
                    if refusal.by == By::Us {
                        self.refuse(refusal.why, &refusal.text, out);
                    }
                    self.state = State::Over;
                    return Err(refusal);
                }
            }
        }
        Ok(Step::Wait)
    }

    /// The acceptor's owner lets the peer in: the link is up, and frames may follow.
    ///
    /// # Panics
    /// Panics if there is nobody to let in.
    pub fn admit(&mut self, out: &mut Vec<u8>) {
        let State::Admission(proof) = self.state else { panic!("nobody waits for admission") };
        put_proof(out, proof);
        self.state = State::Over;
    }

    /// Ends the handshake for a reason that its owner has: a limit, the deadline, a double. Does
    /// nothing if it is over.
    pub fn refuse(&mut self, why: Refused, text: &str, out: &mut Vec<u8>) {
        // Who is no relay would not understand it.
        if self.state != State::Over && why != Refused::NotARelay {
            put_refuse(out, why, text);
        }
        self.state = State::Over;
    }

    fn on_message(
        &mut self,
        me: &Identity,
        is_host: &dyn Fn(&str) -> bool,
        bytes: &[u8],
        input: &Evbuffer,
        out: &mut Vec<u8>,
    ) -> Result<Option<Peer>, Refusal> {
        match (Message::parse(bytes)?, &self.state) {
            (Message::Refuse { why, text }, _) => {
                Err(Refusal { by: By::Peer, why, text: text.to_string() })
            }
            (Message::Hello { min, max, rest }, State::Hello) => {
                let version = self.version(me, min..=max)?;
                let hello = rest.ok_or_else(|| us(Refused::Malformed, "a HELLO is cut"))?;
                self.check(me, is_host, &hello)?;
                self.on_hello(me, bytes, &hello, version, out);
                Ok(None)
            }
            (Message::Proof(proof), State::Proof(_)) => self.on_proof(me, &proof, input),
            _ => Err(us(Refused::Malformed, "a message came when it was not its turn")),
        }
    }

    fn version(&self, me: &Identity, theirs: RangeInclusive<u16>) -> Result<u16, Refusal> {
        let ours = &me.versions;
        let newest = *ours.end().min(theirs.end());
        if ours.contains(&newest) && theirs.contains(&newest) {
            return Ok(newest);
        }
        let [a, b, c, d] = [ours.start(), ours.end(), theirs.start(), theirs.end()];
        let text = format!("{} speaks versions {a} to {b}, the other relay {c} to {d}", me.host);
        Err(us(Refused::NoCommonVersion, text))
    }

    fn check(
        &self,
        me: &Identity,
        is_host: &dyn Fn(&str) -> bool,
        hello: &Hello<'_>,
    ) -> Result<(), Refusal> {
        let Hello { cluster, host, wanted, instance, .. } = *hello;
        let mine = &me.host;
        let (why, text) = if cluster != me.cluster {
            let text = format!("{mine} is of cluster {}, the other relay of {cluster}", me.cluster);
            (Refused::WrongCluster, text)
        } else if wanted != mine {
            let text = format!("this is {mine}, not {wanted}; check the addresses of {wanted}");
            (Refused::WrongHost, text)
        } else if host == mine && instance == me.instance {
            let text = format!("{mine} has dialled itself; check the addresses of the other hosts");
            (Refused::Itself, text)
        } else if host == mine {
            let text = format!("another relay says it is {mine}; start each with its own --host");
            (Refused::DuplicateHost, text)
        } else if self.role == Role::Dialler && host != self.wanted {
            let wanted = &self.wanted;
            let text = format!("it is {host}, not {wanted}; check the addresses of {wanted}");
            (Refused::WrongHost, text)
        } else if !is_host(host) {
            let text = format!("the configuration of {mine} has no host {host}");
            (Refused::UnknownHost, text)
        } else {
            return Ok(());
        };
        Err(us(why, text))
    }

    fn on_hello(
        &mut self,
        me: &Identity,
        bytes: &[u8],
        hello: &Hello<'_>,
        version: u16,
        out: &mut Vec<u8>,
    ) {
        self.theirs = bytes.to_vec();
        if self.role == Role::Acceptor {
            self.ours = me.hello(hello.host, self.nonce);
            out.extend_from_slice(&self.ours);
        } else {
            put_proof(out, self.mac(me, Role::Dialler).finalize().into_bytes().into());
        }
        let (host, instance) = (hello.host.to_string(), hello.instance);
        self.state = State::Proof(Peer { host, instance, version });
    }

    fn on_proof(
        &mut self,
        me: &Identity,
        proof: &[u8; 32],
        input: &Evbuffer,
    ) -> Result<Option<Peer>, Refusal> {
        let State::Proof(peer) = self.state.clone() else { return Ok(None) };
        let theirs = match self.role {
            Role::Dialler => Role::Acceptor,
            Role::Acceptor => Role::Dialler,
        };
        // Compares in constant time.
        if self.mac(me, theirs).verify_slice(proof).is_err() {
            let (mine, host) = (&me.host, &peer.host);
            let text = format!("the secret files of {mine} and {host} are not the same");
            return Err(us(Refused::WrongSecret, text));
        }
        self.state = match self.role {
            Role::Dialler => State::Over,
            Role::Acceptor if !input.is_empty() => {
                return Err(us(Refused::Malformed, "frames came before the link was up"));
            }
            Role::Acceptor => {
                let proof = self.mac(me, Role::Acceptor).finalize();
                State::Admission(proof.into_bytes().into())
            }
        };
        Ok(Some(peer))
    }

    /// The proof of one role, not yet finished.
    fn mac(&self, me: &Identity, of: Role) -> Hmac<Sha256> {
        match self.role {
            Role::Dialler => me.mac(of, &self.ours, &self.theirs),
            Role::Acceptor => me.mac(of, &self.theirs, &self.ours),
        }
    }
}

/// A refusal of ours.
fn us(why: Refused, text: impl Into<String>) -> Refusal {
    Refusal { by: By::Us, why, text: text.into() }
}
