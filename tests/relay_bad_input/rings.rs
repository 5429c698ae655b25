//! Processes that write nonsense into memory that they share with their relay.

use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringlane::bus::local::{FromRelay, Nonce, ToRelay};
use ringlane::bus::memory::{Made, Memory};
use ringlane::prelude::*;
use ringlane::shm::through::{Inlet, Outlet};
use ringlane::shm::{Map, Port};

use super::fds::{attach, say_with};
use super::lines::{hear, say};
use super::world::{Dice, World};

const RING: u32 = 64 << 10;

/// How long each of them scribbles.
const SCRIBBLES: Duration = Duration::from_secs(3);

/// A process that is registered and has its bell, with which it rings whenever it likes.
struct Process {
    stream: UnixStream,
    bell: Bufferevent,
    base: EventBase,
}

impl Process {
    fn new(world: &World, node: &str, epoch: u64) -> Process {
        let mut stream = world.local();
        say(&mut stream, &super::lines::register(node, epoch));
        let FromRelay::Registered { bell, token, .. } = hear(&mut stream) else {
            panic!("it is not registered")
        };
        let base = EventBase::new().unwrap();
        let bell = base.connect(&bell).unwrap();
        bell.on_event(|_, _| {});
        bell.enable(READ);
        let process = Process { stream, bell, base };
        let Nonce(token) = token;
        let mut said = false;
        let since = Instant::now();
        while !said {
            process.base.turn(Turn::NoWait).unwrap();
            if let Some(port) = process.bell.face::<Port>() {
                said = port.push(1, 0, &token).is_ok();
            }
            assert!(since.elapsed() < super::world::PATIENCE, "there is no bell");
        }
        process.ring();
        process.stream.set_nonblocking(true).unwrap();
        process
    }

    /// Whatever the relay has said is read, so that it goes on; whether the connection stands.
    fn listens(&mut self) -> bool {
        use std::io::Read;
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    }

    fn ring(&self) {
        if let Some(port) = self.bell.face::<Port>() {
            let _ = port.push(1, 0, b"look");
        }
        let _ = self.base.turn(Turn::NoWait);
    }
}

fn scribble(map: &Map, at: usize, dice: &mut Dice) {
    let value = match dice.below(4) {
        0 => dice.roll(),
        1 => dice.below(1 << 20),
        2 => dice.roll() & 0x7fff_fff8_ffff_ffff,
        _ => map.u64_at(at).load(Ordering::Relaxed).wrapping_add(8),
    };
    map.u64_at(at).store(value, Ordering::Release);
}

/// Registers again and again and scribbles over rings that it has handed over, at places that
/// `places` chooses.
fn scribbler(world: &World, node: &str, places: impl Fn(&mut Dice) -> (bool, usize)) {
    let mut dice = Dice(node.len() as u64);
    let memory = Memory::new().unwrap();
    let (begun, mut epoch) = (Instant::now(), 1_000);
    while begun.elapsed() < SCRIBBLES {
        epoch += 1;
        let mut process = Process::new(world, node, epoch);
        let (ring, control) = (memory.make_outlet(RING).unwrap(), memory.make_control().unwrap());
        let mut outlet = Outlet::new(Rc::clone(&ring.map), RING);
        outlet.attach(Rc::clone(&control.map));
        let line = match attach(1, "cache", RING) {
            ToRelay::Attach { id, to, att, from, expected, ring, .. } => {
                ToRelay::Attach { id, to, chan: 3, epoch, att, from, expected, ring }
            }
            line => line,
        };
        process.stream.set_nonblocking(false).unwrap();
        say_with(&process.stream, &line, &[&ring.fd, &control.fd]);
        process.stream.set_nonblocking(true).unwrap();
        for round in 0..400 {
            // Something good now and then, so that the relay reads on.
            if round < 50 {
                let _ = outlet.push(1, 0, &[round as u8; 200]);
                outlet.publish();
            } else {
                let (data, at) = places(&mut dice);
                let map = if data { &ring.map } else { &control.map };
                scribble(map, (at % (map.len() - 8)) & !7, &mut dice);
            }
            if round % 5 == 0 {
                process.ring();
            }
            if !process.listens() {
                break;
            }
        }
    }
}

#[test]
fn one_who_scribbles_over_its_ring_while_it_is_read_ends_alone() {
    let world = World::new();
    // Record headers, lengths, payloads.
    scribbler(&world, "s0", |dice| (true, 8192 + dice.below(u64::from(RING)) as usize));
    world.end();
}

#[test]
fn one_who_scribbles_over_its_publish_word_ends_alone() {
    let world = World::new();
    scribbler(&world, "s1", |dice| (true, [4096, 4096, 0, 8, 16][dice.below(5) as usize]));
    world.end();
}

#[test]
fn one_who_scribbles_over_its_control_page_ends_alone() {
    let world = World::new();
    scribbler(&world, "s2", |dice| (false, [256, 512, 520, 768, 0][dice.below(5) as usize]));
    world.end();
}

#[test]
fn one_who_scribbles_over_everything_ends_alone() {
    let world = World::new();
    scribbler(&world, "s3", |dice| {
        (dice.below(2) == 0, dice.below(8192 + u64::from(RING)) as usize)
    });
    world.end();
}

/// Waits for a sender, and gives it a ring.
fn give_ring(process: &mut Process, ring: &Made, mut send: impl FnMut()) -> bool {
    use std::io::Read;
    let (mut said, begun) = (Vec::new(), Instant::now());
    loop {
        send();
        let mut bytes = [0; 4096];
        match process.stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(n) => said.extend(&bytes[..n]),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
        while let Some(end) = said.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = said.drain(..=end).collect();
            let line = ringlane::bus::local::decode(&line).expect("relays say lines");
            if let FromRelay::Incoming { from, chan, epoch, nonce, .. } = line {
                let line = ToRelay::Segment { from, chan, epoch, nonce, att: 1, ring: RING };
                say_with(&process.stream, &line, &[&ring.fd]);
                return true;
            }
        }
        assert!(begun.elapsed() < super::world::PATIENCE, "nobody sends");
    }
}

#[test]
fn one_who_scribbles_over_the_ring_it_receives_in_ends_alone() {
    let world = World::new();
    let mut dice = Dice(5);
    let memory = Memory::new().unwrap();
    // Somebody who writes to it, at home.
    let base = EventBase::new().unwrap();
    let sender = ringlane::bus::Bus::open_at(&base, "s9", &world.sockets[0]).unwrap();
    base.turn(Turn::NoWait).unwrap();
    let (begun, mut epoch) = (Instant::now(), 1_000);
    while begun.elapsed() < SCRIBBLES {
        epoch += 1;
        let mut process = Process::new(&world, "s8", epoch);
        let ring = memory.make_inlet(RING).unwrap();
        let _inlet = Inlet::new(Rc::clone(&ring.map), RING);
        let given = give_ring(&mut process, &ring, || {
            let _ = sender.send("s8", &[1; 300]);
            base.turn(Turn::NoWait).unwrap();
        });
        if !given {
            continue;
        }
        for round in 0..300 {
            let _ = sender.send("s8", &[round as u8; 300]);
            base.turn(Turn::NoWait).unwrap();
            let at = match dice.below(4) {
                // The publish word, the head, the ring.
                0 => 4096,
                1 | 2 => 4096 + 256,
                _ => dice.below(ring.map.len() as u64 - 8) as usize & !7,
            };
            if round > 20 {
                scribble(&ring.map, at, &mut dice);
            }
            if round % 3 == 0 {
                process.ring();
            }
            if !process.listens() {
                break;
            }
        }
    }
    world.end();
}

#[test]
fn a_bell_with_a_token_that_is_nobodys_is_taken_down() {
    let world = World::new();
    let process = Process::new(&world, "s4", 1);
    let mut stream = world.local();
    say(&mut stream, &super::lines::register("s5", 1));
    let FromRelay::Registered { bell, .. } = hear(&mut stream) else { panic!("not registered") };
    let base = EventBase::new().unwrap();
    for token in [&[1; 16][..], b"short", &[9; 900]] {
        let ended = Rc::new(std::cell::Cell::new(false));
        let told = Rc::clone(&ended);
        let other = base.connect(&bell).unwrap();
        other.on_event(move |_, event| told.set(told.get() | event.is_end()));
        other.enable(READ);
        let mut said = false;
        let since = Instant::now();
        while !ended.get() {
            base.turn(Turn::NoWait).unwrap();
            if let Some(port) = other.face::<Port>().filter(|_| !said) {
                said = port.push(1, 0, token).is_ok();
            }
            assert!(since.elapsed() < super::world::PATIENCE, "it stays");
        }
    }
    super::world::logged("with a token that is nobody's");
    process.ring();
    world.end();
}
