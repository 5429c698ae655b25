//! Listening: ports, pauses, full backlogs, descriptors running out.

use std::rc::Rc;

use ringlane_api::{Bufferevent, ListenOptions, READ};

use super::stage::{Stage, Tap, cell};
use super::{Outcome, Rig, cases, skip};

cases! {
    "a listener's address is the real one, and each has its own" => real_address,
    "an address in use is an error that names it" => in_use,
    "a listener closed while connections wait leaves the accepted ones alone" => closed_listener,
    "an address can be taken again once its listener is closed" => taken_again,
    "a disabled listener accepts nothing until it is enabled" => disabled,
    "connections beyond the backlog are accepted later or refused, never lost" => full_backlog,
    "a burst of connections is accepted to the last" => burst,
    "descriptors running out pauses the listener, and it comes back" => descriptors_out,
    "connections that are freed in the accept callback are closed" => freed_at_once,
}

fn real_address(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let (one, two) = (stage.echo(), stage.echo());
    assert_ne!(one.address(), two.address());
    assert!(!one.address().to_string().ends_with(":0"));
    for listener in [&one, &two] {
        let client = stage.connect(listener);
        client.output().add(b"x");
        let tap = Tap::on(&client);
        stage.until("the byte is back", || tap.len() == 1);
    }
    Outcome::Pass
}

fn in_use(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let at = server.address().to_string();
    let error = stage.base.listen(&at, |_| {}).map(|_| ()).expect_err("it is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
    assert!(error.to_string().contains(&at), "{error}");
    // The one that was there is unharmed.
    let client = stage.connect(&server);
    client.output().add(b"x");
    let tap = Tap::on(&client);
    stage.until("the byte is back", || tap.len() == 1);
    Outcome::Pass
}

fn closed_listener(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let (listener, taps) = stage.sink();
    let first = stage.connect(&listener);
    let at_first = Tap::on(&first);
    stage.until("the first is accepted", || taps.borrow().len() == 1);
    let clients: Vec<(Bufferevent, Tap)> = (0..20)
        .map(|_| {
            let client = stage.connect(&listener);
            let tap = Tap::on(&client);
            (client, tap)
        })
        .collect();
    stage.idle(2);
    let already = taps.borrow().len();
    listener.free();
    stage.idle(30);
    let late = taps.borrow().len() - already;
    assert_eq!(late, 0, "accepted although the listener was closed");
    taps.borrow()[0].0.output().add(b"still there");
    stage.until("the first works on", || at_first.len() == 11);
    // Those that nobody accepted learn of it, one way or the other, when they write.
    for (client, _) in &clients {
        client.abort();
    }
    for (conn, _) in taps.borrow().iter() {
        conn.abort();
    }
    first.abort();
    stage.until("all links are gone", || stage.base.stats().links == 0);
    assert_eq!(stage.base.stats().listeners, 0);
    Outcome::Pass
}

fn taken_again(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let server = stage.echo();
    let at = server.address().to_string();
    let client = stage.connect(&server);
    client.output().add(b"x");
    let tap = Tap::on(&client);
    stage.until("the byte is back", || tap.len() == 1);
    client.free();
    server.free();
    stage.until("everything is closed", || {
        let stats = stage.base.stats();
        stats.links == 0 && stats.listeners == 0
    });
    let again = stage.base.listen(&at, |conn| conn.free()).expect("the address is free again");
    assert_eq!(again.address().to_string(), at);
    let client = stage.connect(&again);
    let tap = Tap::on(&client);
    stage.until("the second listener serves", || tap.ended());
    Outcome::Pass
}

fn disabled(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let (listener, taps) = stage.sink();
    listener.disable();
    stage.idle(5);
    let clients: Vec<Bufferevent> = (0..5).map(|_| stage.connect(&listener)).collect();
    stage.idle(100);
    // What the kernel had already been asked for may still come: at most that.
    let early = taps.borrow().len();
    assert_eq!(early, 0, "a disabled listener called back");
    listener.enable();
    stage.until("all are accepted", || taps.borrow().len() == 5);
    drop(clients);
    Outcome::Pass
}

fn full_backlog(rig: &Rig) -> Outcome {
    if rig.real && rig.is("tcp") {
        return skip("the kernel answers a full TCP backlog with retries that take minutes");
    }
    let stage = Stage::new(rig);
    let options = ListenOptions { backlog: 1, ..ListenOptions::default() };
    let listening = stage.base.listen_with(rig.address(), &options, |conn| {
        conn.on_read(|c| {
            c.input().take();
            c.output().add(b"welcome");
            c.free();
        });
        conn.enable(READ);
    });
    let listener = listening.expect("this address is ours alone");
    listener.disable();
    stage.idle(5);
    let dials: Vec<(Bufferevent, Tap)> = (0..8)
        .map(|_| {
            let client = stage.connect(&listener);
            // With SYN cookies a client may be connected to a server that has forgotten it (its
            // queue was full); only what it writes tells.
            client.output().add(b"knock");
            let tap = Tap::on(&client);
            (client, tap)
        })
        .collect();
    stage.idle(20);
    listener.enable();
    stage.until("every dial has its answer", || dials.iter().all(|(_, tap)| tap.ended()));
    let welcomed = dials.iter().filter(|(_, tap)| tap.bytes() == b"welcome").count();
    assert!(welcomed >= 2, "{welcomed} of 8 were welcomed");
    for (_, tap) in &dials {
        let ended_well = tap.bytes() == b"welcome" && tap.eofs() == 1;
        assert!(ended_well || !tap.errors().is_empty(), "{}", tap.order());
    }
    Outcome::Pass
}

fn burst(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let (listener, taps) = stage.sink();
    let count = rig.scaled(500, 200);
    let clients: Vec<Bufferevent> = (0..count).map(|_| stage.connect(&listener)).collect();
    stage.until("all are accepted", || taps.borrow().len() == count);
    for client in &clients {
        client.abort();
    }
    stage.until("all are told", || taps.borrow().iter().all(|(_, tap)| tap.ended()));
    Outcome::Pass
}

fn descriptors_out(rig: &Rig) -> Outcome {
    let Some(limit) = rig.tools.limit_fds else { return skip("no limit can be set here") };
    let stage = Stage::new(rig);
    // Something first: the simulator's world begins with its first base's first socket.
    let warm = stage.echo();
    stage.idle(3);
    // Before the listener: io_uring takes the limit of the moment in which an accept is armed.
    limit(Some(11));
    let errors = cell(0);
    let (listener, taps) = stage.sink();
    let count = Rc::clone(&errors);
    listener.on_error(move |_, error| {
        count.set(count.get() + 1);
        assert!(!error.to_string().is_empty());
    });
    // Each connection needs two descriptors here: dials get theirs first, accepts run out.
    let clients: Vec<(Bufferevent, Tap)> = (0..8)
        .filter_map(|_| stage.base.connect(listener.address().to_string()).ok())
        .map(|client| {
            let tap = Tap::on(&client);
            (client, tap)
        })
        .collect();
    stage.until("accepting fails and says so", || errors.get() > 0);
    limit(None);
    let lost = || clients.iter().filter(|(_, tap)| tap.ended()).count();
    stage.until("it comes back by itself", || taps.borrow().len() + lost() == clients.len());
    // A dial that has its socket, and no descriptor for the memory it is to share, fails.
    assert!(rig.shares_memory() || !taps.borrow().is_empty(), "nothing was left to accept");
    let late = Tap::on(&stage.connect(&listener));
    stage.until("whoever dials now is accepted", || late.connected() == 1);
    warm.free();
    Outcome::Pass
}

fn freed_at_once(rig: &Rig) -> Outcome {
    let stage = Stage::new(rig);
    let turn = cell(0);
    let count = Rc::clone(&turn);
    let server = stage.listen(move |conn| {
        count.set(count.get() + 1);
        conn.enable(READ);
        match count.get() % 3 {
            0 => conn.free(),
            1 => conn.abort(),
            _ => {
                conn.output().add(b"bye");
                conn.free();
            }
        }
    });
    let dials: Vec<(Bufferevent, Tap)> = (0..30)
        .map(|_| {
            let client = stage.connect(&server);
            let tap = Tap::on(&client);
            (client, tap)
        })
        .collect();
    stage.until("all are told", || dials.iter().all(|(_, tap)| tap.ended()));
    for (client, _) in &dials {
        client.free();
    }
    stage.until("all links are gone", || stage.base.stats().links == 0);
    assert_eq!(turn.get(), 30);
    Outcome::Pass
}
