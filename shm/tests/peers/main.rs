//! Two processes over `shm://`, one of which dies, sleeps or lies.
//!
//! ```text
//! cargo test -p ringlane-shm --test peers -- sleeps            one of them
//! cargo test -p ringlane-shm --features crash-points --test peers -- crash
//! RINGLANE_KILLS=10000 RINGLANE_SLEEPS=5000000 RINGLANE_SCRIBBLE_SECONDS=600 \
//! RINGLANE_RECORDS=100000000  …                                the long runs of `justfile`
//! ```

use std::process::ExitCode;

#[cfg(feature = "crash-points")]
mod crash;
#[cfg(not(feature = "crash-points"))]
#[path = "no_crash.rs"]
mod crash;
mod kill;
mod kit;
mod meeting;
mod records;
mod scribble;
mod sleeps;
mod talk;
mod users;

/// A test and its name.
type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("crash: killed behind every step", crash::every_step),
    ("kill: killed at random", kill::at_random),
    ("kill: killed at random among records", kill::among_records),
    ("scribble: over streams", scribble::over_streams),
    ("scribble: over records", scribble::over_records),
    ("sleeps: none without its wake", sleeps::none_without_its_wake),
    ("users: another one is told why not", users::another_one_is_told_why_not),
    ("records: all of them, whole and in order", records::all_of_them),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["child", what, rest @ ..] = &words[..] {
        kit::be_a_child();
        match *what {
            "talk" => talk::child(rest),
            "records" => records::child(rest),
            "dial" => users::child(rest),
            "scribble" => scribble::child(rest),
            what => panic!("no child does {what}"),
        }
        return ExitCode::SUCCESS;
    }
    let wanted = |name: &str| {
        let mut filters = words.iter().filter(|word| !word.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(filter))
    };
    for (name, run) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        println!("{name}");
        let before = kit::litter();
        // A panic ends the program, and with it the children.
        run();
        assert_eq!(kit::litter(), before, "left behind");
    }
    ExitCode::SUCCESS
}
