//! `ringlane recv`: messages to stdout; and answers, if told how.
//!
//! A message counts as consumed when it is printed. With `--count` those behind the last one stay
//! unconsumed, and their senders hear of it.

use std::cell::Cell;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use ringlane::bus::{BusError, Message, ReplyTo};
use ringlane::prelude::*;
use ringlane::reactor::Config;
use serde_json::json;

use super::join::{Joining, Member};

/// How long answers that are under way are waited for at the end.
const LINGER: Duration = Duration::from_secs(2);

/// An answer of more bytes is cut off: it is one record.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How often a command that has said everything is looked at, until it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// Who receives: a node of this host that no other process has.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    joining: Joining,
    /// End after so many messages.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print those of this sender only; the others are consumed, too.
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// Print those on this channel only.
    #[arg(long, value_name = "N")]
    chan: Option<u16>,
    /// Print a JSON object for each, with everything that is known of it.
    #[arg(long, conflicts_with_all = ["raw", "plain", "quiet"])]
    json: bool,
    /// Print the message and the end of a line, without the sender.
    #[arg(long)]
    plain: bool,
    /// Print the bytes as they came, and nothing between them.
    #[arg(long, conflicts_with = "plain")]
    raw: bool,
    /// Print nothing.
    #[arg(short, long)]
    quiet: bool,
    /// Answer each request with what this shell command prints; it has the request on stdin. One
    /// runs at a time.
    #[arg(long, value_name = "COMMAND", conflicts_with = "echo")]
    reply: Option<String>,
    /// Answer each request with itself.
    #[arg(long)]
    echo: bool,
}

/// How a message is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Line,
    Plain,
    Raw,
    Json,
    Nothing,
}

impl Asked {
    fn form(&self) -> Form {
        match self {
            Asked { quiet: true, .. } => Form::Nothing,
            Asked { json: true, .. } => Form::Json,
            Asked { raw: true, .. } => Form::Raw,
            Asked { plain: true, .. } => Form::Plain,
            _ => Form::Line,
        }
    }

    fn wants(&self, message: &Message<'_>) -> bool {
        let from = self.from.as_ref().map(|name| name.split('@').next().unwrap_or_default());
        from.is_none_or(|from| from == message.from())
            && self.chan.is_none_or(|chan| chan == message.chan())
    }
}

struct Receiving {
    asked: Asked,
    member: Member,
    /// Messages that are still wanted.
    left: Cell<Option<u64>>,
    /// A command runs.
    busy: Cell<bool>,
}

/// Receives until a signal comes, or enough has.
pub fn run(config: &Config, asked: Asked) -> Result<()> {
    let member = asked.joining.join(config, &asked.name)?;
    let (left, busy) = (Cell::new(asked.count), Cell::new(false));
    let receiving = Rc::new(Receiving { asked, member, left, busy });
    let member = &receiving.member;
    member.on_signal(EventBase::stop)?;
    let on = Rc::clone(&receiving);
    member.bus.accept_while(move || on.left.get() != Some(0) && !on.busy.get());
    let on = Rc::clone(&receiving);
    member.bus.on_message(move |message| on.hear(message));
    member.base.dispatch()?;
    let unanswered = member.bus.close_now(LINGER);
    member.part();
    member.failed()?;
    match unanswered {
        Ok(n @ 1..) => Err(anyhow!("{n} answers are not acknowledged")),
        _ => Ok(()),
    }
}

impl Receiving {
    fn hear(self: &Rc<Self>, message: &Message<'_>) {
        if self.asked.wants(message) {
            if print(self.asked.form(), message).is_err() {
                // Nobody reads any more.
                self.left.set(Some(0));
                return self.member.base.stop();
            }
            if let Some(left) = self.left.get() {
                self.left.set(Some(left - 1));
            }
        }
        if message.wants_reply() {
            match &self.asked.reply {
                Some(command) => self.run(command, message),
                None if self.asked.echo => self.answer(message.reply_to(), message.bytes().into()),
                None => {}
            }
        }
        self.look_for_end();
    }

    fn look_for_end(&self) {
        if self.left.get() == Some(0) && !self.busy.get() {
            self.member.base.stop();
        }
    }

    fn answer(self: &Rc<Self>, to: ReplyTo, bytes: Vec<u8>) {
        match self.member.bus.reply(&to, &bytes) {
            Ok(()) => {}
            Err(BusError::WouldBlock) => {
                let on = Rc::clone(self);
                self.member.base.once(LOOK, move |_| on.answer(to, bytes));
            }
            Err(error) => eprintln!("ringlane: no answer to {}: {error}", to.node()),
        }
    }

    /// Has a command answer.
    fn run(self: &Rc<Self>, command: &str, message: &Message<'_>) {
        if let Err(error) = self.try_run(command, message) {
            eprintln!("ringlane: `{command}` does not run: {error:#}");
        }
    }

    fn try_run(self: &Rc<Self>, command: &str, message: &Message<'_>) -> Result<()> {
        let base = &self.member.base;
        let mut child = Command::new("/bin/sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("/bin/sh")?;
        let stdin = child.stdin.take().context("its stdin")?;
        let stdout = child.stdout.take().context("its stdout")?;
        let request = base.from_fd(stdin)?;
        request.output().add(message.bytes());
        // What was written is written, then the pipe is closed.
        request.free();
        let answer = base.from_fd(stdout)?;
        answer.enable(READ);
        answer.set_read_watermark(usize::MAX, ANSWER_BYTES_MAX);
        let (on, to, child) = (Rc::clone(self), message.reply_to(), Cell::new(Some(child)));
        answer.on_event(move |bev, event| {
            if let Some(child) = child.take().filter(|_| event.is_end()) {
                let bytes = bev.input().take();
                bev.free();
                on.ended(child, to.clone(), bytes);
            }
        });
        self.busy.set(true);
        Ok(())
    }

    /// A command has said everything; it is the answer if it ends well.
    fn ended(self: &Rc<Self>, mut child: Child, to: ReplyTo, bytes: Vec<u8>) {
        match child.try_wait() {
            Ok(None) => {
                let on = Rc::clone(self);
                return self.member.base.once(LOOK, move |_| on.ended(child, to, bytes));
            }
            Ok(Some(status)) if status.success() => self.answer(to, bytes),
            Ok(Some(status)) => {
                eprintln!("ringlane: no answer to {}: the command ended with {status}", to.node());
            }
            Err(error) => eprintln!("ringlane: no answer to {}: {error}", to.node()),
        }
        self.busy.set(false);
        self.member.bus.look_again();
        self.look_for_end();
    }
}

fn print(form: Form, message: &Message<'_>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match form {
        Form::Nothing => return Ok(()),
        Form::Raw => out.write_all(message.bytes())?,
        Form::Plain => {
            out.write_all(message.bytes())?;
            out.write_all(b"\n")?;
        }
        Form::Line => writeln!(out, "{}: {}", message.from(), message.text())?,
        Form::Json => writeln!(out, "{}", as_json(message))?,
    }
    out.flush()
}

/// Everything that is known of a message. What is no text is in hexadecimal.
fn as_json(message: &Message<'_>) -> serde_json::Value {
    let mut object = json!({
        "from": message.from(),
        "chan": message.chan(),
        "seq": message.seq(),
        "epoch": message.epoch(),
        "request": message.wants_reply(),
    });
    match str::from_utf8(message.bytes()) {
        Ok(text) => object["text"] = text.into(),
        Err(_) => {
            let digits = message.bytes().iter().map(|byte| format!("{byte:02x}"));
            object["hex"] = digits.collect::<String>().into();
        }
    }
    object
}
