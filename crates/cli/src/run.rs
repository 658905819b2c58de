//! Runs the pipeline with a progress display or JSON lines, a profile page, and signal handling.

use std::path::Path;

use sd_pipeline::profile::profiled;
use sd_pipeline::{Event, Interrupt, Observer, SavedImage};

use crate::hint::Failure;
use crate::json;
use crate::preview::{PreviewChoice, Screen};
use crate::printer::Printer;
use crate::progress::Display;
use crate::stdout_image::StdoutImage;
use crate::{signals, viewer};

/// How a run is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Show<'a> {
    pub(crate) printer: Printer,
    /// Where the page with the run's memory over time is written.
    pub(crate) profile: Option<&'a Path>,
    /// Whether images are shown while they form.
    pub(crate) preview: Option<PreviewChoice>,
    /// Whether the first image is opened in the system's viewer at the end.
    pub(crate) opens: bool,
}

/// Calls `pipeline` with an observer that prints its events and an interrupt that signals raise. With `stdout` the
/// image is written to stdout.
///
/// # Errors
/// The run failed or was interrupted. The hint names the run if it can be resumed.
pub(crate) fn execute(
    show: Show<'_>,
    stdout: Option<&StdoutImage>,
    pipeline: impl FnOnce(&mut dyn Observer, &Interrupt) -> sd_pipeline::Result<Vec<SavedImage>>,
) -> Result<Vec<SavedImage>, Failure> {
    let Show {
        printer,
        profile,
        preview,
        opens,
    } = show;
    let interrupt = signals::interrupt()?;
    let shown: Box<dyn Observer> = if printer.json {
        Box::new(json::Lines::new(preview.is_some()))
    } else {
        let screen = preview.and_then(|choice| Screen::open(choice, printer));
        Box::new(Display::new(printer, screen))
    };
    let mut observer = Watched {
        shown,
        stdout,
        kept: None,
        left: 0,
    };
    let outcome = match profile {
        Some(path) => profiled(path, &mut observer, |observer| pipeline(observer, interrupt)),
        None => pipeline(&mut observer, interrupt),
    };
    // The display ends before an error is reported.
    let Watched {
        shown, kept, left, ..
    } = observer;
    drop(shown);
    match outcome {
        Ok(images) => {
            if let (true, Some(first), None) = (opens, images.first(), stdout) {
                viewer::open_or_warn(&first.image, printer);
            }
            Ok(images)
        }
        Err(error) => {
            let prompts = match left {
                0 => None,
                1 => Some("the prompt after it was not begun".to_owned()),
                left => Some(format!("the {left} prompts after it were not begun")),
            };
            if let Some(prompts) = prompts {
                let warning = match kept {
                    Some(_) => format!("{prompts}: `generate resume` goes on with them too"),
                    None => prompts,
                };
                json::warn_outside_runs(printer, &warning);
            }
            Err(Failure::of_run(error, kept.as_deref()))
        }
    }
}

/// Shows the events of a run, and remembers the run that is kept, and how many follow it.
struct Watched<'a> {
    shown: Box<dyn Observer>,
    stdout: Option<&'a StdoutImage>,
    kept: Option<String>,
    /// How many requests follow the one that runs.
    left: usize,
}

impl Observer for Watched<'_> {
    fn observe(&mut self, event: &Event<'_>) {
        if let Event::Kept { run } = event {
            self.kept = Some((*run).to_owned());
        }
        if let Event::Request { number, count, .. } = event {
            self.left = count - number;
        }
        match (event, self.stdout) {
            (Event::Saved(image), Some(stdout)) => stdout.write(image),
            _ => self.shown.observe(event),
        }
    }

    fn wants_previews(&self) -> bool {
        self.shown.wants_previews()
    }
}
