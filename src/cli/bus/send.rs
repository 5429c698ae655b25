//! `ringlane send`: messages from the command line or from stdin.
//!
//! It ends with 0 only when every message is acknowledged: when it lies in the receiver's ring, or
//! was consumed, as the channel's `ack` says.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use ringlane::What;
use ringlane::bus::{Bus, BusError, Limits, SendOptions};
use ringlane::reactor::Config;

use crate::cli::parse_seconds;

use super::join::{Joining, Member};

/// Lines that are read ahead.
const AHEAD: usize = 256;

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// The receiver: a node, or a group like @db.
    #[arg(value_name = "TO")]
    to: String,
    /// The message. Without it, or with -, each line of stdin is one.
    #[arg(value_name = "MESSAGE")]
    message: Option<String>,
    /// Who sends: a node of this host that no other process has.
    #[arg(long = "as", value_name = "NAME")]
    name: String,
    #[command(flatten)]
    joining: Joining,
    /// All of stdin is one message.
    #[arg(long, conflicts_with = "message")]
    whole: bool,
    /// The number of the channel.
    #[arg(long, value_name = "N", default_value_t = 0)]
    chan: u16,
    /// A message that has not left after so long is dropped.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    ttl: Option<Duration>,
    /// Chooses the member of a group that has pick = "hash".
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// Messages of any size, in pieces: for more than a quarter of the channel's ring.
    #[arg(long)]
    large: bool,
    /// How long acknowledgements are waited for at the end.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds)]
    linger: Duration,
    /// Say on stderr how many messages were acknowledged.
    #[arg(long)]
    count: bool,
}

/// Where messages come from.
enum Source {
    One(Cell<Option<Vec<u8>>>),
    Lines(Receiver<Result<Vec<u8>, String>>),
}

/// What a source has.
enum Next {
    Message(Vec<u8>),
    /// Nothing now; somebody will call.
    Later,
    End,
    Broken(String),
}

impl Source {
    fn next(&self) -> Next {
        match self {
            Source::One(message) => message.take().map_or(Next::End, Next::Message),
            Source::Lines(lines) => match lines.try_recv() {
                Ok(Ok(line)) => Next::Message(line),
                Ok(Err(why)) => Next::Broken(why),
                Err(TryRecvError::Empty) => Next::Later,
                Err(TryRecvError::Disconnected) => Next::End,
            },
        }
    }
}

struct Sending {
    member: Member,
    source: Source,
    to: String,
    chan: u16,
    ttl: Option<Duration>,
    key: Option<Vec<u8>>,
    large: bool,
    linger: Duration,
    /// It found no room.
    kept: RefCell<Option<Vec<u8>>>,
    accepted: Cell<u64>,
    closing: Cell<bool>,
    left: Cell<Option<u64>>,
}

/// Sends, and waits until everything is acknowledged.
pub fn run(config: &Config, asked: &Asked) -> Result<()> {
    let bare = |name: &str| name.split('@').next().unwrap_or_default().to_string();
    if bare(&asked.name) == bare(&asked.to) && !asked.to.starts_with('@') {
        bail!("{} cannot send to itself; say with --as who sends", asked.name);
    }
    let member = asked.joining.join(config, &asked.name)?;
    let (source, woken) = source(asked)?;
    let sending = Rc::new(Sending {
        source,
        to: asked.to.clone(),
        chan: asked.chan,
        ttl: asked.ttl,
        key: asked.key.as_ref().map(|key| key.clone().into_bytes()),
        large: asked.large,
        linger: asked.linger,
        kept: RefCell::default(),
        accepted: Cell::new(0),
        closing: Cell::new(false),
        left: Cell::new(None),
        member,
    });
    let member = &sending.member;
    let on = Rc::clone(&sending);
    member.bus.on_writable(move |_, _| on.send());
    let on = Rc::clone(&sending);
    member.on_signal(move |_| on.close())?;
    if let Some(woken) = woken {
        sending.watch(woken)?;
    }
    sending.send();
    member.base.dispatch()?;
    member.part();
    member.failed()?;
    sending.result(asked.count)
}

/// The source; and what can be read when it has something new.
fn source(asked: &Asked) -> Result<(Source, Option<UnixStream>)> {
    let one = |bytes| Ok((Source::One(Cell::new(Some(bytes))), None));
    match asked.message.as_deref() {
        Some(text) if text != "-" => one(text.as_bytes().to_vec()),
        _ if asked.whole => {
            let mut bytes = Vec::new();
            let most = Limits::default().message_bytes as u64;
            std::io::stdin().lock().take(most + 1).read_to_end(&mut bytes)?;
            one(bytes)
        }
        _ => {
            let (send, lines) = sync_channel(AHEAD);
            let (woken, wakes) = UnixStream::pair().context("a pair of sockets")?;
            woken.set_nonblocking(true).context("a socket")?;
            std::thread::spawn(move || read_lines(send, &wakes));
            Ok((Source::Lines(lines), Some(woken)))
        }
    }
}

/// Hands lines over until stdin ends. A byte wakes the loop for each, and the end of `wakes` for
/// the end.
fn read_lines(send: SyncSender<Result<Vec<u8>, String>>, mut wakes: &UnixStream) {
    let most = Limits::default().message_bytes as u64;
    let mut stdin = BufReader::new(std::io::stdin());
    loop {
        let mut line = Vec::new();
        let read = (&mut stdin).take(most + 1).read_until(b'\n', &mut line);
        let sent = match read {
            Ok(0) => break,
            Ok(_) if line.len() as u64 > most => {
                send.send(Err(format!("a line of stdin has more than {most} bytes")))
            }
            Ok(_) => {
                line.pop_if(|byte| *byte == b'\n');
                send.send(Ok(line))
            }
            Err(error) => send.send(Err(format!("stdin: {error}"))),
        };
        if sent.is_err() || wakes.write_all(b".").is_err() {
            break;
        }
    }
    // Before `wakes` ends.
    drop(send);
}

impl Sending {
    /// Sends whenever there is something new.
    fn watch(self: &Rc<Self>, woken: UnixStream) -> Result<()> {
        let on = Rc::clone(self);
        let fd = woken.as_fd().try_clone_to_owned().context("a descriptor")?;
        let event = self.member.base.event(fd, What::READ | What::PERSIST, move |event, _| {
            let mut bytes = [0; 4096];
            let ended = matches!((&woken).read(&mut bytes), Ok(0));
            on.send();
            if ended {
                event.free();
            }
        });
        event.context("a descriptor")?.add(None);
        Ok(())
    }

    /// Sends as much as there is and goes.
    fn send(self: &Rc<Self>) {
        while !self.closing.get() {
            let kept = self.kept.take();
            let next = kept.map_or_else(|| self.source.next(), Next::Message);
            match next {
                Next::Message(bytes) => match self.send_one(&bytes) {
                    Ok(()) => self.accepted.set(self.accepted.get() + 1),
                    Err(BusError::WouldBlock) => {
                        self.kept.replace(Some(bytes));
                        return;
                    }
                    Err(error) => return self.member.fail(explained(error)),
                },
                Next::Later => return,
                Next::End => self.close(),
                Next::Broken(why) => return self.member.fail(anyhow!("{why}")),
            }
        }
    }

    fn send_one(&self, bytes: &[u8]) -> Result<(), BusError> {
        let bus: &Bus = &self.member.bus;
        let options = SendOptions { chan: self.chan, ttl: self.ttl, key: self.key.as_deref() };
        match self.large {
            true => bus.send_large(&self.to, &options, bytes),
            false => bus.send_with(&self.to, &options, bytes),
        }
    }

    /// No more is sent; what was accepted is waited for.
    fn close(self: &Rc<Self>) {
        if !self.closing.replace(true) {
            let on = Rc::clone(self);
            self.member.bus.close(self.linger, move |left| {
                on.left.set(Some(left));
                on.member.base.stop();
            });
        }
    }

    fn result(&self, count: bool) -> Result<()> {
        let accepted = self.accepted.get();
        let left = self.left.get().unwrap_or_else(|| self.member.bus.unacknowledged());
        let dead = self.member.undelivered();
        let kept = u64::from(self.kept.borrow().is_some());
        if left + kept > 0 {
            let (linger, why) = (self.linger.as_secs_f64(), self.member.waiting());
            let (left, all) = (left + kept, accepted + kept);
            bail!("{left} of {all} messages are not acknowledged after {linger} s{why}");
        }
        if dead > 0 {
            bail!("{dead} of {accepted} messages were not consumed: their receiver has died");
        }
        if count {
            let s = if accepted == 1 { "" } else { "s" };
            eprintln!("ringlane: {accepted} message{s} acknowledged");
        }
        Ok(())
    }
}

/// What a person is to do.
fn explained(error: BusError) -> anyhow::Error {
    match error {
        BusError::TooLong { bytes, most } => anyhow!(
            "a message of {bytes} bytes, and {most} go whole on this channel; say --large, or give \
             it a larger ring in the config"
        ),
        BusError::TooLarge { bytes, most } => {
            anyhow!("a message of {bytes} bytes, and at most {most} are sent; cut it")
        }
        BusError::NeedsKey { group } => anyhow!("{group} chooses its member by a key; say --key"),
        error => anyhow!("{error}"),
    }
}
