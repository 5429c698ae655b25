//! `ringlane call`: a request, and its answer on stdout.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use ringlane::bus::{BusError, SendOptions};
use ringlane::reactor::Config;

use crate::cli::parse_seconds;

use super::join::Joining;

/// How long the receiver's ring is waited for to say that the answer was taken out of it.
const LINGER: Duration = Duration::from_millis(500);

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// Who answers: a node, or a group like @db.
    #[arg(value_name = "TO")]
    to: String,
    /// The request. Without it, or with -, all of stdin.
    #[arg(value_name = "MESSAGE")]
    message: Option<String>,
    /// Who asks: a node of this host that no other process has.
    #[arg(long = "as", value_name = "NAME")]
    name: String,
    #[command(flatten)]
    joining: Joining,
    /// How long the answer is waited for.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds)]
    deadline: Duration,
    /// The number of the channel.
    #[arg(long, value_name = "N", default_value_t = 0)]
    chan: u16,
    /// Print the answer's bytes and nothing behind them.
    #[arg(long)]
    raw: bool,
}

/// Asks and prints.
pub fn run(config: &Config, asked: &Asked) -> Result<()> {
    let request = match asked.message.as_deref() {
        Some(text) if text != "-" => text.as_bytes().to_vec(),
        _ => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).context("stdin")?;
            bytes
        }
    };
    let member = asked.joining.join(config, &asked.name)?;
    member.on_signal(|base| base.stop())?;
    let answer = Rc::new(RefCell::new(None));
    let (told, base) = (Rc::clone(&answer), member.base.clone());
    let options = SendOptions { chan: asked.chan, ..SendOptions::default() };
    let called =
        member.bus.call_with(&asked.to, &options, &request, asked.deadline, move |answer| {
            told.replace(Some(answer.map(|message| message.bytes().to_vec())));
            base.stop();
        });
    called.map_err(explained)?;
    member.base.dispatch()?;
    member.failed()?;
    let waiting = member.waiting();
    let answer = answer.take();
    // It has been consumed; that the relay hears of it is a courtesy.
    let _ = member.bus.close_now(LINGER);
    member.part();
    match answer {
        Some(Ok(bytes)) => print(&bytes, asked.raw),
        Some(Err(BusError::TimedOut)) => {
            let within = asked.deadline.as_secs_f64();
            bail!("no answer from {} in {within} s{waiting}", asked.to)
        }
        Some(Err(BusError::PeerGone)) => bail!("{} died before it answered", asked.to),
        Some(Err(error)) => Err(explained(error)),
        None => bail!("interrupted before {} answered", asked.to),
    }
}

fn print(bytes: &[u8], raw: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).context("stdout")?;
    if !raw && !bytes.ends_with(b"\n") {
        out.write_all(b"\n").context("stdout")?;
    }
    out.flush().context("stdout")
}

fn explained(error: BusError) -> anyhow::Error {
    match error {
        BusError::TooLong { bytes, most } => anyhow!(
            "a request of {bytes} bytes, and {most} go whole on this channel; give it a larger \
             ring in the config"
        ),
        error => anyhow!("{error}"),
    }
}
