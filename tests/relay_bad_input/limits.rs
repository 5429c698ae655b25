//! More than the configuration allows: refused, with the limit's name.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use ringlane::bus::local::{FromRelay, Question, ToRelay};
use ringlane::bus::memory::Memory;
use ringlane::shm::through::Outlet;

use super::fds::{attach, say_with};
use super::lines::{hear, refused, register, registered, say};
use super::relay_peer::RelayPeer;
use super::world::{World, logged};

const RING: u32 = 64 << 10;

#[test]
fn one_process_more_than_a_user_may_have_is_refused() {
    // Four are there.
    let world = World::with("tcp", "[limits]\nprocesses_per_uid = 5\n", |_| {});
    let fifth = registered(&world, "s0", 1);
    let mut sixth = world.local();
    say(&mut sixth, &register("s1", 1));
    let why = refused(&mut sixth);
    assert!(why.starts_with("limits.processes_per_uid = 5 is reached by uid "), "{why}");
    drop(fifth);
    super::world::until("there is room again", || {
        let mut stream = world.local();
        say(&mut stream, &register("s1", 1));
        matches!(hear(&mut stream), FromRelay::Registered { .. })
    });
    world.end();
}

/// Rings for channels, one after the other, and what the relay says to the last.
fn channels(world: &World, node: &str, n: u32) -> FromRelay {
    let memory = Memory::new().unwrap();
    let mut stream = registered(world, node, 1);
    for id in 1..=n {
        let (ring, control) = (memory.make_outlet(RING).unwrap(), memory.make_control().unwrap());
        Outlet::new(Rc::clone(&ring.map), RING).attach(Rc::clone(&control.map));
        let fds: [&OwnedFd; 2] = [&ring.fd, &control.fd];
        let line = match attach(id, "c1", RING) {
            ToRelay::Attach { to, epoch, att, from, expected, ring, .. } => {
                let chan = id as u16;
                ToRelay::Attach { id, to, chan, epoch, att, from, expected, ring }
            }
            line => line,
        };
        say_with(&stream, &line, &fds);
    }
    loop {
        let line = hear(&mut stream);
        match line {
            FromRelay::Waiting { id, .. } if id < n => {}
            line => return line,
        }
    }
}

#[test]
fn one_channel_more_than_a_process_may_have_gets_no_path() {
    let world = World::with("tcp", "[limits]\nchannels_per_process = 8\n", |_| {});
    let said = channels(&world, "s0", 9);
    let FromRelay::NoPath { id: 9, why } = said else { panic!("{said:?}") };
    assert_eq!(why, "limits.channels_per_process = 8 is reached");
    world.end();
}

#[test]
fn more_rings_than_a_user_may_have_end_the_process() {
    // Rings of the good ones are 64 KiB each, too.
    let more = "[limits]\nring_memory_per_uid = \"1MiB\"\n";
    let world = World::with("tcp", more, |_| {});
    let said = channels(&world, "s0", 20);
    let FromRelay::Refused { why } = said else { panic!("{said:?}") };
    assert_eq!(why, "limits.ring_memory_per_uid = 1048576 bytes is reached");
    world.end();
}

#[test]
fn one_question_more_than_may_be_asked_is_refused() {
    let world = World::with("tcp", "[limits]\nadmins = 2\n", |_| {});
    // A process that answers nobody.
    let mut silent = registered(&world, "s0", 1);
    let ask = ToRelay::Ask(Question::Ping { to: "s0".into() });
    let mut asking = [world.local(), world.local()];
    for stream in &mut asking {
        say(stream, &ask);
        assert!(matches!(hear(&mut silent), FromRelay::Probe { .. }));
    }
    let mut third = world.local();
    say(&mut third, &ToRelay::Ask(Question::Status));
    assert_eq!(refused(&mut third), "limits.admins = 2 is reached");
    // A second question on the same connection.
    say(&mut asking[0], &ask);
    assert_eq!(refused(&mut asking[0]), "a question is a connection's only line");
    world.end();
}

#[test]
fn one_link_more_than_a_relay_may_have_is_refused() {
    let world = World::with("tcp", "[limits]\nlinks = 1\n", |_| {});
    let refusal = RelayPeer::shake(world.ports[0], &world.identity("c"), "a");
    let refusal = refusal.err().expect("there is a link to b");
    assert_eq!(refusal.text, "limits.links = 1 is reached");
    logged("no link with host c: limits.links = 1 is reached");
    world.end();
}

/// What the relay of a says when it is asked to read its configuration again.
fn reload(world: &World) -> FromRelay {
    let mut stream = world.local();
    say(&mut stream, &ToRelay::Ask(Question::Reload));
    hear(&mut stream)
}

#[test]
fn a_configuration_that_is_wrong_now_changes_nothing_and_a_right_one_is_taken() {
    let world = World::with("tcp", "[limits]\nchannels_per_process = 8\n", |_| {});
    world.rewrite(|text| text.replace("channels_per_process = 8", "channels_per_proces = 2"));
    let FromRelay::Refused { why } = reload(&world) else { panic!("it is taken") };
    assert!(why.contains("did you mean `channels_per_process`?"), "{why}");
    logged("not reloaded: ");
    world.goes_on();
    world.rewrite(|text| text.replace("channels_per_proces = 2", "channels_per_process = 3"));
    let FromRelay::Answer { text } = reload(&world) else { panic!("it is not taken") };
    assert!(text.contains("channels_per_process"), "{text}");
    let said = channels(&world, "s0", 4);
    assert!(matches!(said, FromRelay::NoPath { id: 4, .. }), "{said:?}");
    world.end();
}
