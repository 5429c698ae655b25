//! The connection to the relay: looked for, registered at, watched, and made again.
//!
//! ```text
//!   Away --dial--> Dialling --> Registering --Registered--> Here --hang-up, silence--> Away
//! ```
//!
//! Sockets are tried in order, the relay's own and then those of successors that were started over
//! a hung one. Before a connection is given up, rings to receive into are frozen: a relay that
//! sees a hang-up and a ring that is not frozen knows that the process has died.

use super::{ConnNo, Core, Do, Event, Millis};
use crate::bus::event::RelayEvent;
use crate::bus::local::{FromRelay, Nonce, Said, ToRelay, VERSION};

/// Between two rounds of dialling.
const DIAL: Millis = 100;

/// A relay that takes the connection and says nothing for so long hangs.
const REGISTER: Millis = 1000;

/// Between two questions whether the relay is there.
const PING: Millis = 250;

/// After so long without an answer a successor is looked for: a name that nobody has is tried.
const SILENT: Millis = 500;

/// After so long it hangs.
const HUNG: Millis = 3000;

/// How many sockets of successors are tried.
const SUCCESSORS: u8 = 9;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Away { dial_at: Millis },
    Dialling { conn: ConnNo, successor: u8 },
    Registering { conn: ConnNo, successor: u8, since: Millis },
    Here { conn: ConnNo, successor: u8 },
    Over,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Link {
    state: State,
    next_conn: ConnNo,
    /// A successor's socket, tried while the relay is silent.
    trial: Option<(ConnNo, u8)>,
    trial_at: Millis,
    heard_at: Millis,
    ping_at: Millis,
    pings: u64,
    bell: bool,
}

impl Link {
    pub fn new() -> Link {
        Link {
            state: State::Away { dial_at: 0 },
            next_conn: 1,
            trial: None,
            trial_at: 0,
            heard_at: 0,
            ping_at: 0,
            pings: 0,
            bell: false,
        }
    }

    pub fn deadline(&self) -> Option<Millis> {
        match self.state {
            State::Away { dial_at } => Some(dial_at),
            State::Registering { since, .. } => Some(since + REGISTER),
            State::Here { .. } if self.trial.is_some() => Some(self.ping_at),
            State::Here { .. } => {
                let look_at = self.trial_at.max(self.heard_at.saturating_add(SILENT));
                Some(self.ping_at.min(look_at))
            }
            State::Dialling { .. } | State::Over => None,
        }
    }

    fn conn(&self) -> Option<ConnNo> {
        match self.state {
            State::Dialling { conn, .. }
            | State::Registering { conn, .. }
            | State::Here { conn, .. } => Some(conn),
            State::Away { .. } | State::Over => None,
        }
    }
}

impl Core {
    /// Whether the relay has taken this process in.
    pub fn is_here(&self) -> bool {
        matches!(self.link.state, State::Here { .. })
    }

    /// Whether there is a bell to be rung.
    pub fn has_bell(&self) -> bool {
        self.link.bell
    }

    /// Says a line, if the relay is here; otherwise it is said when it is.
    pub(super) fn say(&mut self, said: Said<ToRelay>) {
        if let State::Here { conn, .. } = self.link.state {
            self.todo.push_back(Do::Say(conn, said));
        }
    }

    pub(super) fn say_line(&mut self, line: ToRelay) {
        self.say(Said::plain(line));
    }

    fn dial(&mut self, successor: u8) -> ConnNo {
        let conn = self.link.next_conn;
        self.link.next_conn += 1;
        self.todo.push_back(Do::Dial { conn, successor });
        conn
    }

    pub(super) fn link_tick(&mut self) {
        let now = self.now;
        match self.link.state {
            State::Away { dial_at } if dial_at <= now => {
                let conn = self.dial(0);
                self.link.state = State::Dialling { conn, successor: 0 };
            }
            State::Registering { conn, successor, since } if since + REGISTER <= now => {
                self.todo.push_back(Do::Hang(conn));
                self.dial_next(successor);
            }
            State::Here { .. } => self.watch(),
            _ => {}
        }
    }

    /// The next socket, or a rest.
    fn dial_next(&mut self, successor: u8) {
        self.link.state = if successor < SUCCESSORS - 1 {
            let conn = self.dial(successor + 1);
            State::Dialling { conn, successor: successor + 1 }
        } else {
            State::Away { dial_at: self.now + DIAL }
        };
    }

    /// Whether the relay still answers.
    fn watch(&mut self) {
        let now = self.now;
        // For as long as we did not run ourselves nobody could answer us.
        let late = now.saturating_sub(self.link.ping_at);
        if late > PING {
            self.link.heard_at = (self.link.heard_at + late).min(now);
        }
        let silence = now.saturating_sub(self.link.heard_at);
        if silence >= HUNG {
            return self.lose("the relay has not answered for 3 s", true);
        }
        if silence >= SILENT && self.link.trial.is_none() && self.link.trial_at <= now {
            let own = match self.link.state {
                State::Here { successor, .. } => successor,
                _ => 0,
            };
            self.try_successor(own + 1);
        }
        if self.link.ping_at <= now {
            self.link.ping_at = now + PING;
            self.link.pings += 1;
            self.say_line(ToRelay::Ping { id: self.link.pings });
        }
    }

    fn try_successor(&mut self, successor: u8) {
        self.link.trial = if successor < SUCCESSORS {
            Some((self.dial(successor), successor))
        } else {
            self.link.trial_at = self.now + DIAL;
            None
        };
    }

    fn end_trial(&mut self) {
        if let Some((conn, _)) = self.link.trial.take() {
            self.todo.push_back(Do::Hang(conn));
        }
    }

    /// A connection is made.
    pub fn connected(&mut self, conn: ConnNo) {
        let now = self.now;
        match (self.link.trial, self.link.state) {
            (Some((trial, successor)), _) if trial == conn => {
                // Somebody has taken over.
                self.link.trial = None;
                self.lose("the relay hangs, and a successor has taken over", true);
                self.link.state = State::Registering { conn, successor, since: now };
            }
            (_, State::Dialling { conn: dialled, successor }) if dialled == conn => {
                self.link.state = State::Registering { conn, successor, since: now };
            }
            _ => return self.todo.push_back(Do::Hang(conn)),
        }
        self.register(conn);
    }

    fn register(&mut self, conn: ConnNo) {
        let line = ToRelay::Register {
            node: self.setup.node.clone(),
            epoch: self.setup.epoch,
            nonce: self.setup.nonce,
            version: VERSION,
            replace: self.setup.replace,
        };
        self.todo.push_back(Do::Say(conn, Said::plain(line)));
    }

    /// A connection could not be made.
    pub fn failed(&mut self, conn: ConnNo) {
        match (self.link.trial, self.link.state) {
            (Some((trial, successor)), _) if trial == conn => self.try_successor(successor + 1),
            (_, State::Dialling { conn: dialled, successor }) if dialled == conn => {
                self.dial_next(successor);
            }
            _ => {}
        }
    }

    /// A connection has ended.
    pub fn hung_up(&mut self, conn: ConnNo) {
        match (self.link.trial, self.link.state) {
            (Some((trial, successor)), _) if trial == conn => self.try_successor(successor + 1),
            (_, State::Here { conn: current, .. }) if current == conn => {
                self.lose("the relay's connection has ended", false);
            }
            (_, State::Registering { conn: current, successor, .. }) if current == conn => {
                self.dial_next(successor);
            }
            _ => self.failed(conn),
        }
    }

    /// The relay is given up: rings are frozen first, and everything is read and written that can
    /// be, since a relay may die between its last store and the bell.
    fn lose(&mut self, why: &'static str, hang: bool) {
        let State::Here { conn, .. } = self.link.state else { return };
        self.freeze_all();
        self.end_trial();
        if hang {
            self.todo.push_back(Do::Hang(conn));
        }
        if std::mem::take(&mut self.link.bell) {
            self.todo.push_back(Do::CloseBell);
        }
        self.link.state = State::Away { dial_at: self.now };
        self.events.push_back(Event::Relay(RelayEvent::Lost { why }));
        self.publish();
        self.rang();
    }

    /// A line came.
    pub fn said(&mut self, conn: ConnNo, line: FromRelay) {
        if self.link.conn() != Some(conn) || self.closed {
            return;
        }
        self.link.heard_at = self.now;
        self.end_trial();
        match (self.link.state, line) {
            (State::Here { .. }, FromRelay::StaleEpoch { known }) => self.renew(known, conn),
            (State::Here { .. }, FromRelay::NameInUse { pid, since }) => {
                self.freeze_all();
                self.over(RelayEvent::NameInUse { pid, since });
            }
            (State::Here { .. }, FromRelay::Refused { why }) => {
                log::warn!("bus: the relay refuses: {why}");
            }
            (State::Here { .. }, line) => self.dispatch(line),
            (
                State::Registering { successor, .. },
                FromRelay::Registered { bell, token, host, cluster, incarnation, .. },
            ) => {
                self.link.state = State::Here { conn, successor };
                self.link.ping_at = self.now + PING;
                self.todo.push_back(Do::OpenBell { address: bell, token });
                let here = RelayEvent::Here { host, cluster, incarnation };
                self.events.push_back(Event::Relay(here));
                self.hand_everything_over();
            }
            (State::Registering { .. }, FromRelay::NameInUse { pid, since }) => {
                self.over(RelayEvent::NameInUse { pid, since });
            }
            (State::Registering { .. }, FromRelay::Refused { why }) => {
                self.over(RelayEvent::Refused { why });
            }
            (State::Registering { .. }, FromRelay::StaleEpoch { known }) => {
                self.renew(known, conn);
            }
            (_, line) => log::warn!("bus: the relay says {line:?} before it has taken us in"),
        }
    }

    /// Another instance of this name had that epoch: a larger one begins, and with it every stream.
    fn renew(&mut self, known: u64, conn: ConnNo) {
        // A connection is registered once.
        self.lose("another instance of this name had that epoch", true);
        self.freeze_all();
        self.setup.epoch = self.setup.epoch.max(known).saturating_add(1);
        self.begin_streams_anew();
        if let State::Registering { successor, .. } = self.link.state {
            self.link.state = State::Registering { conn, successor, since: self.now };
            self.register(conn);
        }
    }

    fn over(&mut self, why: RelayEvent) {
        if let Some(conn) = self.link.conn() {
            self.todo.push_back(Do::Hang(conn));
        }
        self.end_trial();
        if std::mem::take(&mut self.link.bell) {
            self.todo.push_back(Do::CloseBell);
        }
        self.link.state = State::Over;
        self.events.push_back(Event::Relay(why));
    }

    /// Whether the relay does not want this process: it is not looked for any more.
    pub fn is_over(&self) -> bool {
        self.link.state == State::Over
    }

    /// The bell is there.
    pub fn bell_open(&mut self) {
        self.link.bell = self.is_here();
        self.rang();
    }

    /// The bell's link has ended, and nobody has hung up: it is no relay that one could work with.
    pub fn bell_lost(&mut self) {
        self.link.bell = false;
        self.lose("the relay's bell has ended", true);
    }

    /// The relay writes nonsense into memory that it shares with us.
    pub(super) fn distrust(&mut self) {
        self.lose("the relay wrote nonsense into a control page", true);
    }

    pub(super) fn link_leave(&mut self) {
        self.say_line(ToRelay::Leave);
        if let Some(conn) = self.link.conn() {
            self.todo.push_back(Do::Hang(conn));
        }
        self.end_trial();
        if std::mem::take(&mut self.link.bell) {
            self.todo.push_back(Do::CloseBell);
        }
        self.link.state = State::Over;
    }

    /// Which instance this is.
    pub fn nonce(&self) -> Nonce {
        self.setup.nonce
    }
}
