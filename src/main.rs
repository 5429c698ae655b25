//! The program `ringlane`: a proxy, an echo server, a doctor and a demo on the library.
//!
//! Errors are one line on stderr and exit code 1; wrong usage is exit code 2.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = error.to_string().replace('\n', " ");
            eprintln!("ringlane: {line}");
            ExitCode::FAILURE
        }
    }
}
