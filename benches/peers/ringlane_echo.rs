//! Ours: `ringlane_echo echo|sink ADDRESS [--engine auto|uring|epoll|u1..u5]`, the library in its
//! default configuration and nothing but its public surface.

#![forbid(unsafe_code)]

use std::cell::Cell;

use ringlane::prelude::*;
use ringlane::reactor::Config;
use ringlane::{BevEvent, Bufferevent, EventBase, READ, Signal};
use ringlane_benches::peer::{Args, Role, raise_files, say};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args = Args::from_env()?;
    raise_files();
    let engine = args.option("--engine").unwrap_or("auto").parse()?;
    let base = EventBase::with_config(&Config { engine, ..Config::default() })?;
    let listener = match args.role {
        Role::Echo => base.listen(&args.address, echo)?,
        Role::Sink => base.listen(&args.address, sink)?,
    };
    let _term = base.on_signal(Signal::SIGTERM, EventBase::stop)?;
    let _usr1 = base.on_signal(Signal::SIGUSR1, |base| {
        let c = base.counters();
        let line = format!(
            "counters syscalls={} epoll_ctls={} turns={} sqes={} cqes={} enobufs={} \
             overflows={} short_sends={}",
            c.syscalls,
            c.epoll_ctls,
            c.turns,
            c.sqes,
            c.cqes,
            c.enobufs,
            c.overflows,
            c.short_sends
        );
        say(&line).expect("the harness reads what it asked for");
    })?;
    say(&listener.address().to_string())?;
    base.dispatch()?;
    Ok(())
}

fn echo(link: Bufferevent) {
    link.on_read(|link| link.output().append(link.input()));
    link.on_event(|link, event| {
        if event.is_end() {
            link.free();
        }
    });
    link.enable(READ);
}

fn sink(link: Bufferevent) {
    let bytes = std::rc::Rc::new(Cell::new(0u64));
    let total = bytes.clone();
    link.on_read(move |link| {
        let input = link.input();
        bytes.set(bytes.get() + input.len() as u64);
        input.drain(input.len());
    });
    link.on_event(move |link, event| {
        if matches!(event, BevEvent::Eof) {
            link.output().add(&total.get().to_le_bytes());
        }
        if event.is_end() {
            link.free();
        }
    });
    link.enable(READ);
}
