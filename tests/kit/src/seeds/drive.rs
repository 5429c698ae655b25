//! One run from its seed to its last check.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use ringlane_api::transport::Transport;
use ringlane_api::{EventBase, Listener, Turn};

use super::plan::{Ending, Plan, Where};
use super::{Book, Link, client, server};
use crate::sim::{Fault, Faults, Rng, Setup, Tally, World};

/// Links per run at least.
const LINKS_MIN: u32 = 50;
/// Completions and callbacks per run at least.
const EVENTS_MIN: u64 = 2_000;
/// Links dialled together.
const WAVE: u32 = 17;
/// Turns after which a run that is not over counts as spinning.
const TURNS_MAX: u64 = 400_000;
/// Timers that are set and set again meanwhile.
const TIMERS: u64 = 8;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Links dialled.
    pub links: u32,
    /// Completions and callbacks.
    pub events: u64,
    /// Faults injected.
    pub tally: Tally,
}

/// Runs one seed; the error says what went wrong.
pub fn run(seed: u64, transports: fn() -> Vec<Box<dyn Transport>>) -> Result<Summary, String> {
    match catch_unwind(AssertUnwindSafe(|| Run::new(seed, transports).play())) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("a panic: {}", text.unwrap_or_default()))
        }
    }
}

struct Run {
    rng: Rng,
    world: World,
    base: EventBase,
    book: Rc<Book>,
    turns: u64,
    /// Early aborts that are due at a turn.
    aborts: Vec<(u64, ringlane_api::Bufferevent, Rc<Link>)>,
    fired: Rc<Cell<u64>>,
}

impl Run {
    fn new(seed: u64, transports: fn() -> Vec<Box<dyn Transport>>) -> Run {
        let mut rng = Rng::new(seed ^ 0xA5A5);
        let mut faults = Faults::wild();
        // Swarm: some runs do without some faults, so that others get further.
        for fault in Fault::ALL {
            if rng.chance(200) {
                faults = faults.with(fault, 0);
            }
        }
        let world = World::new(Setup {
            seed,
            faults,
            socket_bytes: rng.between(1_000, 60_000) as usize,
            latency: (
                Duration::from_micros(rng.between(1, 20)),
                Duration::from_micros(rng.between(20, 900)),
            ),
            fd_max: 1 << 12,
            blocks_max: rng.between(4, 128) as usize,
            fail_when_stalled: true,
        });
        let base = EventBase::with(Box::new(world.reactor()), transports());
        let book = Book::new();
        Run { rng, world, base, book, turns: 0, aborts: Vec::new(), fired: Rc::default() }
    }

    fn play(mut self) -> Result<Summary, String> {
        self.base.set_priorities(3).map_err(|error| error.to_string())?;
        self.timers();
        let mut links = 0;
        while links < LINKS_MIN || self.events() < EVENTS_MIN {
            links += self.wave(links)?;
            self.verdict()?;
        }
        self.drain("the timers", |run| run.fired.get() >= TIMERS && run.base.stats().events == 0)?;
        self.finish(links)
    }

    fn events(&self) -> u64 {
        self.book.callbacks.get() + self.base.counters().cqes
    }

    /// Timers that are set, set again, and must all fire at their second time.
    fn timers(&mut self) {
        for n in 0..TIMERS {
            let again = Duration::from_millis(self.rng.between(10, 40));
            let (fired, book) = (Rc::clone(&self.fired), Rc::clone(&self.book));
            let due = self.base.now() + again;
            let timer = self.base.timer(Duration::from_millis(n + 1), move |event| {
                book.called();
                let now = event.base().map(|base| base.now());
                book.check(now >= Some(due), || "a timer came early".into());
                fired.set(fired.get() + 1);
                event.free();
            });
            timer.add(Some(again));
        }
    }

    /// One turn, as the program would make it; what fails here fails the run.
    fn turn(&mut self) -> Result<(), String> {
        self.turns += 1;
        if self.turns > TURNS_MAX {
            return Err("it spins: no end after very many turns".into());
        }
        let (now, waits) = (self.turns, self.rng.chance(700));
        let due: Vec<_> = self.aborts.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, conn, link) in due {
            if conn.is_alive() {
                link.client_cut.set(true);
                conn.abort();
            }
            link.client_over.set(true);
        }
        let wait = if waits && self.aborts.is_empty() { Turn::Wait } else { Turn::NoWait };
        self.base.turn(wait).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Turns until `over`. A stall in a turn that a flush made unnecessary is no failure.
    fn drain(&mut self, what: &str, over: impl Fn(&Run) -> bool) -> Result<(), String> {
        while !over(self) {
            if let Err(error) = self.turn()
                && !over(self)
            {
                let stats = self.base.stats();
                return Err(format!("waiting for {what}: {error}; {stats:?}"));
            }
        }
        Ok(())
    }

    fn listen(&self, at: &str) -> Result<Listener, String> {
        let book = Rc::clone(&self.book);
        let listener = self.base.listen(at, move |conn| server::start(&book, &conn));
        let listener = listener.map_err(|error| error.to_string())?;
        listener.on_error(|_, _| {});
        Ok(listener)
    }

    /// Dials some links, waits until their clients are over, and closes the listeners while some
    /// of what they accept is still in the air.
    fn wave(&mut self, first: u32) -> Result<u32, String> {
        let tcp = self.listen("tcp://127.0.0.1:0")?;
        let path = self.listen(&format!("unix:///sim/{first}.sock"))?;
        let name = self.listen(&format!("unix://@sim-{first}"))?;
        let shm = self.listen(&format!("shm://@shm-{first}?fallback=unix"))?;
        let mut devices = Vec::new();
        if self.base.schemes().contains(&"rdma") {
            devices.push(self.listen("rdma://127.0.0.1:0?fallback=tcp")?);
            devices.push(self.listen(&format!("rdma:///sim/{first}-device.sock?fallback=unix"))?);
        }
        let mut mine = Vec::new();
        for id in first..first + WAVE {
            let mut plan = Plan::draw(&mut self.rng, id);
            if !devices.is_empty() {
                plan.onto_device(&mut self.rng);
            }
            let at = match plan.to {
                Where::Tcp => tcp.address().to_string(),
                Where::Path => path.address().to_string(),
                Where::Name => name.address().to_string(),
                Where::Shm => format!("shm://@shm-{first}{}", plan.memory()),
                Where::Nobody => "tcp://127.0.0.1:1".into(),
                Where::Host => tcp.address().to_string().replace("127.0.0.1", "multi.test"),
                Where::Device => format!("{}?fallback=tcp", devices[0].address()),
                Where::DeviceInMemory => format!("{}?fallback=unix", devices[1].address()),
            };
            mine.push(self.dial(plan, &at));
            if self.rng.chance(300) {
                self.turn()?;
            }
        }
        self.drain("the clients", |_| mine.iter().all(|link| link.client_over.get()))?;
        for listener in [tcp, path, name, shm].into_iter().chain(devices) {
            listener.free();
        }
        // A late dial that nobody will serve: it must end too.
        self.drain("the servers", |run| {
            let stats = run.base.stats();
            stats.links == 0 && stats.listeners == 0
        })?;
        Ok(WAVE)
    }

    fn dial(&mut self, plan: Plan, at: &str) -> Rc<Link> {
        let early = plan.ending;
        let link = Rc::new(Link {
            plan,
            client_cut: Cell::new(false),
            client_over: Cell::new(false),
            server_cut: Cell::new(false),
        });
        self.book.links.borrow_mut().push(Rc::clone(&link));
        match self.base.connect(at) {
            Ok(conn) => {
                client::start(&self.base, &self.book, &link, &conn);
                if let Ending::AbortEarly(turns) = early {
                    self.aborts.push((self.turns + u64::from(turns), conn, Rc::clone(&link)));
                }
            }
            Err(_) => link.client_over.set(true),
        }
        link
    }

    /// What the callbacks have noted.
    fn verdict(&self) -> Result<(), String> {
        match self.book.wrongs.borrow().first() {
            Some(wrong) => Err(wrong.clone()),
            None => Ok(()),
        }
    }

    /// Everything is over: what is left?
    fn finish(self, links: u32) -> Result<Summary, String> {
        self.verdict()?;
        let events = self.events();
        let stats = self.base.stats();
        let left = (stats.links, stats.listeners, stats.events, stats.timers, stats.blocks_out);
        if left != (0, 0, 0, 0, 0) {
            return Err(format!("left in the base: {stats:?}"));
        }
        drop(self.base);
        if self.world.open_fds() > 0 {
            return Err(format!("{} descriptors were never closed", self.world.open_fds()));
        }
        if self.book.lent.get() != 0 {
            return Err(format!("{} pieces of lent memory are out", self.book.lent.get()));
        }
        match self.world.violations().first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(Summary { links, events, tally: self.world.tally() }),
        }
    }
}
