//! Questions to a relay: a line to its socket, and the line that comes back.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use ringlane::bus::local::{FromRelay, Question, ToRelay, decode, encode};
use ringlane::{BevEvent, Bufferevent, Eol, EventBase, READ};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::find::{self, Place};

/// A relay that says nothing for so long hangs. It waits for an answer to a probe for 10 s itself.
const PATIENCE: Duration = Duration::from_secs(12);

/// An answer of more bytes is none: 65,536 channels are less.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

fn connect(socket: &str) -> io::Result<UnixStream> {
    let Some(name) = socket.strip_prefix('@') else { return UnixStream::connect(socket) };
    let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    if let Some(owner) = find::owner(socket) {
        // Anybody can take such a name.
        let uid = getsockopt(&stream, PeerCredentials)?.uid();
        if uid != owner && uid != 0 {
            let what = format!("it is a process of uid {uid}, not a relay of uid {owner}");
            return Err(io::Error::other(what));
        }
    }
    Ok(stream)
}

/// Whether somebody listens there.
pub fn knock(socket: &str) -> io::Result<()> {
    connect(socket).map(drop)
}

/// The same, with what is to be done if nobody does.
pub fn look(place: &Place) -> Result<()> {
    knock(&place.socket()).map_err(|error| no_relay(place, &error))
}

fn no_relay(place: &Place, error: &io::Error) -> anyhow::Error {
    let socket = place.socket();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => anyhow!(
            "no relay listens at {socket}; start one: ringlane relay --config FILE --host {}",
            place.host.as_deref().unwrap_or("NAME")
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow!("the socket {socket} may not be opened by this user; ask its owner, or root")
        }
        _ => anyhow!("the socket {socket}: {error}"),
    }
}

/// Asks, and returns what is answered.
pub fn ask(place: &Place, question: Question) -> Result<String> {
    match try_ask(place, question)? {
        Ok(text) => Ok(text),
        Err(why) => bail!("{why}"),
    }
}

/// Asks, and returns what is answered or why it is not.
pub fn try_ask(place: &Place, question: Question) -> Result<Result<String, String>> {
    let mut stream = connect(&place.socket()).map_err(|error| no_relay(place, &error))?;
    stream.set_read_timeout(Some(PATIENCE)).context("a deadline")?;
    stream.set_write_timeout(Some(PATIENCE)).context("a deadline")?;
    let line = heard(&mut stream, &question).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => hangs(place),
        _ => anyhow!("the relay at {} has hung up: {error}", place.socket()),
    })?;
    read(place, &line)
}

fn hangs(place: &Place) -> anyhow::Error {
    anyhow!(
        "the relay at {} says nothing; if it hangs, start one beside it: ringlane relay --takeover",
        place.socket()
    )
}

fn read(place: &Place, line: &[u8]) -> Result<Result<String, String>> {
    match decode(line) {
        Ok(FromRelay::Answer { text }) => Ok(Ok(text)),
        Ok(FromRelay::Refused { why }) => Ok(Err(why)),
        Ok(other) => bail!("{} answers {other:?}, which is no answer", place.socket()),
        Err(why) => bail!("what listens at {} is no relay: {why}", place.socket()),
    }
}

fn heard(stream: &mut UnixStream, question: &Question) -> io::Result<Vec<u8>> {
    stream.write_all(&encode(&ToRelay::Ask(question.clone())))?;
    let mut line = Vec::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_until(b'\n', &mut line)?;
    match line.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no answer")),
        false => Ok(line),
    }
}

/// Asks for an answer in JSON.
pub fn ask_json<T: DeserializeOwned>(place: &Place, question: Question) -> Result<T> {
    let text = ask(place, question)?;
    serde_json::from_str(&text)
        .with_context(|| format!("the relay at {} is of another version", place.socket()))
}

/// The host of a node, or why that relay does not know it; nothing if it cannot be asked.
pub fn host_of(place: &Place, node: &str) -> Option<Result<String, String>> {
    #[derive(Deserialize)]
    struct Answer {
        config: Config,
    }
    #[derive(Deserialize)]
    struct Config {
        src: Node,
    }
    #[derive(Deserialize)]
    struct Node {
        host: String,
    }
    let question = Question::Explain { src: node.into(), dst: node.into(), chan: 0 };
    let text = match try_ask(place, question).ok()? {
        Ok(text) => text,
        Err(why) => return Some(Err(why)),
    };
    let answer: Answer = serde_json::from_str(&text).ok()?;
    Some(Ok(answer.config.src.host))
}

/// What comes of a question.
type Callback = Box<dyn FnOnce(Result<Result<String, String>>)>;

/// Asks on a loop; `callback` gets what is answered, or why it is not, once.
pub fn later(
    base: &EventBase,
    place: &Place,
    question: Question,
    callback: impl FnOnce(Result<Result<String, String>>) + 'static,
) {
    let bev = match base.connect(format!("unix://{}", place.socket())) {
        Ok(bev) => bev,
        Err(error) => return callback(Err(no_way(place, &error))),
    };
    let callback: Rc<Cell<Option<Callback>>> = Rc::new(Cell::new(Some(Box::new(callback))));
    let told = Rc::clone(&callback);
    let tell = move |bev: &Bufferevent, what| {
        bev.free();
        if let Some(callback) = told.take() {
            callback(what);
        }
    };
    let (at, done) = (place.clone(), tell.clone());
    bev.on_read(move |bev| {
        if let Some(line) = bev.input().readln(Eol::Lf) {
            done(bev, read(&at, &line));
        } else if bev.input().len() as u64 > ANSWER_BYTES_MAX {
            done(bev, Err(anyhow!("the relay at {} answers without end", at.socket())));
        }
    });
    let at = place.clone();
    bev.on_event(move |bev, event| match event {
        BevEvent::Connected => {}
        BevEvent::Error { error, .. } => tell(bev, Err(no_way(&at, error))),
        BevEvent::Timeout(_) => tell(bev, Err(hangs(&at))),
        event => tell(bev, Err(anyhow!("the relay at {} has hung up: {event}", at.socket()))),
    });
    bev.set_timeouts(Some(PATIENCE), Some(PATIENCE));
    bev.enable(READ);
    bev.output().add(&encode(&ToRelay::Ask(question)));
}

fn no_way(place: &Place, error: &ringlane::Error) -> anyhow::Error {
    match error.io() {
        Some(io) => no_relay(place, io),
        None => anyhow!("{error}"),
    }
}
