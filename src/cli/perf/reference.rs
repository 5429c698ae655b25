//! What else Linux has for talking to a process, measured with plain blocking calls.
//!
//! The other process is this program again with `--stand-in`: it sends back what it receives, or
//! drops it. One message is under way in the round trip; a stream is written without end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use nix::mqueue::{MQ_OFlag, MqAttr, MqdT, mq_attr_member_t, mq_open, mq_receive, mq_send};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use ringlane::reactor::{Config, Engine};

use super::cores::Places;
use super::load::{Kind, Load, Mark, Sample, histogram};
use crate::cli::child::this_program;
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
}

impl Reference {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Reference> {
        [Reference::Pipe, Reference::Fifo, Reference::Queue].into_iter()
    }

    /// For the table.
    pub fn name(self) -> &'static str {
        match self {
            Reference::Pipe => "pipe",
            Reference::Fifo => "fifo",
            Reference::Queue => "mqueue",
        }
    }

    /// Measures it; `None` if it cannot carry messages of that size.
    pub fn measure(self, places: &Places, load: &Load) -> Result<Option<Sample>> {
        if self == Reference::Queue && load.size > queue_bytes_max() {
            return Ok(None);
        }
        let mut pair = places.start(|| Pair::start(self, load))?;
        let sample = pair.measure(load);
        pair.end();
        sample.map(Some)
    }
}

/// The largest message of a queue here.
fn queue_bytes_max() -> usize {
    let limit = proc::line("/proc/sys/fs/mqueue/msgsize_max");
    limit.and_then(|line| line.parse().ok()).unwrap_or(8192)
}

/// One direction.
trait Pipe {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Fills `room`.
    fn receive(&mut self, room: &mut [u8]) -> io::Result<()>;
}

struct Stream(File);

impl Pipe for Stream {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
    fn receive(&mut self, room: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(room)
    }
}

struct Queue(MqdT);

impl Pipe for Queue {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        Ok(mq_send(&self.0, bytes, 0)?)
    }
    fn receive(&mut self, room: &mut [u8]) -> io::Result<()> {
        // It takes whole messages only, and the room has the queue's message size.
        mq_receive(&self.0, room, &mut 0)?;
        Ok(())
    }
}

fn open_queue(name: &str, size: usize, write: bool) -> Result<Box<dyn Pipe>> {
    let side = if write { MQ_OFlag::O_WRONLY } else { MQ_OFlag::O_RDONLY };
    let attributes = MqAttr::new(0, 8, size as mq_attr_member_t, 0);
    let flags = side | MQ_OFlag::O_CREAT | MQ_OFlag::O_CLOEXEC;
    let queue = mq_open(name, flags, Mode::S_IRUSR | Mode::S_IWUSR, Some(&attributes));
    Ok(Box::new(Queue(queue.with_context(|| format!("opening the message queue {name}"))?)))
}

fn open_fifo(path: &str, write: bool) -> Result<Box<dyn Pipe>> {
    // Opening waits for the other side.
    let file = OpenOptions::new().read(!write).write(write).open(path);
    Ok(Box::new(Stream(file.with_context(|| format!("opening the fifo {path}"))?)))
}

/// This process, the other one, and what lies between them.
struct Pair {
    child: Child,
    there: Option<Box<dyn Pipe>>,
    back: Option<Box<dyn Pipe>>,
    /// Removed at the end.
    folder: Option<PathBuf>,
    queues: Vec<String>,
}

impl Pair {
    fn start(reference: Reference, load: &Load) -> Result<Pair> {
        let unique = format!("ringlane-perf-{}", std::process::id());
        let mut names = [String::from("-"), String::from("-")];
        let (mut folder, mut queues) = (None, Vec::new());
        match reference {
            Reference::Pipe => {}
            Reference::Fifo => {
                let made = std::env::temp_dir().join(&unique);
                fs::create_dir(&made).with_context(|| format!("making {}", made.display()))?;
                for (name, end) in names.iter_mut().zip(["there", "back"]) {
                    let path = made.join(end);
                    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).context("making a fifo")?;
                    *name = path.to_str().context("the temporary folder's name")?.into();
                }
                folder = Some(made);
            }
            Reference::Queue => {
                for (name, end) in names.iter_mut().zip(["there", "back"]) {
                    *name = format!("/{unique}-{end}");
                }
                queues = names.to_vec();
            }
        }
        let echoes = load.kind == Kind::RoundTrip;
        let mut child = Command::new(this_program()?)
            .args(["perf", "--stand-in", reference.name(), &names[0], &names[1]])
            .args([load.size.to_string(), u8::from(echoes).to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the other process")?;
        let input = child.stdin.take().context("its stdin")?;
        let output = child.stdout.take().context("its stdout")?;
        let file = |fd: std::os::fd::OwnedFd| Box::new(Stream(File::from(fd))) as Box<dyn Pipe>;
        let mut pair = Pair { child, there: None, back: None, folder, queues };
        let (there, back) = match reference {
            Reference::Pipe => (file(input.into()), file(output.into())),
            Reference::Fifo => (open_fifo(&names[0], true)?, open_fifo(&names[1], false)?),
            Reference::Queue => {
                let size = load.size;
                (open_queue(&names[0], size, true)?, open_queue(&names[1], size, false)?)
            }
        };
        (pair.there, pair.back) = (Some(there), Some(back));
        Ok(pair)
    }

    fn measure(&mut self, load: &Load) -> Result<Sample> {
        let pid = self.child.id();
        let (Some(there), Some(back)) = (&mut self.there, &mut self.back) else {
            bail!("it has not started")
        };
        // The clock is a reactor's; epoll is everywhere.
        let clock = ringlane::reactor::best(&Config { engine: Engine::Epoll, ..Config::default() })
            .map_err(|error| anyhow!("{error}"))?;
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

    /// Ends the other process and removes what was made.
    fn end(&mut self) {
        (self.there, self.back) = (None, None);
        // A process that waits for a queue does not see its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.end();
        if let Some(folder) = &self.folder
            && let Err(error) = fs::remove_dir_all(folder)
        {
            log::warn!("{} is left behind: {error}", folder.display());
        }
        for name in &self.queues {
            // It may not have been made yet.
            let _ = nix::mqueue::mq_unlink(name.as_str());
        }
    }
}

/// The other process: `KIND THERE BACK SIZE ECHOES`. It ends when the first one does.
pub fn stand_in(words: &[String]) -> Result<()> {
    let [kind, there, back, size, echoes] = words else {
        bail!("--stand-in is for this program's own use")
    };
    // Waiting for a message queue shows nobody's end.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).context("prctl")?;
    let size: usize = size.parse().context("the size")?;
    let (mut there, mut back): (Box<dyn Pipe>, Box<dyn Pipe>) = match kind.as_str() {
        "pipe" => {
            let own = |fd: std::os::fd::BorrowedFd<'_>| -> Result<Box<dyn Pipe>> {
                Ok(Box::new(Stream(File::from(fd.try_clone_to_owned()?))))
            };
            use std::os::fd::AsFd;
            (own(io::stdin().as_fd())?, own(io::stdout().as_fd())?)
        }
        "fifo" => (open_fifo(there, false)?, open_fifo(back, true)?),
        "mqueue" => (open_queue(there, size, false)?, open_queue(back, size, true)?),
        other => bail!("no stand-in is called {other}"),
    };
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
