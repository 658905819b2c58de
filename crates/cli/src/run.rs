//! Runs the pipeline with a progress display or JSON lines, a profile page, and signal handling.

use std::path::Path;

use sd_pipeline::profile::profiled;
use sd_pipeline::{Event, Interrupt, Observer, SavedImage};

use crate::hint::Failure;
use crate::printer::Printer;
use crate::stdout_image::StdoutImage;
use crate::{json, progress, signals};

/// Calls `pipeline` with an observer that prints its events and an interrupt that signals raise. With `profile` the
/// run's memory over time is written to a page at that path. With `stdout` the image is written to stdout.
///
/// # Errors
/// The run failed or was interrupted. The hint names the run if it can be resumed.
pub(crate) fn execute(
    printer: Printer,
    profile: Option<&Path>,
    stdout: Option<&StdoutImage>,
    pipeline: impl FnOnce(&mut dyn Observer, &Interrupt) -> sd_pipeline::Result<Vec<SavedImage>>,
) -> Result<Vec<SavedImage>, Failure> {
    let interrupt = signals::interrupt()?;
    let mut lines = json::Lines;
    let mut display = progress::Display::new(printer.quiet);
    let shown: &mut dyn Observer = if printer.json { &mut lines } else { &mut display };
    let mut kept = None;
    let mut observer = |event: &Event<'_>| {
        if let Event::Kept { run } = event {
            kept = Some((*run).to_owned());
        }
        match (event, stdout) {
            (Event::Saved(image), Some(stdout)) => stdout.write(image),
            _ => shown.observe(event),
        }
    };
    let outcome = match profile {
        Some(path) => profiled(path, &mut observer, |observer| pipeline(observer, interrupt)),
        None => pipeline(&mut observer, interrupt),
    };
    display.finish();
    match outcome {
        Ok(images) => Ok(images),
        Err(error) => Err(Failure::of_run(error, kept.as_deref())),
    }
}
