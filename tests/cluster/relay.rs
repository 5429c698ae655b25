//! One run of a relay, on a thread of its own, so that it can be stopped between any two stores.
//!
//! Whoever holds the baton runs: the world gives a [`Job`] and waits for the [`Report`]. At every
//! point of `shm::crash`, and between any two things that the relay does for the world, it counts
//! down; at zero it reports, and goes on, or dies there, as the world says.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringlane::bus::local::{FromRelay, ToRelay};
use ringlane::relay::core::{Bell, Status};
use ringlane::shm::crash::{self, Point};

use crate::driver::Driver;
use crate::mutant;

/// Behind what a relay stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A store, or what the core has a point for.
    Stored(Point),
    Said,
    Rang,
    Submitted,
    Did,
}

/// A local connection, and a link: numbers of the world.
pub type Sock = u32;
pub type Wire = u32;

/// What happens to a relay.
pub enum Happened {
    Opened(Sock),
    Said(Sock, ToRelay, Vec<OwnedFd>),
    Closed(Sock),
    Rang(Sock),
    /// A link that another relay has dialled, which is of that host and run.
    Accepted(Wire, usize, u64),
    /// One that was dialled here.
    Connected(u32, Wire, u64),
    DialFailed(u32),
    Bytes(Wire, Vec<u8>),
    LinkGone(Wire),
    LinkRoom(Wire),
    Tick,
}

/// What a relay does.
#[derive(Debug)]
pub enum Effect {
    Say(Sock, FromRelay),
    Hang(Sock),
    Ring(Sock, Bell),
    Dial(u32, usize),
    GiveUp(u32),
    Send(Wire, Vec<u8>),
    Hangup(Wire),
    /// Nobody here does anything that another may call so.
    Broken(String),
}

/// What a run is made from.
#[derive(Clone)]
pub struct Start {
    pub host: usize,
    pub hosts: usize,
    pub config: String,
    pub incarnation: u64,
    pub origin: Instant,
    pub at: Duration,
    /// Bytes that are sent are the kernel's only when they are delivered.
    pub slow: bool,
    pub mutant: mutant::Planted,
}

/// After so many points, all or only those of a kind, it stops; 0: it does not.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Trap {
    pub left: u32,
    pub only: Option<Point>,
}

pub enum Job {
    Turn { at: Duration, happened: Vec<Happened>, trap: Trap },
    Go,
    Status,
    Die,
}

/// A turn that came to its end.
#[derive(Default)]
pub struct Done {
    pub effects: Vec<Effect>,
    /// It wants another turn.
    pub more: bool,
    /// It wants one then.
    pub wake: Option<Duration>,
    /// Who is to ring when it has consumed something.
    pub wants: Vec<(Sock, bool)>,
    pub points: u64,
    pub trap: Trap,
}

pub enum Report {
    At(Step, Vec<Effect>),
    Done(Done),
    Status(Box<Status>),
    Dead,
    Panicked(String),
}

/// The world's end of the baton.
pub struct Thread {
    jobs: Sender<Job>,
    reports: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
}

/// How long a turn may take in true time.
const HANGS: Duration = Duration::from_secs(60);

impl Thread {
    pub fn spawn(start: Start) -> Thread {
        let ((jobs, theirs), (tell, reports)) = (channel(), channel());
        let run = move || {
            crate::quiet::hush();
            mutant::plant(start.mutant);
            let baton = Rc::new(Baton::new(theirs, tell));
            let run = catch_unwind(AssertUnwindSafe(|| serve(&baton, &start)));
            crash::watch(None);
            let report = match run {
                Ok(()) => Report::Dead,
                Err(payload) if payload.is::<Killed>() => Report::Dead,
                Err(payload) => Report::Panicked(crate::quiet::why(&*payload)),
            };
            // The world may have given up.
            let _ = baton.tell.send(report);
        };
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run);
        Thread { jobs, reports, thread: Some(thread.expect("a thread")) }
    }

    /// Gives the baton away until it comes back.
    pub fn run(&self, job: Job) -> Report {
        if self.jobs.send(job).is_err() {
            return Report::Panicked("the thread is gone".into());
        }
        match self.reports.recv_timeout(HANGS) {
            Ok(report) => report,
            Err(_) => Report::Panicked("a turn does not end".into()),
        }
    }

    /// It never runs again.
    pub fn kill(&mut self) -> Result<(), String> {
        let report = self.run(Job::Die);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        match report {
            Report::Panicked(why) => Err(why),
            _ => Ok(()),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.kill();
        }
    }
}

/// Unwinds a thread that is killed.
struct Killed;

/// The relay's end of the baton.
pub struct Baton {
    jobs: Receiver<Job>,
    tell: Sender<Report>,
    trap: Cell<Trap>,
    points: Cell<u64>,
    effects: RefCell<Vec<Effect>>,
}

impl Baton {
    fn new(jobs: Receiver<Job>, tell: Sender<Report>) -> Baton {
        let (trap, points, effects) = (Cell::default(), Cell::new(0), RefCell::default());
        Baton { jobs, tell, trap, points, effects }
    }

    fn pass(&self, point: Step) {
        self.points.set(self.points.get() + 1);
        let trap = self.trap.get();
        if trap.left == 0 || trap.only.is_some_and(|only| point != Step::Stored(only)) {
            return;
        }
        self.trap.set(Trap { left: trap.left - 1, ..trap });
        if trap.left == 1 {
            let effects = self.effects.take();
            let _ = self.tell.send(Report::At(point, effects));
            match self.jobs.recv() {
                Ok(Job::Go) => {}
                _ => resume_unwind(Box::new(Killed)),
            }
        }
    }

    /// Does something that others see.
    pub fn perform(&self, effect: Effect) {
        let point = match effect {
            Effect::Say(..) => Step::Said,
            Effect::Ring(..) => Step::Rang,
            Effect::Send(..) => Step::Submitted,
            _ => Step::Did,
        };
        self.effects.borrow_mut().push(effect);
        self.pass(point);
    }
}

fn serve(baton: &Rc<Baton>, start: &Start) {
    let watched = Rc::clone(baton);
    let mut driver = Driver::new(Rc::clone(baton), start);
    crash::watch(Some(Box::new(move |point| watched.pass(Step::Stored(point)))));
    while let Ok(job) = baton.jobs.recv() {
        match job {
            Job::Turn { at, happened, trap } => {
                baton.trap.set(trap);
                let mut done = driver.turn(at, happened);
                done.effects = baton.effects.take();
                done.points = baton.points.take();
                done.trap = baton.trap.take();
                let _ = baton.tell.send(Report::Done(done));
            }
            Job::Status => {
                let status = Report::Status(Box::new(driver.status()));
                let _ = baton.tell.send(status);
            }
            Job::Go => {}
            Job::Die => return,
        }
    }
}
