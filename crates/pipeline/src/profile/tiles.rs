//! The key figures, each on a tile.

use std::fmt::Display;

use sd_memory::Bytes;

use super::markup::{Element, element};
use super::{Profile, charts, units};

/// The tiles of the key figures.
pub(super) fn tiles(profile: &Profile) -> Element {
    let timeline = &profile.timeline;
    let mut tiles = Vec::new();
    let under = profile.budget.map(|budget| {
        let share = share(timeline.peak, budget);
        (
            format!("{} of the budget of {budget}", units::percent(share)),
            share,
        )
    });
    tiles.push(match under {
        Some((words, share)) => tile("Peak memory", timeline.peak, words).child(gauge(share)),
        None => tile("Peak memory", timeline.peak, "the most that was resident"),
    });
    if let Some(predicted) = profile.predicted_peak {
        let measured = units::percent(share(timeline.peak, predicted));
        tiles.push(tile(
            "Predicted peak",
            predicted,
            format!("measured: {measured} of it"),
        ));
    }
    let allocated = timeline
        .samples
        .iter()
        .map(|sample| sample.allocated)
        .max()
        .unwrap_or_default();
    if allocated > Bytes(0) {
        tiles.push(tile(
            "Allocated at most",
            allocated,
            "at a time, counted by the program",
        ));
    }
    let saved = match profile.images.len() {
        0 => "no image saved".to_owned(),
        1 => "1 image saved".to_owned(),
        count => format!("{count} images saved"),
    };
    tiles.push(tile("Time", units::time(timeline.seconds), saved));
    if let Some(median) = charts::median(&profile.steps) {
        tiles.push(tile(
            "A step",
            units::time(median),
            format!("median of {}", profile.steps.len()),
        ));
    }
    let read = timeline.weights_read();
    if read > Bytes(0) {
        let rate = Bytes((read.0 as f64 / timeline.seconds.max(f64::MIN_POSITIVE)) as u64);
        tiles.push(tile("Weights read", read, format!("{rate} a second on average")));
    }
    element("section")
        .with("class", "tiles")
        .with("aria-label", "Figures")
        .children(tiles)
}

fn tile(name: &str, value: impl Display, words: impl Display) -> Element {
    element("div")
        .with("class", "tile")
        .child(element("h2").text(name))
        .child(element("p").with("class", "value").text(value))
        .child(element("p").with("class", "words").text(words))
}

fn share(part: Bytes, whole: Bytes) -> f64 {
    part.0 as f64 / whole.0.max(1) as f64
}

/// A bar with the used share of the budget.
fn gauge(share: f64) -> Element {
    let class = if share > 1.0 { "gauge over" } else { "gauge" };
    let fill = element("span").with("style", format!("width:{:.1}%", 100.0 * share.clamp(0.0, 1.0)));
    element("div")
        .with("class", class)
        .with("aria-hidden", "true")
        .child(fill)
}
