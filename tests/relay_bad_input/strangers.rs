//! Those who connect to a relay's address and cannot prove that they are relays of its cluster.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use ringlane::relay::handshake::{By, Identity, Refused, random};

use super::relay_peer::{RelayPeer, dial, rest};
use super::world::{Dice, SECRET, World, logged};

/// What the relay of a says to one who wants to be a relay.
fn refusal(world: &World, me: &Identity, wanted: &str) -> (By, Refused) {
    let refused = RelayPeer::shake(world.ports[0], me, wanted);
    let refused = refused.err().expect("it is let in");
    (refused.by, refused.why)
}

#[test]
fn who_is_no_relay_of_the_cluster_is_told_why_and_the_log_says_so_too() {
    let world = World::new();
    let as_host =
        |host: &str, secret: &[u8]| Identity::new(&world.name, host, random().unwrap(), secret);
    let stranger = Identity::new("other", "c", [1; 16], SECRET);
    let late = as_host("c", SECRET).speaking(900..=901);
    for (me, wanted, why) in [
        (&as_host("c", b"another secret, as long"), "a", Refused::WrongSecret),
        (&late, "a", Refused::NoCommonVersion),
        (&stranger, "a", Refused::WrongCluster),
        (&as_host("nobody", SECRET), "a", Refused::UnknownHost),
        (&as_host("c", SECRET), "b", Refused::WrongHost),
        (&as_host("a", SECRET), "a", Refused::DuplicateHost),
    ] {
        let (_, found) = refusal(&world, me, wanted);
        assert_eq!(found, why);
        logged(&why.to_string());
    }
    world.end();
}

#[test]
fn what_is_no_handshake_ends_the_connection_and_nothing_else() {
    let world = World::new();
    let mut dice = Dice(4);
    for round in 0..100 {
        let mut stream = dial(world.ports[0]);
        let len = 1 + dice.below(3000) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| dice.below(256) as u8).collect();
        if round % 2 == 0 {
            bytes.splice(..0, *b"RLNK\x01\x00");
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        assert!(rest(&mut stream).len() < 2048, "a stranger makes a relay talk");
    }
    logged("no handshake");
    world.end();
}

/// A connection that begins at an address of this machine's own network.
fn dial_from(source: u8, port: u16) -> Option<TcpStream> {
    use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};
    use std::os::fd::AsRawFd;
    let (family, kind) = (AddressFamily::Inet, SockType::Stream);
    let fd = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let from = SockaddrIn::new(127, 0, 0, source, 0);
    socket::bind(fd.as_raw_fd(), &from).ok()?;
    socket::connect(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).ok()?;
    Some(fd.into())
}

#[test]
fn ten_thousand_half_open_handshakes_keep_no_relay_out_and_go_away() {
    let world = World::with("tcp", "[link]\nhandshake = \"5s\"\ndead_after = \"60s\"\n", |_| {});
    let mut held = Vec::new();
    for n in 0..10_000_u32 {
        // From addresses of many machines, as far as one machine has them.
        let Some(mut stream) = dial_from(2 + (n % 200) as u8, world.ports[0]) else { continue };
        if n % 3 == 0 {
            let _ = stream.write_all(b"RLNK\x01\x00");
        }
        held.push(stream);
        if held.len() > 3000 {
            held.drain(..1000);
        }
        if n % 1000 == 999 {
            let dial = || RelayPeer::shake(world.ports[0], &world.identity("c"), "a").ok();
            // On a busy machine it may be too slow itself.
            let link = (0..20).find_map(|_| dial());
            link.expect("a relay that knows the secret gets in").is_up();
        }
    }
    logged("connections were closed that had not proved who they are in time");
    for mut stream in held {
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        assert!(rest(&mut stream).len() < 1024);
    }
    world.end();
}

#[test]
fn who_refuses_to_read_the_refusal_is_gone_soon() {
    let world = World::new();
    let me = Identity::new(&world.name, "nobody", [3; 16], SECRET);
    let mut said = Vec::new();
    ringlane::relay::handshake::Handshake::dial(&me, "a", [4; 32], &mut said);
    let mut deaf: Vec<TcpStream> = (0..20).map(|_| dial(world.ports[0])).collect();
    deaf.iter_mut().for_each(|stream| stream.write_all(&said).unwrap());
    world.goes_on();
    for stream in &mut deaf {
        rest(stream);
    }
    world.end();
}
