//! Two ends that talk in rounds: each sends as many bytes as the round wants, and goes on to the
//! next round when it has got as many. So both sleep, for bytes and for room, again and again.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use ringlane_api::{BevEvent, Bufferevent, READ, Side};

use crate::kit;

/// Sizes for rings of 4 KiB: some fit, some do not.
pub const MIXED: &[usize] = &[1, 64, 3000, 9000, 1, 30000];

/// How a link ended for who reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    Eof,
    Failed(String),
}

/// One end.
pub struct Talk {
    side: usize,
    sizes: &'static [usize],
    /// Rounds that are left, and the one that is on.
    rounds: u64,
    round: usize,
    sent: u64,
    pub received: u64,
    wanted: u64,
    pub open: bool,
    pub end: Option<End>,
    /// When the end was heard.
    pub heard: Option<Instant>,
    /// What the peer has published by the end, and whether it said that it was over.
    pub said: Option<(u64, bool)>,
    /// Stays as it is at the end, for who wants to look at it.
    pub keeps: bool,
}

impl Talk {
    pub fn new(side: usize, sizes: &'static [usize], rounds: u64) -> Rc<RefCell<Talk>> {
        Rc::new(RefCell::new(Talk {
            side,
            sizes,
            rounds,
            round: 0,
            sent: 0,
            received: 0,
            wanted: 0,
            open: false,
            end: None,
            heard: None,
            said: None,
            keeps: false,
        }))
    }

    /// Begins a round if the last one is over.
    fn go_on(&mut self, conn: &Bufferevent) {
        while self.received >= self.wanted && self.rounds > 0 {
            let n = self.sizes[self.round % self.sizes.len()];
            self.round += 1;
            self.rounds -= 1;
            let bytes: Vec<u8> =
                (self.sent..self.sent + n as u64).map(|at| kit::pattern(self.side, at)).collect();
            conn.output().add(&bytes);
            self.sent += n as u64;
            self.wanted += n as u64;
        }
        if self.received >= self.wanted {
            conn.finish();
        }
    }

    /// Ends after this round.
    pub fn stop(&mut self) {
        self.rounds = 0;
    }

    fn read(&mut self, conn: &Bufferevent) {
        for byte in conn.input().take() {
            let should = kit::pattern(1 - self.side, self.received);
            assert_eq!(byte, should, "byte {} of the peer", self.received);
            self.received += 1;
        }
        self.go_on(conn);
    }

    fn ended(&mut self, end: End) {
        self.heard.get_or_insert_with(Instant::now);
        self.end.get_or_insert(end);
        if let [segment] = kit::segments()[..] {
            let (published, over) = kit::said(segment, 1 - self.side);
            self.said = Some((u64::from(published.pos), over));
        }
    }
}

/// Talks over a connection to its end; then frees it.
pub fn talk(conn: &Bufferevent, talk: &Rc<RefCell<Talk>>) {
    let (reads, events) = (Rc::clone(talk), Rc::clone(talk));
    conn.on_read(move |conn| reads.borrow_mut().read(conn));
    conn.on_event(move |conn, event| {
        let mut talk = events.borrow_mut();
        match event {
            BevEvent::Connected => {
                talk.open = true;
                return talk.go_on(conn);
            }
            // The other direction is read to its end.
            BevEvent::Error { side: Side::Write, .. } => return,
            BevEvent::Error { error, .. } => talk.ended(End::Failed(error.to_string())),
            _ => talk.ended(End::Eof),
        }
        if !talk.keeps {
            conn.free();
        }
    });
    conn.enable(READ);
}

/// The same for one that was accepted: it is open, and speaks first.
pub fn talk_accepted(conn: &Bufferevent, one: &Rc<RefCell<Talk>>) {
    talk(conn, one);
    let mut one = one.borrow_mut();
    one.open = true;
    one.go_on(conn);
}

/// A child that talks: side, engine, address, which sizes, rounds, then a point to die at and the
/// how manieth time it comes by.
pub fn child(arguments: &[&str]) {
    let [side, engine, address, sizes, rounds, crash @ ..] = arguments else {
        panic!("too few arguments: {arguments:?}");
    };
    let side: usize = side.parse().expect("0 or 1");
    let base = kit::base(kit::engine(engine));
    let one = Talk::new(side, self::sizes(sizes), rounds.parse().expect("a number"));
    if let [point, nth] = crash {
        crate::crash::arm(point, nth);
    }
    if side == 0 {
        talk(&base.connect(address).expect("it is an address"), &one);
    } else {
        let one = Rc::clone(&one);
        let listener = Rc::new(RefCell::new(None::<ringlane_api::Listener>));
        let held = Rc::clone(&listener);
        let accept = move |conn: Bufferevent| {
            talk_accepted(&conn, &one);
            held.borrow_mut().take().inspect(ringlane_api::Listener::free);
        };
        *listener.borrow_mut() = Some(base.listen(address, accept).expect("a free address"));
        println!("ready");
    }
    base.dispatch().expect("it turns");
    assert!(one.borrow().end.is_some(), "nothing came of it");
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    let blocked = usage.expect("it is known").voluntary_context_switches();
    let counters = base.transport_counters("shm");
    println!(
        "blocked {blocked} {}",
        counters.iter().map(|(n, c)| format!("{n} {c} ")).collect::<String>()
    );
}

/// Sizes by name.
pub fn sizes(name: &str) -> &'static [usize] {
    match name {
        "mixed" => MIXED,
        "byte" => &[1],
        "full" => &[20_000],
        name => panic!("no sizes are called {name}"),
    }
}
