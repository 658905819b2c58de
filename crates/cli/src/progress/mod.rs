//! [`Display`]: the human-readable progress of a run: what it does now, memory readings, warnings, and image paths.

mod bar;
mod durations;
mod memory_lines;
mod run_progress;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub(crate) use bar::bar;
pub(crate) use durations::clock;
use memory_lines::MemoryLines;
pub(crate) use run_progress::RunProgress;
use sd_pipeline::seed::Seeds;
use sd_pipeline::{Event, Observer, Recipe};

use crate::activity::Activity;
use crate::preview::Screen;
use crate::printer::Printer;
use crate::terminal;

/// The display of one run, until it is dropped.
pub(crate) struct Display {
    printer: Printer,
    progress: Arc<Mutex<RunProgress>>,
    memory: MemoryLines,
    activity: Activity,
    /// Where previews are drawn, if they are wanted.
    screen: Option<Screen>,
}

impl Display {
    /// The display of a run that starts now, with previews on `screen`.
    pub(crate) fn new(printer: Printer, screen: Option<Screen>) -> Self {
        let progress = Arc::new(Mutex::new(RunProgress::new()));
        let shown = progress.clone();
        let text = move |place| {
            let progress = shown.lock().unwrap_or_else(PoisonError::into_inner);
            Some(progress.text(place, Instant::now()))
        };
        Self {
            printer,
            progress,
            memory: MemoryLines::new(printer.verbose),
            activity: Activity::start(printer, text),
            screen,
        }
    }

    fn note(&self, line: &str) {
        self.printer.note(line);
    }
}

/// The settings of a run in one line.
pub(crate) fn settings(recipe: &Recipe) -> String {
    let steps = match recipe.steps {
        1 => "1 step".to_owned(),
        steps => format!("{steps} steps"),
    };
    format!(
        "{}: {}, {steps}, guidance {}, {}",
        recipe.model,
        recipe.size,
        recipe.guidance_scale.0,
        seeds(recipe)
    )
}

/// The seeds of a run in a few words.
fn seeds(recipe: &Recipe) -> String {
    let first = recipe.seeds.first();
    match (&recipe.seeds, recipe.images) {
        (_, 1) => format!("seed {first}"),
        (Seeds::From(_), images) => format!("seeds {first} to {}", recipe.seeds.of(images - 1)),
        (Seeds::Each(_), images) => format!("seed {first} and {} more", images - 1),
    }
}

impl Observer for Display {
    fn observe(&mut self, event: &Event<'_>) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.observe(event, Instant::now());
        drop(progress);
        match event {
            Event::Request {
                number,
                count,
                prompt,
            } => self.note(&format!("prompt {number} of {count}: {prompt}")),
            Event::Started { recipe } => self.note(&settings(recipe)),
            Event::Resumed {
                run,
                steps_done,
                steps,
            } => self.note(&format!(
                "Resuming the run {run} after {steps_done} of {steps} steps"
            )),
            Event::Stage { .. } | Event::Step { .. } => self.activity.draw(),
            Event::Memory(reading) => {
                if let Some(line) = self.memory.line(reading) {
                    self.note(&line);
                }
            }
            Event::Preview(preview) => {
                if let Some(screen) = &mut self.screen {
                    screen.show(preview);
                }
            }
            Event::Warning(warning) => self.printer.warn(warning),
            Event::LeftOut { what, reason } => {
                self.printer.warn(&format!("{what} is left out: {reason}"));
            }
            Event::Saved(image) => terminal::print_path(&image.image),
            Event::Finished { duration } => self.note(&format!("Done in {:.1} s", duration.as_secs_f64())),
            _ => {}
        }
    }

    fn wants_previews(&self) -> bool {
        self.screen.is_some()
    }
}
