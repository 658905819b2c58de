//! [`Display`]: the human-readable progress of a run: memory readings, a progress bar, warnings, and image paths.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sd_pipeline::seed::Seeds;
use sd_pipeline::{Event, Observer, Recipe};

use crate::terminal;

/// The display of one run.
pub(crate) struct Display {
    quiet: bool,
    /// Only where stderr is a terminal.
    bar: Option<ProgressBar>,
}

impl Display {
    /// A display. With `quiet` it shows only image paths and what is left out.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, bar: None }
    }

    /// Removes the bar.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn note(&self, line: &str) {
        if !self.quiet {
            self.write(line);
        }
    }

    /// Writes a line, also with `--quiet`.
    fn write(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| terminal::note(line)),
            None => terminal::note(line),
        }
    }

    /// Counts a step. `all` is the number of steps of all images together.
    fn step(&mut self, all: u64, image: usize, images: usize, duration: Duration) {
        if self.quiet || !stderr().is_terminal() {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| new_bar(all));
        let of_images = if images > 1 {
            format!("image {} of {images}, ", image + 1)
        } else {
            String::new()
        };
        bar.set_message(format!("{of_images}{:.2} s/step", duration.as_secs_f64()));
        bar.inc(1);
        if bar.position() >= all {
            self.finish();
        }
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

fn new_bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
    let template = "{bar:30} {pos}/{len} steps, {msg}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

impl Observer for Display {
    fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { recipe } => self.note(&settings(recipe)),
            Event::Resumed {
                run,
                steps_done,
                steps,
            } => self.note(&format!(
                "Resuming the run {run} after {steps_done} of {steps} steps"
            )),
            Event::Memory(reading) => self.note(&format!("💾 Memory [{}]: {}", reading.label, reading)),
            Event::Step {
                image,
                images,
                steps,
                duration,
                ..
            } => self.step((images * steps) as u64, *image, *images, *duration),
            Event::Warning(warning) => self.note(&format!("warning: {warning}")),
            Event::LeftOut { what, reason } => self.write(&format!("warning: {what} is left out: {reason}")),
            Event::Saved(image) => terminal::print_path(&image.image),
            Event::Finished { duration } => self.note(&format!("Done in {:.1} s", duration.as_secs_f64())),
            _ => {}
        }
    }
}
