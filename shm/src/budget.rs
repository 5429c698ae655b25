//! How much memory this process shares: what it has made for links it dialled, and what it keeps
//! mapped for links it has accepted, in all and per user at the other end.
//!
//! ```text
//!   hand-over: Share::made / Share::kept ----> ledger of the process (all its bases)
//!   the link ends, its Share is dropped  ----> given back
//! ```
//!
//! The connector's kernel accounts charge the memory to it, but it stays as long as the acceptor
//! maps it: both have a budget.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One ledger per process, because memory is the process's, not a loop's.
static LEDGER: Mutex<Ledger> = Mutex::new(Ledger { made: 0, kept: 0, kept_of: BTreeMap::new() });

struct Ledger {
    made: u64,
    kept: u64,
    kept_of: BTreeMap<u32, u64>,
}

fn ledger() -> MutexGuard<'static, Ledger> {
    LEDGER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a link's memory counts as, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    bytes: u64,
    /// At whose other end: where we have accepted.
    user: Option<u32>,
}

/// Which budget is used up, and how large it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Over {
    All(u64),
    User(u64),
}

impl Share {
    /// Memory for a link that this process dials.
    pub fn made(bytes: u64, budget: u64) -> Result<Share, Over> {
        let mut ledger = ledger();
        if bytes > budget.saturating_sub(ledger.made) {
            return Err(Over::All(budget));
        }
        ledger.made += bytes;
        Ok(Share { bytes, user: None })
    }

    /// Memory that `user` has made for a link that this process accepts.
    pub fn kept(bytes: u64, user: u32, budget: u64, of_user: u64) -> Result<Share, Over> {
        let mut ledger = ledger();
        if bytes > budget.saturating_sub(ledger.kept) {
            return Err(Over::All(budget));
        }
        let theirs = ledger.kept_of.get(&user).copied().unwrap_or_default();
        if bytes > of_user.saturating_sub(theirs) {
            return Err(Over::User(of_user));
        }
        ledger.kept += bytes;
        ledger.kept_of.insert(user, theirs + bytes);
        Ok(Share { bytes, user: Some(user) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut ledger = ledger();
        let Some(user) = self.user else {
            ledger.made -= self.bytes;
            return;
        };
        ledger.kept -= self.bytes;
        let theirs = ledger.kept_of.remove(&user).unwrap_or_default() - self.bytes;
        if theirs > 0 {
            ledger.kept_of.insert(user, theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_count_until_they_are_dropped_and_each_user_apart() {
        // No other test of this program has links.
        let one = Share::made(100, 150).expect("it fits");
        assert_eq!(Share::made(51, 150).expect_err("one byte too many"), Over::All(150));
        let rest = Share::made(50, 150).expect("to the last byte");
        drop((one, rest));
        drop(Share::made(150, 150).expect("given back"));

        let a = Share::kept(60, 1, 100, 80).expect("it fits");
        assert_eq!(Share::kept(30, 1, 100, 80).expect_err("user 1 has 60"), Over::User(80));
        let b = Share::kept(30, 2, 100, 80).expect("user 2 has nothing yet");
        assert_eq!(Share::kept(30, 3, 100, 80).expect_err("90 of 100"), Over::All(100));
        drop(a);
        drop(Share::kept(70, 3, 100, 80).expect("given back"));
        drop(b);
        assert!(ledger().kept_of.is_empty());
    }
}
