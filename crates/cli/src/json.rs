//! [`Lines`]: the machine-readable progress of a run: one JSON object per line on stdout, each with an `event`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_pipeline::plan::Plan;
use sd_pipeline::{Event, Observer};
use serde_json::{Value, json};

use crate::preview::base64_png;
use crate::printer::Printer;
use crate::progress::RunProgress;
use crate::terminal;
use crate::ticker::Ticker;

/// The time between two events of progress.
const PACE: Duration = Duration::from_secs(1);

/// An observer that writes every event as a line, and how far the run has come each second.
pub(crate) struct Lines {
    has_previews: bool,
    progress: Arc<Mutex<RunProgress>>,
    /// While a run works.
    ticker: Option<Ticker>,
}

impl Lines {
    /// The lines of a run that starts now, among them its previews if it `has_previews`.
    pub(crate) fn new(has_previews: bool) -> Self {
        let progress = Arc::new(Mutex::new(RunProgress::new()));
        Self {
            has_previews,
            ticker: None,
            progress,
        }
    }

    /// Writes how far the run has come, each second from now on.
    fn start(&mut self) {
        let shown = self.progress.clone();
        self.ticker = Ticker::start(PACE, move || {
            let progress = shown.lock().unwrap_or_else(PoisonError::into_inner);
            let line = progress.json(Instant::now());
            drop(progress);
            if let Some(line) = line {
                terminal::print_json(line);
            }
        });
    }
}

impl Observer for Lines {
    fn observe(&mut self, event: &Event<'_>) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.observe(event, Instant::now());
        drop(progress);
        match event {
            Event::Stage {
                stage: "open" | "encode prompts",
                ..
            } => self.start(),
            Event::Finished { .. } | Event::Kept { .. } => self.ticker = None,
            _ => {}
        }
        if let Some(line) = line(event) {
            terminal::print_json(line);
        }
    }

    fn wants_previews(&self) -> bool {
        self.has_previews
    }
}

fn line(event: &Event<'_>) -> Option<Value> {
    Some(match event {
        Event::Request {
            number,
            count,
            prompt,
        } => json!({ "event": "request", "number": number, "count": count, "prompt": prompt }),
        Event::Started { recipe } => json!({ "event": "started", "recipe": recipe }),
        Event::Planned { plan } => json!({ "event": "planned", "plan": plan }),
        Event::Resumed {
            run,
            steps_done,
            steps,
        } => json!({ "event": "resumed", "run": run, "steps_done": steps_done, "steps": steps }),
        Event::Stage { stage, .. } => json!({ "event": "stage", "stage": stage }),
        Event::Memory(reading) => json!({ "event": "memory", "reading": reading }),
        Event::Step {
            image,
            images,
            step,
            steps,
            duration,
        } => json!({
            "event": "step",
            "image": image,
            "images": images,
            "step": step,
            "steps": steps,
            "seconds": duration.as_secs_f64(),
        }),
        Event::Preview(preview) => json!({
            "event": "preview",
            "image": preview.image,
            "images": preview.images,
            "step": preview.step,
            "steps": preview.steps,
            "width": preview.pixels.width(),
            "height": preview.pixels.height(),
            "png": base64_png(&preview.pixels)?,
        }),
        Event::Warning(message) => warning_line(message),
        Event::LeftOut { what, reason } => {
            json!({ "event": "warning", "message": format!("{what} is left out: {reason}"), "left_out": what })
        }
        Event::Saved(image) => json!({
            "event": "saved",
            "image": image.image,
            "metadata": image.metadata,
            "index": image.index,
            "seed": image.seed,
        }),
        Event::Kept { run } => json!({ "event": "kept", "run": run }),
        Event::Finished { duration } => json!({ "event": "finished", "seconds": duration.as_secs_f64() }),
        _ => return None,
    })
}

/// Writes a plan as one line, with the reason why no GPU computes, if there is one, as `fallback`.
pub(crate) fn plan(plan: &Plan, fallback: Option<&str>) {
    let mut line = json!(plan);
    line["event"] = json!("plan");
    if let Some(fallback) = fallback {
        line["fallback"] = json!(fallback);
    }
    terminal::print_json(line);
}

/// Writes a warning that no run has an event for: as an event with `--json`, else for people, with `--quiet` too.
pub(crate) fn warn_outside_runs(printer: Printer, message: &str) {
    match printer.json {
        true => terminal::print_json(warning_line(message)),
        false => printer.warn(message),
    }
}

fn warning_line(message: &str) -> Value {
    json!({ "event": "warning", "message": message })
}

/// Writes an error as the last line.
pub(crate) fn error(message: &str, hint: Option<&str>, code: u8) {
    terminal::print_json(json!({ "event": "error", "message": message, "hint": hint, "code": code }));
}
