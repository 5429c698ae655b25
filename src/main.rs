//! The program `ringlane`: a proxy, an echo server, a doctor and a demo on the library.
//!
//! Errors are one line on stderr and exit code 1; wrong usage is exit code 2.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // terminfo(5): what says nothing of itself can do nothing.
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    match cli::run(dumb) {
        Ok(code) => code,
        Err(error) => {
            let mut line = error.to_string();
            for cause in error.chain().skip(1).map(|cause| cause.to_string()) {
                // An error of the library says its cause itself.
                if !line.contains(&cause) {
                    line = format!("{line}: {cause}");
                }
            }
            eprintln!("ringlane: {}", line.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}
