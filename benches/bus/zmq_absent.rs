//! Stands for `zmq.rs` where the bench was built without libzmq.

use std::io;

use crate::client::{Client, Side};
use crate::system::System;

const HOW: &str = "apt-get install libzmq3-dev, and build with --features zmq";

pub const ONE: System = absent("zmq1", 1);
pub const TWO: System = absent("zmq2", 2);

const fn absent(name: &'static str, relays: u8) -> System {
    System {
        name,
        what: "libzmq",
        relays,
        credit: None,
        available: || Err(HOW.into()),
        start: || Err(io::Error::other(HOW)),
        connect: client,
    }
}

fn client(_side: Side, _at: &str) -> io::Result<Box<dyn Client>> {
    Err(io::Error::other(HOW))
}

/// A process that passes messages on.
pub fn relay(_ways: &[String]) -> io::Result<()> {
    Err(io::Error::other(HOW))
}
