//! TLS under a relay link, end to end: certificates that fit and certificates that do not.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ringlane::frame::{Decoder, Frame};
use ringlane::prelude::*;
use ringlane::reactor::{Config, Engine};
use ringlane::relay::handshake::{Handshake, Identity, Step};
use ringlane::relay::tls::{Credentials, Tls, under};
use ringlane_kit::sim::{Faults, Setup, World};

/// One that signs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// What the relay of `host` has on its disk.
    fn credentials(&self, host: &str) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([host.to_string()]).expect("a name");
        let chain = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        let key = key.serialize_pem();
        Credentials::from_pem(self.pem.as_bytes(), chain.as_bytes(), key.as_bytes())
            .expect("all three fit")
    }
}

fn engine(engine: Engine) -> EventBase {
    let config = Config { engine, ..Config::default() };
    EventBase::with_config(&config).expect("epoll is everywhere, auto takes what there is")
}

fn simulated(world: &World) -> EventBase {
    EventBase::with(
        Box::new(world.reactor()),
        vec![ringlane_tcp::transport(), ringlane_uds::transport()],
    )
}

#[track_caller]
fn until(base: &EventBase, what: &str, holds: impl Fn() -> bool) {
    let tick = base.every(Duration::from_millis(1), |_| {});
    for _ in 0..10_000 {
        if holds() {
            tick.free();
            return;
        }
        base.turn(Turn::Wait).expect("a turn works");
    }
    panic!("it never came: {what}");
}

/// One end of a link: what came, and what was said.
#[derive(Clone)]
struct End {
    tls: Tls,
    conn: Bufferevent,
    got: Rc<RefCell<Vec<u8>>>,
    said: Rc<RefCell<Vec<String>>>,
}

impl End {
    fn over(base: &EventBase, conn: Bufferevent, tls: Tls) -> End {
        let conn = tls.put_over(base, conn);
        let end = End { tls, conn, got: Rc::default(), said: Rc::default() };
        let (got, said) = (end.got.clone(), end.said.clone());
        end.conn.on_read(move |conn| got.borrow_mut().extend(conn.input().take()));
        end.conn.on_event(move |_, event| said.borrow_mut().push(event.to_string()));
        end.conn.enable(READ);
        end
    }

    fn has_said(&self, what: &str) -> bool {
        self.said.borrow().iter().any(|said| said.contains(what))
    }
}

/// The dialler `a` with one set of credentials and the acceptor with another, over `pair`.
fn ends(base: &EventBase, a: &Credentials, b: &Credentials) -> (End, End) {
    let (dialled, accepted) = base.pair().expect("a pair");
    let a = End::over(base, dialled, a.dialler("b").expect("a name"));
    let b = End::over(base, accepted, b.acceptor().expect("a connection"));
    (a, b)
}

#[test]
fn a_link_on_tls_tcp_carries_bytes_both_ways_and_says_whose_certificate_it_saw() {
    let authority = Authority::new();
    let credentials = authority.credentials("b");
    for base in [engine(Engine::Epoll), engine(Engine::Auto)] {
        let (slot, inner) = (Rc::new(RefCell::new(None)), base.clone());
        let (place, credentials) = (slot.clone(), credentials.clone());
        let listener = base
            .listen("tcp://127.0.0.1:0", move |conn| {
                let tls = credentials.acceptor().expect("a connection");
                *place.borrow_mut() = Some(End::over(&inner, conn, tls));
            })
            .expect("it listens");
        let address = format!("tls+{}", listener.address());
        let below = base.connect(under(&address).expect("it is one")).expect("it dials");
        let tls = authority.credentials("a").dialler("b").expect("a name");
        let a = End::over(&base, below, tls);
        let many: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
        a.conn.output().add(&many);
        let accepted = || slot.borrow().clone();
        until(&base, "all of it there", || accepted().is_some_and(|b| *b.got.borrow() == many));
        let b: End = accepted().expect("it is there");
        b.conn.output().add(&many);
        until(&base, "all of it back", || *a.got.borrow() == many);
        assert!(a.tls.is_up() && a.tls.is("b") && !a.tls.is("a"));
        assert!(b.tls.is_up() && b.tls.is("a") && !b.tls.is("b"));
        a.conn.free();
        until(&base, "the end", || b.has_said("end of stream"));
        assert_eq!(b.said.borrow().len(), 1, "{:?}", b.said.borrow());
        b.conn.free();
        listener.free();
    }
}

#[test]
fn a_handshake_and_frames_pass_through_tls() {
    let base = engine(Engine::Epoll);
    let authority = Authority::new();
    let (dialled, accepted) = base.pair().expect("a pair");
    let ids = ["a", "b"].map(|host| Identity::new("demo", host, [host.as_bytes()[0]; 16], b"x"));
    let tls = [
        authority.credentials("a").dialler("b").expect("a name"),
        authority.credentials("b").acceptor().expect("a connection"),
    ];
    let [a, b] = [tls[0].put_over(&base, dialled), tls[1].put_over(&base, accepted)];
    let up = Rc::new(Cell::new(0));
    let mut out = Vec::new();
    let machines = [Handshake::dial(&ids[0], "b", [1; 32], &mut out), Handshake::accept([2; 32])];
    a.output().add(&out);
    for ((conn, mut machine), (me, tls)) in
        [&a, &b].into_iter().zip(machines).zip(ids.into_iter().zip(tls))
    {
        let (up, mut decoder, mut known, mut input) =
            (up.clone(), Decoder::new(), false, Evbuffer::new());
        conn.on_read(move |conn| {
            let mut out = Vec::new();
            conn.input().with(|from| input.append(from));
            if !known {
                let step = machine.on_bytes(&me, |_| true, &mut input, &mut out);
                let Step::Known(peer) = step.expect("they fit") else {
                    conn.output().add(&out);
                    return;
                };
                assert!(tls.is(&peer.host), "the certificate and the hello say the same");
                if me.host() == "b" {
                    machine.admit(&mut out);
                }
                known = true;
                Frame::Ping { id: 7 }.encode(&mut out);
            }
            while let Some(frame) = decoder.next(&mut input).expect("they are frames") {
                assert_eq!(frame, Frame::Ping { id: 7 });
                up.set(up.get() + 1);
            }
            conn.output().add(&out);
        });
        conn.enable(READ);
    }
    until(&base, "a frame at both ends", || up.get() == 2);
}

#[test]
fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let base = engine(Engine::Epoll);
    let (ours, other) = (Authority::new(), Authority::new());
    for (a, b) in [(&ours, &other), (&other, &ours)] {
        let (a, b) = ends(&base, &a.credentials("a"), &b.credentials("b"));
        a.conn.output().add(b"not for you");
        b.conn.output().add(b"nor for you");
        until(&base, "both have heard", || a.has_said("tls:") && b.has_said("tls:"));
        assert!(!a.tls.is_up() && !b.tls.is_up() && !a.tls.is("b"));
        assert!(a.got.borrow().is_empty() && b.got.borrow().is_empty());
        a.conn.free();
        b.conn.free();
    }
}

#[test]
fn a_certificate_that_does_not_name_the_host_that_was_dialled_is_refused() {
    let base = engine(Engine::Epoll);
    let authority = Authority::new();
    let (a, b) = ends(&base, &authority.credentials("a"), &authority.credentials("c"));
    a.conn.output().add(b"not for c");
    until(&base, "both have heard", || a.has_said("not valid for name") && b.has_said("tls:"));
    assert!(b.got.borrow().is_empty());
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let base = engine(Engine::Epoll);
    let authority = Authority::new();
    let (dialled, accepted) = base.pair().expect("a pair");
    let tls = authority.credentials("b").acceptor().expect("a connection");
    let b = End::over(&base, accepted, tls);
    let mut roots = rustls::RootCertStore::empty();
    let pem = rustls::pki_types::pem::PemObject::from_pem_slice(authority.pem.as_bytes());
    roots.add(pem.expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("it has that")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "b".try_into().expect("a name");
    let client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let client = Rc::new(RefCell::new(client));
    let machine = client.clone();
    let mut hello = Vec::new();
    client.borrow_mut().write_tls(&mut hello).expect("a Vec takes all");
    dialled.output().add(&hello);
    dialled.on_read(move |conn| {
        let mut client = machine.borrow_mut();
        let mut input: &[u8] = &conn.input().take();
        while !input.is_empty() && client.read_tls(&mut input).is_ok() {
            let _ = client.process_new_packets();
        }
        let mut out = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut out).expect("a Vec takes all");
        }
        conn.output().add(&out);
    });
    dialled.enable(READ);
    until(&base, "the refusal", || b.has_said("peer sent no certificates"));
    assert!(!b.tls.is_up());
}

#[test]
fn bytes_that_are_not_tls_are_refused_and_nothing_is_handed_up() {
    let base = engine(Engine::Epoll);
    let authority = Authority::new();
    for greeting in [&b"RLNK\x01\x00\x00\x00"[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16; 40_000]] {
        let (plain, accepted) = base.pair().expect("a pair");
        let tls = authority.credentials("b").acceptor().expect("a connection");
        let b = End::over(&base, accepted, tls);
        plain.output().add(greeting);
        until(&base, "the refusal", || b.has_said("tls:"));
        assert!(b.got.borrow().is_empty() && !b.tls.is_up());
        b.conn.free();
        plain.free();
    }
}

#[test]
fn a_connection_that_is_cut_without_the_end_of_tls_is_an_error() {
    let base = engine(Engine::Epoll);
    let authority = Authority::new();
    let (dialled, accepted) = base.pair().expect("a pair");
    let below = dialled.clone();
    let a = End::over(&base, dialled, authority.credentials("a").dialler("b").expect("a name"));
    let tls = authority.credentials("b").acceptor().expect("a connection");
    let b = End::over(&base, accepted, tls);
    a.conn.output().add(b"half of what I");
    until(&base, "the words", || b.got.borrow().len() == 14);
    below.finish();
    until(&base, "the error", || b.has_said("may have been cut"));
}

#[test]
fn tls_over_a_link_that_cuts_bytes_anywhere_loses_none() {
    let authority = Authority::new();
    let both = [authority.credentials("a"), authority.credentials("b")];
    for seed in 0..50 {
        let faults = Faults::mild();
        let setup = Setup { seed, faults, fail_when_stalled: true, ..Setup::default() };
        let world = World::new(setup);
        let base = simulated(&world);
        let (a, b) = ends(&base, &both[0], &both[1]);
        let many: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
        a.conn.output().add(&many);
        b.conn.output().add(&many);
        until(&base, "all of it at both ends", || {
            *a.got.borrow() == many && *b.got.borrow() == many
        });
        a.conn.free();
        until(&base, "the end", || b.has_said("end of stream"));
        b.conn.free();
        base.dispatch().expect("nothing is left");
    }
}

#[test]
fn files_that_do_not_fit_together_are_refused_with_the_name_of_the_bad_one() {
    let authority = Authority::new();
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["a".to_string()]).expect("a name");
    let chain = params.signed_by(&key, &authority.issuer).expect("a certificate").pem();
    let other = KeyPair::generate().expect("a key").serialize_pem();
    let key = key.serialize_pem();
    let from = |authorities: &str, chain: &str, key: &str| {
        let made = Credentials::from_pem(authorities.as_bytes(), chain.as_bytes(), key.as_bytes());
        made.expect_err("it does not fit").to_string()
    };
    let authorities = authority.pem.as_str();
    assert!(from("", &chain, &key).contains("authorities: there is no certificate"));
    assert!(from(authorities, "nonsense", &key).contains("certificate: there is no certificate"));
    assert!(from(authorities, &chain, &chain).contains("key: "));
    assert!(from(authorities, &chain, &other).contains("certificate and key: "));
}

#[test]
fn a_host_that_no_certificate_can_name_is_refused_before_it_is_dialled() {
    let credentials = Authority::new().credentials("a");
    let error = credentials.dialler("db@b").expect_err("no DNS name").to_string();
    assert!(error.contains("db@b: no certificate can name that host"), "{error}");
}
