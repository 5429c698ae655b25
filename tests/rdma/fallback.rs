//! Links whose device refuses: they go on without it if both addresses say so.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringlane::prelude::*;
use ringlane::reactor::Config;
use ringlane::transport::Transport;
use ringlane::{BevEvent, READ};
use ringlane_rdma_stub::soft::LIMITS;
use ringlane_rdma_stub::verbs::DeviceLimits;
use ringlane_rdma_stub::{limited, transport};

use super::{WATCHDOG, byte, unique};

type Maker = fn() -> Box<dyn Transport>;

/// Memory for no link, and completions for none.
const NOTHING: DeviceLimits = DeviceLimits { registered_bytes_max: 1000, ..LIMITS };
const NO_ENTRIES: DeviceLimits = DeviceLimits { queue_entries_max: 8, ..LIMITS };

fn base(device: Box<dyn Transport>) -> EventBase {
    let reactor = ringlane_reactor::best(&Config::default()).expect("an engine");
    EventBase::with(reactor, vec![device])
}

fn places(fallback: bool) -> [String; 2] {
    let ends = if fallback { ["?fallback=tcp", "?fallback=unix"] } else { ["", ""] };
    [format!("rdma://127.0.0.1:0{}", ends[0]), format!("rdma://@{}{}", unique("f"), ends[1])]
}

/// Two bases in turns, until something holds.
fn turn_both(a: &EventBase, b: &EventBase, what: &str, mut holds: impl FnMut() -> bool) {
    let late = Rc::new(Cell::new(false));
    let set = Rc::clone(&late);
    a.once(WATCHDOG, move |_| set.set(true));
    while !holds() {
        assert!(!late.get(), "hung: {what}");
        for base in [a, b] {
            base.turn(ringlane::Turn::NoWait).expect("a turn works");
        }
    }
}

struct Dial {
    got: Rc<Cell<usize>>,
    ended: Rc<Cell<bool>>,
    error: Rc<RefCell<String>>,
    conn: Bufferevent,
}

/// Sends 300,000 bytes and the end to an echo.
fn dial(base: &EventBase, at: &str) -> Dial {
    let conn = base.connect(at).expect("the address is valid");
    let (got, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let error = Rc::new(RefCell::new(String::new()));
    let count = Rc::clone(&got);
    conn.on_read(move |c| {
        for b in c.input().take() {
            assert_eq!(b, byte(count.get()));
            count.set(count.get() + 1);
        }
    });
    let (end, said) = (Rc::clone(&ended), Rc::clone(&error));
    conn.on_event(move |_, event| match event {
        BevEvent::Eof => end.set(true),
        BevEvent::Error { error, .. } => *said.borrow_mut() = error.to_string(),
        _ => {}
    });
    conn.set_read_watermark(0, 5000);
    conn.enable(READ);
    conn.output().add(&(0..300_000).map(byte).collect::<Vec<_>>());
    conn.finish();
    Dial { got, ended, error, conn }
}

fn listen(base: &EventBase, at: &str) -> String {
    let listener = base.listen(at, |conn| {
        conn.on_read(|c| {
            c.output().append(c.input());
        });
        conn.on_event(|c, event| {
            if event.is_end() {
                c.free();
            }
        });
        conn.enable(READ);
    });
    let address = listener.expect("nobody else listens there").address().to_string();
    let (_, parameters) = at.split_once('?').unwrap_or((at, ""));
    let bare = address.split('?').next().unwrap_or_default().to_string();
    if parameters.is_empty() { bare } else { format!("{bare}?{parameters}") }
}

#[test]
fn a_link_goes_on_as_plain_bytes_when_either_device_refuses() {
    let kinds: [(Maker, Maker); 4] = [
        (|| limited(NOTHING), transport),
        (transport, || limited(NOTHING)),
        (|| limited(NO_ENTRIES), || limited(NO_ENTRIES)),
        (transport, transport),
    ];
    for (serving, dialing) in kinds {
        for at in places(true) {
            let (there, here) = (base(serving()), base(dialing()));
            let dialed = dial(&here, &listen(&there, &at));
            let over = || dialed.ended.get() || !dialed.error.borrow().is_empty();
            turn_both(&there, &here, "the echo's end", over);
            assert_eq!((dialed.got.get(), &**dialed.error.borrow()), (300_000, ""), "{at}");
            assert!(dialed.ended.get());
            dialed.conn.free();
            turn_both(&there, &here, "the end of everything", || here.stats().links == 0);
            assert_eq!(ringlane_rdma_stub::not_ready_naks(), 0);
        }
    }
}

#[test]
fn who_does_not_agree_is_told_what_to_say() {
    let kind = |at: &str| if at.contains('@') { "unix" } else { "tcp" };
    for (refuses_here, says_here, says_there, wants) in [
        (true, false, true, "goes on without the device"),
        (true, true, false, "in its address, too"),
        (false, true, false, "in both addresses"),
        (false, false, true, "in both addresses"),
    ] {
        for i in 0..2 {
            let server = if refuses_here { transport() } else { limited(NOTHING) };
            let client = if refuses_here { limited(NOTHING) } else { transport() };
            let (there, here) = (base(server), base(client));
            let address = listen(&there, &places(says_there)[i]);
            let bare = address.split('?').next().unwrap_or_default();
            let fallback = format!("fallback={}", kind(bare));
            let at = if says_here { format!("{bare}?{fallback}") } else { bare.to_string() };
            let dialed = dial(&here, &at);
            turn_both(&there, &here, "the error", || !dialed.error.borrow().is_empty());
            let error = dialed.error.borrow().clone();
            assert!(error.contains(wants) && error.contains(&fallback), "{at}: {error}");
            dialed.conn.free();
            turn_both(&there, &here, "the end of everything", || here.stats().links == 0);
        }
    }
}
