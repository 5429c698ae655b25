//! A transport inside a transport: what the outer one hands through is complete, and nothing of
//! the inner one reaches anybody else.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringlane::evbuffer::Evbuffer;
use ringlane::prelude::*;
use ringlane::transport::{
    Armed, Caps, Cx, InnerEvents, LinkEvent, LinkId, ListenOptions, Transport,
};
use ringlane::{Address, LinkInfo};
use ringlane_api::fd::Fd;
use ringlane_api::reactor::Completion;
use ringlane_kit::sim::{Faults, Setup, World};

/// `veiled://` is `unix://` under another name. Its links have the numbers of the inner ones.
struct Veiled {
    inner: Box<dyn Transport>,
    events: InnerEvents,
    /// Timers of its own that came, to tell them from the inner transport's.
    timers: Rc<RefCell<Vec<LinkId>>>,
}

fn unix(address: &Address) -> Address {
    address.to_string().replace("veiled://", "unix://").parse().expect("it was one")
}

impl Veiled {
    fn inside<R>(
        &mut self,
        cx: &mut Cx<'_>,
        call: impl FnOnce(&mut dyn Transport, &mut Cx<'_>) -> R,
    ) -> R {
        let mut events = std::mem::take(&mut self.events);
        let result = call(self.inner.as_mut(), &mut cx.inner(&mut events));
        self.events = events;
        result
    }

    /// What happened inside happens outside.
    fn hand_on(&mut self, cx: &mut Cx<'_>) {
        for (link, event) in std::mem::take(&mut self.events) {
            if matches!(event, LinkEvent::Connected) {
                cx.timer(link, Duration::from_millis(1));
            }
            cx.emit(link, event);
        }
    }
}

impl Transport for Veiled {
    fn scheme(&self) -> &'static str {
        "veiled"
    }
    fn caps(&self) -> &Caps {
        self.inner.caps()
    }
    fn check(&self, address: &Address) -> Result<()> {
        self.inner.check(&unix(address))
    }
    fn listen(&mut self, cx: &mut Cx<'_>, at: &Address, with: &ListenOptions) -> Result<LinkId> {
        self.inside(cx, |inner, cx| inner.listen(cx, &unix(at), with))
    }
    fn connect(&mut self, cx: &mut Cx<'_>, to: &Address, with: &LinkOptions) -> Result<LinkId> {
        self.inside(cx, |inner, cx| inner.connect(cx, &unix(to), with))
    }
    fn adopt(&mut self, cx: &mut Cx<'_>, fd: Fd, with: &LinkOptions) -> Result<LinkId> {
        self.inside(cx, |inner, cx| inner.adopt(cx, fd, with))
    }
    fn adopt_listener(&mut self, cx: &mut Cx<'_>, fd: Fd, with: &ListenOptions) -> Result<LinkId> {
        self.inside(cx, |inner, cx| inner.adopt_listener(cx, fd, with))
    }
    fn release_fd(&mut self, cx: &mut Cx<'_>, link: LinkId) -> Option<Fd> {
        self.inside(cx, |inner, cx| inner.release_fd(cx, link))
    }
    fn info(&mut self, _cx: &mut Cx<'_>, _link: LinkId) -> LinkInfo {
        LinkInfo::default()
    }
    fn send(&mut self, cx: &mut Cx<'_>, link: LinkId, out: &mut Evbuffer, fds: &mut Vec<Fd>) {
        self.inside(cx, |inner, cx| inner.send(cx, link, out, fds));
    }
    fn grant(&mut self, cx: &mut Cx<'_>, link: LinkId, amount: u64) {
        self.inside(cx, |inner, cx| inner.grant(cx, link, amount));
    }
    fn finish(&mut self, cx: &mut Cx<'_>, link: LinkId) {
        self.inside(cx, |inner, cx| inner.finish(cx, link));
    }
    fn abort(&mut self, cx: &mut Cx<'_>, link: LinkId) {
        self.inside(cx, |inner, cx| inner.abort(cx, link));
    }
    fn complete(&mut self, cx: &mut Cx<'_>, completion: Completion) {
        assert!(completion.token.is_inner(), "it pushes nothing itself");
        self.inside(cx, |inner, cx| inner.complete(cx, completion.of_inner()));
        self.hand_on(cx);
    }
    fn timer(&mut self, _cx: &mut Cx<'_>, link: LinkId) {
        self.timers.borrow_mut().push(link);
    }
    fn inner_timer(&mut self, cx: &mut Cx<'_>, link: LinkId) {
        self.inside(cx, |inner, cx| inner.timer(cx, link));
        self.hand_on(cx);
    }
    fn arm(&mut self, cx: &mut Cx<'_>, _idle: bool) -> Armed {
        let busy = !self.events.is_empty();
        self.hand_on(cx);
        if busy { Armed::Busy } else { Armed::Quiet }
    }
}

fn base(world: &World) -> (EventBase, Rc<RefCell<Vec<LinkId>>>) {
    let timers = Rc::default();
    let veiled =
        Veiled { inner: ringlane_uds::transport(), events: Vec::new(), timers: Rc::clone(&timers) };
    let all: Vec<Box<dyn Transport>> = vec![Box::new(veiled), ringlane_uds::transport()];
    (EventBase::with(Box::new(world.reactor()), all), timers)
}

/// Runs an echo of `bytes` at this address and returns what came back.
fn echo(base: &EventBase, at: &str, bytes: usize) -> usize {
    let listener = base
        .listen(at, |conn| {
            conn.on_read(|c| {
                c.output().append(c.input());
            });
            conn.on_event(|c, event| {
                if event.is_end() {
                    c.free();
                }
            });
            conn.enable(READ);
        })
        .expect("nobody else listens there");
    let (got, stop) = (Rc::new(RefCell::new(0)), listener);
    let conn = base.connect(at).expect("the address is valid");
    conn.output().add(&vec![7; bytes]);
    let sum = Rc::clone(&got);
    conn.on_read(move |c| {
        *sum.borrow_mut() += c.input().take().len();
        if *sum.borrow() == bytes {
            c.free();
            stop.free();
        }
    });
    conn.enable(READ);
    base.dispatch().expect("it turns");
    *got.borrow()
}

#[test]
fn a_transport_may_own_another_and_neither_meets_the_others_links() {
    for seed in 0..20 {
        let faults = Faults::mild();
        let setup = Setup { seed, faults, fail_when_stalled: true, ..Setup::default() };
        let world = World::new(setup);
        let (base, timers) = base(&world);
        assert_eq!(echo(&base, "veiled://@a", 300_000), 300_000);
        assert_eq!(echo(&base, "unix://@b", 300_000), 300_000);
        assert!(timers.borrow().len() <= 1, "the inner transport's timers are not the outer's");
        drop(base);
        assert_eq!((world.open_fds(), world.violations()), (0, Vec::new()), "seed {seed}");
    }
}

#[test]
fn an_inner_transports_deadline_does_not_reach_the_outer_one() {
    let world = World::new(Setup { fail_when_stalled: true, ..Setup::default() });
    let (base, timers) = base(&world);
    let refused = Rc::new(RefCell::new(String::new()));
    let conn = base.connect("veiled://@nobody-is-here").expect("the address is valid");
    let why = Rc::clone(&refused);
    conn.on_event(move |c, event| {
        if let BevEvent::Error { error, .. } = event {
            *why.borrow_mut() = error.to_string();
        }
        c.free();
    });
    base.dispatch().expect("it turns");
    assert!(refused.borrow().contains("refused"), "{}", refused.borrow());
    assert!(timers.borrow().is_empty());
}
