//! `ringlane echo`: sends back what it receives.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use anyhow::Result;
use clap::Args;
use ringlane::{Bufferevent, EventBase, Listener, READ};

use super::{Serving, serve};

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// Where to listen, like tcp://127.0.0.1:7000 or unix:///run/echo.sock; port 0 takes a free
    /// one.
    #[arg(required = true, value_name = "ADDR")]
    addresses: Vec<String>,
    /// Drop what comes instead of sending it back.
    #[arg(long)]
    discard: bool,
    #[command(flatten)]
    serving: Serving,
}

/// One listener and what happened there.
#[derive(Default)]
struct Place {
    address: RefCell<String>,
    most: usize,
    discards: bool,
    /// Connections here, and at all places together.
    now: Cell<usize>,
    open: Rc<Cell<usize>>,
    total: Cell<u64>,
    refused: Cell<u64>,
    bytes: Cell<u64>,
}

struct Echo(Vec<(Rc<Place>, Listener)>);

impl serve::Service for Echo {
    fn stop_accepting(&self) {
        for (_, listener) in &self.0 {
            listener.free();
        }
    }

    fn connections(&self) -> usize {
        self.0.iter().map(|(place, _)| place.now.get()).sum()
    }

    fn counters(&self) -> Vec<String> {
        let line = |place: &Place| {
            format!(
                "{}: connections now {} total {} refused {}, bytes {}",
                place.address.borrow(),
                place.now.get(),
                place.total.get(),
                place.refused.get(),
                place.bytes.get()
            )
        };
        self.0.iter().map(|(place, _)| line(place)).collect()
    }
}

/// Echoes until a signal ends it.
pub fn run(base: &EventBase, asked: &Asked) -> Result<()> {
    let room = asked.serving.room(1)?;
    let most = asked.serving.max_connections.map_or(room, |most| most as usize);
    let open = Rc::new(Cell::new(0));
    let mut places = Vec::new();
    for address in &asked.addresses {
        let place = Rc::new(Place {
            most,
            discards: asked.discard,
            open: Rc::clone(&open),
            ..Place::default()
        });
        let here = Rc::clone(&place);
        let listener = base.listen(address, move |conn| accept(&here, &conn))?;
        *place.address.borrow_mut() = listener.address().to_string();
        places.push((place, listener));
    }
    let listening = |place: &Place| format!("listening {}", place.address.borrow());
    let lines: Vec<_> = places.iter().map(|(place, _)| listening(place)).collect();
    serve::run(base, Rc::new(Echo(places)), &asked.serving, &lines)
}

fn accept(place: &Rc<Place>, conn: &Bufferevent) {
    place.total.set(place.total.get() + 1);
    if place.open.get() >= place.most {
        place.refused.set(place.refused.get() + 1);
        conn.abort();
        return;
    }
    place.now.set(place.now.get() + 1);
    place.open.set(place.open.get() + 1);
    let here = Rc::clone(place);
    conn.on_read(move |conn| {
        let n = conn.input().len();
        here.bytes.set(here.bytes.get() + n as u64);
        if here.discards {
            conn.input().drain(n);
        } else {
            conn.output().append(conn.input());
        }
    });
    let here = Rc::clone(place);
    conn.on_event(move |conn, event| {
        if event.is_end() {
            here.now.set(here.now.get() - 1);
            here.open.set(here.open.get() - 1);
            conn.free();
        }
    });
    conn.enable(READ);
}
