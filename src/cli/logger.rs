//! Log lines as the program prints them: one line each on stderr, `ringlane: …`.

use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let grade = match record.level() {
            Level::Error => "error: ",
            Level::Warn | Level::Info => "",
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
        };
        // A reader of stderr that went away is no reason to stop serving.
        let _ = writeln!(std::io::stderr().lock(), "ringlane: {grade}{}", record.args());
    }

    fn flush(&self) {}
}

/// Warnings are always printed; each `-v` adds a grade.
pub fn install(verbose: u8) {
    let most = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(most);
    }
}
