//! `ringlane top`: a relay, live, in a terminal.
//!
//! Where stdout is no terminal, or one that can do nothing, it prints a block per interval instead.
//! The terminal is put back in order however this ends: `q`, a signal, an error, a panic.

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, stdout};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers};
use ringlane::What;
use ringlane::bus::local::Question;
use ringlane::prelude::*;
use ringlane::reactor::Config;

use crate::cli::parse_seconds;
use crate::cli::serve::say;

use super::ask;
use super::find::{At, Place};
use super::seen::Seen;

mod draw;
mod rates;

use self::draw::View;
use self::rates::Rates;

/// What was asked.
#[derive(Args, Debug)]
pub struct Asked {
    #[command(flatten)]
    at: At,
    /// From one look to the next.
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    interval: Duration,
    /// Print blocks of text instead of drawing; so it does where stdout is no terminal.
    #[arg(short, long)]
    plain: bool,
    /// End after so many looks.
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
}

/// The screen, put back in order when it is dropped; a panic does that by itself.
struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

struct Top {
    base: EventBase,
    place: Place,
    count: Option<u64>,
    screen: Option<RefCell<Screen>>,
    looks: Cell<u64>,
    asking: Cell<bool>,
    paused: Cell<bool>,
    last: RefCell<Option<(Seen, Instant)>>,
    view: RefCell<View>,
    failed: RefCell<Option<anyhow::Error>>,
}

/// Shows until somebody ends it.
pub fn run(config: &Config, asked: &Asked, dumb: bool) -> Result<()> {
    let place = asked.at.relay()?;
    ask::look(&place)?;
    let base = EventBase::with_config(config)?;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        base.on_signal(signal, EventBase::stop)?;
    }
    let draws = !asked.plain && !dumb && stdout().is_terminal() && std::io::stdin().is_terminal();
    let screen = match draws {
        true => Some(RefCell::new(Screen(ratatui::try_init().context("the terminal")?))),
        false => None,
    };
    let top = Rc::new(Top {
        base: base.clone(),
        place,
        count: asked.count,
        screen,
        looks: Cell::new(0),
        asking: Cell::new(false),
        paused: Cell::new(false),
        last: RefCell::default(),
        view: RefCell::default(),
        failed: RefCell::default(),
    });
    if draws {
        top.watch_keys(&base)?;
    }
    top.look();
    let on = Rc::clone(&top);
    base.every(asked.interval.max(Duration::from_millis(50)), move |_| on.look());
    base.dispatch()?;
    let failed = top.failed.take();
    // The error is printed on an orderly screen.
    drop(base);
    if let Some(screen) = &top.screen {
        // Once here, so that what is printed next is seen; again when it is dropped.
        screen.borrow_mut().0.show_cursor().ok();
        ratatui::restore();
    }
    failed.map_or(Ok(()), Err)
}

impl Top {
    fn watch_keys(self: &Rc<Self>, base: &EventBase) -> Result<()> {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("stdin")?;
        let on = Rc::clone(self);
        let keys = base.event(stdin, What::READ | What::PERSIST, move |_, _| on.hear_keys());
        keys.context("stdin")?.add(None);
        let on = Rc::clone(self);
        base.on_signal(Signal::SIGWINCH, move |_| on.draw())?;
        Ok(())
    }

    fn hear_keys(&self) {
        while event::poll(Duration::ZERO).unwrap_or(false) {
            match event::read() {
                Ok(Input::Key(key)) if key.kind != KeyEventKind::Release => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    self.hear_key(key.code, control);
                }
                Ok(Input::Resize(..)) => self.draw(),
                Ok(_) => {}
                Err(_) => return self.base.stop(),
            }
        }
    }

    fn hear_key(&self, key: KeyCode, control: bool) {
        match key {
            KeyCode::Char('c') if control => return self.base.stop(),
            KeyCode::Char('q') | KeyCode::Esc => return self.base.stop(),
            KeyCode::Char('p' | ' ') => self.paused.set(!self.paused.get()),
            _ => self.view.borrow_mut().hear(key),
        }
        self.view.borrow_mut().paused = self.paused.get();
        self.draw();
    }

    /// Asks the relay; one question is under way at a time.
    fn look(self: &Rc<Self>) {
        if self.paused.get() || self.asking.replace(true) {
            return;
        }
        let on = Rc::clone(self);
        ask::later(&self.base, &self.place, Question::Status, move |answer| {
            on.asking.set(false);
            on.heard(answer);
        });
    }

    fn heard(&self, answer: Result<Result<String, String>>) {
        let seen = match answer {
            Ok(Ok(text)) => serde_json::from_str::<Seen>(&text).map_err(|error| error.to_string()),
            Ok(Err(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        };
        let now = self.base.now();
        match seen {
            Ok(seen) => {
                let last = self.last.take();
                let last = last.as_ref().map(|(seen, at)| (seen, now.duration_since(*at)));
                let rates = Rates::between(last, &seen);
                self.view.borrow_mut().show(seen.clone(), rates);
                self.last.replace(Some((seen, now)));
            }
            // A relay may come back; one that never was there does not.
            Err(why) if self.last.borrow().is_none() => {
                self.failed.replace(Some(anyhow::anyhow!("{why}")));
                return self.base.stop();
            }
            Err(why) => self.view.borrow_mut().trouble = Some(why),
        }
        self.draw();
        self.looks.set(self.looks.get() + 1);
        if self.count.is_some_and(|count| self.looks.get() >= count) {
            self.base.stop();
        }
    }

    fn draw(&self) {
        let view = self.view.borrow();
        match &self.screen {
            Some(screen) => {
                let drawn = screen.borrow_mut().0.draw(|frame| view.draw(frame)).map(drop);
                if let Err(error) = drawn {
                    self.failed.replace(Some(error.into()));
                    self.base.stop();
                }
            }
            None => say(&view.text()),
        }
    }
}
