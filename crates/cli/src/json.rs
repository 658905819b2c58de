//! [`Lines`]: the machine-readable progress of a run: one JSON object per line on stdout, each with an `event`.

use sd_pipeline::plan::Plan;
use sd_pipeline::{Event, Observer};
use serde_json::{Value, json};

use crate::terminal;

/// An observer that writes every event as a line.
pub(crate) struct Lines;

impl Observer for Lines {
    fn observe(&mut self, event: &Event<'_>) {
        if let Some(line) = line(event) {
            terminal::print_json(&line);
        }
    }
}

fn line(event: &Event<'_>) -> Option<Value> {
    Some(match event {
        Event::Started { recipe } => json!({ "event": "started", "recipe": recipe }),
        Event::Planned { plan } => json!({ "event": "planned", "plan": plan }),
        Event::Resumed {
            run,
            steps_done,
            steps,
        } => json!({ "event": "resumed", "run": run, "steps_done": steps_done, "steps": steps }),
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
        Event::Warning(warning) => json!({ "event": "warning", "message": warning }),
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
    if let Some(fallback) = fallback {
        line["fallback"] = json!(fallback);
    }
    terminal::print_json(&line);
}

/// Writes an error as the last line.
pub(crate) fn error(message: &str, hint: Option<&str>, code: u8) {
    terminal::print_json(&json!({ "event": "error", "message": message, "hint": hint, "code": code }));
}
