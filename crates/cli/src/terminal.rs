//! Output: results go to stdout, everything else to stderr.
//!
//! Text from files, prompts and the hub may hold control characters or bidirectional overrides. Lines for people are
//! escaped here and nowhere else ([`escaped`]). Output for programs is not escaped: JSON, and paths where stdout is no
//! terminal.
//!
//! Where there is a status line, lines for people go above it. Where stdout is no terminal, nothing waits for it.
//!
//! An error of stdout does not stop the run. It decides the exit code at the end ([`failure_of_stdout`]).

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sd_pipeline::save::JSON_SCHEMA;
use serde_json::Value;

use crate::escaping::escaped;
use crate::status_line;

/// Lines that were written to the terminal.
static LINES: AtomicU64 = AtomicU64::new(0);

/// The first error of stdout.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// The first error of stdout, if there was one.
pub(crate) fn failure_of_stdout() -> Option<&'static io::Error> {
    FAILURE.get()
}

/// Writes a list, a plan or a help text to stdout, for people.
pub(crate) fn print(text: &str) {
    let mut shown = String::with_capacity(text.len() + 1);
    for line in text.lines() {
        shown.push_str(&escaped(line));
        shown.push('\n');
    }
    write(shown.as_bytes());
}

/// Writes a line to stdout, for people.
pub(crate) fn print_line(line: &str) {
    write(format!("{}\n", escaped(line)).as_bytes());
}

/// Writes a path to stdout. Where stdout is no terminal its bytes are not changed.
pub(crate) fn print_path(path: &Path) {
    if io::stdout().is_terminal() {
        print_line(&path.display().to_string());
    } else {
        let mut line = path.as_os_str().as_encoded_bytes().to_vec();
        line.push(b'\n');
        write(&line);
    }
}

/// Writes bytes of a file to stdout.
pub(crate) fn print_bytes(bytes: &[u8]) {
    write(bytes);
}

/// Writes a line of JSON to stdout: `value`, which is an object, with the version of its schema. JSON escapes control
/// characters itself.
pub(crate) fn print_json(mut value: Value) {
    value["schema"] = JSON_SCHEMA.into();
    write(format!("{value}\n").as_bytes());
}

/// Writes a line to stderr.
pub(crate) fn note(line: &str) {
    LINES.fetch_add(1, Ordering::Relaxed);
    let line = format!("{}\n", escaped(line));
    // An error of stderr has nowhere to be reported.
    let _ = status_line::above(|| io::stderr().lock().write_all(line.as_bytes()));
}

/// Writes what draws an image to stderr, a terminal.
pub(crate) fn draw(sequence: &[u8]) {
    let _ = status_line::above(|| {
        let mut stderr = io::stderr().lock();
        stderr.write_all(sequence).and_then(|()| stderr.flush())
    });
}

/// How many lines were written to the terminal. As long as their number is the same, what was drawn has not moved.
pub(crate) fn lines_of_terminal() -> u64 {
    LINES.load(Ordering::Relaxed)
}

fn write(bytes: &[u8]) {
    let write = || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush())
    };
    let written = if io::stdout().is_terminal() {
        LINES.fetch_add(1, Ordering::Relaxed);
        status_line::above(write)
    } else {
        write()
    };
    if let Err(error) = written {
        // Only the first error is reported.
        let _ = FAILURE.set(error);
    }
}
