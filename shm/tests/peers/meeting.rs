//! A child that talks with this process over a link, and what is left when it is over.

use std::cell::RefCell;
use std::io::BufReader;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Stdio};
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::{EventBase, Listener, Turn};
use ringlane_reactor::Engine;

use crate::kit;
use crate::talk::{End, Talk, talk, talk_accepted};

/// Both ends of a link: ours, and a child.
pub struct Meeting {
    pub talk: Rc<RefCell<Talk>>,
    pub child: Child,
    told: BufReader<ChildStdout>,
    listener: Option<Listener>,
    /// Descriptors and lines of `/proc/self/maps` before.
    fds: usize,
}

impl Meeting {
    /// A child with an engine on a side of the link, 0 for the connector, and our end of it on
    /// `base`. `more` goes to the child.
    pub fn new(
        base: &EventBase,
        side: usize,
        engine: Engine,
        address: &str,
        one: &Rc<RefCell<Talk>>,
        more: &[&str],
    ) -> Meeting {
        let fds = kit::open_fds();
        let side_text = side.to_string();
        let mut arguments = vec!["talk", &side_text, kit::name(engine), address];
        arguments.extend(more);
        let accepted = Rc::clone(one);
        let listener = (side == 0).then(|| {
            let accept = move |conn| talk_accepted(&conn, &accepted);
            base.listen(address, accept).expect("nobody else listens there")
        });
        let (child, mut told) = kit::child(&arguments, Stdio::null());
        if side == 1 {
            assert_eq!(kit::line(&mut told), "ready");
            talk(&base.connect(address).expect("it is an address"), one);
        }
        Meeting { talk: Rc::clone(one), child, told, listener, fds }
    }

    /// Turns the base until the child has ended and nothing of the link is left; what the child
    /// said last, and the signal that killed it.
    pub fn over(mut self, base: &EventBase) -> (String, Option<i32>) {
        let tick = base.every(Duration::from_millis(5), |_| {});
        let status = loop {
            base.turn(Turn::Wait).expect("it turns");
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                break status;
            }
        };
        let said = kit::line(&mut self.told);
        drop(self.told);
        let waits = self.listener.is_none() || self.talk.borrow().open;
        while waits && self.talk.borrow().end.is_none() {
            base.turn(Turn::Wait).expect("it turns");
        }
        self.listener.inspect(Listener::free);
        while kit::open_fds() > self.fds || base.stats().links + base.stats().listeners > 0 {
            base.turn(Turn::Wait).expect("it turns");
        }
        assert_eq!(kit::segments(), [0; 0], "maps of a link that is over");
        tick.free();
        (said, status.signal())
    }
}

/// Checks what our end heard of a peer that was killed: nothing if there was no link yet;
/// otherwise every byte that was published, none that was not, and then an end of the right kind.
pub fn judge(talk: &Talk, side: usize, case: &str) {
    match (talk.open, &talk.end, side) {
        (true, Some(end), _) => {
            let (published, over) = talk.said.expect("its segment was mapped at the end");
            assert_eq!(talk.received, published, "{case}: what was published is what comes");
            assert_eq!(matches!(end, End::Eof), over, "{case}: {end:?}");
        }
        (false, Some(End::Failed(_)), 1) | (false, None, 0) => {}
        (open, end, _) => panic!("{case}: open {open}, and the end is {end:?}"),
    }
}
