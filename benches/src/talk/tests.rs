use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::*;

/// What goes wrong with the message of a number on its way.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    Nothing,
    Lost,
    Doubled,
    Torn,
    Late,
}

/// The message that has the fault.
const VICTIM: u64 = 5;

struct End {
    out: SyncSender<Vec<u8>>,
    into: Receiver<Vec<u8>>,
    fault: Fault,
    held: Option<Vec<u8>>,
    see: Option<See>,
}

impl End {
    fn pass(&mut self, message: &[u8]) -> io::Result<()> {
        self.out.send(message.to_vec()).map_err(io::Error::other)
    }
}

impl Client for End {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match (number(message), self.fault) {
            (VICTIM, Fault::Lost) => return Ok(()),
            (VICTIM, Fault::Doubled) => self.pass(message)?,
            (VICTIM, Fault::Torn) => {
                let mut torn = message.to_vec();
                torn[message.len() - 8] ^= 1;
                return self.pass(&torn);
            }
            (VICTIM, Fault::Late) => {
                self.held = Some(message.to_vec());
                return Ok(());
            }
            _ => (),
        }
        self.pass(message)?;
        match self.held.take() {
            Some(held) => self.pass(&held),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn hear(&mut self, see: See) {
        self.see = Some(see);
    }

    fn receive(&mut self, within: Duration) -> io::Result<usize> {
        let Ok(message) = self.into.recv_timeout(within) else { return Ok(0) };
        self.see.as_mut().expect("somebody hears")(&message);
        Ok(1)
    }
}

fn talk(kind: Kind, credit: Option<u64>, fault: Fault) -> io::Result<Outcome> {
    let (there, here) = sync_channel(64);
    let (back, home) = sync_channel(64);
    let end = |out, into, fault| End { out, into, fault, held: None, see: None };
    let answering =
        thread::spawn(move || answer(&mut end(back, here, Fault::Nothing), kind, credit));
    let mut near = end(there, home, fault);
    let window = Duration::from_millis(20);
    let ask = Ask { bytes: 64, credit, window, meter: Meter::default() };
    let mut driver = Driver::new(&mut near, ask);
    let outcome = driver.run(kind);
    drop(near);
    let _ended_with_an_error_if_we_did = answering.join().expect("the far side does not panic");
    outcome
}

#[test]
fn a_stream_that_arrives_is_counted_with_and_without_credit() {
    for credit in [None, Some(64 * 4), Some(64 * 1000)] {
        let outcome = talk(Kind::Stream, credit, Fault::Nothing).expect("all of it came");
        assert!(outcome.messages > VICTIM, "{outcome:?}");
    }
}

#[test]
fn a_stream_with_a_message_lost_doubled_torn_or_late_has_no_figure() {
    for fault in [Fault::Lost, Fault::Doubled, Fault::Torn, Fault::Late] {
        let outcome = talk(Kind::Stream, None, fault);
        let error = outcome.expect_err("it is seen").to_string();
        let good = if fault == Fault::Doubled { VICTIM + 1 } else { VICTIM };
        let words = format!("{good} came whole and in order, then others");
        assert!(error.contains(&words), "{fault:?}: {error}");
    }
}

#[test]
fn a_round_trip_that_comes_back_torn_has_no_figure() {
    let error = talk(Kind::RoundTrip, None, Fault::Torn).expect_err("it is seen").to_string();
    assert!(error.contains("not 5 came back"), "{error}");
    let outcome = talk(Kind::RoundTrip, None, Fault::Nothing).expect("all came back");
    assert!(outcome.p50 > 0.0 && outcome.p50 <= outcome.p99, "{outcome:?}");
}
