//! The chart of the bytes of weights read, accumulated over the run.

use sd_memory::{Bytes, Timeline};

use super::{Paper, area, byte_tick, byte_ticks, curve};
use crate::profile::markup::{Element, element};
use crate::profile::units;

const PAPER: Paper = Paper {
    width: 540.0,
    height: 220.0,
    left: 62.0,
    right: 516.0,
    top: 16.0,
    bottom: 190.0,
};

/// The chart of the reads in `timeline`, or None if there were none.
pub(in crate::profile) fn weights(timeline: &Timeline) -> Option<Element> {
    let total = timeline.weights_read();
    if total == Bytes(0) {
        return None;
    }
    let across = PAPER.across(timeline.seconds);
    let up = PAPER.up(1.05 * total.0 as f64);
    let end = (across.coordinate(timeline.seconds), up.coordinate(total.0 as f64));
    let points = timeline.samples.iter().map(|sample| {
        (
            across.coordinate(sample.seconds),
            up.coordinate(sample.weights_read.0 as f64),
        )
    });
    let points: Vec<(f64, f64)> = points.chain([end]).collect();
    let description = format!(
        "{total} of weights were read over {}",
        units::time(timeline.seconds)
    );
    let svg = PAPER.svg("weights", &description);
    let svg = svg.child(PAPER.value_axis(up, &byte_ticks(up, total), byte_tick));
    let svg = svg.child(
        element("path")
            .with("class", "read-area")
            .with("d", area(&points, PAPER.bottom)),
    );
    let svg = svg.child(element("path").with("class", "read").with("d", curve(&points)));
    Some(svg.child(PAPER.time_axis(across)))
}
