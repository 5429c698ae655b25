//! An echo server on any address: `cargo run --example echo -- tcp://127.0.0.1:7000`.

use ringlane::prelude::*;
use ringlane::{READ, Result, Signal};

fn main() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or("tcp://127.0.0.1:7000".into());
    let base = EventBase::new()?;
    let listener = base.listen(&address, |conn| {
        conn.on_read(|c| c.output().append(c.input()));
        conn.on_event(|c, event| {
            if event.is_end() {
                c.free();
            }
        });
        conn.enable(READ);
    })?;
    println!("listening {}", listener.address());
    base.on_signal(Signal::SIGTERM, |base| base.stop())?;
    base.dispatch()
}
