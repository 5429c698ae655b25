//! ringlane's records, polled: a port of a `shm://` link in a loop that does not sleep.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use ringlane::prelude::*;
use ringlane::shm::{Port, Refused};

use crate::ends::Ends;

/// Bytes of each ring.
const RING: &str = "1MiB";

/// Looks in vain between two turns of the base, which tell whether the peer is still there.
const LOOKS: u32 = 1 << 14;

pub struct Records {
    base: EventBase,
    port: Port,
    private: Vec<u8>,
    /// Read where they lie, one by one, instead of all at once in a copy.
    in_place: bool,
    /// How long to leave an empty ring alone before looking again, in pauses of the processor: a
    /// reader that looks all the time takes the writer's line away for each message.
    pauses: u32,
}

fn error(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

fn address(name: &str) -> String {
    format!("shm://@{name}?face=records&ring={RING}")
}

fn wait(base: EventBase, got: &RefCell<Option<Bufferevent>>) -> io::Result<Records> {
    loop {
        if let Some(conn) = got.borrow_mut().take() {
            let port = conn.face::<Port>().ok_or_else(|| error("it carries no records"))?;
            conn.on_event(|conn, _| conn.free());
            return Ok(Records { base, port, private: Vec::new(), in_place: false, pauses: 1 });
        }
        base.turn(Turn::Wait).map_err(error)?;
    }
}

impl Records {
    pub fn listen(name: &str) -> io::Result<Records> {
        let base = EventBase::new().map_err(error)?;
        let got: Rc<RefCell<Option<Bufferevent>>> = Rc::default();
        let put = Rc::clone(&got);
        let accept = move |conn| *put.borrow_mut() = Some(conn);
        base.listen(address(name), accept).map_err(error)?;
        println!("ready");
        wait(base, &got)
    }

    pub fn connect(name: &str) -> io::Result<Records> {
        let base = EventBase::new().map_err(error)?;
        let conn = base.connect(address(name)).map_err(error)?;
        let got: Rc<RefCell<Option<Bufferevent>>> = Rc::default();
        let put = Rc::clone(&got);
        conn.on_event(move |conn, _| *put.borrow_mut() = Some(conn.clone()));
        wait(base, &got)
    }

    pub fn patient(self) -> Records {
        Records { pauses: 32, ..self }
    }

    pub fn in_place(self) -> Records {
        Records { in_place: true, ..self }
    }

    /// Writes a message where it will be read.
    fn write(&mut self, message: &[u8]) -> Result<(), Refused> {
        self.port.push(0, 0, message)
    }

    fn rest(&mut self, looks: &mut u32) -> io::Result<()> {
        *looks += 1;
        if looks.is_multiple_of(LOOKS) {
            self.base.turn(Turn::NoWait).map_err(error)?;
            if !self.port.is_open() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        (0..self.pauses).for_each(|_| std::hint::spin_loop());
        Ok(())
    }
}

impl Ends for Records {
    fn send(&mut self, message: &[u8], flush: bool) -> io::Result<()> {
        let mut looks = 0;
        loop {
            match self.write(message) {
                Ok(()) => break,
                Err(Refused::Full) => {
                    self.port.publish();
                    self.rest(&mut looks)?;
                }
                Err(refused) => return Err(error(refused)),
            }
        }
        if flush {
            self.port.publish();
        }
        Ok(())
    }

    fn receive(&mut self, see: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        let (mut looks, mut done) = (0, false);
        while !done {
            let n = if self.in_place {
                self.one(see, &mut done)?
            } else {
                let drained = self.port.drain(&mut self.private, |_, bytes| done |= see(bytes));
                drained.map_err(|_| error("scribbled"))?
            };
            if n == 0 {
                self.rest(&mut looks)?;
            }
        }
        Ok(())
    }
}

impl Records {
    fn one(&mut self, see: &mut dyn FnMut(&[u8]) -> bool, done: &mut bool) -> io::Result<usize> {
        let Some(record) = self.port.borrow().map_err(|_| error("scribbled"))? else {
            return Ok(0);
        };
        // Its ends only, as a reader in place would.
        let (n, last) = (record.payload.get_u64(0), record.payload.len() - 8);
        let mut ends = [0; 16];
        ends[..8].copy_from_slice(&n.unwrap_or(0).to_le_bytes());
        ends[8..].copy_from_slice(&record.payload.get_u64(last).unwrap_or(0).to_le_bytes());
        *done |= see(&ends);
        self.port.give_back(record);
        Ok(1)
    }
}
