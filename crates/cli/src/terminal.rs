//! The two streams: results go to stdout, everything else to stderr.
//!
//! A reader that has gone away (a closed pipe) is no error: nothing is left to tell it.

use std::io::{self, Write};

/// Writes `text` to stdout.
pub(crate) fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes a line to stdout.
pub(crate) fn print_line(line: &str) {
    print(&format!("{line}\n"));
}

/// Writes a line to stderr.
pub(crate) fn note(line: &str) {
    let mut stderr = io::stderr().lock();
    let _ = writeln!(stderr, "{line}");
}
