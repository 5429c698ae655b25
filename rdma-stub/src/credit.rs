//! Who may send when: two running totals per direction.
//!
//! ```text
//!   sender (Outward)                          receiver (Inward)
//!   sent ≤ granted        ── data ──►         received ≤ announced
//!                         ◄─ credit ──        consumed + window = what may be announced
//! ```
//!
//! A receiver posts `window` receives for data and announces that many. Each one that was consumed
//! and posted again raises the total by one. The total travels with every message; a message of
//! its own is owed when half of the window (rounded up) was not announced. Consumption, not
//! arrival, returns credit, so a reader that pauses stops its peer.
//!
//! **At most two announcements are on their way to a peer that has not read them.** Say the peer
//! has read a total `a`. It has sent at most `a` messages, so no more than `a` were consumed, so
//! the total is at most `a + window`. Each announcement is at least half a window above the one
//! before, so a third would be above `a + window`. This is why receives kept for control are few
//! and fixed ([`limits::CONTROL`](crate::limits::CONTROL)), and why they suffice.

use crate::message::Violation;

/// Our side of what we may send.
#[derive(Clone, Copy, Debug)]
pub struct Outward {
    window: u32,
    granted: u32,
    sent: u32,
}

/// Our side of what the peer may send.
#[derive(Clone, Copy, Debug)]
pub struct Inward {
    window: u32,
    received: u32,
    consumed: u32,
    announced: u32,
}

impl Outward {
    /// At the start the peer has granted its window.
    pub fn new(window: u32) -> Outward {
        Outward { window, granted: window, sent: 0 }
    }

    /// Data messages that may be sent now.
    pub fn left(&self) -> u32 {
        self.granted.wrapping_sub(self.sent)
    }

    /// One was sent.
    pub fn spend(&mut self) {
        debug_assert!(self.left() > 0, "a data message costs a credit");
        self.sent = self.sent.wrapping_add(1);
    }

    /// The peer announced a total; says how much more that is.
    pub fn raise(&mut self, total: u32) -> Result<u32, Violation> {
        let step = total.wrapping_sub(self.granted);
        if step > self.window || total.wrapping_sub(self.sent) > self.window {
            return Err(Violation::Credit);
        }
        self.granted = total;
        Ok(step)
    }
}

impl Inward {
    /// At the start we have announced our window.
    pub fn new(window: u32) -> Inward {
        Inward { window, received: 0, consumed: 0, announced: window }
    }

    /// A data message came.
    pub fn arrived(&mut self) -> Result<(), Violation> {
        if self.announced == self.received {
            return Err(Violation::NoCredit);
        }
        self.received = self.received.wrapping_add(1);
        Ok(())
    }

    /// One that had come was consumed, and its receive posted again.
    pub fn consumed(&mut self) {
        debug_assert!(self.consumed != self.received, "what is consumed has come");
        self.consumed = self.consumed.wrapping_add(1);
    }

    /// What every message says.
    pub fn total(&self) -> u32 {
        self.consumed.wrapping_add(self.window)
    }

    /// A message that says it was sent.
    pub fn announced(&mut self) {
        self.announced = self.total();
    }

    /// Whether the peer waits for so much credit that it gets a message of its own.
    pub fn owes(&self) -> bool {
        self.window > 0 && self.total().wrapping_sub(self.announced) >= self.window.div_ceil(2)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credit_is_never_taken_back_and_never_more_than_the_window() {
        let mut outward = Outward::new(4);
        outward.spend();
        assert_eq!(outward.raise(3), Err(Violation::Credit));
        assert_eq!(outward.raise(6), Err(Violation::Credit));
        assert_eq!(outward.raise(5), Ok(1));
        assert_eq!(outward.left(), 4);
    }

    #[test]
    fn a_data_message_without_credit_is_a_violation() {
        let mut inward = Inward::new(2);
        assert_eq!((inward.arrived(), inward.arrived()), (Ok(()), Ok(())));
        assert_eq!(inward.arrived(), Err(Violation::NoCredit));
        inward.consumed();
        assert_eq!(inward.arrived(), Err(Violation::NoCredit), "it was not announced yet");
        inward.announced();
        assert_eq!(inward.arrived(), Ok(()));
    }

    #[test]
    fn totals_wrap() {
        let at = u32::MAX - 1;
        let mut outward = Outward { window: 4, granted: at, sent: at };
        assert_eq!(outward.raise(at.wrapping_add(4)), Ok(4));
        (0..4).for_each(|_| outward.spend());
        assert_eq!((outward.left(), outward.sent), (0, 2));
    }

    proptest! {
        /// The claim of the module text, for every window and any interleaving of one direction:
        /// `true` lets the receiver consume, `false` lets the sender read one announcement.
        #[test]
        fn at_most_two_announcements_are_unread(
            window in 1_u32..20,
            steps in proptest::collection::vec(0_u8..4, 1..400),
        ) {
            let (mut outward, mut inward) = (Outward::new(window), Inward::new(window));
            let (mut data, mut unread) = (0_u32, VecDeque::new());
            for step in steps {
                match step {
                    0 if outward.left() > 0 => {
                        outward.spend();
                        prop_assert_eq!(inward.arrived(), Ok(()));
                        data += 1;
                    }
                    1 | 2 if data > 0 => {
                        data -= 1;
                        inward.consumed();
                        if inward.owes() {
                            inward.announced();
                            unread.push_back(inward.total());
                            prop_assert!(unread.len() <= 2, "{} unread", unread.len());
                        }
                    }
                    3 => {
                        if let Some(total) = unread.pop_front() {
                            prop_assert!(outward.raise(total).is_ok_and(|step| step > 0));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
