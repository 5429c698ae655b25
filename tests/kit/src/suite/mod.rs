//! The conformance suite: what a user may rely on, whatever carries the bytes.
//!
//! ```text
//!   rows (transport / engine)  x  cases (sentences)  ->  pass | skip, with its reason | FAIL
//! ```
//!
//! A case is a function over a [`Rig`]; it passes, skips with a reason, or panics. Each runs on a
//! thread of its own under a watchdog, server and client in one base unless it needs two, and
//! after each the rig is asked whether anything was left behind.

mod accept;
mod connect;
mod echo;
mod ends;
mod files;
mod flow;
mod frees;
mod local;
mod loops;
mod payload;
mod rig;
mod runner;
mod simulated;
mod stage;
mod threads;
mod time;

pub use payload::{Checker, Pattern};
pub use rig::{Rig, Tools, has_paths};
pub use runner::{Row, run};
pub use simulated::{left_behind, simulated};
pub use stage::{Stage, Tap};

/// What a case comes to; failing is a panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It behaved.
    Pass,
    /// This rig cannot do it, and why.
    Skip(String),
}

/// A named case.
#[derive(Clone, Copy)]
pub struct Case {
    /// A sentence about behaviour.
    pub name: &'static str,
    /// The proof.
    pub run: fn(&Rig) -> Outcome,
}

/// A skip.
pub(crate) fn skip(why: impl Into<String>) -> Outcome {
    Outcome::Skip(why.into())
}

/// Lists cases as `sentence => function`.
macro_rules! cases {
    ($($name:literal => $run:path),* $(,)?) => {
        /// The cases of this file.
        pub(crate) const CASES: &[$crate::suite::Case] =
            &[$($crate::suite::Case { name: $name, run: $run }),*];
    };
}
pub(crate) use cases;

/// All cases in order.
pub fn all() -> Vec<Case> {
    [
        echo::CASES,
        ends::CASES,
        frees::CASES,
        connect::CASES,
        accept::CASES,
        flow::CASES,
        time::CASES,
        loops::CASES,
        threads::CASES,
        files::CASES,
        local::CASES,
    ]
    .concat()
}

/// Gives a test binary (`harness = false`) its `main`: the rows that the expression names, each
/// through all cases, and the rows that must not be skipped.
///
/// ```no_run
/// ringlane_kit::conformance!(Vec::<ringlane_kit::suite::Row>::new(), "");
/// ```
#[macro_export]
macro_rules! conformance {
    ($rows:expr, $must_run:expr) => {
        fn main() -> ::std::process::ExitCode {
            $crate::suite::run($rows, $must_run)
        }
    };
}
