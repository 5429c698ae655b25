//! What else Linux has for talking to a process, measured with plain blocking calls.
//!
//! The other process is this program again with `--stand-in`: it sends back what it receives, or
//! drops it. One message is under way in the round trip; a stream is written without end.
//!
//! Invariant: a name lives only until both processes have opened it, and meanwhile signals that
//! would end this process wait ([`Held`]). So nothing stays behind when a measurement is
//! interrupted.

mod kernel;
mod names;

#[cfg(feature = "shm")]
mod memory;

#[cfg(not(feature = "shm"))]
#[path = "memory_absent.rs"]
mod memory;

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use ringlane::reactor::Reactor;

use self::names::Names;
use super::cores::Places;
use super::load::{Kind, Load, Mark, Sample, histogram};
use crate::cli::child::this_program;
use crate::cli::held::Held;
use crate::cli::proc;

/// Messages between two looks at the clock of a stream.
const STREAM_LOOK: u64 = 256;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reference {
    /// pipe(7), one each way.
    Pipe,
    /// fifo(7): two of them in a folder for temporary files.
    Fifo,
    /// mq_overview(7): two POSIX message queues.
    Queue,
    /// Two buffers in memory of shm_open(3), each with two semaphores.
    Memory,
    /// The same in a mapped file.
    MappedFile,
}

impl Reference {
    const ALL: [Reference; 5] = [
        Reference::Pipe,
        Reference::Fifo,
        Reference::Queue,
        Reference::Memory,
        Reference::MappedFile,
    ];

    /// All of this build.
    pub fn all() -> impl Iterator<Item = Reference> {
        Reference::ALL.into_iter().filter(|reference| memory::HERE || !reference.maps())
    }

    /// Why some are missing.
    pub fn missing() -> Option<&'static str> {
        const WHY: &str = "no rows with semaphores: they map memory; build with --features shm";
        (!memory::HERE).then_some(WHY)
    }

    /// Whether it needs mapped memory.
    fn maps(self) -> bool {
        matches!(self, Reference::Memory | Reference::MappedFile)
    }

    /// For the table.
    pub fn name(self) -> &'static str {
        match self {
            Reference::Pipe => "pipe",
            Reference::Fifo => "fifo",
            Reference::Queue => "mqueue",
            Reference::Memory => "sem+shm_open",
            Reference::MappedFile => "sem+mmap",
        }
    }

    /// Measures it; `None` if it cannot carry messages of that size.
    pub fn measure(
        self,
        places: &Places,
        load: &Load,
        clock: &dyn Reactor,
    ) -> Result<Option<Sample>> {
        if self == Reference::Queue && load.size > kernel::queue_bytes_max() {
            return Ok(None);
        }
        let mut pair = places.start(|| Pair::start(self, load))?;
        let sample = pair.measure(load, clock);
        pair.end();
        sample.map(Some)
    }

    /// Opens one end of a direction: this process and the other one do it by the same name.
    fn open(self, name: &str, size: usize, end: End) -> Result<Box<dyn Way>> {
        match self {
            Reference::Pipe => bail!("a pipe has no name"),
            Reference::Fifo => kernel::open_fifo(name, end),
            Reference::Queue => kernel::open_queue(name, end),
            Reference::Memory | Reference::MappedFile => memory::open(self, name, size),
        }
    }
}

/// Which end of a direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Where messages go in.
    Write,
    /// Where they come out.
    Read,
}

/// One direction.
trait Way {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Fills `room`.
    fn receive(&mut self, room: &mut [u8]) -> io::Result<()>;
}

/// A direction of bytes without boundaries.
struct Stream(File);

impl Way for Stream {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
    fn receive(&mut self, room: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(room)
    }
}

/// This process, the other one, and what lies between them.
struct Pair {
    child: Child,
    ends: Option<[Box<dyn Way>; 2]>,
    /// Kept, so that a pipe is not broken.
    stdio: Option<(ChildStdin, ChildStdout)>,
}

impl Pair {
    fn start(reference: Reference, load: &Load) -> Result<Pair> {
        // It goes last: then all names are gone.
        let _held = Held::new()?;
        let names = Names::make(reference, load.size)?;
        let [there, back] = names.words();
        let echoes = load.kind == Kind::RoundTrip;
        let child = Command::new(this_program()?)
            .args(["perf", "--stand-in", reference.name(), there, back])
            .args([load.size.to_string(), u8::from(echoes).to_string()])
            .arg(std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the other process")?;
        let mut pair = Pair { child, ends: None, stdio: None };
        let input = pair.child.stdin.take().context("its stdin")?;
        let mut output = pair.child.stdout.take().context("its stdout")?;
        let mut ready = [0];
        output.read_exact(&mut ready).context("the other process ended before it began")?;
        if reference == Reference::Pipe {
            let own = |fd: std::os::fd::OwnedFd| Box::new(Stream(File::from(fd))) as Box<dyn Way>;
            pair.ends = Some([own(input.into()), own(output.into())]);
        } else {
            let open = |name, end| reference.open(name, load.size, end);
            pair.ends = Some([open(there, End::Write)?, open(back, End::Read)?]);
            pair.stdio = Some((input, output));
        }
        Ok(pair)
    }

    /// The reactor is a clock and nothing more.
    fn measure(&mut self, load: &Load, clock: &dyn Reactor) -> Result<Sample> {
        let pid = self.child.id();
        let Some([there, back]) = &mut self.ends else { bail!("it has not started") };
        let message = vec![0x5a; load.size];
        let mut room = vec![0; load.size];
        let mut latencies = histogram()?;
        let mut messages = 0_u64;
        let begun = clock.now();
        let mut from: Option<Mark> = None;
        loop {
            let asked = clock.now();
            if load.kind == Kind::RoundTrip {
                there.send(&message).context("sending")?;
                back.receive(&mut room).context("receiving")?;
                messages += 1;
            } else {
                let look = (STREAM_LOOK * 64 / load.size as u64).clamp(1, STREAM_LOOK);
                for _ in 0..look {
                    there.send(&message).context("sending")?;
                }
                messages += look;
            }
            let now = clock.now();
            let mark = |at| Mark {
                at,
                messages,
                ours: proc::cpu_ns(std::process::id()),
                theirs: proc::cpu_ns(pid),
            };
            match &from {
                None if now - begun >= load.window / 8 => from = Some(mark(now)),
                None => {}
                Some(from) => {
                    let nanos = u64::try_from((now - asked).as_nanos()).unwrap_or(u64::MAX);
                    if load.kind == Kind::RoundTrip {
                        latencies.saturating_record(nanos.max(1));
                    }
                    if now - from.at >= load.window {
                        return Sample::new(from, &mark(now), &latencies);
                    }
                }
            }
        }
    }

    /// Ends the other process.
    fn end(&mut self) {
        (self.ends, self.stdio) = (None, None);
        // A process that waits for a queue or a semaphore does not see its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.end();
    }
}

/// The other process: `KIND THERE BACK SIZE ECHOES PARENT`. It ends when the first one does.
pub fn stand_in(words: &[String]) -> Result<()> {
    let [kind, there, back, size, echoes, parent] = words else {
        bail!("--stand-in is for this program's own use")
    };
    // Waiting for a message queue shows nobody's end.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).context("prctl")?;
    if nix::unistd::getppid().to_string() != *parent {
        bail!("who started this is gone");
    }
    let size: usize = size.parse().context("the size")?;
    let reference = Reference::all().find(|reference| reference.name() == kind);
    let reference = reference.with_context(|| format!("no stand-in is called {kind}"))?;
    let [mut there, mut back] = match reference {
        Reference::Pipe => kernel::stdio()?,
        _ => [reference.open(there, size, End::Read)?, reference.open(back, size, End::Write)?],
    };
    let mut out = io::stdout().lock();
    out.write_all(b"r").and_then(|()| out.flush()).context("saying that it is ready")?;
    let mut room = vec![0; size];
    loop {
        match there.receive(&mut room) {
            Ok(()) if echoes == "1" => back.send(&room).context("answering")?,
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error).context("receiving"),
        }
    }
}
