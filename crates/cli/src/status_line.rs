//! The status line: the last line of the terminal, which is redrawn while work goes on.
//!
//! There is one for the process. Other output goes above it ([`above`]).

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::escaping::escaped;

/// The most drawings in a second.
const MOST: u8 = 60;

/// The line, while there is one.
static LINE: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn line() -> MutexGuard<'static, Option<ProgressBar>> {
    // A panic while the lock was held leaves a line that can be drawn again.
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether stderr is a terminal that can redraw a line.
pub(crate) fn is_possible() -> bool {
    stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|name| name != "dumb")
}

/// Draws `text` as the status line, after a sign that turns with each call. What is too long for the terminal is cut.
pub(crate) fn show(text: &str) {
    let mut line = line();
    let bar = line.get_or_insert_with(new_line);
    bar.set_message(escaped(text).into_owned());
    bar.tick();
}

/// Removes the status line.
pub(crate) fn clear() {
    if let Some(bar) = line().take() {
        bar.finish_and_clear();
    }
}

/// As [`clear`], for a process that ends: it waits for nobody.
pub(crate) fn clear_if_free() {
    if let Ok(mut line) = LINE.try_lock()
        && let Some(bar) = line.take()
    {
        bar.finish_and_clear();
    }
}

/// Writes something to the terminal above the status line, if there is one.
pub(crate) fn above<T>(write: impl FnOnce() -> T) -> T {
    match line().as_ref() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

fn new_line() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(MOST));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}
