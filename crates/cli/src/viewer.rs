//! `--open`: shows an image in the system's viewer.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::printer::Printer;

/// Opens the image at `path`, or warns that it cannot be.
pub(crate) fn open_or_warn(path: &Path, printer: Printer) {
    if let Err(error) = open(path) {
        printer.warn(&format!("the image cannot be opened in a viewer: {error}"));
    }
}

/// Opens the image at `path` with the program that the system has for it, and does not wait for that.
///
/// # Errors
/// The system has no such program.
fn open(path: &Path) -> io::Result<()> {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if cfg!(windows) {
        "explorer"
    } else {
        "xdg-open"
    };
    // A path that begins with a dash would be an option.
    let path = std::path::absolute(path)?;
    Command::new(program)
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
}
