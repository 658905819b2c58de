//! Ctrl-C and SIGTERM: the first signal interrupts the run after the current step, the second ends the process.

use std::sync::OnceLock;

use sd_pipeline::Interrupt;

use crate::hint::{self, Failure};
use crate::{status_line, terminal};

/// The interrupt that the first signal raises. The first call installs the signal handler.
///
/// # Errors
/// The handler cannot be installed.
pub(crate) fn interrupt() -> Result<&'static Interrupt, Failure> {
    static INTERRUPT: OnceLock<Interrupt> = OnceLock::new();
    if let Some(interrupt) = INTERRUPT.get() {
        return Ok(interrupt);
    }
    let interrupt = INTERRUPT.get_or_init(Interrupt::default);
    let handler = || {
        if interrupt.is_raised() {
            status_line::clear_if_free();
            std::process::exit(i32::from(hint::INTERRUPTED));
        }
        interrupt.raise();
        terminal::note("finishing the current step; press Ctrl-C again to quit now");
    };
    ctrlc::set_handler(handler)
        .map_err(|error| Failure::other(format!("cannot listen for signals: {error}")))?;
    Ok(interrupt)
}
