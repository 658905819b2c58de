//! [`Printer`]: what `--json`, `--quiet` and `--verbose` let the command write.

use crate::terminal;

/// What one command prints, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    /// Whether stdout holds one JSON event per line.
    pub(crate) json: bool,
    /// Whether only results, warnings and errors are printed.
    pub(crate) quiet: bool,
    /// Whether every reading of the memory is printed.
    pub(crate) verbose: bool,
}

impl Printer {
    /// Writes a line to stderr for people: neither with `--quiet` nor with `--json`.
    pub(crate) fn note(self, line: &str) {
        if !self.quiet && !self.json {
            terminal::note(line);
        }
    }

    /// Writes several lines as [`note`](Self::note) does.
    pub(crate) fn note_lines(self, text: &str) {
        text.lines().for_each(|line| self.note(line));
    }

    /// Writes a warning to stderr for people, with `--quiet` too. With `--json` it is in an event or in a document.
    pub(crate) fn warn(self, warning: &str) {
        if !self.json {
            terminal::note(&format!("warning: {warning}"));
        }
    }
}
