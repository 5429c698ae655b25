//! Dialling: addresses, names, refusals.

use std::io::ErrorKind;

use ringlane_api::{Address, LinkOptions};
use std::time::Duration;

use super::stage::{Stage, Tap};
use super::{Outcome, Rig, cases, skip};

cases! {
    "a connection to nobody is refused, and the error names the address" => refused,
    "a dial can be taken back before it is answered" => cancelled,
    "many dials can be taken back in the turn they are answered" => cancelled_late,
    "a malformed address is refused with the right form shown" => malformed,
    "an unknown scheme is refused, and the known ones are named" => unknown_scheme,
    "a host name is looked up and connected to" => host_name,
    "an unknown host is an error that names it" => unknown_host,
    "every address of a name is tried until one answers" => all_addresses,
    "an address that never answers is given up after its time" => never_answers,
    "IPv6 carries bytes like IPv4" => ipv6,
    "both ends know each other's names" => names,
    "socket options do not disturb the bytes" => options,
    "a connected link outlives the time its connect was given" => outlives_deadline,
}

fn refused(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let to = rig.nobody();
    let failed = match stage.base.connect(&to) {
        Err(error) => error.to_string(),
        Ok(client) => {
            let tap = Tap::on(&client);
            stage.until("the dial fails", || tap.ended());
            let (_, kind, text) = tap.errors().remove(0);
            assert!(matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::NotFound), "{text}");
            assert_eq!((tap.connected(), tap.errors().len(), tap.eofs()), (0, 1, 0));
            client.free();
            text
        }
    };
    assert!(failed.contains(&to), "the error does not name {to}: {failed}");
    stage.until("the link is gone", || stage.base.stats().links == 0);
    Outcome::Pass
}

fn cancelled(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let client = stage.connect(&server);
    let tap = Tap::on(&client);
    client.output().add(b"never");
    client.abort();
    stage.until("the link is gone", || stage.base.stats().links == 0);
    assert_eq!(tap.order(), "");
    Outcome::Pass
}

fn cancelled_late(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    for turns in 0..12 {
        let clients: Vec<_> = (0..10).map(|_| stage.connect(&server)).collect();
        stage.idle(turns);
        for (at, client) in clients.iter().enumerate() {
            match at % 3 {
                0 => client.abort(),
                1 => client.free(),
                _ => {
                    client.output().add(b"x");
                    client.free();
                }
            }
        }
        stage.until("all links are gone", || stage.base.stats().links == 0);
    }
    Outcome::Pass
}

fn malformed(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let scheme = rig.scheme;
    let bad = [
        "127.0.0.1:80".to_string(),
        String::new(),
        "://x".into(),
        format!("{scheme}://"),
        format!("{scheme}://x:1?novalue"),
        format!("{scheme}://x:1?nobody=knows"),
    ];
    for text in bad {
        for error in [
            stage.base.connect(&text).expect_err("it is malformed"),
            stage.base.listen(&text, |_| {}).map(|_| ()).expect_err("it is malformed"),
        ] {
            let shown = error.to_string();
            assert!(shown.contains(&text) && shown.contains("://"), "{text:?}: {shown}");
        }
    }
    if rig.has_hosts() {
        for place in ["127.0.0.1", "127.0.0.1:99999", "::1:80"] {
            let text = &format!("{}://{place}", rig.scheme);
            let error = stage.base.connect(text).expect_err("it is malformed").to_string();
            assert!(error.contains(text) && error.contains("like"), "{error}");
        }
    }
    Outcome::Pass
}

fn unknown_scheme(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let error = stage.base.connect("carrier-pigeon+x://coop").expect_err("no such transport");
    // The dash makes the scheme malformed; the next one is well-formed and unknown.
    assert!(error.to_string().contains("carrier-pigeon"), "{error}");
    let error = stage.base.connect("pigeon://coop").expect_err("no such transport").to_string();
    assert!(error.contains("pigeon") && error.contains(rig.scheme), "{error}");
    Outcome::Pass
}

/// Swaps the host of an address.
fn with_host(address: &str, host: &str) -> String {
    let (scheme, _) = address.split_once(':').expect("an address has a scheme");
    let port = address.rsplit(':').next().expect("an address with a host has a port");
    format!("{scheme}://{host}:{port}")
}

fn dial_by(rig: &Rig, host: &str) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let to = with_host(&server.address().to_string(), host);
    let client = stage.base.connect(&to).expect("the address is well-formed");
    client.output().add(b"by name");
    let tap = Tap::on(&client);
    stage.until("the bytes are back", || tap.len() == 7 || tap.ended());
    assert_eq!((tap.bytes().as_slice(), tap.errors()), (&b"by name"[..], vec![]));
    assert_eq!(tap.connected(), 1);
    Outcome::Pass
}

fn host_name(rig: &Rig) -> Outcome {
    if !rig.has_hosts() {
        return skip("this transport knows no host names");
    }
    dial_by(rig, "localhost")
}

fn unknown_host(rig: &Rig) -> Outcome {
    if !rig.has_hosts() {
        return skip("this transport knows no host names");
    }
    let stage = Stage::new(rig);
    let to = format!("{}://nobody.invalid:80", rig.scheme);
    let client = stage.base.connect(&to).expect("the address is well-formed");
    let tap = Tap::on(&client);
    stage.until("the look-up fails", || tap.ended());
    let (_, _, text) = tap.errors().remove(0);
    assert!(text.contains("nobody.invalid"), "{text}");
    client.free();
    Outcome::Pass
}

fn all_addresses(rig: &Rig) -> Outcome {
    if !rig.has_hosts() {
        return skip("this transport knows no host names");
    }
    if rig.real {
        return skip("no name with several addresses can be relied on here");
    }
    dial_by(rig, "multi.test");
    dial_by(rig, "slow.test")
}

fn never_answers(rig: &Rig) -> Outcome {
    if rig.real || !rig.has_hosts() {
        return skip("no address can be relied on to be silent here");
    }
    let stage = Stage::new(rig);
    let options = LinkOptions { connect_timeout: Duration::from_secs(2), ..LinkOptions::default() };
    let to = format!("{}://192.0.2.1:9", rig.scheme);
    let client = stage.base.connect_with(&to, &options).expect("the address is well-formed");
    let tap = Tap::on(&client);
    let start = stage.base.now();
    stage.until("the dial is given up", || tap.ended());
    let (_, kind, text) = tap.errors().remove(0);
    assert_eq!(kind, ErrorKind::TimedOut, "{text}");
    assert!(text.contains("192.0.2.1"), "{text}");
    assert!(stage.base.now() - start >= Duration::from_secs(2));
    Outcome::Pass
}

fn ipv6(rig: &Rig) -> Outcome {
    if !rig.has_hosts() {
        return skip("this transport knows no IP addresses");
    }
    let stage = Stage::new(rig);
    let listening = stage.base.listen(format!("{}://[::1]:0", rig.scheme), |conn| {
        conn.on_read(|c| {
            c.output().append(c.input());
        });
        conn.enable(ringlane_api::READ);
    });
    let server = match listening {
        Ok(server) => server,
        Err(error) => return skip(format!("no IPv6 on this machine: {}", error.kind())),
    };
    assert!(server.address().to_string().contains("://[::1]:"));
    let client = stage.connect(&server);
    client.output().add(b"six");
    let tap = Tap::on(&client);
    stage.until("the bytes are back", || tap.len() == 3 || tap.ended());
    assert_eq!(tap.bytes(), b"six");
    assert!(client.peer().is_some_and(|peer| peer.to_string() == server.address().to_string()));
    Outcome::Pass
}

fn names(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let (listener, taps) = stage.sink();
    let client = stage.connect(&listener);
    let tap = Tap::on(&client);
    stage.until("both are connected", || tap.connected() == 1 && taps.borrow().len() == 1);
    // A listener's address has parameters that its connectors must give, too.
    let name = |end: &Address| Address::new(end.scheme(), end.target());
    let at = name(listener.address());
    assert_eq!(client.peer().as_ref().map(name), Some(at.clone()));
    let server = taps.borrow()[0].0.clone();
    assert_eq!(server.local().as_ref().map(name), Some(at));
    if rig.is("tcp") {
        assert_eq!(server.peer(), client.local());
        assert!(server.peer().is_some());
    }
    assert!(client.is_connected() && server.is_connected());
    Outcome::Pass
}

fn options(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let options = LinkOptions {
        no_delay: false,
        keepalive: Some((Duration::from_secs(60), Duration::from_secs(5), 3)),
        user_timeout: Some(Duration::from_secs(30)),
        send_buffer: Some(8 * 1024),
        receive_buffer: Some(8 * 1024),
        ..LinkOptions::default()
    };
    let to = server.address().to_string();
    let client = match stage.base.connect_with(&to, &options) {
        Ok(client) => client,
        Err(error) => return skip(format!("this transport refuses the options: {error}")),
    };
    let bytes = super::Pattern::new(1).bytes(0, 300_000);
    client.output().add(&bytes);
    let tap = Tap::on(&client);
    stage.until("the bytes are back", || tap.len() >= bytes.len() || tap.ended());
    assert_eq!(tap.errors(), []);
    assert!(tap.bytes() == bytes);
    Outcome::Pass
}

fn outlives_deadline(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let wait = Duration::from_millis(rig.scaled(150, 2_000));
    let options = LinkOptions { connect_timeout: wait, ..LinkOptions::default() };
    let to = server.address().to_string();
    let client = stage.base.connect_with(&to, &options).expect("the address is valid");
    let tap = Tap::on(&client);
    stage.until("it is connected", || tap.connected() == 1 || tap.ended());
    if tap.ended() {
        return skip("this machine took longer to connect than the case waits");
    }
    let later = super::stage::cell(false);
    let set = std::rc::Rc::clone(&later);
    stage.base.timer(wait * 2, move |_| set.set(true));
    stage.until("twice the time has passed", || later.get());
    client.output().add(b"still here");
    stage.until("the bytes are back", || tap.len() == 10 || tap.ended());
    assert_eq!((tap.bytes().as_slice(), tap.errors()), (&b"still here"[..], vec![]));
    Outcome::Pass
}
