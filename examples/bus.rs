//! Two processes that find each other by name. Start a relay on each host first, or on one:
//!
//! ```text
//!   ringlane relay --config cluster.toml --host a &
//!   cargo run --example bus -- login @ringlane-1000-a db 1000     # sends 1000 messages to db
//!   cargo run --example bus -- db @ringlane-1000-a                # counts what comes
//! ```

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringlane::bus::{Bus, BusError};
use ringlane::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let base = EventBase::new()?;
    let (Some(name), Some(socket)) = (arguments.first(), arguments.get(1)) else {
        return Err("say: NAME SOCKET [TO COUNT]".into());
    };
    let bus = Bus::open_at(&base, name, socket)?;
    bus.on_peer(|event| println!("{event}"));
    bus.on_relay(|event| println!("{event:?}"));
    let got = Rc::new(Cell::new(0_u64));
    let counted = Rc::clone(&got);
    bus.on_message(move |_| counted.set(counted.get() + 1));
    base.every(Duration::from_secs(1), move |_| println!("{} messages so far", got.get()));
    if let (Some(to), Some(count)) = (arguments.get(2).cloned(), arguments.get(3)) {
        let (count, sent) = (count.parse::<u64>()?, Rc::new(Cell::new(0)));
        let sender = bus.clone();
        let fill = move || {
            while sent.get() < count {
                match sender.send(&to, format!("message {}", sent.get()).as_bytes()) {
                    Ok(()) => sent.set(sent.get() + 1),
                    Err(BusError::WouldBlock) => return,
                    Err(error) => return eprintln!("{error}"),
                }
            }
            println!("all {count} are accepted");
        };
        fill();
        bus.on_writable(move |_, _| fill());
    }
    let closing = bus.clone();
    base.on_signal(Signal::SIGINT, move |base| {
        let base = base.clone();
        closing.close(Duration::from_secs(5), move |left| {
            println!("{left} were not acknowledged");
            base.stop();
        });
    })?;
    base.dispatch()?;
    Ok(())
}
