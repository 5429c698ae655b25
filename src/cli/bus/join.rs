//! How a command takes part in the bus.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use ringlane::bus::{Bus, Options, PeerEvent, RelayEvent};
use ringlane::prelude::*;
use ringlane::reactor::Config;

use super::ask;
use super::find::At;

/// Who waits for so long hears what for.
const SAY_AFTER: Duration = Duration::from_secs(1);

/// How long the end of a command may wait for its last bytes to leave.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Through which relay, and what about a process that has the name.
#[derive(Args, Debug, Default)]
pub struct Joining {
    #[command(flatten)]
    at: At,
    /// Ends the process that has the name.
    #[arg(long)]
    replace: bool,
}

/// A command on the bus.
pub struct Member {
    pub base: EventBase,
    pub bus: Bus,
    told: Rc<Told>,
}

/// What the bus has told so far.
#[derive(Default)]
struct Told {
    /// Why it is over.
    failed: RefCell<Option<anyhow::Error>>,
    /// What is waited for.
    waiting: RefCell<Option<String>>,
    /// Messages that a peer that died had not consumed.
    undelivered: Cell<u64>,
}

impl Joining {
    /// Joins as a node; nothing was sent or received yet.
    pub fn join(&self, config: &Config, name: &str) -> Result<Member> {
        let place = self.at.relay_of(name)?;
        // A process waits for its relay; a person is told that there is none.
        ask::look(&place)?;
        let base = EventBase::with_config(config)?;
        let options = Options { replace: self.replace, ..Options::default() };
        let bus = Bus::open_with(&base, name, &place.address(), &options)?;
        let told = Rc::new(Told::default());
        let (hears, on, name) = (Rc::clone(&told), base.clone(), name.to_string());
        bus.on_relay(move |event| match event {
            RelayEvent::NameInUse { pid, .. } => hears.fail(
                &on,
                anyhow!("process {pid} is `{name}`; end it, take another name, or say --replace"),
            ),
            RelayEvent::Refused { why } => hears.fail(&on, anyhow!("{why}")),
            RelayEvent::Lost { why } => eprintln!("ringlane: {why}; waiting for another relay"),
            _ => {}
        });
        let (hears, on) = (Rc::clone(&told), base.clone());
        bus.on_peer(move |event| hears.hear(&on, event));
        Ok(Member { base, bus, told })
    }
}

impl Told {
    fn fail(&self, base: &EventBase, error: anyhow::Error) {
        self.failed.borrow_mut().get_or_insert(error);
        base.stop();
    }

    fn hear(self: &Rc<Self>, base: &EventBase, event: &PeerEvent) {
        match event {
            PeerEvent::Here { .. } => drop(self.waiting.take()),
            PeerEvent::Waiting { node, why, .. } | PeerEvent::Stuck { node, why, .. } => {
                let fresh = self.waiting.replace(Some(format!("{node}: {why}"))).is_none();
                if fresh {
                    let told = Rc::clone(self);
                    base.once(SAY_AFTER, move |_| told.say_waiting());
                }
            }
            PeerEvent::NoPath { why, .. } => self.fail(base, anyhow!("{why}")),
            PeerEvent::Gone { node, undelivered, first, exact, .. } if !undelivered.is_empty() => {
                let n = undelivered.len() as u64;
                self.undelivered.set(self.undelivered.get() + n);
                let sure = if *exact { "did not consume" } else { "may not have consumed" };
                eprintln!("ringlane: {node} has died; it {sure} {n} messages, from {first} on");
            }
            PeerEvent::TooLarge { node, .. } => {
                eprintln!("ringlane: a message of {node} was too large and was dropped");
            }
            _ => {}
        }
    }

    fn say_waiting(&self) {
        if let Some(what) = &*self.waiting.borrow() {
            eprintln!("ringlane: waiting for {what}");
        }
    }
}

impl Member {
    /// Ends the loop with an error.
    pub fn fail(&self, error: anyhow::Error) {
        self.told.fail(&self.base, error);
    }

    /// What went wrong, if something did.
    pub fn failed(&self) -> Result<()> {
        self.told.failed.take().map_or(Ok(()), Err)
    }

    /// What is waited for, in parentheses, for the end of an error.
    pub fn waiting(&self) -> String {
        self.told.waiting.borrow().as_ref().map_or_else(String::new, |what| format!(" ({what})"))
    }

    /// Messages that peers that died had not consumed.
    pub fn undelivered(&self) -> u64 {
        self.told.undelivered.get()
    }

    /// A signal calls this; a second one ends at once.
    pub fn on_signal(&self, callback: impl Fn(&EventBase) + 'static) -> Result<()> {
        let (callback, came) = (Rc::new(callback), Rc::new(Cell::new(false)));
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let (callback, came) = (Rc::clone(&callback), Rc::clone(&came));
            self.base.on_signal(signal, move |base| {
                if came.replace(true) { base.break_now() } else { callback(base) }
            })?;
        }
        Ok(())
    }

    /// Lets the last words out: a name is free when the relay has heard that its process leaves.
    pub fn part(&self) {
        let over = Rc::new(Cell::new(self.bus.is_alive()));
        let told = Rc::clone(&over);
        let timer = self.base.timer(LAST_WORDS, move |_| told.set(true));
        while !over.get() && self.base.stats().links > 0 && self.base.turn(Turn::Wait).is_ok() {}
        timer.free();
    }
}
