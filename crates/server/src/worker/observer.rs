//! [`JobObserver`]: what a run reports, for the clients of its job.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sd_pipeline::{Event, Observer, Preview};

use super::result_image;
use crate::events::Events;
use crate::job::{MemoryView, PreviewView, Progress};
use crate::lock::lock;
use crate::running::Running;

/// The least time between two previews, which are made of a step.
const BETWEEN_PREVIEWS: Duration = Duration::from_millis(250);
/// Readings of the memory that are kept.
const READINGS: usize = 500;

/// Reports the events of a run to the clients of its job.
pub(crate) struct JobObserver<'a> {
    events: &'a Events,
    /// Called when an image has been saved.
    saved: &'a dyn Fn(),
    running: &'a Running,
    began: Instant,
    progress: Progress,
    /// Seconds of a step, as an average in which the last ones count most.
    pace: Option<f64>,
    budget: Option<u64>,
    warnings: Vec<String>,
    last_preview: Option<Instant>,
}

impl<'a> JobObserver<'a> {
    pub(crate) fn new(
        events: &'a Events,
        running: &'a Running,
        budget: Option<u64>,
        saved: &'a dyn Fn(),
    ) -> Self {
        Self {
            events,
            saved,
            running,
            began: Instant::now(),
            progress: Progress {
                stage: "open".to_owned(),
                image: 0,
                images: 1,
                step: 0,
                steps: 0,
                fraction: 0.0,
                seconds_left: None,
            },
            pace: None,
            budget,
            warnings: Vec::new(),
            last_preview: None,
        }
    }

    /// The warnings of the run.
    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    fn report(&mut self) {
        *lock(&self.running.progress) = Some(self.progress.clone());
        self.events.progress(self.running, &self.progress);
    }

    fn step(&mut self, image: usize, images: usize, step: usize, steps: usize, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let pace = self.pace.map_or(seconds, |pace| 0.7 * pace + 0.3 * seconds);
        self.pace = Some(pace);
        let (done, all) = (image * steps + step, images * steps);
        self.progress = Progress {
            stage: std::mem::take(&mut self.progress.stage),
            image,
            images,
            step,
            steps,
            fraction: done as f64 / all.max(1) as f64,
            seconds_left: Some(pace * all.saturating_sub(done) as f64),
        };
        self.report();
    }

    fn preview(&mut self, preview: &Preview) {
        let now = Instant::now();
        let is_soon = self
            .last_preview
            .is_some_and(|last| now.duration_since(last) < BETWEEN_PREVIEWS);
        if is_soon || !self.events.are_heard() {
            return;
        }
        self.last_preview = Some(now);
        if let Some(png) = preview.pixels.to_png() {
            let view = PreviewView {
                image: preview.image,
                step: preview.step,
                steps: preview.steps,
                png: STANDARD.encode(png),
            };
            *lock(&self.running.preview) = Some(view.clone());
            self.events.preview(self.running, &view);
        }
    }
}

impl Observer for JobObserver<'_> {
    fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { recipe } => {
                (self.progress.images, self.progress.steps) = (recipe.images, recipe.steps);
            }
            Event::Planned { plan } => self.budget = Some(plan.budget.0),
            Event::Stage { stage, .. } => {
                self.progress.stage = (*stage).to_owned();
                self.report();
            }
            Event::Step {
                image,
                images,
                step,
                steps,
                duration,
            } => self.step(*image, *images, *step, *steps, *duration),
            Event::Saved(saved) => {
                lock(&self.running.images).push(result_image(saved));
                (self.saved)();
            }
            Event::Preview(preview) => self.preview(preview),
            Event::Memory(reading) => {
                let view = MemoryView {
                    at: self.began.elapsed().as_secs_f64(),
                    process: reading.memory.process.0,
                    budget: self.budget,
                    device: reading.device.as_ref().map(|device| device.used.0),
                    stage: reading.label.clone(),
                };
                let mut readings = lock(&self.running.readings);
                if readings.len() < READINGS {
                    readings.push(view.clone());
                }
                drop(readings);
                self.events.memory(self.running, &view);
            }
            Event::Warning(message) => self.warnings.push((*message).to_owned()),
            Event::LeftOut { what, reason } => self.warnings.push(format!("{what} is left out: {reason}")),
            _ => {}
        }
    }

    fn wants_previews(&self) -> bool {
        true
    }
}
